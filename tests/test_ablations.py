"""The ablation notebook in small: every factor is there, differences and claims follow from the table, one figure is computed again."""
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fmwsss.study.statistics import CLAIM_COLUMNS
from fmwsss.app.presets import parse_settings
from fmwsss.app.runner import reproduce

pytestmark = pytest.mark.xdist_group("ablations")      # one process runs it: the run is made once

SMALL = parse_settings(["data.images={train: 6, tune: 4, val: 5}", "workers=1", "masks.sam.points_per_side=6", "seeding.powers=[1, 2]", "seeding.box_thresholds=[0.4]",
                        "seeds=[0, 1]", "ablation_images={train: 5, tune: 3, val: 4, masks_tune: 2, masks_val: 2}",
                        "ablation_training={classification: {steps: 2, warmup: 0, batch_size: 4}, segmentation: {steps: 1, warmup: 0, batch_size: 2}}"])
FACTORS = {"context", "context for", "place of the name", "background prompts", "classification loss", "image-level labels", "segmentation loss", "prompt sets",
           "coarse seeds from", "rock-sand-water filter", "painting order", "filter and order", "background power", "CAM in a mask", "bonus for whole masks"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablations")
    (record,) = reproduce("minivoc", ["ablations"], out, changes=SMALL, progress=False)["notebooks"]
    assert record["ok"], record["error"]
    return out


@pytest.fixture(scope="module")
def table(run): return pd.read_csv(run / "tables" / "ablations.csv")


def test_every_factor_has_one_default_and_every_seed(table):
    assert list(table) == ["factor", "variant", "default", "seed", "split", "images", "miou_cam", "miou_seed", "delta_cam", "delta_seed"]
    assert set(table.factor) == FACTORS and set(table.seed) == {0, 1} and set(table.split) == {"val"}
    for _, rows in table.groupby("factor"):
        assert rows[rows.default].variant.nunique() == 1 and rows.variant.nunique() > 1
        assert (rows.groupby("variant").seed.nunique() == 2).all()
    assert set(table.images) == {4, 2} and set(table[table.images == 2].factor) == {"bonus for whole masks"}


def test_differences_are_those_of_the_figures(table):
    for kind in ("cam", "seed"):
        base = table[table.default].set_index(["factor", "seed"])[f"miou_{kind}"]
        expected = table[f"miou_{kind}"].to_numpy() - base.loc[list(zip(table.factor, table.seed))].to_numpy()
        assert np.allclose(table[f"delta_{kind}"], expected, atol=2e-4, equal_nan=True)
    assert (table[table.default].delta_seed == 0).all() and (table.delta_seed.abs() > 0).any()


def test_intervals_and_claims(run, table):
    summary, claims = (pd.read_csv(run / "tables" / f"{t}.csv") for t in ("ablations_summary", "claims_ablations"))
    others = summary[~summary.default]
    assert ((others.low <= others.high) & ((others.clear == "yes") == ((others.low > 0) | (others.high < 0)))).all()
    means = table.groupby(["factor", "variant"]).miou_seed.mean()
    seeds = summary[summary.figure == "SAMS seed"]
    assert np.allclose(seeds.miou, means.loc[list(zip(seeds.factor, seeds.variant))], atol=2e-4)
    assert list(claims) == CLAIM_COLUMNS and len(claims) == 15 and set(claims.holds) <= {"yes", "no", "undecided"} and (run / "figures" / "ablations.png").exists()


def test_a_figure_by_another_implementation(run, table):
    "mIoU of the default SAMS seeds of the first seed, from the saved label maps, one class after the other."
    files = sorted((run / "label_maps" / "ablations" / "default").glob("*.png"))
    pred, true = (np.concatenate([np.array(Image.open(folder / f.name)).ravel() for f in files]) for folder in (files[0].parent, run / "data" / "SegmentationClass"))
    ious = [((pred == c) & (true == c)).sum() / (((pred == c) | (true == c)) & (true != 255)).sum() for c in np.unique(true) if c != 255]
    row = table[(table.factor == "context") & table.default & (table.seed == 0)]
    assert len(files) == 4 and row.miou_seed.item() == pytest.approx(np.mean(ious), abs=1e-4)
