"""The lists of classes and the palette fit together."""

import numpy as np

from fmwsss.data import coco_names as coco
from fmwsss.method import labels


def test_lists_have_the_published_lengths():
    lengths = [
        len(labels.VOC_CLASSES),
        len(labels.VOC_PROMPT_NAMES),
        len(labels.VOC_BACKGROUND),
        len(coco.COCO_CLASSES),
        len(coco.COCO_PROMPT_NAMES),
        len(coco.COCO_BACKGROUND),
        len(coco.COCO_IDS),
    ]
    assert lengths == [20, 20, 25, 80, 80, 23, 80]


def test_lists_have_no_double_entries():
    for words in (
        labels.VOC_CLASSES,
        labels.VOC_PROMPT_NAMES,
        labels.VOC_BACKGROUND,
        coco.COCO_CLASSES,
        coco.COCO_PROMPT_NAMES,
        coco.COCO_BACKGROUND,
        coco.COCO_IDS,
    ):
        assert len(set(words)) == len(words)


def test_no_class_is_a_background_noun():
    assert not set(labels.VOC_CLASSES + labels.VOC_PROMPT_NAMES) & set(labels.VOC_BACKGROUND)
    assert not set(coco.COCO_CLASSES + coco.COCO_PROMPT_NAMES) & set(coco.COCO_BACKGROUND)


def test_known_places():
    assert labels.VOC_CLASSES.index("person") == 14
    assert dict(zip(coco.COCO_CLASSES, coco.COCO_IDS))["toothbrush"] == 90
    assert coco.COCO_PROMPT_NAMES[coco.COCO_CLASSES.index("bird")] == "bird avian"


def test_palette_is_the_one_of_voc():
    colours = labels.palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]] and colours[
        20
    ].tolist() == [0, 64, 128]
    assert len(np.unique(colours, axis=0)) == 256
