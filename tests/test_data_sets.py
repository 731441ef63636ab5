"""What every data set promises: ids, pixels, labels, masks placed like photos, honest stamps."""

import os
import pickle
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import NAMES, one_line, picture, told, voc, with_exif, write
from fmwsss.data.dataset import Dataset, first, subset
from fmwsss.data.formats import turned_array
from fmwsss.data.kinds import find_faults
from fmwsss.data.label_maps import save_label
from fmwsss.data.tables import save_labels
from fmwsss.data.voc import VOCDataset
from fmwsss.files import stamps
from fmwsss.files.errors import DataError, MissingData
from fmwsss.files.stamps import Stamps, file_stamp, memory_place
from fmwsss.method.labels import VOC_CLASSES

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True)


# ---- VOC


def test_voc_contract(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    assert len(data) == 3 and data.ids == list(NAMES) and data.classes == list(VOC_CLASSES)
    assert data.split == "train" and data.notes == []
    assert data.image(0).shape == (24, 32, 3) and data.image(0).dtype == np.uint8
    assert data.mask(0).shape == (24, 32) and data.mask(0).dtype == np.uint8
    assert data.full_size(0) == (24, 32) and 255 in data.mask(0)
    assert data.labels(1).dtype == np.uint8 and np.flatnonzero(data.labels(1)).tolist() == [1, 14]
    assert data.all_labels().shape == (3, 20)
    assert data.image_path(0).name == "2007_000032.jpg"
    assert data.mask_path(0).name == "2007_000032.png"
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()
    assert "3 images" in repr(data)
    assert first(data, 2).ids == list(NAMES[:2]) and first(data, None) is data
    assert subset(data, NAMES[2:]).labels(0).tolist() == data.labels(2).tolist()


def test_labels_are_remembered_and_cannot_be_changed_by_accident(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    data.labels(0)[:] = 7
    data.mask_path(0).unlink()
    assert data.labels(0).sum() == 2


def test_voc_root_may_be_the_parent(tmp_path):
    voc(tmp_path / "VOCdevkit/VOC2012")
    assert len(VOCDataset(tmp_path, "train")) == 3


@pytest.mark.fault
def test_a_test_split_without_masks_needs_a_table(tmp_path):
    voc(tmp_path)
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("2008_000001\n")
    Image.fromarray(picture()).save(tmp_path / "JPEGImages/2008_000001.jpg")
    data = VOCDataset(tmp_path, "test")
    assert data.mask(0) is None and data.mask_path(0) is None and data.mask_source is None
    with pytest.raises(DataError) as error:
        data.labels(0)
    one_line(error, "2008_000001", "labels_csv")
    (tmp_path / "test.csv").write_text("image,labels\n2008_000001.jpg,cat;dog\n")
    assert VOCDataset(tmp_path, "test", labels_csv="test.csv").labels(0).sum() == 2


@pytest.mark.fault
def test_train_aug_is_made_of_masks_and_of_nothing_else(tmp_path):
    voc(tmp_path, ("a", "b", "c"), "train_all")
    voc(tmp_path, ("v",), "val")
    (tmp_path / "SegmentationClass").rename(tmp_path / "SegmentationClassAug")
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (tmp_path / "SegmentationClassAug" / name).write_bytes(b"\0\5\x16\7" + bytes(4092))
        (tmp_path / "JPEGImages" / name.replace("png", "jpg")).write_bytes(bytes(100))
    data = VOCDataset(tmp_path, "train_aug")
    assert data.ids == ["a", "b", "c"] and len(find_faults(data)) == 0


@pytest.mark.fault
def test_names_with_spaces_unicode_and_brackets(tmp_path):
    names = ["my photo 1", "größe", "東京 (2)", "a.b"]
    voc(tmp_path, names)
    data = VOCDataset(tmp_path, "train")
    assert data.ids == names and len(find_faults(data)) == 0
    path = tmp_path / "ImageSets/Segmentation/train.txt"
    path.write_text(unicodedata.normalize("NFD", "größe") + "\n", encoding="utf-8")
    assert VOCDataset(tmp_path, "train").ids == ["größe"]


def test_a_label_table_replaces_the_mask(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    noisy = data.all_labels()
    noisy[0] = 0
    noisy[2, 5] = 1
    save_labels(tmp_path / "noisy.csv", data.ids, noisy, data.classes)
    again = VOCDataset(tmp_path, "train", labels_csv="noisy.csv")
    assert (again.all_labels() == noisy).all() and (again.mask(0) == data.mask(0)).all()
    save_labels(tmp_path / "noisy.csv", data.ids[:2], noisy, data.classes)
    with pytest.raises(MissingData) as error:
        VOCDataset(tmp_path, "train", labels_csv="noisy.csv")
    one_line(error, "1 of 3", "noisy.csv", "2007_000063")


@pytest.mark.fault
def test_a_list_names_a_missing_image_mask_or_split(tmp_path):
    voc(tmp_path)
    list_file = tmp_path / "ImageSets/Segmentation/train.txt"
    list_file.write_text(list_file.read_text() + "2007_999999\n")
    with pytest.raises(MissingData) as error:
        VOCDataset(tmp_path, "train")
    one_line(error, "1 of 4 images", "2007_999999", "JPEGImages", "train.txt")
    Image.fromarray(picture()).save(tmp_path / "JPEGImages/2007_999999.jpg")
    with pytest.raises(MissingData) as error:
        VOCDataset(tmp_path, "train")
    one_line(error, "1 of 4 masks", "2007_999999", "SegmentationClass")
    with pytest.raises(MissingData) as error:
        VOCDataset(tmp_path, "trian")
    one_line(error, "trian", "splits there: train")
    with pytest.raises(DataError) as error:
        VOCDataset(tmp_path, "../../train")
    one_line(error, "out of")


@pytest.mark.fault
def test_empty_folders(tmp_path):
    with pytest.raises(MissingData) as error:
        VOCDataset(tmp_path, "train")
    one_line(error, "train.txt", "none")
    voc(tmp_path)
    for path in (tmp_path / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(MissingData) as error:
        VOCDataset(tmp_path, "train")
    one_line(error, "JPEGImages", "no image")
    with pytest.raises(FileNotFoundError) as error:
        VOCDataset(tmp_path / "no" / "where", "train")
    one_line(error, tmp_path / "no", "check the path")


@pytest.mark.fault
def test_find_faults_names_all_and_goes_on(tmp_path):
    voc(tmp_path)
    (tmp_path / "JPEGImages/2007_000032.jpg").write_bytes(b"\xff\xd8\xff")
    save_label(tmp_path / "SegmentationClass/2007_000063.png", np.zeros((5, 5), np.uint8))
    faults = find_faults(VOCDataset(tmp_path, "train"))
    assert faults.id.tolist() == ["2007_000032", "2007_000063"] and "5 x 5" in faults.problem[1]


@pytest.mark.fault
def test_wrong_masks(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    path = tmp_path / "SegmentationClass/2007_000032.png"
    save_label(path, np.zeros((10, 32), np.uint8))
    with pytest.raises(DataError) as error:
        data.mask(0)
    one_line(error, path, "32 x 10", "32 x 24")
    save_label(path, np.full((24, 32), 21, np.uint8))
    with pytest.raises(DataError) as error:
        data.labels(0)
    one_line(error, path, "[21]", "1..20")
    path.unlink()
    with pytest.raises(MissingData) as error:
        data.mask(0)
    one_line(error, path)


# ---- photo and mask lie alike


def lying(folder, note, suffix, shape, mask_kind):
    "A data set of one photo with a turn note and a mask drawn on the 'upright' or 'stored' pixels."
    block = np.kron(picture(3, 4 if shape == "wide" else 3)[..., 0], np.ones((8, 8), np.uint8))
    stored = np.stack([block] * 3, 2).astype(np.uint8)
    image = write(folder / f"a{suffix}", with_exif(stored, note, suffix))
    label = (block // 13).astype(np.uint8)
    mask = folder / "a.label.png"
    save_label(mask, turned_array(label, note) if mask_kind == "upright" else label)
    return Dataset("all", VOC_CLASSES, ["a"], {"a": image}, {"a": mask}), turned_array(label, note)


@pytest.mark.parametrize("note", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("shape", ["wide", "square"])
@pytest.mark.parametrize("mask_kind", ["upright", "stored"])
@pytest.mark.fault
def test_image_and_mask_are_turned_alike_or_it_is_told(tmp_path, note, suffix, shape, mask_kind):
    data, expected = lying(tmp_path, note, suffix, shape, mask_kind)
    mask, lines = told(lambda: data.mask(0))
    assert mask.shape == data.image(0).shape[:2]
    sure = note == 1 or (note >= 5 and shape == "wide" and mask_kind == "upright")
    assert len(lines) == (0 if sure else 1) and data.notes == lines
    if mask_kind == "upright" or (note >= 5 and shape == "wide"):
        assert (mask == expected).all()  # else nobody can know, and it was told
    if lines:
        one_line(lines[0], "a", "EXIF")
    assert told(lambda: data.mask(0))[1] == []  # once a data set


@pytest.mark.parametrize("note", range(2, 9))
def test_a_mask_with_its_own_note_is_no_doubt(tmp_path, note):
    data, expected = lying(tmp_path, note, ".jpg", "wide", "stored")
    exif = Image.Exif()
    exif[0x0112] = note
    Image.open(data.mask_path(0)).save(data.mask_path(0), exif=exif)
    mask, lines = told(lambda: data.mask(0))
    assert (mask == expected).all() and not lines


# ---- stamps


def test_fingerprint(tmp_path):
    a, b = (VOCDataset(voc(tmp_path / name), "train") for name in "ab")
    before = a.fingerprint()
    assert before == b.fingerprint() and len(before) == 12  # neither place nor date
    save_labels(tmp_path / "t.csv", a.ids, a.all_labels(), a.classes)
    table = VOCDataset(tmp_path / "a", "train", labels_csv=tmp_path / "t.csv")
    assert table.fingerprint() != before
    others = [a.fingerprint(i) for i in range(3)]
    mask = a.mask(1)
    mask[0, 0] = 20
    save_label(a.mask_path(1), mask)
    assert a.fingerprint() != before
    assert [a.fingerprint(i) != old for i, old in enumerate(others)] == [False, True, False]
    Image.fromarray(picture(seed=9)).save(a.image_path(0))
    assert a.fingerprint(0) != others[0]


@FEW
@given(place=st.integers(0, 49_999), suffix=st.sampled_from(["bmp", "tif"]), back=st.booleans())
@pytest.mark.fault
def test_one_changed_byte_of_an_uncompressed_photo_is_seen(tmp_path_factory, place, suffix, back):
    path = tmp_path_factory.mktemp("s") / f"a.{suffix}"
    Image.fromarray(picture(120, 140)).save(path)
    data = Dataset("all", ["dog"], ["a"], {"a": path}, {})
    before, date = data.image_stamp(0), path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[300 + place] ^= 1
    path.write_bytes(content)
    if back:
        os.utime(path, ns=(date, date))  # a program that restores dates
    assert data.image_stamp(0) != before


@pytest.mark.fault
def test_a_file_that_was_hashed_is_read_again_only_if_it_was_touched(tmp_path, monkeypatch):
    path = write(tmp_path / "a.bmp", bytes(5000))
    read = []
    real = stamps.file_stamp
    monkeypatch.setattr(stamps, "file_stamp", lambda path: read.append(path) or real(path))
    monkeypatch.setattr(stamps, "SETTLED", 0)
    memory = Stamps(tmp_path / "memory.tsv")
    time.sleep(0.02)
    assert memory.stamp(path) == memory.stamp(path) == Stamps(tmp_path / "memory.tsv").stamp(path)
    assert len(read) == 1
    write(path, bytes(4999) + b"\1")
    assert Stamps(tmp_path / "memory.tsv").stamp(path) == real(path) and len(read) == 2


@pytest.mark.fault
def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    path = write(tmp_path / "a.bmp", bytes(5000))
    memory = Stamps()
    for value in range(20):  # within one tick of the clock, perhaps
        path.write_bytes(bytes(4999) + bytes([value]))
        assert memory.stamp(path) == file_stamp(path)


@pytest.mark.fault
def test_a_memory_that_is_damaged_or_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLED", 0)
    path = write(tmp_path / "a.bmp", bytes(50))
    time.sleep(0.02)
    contents = (b"\xff\xfe\0", b"one\ttwo\n", b"a\tb\tc\td\n", str(path).encode() + b"\t1\tx\n")
    for content in contents:
        assert Stamps(write(tmp_path / "m.tsv", content)).stamp(path) == file_stamp(path)
    (tmp_path / "file").write_text("")
    assert Stamps(tmp_path / "file/m.tsv").stamp(path) == file_stamp(path)
    assert Stamps(tmp_path).stamp(tmp_path / "no.jpg") == "unreadable"


def test_few_files_leave_nothing_behind(tmp_path):
    assert memory_place(tmp_path, 999) is None and memory_place(tmp_path, 1000).suffix == ".tsv"
    assert memory_place(tmp_path, 1000) != memory_place(tmp_path / "other", 1000)
