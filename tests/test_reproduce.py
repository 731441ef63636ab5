"""The main job in small: a few pictures and iterations through every stage, then the same command again."""
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sklearn.metrics import jaccard_score

from fmwsss.app.presets import merge, parse_settings
from fmwsss.app.runner import reproduce

pytestmark = pytest.mark.xdist_group("reproduce")      # one process runs it: the run is made once

NOTEBOOKS = ["models", "seeds", "segmentation", "baselines", "efficiency", "gallery", "published"]      # refiners and ablations have tests of their own

SMALL = parse_settings(["data.images={train: 10, tune: 6, val: 6}", "workers=1", "masks.sam.points_per_side=6", "classification.training.steps=6",
                        "segmentation.training.steps=3", "classification.training.warmup=1", "segmentation.training.warmup=1", "strips=2",
                        "seeding.powers=[1, 2]", "seeding.box_thresholds=[0.4]", "network_training={steps: 3, batch_size: 4, warmup: 1}", "sharpness_images=6", "plain_cam.steps=5",
                        "efficiency={images: 2, growth_images: [2, 4], growth_classes: [1, 2], growth_masks: [4, 8], growth_sides: [64, 128], repeats: 1, training_steps: 1, affinity: {images: 3, steps: 2}}"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, reproduce("minivoc", NOTEBOOKS, out, changes=SMALL, progress=False)


def test_every_notebook_ran(run):
    out, record = run
    assert [(n["name"], n["ok"], n["error"]) for n in record["notebooks"]] == [(n, True, None) for n in NOTEBOOKS]
    assert all((out / "notebooks" / f"{n}.ipynb").exists() for n in NOTEBOOKS)


def test_tables(run):
    seeds, models = (pd.read_csv(run[0] / "tables" / f"{t}.csv") for t in ("seeds", "models"))
    assert {"task", "method", "split", "images", "miou", "seconds_per_image"} <= set(seeds) and list(models) == ["model", "measure", "value", "target"]
    assert set(seeds.task) == {"classification", "segmentation"} and set(seeds.split) == {"train", "val"}
    assert {"cam", "caa", "caa_uniform", "crf", "sams", "sams_felzenszwalb", "bound"} <= set(seeds.method)
    assert seeds.miou.between(0, 1).all() and (seeds.seconds_per_image.dropna() > 0).all()
    assert models.target.notna().sum() == 6
    assert set(pd.read_csv(run[0] / "tables" / "claims.csv").holds) <= {"yes", "no", "undecided"}


def miou_of(folder, truth):
    "Mean over the classes of the truth of scikit-learn's Jaccard score, from label maps on disk."
    files = sorted(folder.glob("*.png"))
    pred, true = (np.concatenate([np.array(Image.open(f / p.name)).ravel() for p in files]) for f in (folder, truth))
    assert len(files) and Image.open(files[0]).mode == "P"
    known = true != 255
    return jaccard_score(true[known], pred[known], labels=np.unique(true[known]), average="macro")


def test_figures_of_the_tables_by_another_implementation(run):
    out, truth = run[0], run[0] / "data" / "SegmentationClass"
    seeds = pd.read_csv(out / "tables" / "seeds.csv")
    method = "sams" if json.loads((out / "records" / "seeds.json").read_text())["default_masks"] == "sam" else "sams_felzenszwalb"
    row = seeds[(seeds.task == "segmentation") & (seeds.split == "train") & (seeds.method == method)]
    assert row.miou.item() == pytest.approx(miou_of(out / "pseudo_labels" / "train", truth), abs=1e-4)
    for name in ("segmentation", "baselines"):
        (folder,), table = (out / "label_maps" / name).iterdir(), pd.read_csv(out / "tables" / f"{name}.csv")
        row = table[(table.method == folder.name) & (table.split == "val")]
        assert row.miou.item() == pytest.approx(miou_of(folder, truth), abs=1e-4), name


def test_published_figures_stand_apart(run):
    table = pd.read_csv(run[0] / "tables" / "published.csv")
    assert (table.published_miou.notna() != table.measured_miou.notna()).all() and table.source.notna().all()
    assert set(table[table.published_miou.notna()].dataset) == {"voc2012", "coco2014"} and set(table[table.measured_miou.notna()].dataset) == {"minivoc"}


def test_claims_of_all_notebooks_are_in_one_table(run):
    tables = run[0] / "tables"
    claims, parts = pd.read_csv(tables / "claims.csv"), [pd.read_csv(f) for f in sorted(tables.glob("claims_*.csv"))]
    assert len(parts) >= 3 and len(claims) == sum(map(len, parts)) and set(claims.claim) == {c for p in parts for c in p.claim}


def test_record_and_page(run):
    out, record = run
    written = json.loads((out / "run.json").read_text())
    assert {"preset", "commit", "versions", "parameters", "seeds", "stages", "notebooks", "seconds", "machine"} <= set(written)
    assert written["parameters"]["data"]["images"] == {"train": 10, "tune": 6, "val": 6}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<title>" in page and "sams" in page.lower() and {"strip.png", "bars.png"} <= {p.name for p in (out / "figures").iterdir()}


def test_again_computes_nothing(run):
    out, _ = run
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    record = reproduce("minivoc", NOTEBOOKS, out, changes=SMALL, progress=False)
    assert all(n["reused"] for n in record["notebooks"])
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before


def test_a_changed_setting_recomputes_only_what_depends_on_it(run):
    out, _ = run
    record = reproduce("minivoc", NOTEBOOKS, out, only=["seeds"], changes=merge(SMALL, dict(seeding=dict(powers=[1]))), progress=False)
    computed = {s["stage"]: 0 for s in record["stages"]}
    for stage in json.loads((out / "records" / "seeds.json").read_text())["stages"]: computed[stage["stage"]] += stage["computed"]
    assert computed["masks_sam"] == computed["masks_felzenszwalb"] == computed["prompts_classification"] == 0
