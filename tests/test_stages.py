"""The promises of stages.

Keys see what matters, results are atomic, a bad image costs only itself, workers change nothing."""

import os

import numpy as np
import pytest

from fmwsss.data.voc import VOCDataset
from fmwsss.engine.keys import digest
from fmwsss.engine.stages import Run
from fmwsss.engine.store import Store
from fmwsss.files.writing import write_atomic
from fmwsss.minivoc import writing
from fmwsss.study.stages import masks_stage, pack, unpack
from fmwsss.study.statistics import choose, gain


class Numbers:
    "A data set of ids only."

    split = "train"

    def __init__(self, n=10):
        self.ids = [f"image {i}/ä" for i in range(n)]

    def __len__(self):
        return len(self.ids)


def square(power):
    "Setup of a stage: the index to a power (top level, so that worker processes can load it)."
    return lambda indices: [(dict(value=np.array(i**power)), dict(value=0.5)) for i in indices]


def breaks(at):
    def compute(indices):
        if at in indices:
            raise ValueError("truncated image")
        return [(dict(value=np.array(i)), {}) for i in indices]

    return compute


def crashes(at):
    def compute(indices):
        for i in indices:
            if i == at:
                raise KeyboardInterrupt
            yield dict(value=np.array(i)), {}

    return compute


def values(store, data):
    return [int(store.load(i)["value"]) for i in data.ids]


def test_digest_ignores_order_and_sees_values():
    assert digest(dict(a=1, b=[2])) == digest(dict(b=[2], a=1)) != digest(dict(a=1, b=[3]))


def test_stage_computes_once(tmp_path):
    run, data = Run(tmp_path, progress=False), Numbers()
    for _ in range(2):
        store = run.stage("square", dict(power=2), data, square, 2, batch=3)
    assert values(store, data) == [i**2 for i in range(10)]
    assert [r["computed"] for r in run.records] == [10, 0] and store.seconds("value") == 0.5
    assert run.stage("square", dict(power=3), data, square, 3).key != store.key


@pytest.mark.fault
def test_workers_change_nothing(tmp_path):
    data = Numbers()
    one = Run(tmp_path / "one", progress=False).stage("square", {}, data, square, 2, batch=2)
    two = Run(tmp_path / "two", workers=2, progress=False).stage(
        "square", {}, data, square, 2, batch=2
    )
    assert values(one, data) == values(two, data)


@pytest.mark.fault
def test_a_changed_image_alone_is_made_again(tmp_path):
    run, data = Run(tmp_path, progress=False), Numbers()
    for changed in (None, 3):
        run.stage(
            "square",
            {},
            data,
            square,
            2,
            stamps={image: f"{i == changed:d}" for i, image in enumerate(data.ids)},
        )
    assert [r["computed"] for r in run.records] == [10, 1]


def test_splits_that_share_pictures_share_their_masks(tmp_path):
    writing.write(tmp_path, splits=dict(train=4))
    run, train = Run(tmp_path / "run", progress=False), VOCDataset(tmp_path, "train")
    (tmp_path / "ImageSets/Segmentation/few.txt").write_text("\n".join(train.ids[1:3]) + "\n")
    few = VOCDataset(tmp_path, "few")
    masks = [masks_stage(run, d, "felzenszwalb", {}) for d in (train, few)]
    assert [r["computed"] for r in run.records] == [4, 0] and masks[0].path(few.ids[0]) == masks[
        1
    ].path(few.ids[0])
    picture = train.image_path(1)
    picture.write_bytes(train.image_path(3).read_bytes())
    masks_stage(run, VOCDataset(tmp_path, "train"), "felzenszwalb", {})
    assert run.records[-1]["computed"] == 1


@pytest.mark.fault
def test_two_shards_make_the_whole(tmp_path):
    data = Numbers()
    for rank in (1, 0):
        run = Run(tmp_path, progress=False, rank=rank, world=2)
        run.gather = lambda value: [value]
        store = run.stage("square", {}, data, square, 2)
    assert values(store, data) == [i**2 for i in range(10)] and run.records[-1]["computed"] == 5


@pytest.mark.fault
def test_a_bad_image_is_skipped_or_stops(tmp_path):
    run, data = Run(tmp_path / "a", progress=False), Numbers()
    store = run.stage("breaks", {}, data, breaks, 4, batch=5)
    assert list(run.skipped) == [data.ids[4]] and sum(store.has(i) for i in data.ids) == 9
    with pytest.raises(ValueError, match="truncated"):
        Run(tmp_path / "b", strict=True, progress=False).stage("breaks", {}, data, breaks, 4)


@pytest.mark.fault
def test_interrupted_stage_goes_on(tmp_path):
    run, data = Run(tmp_path, progress=False), Numbers()
    with pytest.raises(KeyboardInterrupt):
        run.stage("crashes", {}, data, crashes, 6, batch=1)
    store = run.stage("crashes", {}, data, crashes, -1, batch=1)
    assert run.records[-1]["reused"] == 6 and values(store, data) == list(range(10))


@pytest.mark.fault
def test_a_damaged_result_is_named(tmp_path):
    store = Store(tmp_path, "demo", {})
    store.path("x").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="damaged.*delete"):
        store.load("x")
    with pytest.raises(FileNotFoundError, match="run that stage first"):
        store.load("y")


@pytest.mark.fault
def test_failed_write_leaves_nothing(tmp_path):
    def fails(f):
        f.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        write_atomic(tmp_path / "x", fails)
    assert os.listdir(tmp_path) == []


def test_pack_keeps_signs_and_scale():
    maps = np.random.default_rng(0).normal(0, 1e-5, (3, 5, 7)).astype(np.float32)
    packed, scale = pack(maps)
    assert packed.dtype == np.float16
    assert np.allclose(
        unpack(dict(cam=packed, cam_scale=scale), "cam"), maps, atol=1e-3 * np.abs(maps).max()
    )


def test_choose_takes_the_first_of_equals():
    assert choose([3, 1, 2], lambda c: min(c, 2))[:2] == (3, 2)


def test_bootstrap_interval_contains_the_gain():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (40, 100))
    noisy = lambda p: np.stack(
        [
            np.bincount(
                t * 3 + np.where(rng.random(100) < p, rng.integers(0, 3, 100), t), minlength=9
            ).reshape(3, 3)
            for t in truth
        ]
    )
    found = gain(noisy(0.6), noisy(0.2), rounds=100)
    assert 0 < found.low < found.value < found.high
