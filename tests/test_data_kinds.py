"""Any data set by its name; true masks compared with labels; pictures given in Python."""

import importlib
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import folder, mask_of, one_line, picture, told, voc, with_exif, write
from fmwsss.data import kinds
from fmwsss.data.checks import check_labels, check_masks, count_classes, some_images
from fmwsss.data.folder import FolderDataset
from fmwsss.data.in_python import ListDataset, as_dataset, as_image
from fmwsss.data.kinds import KINDS, check_class_order, find_faults, open_dataset
from fmwsss.data.label_maps import save_label
from fmwsss.data.voc import VOCDataset
from fmwsss.files.errors import DataError, SettingsError
from fmwsss.method.labels import VOC_CLASSES, palette

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True)
DOOR = Path(__file__).resolve().parent.parent / "nbs/data/16_add_your_own.ipynb"


# ---- published data sets


def xml(root, name, classes):
    "VOC's XML file of a photo."
    (root / "Annotations").mkdir(exist_ok=True)
    objects = "".join(f"<object><name>{c}</name></object>" for c in classes)
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")


@pytest.mark.fault
def test_open_dataset_checks_count_and_class_order(tmp_path, monkeypatch):
    voc(tmp_path)
    with pytest.raises(DataError) as error:
        open_dataset("voc2012", tmp_path, "train")
    one_line(error, "3 images instead of 1,464", "data.options.check=false")
    assert len(open_dataset("voc2012", tmp_path, "train", check=False)) == 3
    monkeypatch.setitem(kinds.PUBLISHED, ("voc2012", "train"), 3)
    xml(tmp_path, "2007_000032", ["aeroplane", "person"])
    assert len(open_dataset("voc2012", tmp_path, "train")) == 3
    xml(tmp_path, "2007_000032", ["boat", "person"])
    with pytest.raises(DataError) as error:
        open_dataset("voc2012", tmp_path, "train")
    one_line(error, "2007_000032", "aeroplane", "class order")
    with pytest.raises(DataError) as error:
        open_dataset("voc2012", tmp_path, "train", classes=VOC_CLASSES[::-1])
    one_line(error, "class order")


@pytest.mark.fault
def test_two_exchanged_classes_are_noticed_in_the_photo_that_shows_them(tmp_path):
    "Sheep and cow are exchanged, and only the 41st photo has one."
    names = [f"{n:04d}" for n in range(41)]
    voc(tmp_path, names)
    for number, name in enumerate(names):
        mask = np.full((24, 32), 15) if number < 40 else np.full((24, 32), 10)
        save_label(tmp_path / f"SegmentationClass/{name}.png", mask)
        xml(tmp_path, name, ["person"] if number < 40 else ["sheep"])
    with pytest.raises(DataError) as error:
        check_class_order(VOCDataset(tmp_path, "train"))
    one_line(error, "0040", "'cow'", "sheep")


def test_minivoc_uses_its_label_table(tmp_path):
    voc(tmp_path)
    assert open_dataset("minivoc", tmp_path, "train").labels(0).sum() == 2
    rows = "image,labels\n2007_000032,cat\n2007_000039,\n2007_000063,dog\n"
    (tmp_path / "labels.csv").write_text(rows)
    assert open_dataset("minivoc", tmp_path, "train").all_labels().sum(1).tolist() == [1, 0, 1]


def test_what_minivoc_writes_can_be_read(tmp_path):
    from fmwsss.data.archives import status
    from fmwsss.minivoc import writing

    writing.write(tmp_path, splits=dict(train=3, val=2), workers=1)
    data = open_dataset("minivoc", tmp_path, "train")
    assert len(data) == 3 and len(find_faults(data)) == 0 and check_masks(data) == []
    assert (data.all_labels() == VOCDataset(tmp_path, "train").all_labels()).all()
    assert (status("minivoc", tmp_path).state == "complete").all()


# ---- one door


@pytest.mark.parametrize(
    "kind, split, options, parts",
    [
        ("voc", "train", {}, ["'voc'", "did you mean 'voc2012'"]),
        ("nothing like it", "train", {}, ["minivoc, voc2012", "package.module:object"]),
        ("voc2012", None, {}, ["name a split"]),
        ("minivoc", None, {}, ["name a split"]),
        ("coco2014", None, {}, ["name a split", "train2014"]),
        ("folder", None, dict(mask_dri="masks"), ["'mask_dri'", "'mask_dir'"]),
        ("minivoc", "train", dict(labels="x"), ["'labels'"]),
        ("no_such_module:Thing", "train", {}, ["no_such_module", "installed"]),
        ("json:Thing", "train", {}, ["json:Thing", "unknown"]),
        ("data_cases:NAMES", "train", {}, []),
    ],
)
@pytest.mark.fault
def test_kinds_that_cannot_be_meant(tmp_path, kind, split, options, parts):
    folder(tmp_path)
    with pytest.raises((SettingsError, TypeError)) as error:
        open_dataset(kind, tmp_path, split, **options)
    if parts:
        assert isinstance(error.value, SettingsError)
        one_line(error, *parts)


def test_kinds_can_be_listed():
    assert list(KINDS) == ["minivoc", "voc2012", "coco2014", "folder"] and "folder" in KINDS


def test_the_door_notebooks_class_is_a_data_set(tmp_path, monkeypatch):
    cells = ["".join(cell["source"]) for cell in json.loads(DOOR.read_text())["cells"]]
    code = next(cell for cell in cells if "class ZipPhotos" in cell).split("'''")[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    write(tmp_path / "zip_photos_of_a_test.py", code.encode())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("dog+cat_1", "dog_2"):
            with archive.open(f"{name}.png", "w") as file:
                Image.fromarray(picture()).save(file, "PNG")
    data = open_dataset("zip_photos_of_a_test:ZipPhotos", tmp_path / "x.zip", "train", between="+")
    assert data.ids == ["dog+cat_1", "dog_2"] and data.classes == ["cat", "dog"]
    assert data.all_labels().tolist() == [[1, 1], [0, 1]] and data.split == "train"
    assert (data.image(0) == picture()).all() and data.mask(0) is None
    assert data.full_size(0) == (24, 32) and len(find_faults(data)) == 0
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()
    with pytest.raises(SettingsError) as error:
        open_dataset("zip_photos_of_a_test:ZipPhotos", tmp_path / "x.zip", beetween="+")
    one_line(error, "'beetween'", "'between'")
    sys.modules.pop("zip_photos_of_a_test")


class Small:
    "The least that is a data set."

    ids, classes = ["a/1", "b"], ["dog", "cat"]

    def __init__(self, seed=0):
        self.seed = seed

    def image(self, i):
        return picture(seed=self.seed + i)

    def labels(self, i):
        return np.array([1, i])


def test_a_minimal_object_is_completed():
    data = as_dataset(Small())
    assert as_dataset(data) is data and len(data) == 2 and data.split == "all"
    assert data.ids == ["a__1", "b"] and data.mask(0) is None and data.mask_path(0) is None
    assert data.all_labels().tolist() == [[1, 0], [1, 1]]
    assert data.fingerprint() == as_dataset(Small()).fingerprint()
    assert data.fingerprint() != as_dataset(Small(seed=1)).fingerprint()
    assert data.image_stamp(0) != data.image_stamp(1) and check_masks(data) == []


@pytest.mark.parametrize("lacks", ["ids", "classes", "image", "labels"])
@pytest.mark.fault
def test_what_is_no_data_set_is_told(lacks):
    parts = {name: getattr(Small, name) for name in ("ids", "classes", "image", "labels")}
    parts.pop(lacks)
    with pytest.raises(SettingsError) as error:
        as_dataset(type("Mine", (), parts)())
    one_line(error, "Mine", f"has no {lacks}")


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(labels=lambda self, i: np.array([0.5, 1])), "0 and 1"),
        (dict(labels=lambda self, i: np.array([1])), "classes"),
        (dict(labels=lambda self, i: ["dgo"]), "did you mean 'dog'"),
        (dict(image=lambda self, i: np.zeros((24, 32, 3))), "uint8"),
        (dict(image=lambda self, i: np.zeros((3, 24, 32), np.uint8)), "channels to the end"),
        (dict(image=lambda self, i: None), "shape"),
        (dict(mask=lambda self, i: np.zeros((24, 32))), "integers"),
        (dict(mask=lambda self, i: np.full((24, 32), 3)), "unknown labels [3]"),
        (dict(mask=lambda self, i: np.full((24, 31), 1)), "size"),
    ],
)
@pytest.mark.fault
def test_wrong_answers_of_an_object_are_told(change, words):
    faults = find_faults(as_dataset(type("Mine", (Small,), change)()))
    assert len(faults) == 2
    one_line(faults.problem[0], words)


@pytest.mark.parametrize(
    "change", [dict(ids=["a", "a"]), dict(ids=["", "b"]), dict(classes=["dog", "dog"])]
)
@pytest.mark.fault
def test_ids_and_classes_are_checked_at_once(change):
    with pytest.raises(DataError) as error:
        as_dataset(type("Mine", (Small,), change)())
    one_line(error)


# ---- lists


def test_lists_of_arrays_paths_and_pillow_images(tmp_path):
    write(tmp_path / "on its side.jpg", with_exif(picture(), 6, ".jpg"))
    images = [picture(), tmp_path / "on its side.jpg", Image.fromarray(picture()).convert("L")]
    labels = ["dog;cat", ["dog"], []]
    masks = [np.ones((24, 32), int), None, np.zeros((24, 32), bool)]
    data = ListDataset(images, labels, masks=masks)
    assert data.classes == ["cat", "dog"] and data.ids == ["0000", "on its side", "0002"]
    assert data.all_labels().tolist() == [[1, 1], [0, 1], [0, 0]]
    assert data.image(1).shape == (32, 24, 3) and data.full_size(1) == (32, 24)
    assert data.mask(0).all() and data.mask(1) is None and "2 of 3" in data.mask_source
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()
    small = ListDataset(images, labels, masks=masks, max_side=16)
    assert small.image(0).shape == (12, 16, 3) and small.mask(0).shape == (12, 16)
    assert small.full_size(0) == (24, 32) and small.image_stamp(0) != data.image_stamp(0)
    named = ListDataset(images, np.eye(3, 2, dtype=int), ["dog", "cat"], names=["x", "y.z", "ü"])
    assert named.ids == ["x", "y.z", "ü"]
    assert named.all_labels().tolist() == [[1, 0], [0, 1], [0, 0]]


@FEW
@given(place=st.integers(0, 24 * 32 * 3 - 1))
def test_one_changed_value_of_an_array_is_seen(place):
    other = picture()
    other.flat[place] ^= 1
    stamps = [ListDataset([image], ["dog"]).image_stamp(0) for image in (picture(), other)]
    assert stamps[0] != stamps[1]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: ListDataset([picture()], ["dog", "cat"]), "1 images but labels of 2"),
        (lambda: ListDataset([picture()], [[]]), "give classes"),
        (lambda: ListDataset([picture()], ["dgo"], ["dog"]), "did you mean 'dog'"),
        (lambda: ListDataset([picture()], np.ones((1, 2))), "give the names"),
        (lambda: ListDataset([picture()], np.full((1, 1), 0.3), ["dog"]), "0 and 1"),
        (lambda: ListDataset([picture()], np.ones((2, 1)), ["dog"]), "(images, classes)"),
        (lambda: ListDataset([picture()] * 2, ["dog"] * 2, names=["a", "a"]), "both called 'a'"),
        (lambda: ListDataset([picture()] * 2, ["dog"] * 2, names=["a"]), "1 names"),
        (lambda: ListDataset([picture()], ["dog"], masks=[]), "0 masks"),
        (lambda: as_image("no such file.jpg"), "does not exist"),
    ],
)
@pytest.mark.fault
def test_lists_that_do_not_fit(make, words):
    with pytest.raises(DataError) as error:
        make()
    one_line(error, words)


# ---- true masks against labels


def with_masks(root, masks, rows=None, **options):
    "Own photos with masks (None: no file) under their names."
    names = [f"p{i}" for i in range(len(masks))]
    rows = rows or ["dog"] * len(masks)
    text = "".join(f"{name},{row}\n" for name, row in zip(names, rows))
    folder(root, f"image,labels\n{text}", photos=[f"{name}.png" for name in names])
    (root / "masks").mkdir()
    for name, mask in zip(names, masks):
        if mask is not None:
            save_label(root / f"masks/{name}.png", mask)
    return told(lambda: FolderDataset(root, mask_dir="masks", **options))[0]


ONES, NONE = np.ones((24, 32), int), np.zeros((24, 32), int)
HALF = np.where(np.arange(32) < 9, 255, 0) + NONE


@pytest.mark.parametrize(
    "masks, rows, words",
    [
        ([HALF, HALF], None, ["2 of 2", "0 and 255", "mask_values={255: 1}"]),
        ([NONE, ONES], None, ["1 of 2", "empty", "p0"]),
        ([ONES, ONES], ["dog", "cat"], ["1 of 2", "do not name", "cat beside dog", "class order"]),
        ([ONES, ONES], ["dog;cat", "cat"], ["1 of 2", "do not show", "dog"]),
        ([ONES, ONES * 9], None, ["1 of 2", "unknown labels [9]"]),
        ([ONES, np.ones((5, 5), int)], None, ["1 of 2", "5 x 5"]),
        ([ONES, None], None, ["1 of 2 images have a mask"]),
        ([ONES, ONES], ["dog", ""], ["1 of 2", "beside nothing"]),
    ],
)
@pytest.mark.fault
def test_masks_that_contradict_the_labels_are_told(tmp_path, masks, rows, words):
    lines = check_masks(with_masks(tmp_path, masks, rows))
    assert any(all(word in line for word in words) for line in lines), lines
    for line in lines:
        one_line(line)


@pytest.mark.fault
def test_masks_of_other_names_and_colours_are_told(tmp_path):
    (tmp_path / "other").mkdir()
    data = with_masks(tmp_path, [ONES])
    (tmp_path / "masks/p0.png").rename(tmp_path / "masks/p0_mask.png")
    data = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))[0]
    assert any("p0_mask.png" in line for line in check_masks(data))
    order = [0, 3, 1, 2]
    saved = Image.fromarray(np.full((24, 32), 2, np.uint8)).convert("P")
    saved.putpalette(palette()[order].ravel().tolist())
    saved.save(tmp_path / "masks/p0.png")
    data = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))[0]
    assert (data.mask(0) == 1).all() and any("by colour" in line for line in check_masks(data))


@FEW
@given(
    labels=st.lists(st.sets(st.integers(0, 19), min_size=1, max_size=3), min_size=2, max_size=6),
    order=st.permutations(range(20)),
)
@pytest.mark.fault
def test_another_class_order_is_told_unless_it_shows_nowhere(labels, order):
    masks = []
    for own in labels:
        mask = np.zeros((24, 32), int)
        for row, label in enumerate(sorted(own)):
            mask[row] = order[label] + 1
        masks.append(mask)
    names = [[VOC_CLASSES[label] for label in own] for own in labels]
    data = ListDataset([picture()] * len(labels), names, VOC_CLASSES, masks)
    same = all({order[label] for label in own} == own for own in labels)
    found = [line for line in check_masks(data) if "class order" in line]
    assert bool(found) != same


def test_sound_masks_and_no_masks_are_not_told(tmp_path):
    assert check_masks(with_masks(tmp_path / "a", [ONES, ONES])) == []
    assert check_masks(FolderDataset(folder(tmp_path / "b"))) == []
    assert check_masks(with_masks(tmp_path / "c", [HALF], mask_values={255: 1})) == []
    data = VOCDataset(voc(tmp_path / "d"), "train")
    assert check_masks(data) == [] and (data.mask(0) == mask_of(0)).all()


def test_some_images_are_spread_evenly():
    assert some_images(5, None).tolist() == some_images(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert some_images(100, 3).tolist() == [0, 50, 99] or some_images(100, 3).tolist()[0] == 0
    assert len(set(some_images(1000, 200))) == 200


@pytest.mark.parametrize(
    "rows, words",
    [
        (["dog", "dog"], ["all 2 images have the same labels (dog)"]),
        (["dog"], ["all 1 images", "cannot be learned"]),
        (["dog", "dog;cat"], ["dog: on all 2 images"]),
        (["dog", "cat", ""], ["1 of 3 images have no label"]),
    ],
)
@pytest.mark.fault
def test_labels_that_teach_nothing_are_told(rows, words):
    lines = check_labels(ListDataset([picture()] * len(rows), rows))
    assert any(all(word in line for word in words) for line in lines), lines
    data = ListDataset([picture()] * 2, ["dog", "cat"], ["dog", "cat", "cow"])
    assert check_labels(data) == ["1 of 3 classes are on no image (cow)"]
    assert count_classes(data).images.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(max_side="big"), ["data.options.max_side", "'big'", "int"]),
        (dict(max_side="1:30"), ["data.options.max_side"]),
        (dict(max_side=True), ["data.options.max_side"]),
        (dict(max_side=0), ["max_side 0", "8 pixels"]),
        (dict(max_side=-5), ["max_side -5"]),
        (dict(mask_values=255), ["data.options.mask_values", "255", "dict"]),
        (dict(mask_values={255: "dog"}), ["mask_values", "{255: 1}"]),
        (dict(mask_values={"a": 1}), ["mask_values", "{255: 1}"]),
        (dict(mask_values={15301: None}), ["mask_values", "{255: 1}"]),
        (dict(mask_dir=["masks"]), ["data.options.mask_dir", "str"]),
        (dict(encoding=5), ["data.options.encoding", "str"]),
        (dict(labels_csv=5), ["data.options.labels_csv", "str"]),
        (dict(classes=5), ["data.options.classes", "list"]),
        (dict(mask_dirr="masks"), ["mask_dirr", "mask_dir"]),
        (dict(missing="maybe"), ["missing", "skip or refuse"]),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "minivoc"])
@pytest.mark.fault
def test_options_of_a_wrong_type_are_named(tmp_path, options, words, kind):
    root = folder(tmp_path) if kind == "folder" else voc(tmp_path)
    if kind == "minivoc" and not set(options) & {"mask_dir", "encoding", "labels_csv"}:
        return
    with pytest.raises(SettingsError) as error:
        open_dataset(kind, root, "train" if kind == "minivoc" else None, **options)
    one_line(error, *words)
