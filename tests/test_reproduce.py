"""The main job in small: a few pictures and iterations through every stage, then again."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from fmwsss.app.presets import parse_settings
from fmwsss.app.runner import reproduce


NOTEBOOKS = ["seeds", "models", "segmentation", "baselines", "gallery", "published"]

SMALL = [
    "data.images={train: 10, tune: 6, val: 6}",
    "workers=1",
    "masks.sam.points_per_side=6",
    "classification.training={steps: 6, warmup: 1, lr: [0.001, 0.02]}",
    "segmentation.training={steps: 3, warmup: 1, lr: 0.05}",
    "seeding.powers=[1, 2]",
    "seeding.box_thresholds=[0.4]",
    "strips=2",
    "network_training={steps: 3, batch_size: 4, warmup: 1}",
    "sharpness_images=6",
    "plain_cam.steps=5",
]


def small(*more) -> dict:
    "Changes of a small run."
    return parse_settings([*SMALL, *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    options = dict(changes=small(), progress=False, command="fmwsss reproduce minivoc")
    return out, reproduce("minivoc", out, NOTEBOOKS, **options)


def read(out, table):
    "A table of a run."
    return pd.read_csv(out / "tables" / f"{table}.csv")


def computed(out, notebook="seeds") -> dict:
    "{stage: how much was computed} of a notebook."
    found = {}
    for stage in json.loads((out / "records" / f"{notebook}.json").read_text())["stages"]:
        found[stage["stage"]] = found.get(stage["stage"], 0) + stage["computed"]
    return found


def test_every_notebook_ran(run):
    out, record = run
    found = [(n["name"], n["ok"], n["error"]) for n in record["notebooks"]]
    assert found == [(name, True, None) for name in NOTEBOOKS]
    assert all((out / "notebooks" / f"{name}.ipynb").exists() for name in NOTEBOOKS)


def test_table_of_seeds(run):
    seeds = read(run[0], "seeds")
    assert set(seeds.task) == {"fixed", "classification", "segmentation"}
    assert set(seeds.split) == {"train", "val"}
    methods = {"cam", "caa", "caa_uniform", "crf", "sams", "sams_felzenszwalb", "bound"}
    assert methods == set(seeds.method) and len(seeds) == 3 * 2 * len(methods)
    assert seeds.miou.between(0, 1).all() and (seeds.low <= seeds.high).all()
    known = seeds[seeds.method != "bound"]
    assert (known.seconds_per_image > 0).all() and (seeds.skipped == 0).all()


def test_other_tables(run):
    models, chosen = read(run[0], "models"), read(run[0], "settings")
    assert list(models) == ["model", "measure", "value", "target"]
    assert models.target.notna().sum() == 6
    assert set(chosen.chosen_on) == {"tune"} and len(chosen) == 3 * 6
    tried = read(run[0], "prompt_learning")
    assert tried.task.tolist() == ["classification"] * 2 + ["segmentation"]
    assert len(read(run[0], "seeds_per_class")) == 21


def miou_of(folder, truth):
    "Mean over the classes of the truth of scikit-learn's Jaccard score, from maps on disk."
    files = sorted(folder.glob("*.png"))
    assert len(files) and Image.open(files[0]).mode == "P"
    read_all = lambda f: np.concatenate([np.array(Image.open(f / p.name)).ravel() for p in files])
    found, true = read_all(folder), read_all(truth)
    known = true != 255
    labels = np.unique(true[known])
    return jaccard_score(true[known], found[known], labels=labels, average="macro")


def test_figures_of_the_table_by_another_implementation(run):
    out = run[0]
    seeds = read(out, "seeds")
    used = json.loads((out / "records" / "seeds.json").read_text())["default_masks"]
    method = "sams" if used == "sam" else f"sams_{used}"
    is_it = (seeds.task == "segmentation") & (seeds.split == "train") & (seeds.method == method)
    truth = out / "data" / "SegmentationClass"
    found = miou_of(out / "pseudo_labels" / "train", truth)
    assert seeds[is_it].miou.item() == pytest.approx(found, abs=1e-4)
    for name in ("segmentation", "baselines"):
        (folder,) = (out / "label_maps" / name).iterdir()
        table = read(out, name)
        row = table[(table.method == folder.name) & (table.split == "val")]
        assert row.miou.item() == pytest.approx(miou_of(folder, truth), abs=1e-4), name


def test_published_figures_stand_apart(run):
    table = read(run[0], "published")
    quoted = table.published_miou.notna()
    assert (quoted != table.measured_miou.notna()).all() and table.source.notna().all()
    assert set(table[quoted].dataset) == {"voc2012", "coco2014"}
    assert set(table[~quoted].dataset) == {"minivoc"}


def test_claims_can_fail(run):
    claims = read(run[0], "claims")
    files = sorted((run[0] / "tables").glob("claims_*.csv"))
    parts = [pd.read_csv(file) for file in files]
    assert len(parts) >= 3 and len(claims) == sum(map(len, parts))
    assert set(claims.claim) == {claim for part in parts for claim in part.claim}
    seeds = read(run[0], "claims_seeds")
    assert len(seeds) == 10 and seeds.fails_if.notna().all()
    assert set(zip(seeds.split, seeds.images)) == {("val", 6), ("train", 10)}
    assert set(seeds.verdict) <= {"holds", "opposite", "no effect", "undecided"}


def test_record(run):
    written = json.loads((run[0] / "run.json").read_text())
    names = {"preset", "commit", "versions", "parameters", "seeds", "stages", "notebooks"}
    assert names | {"seconds", "machine"} <= set(written)
    assert written["command"] == "fmwsss reproduce minivoc"
    assert written["parameters"]["data"]["images"] == {"train": 10, "tune": 6, "val": 6}
    assert written["differs_from_paper"]["masks.settings.sam.points_per_side"] == 6


def test_page(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    figures = {path.name for path in (run[0] / "figures").iterdir()}
    assert {"strip.png", "bars.png", "gallery_worst.png"} <= figures
    for text in ("Hand prompt", "weakly supervised", "drawn", "Does learning help at all?"):
        assert text.lower() in page.lower(), text


def test_again_computes_nothing(run):
    out, _ = run
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    record = reproduce("minivoc", out, NOTEBOOKS, changes=small(), progress=False)
    assert all(n["reused"] for n in record["notebooks"])
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


def test_side_by_side_the_tables_are_the_same(run, tmp_path):
    wanted = ["models", "baselines", "gallery"]
    changes = small("workers=2", f"cache={run[0] / 'cache'}")
    record = reproduce("minivoc", tmp_path, wanted, changes=changes, progress=False)
    assert all(n["ok"] and not n["reused"] for n in record["notebooks"])
    assert record["seconds"] < sum(n["seconds"] for n in record["notebooks"])
    for table in ("models", "baselines", "gallery", "claims_baselines"):
        a, b = read(run[0], table), read(tmp_path, table)
        timed = [name for name in a if "second" in name]
        pd.testing.assert_frame_equal(a.drop(columns=timed), b.drop(columns=timed))


@pytest.fixture(scope="module")
def quick(run, tmp_path_factory):
    "The seeds of a quick run with the cache of the other one."
    out = tmp_path_factory.mktemp("quick")
    changes = small("seeding.powers=[1]", f"cache={run[0] / 'cache'}", "quick=true")
    record = reproduce("minivoc", out, ["seeds"], changes=changes, progress=False)
    assert [n["error"] for n in record["notebooks"]] == [None]
    return out


def test_a_run_with_the_same_cache_computes_only_what_is_new(quick):
    done = computed(quick)
    assert done["masks_sam"] == done["masks_felzenszwalb"] == 0
    assert done["prompts_classification"] == 0
    assert done["choosing"] > 0 and not (quick / "cache").exists()


def test_a_quick_run_leaves_open_what_it_cannot_decide(quick):
    claims = read(quick, "claims").set_index("claim")
    assert claims.verdict["Fine seeds are better than coarse seeds"] == "full run"
    assert set(claims.verdict) <= {"holds", "opposite", "no effect", "full run"}
