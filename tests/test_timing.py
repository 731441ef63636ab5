"""Seconds and memory of single stages, and the efficiency notebook in small. No time is tested."""

import json

import numpy as np
import pandas as pd
import papermill
import pytest

from fmwsss.app.presets import benchmarks_folder, settings_of
from fmwsss.study.study import Study
from fmwsss.study.timing import METHOD, Repeated, Stages, clock, over_images, peak
from fmwsss.study.timing import slope, stage_bytes, stage_seconds, timed

SMALL = dict(
    workers=1,
    data=dict(images=dict(train=4, tune=2, val=2)),
    classification=dict(training=dict(steps=3, batch_size=4, warmup=1)),
    segmentation=dict(training=dict(steps=3, batch_size=4, warmup=1)),
    affinitynet=dict(steps=5),
    efficiency=dict(
        images=2,
        growth_images=[2, 4],
        growth_classes=[1, 4],
        growth_masks=[10, 40],
        growth_sides=[64, 128],
        repeats=1,
        training_steps=1,
        affinity=dict(images=2, steps=4),
    ),
)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    settings = settings_of("minivoc", changes=SMALL)
    study = Study(settings, tmp_path_factory.mktemp("timing"), progress=False)
    return Stages(study, "val")


def test_the_clock_counts_work_and_memory_is_seen():
    before = clock()
    result, seconds = timed(lambda: sum(range(10**5)))
    assert result == sum(range(10**5)) and 0 < seconds <= clock() - before
    found = peak(lambda: np.ones((80, 2**20), np.uint8).sum())
    assert np.isnan(found) or 60 < found < 400


def test_slope_tells_linear_from_quadratic():
    assert slope([1, 2, 4], [5, 10, 20]) == pytest.approx(1)
    assert slope([1, 2, 4], [1, 4, 16]) == pytest.approx(2)


def test_stages_make_what_the_study_makes(stages):
    "The seed that is timed is the seed of the method: same maps, same masks, same rule."
    d, study = stages.d, stages.study
    image, classes = d.image(0), np.flatnonzero(d.labels(0))
    *_, attention, _, cam = stages.maps(image, classes)
    prompts = study.fixed(study.settings.fixed_prompt)
    box = stages.affinity["threshold"]
    stored = study.cams(prompts, "val", box).load(d.ids[0])
    for name, found in (("cam", cam), (f"caa_{box:g}", stages.caa(cam, attention))):
        expected = stored[name].astype(np.float32) * stored[f"{name}_scale"]
        top = np.abs(expected).max()
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-3 * top)
    masks = stages.masks(image)
    seed = stages.sams(cam, masks, classes, image.shape[:2])
    assert seed.shape == image.shape[:2] and set(np.unique(seed)) <= {0, *(classes + 1)}
    assert set(stage_bytes(masks, cam, cam, seed)) == {"masks (SAM)", "CAM", "SAMS"}


def test_every_stage_has_its_seconds(stages):
    seconds, disk = stage_seconds(stages, 0)
    assert set(METHOD) < set(seconds) and "AffinityNet walk" not in seconds
    assert all(v >= 0 for v in seconds.values()) and all(v > 0 for v in disk.values())


def test_repeated_images_are_one_each(stages):
    many = Repeated(stages.d, 5)
    assert len(many) == len(set(many.ids)) == 5
    assert np.array_equal(many.image(3), stages.d.image(1))
    each, memory = over_images(stages, 4, few=2)
    assert len(each) == len(memory) == 4 and (each >= 0).all() and (np.diff(memory) >= 0).all()


def test_the_notebook_alone(tmp_path):
    "By plain papermill, in small: all tables, figures and claims."
    (tmp_path / "mine.yaml").write_text(json.dumps(dict(base="minivoc", **SMALL)))
    given = dict(root=str(tmp_path / "run"), base=str(tmp_path / "mine.yaml"))
    source = str(benchmarks_folder() / "efficiency.ipynb")
    papermill.execute_notebook(source, str(tmp_path / "out.ipynb"), given, progress_bar=False)
    run = tmp_path / "run"
    read = lambda name: pd.read_csv(run / "tables" / f"{name}.csv")
    table = read("efficiency")
    assert set(METHOD) < set(table.stage)
    assert table.share_of_method.sum() == pytest.approx(1, abs=1e-4)
    grows = {"images", "classes of an image", "masks", "pixels"}
    assert set(read("efficiency_growth").grows) == grows
    learned = read("efficiency_training").set_index("what")
    assert learned.learned_numbers["classification prompts"] == 16 * 128
    assert (learned.training_seconds >= learned.encoding_seconds).all()
    assert (read("efficiency_ratios").ratio > 0).all()
    claims = read("claims_efficiency")
    assert len(claims) == 6 and set(claims.verdict) <= {"holds", "opposite", "undecided"}
    figures = {p.name for p in (run / "figures").iterdir()}
    assert figures == {f"efficiency_{x}.png" for x in ("stages", "growth", "images")}
