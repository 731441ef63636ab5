"""fmwsss.names: the lists fit together, label maps survive storage, wrong files are refused in one line."""
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fmwsss import names


def test_lists_have_the_published_lengths():
    lengths = [len(names.VOC_CLASSES), len(names.VOC_PROMPT_NAMES), len(names.VOC_BACKGROUND), len(names.COCO_CLASSES),
               len(names.COCO_PROMPT_NAMES), len(names.COCO_BACKGROUND), len(names.COCO_IDS)]
    assert lengths == [20, 20, 25, 80, 80, 23, 80]


def test_lists_have_no_double_entries():
    for words in (names.VOC_CLASSES, names.VOC_PROMPT_NAMES, names.VOC_BACKGROUND, names.COCO_CLASSES, names.COCO_PROMPT_NAMES,
                  names.COCO_BACKGROUND, names.COCO_IDS):
        assert len(set(words)) == len(words)


def test_no_class_is_a_background_noun():
    assert not set(names.VOC_CLASSES + names.VOC_PROMPT_NAMES) & set(names.VOC_BACKGROUND)
    assert not set(names.COCO_CLASSES + names.COCO_PROMPT_NAMES) & set(names.COCO_BACKGROUND)


def test_known_places():
    assert names.VOC_CLASSES.index("person") == 14
    assert dict(zip(names.COCO_CLASSES, names.COCO_IDS))["toothbrush"] == 90
    assert names.COCO_PROMPT_NAMES[names.COCO_CLASSES.index("bird")] == "bird avian"


def test_palette_is_the_one_of_voc():
    colours = names.palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]] and colours[20].tolist() == [0, 64, 128]
    assert len(np.unique(colours, axis=0)) == 256


@settings(max_examples=25, deadline=None)
@given(label=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_label_maps_survive_storage(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    names.save_label(path, label)
    assert np.array_equal(names.load_label(path), label)
    assert Image.open(path).mode == "P" and [p.name for p in path.parent.iterdir()] == ["mask.png"]


def test_grey_label_maps_are_read(tmp_path):
    label = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(label).save(tmp_path / "grey.png")
    assert np.array_equal(names.load_label(tmp_path / "grey.png"), label)


@pytest.mark.parametrize("label", [np.zeros((2, 2, 3)), np.full((2, 2), 300), np.full((2, 2), -1)])
def test_what_is_no_label_map_is_not_written(tmp_path, label):
    with pytest.raises(ValueError, match="save_label"):
        names.save_label(tmp_path / "mask.png", label)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.png"):
        names.load_label(tmp_path / "missing.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="broken.png"):
        names.load_label(tmp_path / "broken.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match="colour.png.*palette"):
        names.load_label(tmp_path / "colour.png")
