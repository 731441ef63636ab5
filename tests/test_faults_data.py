"""Any bytes to readers of lists, tables, annotations, pictures, archives: a result or a line."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import counts
from fmwsss.data.archives import extract
from fmwsss.data.coco_objects import read_instances
from fmwsss.data.folder import FolderDataset
from fmwsss.data.images import image_header, read_image
from fmwsss.data.label_maps import read_mask
from fmwsss.data.tables import read_labels, read_list, save_labels
from fmwsss.files.errors import DataError
from fmwsss.files.stamps import file_stamp
from fmwsss.files.text import read_text
from fmwsss.method.labels import VOC_CLASSES

pytestmark = pytest.mark.fault
FEW = settings(max_examples=150, deadline=None, database=None, derandomize=True)
ODD_CELLS = [
    "cat",
    "dog",
    "image",
    "labels",
    "split",
    "..",
    "a/b",
    "../a",
    '"',
    "cat;dog",
    "cat|dog",
]
ODD_CELLS += [
    " ",
    "\0",
    "0",
    "1",
    "é",
    "\ufeff",
    "./a.jpg",
    "nan",
    "cat,dog",
    "；",
    "yes",
    "Dog",
    "._a",
]
cells = st.text(max_size=8) | st.sampled_from(ODD_CELLS)
lines = st.lists(cells, max_size=4).map(",".join)
tables = st.lists(lines, max_size=6).map("\n".join)
bytes_of_tables = tables.map(lambda text: text.encode("utf-8", "surrogatepass"))
with_header = st.binary(max_size=80).map(lambda rows: b"image,labels\n" + rows)


def attempt(read, content, name="x.bin"):
    "read(path) of a file with this content, or None after one DataError that names it."
    return counts.attempt(read, content, name, DataError)


@FEW
@given(st.binary(max_size=200))
@example(b"\xff\xfea")
@example(b"\xff\xfe\0\0a")
@example(b"\0a")
@example(b"a\0b")
def test_texts(content):
    text = attempt(read_text, content)
    assert text is None or unicodedata.is_normalized("NFC", text)


@FEW
@given(st.binary(max_size=200) | bytes_of_tables)
@example(b"\xff\xfea")
@example(b"a\r\nb\rc")
def test_lists(content):
    names = attempt(read_list, content)
    if names is None:
        return
    assert names and len(set(names)) == len(names)
    assert not any(".." in name.split("/") or name[0] in "/\\" or "\\" in name for name in names)


@FEW
@given(
    st.binary(max_size=200) | bytes_of_tables | with_header, st.sampled_from([None, VOC_CLASSES])
)
@example(b'image,labels\n"a\nb",cat', None)
@example(b"sep=", None)
@example(b"sep=;\n", None)
def test_tables(content, classes):
    found = attempt(lambda path: read_labels(path, classes), content)
    if found is not None:
        rows, classes = found
        assert rows and classes and len(set(classes)) == len(classes)
        assert all(row.shape == (len(classes),) for row in rows.values())
        assert max(row.max(initial=0) for row in rows.values()) <= 1


@FEW
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4))
def test_folders_without_photos(rows):
    text = "image,labels\n" + "".join(f"{a},{b}\n" for a, b in rows)
    read = lambda path: FolderDataset(path.parent, path.name)
    assert attempt(read, text.encode("utf-8", "surrogatepass"), "labels.csv") is None


safe = st.characters(codec="utf-8", exclude_characters="/\\\0\r", exclude_categories=["C", "Z"])
names = st.text(safe, min_size=1, max_size=12)
rows_of_labels = st.lists(st.booleans(), min_size=3, max_size=3)


@FEW
@given(st.lists(st.tuples(names, rows_of_labels), min_size=1, max_size=5, unique_by=lambda r: r[0]))
def test_a_written_table_reads_back(tmp_path_factory, rows):
    written = [unicodedata.normalize("NFC", name) for name, _ in rows]
    odd = ("", ".", "..")
    if len(set(written)) < len(written) or any(n in odd or n[1:2] == ":" for n in written):
        return
    if any(name.startswith("._") for name in written):
        return
    labels = np.array([row for _, row in rows], np.uint8)
    path = tmp_path_factory.mktemp("t") / "x.csv"
    classes = ["a, b", "c", 'd "e"']
    save_labels(path, written, labels, classes)
    found, _ = read_labels(path, classes, encoding="utf-8")
    assert list(found) == written and (np.stack(list(found.values())) == labels).all()


KEYS = ["categories", "images", "annotations", "id", "name", "file_name", "segmentation"]
KEYS += ["image_id", "category_id", "area", "iscrowd", "height", "width"]
leaves = st.none() | st.booleans() | st.integers(-5, 99) | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)


@FEW
@given(st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()))
def test_annotations(content):
    attempt(read_instances, content)


STARTS = [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"RIFF\x10\0\0\0WEBPVP8 "]
STARTS += [b"II*\0", b"BM", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypavif", b"\xff\xd8\xff\xe1\0\x10"]


@FEW
@given(st.binary(max_size=300), st.sampled_from(STARTS))
def test_images_and_masks(content, start):
    for read in (read_image, image_header, lambda path: read_mask(path, 20)):
        attempt(read, start + content, "x.png")
    attempt(file_stamp, start + content)


ZIPS = [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x1f\x8b\x08\0"]


@FEW
@given(st.binary(max_size=600), st.sampled_from(ZIPS))
def test_archives(content, start):
    def unpack(path):
        extract(path, path.parent / "in")
        folder = path.parent.resolve()
        assert all(made.resolve().is_relative_to(folder) for made in path.parent.rglob("*"))

    attempt(unpack, start + content)
