"""The ablation page in small: every factor, differences and claims follow from the tables."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fmwsss.app.runner import reproduce
from fmwsss.study.ablation_tables import FIGURES
from fmwsss.study.claims import CLAIM_COLUMNS


FEW = dict(steps=2, warmup=0, batch_size=4)
SMALL = dict(
    workers=1,
    data=dict(images=dict(train=6, tune=4, val=5)),
    masks=dict(sam=dict(points_per_side=6)),
    seeding=dict(powers=[1, 2], box_thresholds=[0.4]),
    classification=dict(training=FEW),
    segmentation=dict(training=dict(FEW, steps=1, batch_size=2)),
    ablations=dict(
        seeds=[0, 1],
        images=dict(train=5, tune=3, val=4),
        contexts=[4],
        losses={"BCE": dict(kind="bce", lr=0.02), "ZLPR": dict(kind="zlpr", lr=[0.001, 0.02])},
        segmentation_losses={
            "CAM activation, over all pixels": dict(reduce="all", lr=1),
            "pixel cross-entropy": dict(kind="pixel_cross_entropy", lr=0.005),
        },
        shared_weights=[0.02, 0.2],
        many=dict(
            images=dict(tune=2, val=2),
            knobs=dict(size=[96, 96], objects=[3, 5], scale=0.7),
            sam=dict(points_per_side=6, pred_iou_thresh=0.3, stability_thresh=0.2),
        ),
    ),
)
MANY = {
    "rock-sand-water filter",
    "painting order",
    "filter and order",
    "painting order, no filter",
    "bonus of wholes in NMS",
    "bonus of wholes on predicted IoU",
}
FACTORS = MANY | {
    "context",
    "context for",
    "place of the name",
    "background prompts",
    "classification loss",
    "image-level labels",
    "tasks",
    "segmentation loss",
    "segmentation contexts",
    "contexts start from",
    "prompt sets",
    "coarse seeds from",
    "background power",
    "CAM in a mask",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("ablations")
    (record,) = reproduce("minivoc", out, ["ablations"], SMALL, progress=False)["notebooks"]
    assert record["ok"], record["error"]
    return out


@pytest.fixture(scope="module")
def table(run):
    return pd.read_csv(run / "tables" / "ablations.csv")


def test_every_factor_has_one_default_and_every_seed(table):
    assert set(table.factor) == FACTORS and set(table.split) == {"val"}
    for _, rows in table.groupby("factor"):
        assert rows[rows.default].variant.nunique() == 1 and rows.variant.nunique() > 1
    trained = table[table.seed.astype(str) != "all"]
    alone = trained.groupby(["factor", "variant"]).seed.nunique() == 1
    assert not alone.any() and set(trained.seed.astype(str)) == {"0", "1"}
    assert set(table.images) == {4, 2} and set(table[table.images == 2].factor) == MANY


def test_differences_are_those_of_the_figures(table):
    for kind in FIGURES:
        base = table[table.default].set_index(["factor", "seed"])[f"miou_{kind}"]
        mean = base.groupby("factor").mean()
        for row in table.to_dict("records"):
            start = base.get((row["factor"], row["seed"]), mean[row["factor"]])
            found = row[f"delta_{kind}"]
            assert np.isclose(found, row[f"miou_{kind}"] - start, atol=1e-5, equal_nan=True)
    assert (table[table.default].delta_seed.abs() < 1e-9).all() and table.delta_seed.abs().max() > 0


def test_intervals_and_means_follow_from_the_rows(run, table):
    summary = pd.read_csv(run / "tables" / "ablations_summary.csv")
    others = summary[~summary.default]
    clear = (others.low > 0) | (others.high < 0)
    assert (others.low <= others.high).all() and ((others.clear == "yes") == clear).all()
    means = table.groupby(["factor", "variant"]).miou_seed.mean()
    rows = summary[summary.figure == "SAMS seed"]
    assert np.allclose(rows.miou, means.loc[list(zip(rows.factor, rows.variant))], atol=1e-5)
    assert (run / "figures" / "ablations.png").exists()


def test_every_claim_can_fail_and_says_what_was_found(run):
    claims = pd.read_csv(run / "tables" / "claims_ablations.csv")
    assert list(claims) == CLAIM_COLUMNS and claims.claim.is_unique and len(claims) >= 18
    assert claims.fails_if.notna().all() and claims.found.notna().all()
    assert set(claims.verdict) <= {"holds", "opposite", "no effect", "undecided"}


def test_a_figure_by_another_implementation(run, table):
    "mIoU of the default SAMS seeds of the first seed, from the saved label maps, class by class."
    files = sorted((run / "label_maps" / "ablations" / "default").glob("*.png"))
    truth = run / "data" / "SegmentationClass"
    read = lambda folder: [np.array(Image.open(folder / f.name)).ravel() for f in files]
    pred, true = np.concatenate(read(files[0].parent)), np.concatenate(read(truth))
    known = true != 255
    ious = [
        ((pred == c) & (true == c)).sum() / (((pred == c) | (true == c)) & known).sum()
        for c in np.unique(true[known])
    ]
    rows = table[(table.factor == "context") & table.default]
    assert len(files) == 4
    assert rows.miou_seed.iloc[0] == pytest.approx(np.mean(ious), abs=1e-5)
