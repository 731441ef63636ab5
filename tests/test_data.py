"""Data sets: what each class promises, and one clear line for everything that can be wrong with files."""
import http.server
import io
import json
import pickle
import tarfile
import threading
import unicodedata
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from fmwsss import data as D
from fmwsss.data import (COCODataset, DataError, FolderDataset, MissingData, VOCDataset, augment, download, export_mmseg, export_voc, extract,
                         find_faults, open_dataset, read_image, read_labels, read_list, resize_to_patch, save_labels, status)
from fmwsss.names import COCO_CLASSES, COCO_IDS, VOC_CLASSES, load_label, save_label


def picture(height=24, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def voc(root, names=("2007_000032", "2007_000039", "2007_000063"), split="train", aug=()):
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"): (root / part).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(seed=number)).save(root / f"JPEGImages/{name}.jpg")
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 4:20], mask[12:20, 4:20], mask[3, :] = number + 1, 15, 255
        save_label(root / f"SegmentationClass/{name}.png", mask)
    (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return root


def one_line(error, *parts):
    "The message of an error is one line and names these parts."
    message = str(error.value)
    assert "\n" not in message and len(message) < 500, message
    for part in parts: assert str(part) in message, (part, message)
    return message


# ---- what a data set promises

def test_voc_contract(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    assert len(data) == 3 and data.ids == ["2007_000032", "2007_000039", "2007_000063"] and data.classes == list(VOC_CLASSES) and data.split == "train"
    assert data.image(0).shape == (24, 32, 3) and data.image(0).dtype == np.uint8 and data.mask(0).shape == (24, 32) and data.mask(0).dtype == np.uint8
    assert data.labels(1).dtype == np.uint8 and np.flatnonzero(data.labels(1)).tolist() == [1, 14] and data.all_labels().shape == (3, 20)
    assert data.image_path(0).name == "2007_000032.jpg" and data.mask_path(0).name == "2007_000032.png" and 255 in data.mask(0)
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint() and "3 images" in repr(data)


def test_labels_are_remembered_and_cannot_be_changed_by_accident(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    data.labels(0)[:] = 7
    data.mask_path(0).unlink()
    assert data.labels(0).sum() == 2


def test_voc_root_may_be_the_parent(tmp_path):
    voc(tmp_path / "VOCdevkit/VOC2012")
    assert len(VOCDataset(tmp_path, "train")) == 3


def test_a_test_split_without_masks_needs_a_table(tmp_path):
    voc(tmp_path)
    (tmp_path / "ImageSets/Segmentation/test.txt").write_text("2008_000001\n")
    Image.fromarray(picture()).save(tmp_path / "JPEGImages/2008_000001.jpg")
    data = VOCDataset(tmp_path, "test")
    assert data.mask(0) is None and data.mask_path(0) is None and data.mask_source is None
    with pytest.raises(DataError) as error: data.labels(0)
    one_line(error, "2008_000001", "labels_csv")
    (tmp_path / "test.csv").write_text("image,labels\n2008_000001.jpg,cat;dog\n")
    assert VOCDataset(tmp_path, "test", labels_csv="test.csv").labels(0).sum() == 2


def test_train_aug_is_made_from_its_folder_without_a_list(tmp_path):
    voc(tmp_path, ("a", "b", "c"), "train_all")
    voc(tmp_path, ("v",), "val")
    (tmp_path / "SegmentationClass").rename(tmp_path / "SegmentationClassAug")
    assert VOCDataset(tmp_path, "train_aug").ids == ["a", "b", "c"]


@pytest.mark.fault
def test_names_with_spaces_unicode_and_brackets(tmp_path):
    names = ["my photo 1", "größe", "東京 (2)", "a.b"]
    voc(tmp_path, names)
    data = VOCDataset(tmp_path, "train")
    assert data.ids == names and len(find_faults(data)) == 0
    path = tmp_path / "ImageSets/Segmentation/train.txt"
    path.write_text(unicodedata.normalize("NFD", "größe") + "\n", encoding="utf-8")
    assert VOCDataset(tmp_path, "train").ids == ["größe"]


def test_fingerprint(tmp_path):
    a, b = (VOCDataset(voc(tmp_path / name), "train") for name in "ab")
    first = a.fingerprint()
    assert first == b.fingerprint() and len(first) == 12                # neither place nor date
    save_labels(tmp_path / "t.csv", a.ids, a.all_labels(), a.classes)
    assert VOCDataset(tmp_path / "a", "train", labels_csv=tmp_path / "t.csv").fingerprint() != first
    others = [a.fingerprint(i) for i in range(3)]
    mask = a.mask(1); mask[0, 0] = 20; save_label(a.mask_path(1), mask)
    assert a.fingerprint() != first and [a.fingerprint(i) != old for i, old in enumerate(others)] == [False, True, False]
    Image.fromarray(picture(seed=9)).save(a.image_path(0))
    assert a.fingerprint(0) != others[0]


def test_label_table_replaces_the_mask(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    noisy = data.all_labels(); noisy[0] = 0; noisy[2, 5] = 1
    save_labels(tmp_path / "noisy.csv", data.ids, noisy, data.classes)
    again = VOCDataset(tmp_path, "train", labels_csv="noisy.csv")
    assert (again.all_labels() == noisy).all() and (again.mask(0) == data.mask(0)).all()
    save_labels(tmp_path / "noisy.csv", data.ids[:2], noisy, data.classes)
    with pytest.raises(MissingData) as error: VOCDataset(tmp_path, "train", labels_csv="noisy.csv")
    one_line(error, "1 of 3", "noisy.csv", "2007_000063")


def folder(root, rows="image,labels\ncats/1.png,tabby\n2,sofa;tabby\nn 3.jpg,\n", encoding="utf-8"):
    (root / "cats").mkdir(parents=True, exist_ok=True)
    for name in ("cats/1.png", "2.png", "n 3.jpg"): Image.fromarray(picture()).save(root / name)
    (root / "labels.csv").write_bytes(rows.encode(encoding))
    return root


def test_folder_contract(tmp_path):
    data = FolderDataset(folder(tmp_path))
    assert data.ids == ["cats__1", "2", "n 3"] and data.classes == ["sofa", "tabby"] and data.all_labels().tolist() == [[0, 1], [1, 1], [0, 0]]
    assert data.mask(0) is None and data.image(0).shape == (24, 32, 3)
    assert FolderDataset(tmp_path, classes=["tabby", "bed", "sofa"]).labels(1).tolist() == [1, 0, 1]
    (tmp_path / "masks").mkdir(); save_label(tmp_path / "masks/2.png", np.ones((24, 32), np.uint8))
    data = FolderDataset(tmp_path, mask_dir="masks")
    assert data.mask(0) is None and data.mask(1).all() and "1 of 3" in data.mask_source
    small = FolderDataset(tmp_path, mask_dir="masks", max_side=16)
    assert small.image(1).shape == (12, 16, 3) and small.mask(1).shape == (12, 16) and small.fingerprint() != data.fingerprint()


def test_folder_with_splits(tmp_path):
    folder(tmp_path, "image,labels,split\ncats/1.png,tabby,train\n2,sofa|tabby,val\n")
    assert FolderDataset(tmp_path, split="val").ids == ["2"] and len(FolderDataset(tmp_path)) == 2
    with pytest.raises(DataError) as error: FolderDataset(tmp_path, split="test")
    one_line(error, "labels.csv", "test")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("rows", ["image,labels\n2.png,Käse;sofa\n", "image;labels\r\n2.png;Käse|sofa\r\n", "Image\tLabels\n2\tsofa;Käse\n\n",
                                  "image,labels,,\n2.png,Käse;sofa,,\n"])
def test_tables_of_all_kinds(tmp_path, encoding, rows):
    assert FolderDataset(folder(tmp_path, rows, encoding)).classes == ["Käse", "sofa"]


# ---- wrong tables and lists

@pytest.mark.parametrize("rows, parts", [
    ("", ["empty"]), ("image,labels\n", ["no row"]), ("name,class\n2,sofa\n", ["image,labels"]), ("image,labels\n2\n", ["line 2", "columns"]),
    ("image,class\n2,sofa\n", ["line 2", "'sofa'", "0 or 1"]), ("image,sofa,sofa\n2,1,1\n", ["none twice"]), ("image,split\n2,train\n", ["image,labels"]),
    ("image,labels\n2,sofa,x,y\n", ["line 2", "columns"]), ("image,labels\n2,sofa\n2,tabby\n", ["line 3", "'2'", "line 2"]),
    ("image,labels\n,sofa\n", ["line 2", "file name"]), ("image,labels\n../2.png,sofa\n", ["line 2", "out of"]), ("image,labels\n/etc/passwd,sofa\n", ["out of"]),
    ("image,labels\nC:\\x.png,sofa\n", ["out of"]), ("image,labels\n2,\n", ["no class"]), ("image,labels\n2.png,sofa\n2,sofa\n", ["rename"]),
    ("image,labels\nnothere.png,sofa\n", ["nothere.png", "line"]), ("image,labels\n\"2,sofa\n", ["line"])])
@pytest.mark.fault
def test_bad_tables(tmp_path, rows, parts):
    with pytest.raises(DataError) as error: FolderDataset(folder(tmp_path, rows))
    one_line(error, "labels.csv", *parts)


def test_tables_with_a_column_per_class(tmp_path):
    data = FolderDataset(folder(tmp_path, "image,Sofa,tabby,split\n2,0,1,train\ncats/1,1,1,val\n"))
    assert data.classes == ["Sofa", "tabby"] and data.all_labels().tolist() == [[0, 1], [1, 1]]
    with pytest.raises(DataError) as error: FolderDataset(tmp_path, classes=["Sofa", "tab"])
    one_line(error, "first line", "'tabby'")


def test_what_minivoc_writes_can_be_read(tmp_path):
    from fmwsss import minivoc
    minivoc.write(tmp_path, splits=dict(train=3, val=2), workers=1)
    data = open_dataset("minivoc", tmp_path, "train")
    assert len(data) == 3 and (data.all_labels() == VOCDataset(tmp_path, "train").all_labels()).all() and len(find_faults(data)) == 0
    assert (status("minivoc", tmp_path).state == "complete").all()


@pytest.mark.fault
def test_unknown_class_suggests_the_nearest(tmp_path):
    (tmp_path / "t.csv").write_text("image,labels\na,cat\nb,dgo\n")
    with pytest.raises(DataError) as error: read_labels(tmp_path / "t.csv", VOC_CLASSES)
    one_line(error, "t.csv", "line 3", "'dgo'", "'dog'")


@pytest.mark.fault
def test_missing_table_and_folder(tmp_path):
    with pytest.raises(MissingData) as error: FolderDataset(tmp_path)
    one_line(error, "labels.csv", "image,labels")
    for make in (lambda p: FolderDataset(p), lambda p: VOCDataset(p, "train"), lambda p: COCODataset(p)):
        with pytest.raises(FileNotFoundError) as error: make(tmp_path / "no" / "where")
        one_line(error, tmp_path / "no", "check the path")


@pytest.mark.parametrize("lines, parts", [
    ("", ["no image"]), ("\n \n", ["no image"]), ("a\nb\na\n", ["line 3", "'a'", "line 1"]), ("a\n../b\n", ["line 2", "out of"]), ("/a\n", ["out of"]),
    ("a\\..\\b\n", ["out of"])])
@pytest.mark.fault
def test_bad_lists(tmp_path, lines, parts):
    (tmp_path / "x.txt").write_text(lines)
    with pytest.raises(DataError) as error: read_list(tmp_path / "x.txt")
    one_line(error, "x.txt", *parts)


def test_lists_of_all_kinds(tmp_path):
    for content in ("a b\r\nü\r\n".encode("utf-8-sig"), "a b\nü".encode("latin-1"), "/JPEGImages/a b.jpg /SegmentationClassAug/a b.png\nJPEGImages/ü.jpg\n".encode()):
        (tmp_path / "x.txt").write_bytes(content)
        assert read_list(tmp_path / "x.txt") == ["a b", "ü"]


@pytest.mark.fault
def test_list_names_a_missing_image_mask_or_split(tmp_path):
    voc(tmp_path)
    list_file = tmp_path / "ImageSets/Segmentation/train.txt"
    list_file.write_text(list_file.read_text() + "2007_999999\n")
    with pytest.raises(MissingData) as error: VOCDataset(tmp_path, "train")
    one_line(error, "1 of 4 images", "2007_999999", "JPEGImages", "train.txt")
    Image.fromarray(picture()).save(tmp_path / "JPEGImages/2007_999999.jpg")
    with pytest.raises(MissingData) as error: VOCDataset(tmp_path, "train")
    one_line(error, "1 of 4 masks", "2007_999999", "SegmentationClass")
    with pytest.raises(MissingData) as error: VOCDataset(tmp_path, "trian")
    one_line(error, "trian", "splits there: train")
    with pytest.raises(DataError) as error: VOCDataset(tmp_path, "../../train")
    one_line(error, "out of")


@pytest.mark.fault
def test_empty_folders(tmp_path):
    with pytest.raises(MissingData) as error: VOCDataset(tmp_path, "train")
    one_line(error, "train.txt", "none")
    voc(tmp_path)
    for path in (tmp_path / "JPEGImages").iterdir(): path.unlink()
    with pytest.raises(MissingData) as error: VOCDataset(tmp_path, "train")
    one_line(error, "JPEGImages", "no image")


# ---- wrong images

@pytest.mark.parametrize("mode, suffix", [("1", "png"), ("L", "png"), ("P", "gif"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("YCbCr", "jpg"), ("I;16", "png"),
                                          ("F", "tif"), ("RGB", "webp"), ("RGB", "bmp")])
@pytest.mark.fault
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    ramp = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (24, 1))
    if mode == "I;16": image = Image.fromarray((ramp.astype(np.uint16) * 257))
    elif mode == "F": image = Image.fromarray(ramp.astype(np.float32) / 255)
    else: image = Image.fromarray(np.stack([ramp] * 3, 2)).convert("L" if mode in ("P", "LA") else "RGB").convert(mode)
    image.save(tmp_path / f"x.{suffix}")
    read = read_image(tmp_path / f"x.{suffix}")
    assert read.shape == (24, 32, 3) and read.dtype == np.uint8 and abs(read.mean() - ramp.mean()) < 4
    assert mode == "1" or np.abs(read.astype(int).mean(2) - ramp).mean() < 4


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.zeros((10, 10, 4), np.uint8); pixels[:5, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, 0, 0] == 0 and read_image(tmp_path / "x.png")[9, 0, 0] == 255


@pytest.mark.parametrize("orientation, turned", [(1, False), (3, False), (6, True), (8, True), (5, True)])
@pytest.mark.fault
def test_exif_rotation(tmp_path, orientation, turned):
    exif = Image.Exif(); exif[0x0112] = orientation
    for suffix in ("jpg", "png"):
        Image.fromarray(picture()).save(tmp_path / f"x.{suffix}", exif=exif)
        image = read_image(tmp_path / f"x.{suffix}")
        assert image.shape[:2] == D.image_size(tmp_path / f"x.{suffix}") == ((32, 24) if turned else (24, 32))
    if orientation == 3: assert (image == picture()[::-1, ::-1]).all()


@pytest.mark.fault
def test_animated_images_give_their_first_frame_and_a_warning(tmp_path):
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (10, 200)]
    for suffix in ("gif", "webp", "png"):
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.warns(UserWarning, match="animated"): assert abs(int(read_image(tmp_path / f"x.{suffix}").mean()) - 10) < 3
    still = tmp_path / "still.gif"
    frames[0].save(still)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(still)


def truncated(path):
    Image.fromarray(picture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:5000])


def flipped_bits(path):
    Image.fromarray(picture(100, 100)).save(path)
    content = bytearray(path.read_bytes()); content[60:900] = bytes(840)
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
@pytest.mark.parametrize("spoil", [truncated, lambda p: p.write_bytes(b""), lambda p: p.write_text("<html>not found</html>"), lambda p: p.mkdir()])
@pytest.mark.fault
def test_damaged_images(tmp_path, suffix, spoil):
    path = tmp_path / f"x.{suffix}"
    spoil(path)
    with pytest.raises(DataError) as error: read_image(path)
    one_line(error, path)


@pytest.mark.fault
def test_png_with_wrong_bits(tmp_path):
    flipped_bits(tmp_path / "x.png")
    with pytest.raises(DataError) as error: read_image(tmp_path / "x.png")
    one_line(error, "x.png", "damaged")


@pytest.mark.fault
def test_tiny_and_huge_images(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(DataError) as error: read_image(tmp_path / "dot.png")
    one_line(error, "dot.png", "1 x 1")
    Image.new("1", (30000, 10000)).save(tmp_path / "bomb.png")          # 300 million pixels in a few kilobytes
    with pytest.raises(DataError) as error: read_image(tmp_path / "bomb.png")
    one_line(error, "bomb.png", "huge", "scale it down")
    Image.new("1", (10000, 10000)).save(tmp_path / "big.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as error: read_image(tmp_path / "big.png")
    one_line(error, "big.png", "10000 x 10000")
    with pytest.raises(DataError): read_image(tmp_path / "big.png", max_pixels=1000)


def test_find_faults_names_all_and_goes_on(tmp_path):
    voc(tmp_path)
    (tmp_path / "JPEGImages/2007_000032.jpg").write_bytes(b"\xff\xd8\xff")
    save_label(tmp_path / "SegmentationClass/2007_000063.png", np.zeros((5, 5), np.uint8))
    faults = find_faults(VOCDataset(tmp_path, "train"))
    assert faults.id.tolist() == ["2007_000032", "2007_000063"] and "5 x 5" in faults.problem[1]


# ---- wrong masks

@pytest.mark.fault
def test_wrong_masks(tmp_path):
    data, path = VOCDataset(voc(tmp_path), "train"), tmp_path / "SegmentationClass/2007_000032.png"
    save_label(path, np.zeros((10, 32), np.uint8))
    with pytest.raises(DataError) as error: data.mask(0)
    one_line(error, path, "32 x 10", "32 x 24")
    save_label(path, np.full((24, 32), 21, np.uint8))
    with pytest.raises(DataError) as error: data.labels(0)
    one_line(error, path, "[21]", "1..20")
    Image.fromarray(picture()).save(path)
    with pytest.raises(DataError) as error: data.mask(0)
    one_line(error, path, "colours")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError) as error: data.mask(0)
    one_line(error, path)
    path.unlink()
    with pytest.raises(MissingData) as error: data.mask(0)
    one_line(error, path)


@pytest.mark.fault
def test_a_mask_must_fit_the_upright_image(tmp_path):
    data = VOCDataset(voc(tmp_path), "train")
    exif = Image.Exif(); exif[0x0112] = 6
    Image.fromarray(picture()).save(data.image_path(0), exif=exif)
    with pytest.raises(DataError) as error: data.mask(0)
    one_line(error, "32 x 24", "24 x 32")
    save_label(data.mask_path(0), np.zeros((32, 24), np.uint8))
    assert data.mask(0).shape == data.image(0).shape[:2]


# ---- published data sets

def test_open_dataset_checks_count_and_class_order(tmp_path, monkeypatch):
    voc(tmp_path)
    with pytest.raises(DataError) as error: open_dataset("voc2012", tmp_path, "train")
    one_line(error, "3 images instead of 1,464", "check=False")
    assert len(open_dataset("voc2012", tmp_path, "train", check=False)) == 3
    monkeypatch.setitem(D.PUBLISHED, ("voc2012", "train"), 3)
    (tmp_path / "Annotations").mkdir()
    xml = tmp_path / "Annotations/2007_000032.xml"
    xml.write_text("<annotation><object><name>aeroplane</name></object><object><name>person</name></object></annotation>")
    assert len(open_dataset("voc2012", tmp_path, "train")) == 3
    xml.write_text("<annotation><object><name>boat</name></object><object><name>person</name></object></annotation>")
    with pytest.raises(DataError) as error: open_dataset("voc2012", tmp_path, "train")
    one_line(error, "2007_000032", "aeroplane", "class order")
    with pytest.raises(DataError) as error: open_dataset("voc2012", tmp_path, "train", classes=VOC_CLASSES[::-1])
    one_line(error, "class order")
    for kind, split, parts in (("voc", "train", "minivoc, voc2012"), ("voc2012", None, "name a split")):
        with pytest.raises(DataError) as error: open_dataset(kind, tmp_path, split)
        one_line(error, parts)


def test_minivoc_uses_its_label_table(tmp_path):
    voc(tmp_path)
    assert open_dataset("minivoc", tmp_path, "train").labels(0).sum() == 2
    (tmp_path / "labels.csv").write_text("image,labels\n2007_000032,cat\n2007_000039,\n2007_000063,dog\n")
    assert open_dataset("minivoc", tmp_path, "train").all_labels().sum(1).tolist() == [1, 0, 1]


def coco(root, split="val2014", spoil=None):
    (root / split).mkdir(parents=True); (root / "annotations").mkdir()
    for number in (7, 42): Image.fromarray(picture(30, 40, number)).save(root / split / f"COCO_{split}_{number:012d}.jpg")
    box = lambda x, y, w, h: [[x, y, x + w, y, x + w, y + h, x, y + h]]
    add = lambda image, category, shape, area, crowd=0: dict(image_id=image, category_id=category, segmentation=shape, area=area, iscrowd=crowd)
    content = dict(categories=[dict(id=i, name=n) for i, n in zip(COCO_IDS, COCO_CLASSES)][::-1],
                   images=[dict(id=i, file_name=f"COCO_{split}_{i:012d}.jpg", height=30, width=40) for i in (42, 7)] + [dict(id=9, file_name="empty.jpg", height=1, width=1)],
                   annotations=[add(42, 90, box(4, 4, 4, 4), 16), add(42, 1, box(0, 0, 20, 20), 400), add(42, 13, dict(size=[30, 40], counts=[0, 30 * 2, 30 * 38]), 60, 1),
                                add(7, 44, [[1, 1, 2]] + box(10, 10, 5, 5), 25)])
    if spoil: spoil(content)
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def test_coco_paints_small_over_large(tmp_path):
    data = COCODataset(coco(tmp_path), "val2014")
    assert data.ids == ["COCO_val2014_000000000007", "COCO_val2014_000000000042"] and data.classes == list(COCO_CLASSES)
    mask = data.mask(1)
    assert mask[6, 6] == 80 and mask[15, 15] == 1 and mask[25, 0] == COCO_CLASSES.index("stop sign") + 1 and mask[25, 30] == 0
    assert [COCO_CLASSES[c] for c in np.flatnonzero(data.labels(0))] == ["bottle"] and data.labels(1).sum() == 3
    assert "small objects painted over large" in data.mask_source and data.mask_path(0) is None
    ignoring = COCODataset(tmp_path, "val", crowd="ignore")
    assert ignoring.mask(1)[25, 0] == 255 and ignoring.fingerprint() != data.fingerprint() and ignoring.fingerprint(0) != ignoring.fingerprint(1)
    with pytest.raises(DataError) as error: open_dataset("coco2014", tmp_path, "val2014")
    one_line(error, "2 images instead of 40,137")


def test_coco_with_maps(tmp_path):
    painted = COCODataset(coco(tmp_path), "val2014")
    maps = tmp_path / "SegmentationClass/val2014"
    maps.mkdir(parents=True)
    for i, id in enumerate(painted.ids): save_label(maps / f"{id.split('_')[-1]}.png", painted.mask(i))
    data = COCODataset(tmp_path, "val2014")
    assert data.mask_source == "label maps in SegmentationClass" and (data.mask(1) == painted.mask(1)).all()
    D.check_class_order(data)
    save_label(data.mask_path(0), np.full((30, 40), 5, np.uint8))
    with pytest.raises(DataError) as error: D.check_class_order(data)
    one_line(error, "airplane", "class order")
    assert "annotations" in COCODataset(tmp_path, "val2014", mask_dir="annotations").mask_source
    data.mask_path(1).unlink()
    with pytest.raises(MissingData) as error: COCODataset(tmp_path, "val2014")
    one_line(error, "1 of 2 label maps")


def test_coco_with_maps_only(tmp_path):
    painted = COCODataset(coco(tmp_path), "val2014")
    (tmp_path / "SegmentationClass").mkdir()
    for i, id in enumerate(painted.ids): save_label(tmp_path / f"SegmentationClass/{id}.png", painted.mask(i))
    expected = painted.all_labels()
    (tmp_path / "annotations/instances_val2014.json").unlink()
    assert (COCODataset(tmp_path, "val2014").all_labels() == expected).all()


def test_coco_index_is_read_instead_of_the_text(tmp_path, monkeypatch):
    first = COCODataset(coco(tmp_path), "val2014")
    masks, file = [first.mask(i) for i in range(2)], tmp_path / "annotations/instances_val2014.json"
    parsed = []
    monkeypatch.setattr(D, "parse_instances", lambda path, parse=D.parse_instances: parsed.append(path) or parse(path))
    again = pickle.loads(pickle.dumps(COCODataset(tmp_path, "val2014")))
    assert not parsed and again.fingerprint() == first.fingerprint() and len(pickle.dumps(again.instances)) < 300
    assert all((again.mask(i) == masks[i]).all() and (again.labels(i) == first.labels(i)).all() for i in range(2))
    content = json.loads(file.read_text())
    content["annotations"].pop(0)
    file.write_text(json.dumps(content))
    changed = COCODataset(tmp_path, "val2014")
    assert len(parsed) == 1 and changed.labels(1).sum() == 2 and changed.fingerprint() != first.fingerprint()
    (tmp_path / "annotations/instances_val2014.index/numbers.npy").write_bytes(b"damaged")
    assert (COCODataset(tmp_path, "val2014").mask(1) == changed.mask(1)).all() and len(parsed) == 2
    assert sorted(p.name for p in file.parent.iterdir()) == ["instances_val2014.index", "instances_val2014.json"]


def test_coco_index_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(D.np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    data = pickle.loads(pickle.dumps(COCODataset(coco(tmp_path), "val2014")))
    assert data.mask(1)[6, 6] == 80 and [p.name for p in (tmp_path / "annotations").iterdir()] == ["instances_val2014.json"]


def test_coco_runs_as_text(tmp_path):
    from pycocotools import mask as rle
    truth = np.zeros((30, 40), np.uint8); truth[3:9, 5:20] = 1
    packed = rle.encode(np.asfortranarray(truth))
    def add(content): content["annotations"] = [dict(image_id=7, category_id=1, area=9, iscrowd=1, segmentation=dict(size=[30, 40], counts=packed["counts"].decode()))]
    assert (COCODataset(coco(tmp_path, spoil=add), "val2014").mask(0) == truth).all()


def test_stamps_are_read_once(tmp_path, monkeypatch):
    voc(tmp_path)
    data, read = VOCDataset(tmp_path, "train"), []
    monkeypatch.setattr(D, "file_stamp", lambda path, stamp=D.file_stamp: read.append(path) or stamp(path))
    assert data.fingerprint() == data.fingerprint() and len(read) == 2 * len(data)


def set_to(*path, value):
    def spoil(content):
        for key in path[:-1]: content = content[key]
        content[path[-1]] = value
    return spoil


@pytest.mark.parametrize("spoil, parts", [
    (set_to("categories", 0, "name", value="tooth brush"), ["other classes", "tooth brush"]), (lambda c: c.pop("images"), ["damaged"]), (lambda c: c["annotations"][0].pop("area"), ["damaged"]),
    (set_to("annotations", 0, "category_id", value=91), ["damaged"]), (set_to("images", 0, "file_name", value="../../x.jpg"), ["out of"]),
    (set_to("images", 0, "file_name", value="other.jpg"), ["1 of 2 images", "other"]), (lambda c: c.update(annotations=[]), ["no image with objects"])])
@pytest.mark.fault
def test_wrong_annotations(tmp_path, spoil, parts):
    with pytest.raises(DataError) as error: COCODataset(coco(tmp_path, spoil=spoil), "val2014")
    one_line(error, "instances_val2014.json", *parts)


@pytest.mark.fault
def test_other_coco_faults(tmp_path):
    with pytest.raises(MissingData) as error: COCODataset(tmp_path, "val2014")
    one_line(error, "val2014.zip")
    coco(tmp_path, spoil=set_to("images", 0, "width", value=41))
    with pytest.raises(DataError) as error: COCODataset(tmp_path, "val2014").mask(1)
    one_line(error, "000000000042", "41 x 30")
    file = tmp_path / "annotations/instances_val2014.json"
    file.write_text(file.read_text()[:500])
    with pytest.raises(DataError) as error: COCODataset(tmp_path, "val2014")
    one_line(error, "damaged")


# ---- sizes and crops

@pytest.mark.parametrize("size, patch, options, expected", [((375, 500), 16, {}, (384, 512)), ((384, 512), 16, {}, (384, 512)), ((1, 1), 16, {}, (16, 16)),
                                                            ((375, 500), 16, dict(long_side=250), (192, 256)), ((100, 400), 8, dict(long_side=200, short_side=64), (64, 256)), ((33, 47), 8, {}, (40, 48))])
def test_resize_to_patch(size, patch, options, expected):
    image = picture(*size)
    assert resize_to_patch(image, patch, **options).shape == (*expected, 3)
    with pytest.raises(ValueError): resize_to_patch(image, 0)


@pytest.mark.parametrize("size", [(375, 500), (500, 300), (40, 60), (8, 300), (1500, 900)])
def test_augment(size):
    image, label = picture(*size), np.random.default_rng(1).integers(0, 3, size, np.uint8) * 7
    a, b = (augment(image, label, np.random.default_rng(5)) for _ in range(2))
    assert (a[0] == b[0]).all() and (a[1] == b[1]).all() and a[0].shape == (224, 224, 3) and a[0].dtype == np.uint8 and set(np.unique(a[1])) <= {0, 7, 14}
    assert a[1].dtype == label.dtype and augment(image, None, np.random.default_rng(5))[1] is None
    assert (augment(image, None, np.random.default_rng(5))[0] == a[0]).all()      # a label map changes nothing for the image


def test_augment_moves_image_and_label_together():
    mask = np.zeros((300, 400), np.uint8); mask[80:200, 150:330] = 1
    image = np.repeat(mask[..., None] * 255, 3, 2)
    for seed in range(20):
        crop, label = augment(image, mask, np.random.default_rng(seed), jitter=(0, 0, 0, 0))
        assert ((crop[..., 0] > 127) == (label == 1)).mean() > .99


def test_augment_scale_and_flip():
    rng, sides = np.random.default_rng(0), []
    for _ in range(300):
        top, left, side = D.random_window(300, 400, rng, 224, (288, 480), 224)
        assert 0 <= top <= 300 - side + 1e-9 and 0 <= left <= 400 - side + 1e-9
        sides.append(400 * 224 / side)
    assert 298.6 < min(sides) < 303 and 475 < max(sides) < 480.1        # short side at least 224: long side at least 298.7
    image, label = picture(), np.arange(24 * 32).reshape(24, 32) % 200
    flipped, moved = augment(image, label, np.random.default_rng(0), flip=1, flip_only=True)
    assert (flipped == image[:, ::-1]).all() and (moved == label[:, ::-1]).all() and flipped.flags.c_contiguous
    assert (augment(image, None, np.random.default_rng(0), flip=0, flip_only=True)[0] == image).all()
    with pytest.raises(ValueError): augment(image, label[:5], np.random.default_rng(0))


# ---- status, download, unpacking

def test_status(tmp_path):
    table = status("voc2012", voc(tmp_path))
    assert list(table.columns) == ["part", "path", "found", "expected", "state", "how to get"]
    rows = table.set_index("part")
    assert rows.state["photos"] == "incomplete" and rows.state["masks of train_aug"] == "missing" and "by hand" in rows["how to get"]["masks of train_aug"]
    assert rows.state["list test"] == "optional" and rows.found["list train"] == 3
    assert (status("coco2014", coco(tmp_path / "c")).found > 0).sum() == 2 and status("folder", folder(tmp_path / "f")).state[0] == "complete"
    assert status("voc2012", tmp_path / "nowhere").state[0] == "missing" and status("minivoc", tmp_path).state.tolist()[0] == "complete"
    with pytest.raises(DataError): status("imagenet", tmp_path)


class Server(http.server.BaseHTTPRequestHandler):
    "Serves `content`, from the middle if asked; breaks off after `limit` bytes."
    content, limit, asked = b"", None, []

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.asked.append(start)
        if start >= len(self.content): self.send_response(416); self.end_headers(); return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start)); self.end_headers()
        self.wfile.write(self.content[start:][:self.limit])

    def log_message(self, *_): pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), dict(asked=[]))
    web = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{web.server_port}/photos.zip"
    yield handler
    web.shutdown(); web.server_close()


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names: archive.writestr(name, name * 20000)
    return buffer.getvalue()


def md5(content):
    import hashlib
    return "md5:" + hashlib.md5(content).hexdigest()


@pytest.mark.fault
def test_download_goes_on_where_it_broke(tmp_path, server):
    server.content, server.limit = zipped("train2014/a.jpg", "train2014/b.jpg"), 200_000
    archives = [(server.url, md5(server.content), len(server.content), {"train2014": 2})]
    with pytest.raises(MissingData) as error: download("coco2014", tmp_path, archives, progress=False)
    one_line(error, server.url, tmp_path, "photos.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip.part"]
    server.limit = None
    table = download("coco2014", tmp_path, archives, progress=False)
    assert server.asked[0] == 0 and 0 < server.asked[1] <= 200_000 and table.found[0] == 2 and sorted(path.name for path in tmp_path.iterdir()) == ["train2014"]
    download("coco2014", tmp_path, archives, progress=False)
    assert len(server.asked) == 2                                       # complete: the network is not asked again


@pytest.mark.fault
def test_download_with_a_wrong_checksum_leaves_nothing(tmp_path, server):
    server.content = zipped("a.jpg")
    with pytest.raises(DataError) as error: download("coco2014", tmp_path, [(server.url, md5(b""), None, {"train2014": 2})], progress=False)
    one_line(error, "photos.zip", "checksum")
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
def test_download_without_network_or_room(tmp_path):
    with pytest.raises(MissingData) as error: download("coco2014", tmp_path, [("http://127.0.0.1:9/x.zip", md5(b""), 5, {"x": 1})], progress=False)
    one_line(error, "127.0.0.1:9/x.zip", tmp_path)
    with pytest.raises(DataError) as error: download("coco2014", tmp_path, [("http://127.0.0.1:9/x.zip", md5(b""), 10**18, {"x": 1})], progress=False)
    one_line(error, "no room")
    with pytest.raises(DataError) as error: download("folder", tmp_path)
    one_line(error, "cannot be downloaded")


def evil_tar(path, kind):
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(dict(up="../up.txt", deep="a/../../up.txt", root="/up.txt").get(kind, "link"))
        if kind in ("symlink", "hardlink"): info.type, info.linkname = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE, "../up.txt"
        if kind == "device": info.type = tarfile.CHRTYPE
        info.size = 0 if kind in ("symlink", "hardlink", "device") else 3
        good = tarfile.TarInfo("good.txt"); good.size = 3
        archive.addfile(good, io.BytesIO(b"abc")); archive.addfile(info, io.BytesIO(b"abc"))


@pytest.mark.parametrize("kind", ["up", "deep", "root", "symlink", "hardlink", "device"])
@pytest.mark.fault
def test_evil_tar_archives(tmp_path, kind):
    evil_tar(tmp_path / "evil.tar", kind)
    with pytest.raises(DataError) as error: extract(tmp_path / "evil.tar", tmp_path / "in")
    one_line(error, "evil.tar")
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.tar"]


@pytest.mark.parametrize("name", ["../up.txt", "/up.txt", "a/../../up.txt", "..\\up.txt", "link"])
@pytest.mark.fault
def test_evil_zip_archives(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        info = zipfile.ZipInfo(name)
        if name == "link": info.external_attr = 0o120777 << 16
        archive.writestr("good.txt", "abc"); archive.writestr(info, "abc")
    with pytest.raises(DataError) as error: extract(tmp_path / "evil.zip", tmp_path / "in")
    one_line(error, "evil.zip")
    assert [path.name for path in tmp_path.rglob("*")] == ["evil.zip"]


@pytest.mark.fault
def test_a_link_in_the_target_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir(); (tmp_path / "outside").mkdir(); (tmp_path / "in/train2014").symlink_to(tmp_path / "outside")
    (tmp_path / "a.zip").write_bytes(zipped("train2014/a.jpg"))
    with pytest.raises(DataError) as error: extract(tmp_path / "a.zip", tmp_path / "in")
    one_line(error, "link")
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.fault
def test_damaged_archives(tmp_path):
    for name, content in (("a.zip", zipped("a", "b")), ("a.tar", b"x" * 2000)):
        (tmp_path / name).write_bytes(content[:-50])
        with pytest.raises(DataError) as error: extract(tmp_path / name, tmp_path / "in")
        one_line(error, name, "damaged")


@pytest.mark.fault
def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as error: download("coco2014", tmp_path / "file/in", [("http://127.0.0.1:9/x.zip", md5(b""), 5, {"x": 1})], progress=False)
    one_line(error, "file/in", "another place")
    (tmp_path / "a.zip").write_bytes(zipped("a"))
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(D.shutil, "copyfileobj", full)
    with pytest.raises(DataError) as error: extract(tmp_path / "a.zip", tmp_path / "in")
    one_line(error, "a.zip", "No space left", "call again")
    assert not (tmp_path / "in/a").exists()


# ---- exports

def test_export_voc(tmp_path):
    data = VOCDataset(voc(tmp_path / "voc"), "train")
    seeds = tmp_path / "seeds"; seeds.mkdir()
    for number, id in enumerate(data.ids): save_label(seeds / f"{id}.png", np.full((24, 32), number, np.uint8))
    made = export_voc(seeds, tmp_path / "out", data.ids)
    assert made.relative_to(tmp_path / "out").as_posix() == "results/VOC2012/Segmentation/comp6_test_cls" and load_label(made / "2007_000063.png")[0, 0] == 2
    first = (tmp_path / "out/results.tgz").read_bytes()
    assert tarfile.open(tmp_path / "out/results.tgz").getnames()[0] == "results/VOC2012/Segmentation/comp6_test_cls/2007_000032.png"
    export_voc(seeds, tmp_path / "out", data.ids)
    assert (tmp_path / "out/results.tgz").read_bytes() == first
    save_label(seeds / "2007_000032.png", np.full((24, 32), 255, np.uint8))
    with pytest.raises(DataError) as error: export_voc(seeds, tmp_path / "out", data.ids)
    one_line(error, "2007_000032", "255")
    with pytest.raises(MissingData) as error: export_voc(seeds, tmp_path / "out", ["other"])
    one_line(error, "other")


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_export_mmseg(tmp_path, link):
    data = VOCDataset(voc(tmp_path / "voc"), "train")
    for _ in range(2): assert export_mmseg(data, tmp_path / "out", link=link) == 3          # a second time over the first
    assert (tmp_path / "out/img_dir/train/2007_000032.jpg").read_bytes() == data.image_path(0).read_bytes()
    assert (load_label(tmp_path / "out/ann_dir/train/2007_000032.png") == data.mask(0)).all()
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert len(meta["classes"]) == len(meta["palette"]) == 21 and meta["img_suffix"] == [".jpg"] and meta["ignore_index"] == 255


@pytest.mark.fault
def test_export_mmseg_faults(tmp_path):
    data = FolderDataset(folder(tmp_path))
    with pytest.raises(DataError) as error: export_mmseg(data, tmp_path / "out")
    one_line(error, "labels_dir")
    with pytest.raises(MissingData) as error: export_mmseg(data, tmp_path / "out", labels_dir=tmp_path / "seeds")
    one_line(error, "seeds", "cats__1")
    with pytest.raises(ValueError): export_mmseg(VOCDataset(voc(tmp_path / "voc"), "train"), tmp_path / "out", link="magic")
