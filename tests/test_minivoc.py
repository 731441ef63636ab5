"""fmwsss.minivoc: same pictures everywhere, exact masks, knobs that work, VOC's layout on disk."""

import hashlib
import json
import math
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from fmwsss.minivoc import drawings
from fmwsss.minivoc import materials
from fmwsss.minivoc import scenes
from fmwsss.minivoc import writing
from fmwsss.minivoc.scenes import scene
from fmwsss.minivoc.writing import split_scene, split_seed, write
from fmwsss.data.label_maps import load_label
from fmwsss.method.labels import VOC_CLASSES

PINNED = {0: "2bbbb438b2fed7ce", 1: "5aeb80ca6c5beb21", 2: "791a038a1837e6ee"}
MAPS = ("image", "label", "instance", "part", "subpart", "region")


def checksum(drawn):
    return hashlib.sha256(drawn.image.tobytes() + drawn.label.tobytes()).hexdigest()[:16]


def equal(a, b):
    return (
        all(np.array_equal(getattr(a, name), getattr(b, name)) for name in MAPS)
        and a.objects == b.objects
    )


def test_pinned_scenes():
    "The shipped models were trained on exactly these drawings: a change must be noticed."
    assert {seed: checksum(scene(seed)) for seed in PINNED} == PINNED


def test_every_map_of_many_scenes_is_pinned():
    "All maps and the list of objects, also with the knobs turned, bit for bit."
    knobs = dict(
        size=(96, 140),
        cooccurrence=0.0,
        objects=(1, 4),
        occlusion=0.7,
        thin=0.5,
        colour_variance=0.3,
        texture_noise=2.0,
    )
    digest = hashlib.sha256()
    for drawn in [scene(seed) for seed in range(100, 130)] + [
        scene(seed, **knobs) for seed in range(30)
    ]:
        for name in MAPS:
            digest.update(np.ascontiguousarray(getattr(drawn, name)).tobytes())
        digest.update(
            repr(
                (
                    drawn.objects,
                    drawn.backgrounds,
                    sorted(drawn.materials.items()),
                    drawn.scene_name,
                )
            ).encode()
        )
    assert digest.hexdigest()[:16] == "2560197360b21e58"


def test_order_of_calls_does_not_matter():
    forwards = [scene(seed, size=(64, 64)) for seed in range(8)]
    backwards = [scene(seed, size=(64, 64)) for seed in reversed(range(8))][::-1]
    assert all(equal(a, b) for a, b in zip(forwards, backwards))


def test_another_process_draws_the_same():
    code = (
        "import hashlib\nfrom fmwsss.minivoc.scenes import scene\n"
        "for s in (2, 0, 1):\n d = scene(s)\n"
        " print(s, hashlib.sha256(d.image.tobytes() + d.label.tobytes()).hexdigest()[:16])"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert dict(zip(map(int, lines[::2]), lines[1::2])) == PINNED


def test_neither_opencv_nor_numpy_state_is_touched():
    cv2.setRNGSeed(5)
    np.random.seed(5)
    threads, state = cv2.getNumThreads(), np.random.get_state()[1].copy()
    scene(3)
    assert cv2.getNumThreads() == threads and np.array_equal(np.random.get_state()[1], state)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    height=st.integers(32, 140),
    width=st.integers(32, 140),
    cooccurrence=st.sampled_from([0.0, 0.5, 1.0]),
    occlusion=st.sampled_from([0.0, 1.0]),
    thin=st.sampled_from([0.0, 1.0]),
    scale=st.sampled_from([0.5, 1.0, 1.6]),
    objects=st.sampled_from([1, 4, (1, 3), (0.5, 0.5)]),
)
def test_masks_are_exact(seed, height, width, **knobs):
    drawn = scene(seed, size=(height, width), **knobs)
    assert drawn.image.shape == (height, width, 3) and drawn.image.dtype == np.uint8
    assert all(getattr(drawn, name).shape == (height, width) for name in MAPS[1:])
    assert set(np.unique(drawn.instance)) - {0} == {number for number, _ in drawn.objects}
    for number, kind in drawn.objects:
        own = drawn.instance == number
        assert own.sum() >= 60 * height * width / 128**2 and set(np.unique(drawn.label[own])) == {
            kind + 1
        }
    for name in ("instance", "part", "subpart"):
        assert np.array_equal(getattr(drawn, name) > 0, drawn.label > 0)
    assert set(np.unique(drawn.region)) <= set(drawn.materials) and set(drawn.backgrounds) <= set(
        materials.MATERIALS
    )


@pytest.mark.parametrize("fine,coarse", [("subpart", "part"), ("part", "instance")])
def test_levels_are_nested(fine, coarse):
    for seed in range(20):
        drawn = scene(seed)
        pairs = np.unique(
            np.stack([getattr(drawn, fine).ravel(), getattr(drawn, coarse).ravel()]), axis=1
        )
        assert len(np.unique(pairs[0])) == pairs.shape[1]


@pytest.mark.parametrize("name", VOC_CLASSES)
def test_every_class_has_at_least_four_parts(name):
    for seed in range(10):
        drawing = drawings.DRAWINGS[name](np.random.default_rng(seed))
        assert len(drawing.parts) >= 4 and {p.part for p in drawing.primitives} == set(
            range(1, len(drawing.parts) + 1)
        )


def test_all_classes_and_materials_appear():
    scenes = [scene(seed, size=(32, 32), cooccurrence=0.0) for seed in range(250)]
    assert {kind for s in scenes for _, kind in s.objects} == set(range(20))
    assert {m for s in scenes for m in s.backgrounds} == set(materials.MATERIALS)


def mean_of(measure, seeds=range(60), **knobs):
    return np.mean([measure(scene(seed, size=(64, 64), **knobs)) for seed in seeds])


def largest_overlap(drawn):
    return max(scenes.overlap(box, drawn.boxes[:i]) for i, box in enumerate(drawn.boxes) if i)


def mutual_information(cooccurrence):
    scenes = [
        scene(seed, size=(32, 32), objects=1, cooccurrence=cooccurrence) for seed in range(200)
    ]
    pairs = [(s.objects[0][1], s.materials.get(2, s.materials[1])) for s in scenes if s.objects]
    joint, first, second, n = (
        Counter(pairs),
        Counter(a for a, _ in pairs),
        Counter(b for _, b in pairs),
        len(pairs),
    )
    return sum(k / n * math.log2(k * n / (first[a] * second[b])) for (a, b), k in joint.items())


def test_knob_cooccurrence():
    none, half, full = (mutual_information(c) for c in (0.0, 0.5, 1.0))
    assert none < half < full and full > none + 1


def test_knob_objects():
    assert all(len(scene(seed, objects=n).boxes) == n for seed in range(5) for n in (1, 2, 5))
    assert {len(scene(seed, size=(32, 32), objects=(2, 4)).boxes) for seed in range(40)} == {
        2,
        3,
        4,
    }
    assert {len(scene(seed, size=(32, 32), objects=(0, 0.5, 0.5)).boxes) for seed in range(40)} == {
        2,
        3,
    }


def test_knob_occlusion():
    low, middle, high = (mean_of(largest_overlap, objects=3, occlusion=o) for o in (0.0, 0.5, 1.0))
    assert low < middle < high


def test_knob_scale():
    small, neutral, large = (
        mean_of(lambda s: (s.label > 0).mean(), objects=1, scale=k) for k in (0.5, 1.0, 1.5)
    )
    assert small < 0.5 * neutral < 0.5 * large


def test_knob_thin():
    thick, thin = (
        mean_of(lambda s: (s.label > 0).mean(), objects=1, classes=[1], thin=t) for t in (0.0, 1.0)
    )
    assert thin < 0.85 * thick


def test_knob_colour_variance():
    def spread(drawn):
        return np.mean(
            [drawn.image[drawn.instance == n].astype(float).std(0).mean() for n, _ in drawn.objects]
            or [0]
        )

    none, neutral, high = (
        mean_of(spread, objects=1, texture_noise=0.0, colour_variance=c) for c in (0.0, 1.0, 2.0)
    )
    assert none < neutral < high


def test_knob_texture_noise():
    def roughness(drawn):
        return np.abs(np.diff(drawn.image.astype(int), axis=1)).mean()

    assert (
        mean_of(roughness, texture_noise=0.0)
        < mean_of(roughness, texture_noise=1.0)
        < mean_of(roughness, texture_noise=3.0)
    )


def test_knob_classes():
    assert {
        k for seed in range(20) for _, k in scene(seed, size=(32, 32), classes=[3, 14]).objects
    } == {3, 14}
    assert (
        max(k for seed in range(20) for _, k in scene(seed, size=(32, 32), classes=4).objects) < 4
    )


@pytest.mark.parametrize(
    "knobs",
    [
        dict(cooccurrence=1.2),
        dict(occlusion=-1),
        dict(thin=2),
        dict(scale=0),
        dict(texture_noise=-1),
        dict(colour_variance=-1),
        dict(classes=21),
        dict(classes=[]),
        dict(classes=[20]),
        dict(objects=0),
        dict(objects=(0.5, -0.5)),
        dict(size=(8, 128)),
        dict(size=(128,)),
        dict(size=8),
        dict(size="96"),
        dict(size=None),
        dict(size=(64, None)),
        dict(size=np.zeros((2, 2))),
        dict(scale="large"),
        dict(occlusion=None),
        dict(objects="two"),
        dict(objects=[]),
        dict(objects=None),
        dict(classes="cat"),
        dict(classes=None),
    ],
)
def test_knobs_out_of_range_are_refused_in_one_line(knobs):
    with pytest.raises(ValueError, match=r"^scene: [^\n]+$"):
        scene(0, **knobs)


def test_one_number_is_the_size_of_a_square(tmp_path):
    assert checksum(scene(3, size=48)) == checksum(scene(3, size=(48, 48)))
    assert scene(3, size=np.int64(48)).image.shape == (48, 48, 3)
    assert write(tmp_path, dict(val=1), size=48) == 1
    assert write(tmp_path, dict(val=1), size=(48, 48)) == 0
    with pytest.raises(ValueError, match=r"^scene: size is [^\n]+$"):
        write(tmp_path, dict(val=1), size="48")
    with pytest.raises(ValueError, match=r"^split_seed: index [^\n]+$"):
        split_scene("val", "1")


def test_splits_are_disjoint():
    ends = [(split_seed(split, 0), split_seed(split, 10**9 - 1)) for split in writing.SPLITS]
    assert all(end < start for (_, end), (start, _) in zip(ends, ends[1:])) and set(
        writing.SPLITS
    ) == {"pretrain", "train", "tune", "val"}
    assert equal(split_scene("pretrain", 3), scene(split_seed("pretrain", 3), cooccurrence=0.0))
    assert equal(split_scene("val", 3), scene(split_seed("val", 3)))


@pytest.mark.parametrize("split,index", [("test", 0), ("val", -1), ("val", 10**9)])
def test_unknown_scenes_of_splits(split, index):
    with pytest.raises(ValueError, match="split_seed"):
        split_seed(split, index)


def contents(root):
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


def test_layout_is_vocs(tmp_path):
    assert write(tmp_path, dict(train=3, val=2), size=(48, 64)) == 5
    names = ["train_000000", "train_000001", "train_000002"]
    assert (tmp_path / "ImageSets/Segmentation/train.txt").read_text().split() == names
    for i, name in enumerate(names):
        drawn = split_scene("train", i, size=(48, 64))
        assert np.array_equal(load_label(tmp_path / f"SegmentationClass/{name}.png"), drawn.label)
        assert np.array_equal(
            load_label(tmp_path / f"SegmentationObject/{name}.png"), drawn.instance
        )
        image = Image.open(tmp_path / f"JPEGImages/{name}.jpg")
        assert (
            image.format == "JPEG" and np.abs(np.array(image).astype(int) - drawn.image).mean() < 6
        )
    rows = [line.split(",") for line in (tmp_path / "labels.csv").read_text().split()]
    assert rows[0] == ["image", *VOC_CLASSES] and [row[0] for row in rows[1:]] == names + [
        "val_000000",
        "val_000001",
    ]
    present = {c + 1 for c in np.flatnonzero([int(v) for v in rows[1][1:]])}
    assert present == set(
        np.unique(load_label(tmp_path / "SegmentationClass/train_000000.png"))
    ) - {0}
    assert not list(tmp_path.rglob("*.part"))


def test_files_do_not_depend_on_the_number_of_processes(tmp_path):
    for folder, workers in (("one", 1), ("two", 2)):
        write(tmp_path / folder, dict(train=5), size=(32, 32), workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_writing_resumes(tmp_path):
    splits = dict(train=3, val=2)
    write(tmp_path, splits, size=(32, 32))
    before = contents(tmp_path)
    assert write(tmp_path, splits, size=(32, 32)) == 0 and contents(tmp_path) == before
    (tmp_path / "SegmentationClass/val_000001.png").unlink()
    assert write(tmp_path, splits, size=(32, 32)) == 1 and contents(tmp_path) == before
    assert write(tmp_path, dict(train=4), size=(32, 32)) == 1
    assert write(tmp_path, dict(train=4), size=(32, 32), occlusion=1.0) == 4
    assert (
        contents(tmp_path)["SegmentationClass/val_000000.png"]
        == before["SegmentationClass/val_000000.png"]
    )


def test_files_of_unknown_origin_are_drawn_again(tmp_path):
    write(tmp_path, dict(val=2), size=(32, 32))
    (tmp_path / "minivoc.json").write_text("{ broken")
    assert write(tmp_path, dict(val=2), size=(32, 32)) == 2
    assert json.loads((tmp_path / "minivoc.json").read_text())["val"]["size"] == [32, 32]


def test_label_noise(tmp_path):
    def table(noise):
        write(tmp_path, dict(val=40), size=(32, 32), image_label_noise=noise)
        return np.array(
            [line.split(",")[1:] for line in (tmp_path / "labels.csv").read_text().split()[1:]]
        ).astype(int)

    clean, some, all_wrong = table(0.0), table(0.3), table(1.0)
    assert ((clean != all_wrong).sum(1) == 1).all() and 0 < (clean != some).sum() < 40
    assert (all_wrong.sum(1) > 0).all() and np.array_equal(table(0.3), some)


@pytest.mark.parametrize(
    "arguments",
    [dict(splits=dict(test=1)), dict(colour=1), dict(occlusion=3.0), dict(image_label_noise=2.0)],
)
def test_wrong_arguments_leave_the_folder_alone(tmp_path, arguments):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        write(tmp_path / "new", **{"splits": dict(val=1), **arguments})
    assert not (tmp_path / "new").exists()


def test_two_programs_that_want_one_world_draw_it_once(tmp_path):
    code = "import sys; from fmwsss.minivoc.writing import write; "
    code += "print(write(sys.argv[1], splits=dict(train=4, val=4)))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    drawn = [int(program.communicate(timeout=120)[0]) for program in programs]
    assert sorted(drawn) == [0, 0, 8]
    assert len(list((tmp_path / "JPEGImages").iterdir())) == 8
