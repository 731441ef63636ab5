"""The main job in small: a few pictures and iterations through every stage, then the same command again."""
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fmwsss.cli import NOTEBOOKS
from fmwsss.runner import merge, parse_settings, reproduce

SMALL = parse_settings(["data.images={train: 10, tune: 6, val: 6}", "workers=1", "masks.sam.points_per_side=6", "classification.training.steps=6",
                        "segmentation.training.steps=3", "classification.training.warmup=1", "segmentation.training.warmup=1", "strips=2",
                        "seeding.powers=[1, 2]", "seeding.box_thresholds=[0.4]"])


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


def test_a_figure_of_the_table_by_another_implementation(run):
    "mIoU of the fine SAMS seeds of the training images, from the written pseudo labels, with scikit-learn's rule spelled out."
    out, (table, labels) = run[0], (pd.read_csv(run[0] / "tables" / "seeds.csv"), sorted((run[0] / "pseudo_labels" / "train").glob("*.png")))
    pairs = [(np.array(Image.open(p)), np.array(Image.open(out / "data" / "SegmentationClass" / p.name))) for p in labels]
    pred, true = (np.concatenate([p[k].ravel() for p in pairs]) for k in (0, 1))
    ious = [((pred == c) & (true == c)).sum() / ((pred == c) | (true == c)).sum() for c in np.unique(true)]
    method = "sams" if json.loads((out / "records" / "seeds.json").read_text())["default_masks"] == "sam" else "sams_felzenszwalb"
    row = table[(table.task == "segmentation") & (table.split == "train") & (table.method == method)]
    assert len(labels) == 10 and Image.open(labels[0]).mode == "P"
    assert row.miou.item() == pytest.approx(np.mean(ious), abs=1e-4)


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
