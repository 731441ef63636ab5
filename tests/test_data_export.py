"""What is given away is whole, of one size, and says what its numbers mean."""

import csv
import json
import tarfile
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import folder, one_line, picture, told, voc, with_exif, write
from fmwsss.data.classes import legend_picture, write_classes
from fmwsss.data.export import export_mmseg, export_voc
from fmwsss.data.folder import FolderDataset
from fmwsss.data.images import read_image
from fmwsss.data.in_python import ListDataset
from fmwsss.data.label_maps import load_label, save_label
from fmwsss.data.voc import VOCDataset
from fmwsss.files.errors import DataError, MissingData
from fmwsss.method.labels import palette

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True)


# ---- VOC's server


@pytest.mark.fault
def test_export_voc(tmp_path):
    data = VOCDataset(voc(tmp_path / "voc"), "train")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, id in enumerate(data.ids):
        save_label(seeds / f"{id}.png", np.full((24, 32), number, np.uint8))
    made = export_voc(seeds, tmp_path / "out", data.ids)
    inner = "results/VOC2012/Segmentation/comp6_test_cls"
    assert made.relative_to(tmp_path / "out").as_posix() == inner
    assert load_label(made / "2007_000063.png")[0, 0] == 2
    first = (tmp_path / "out/results.tgz").read_bytes()
    with tarfile.open(tmp_path / "out/results.tgz") as archive:
        assert archive.getnames()[0] == f"{inner}/2007_000032.png"
    export_voc(seeds, tmp_path / "out", data.ids)
    assert (tmp_path / "out/results.tgz").read_bytes() == first
    save_label(seeds / "2007_000032.png", np.full((24, 32), 255, np.uint8))
    with pytest.raises(DataError) as error:
        export_voc(seeds, tmp_path / "out", data.ids)
    one_line(error, "2007_000032", "255")
    assert len(list(made.iterdir())) == 3  # the earlier one is still whole
    with pytest.raises(MissingData) as error:
        export_voc(seeds, tmp_path / "new", ["other"])
    one_line(error, "other")
    assert not list((tmp_path / "new").rglob("*.png"))


# ---- mmsegmentation


@pytest.mark.parametrize("link", ["symlink", "hardlink", "copy"])
def test_export_mmseg(tmp_path, link):
    data = VOCDataset(voc(tmp_path / "voc"), "train")
    for _ in range(2):  # a second time over the first
        assert export_mmseg(data, tmp_path / "out", link=link) == 3
    placed = tmp_path / "out/img_dir/train/2007_000032.jpg"
    assert placed.read_bytes() == data.image_path(0).read_bytes()
    label = load_label(tmp_path / "out/ann_dir/train/2007_000032.png")
    assert (label == data.mask(0)).all()
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert len(meta["classes"]) == len(meta["palette"]) == 21 and meta["ignore_index"] == 255
    assert meta["img_suffix"] == [".jpg"] and (tmp_path / "out/classes.csv").is_file()
    assert not list(tmp_path.glob("*.part"))


def test_two_splits_share_a_folder(tmp_path):
    voc(tmp_path / "voc")
    voc(tmp_path / "voc", ("v",), "val")
    for split in ("train", "val", "train"):
        export_mmseg(VOCDataset(tmp_path / "voc", split), tmp_path / "out")
    assert len(list((tmp_path / "out/img_dir").glob("*/*"))) == 4


@pytest.mark.fault
def test_export_mmseg_faults_write_nothing(tmp_path):
    data = FolderDataset(folder(tmp_path / "f"))
    with pytest.raises(DataError) as error:
        export_mmseg(data, tmp_path / "out")
    one_line(error, "labels_dir")
    with pytest.raises(MissingData) as error:
        export_mmseg(data, tmp_path / "out", labels_dir=tmp_path / "seeds")
    one_line(error, "seeds", "cats__1")
    with pytest.raises(ValueError):
        export_mmseg(VOCDataset(voc(tmp_path / "voc"), "train"), tmp_path / "out", link="magic")
    (tmp_path / "seeds").mkdir()
    for id, size in zip(data.ids, [(24, 32), (24, 32), (20, 20)]):
        save_label(tmp_path / f"seeds/{id}.png", np.zeros(size, int))
    with pytest.raises(DataError) as error:
        export_mmseg(data, tmp_path / "out", labels_dir=tmp_path / "seeds")
    one_line(error, "n 3", "20 x 20", "32 x 24")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "seeds", "voc"]


@pytest.mark.fault
def test_files_of_somebody_else_are_not_replaced(tmp_path):
    data = VOCDataset(voc(tmp_path / "voc"), "train")
    write(tmp_path / "out/img_dir/train/my own photo.jpg", b"precious")
    with pytest.raises(DataError) as error:
        export_mmseg(data, tmp_path / "out")
    one_line(error, "my own photo.jpg", "another folder")
    assert (tmp_path / "out/img_dir/train/my own photo.jpg").read_bytes() == b"precious"
    where = tmp_path / "out/results/VOC2012/Segmentation/comp6_test_cls"
    write(where / "notes.txt", b"precious")
    with pytest.raises(DataError):
        export_voc(tmp_path / "voc/SegmentationClass", tmp_path / "out", [])
    assert (where / "notes.txt").read_bytes() == b"precious"


def sizes_of(out):
    "{id: sizes of image and label as a program without EXIF sees them}."
    images = {path.stem: path for path in (out / "img_dir").glob("*/*")}
    labels = {path.stem: path for path in (out / "ann_dir").glob("*/*")}
    return {id: (Image.open(images[id]).size, Image.open(labels[id]).size) for id in images}


@pytest.mark.parametrize("note", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".heic", ".avif"])
@pytest.mark.parametrize("longest", [None, 16])
@pytest.mark.fault
def test_image_and_label_have_one_size_in_any_program(tmp_path, note, suffix, longest):
    write(tmp_path / f"f/a{suffix}", with_exif(picture(), note, suffix))
    (tmp_path / "f/labels.csv").write_text("image,labels\na,dog\n")
    data = FolderDataset(tmp_path / "f", max_side=longest)
    (tmp_path / "labels").mkdir()
    save_label(tmp_path / "labels/a.png", np.ones(data.image(0).shape[:2], int))
    export_mmseg(data, tmp_path / "out", tmp_path / "labels")
    image, label = sizes_of(tmp_path / "out")["a"]
    assert image == label == data.full_size(0)[::-1]
    placed = next((tmp_path / "out/img_dir/all").iterdir())
    assert np.abs(read_image(placed).astype(int) - data.full_image(0)).mean() < 1


def test_true_masks_are_given_away_in_the_photos_size(tmp_path):
    root = folder(tmp_path / "f", "image,labels\n2,dog\n", photos=["2.png"])
    (root / "masks").mkdir()
    save_label(root / "masks/2.png", np.eye(24, 32, dtype=int))
    export_mmseg(FolderDataset(root, mask_dir="masks", max_side=16), tmp_path / "out")
    assert (load_label(tmp_path / "out/ann_dir/all/2.png") == np.eye(24, 32)).all()


def test_pictures_from_python_are_given_away(tmp_path):
    data = ListDataset([picture()], ["dog"], masks=[np.ones((24, 32), int)])
    export_mmseg(data, tmp_path / "out")
    assert (read_image(tmp_path / "out/img_dir/all/0000.png") == picture()).all()


def test_many_classes_keep_their_numbers(tmp_path):
    names = [f"thing {n}" for n in range(300)]
    data = ListDataset([picture()], [["thing 299"]], names, [np.full((24, 32), 300)])
    export_mmseg(data, tmp_path / "out")
    assert (load_label(tmp_path / "out/ann_dir/all/0000.png") == 300).all()


# ---- what the numbers mean

NAMES = st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=70)


@FEW
@given(names=NAMES)
@pytest.mark.fault
def test_any_name_stands_in_the_table_and_the_picture(tmp_path_factory, names):
    place = tmp_path_factory.mktemp("c")
    names = [name.replace("\r", " ").replace("\0", " ") for name in names]
    with open(write_classes(place, names), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["background", *names, "ignore"]
    assert [int(row["label"]) for row in rows] == [*range(len(names) + 1), 255]
    assert rows[1]["colour"] == "#800000" and sorted(p.name for p in place.iterdir()) == [
        "classes.csv",
        "classes.svg",
    ]
    texts = ElementTree.fromstring(legend_picture(names)).findall("{*}text")
    assert len(texts) == len(names) + 2


def test_the_legend_of_many_classes(tmp_path):
    names = [f"thing {n}" for n in range(300)]
    with open(write_classes(tmp_path, names)) as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert rows["thing 253"]["label"] == "254" and rows["thing 255"]["label"] == "256"
    assert "thing 254" not in rows and rows["ignore"]["label"] == "255"
    colour = "#{:02x}{:02x}{:02x}".format(*palette()[254])
    assert rows["thing 253"]["colour"] == colour and rows["thing 299"]["colour"] == ""
    assert told(lambda: legend_picture(names))[1] == []
