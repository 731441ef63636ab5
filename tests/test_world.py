"""The learnable world, in small: fine beats coarse beats the hand-written prompt."""

import pytest
import torch

from fmwsss.app.presets import settings_of
from fmwsss.study.arms import arms_of, measure_arms
from fmwsss.study.statistics import gain
from fmwsss.study.study import Study

SMALL = dict(
    data=dict(images=dict(train=60, tune=1, val=40)),
    workers=1,
    masks=dict(source=["sam"], sam=dict(points_per_side=8)),
    seeding=dict(
        control=False,
        crf={},
        maps=["caa"],
        box_thresholds=[0.5],
        powers=[0.6],
        rules=[dict(filter_thresh=0.3, priority=["level", "confidence"])],
    ),
    classification=dict(training=dict(steps=200)),
    segmentation=dict(training=dict(steps=50, batch_size=8, lr=2)),
)
TASKS = ("fixed", "classification", "segmentation")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "{(task, method): confusions} of the method in small."
    root = tmp_path_factory.mktemp("world")
    study = Study(settings_of("minivoc", changes=SMALL), root, progress=False)
    found = study.coarse_to_fine(methods=("cam",))
    measured = measure_arms(study, arms_of(study, found, ["val"]), ["val"])
    return {(task, method): m for (task, method, _), m in measured.items()}


def test_coarse_beats_the_hand_written_prompt(small):
    for method in ("cam", "sams"):
        assert gain(small["fixed", method], small["classification", method]).low > 0, method


def test_fine_beats_coarse(small):
    "Where 40 pictures can tell: in the raw CAM. The seeds of SAMS stand near their bound."
    hand, coarse, fine = (small[task, "cam"] for task in TASKS)
    assert gain(coarse, fine).low > 0
    assert gain(hand, fine).low > 0.02
    assert gain(small["fixed", "sams"], small["segmentation", "sams"]).low > 0


def test_two_runs_with_one_seed_are_identical(tmp_path):
    few = dict(
        SMALL,
        data=dict(images=dict(train=6, tune=1, val=1)),
        classification=dict(training=dict(steps=4, warmup=1)),
        segmentation=dict(training=dict(steps=2, warmup=1, batch_size=4, lr=2)),
    )
    ends = []
    for name, seed in dict(one=0, two=0, other=1).items():
        settings = settings_of("minivoc", changes=dict(few, seed=seed))
        study = Study(settings, tmp_path / name, progress=False)
        found = study.coarse_to_fine(methods=())
        ends.append(torch.cat([found.coarse_prompts.text, found.fine_prompts.text]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
