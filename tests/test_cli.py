"""The command line: help for newcomers, one line for each error."""
import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from fmwsss.app.cli import NOTEBOOKS, app
from fmwsss.app.presets import benchmarks_folder, load_preset, merge, parse_settings

call = lambda *words: CliRunner().invoke(app, list(words), env=dict(COLUMNS="120", TERM="dumb"))


def one_line(result):
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


@pytest.mark.parametrize("command", ["reproduce", "models", "plan", "data", "masks", "export", "compare"])
def test_help(command):
    result = call(command, "--help")
    assert result.exit_code == 0 and "Usage" in result.output
    assert command in call("--help").output


def test_unknown_preset_names_the_known_ones(): assert "minivoc" in one_line(call("reproduce", "minivok"))
def test_unknown_notebook(tmp_path): assert "seeds" in one_line(call("reproduce", "minivoc", "--only", "seedz", "--out", str(tmp_path)))
def test_unknown_parameter(tmp_path): assert "sede" in one_line(call("reproduce", "minivoc", "--set", "sede=1", "--out", str(tmp_path)))
def test_malformed_setting(): assert "KEY=VALUE" in one_line(call("reproduce", "minivoc", "--set", "seed"))
def test_missing_data_folder(): assert "nowhere" in one_line(call("data", "nowhere"))


def test_broken_preset(tmp_path):
    (tmp_path / "p.yaml").write_text("a: [1\n")
    assert "not valid YAML" in one_line(call("reproduce", str(tmp_path / "p.yaml")))
    (tmp_path / "p.yaml").write_text("- 1\n")
    assert "parameter: value" in one_line(call("reproduce", str(tmp_path / "p.yaml")))


def test_settings_reach_into_groups():
    preset = load_preset("minivoc")
    merged = merge(preset, parse_settings(["masks.sam.points_per_side=8", "seed=3"]))
    assert merged["seed"] == 3 and merged["masks"]["sam"] == dict(preset["masks"]["sam"], points_per_side=8)
    with pytest.raises(ValueError, match="no parameter"): merge(preset, parse_settings(["masks.sam.points=8"]))


@pytest.mark.parametrize("preset", ["minivoc", "voc2012", "voc2012-vitb", "coco2014", "coco2014-vitb", "folder"])
def test_notebooks_declare_what_the_preset_sets(preset):
    import papermill
    parameters = load_preset(preset)
    declared = set().union(*[papermill.inspect_notebook(str(f)) for f in benchmarks_folder().glob("*.ipynb")])      # others than the preset's own can be asked for
    assert set(parameters.get("notebooks", NOTEBOOKS)) <= {f.stem for f in benchmarks_folder().glob("*.ipynb")}
    assert set(parameters) - {"quick", "notebooks"} <= declared


@pytest.mark.parametrize("kind", ["voc2012", "coco2014"])
def test_the_small_preset_differs_where_it_says(kind):
    flat = lambda d, at="": {k: v for key, value in d.items() for k, v in (flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}).items()}
    full, small = flat(load_preset(kind)), flat(load_preset(f"{kind}-vitb"))
    assert full.keys() == small.keys()
    assert {k for k in full if full[k] != small[k]} == {"workers", "models.sam", "masks.sam.points_per_batch", "classification.training.precision", "segmentation.training.precision"}


def test_minivoc_is_drawn_and_listed(tmp_path):
    result = call("data", "minivoc", "--root", str(tmp_path / "d"), "--train", "4", "--tune", "2", "--val", "2")
    assert result.exit_code == 0, result.output
    assert "train" in result.output and len(list((tmp_path / "d" / "JPEGImages").iterdir())) == 8


# ---- plan, export, compare, masks

def test_plan_lists_stages_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("plan", "voc2012", "--device", "cuda")
    assert result.exit_code == 0 and "10,582" in result.output and "rough" in result.output and "masks_sam" in result.output and not list(tmp_path.iterdir())
    assert "2.56" in result.output and "to download" in result.output and "measured" not in result.output.replace("as measured", "")      # SAM ViT-H in gigabytes
    assert call("plan", "voc2012", "--device", "cuda", "--set", "data.images.train=100").output.count("10,582") < result.output.count("10,582")
    assert "KEY=VALUE" in one_line(call("plan", "voc2012", "--set", "x"))
    assert "no records" in one_line(call("plan", "voc2012", "--run", str(tmp_path)))
    assert "tpu" in one_line(call("plan", "voc2012", "--device", "tpu"))
    assert "quick" in one_line(call("plan", "voc2012", "--quick"))


def test_plan_uses_the_seconds_of_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/voc2012/records").mkdir(parents=True)
    (tmp_path / "runs/voc2012/records/seeds.json").write_text(json.dumps(dict(stages=[dict(stage="masks_sam", part="val", computed=100, seconds=360.)])))
    row = next(line for line in call("plan", "voc2012").output.splitlines() if line.split()[:2] == ["masks_sam", "train_aug"])
    assert row.split()[-2:] == ["10.58", "measured"]                                                     # 3.6 s an image


@pytest.fixture
def finished(tmp_path):
    "What a finished run leaves: data, run.json and pseudo labels of the training split."
    from fmwsss.minivoc import writing
    from fmwsss.data.voc import VOCDataset
    from fmwsss.data.label_maps import save_label
    run = tmp_path / "run"
    writing.write(run / "data", splits=dict(train=3))
    (run / "pseudo_labels/train").mkdir(parents=True)
    dataset = VOCDataset(run / "data", "train")
    for i, name in enumerate(dataset.ids): save_label(run / f"pseudo_labels/train/{name}.png", np.where(dataset.mask(i) == 255, 0, dataset.mask(i)).astype(np.uint8))
    (run / "run.json").write_text(json.dumps(dict(parameters=dict(data=dict(kind="minivoc", root=None)))))
    return run


def test_export_for_mmsegmentation(finished):
    result = call("export", str(finished))
    assert result.exit_code == 0, result.output
    made = finished / "export/mmseg"
    assert len(list((made / "ann_dir/train").iterdir())) == len(list((made / "img_dir/train").iterdir())) == 3 and (made / "meta.json").exists()


def test_export_for_the_voc_server(finished):
    assert call("export", str(finished), "--to", "voc").exit_code == 0
    assert (finished / "export/voc/results.tgz").exists() and len(list((finished / "export/voc/results/VOC2012/Segmentation/comp6_test_cls").iterdir())) == 3


def test_export_faults(finished, tmp_path):
    assert "pseudo labels" in one_line(call("export", str(tmp_path / "nowhere")))
    assert "mmseg or voc" in one_line(call("export", str(finished), "--to", "coco"))
    assert "no pseudo labels of split val" in one_line(call("export", str(finished), "--split", "val"))
    (finished / "pseudo_labels/train/x.png").write_bytes(next((finished / "pseudo_labels/train").glob("*.png")).read_bytes())
    assert "x.png belongs to no image" in one_line(call("export", str(finished)))
    (finished / "run.json").unlink()
    assert "run.json" in one_line(call("export", str(finished)))


def test_compare_prints_and_writes_a_page(tmp_path):
    from report_run import make_run
    for name in "ab": make_run(tmp_path / name)
    (tmp_path / "b/tables/seeds.csv").write_text((tmp_path / "a/tables/seeds.csv").read_text().replace("0.6", "0.7"))
    result = call("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 0 and "mIoU" in result.output and (tmp_path / "b/compared_with_a.html").stat().st_size > 1000
    assert "nowhere" in one_line(call("compare", str(tmp_path / "a"), str(tmp_path / "nowhere")))


def test_masks_tells_what_is_wrong_with_a_folder(tmp_path):
    assert "nowhere" in one_line(call("masks", str(tmp_path / "nowhere")))
    assert "labels.csv" in one_line(call("masks", str(tmp_path)))
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,dog\n")
    assert "a.jpg" in one_line(call("masks", str(tmp_path)))


def test_masks_for_own_photos(tmp_path):
    "Photos of several sizes and kinds, odd names, one of them damaged -> a palette PNG for each other one, with its own classes only."
    from PIL import Image
    from fmwsss.minivoc.scenes import scene
    from fmwsss.data.label_maps import load_label
    from fmwsss.method.labels import VOC_CLASSES
    photos, run, rows = tmp_path / "my photos", tmp_path / "run", ["image,labels"]
    photos.mkdir()
    for seed, name in enumerate(["a b.png", "größe.jpg", "c.jpg", "d.png"]):
        s = scene(seed, (72, 96 + 8 * seed))
        Image.fromarray(s.image).save(photos / name)
        rows.append(f"{name},{';'.join(sorted({VOC_CLASSES[kind] for _, kind in s.objects}))}")
    (photos / "c.jpg").write_bytes((photos / "c.jpg").read_bytes()[:500])
    (photos / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    small = dict(steps=2, warmup=1, batch_size=2)
    task = dict(training=small, views=dict(size=64, scale=[72, 96], short_min=64))
    settings = dict(models=dict(clip="miniclip", clip_weights=None, sam="minisam"), masks=dict(sam=dict(points_per_side=6, pred_iou_thresh=0.5, stability_thresh=0.5)), classification=task, segmentation=task, workers=1, strips=2)
    preset = tmp_path / "small.yaml"
    preset.write_text(yaml.safe_dump(merge(load_preset("folder"), settings)))
    result = call("masks", str(photos), "--preset", str(preset), "--out", str(run), "--quiet")
    assert result.exit_code == 0, result.output
    assert "pseudo_labels" in result.output
    made = {p.stem: p for p in (run / "pseudo_labels/all").glob("*.png")}
    classes = sorted({c for row in rows[1:] for c in row.split(",")[1].split(";")})
    for row in rows[1:]:
        name, kinds = row.split(",")
        if name == "c.jpg": continue
        label = load_label(made[name.rsplit(".")[0]])
        assert label.shape == np.asarray(Image.open(photos / name)).shape[:2]
        assert set(np.unique(label)) - {0} <= {classes.index(k) + 1 for k in kinds.split(";")} and label.any()
    record = json.loads((run / "run.json").read_text())
    assert len(made) == 3 and list(record["skipped"]) == ["c"] and "c.jpg is no readable image" in record["skipped"]["c"]
    assert "c.jpg is no readable image" in result.output and "c.jpg is no readable image" in (run / "report.html").read_text(encoding="utf-8")
