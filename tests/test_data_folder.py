"""Own photos: found as they are called, told what does not fit, and no photo ends the rest."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import folder, one_line, picture, told, with_exif, write
from fmwsss.data.folder import FolderDataset
from fmwsss.data.images import size_within
from fmwsss.data.kinds import find_faults
from fmwsss.data.label_maps import restore, save_label
from fmwsss.engine.store import Store
from fmwsss.files.errors import DataError, MissingData, SettingsError
from fmwsss.files.names import FileIndex, is_leftover, result_id, safe_name

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True)


def one_photo(root, file_name, row, label="dog"):
    "A folder with one photo and a row for it."
    Image.fromarray(picture()).save(write(root / file_name, b""), "PNG")
    (root / "labels.csv").write_text(f"image,labels\n{row},{label}\n", encoding="utf-8")
    return root


# ---- the contract


def test_folder_contract(tmp_path):
    data = FolderDataset(folder(tmp_path))
    assert data.ids == ["cats__1", "2", "n 3"] and data.classes == ["sofa", "tabby"]
    assert data.all_labels().tolist() == [[0, 1], [1, 1], [0, 0]]
    assert data.mask(0) is None and data.image(0).shape == (24, 32, 3) and data.notes == []
    assert FolderDataset(tmp_path, classes=["tabby", "bed", "sofa"]).labels(1).tolist() == [1, 0, 1]
    (tmp_path / "masks").mkdir()
    save_label(tmp_path / "masks/2.png", np.ones((24, 32), np.uint8))
    data = FolderDataset(tmp_path, mask_dir="masks")
    assert data.mask(0) is None and data.mask(1).all() and "1 of 3" in data.mask_source
    small = FolderDataset(tmp_path, mask_dir="masks", max_side=16)
    assert small.image(1).shape == (12, 16, 3) and small.mask(1).shape == (12, 16)
    assert small.full_size(1) == (24, 32) and small.full_mask(1).shape == (24, 32)
    assert small.fingerprint() != data.fingerprint() and small.image_stamp(0) != data.image_stamp(0)


def test_folder_with_splits(tmp_path):
    folder(tmp_path, "image,labels,split\ncats/1.png,tabby,train\n2,sofa|tabby,val\n")
    assert FolderDataset(tmp_path, split="val").ids == ["2"]
    assert FolderDataset(tmp_path, split="train").classes == ["sofa", "tabby"]
    assert len(FolderDataset(tmp_path)) == 2
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path, split="test")
    one_line(error, "labels.csv", "test")


def test_a_column_per_class(tmp_path):
    rows = "image,Sofa,tabby,split\n2,0,1,train\ncats/1,1,1,val\n"
    data = FolderDataset(folder(tmp_path, rows))
    assert data.classes == ["Sofa", "tabby"] and data.all_labels().tolist() == [[0, 1], [1, 1]]
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path, classes=["Sofa", "tab"])
    one_line(error, "first line", "'tabby'")


# ---- names


@pytest.mark.parametrize(
    "file_name, row",
    [
        *[("a.jpg", "a"), ("a.jpg", "./a.jpg"), ("a.jpg", ".//./a.jpg"), ("a.jpg", ".\\a.jpg")],
        *[("DSC_1.JPG", "DSC_1"), ("DSC_1.JPG", "DSC_1.jpg"), ("DSC_1.JPG", "dsc_1.jpeg")],
        *[("a.jpeg", "a.jpg"), ("a.jpg", "a.JPEG"), ("a.TIFF", "a.tif"), ("a.jfif", "a.jpg")],
        *[("pets/a.jpg", "pets\\a.jpg"), ("pets/a.jpg", "./pets/a"), ("a.b.png", "a.b")],
        *[("größe.png", "gro\u0308ße.png"), ("gro\u0308ße.png", "größe.png")],
        *[("o\u0308l/a.png", "öl/a.png"), ("öl/a.png", "o\u0308l/a")],
    ],
)
@pytest.mark.fault
def test_a_photo_is_found_by_what_people_call_it(tmp_path, file_name, row):
    data = FolderDataset(one_photo(tmp_path, file_name, row))
    assert os.path.samefile(data.image_path(0), tmp_path / file_name)
    assert not data.ids[0].startswith(".") and "/" not in data.ids[0] and not data.notes


@pytest.mark.fault
def test_a_phones_photo_is_found_and_read(tmp_path):
    write(tmp_path / "IMG_2.HEIC", with_exif(picture(), 6, ".heic"))
    for row in ("IMG_2.HEIC", "IMG_2.heic", "IMG_2"):
        (tmp_path / "labels.csv").write_text(f"image,labels\n{row},dog\n")
        data = FolderDataset(tmp_path)
        assert data.image(0).shape == (32, 24, 3) and data.ids == ["IMG_2"]


@pytest.mark.fault
def test_one_photo_under_two_names_is_refused(tmp_path):
    for rows in ("./a.jpg,dog\na.jpg,cat\n", "a.JPG,dog\na.jpg,cat\n", "a,dog\na.jpeg,cat\n"):
        one_photo(tmp_path, "a.jpg", "a.jpg")
        (tmp_path / "labels.csv").write_text(f"image,labels\n{rows}")
        with pytest.raises(DataError) as error:
            FolderDataset(tmp_path)
        one_line(error, "a.jpg" if "jpg" in rows else "a")


@pytest.mark.fault
def test_two_photos_that_one_name_may_mean_are_asked(tmp_path):
    for name in ("A.jpg", "a.JPG"):
        Image.fromarray(picture()).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,dog\n")
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path)
    one_line(error, "A.jpg and a.JPG", "exact name")
    (tmp_path / "labels.csv").write_text("image,labels\na.JPG,dog\nA.jpg,cat\n")
    assert [path.name for path in map(FolderDataset(tmp_path).image_path, range(2))] == [
        "a.JPG",
        "A.jpg",
    ]


@pytest.mark.parametrize(
    "file_name, row",
    [
        *[("images/a.jpg", "a.jpg"), ("a.jpg", "photos/a.jpg"), ("deep/er/a.png", "a.jpg")],
        *[("001.jpg", "1"), ("007.png", "7.0"), ("1.jpg", "1.0"), ("1.jpg", "001")],
        *[("a.jpg", "https://somewhere.org/a.jpg"), ("a.png", "a.jpg")],
    ],
)
@pytest.mark.fault
def test_a_photo_that_may_be_meant_is_named(tmp_path, file_name, row):
    with pytest.raises(MissingData) as error:
        FolderDataset(one_photo(tmp_path, file_name, row))
    one_line(error, "labels.csv", f"but {file_name} is")


@pytest.mark.parametrize("name", ["Labels.CSV", "LABELS.csv", "labels.Csv"])
@pytest.mark.fault
def test_the_table_is_found_in_capitals(tmp_path, name):
    (folder(tmp_path) / "labels.csv").rename(tmp_path / name)
    assert len(FolderDataset(tmp_path)) == 3


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv.txt", "annotations.csv", "x.json"])
@pytest.mark.fault
def test_a_table_of_another_name_is_named(tmp_path, name):
    (folder(tmp_path) / "labels.csv").rename(tmp_path / name)
    with pytest.raises(MissingData) as error:
        FolderDataset(tmp_path)
    one_line(error, "labels.csv does not exist", f"is {name} meant?")
    (tmp_path / "labels.csv").mkdir()
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path)
    one_line(error, "is a folder")


@pytest.mark.parametrize(
    "name, said",
    [
        ("2.jpg", "JPEG changes"),
        ("2.npy", "2.npy"),
        ("2.json", "2.json"),
        (".DS_Store", "is empty"),
    ],
)
@pytest.mark.fault
def test_what_lies_in_a_folder_without_masks_is_told(tmp_path, name, said):
    write(folder(tmp_path) / "masks" / name, b"x")
    data, lines = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))
    one_line(lines[0], said, "nothing can be measured")


@pytest.mark.fault
def test_two_masks_of_one_photo_are_told(tmp_path):
    folder(tmp_path)
    for name, value in (("2.png", 1), ("2.tif", 2)):
        save_label(write(tmp_path / "masks" / name, b""), np.full((24, 32), value))
    data, lines = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))
    assert (data.mask(1) == 1).all()
    one_line(lines[0], "two masks", "2.png and 2.tif", "2.png is used")


@pytest.mark.fault
def test_two_photos_with_one_id_are_refused(tmp_path):
    rows = "image,labels\ncats/1.png,dog\ncats__1.png,cat\n"
    folder(tmp_path, rows, photos=["cats/1.png", "cats__1.png"])
    with pytest.raises(DataError) as error:
        FolderDataset(tmp_path)
    one_line(error, "cats__1", "rename one file")


@pytest.mark.fault
def test_an_unknown_format_is_called_that(tmp_path):
    write(tmp_path / "a.psd", b"8BPS")
    write(tmp_path / "b.cr2", b"II*\0")
    for name in ("a.psd", "b.cr2"):
        (tmp_path / "labels.csv").write_text(f"image,labels\n{name},dog\n")
        with pytest.raises(MissingData) as error:
            FolderDataset(tmp_path)
        one_line(error, name, "ending that is not known", "JPEG or PNG")


PATHS = st.text(
    st.sampled_from("ab #$%{}[]()&;'`!~^+=,@ü犬\u0308-_.")
    | st.characters(categories=["L", "N", "S"]),
    min_size=1,
    max_size=20,
)


@FEW
@given(place=PATHS, name=PATHS)
@pytest.mark.fault
def test_paths_pass_as_values(tmp_path_factory, place, name):
    place = f"p{place}".strip(" .")
    name = f"n{name}".strip(" .").replace(",", "_").replace('"', "_")
    root = one_photo(tmp_path_factory.mktemp("r") / place, f"{name}.png", f'"{name}.png"')
    other = one_photo(root.parent / "other", "b.png", "b.png", "cat")
    data = FolderDataset(root)
    assert os.path.samefile(data.image_path(0), root / f"{name}.png") and data.classes == ["dog"]
    assert data.image(0).shape == (24, 32, 3) and other.is_dir()
    store = Store(root.parent / "cache", "toy", {}, {data.ids[0]: data.image_stamp(0)})
    store.save(data.ids[0], dict(x=np.arange(2)))
    assert store.has(data.ids[0])


@FEW
@given(
    names=st.lists(
        st.text(st.characters(categories=["L", "N"]), min_size=60, max_size=120),
        min_size=2,
        max_size=4,
        unique=True,
    )
)
@pytest.mark.fault
def test_long_names_get_short_ids_that_differ(tmp_path_factory, names):
    import unicodedata

    names = {unicodedata.normalize("NFC", name) for name in names}
    ids = [result_id(f"{'folder/' * 9}{name}.jpg") for name in names]
    assert len(set(ids)) == len(names)
    for id in ids:
        stamps = {id: "123456789-0123456789abcdef-640"}
        store = Store(tmp_path_factory.mktemp("s"), "toy", {}, stamps)
        store.save(id, dict(x=np.arange(2)))
        assert store.has(id) and len(f"{id}.png".encode()) < 255


def test_short_names_stay_as_they_are():
    assert result_id("cats/my photo 1.jpg") == "cats__my photo 1" and result_id("a.b") == "a.b"


@FEW
@given(st.text(max_size=30))
def test_any_name_is_tidied_or_refused(name):
    try:
        tidy = safe_name(name, "list x, line 1")
    except DataError as error:
        one_line(str(error).replace("\n", ""), "line 1")
        return
    assert ".." not in tidy.split("/") and not tidy.startswith("/") and "\\" not in tidy
    assert safe_name(tidy.strip(), "again") == tidy.strip() if tidy.strip() == tidy else True


# ---- what does not fit is told


@pytest.mark.fault
def test_photos_that_are_not_there_are_left_out_and_told(tmp_path):
    folder(tmp_path, "image,labels\n2,dog\nnothere.png,cat\nnor this,cat\nn 3.gif,cat\n")
    data, lines = told(lambda: FolderDataset(tmp_path))
    assert data.ids == ["2"] and data.classes == ["cat", "dog"]
    one_line(lines[0], "'nothere.png'", "nor 2 more", "left out")
    with pytest.raises(MissingData) as error:
        FolderDataset(tmp_path, missing="refuse")
    one_line(error, "nothere.png", "add the file")
    with pytest.raises(SettingsError) as error:
        FolderDataset(tmp_path, missing="ignore")
    one_line(error, "skip or refuse")
    folder(tmp_path, "image,labels\nn 3.gif,cat\n")
    with pytest.raises(MissingData) as error:
        FolderDataset(tmp_path)
    one_line(error, "'n 3.gif'", "n 3.jpg")


@pytest.mark.fault
def test_photos_that_the_table_does_not_name_are_told(tmp_path):
    folder(tmp_path, "image,labels,split\n2,dog,train\ncats/1,dog,val\n")
    for name in ("._2.png", ".DS_Store", "Thumbs.db", "cats/._1.png", "notes.txt"):
        write(tmp_path / name, bytes(100))
    data, lines = told(lambda: FolderDataset(tmp_path, split="train"))
    assert len(lines) == 1 and data.notes == lines
    one_line(lines[0], "1 photos", "n 3.jpg")
    assert is_leftover("._2.png") and not is_leftover("2.png")


@pytest.mark.fault
def test_photos_without_a_class_are_allowed(tmp_path):
    data, lines = told(lambda: FolderDataset(folder(tmp_path)))
    assert data.labels(2).tolist() == [0, 0] and not lines


@pytest.mark.parametrize(
    "name", ["2.png", "2.PNG", "2.tif", "2.png.png", "cats/1.png", "cats__1.PNG"]
)
@pytest.mark.fault
def test_masks_are_found_by_what_people_call_them(tmp_path, name):
    folder(tmp_path)
    (tmp_path / "masks/cats").mkdir(parents=True)
    save_label(tmp_path / "masks/x.png", np.ones((24, 32), int))
    content = (tmp_path / "masks/x.png").read_bytes()
    (tmp_path / "masks/x.png").unlink()
    if name == "2.tif":
        Image.fromarray(np.ones((24, 32), np.uint8)).save(tmp_path / "masks/2.tif")
    else:
        write(tmp_path / "masks" / name, content)
    data, lines = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))
    found = [data.mask(i) is not None for i in range(3)]
    assert found == [name.startswith("cats"), name.startswith("2"), False] and not lines


@pytest.mark.parametrize("name", ["2_mask.png", "mask_2.png", "2_label.png", "2.jpg"])
@pytest.mark.fault
def test_masks_of_other_names_are_told(tmp_path, name):
    folder(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.ones((24, 32), np.uint8)).save(tmp_path / "masks" / name)
    data, lines = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))
    assert all(data.mask(i) is None for i in range(3)) and len(lines) == 1
    one_line(lines[0], "masks", "nothing can be measured", "cats__1.png")
    save_label(tmp_path / "masks/2.png", np.ones((24, 32), int))
    data, lines = told(lambda: FolderDataset(tmp_path, mask_dir="masks"))
    if name != "2.jpg":
        one_line(lines[0], "1 masks", name)
    with pytest.raises(MissingData):
        FolderDataset(tmp_path, mask_dir="no masks")


@pytest.mark.fault
def test_missing_table_and_folder(tmp_path):
    with pytest.raises(MissingData) as error:
        FolderDataset(tmp_path)
    one_line(error, "labels.csv", "image,labels")
    with pytest.raises(FileNotFoundError) as error:
        FolderDataset(tmp_path / "no" / "where")
    one_line(error, tmp_path / "no", "check the path")


@pytest.mark.fault
def test_binary_masks_can_be_renamed(tmp_path):
    folder(tmp_path, "image,labels\n2,dog\n")
    (tmp_path / "masks").mkdir()
    save_label(tmp_path / "masks/2.png", np.full((24, 32), 255))
    plain = FolderDataset(tmp_path, mask_dir="masks")
    named = FolderDataset(tmp_path, mask_dir="masks", mask_values={255: 1})
    assert (plain.mask(0) == 255).all() and (named.mask(0) == 1).all()
    assert plain.fingerprint() != named.fingerprint()


# ---- the photo's own size


@FEW
@given(height=st.integers(8, 300), width=st.integers(8, 300), longest=st.integers(8, 200))
@pytest.mark.fault
def test_label_maps_go_back_to_the_photos_size(tmp_path_factory, height, width, longest):
    root = tmp_path_factory.mktemp("f")
    Image.fromarray(picture(height, width)).save(root / "a.png")
    (root / "labels.csv").write_text("image,labels\na,dog\n")
    data = FolderDataset(root, max_side=longest)
    computed = data.image(0).shape[:2]
    assert computed == size_within((height, width), longest)
    assert data.full_size(0) == (height, width)
    label = np.random.default_rng(0).integers(0, 5, computed, np.uint8)
    back = restore(label, data.full_size(0))
    assert back.shape == (height, width) and set(np.unique(back)) <= set(np.unique(label))


def test_no_faults_in_sound_photos(tmp_path):
    assert len(find_faults(FolderDataset(folder(tmp_path)))) == 0


def test_an_index_reads_each_folder_once(tmp_path, monkeypatch):
    folder(tmp_path)
    index, read = FileIndex(tmp_path), []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: read.append(path) or real(path))
    for _ in range(3):
        assert index.candidates("2") and index.candidates("cats/1.png") and not index.near("9")
    assert len(read) == 2
