"""Fuzz of the parsers of lists, label tables, annotations, masks and archives: any bytes give a result or one clear line."""
import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
import pytest

import counts
from fmwsss.data import DataError, extract, file_stamp, read_image, read_instances, read_labels, read_list, read_mask, save_labels
from fmwsss.names import VOC_CLASSES

pytestmark = pytest.mark.fault
FEW = settings(max_examples=150, deadline=None, database=None, derandomize=True)
cells = st.text(max_size=8) | st.sampled_from(["cat", "dog", "image", "labels", "split", "..", "a/b", "../a", '"', "cat;dog", "cat|dog", " ", "\0", "0", "1", "é", "\ufeff"])
tables = st.lists(st.lists(cells, max_size=4), max_size=6).map(lambda rows: "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass"))
with_header = st.binary(max_size=80).map(lambda rows: b"image,labels\n" + rows)


def attempt(read, content, name="x.bin"): return counts.attempt(read, content, name, DataError)


@FEW
@given(st.binary(max_size=200) | tables)
@example(b"\xff\xfea")
@example(b"a\r\nb\rc")
def test_lists(content):
    names = attempt(read_list, content)
    if names is not None: assert names and len(set(names)) == len(names) and not any(".." in name.replace("\\", "/").split("/") or name.startswith("/") for name in names)


@FEW
@given(st.binary(max_size=200) | tables | with_header, st.sampled_from([None, VOC_CLASSES]))
@example(b'image,labels\n"a\nb",cat', None)
def test_tables(content, classes):
    found = attempt(lambda path: read_labels(path, classes), content)
    if found is not None:
        rows, classes = found
        assert rows and classes and all(row.shape == (len(classes),) and row.max(initial=0) <= 1 for row in rows.values())


@FEW
@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="/\\\0\r", exclude_categories=["C"]), min_size=1, max_size=12), st.lists(st.booleans(), min_size=3, max_size=3)), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_a_written_table_reads_back(rows):
    import unicodedata
    names = [unicodedata.normalize("NFC", name).strip() for name, _ in rows]
    if len(set(names)) < len(names) or any(name in ("", "..") or name[1:2] == ":" for name in names): return
    labels = np.array([row for _, row in rows], np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        save_labels(path, names, labels, ["a, b", "c", 'd "e"'])
        found, _ = read_labels(path, ["a, b", "c", 'd "e"'])
    assert list(found) == names and (np.stack(list(found.values())) == labels).all()


values = st.recursive(st.none() | st.booleans() | st.integers(-5, 99) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["categories", "images", "annotations", "id", "name", "file_name", "segmentation", "image_id", "category_id", "area", "iscrowd", "height", "width"]), inner, max_size=5), max_leaves=12)


@FEW
@given(st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()))
def test_annotations(content):
    attempt(read_instances, content)


@FEW
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"RIFF\x10\0\0\0WEBPVP8 ", b"II*\0", b"BM"]))
def test_images_and_masks(content, magic):
    attempt(read_image, magic + content, "x.png")
    attempt(lambda path: read_mask(path, 20), magic + content, "x.png")
    attempt(file_stamp, magic + content)


@FEW
@given(st.binary(max_size=600), st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x1f\x8b\x08\0"]))
def test_archives(content, magic):
    def unpack(path):
        extract(path, path.parent / "in")
        assert all(made.resolve().is_relative_to(path.parent) for made in path.parent.rglob("*"))
    attempt(unpack, magic + content)
