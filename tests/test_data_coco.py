"""COCO: painted small over large, read through an index, in whichever numbering maps have."""

import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import coco, entry, one_line, picture, told
from fmwsss.data import coco_objects
from fmwsss.data.coco import HOLES, COCODataset, find_numbering, numbering_of
from fmwsss.data.kinds import check_class_order, open_dataset
from fmwsss.data.label_maps import save_label
from fmwsss.files.errors import DataError, MissingData
from fmwsss.data.coco_names import COCO_CLASSES, COCO_IDS

FEW = settings(max_examples=60, deadline=None, database=None, derandomize=True)
TO90 = np.array([0, *COCO_IDS])


def test_coco_paints_small_over_large(tmp_path):
    data = COCODataset(coco(tmp_path), "val2014")
    assert data.ids == ["COCO_val2014_000000000007", "COCO_val2014_000000000042"]
    assert data.classes == list(COCO_CLASSES)
    mask = data.mask(1)
    stop = COCO_CLASSES.index("stop sign") + 1
    assert [mask[6, 6], mask[15, 15], mask[25, 0], mask[25, 30]] == [80, 1, stop, 0]
    assert [COCO_CLASSES[c] for c in np.flatnonzero(data.labels(0))] == ["bottle"]
    assert data.labels(1).sum() == 3 and data.mask_path(0) is None
    assert "small objects painted over large" in data.mask_source
    ignoring = COCODataset(tmp_path, "val", crowd="ignore")
    assert ignoring.mask(1)[25, 0] == 255 and ignoring.fingerprint() != data.fingerprint()
    assert ignoring.fingerprint(0) != ignoring.fingerprint(1)
    with pytest.raises(DataError) as error:
        open_dataset("coco2014", tmp_path, "val2014")
    one_line(error, "2 images instead of 40,137")


def with_maps(root, numbers=range(81), spoil=None):
    "COCO with label maps whose label k is written as numbers[k]."
    painted = COCODataset(coco(root, spoil=spoil), "val2014")
    maps = root / "SegmentationClass/val2014"
    maps.mkdir(parents=True)
    for i, id in enumerate(painted.ids):
        save_label(maps / f"{id.split('_')[-1]}.png", np.array(numbers)[painted.mask(i)])
    return painted


def test_coco_with_maps(tmp_path):
    painted = with_maps(tmp_path)
    data = COCODataset(tmp_path, "val2014")
    assert data.mask_source == "label maps in SegmentationClass"
    assert (data.mask(1) == painted.mask(1)).all() and check_class_order(data) >= 1
    save_label(data.mask_path(0), np.full((30, 40), 5, np.uint8))
    with pytest.raises(DataError) as error:
        check_class_order(data)
    one_line(error, "airplane", "class order")
    assert "annotations" in COCODataset(tmp_path, "val2014", mask_dir="annotations").mask_source
    data.mask_path(1).unlink()
    with pytest.raises(MissingData) as error:
        COCODataset(tmp_path, "val2014")
    one_line(error, "1 of 2 label maps")


def test_coco_with_maps_only(tmp_path):
    painted = with_maps(tmp_path)
    expected = painted.all_labels()
    for path in (tmp_path / "SegmentationClass/val2014").iterdir():
        path.rename(path.with_name(f"COCO_val2014_{path.name}"))
    (tmp_path / "annotations/instances_val2014.json").unlink()
    data = COCODataset(tmp_path, "val2014")
    assert (data.all_labels() == expected).all()


# ---- two numberings


@FEW
@given(labels=st.sets(st.integers(1, 80), min_size=1, max_size=5))
@pytest.mark.fault
def test_the_numbering_is_told_apart_or_unsure(labels):
    as90 = {COCO_IDS[label - 1] for label in labels}
    assert numbering_of(labels, labels) in ("80", "unsure")
    assert numbering_of(as90, labels) in ("90", "unsure")
    if numbering_of(labels, labels) == "unsure":
        assert labels == as90 or {COCO_IDS[label - 1] for label in labels} >= labels
    assert numbering_of(as90, None) in ("90", "unsure")
    assert numbering_of(labels, None) in ("80", "unsure")


@pytest.mark.fault
def test_maps_in_cocos_own_numbers_are_read_as_they_are_meant(tmp_path):
    painted = with_maps(tmp_path, TO90)
    for annotated in (True, False):
        if not annotated:
            for path in (tmp_path / "SegmentationClass/val2014").iterdir():
                path.rename(path.with_name(f"COCO_val2014_{path.name}"))
            (tmp_path / "annotations/instances_val2014.json").unlink()
        data = COCODataset(tmp_path, "val2014")
        assert "1..90" in data.mask_source
        assert all((data.mask(i) == painted.mask(i)).all() for i in range(2))


@pytest.mark.fault
def test_as_many_maps_as_it_takes_are_looked_at(tmp_path):
    "Forty photos of persons and cars tell nothing, the forty-first does."
    maps, known = {}, {}
    for number in range(41):
        labels = {1, 3} if number < 40 else {80}
        maps[str(number)] = tmp_path / f"{number}.png"
        known[str(number)] = labels
        save_label(maps[str(number)], TO90[np.array([list(labels)])])
    assert find_numbering(maps, known) == "90" and find_numbering(maps, None) == "90"
    few = {id: path for id, path in maps.items() if id != "40"}
    assert find_numbering(few, known) == find_numbering(few, None) == "unsure"


@pytest.mark.fault
def test_a_numbering_that_cannot_be_told_is_told(tmp_path):
    def persons(content):
        content["annotations"] = [entry(n, 1, [[0, 0, 9, 0, 9, 9]], 40) for n in (7, 42)]

    with_maps(tmp_path, spoil=persons)
    for path in (tmp_path / "SegmentationClass/val2014").iterdir():
        path.rename(path.with_name(f"COCO_val2014_{path.name}"))
    data, lines = told(lambda: COCODataset(tmp_path, "val2014"))
    assert not lines  # the annotations say the same in both
    (tmp_path / "annotations/instances_val2014.json").unlink()
    data, lines = told(lambda: COCODataset(tmp_path, "val2014"))
    one_line(lines[0], "2 label maps", "1..80 is taken")


@pytest.mark.fault
def test_maps_in_another_order_are_refused(tmp_path):
    with_maps(tmp_path, [0, *range(80, 0, -1)])
    with pytest.raises(DataError) as error:
        COCODataset(tmp_path, "val2014")
    one_line(error, "class order", "numberings")
    assert len(HOLES) == 10


# ---- the index


def test_coco_index_is_read_instead_of_the_text(tmp_path, monkeypatch):
    before = COCODataset(coco(tmp_path), "val2014")
    masks = [before.mask(i) for i in range(2)]
    file = tmp_path / "annotations/instances_val2014.json"
    parsed, real = [], coco_objects.parse_instances
    monkeypatch.setattr(
        coco_objects, "parse_instances", lambda path: parsed.append(path) or real(path)
    )
    again = pickle.loads(pickle.dumps(COCODataset(tmp_path, "val2014")))
    assert not parsed and again.fingerprint() == before.fingerprint()
    assert len(pickle.dumps(again.instances)) < 300
    assert all((again.mask(i) == masks[i]).all() for i in range(2))
    assert (again.all_labels() == before.all_labels()).all()
    content = json.loads(file.read_text())
    content["annotations"].pop(0)
    file.write_text(json.dumps(content))
    changed = COCODataset(tmp_path, "val2014")
    assert len(parsed) == 1 and changed.labels(1).sum() == 2
    assert changed.fingerprint() != before.fingerprint()
    (tmp_path / "annotations/instances_val2014.index/numbers.npy").write_bytes(b"damaged")
    assert (COCODataset(tmp_path, "val2014").mask(1) == changed.mask(1)).all() and len(parsed) == 2
    names = sorted(path.name for path in file.parent.iterdir())
    assert names == ["instances_val2014.index", "instances_val2014.json"]


@pytest.mark.fault
def test_coco_index_is_not_needed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(coco_objects.np, "save", full)
    data = pickle.loads(pickle.dumps(COCODataset(coco(tmp_path), "val2014")))
    assert data.mask(1)[6, 6] == 80
    names = [path.name for path in (tmp_path / "annotations").iterdir()]
    assert names == ["instances_val2014.json"]


def test_coco_runs_as_text(tmp_path):
    from pycocotools import mask as rle

    truth = np.zeros((30, 40), np.uint8)
    truth[3:9, 5:20] = 1
    packed = rle.encode(np.asfortranarray(truth))

    def add(content):
        shape = dict(size=[30, 40], counts=packed["counts"].decode())
        content["annotations"] = [entry(7, 1, shape, 9, 1)]

    assert (COCODataset(coco(tmp_path, spoil=add), "val2014").mask(0) == truth).all()


# ---- wrong annotations


def set_to(*path, value):
    "A spoiler that sets content[path] to a value."

    def spoil(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return spoil


@pytest.mark.parametrize(
    "spoil, parts",
    [
        (set_to("categories", 0, "name", value="tooth brush"), ["other classes", "tooth brush"]),
        (lambda content: content.pop("images"), ["damaged"]),
        (lambda content: content["annotations"][0].pop("area"), ["damaged"]),
        (set_to("annotations", 0, "category_id", value=91), ["damaged"]),
        (set_to("images", 0, "file_name", value="../../x.jpg"), ["out of"]),
        (set_to("images", 0, "file_name", value="other.jpg"), ["1 of 2 images", "other"]),
        (lambda content: content.update(annotations=[]), ["no image with objects"]),
    ],
)
@pytest.mark.fault
def test_wrong_annotations(tmp_path, spoil, parts):
    with pytest.raises(DataError) as error:
        COCODataset(coco(tmp_path, spoil=spoil), "val2014")
    one_line(error, "instances_val2014.json", *parts)


@pytest.mark.fault
def test_other_coco_faults(tmp_path):
    with pytest.raises(MissingData) as error:
        COCODataset(tmp_path, "val2014")
    one_line(error, "val2014.zip")
    coco(tmp_path, spoil=set_to("images", 0, "width", value=41))
    with pytest.raises(DataError) as error:
        COCODataset(tmp_path, "val2014").mask(1)
    one_line(error, "000000000042", "41 x 30")
    file = tmp_path / "annotations/instances_val2014.json"
    file.write_text(file.read_text()[:500])
    with pytest.raises(DataError) as error:
        COCODataset(tmp_path, "val2014")
    one_line(error, "damaged")
    file.unlink()
    shutil.rmtree(tmp_path / "annotations")
    with pytest.raises(MissingData) as error:
        COCODataset(tmp_path, "val2014")
    one_line(error, "annotations_trainval2014.zip")
    with pytest.raises(FileNotFoundError) as error:
        COCODataset(tmp_path / "no" / "where")
    one_line(error, tmp_path / "no", "check the path")


def test_photos_may_be_of_another_format(tmp_path):
    coco(tmp_path)
    for path in (tmp_path / "val2014").iterdir():
        path.unlink()
        Image.fromarray(picture(30, 40)).save(path.with_suffix(".png"))
    assert COCODataset(tmp_path, "val2014").image(0).shape == (30, 40, 3)
