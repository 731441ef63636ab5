"""Any bytes and values for the parsers of masks, stores, presets, settings: a result, or a line."""

import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import counts
from fmwsss.data.label_maps import load_label
from fmwsss.engine.store import Store
from fmwsss.app.presets import parse_settings, read_yaml, settings_of
from fmwsss.sources.disk import load_masks

pytestmark = pytest.mark.fault
MANY = settings(max_examples=300, deadline=None, database=None, derandomize=True)
words = st.text(max_size=12) | st.sampled_from(
    [
        "seed=1",
        "data.images={train: 1}",
        "=",
        "a.b.c=3",
        "..=1",
        "seed=[",
        "a={b: 1}",
        "seed=!!python/name:os.system",
    ]
)
magic = st.sampled_from([b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n"])


def attempt(read, content, name):
    return counts.attempt(read, content, name, (ValueError, OSError), name.split(".")[0])


@MANY
@given(st.binary(max_size=300), magic)
def test_masks_and_label_maps(content, start):
    attempt(load_masks, start + content, "masks.npz")
    attempt(load_label, start + content, "label.png")


@MANY
@given(
    st.dictionaries(
        st.sampled_from(["counts", "runs", "level", "iou", "stability", "size", "rle", "x"]),
        st.lists(st.integers(-3, 300), max_size=6),
        max_size=6,
    )
)
def test_masks_with_wrong_arrays(arrays):
    def read(path):
        with open(path, "wb") as f:
            np.savez(f, **{k: np.array(v) for k, v in arrays.items()})
        return load_masks(path)

    attempt(read, b"", "masks.npz")


@MANY
@given(
    st.binary(max_size=200) | st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
def test_presets(content):
    found = attempt(read_yaml, content, "preset.yaml")
    assert found is None or isinstance(found, dict)


@MANY
@given(st.lists(words, max_size=3))
def test_settings(pairs):
    counts.tried += 1
    try:
        settings_of("minivoc", changes=parse_settings(pairs))
    except ValueError as error:
        assert "\n" not in str(error)


@MANY
@given(
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30
    )
)
def test_names_of_results(name):
    counts.tried += 1
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, "toy", {})
        store.save(name, dict(x=np.arange(2)))
        assert store.has(name) and store.path(name).resolve().parent == store.folder.resolve()
