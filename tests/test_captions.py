"fmwsss.minivoc.captions: pure in the seed, knobs that do what they say."

import dataclasses

import numpy as np
import pytest

from fmwsss.method.labels import VOC_CLASSES, VOC_PROMPT_NAMES
from fmwsss.minivoc.captions import (
    EVERYDAY,
    HYPERNYM,
    ODD,
    PLACE_WORDS,
    RESIDENTS,
    RIGHT_WORDS,
    Content,
    Web,
    captions,
    content,
    thing_word,
    vocabulary,
)
from fmwsss.minivoc.scenes import SCENES
from fmwsss.minivoc.writing import split_scene

ROOM = [Content(("cat",), ("wall", "floor"), "room")] * 4000
QUIET = Web(
    main=1, other=0, own=0, odd=0, hypernym=0, place=0, material=0, misplaced=0, wrong=0, filler=0
)


def share(texts, word):
    return np.mean([word in text.replace(".", " ").replace(",", " ").split() for text in texts])


def test_captions_are_a_pure_function_of_the_seed():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = captions(7, ROOM[:50])
    assert first == captions(7, ROOM[:50]) and first != captions(8, ROOM[:50])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_the_written_recipe():
    "What the packaged webclip read; another default would be another world."
    assert dataclasses.astuple(Web()) == (
        0.85,
        0.3,
        0.12,
        0.03,
        0.1,
        0.3,
        0.2,
        0.25,
        0.1,
        0.5,
        0.25,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        Web().own = 1


def test_content_lists_the_largest_first():
    for i in range(20):
        drawn = split_scene("tune", i)
        areas = {}
        for number, kind in drawn.objects:
            areas[VOC_CLASSES[kind]] = max(
                areas.get(VOC_CLASSES[kind], 0), (drawn.instance == number).sum()
            )
        assert list(content(drawn).classes) == sorted(areas, key=lambda name: -areas[name])
        assert content(drawn).place == drawn.scene_name and content(drawn).materials == tuple(
            drawn.backgrounds
        )


def test_every_class_has_words_and_every_place_too():
    assert list(EVERYDAY) == VOC_CLASSES and set(HYPERNYM) == set(VOC_CLASSES) - {"person"}
    assert set(PLACE_WORDS) == set(RESIDENTS) == {*SCENES, "mixed"} and set(ODD) < set(VOC_CLASSES)
    assert len(set(RIGHT_WORDS)) == 20 and not set(RIGHT_WORDS) & {*VOC_CLASSES, *VOC_PROMPT_NAMES}


def test_nothing_is_written_outside_the_vocabulary():
    contents = [content(split_scene("pretrain", i, size=(32, 32))) for i in range(300)]
    known = set(" ".join(vocabulary()).split())
    texts = captions(0, contents, web=Web(misplaced=1, own=0.5, odd=0.5))
    assert {word for text in texts for word in text.rstrip(".").split()} <= known and all(texts)


@pytest.mark.parametrize(
    "knob,value,word",
    [("own", 1, "cat"), ("hypernym", 1, "animal"), ("misplaced", 1, "sofa"), ("filler", 1, "hd")],
)
def test_knobs(knob, value, word):
    before, after = (
        share(captions(0, ROOM, web=web), word)
        for web in (QUIET, dataclasses.replace(QUIET, **{knob: value}))
    )
    assert before < after and (word == "cat" or before == 0)


def test_knobs_of_what_is_said():
    words = {*EVERYDAY["cat"]}
    said = lambda web: np.mean(
        [bool(words & {*t.replace(".", " ").split()}) for t in captions(0, ROOM, web=web)]
    )
    assert said(QUIET) == 1 and 0.45 < said(dataclasses.replace(QUIET, main=0.5)) < 0.55
    two = [Content(("cat", "bus"), (), "room")] * 4000
    other = lambda p: np.mean(
        [
            bool({*EVERYDAY["bus"]} & {*t.replace(".", " ").split()})
            for t in captions(0, two, web=dataclasses.replace(QUIET, other=p))
        ]
    )
    assert other(0) == 0 and 0.25 < other(0.3) < 0.35
    places = captions(0, ROOM, web=dataclasses.replace(QUIET, place=1))
    assert all(set(PLACE_WORDS["room"]) & {*t.replace(".", " ").split()} for t in places)


def test_wrong_captions_are_of_other_pictures():
    mixed = [Content(("cat",), (), "room"), Content(("bus",), (), "street")] * 2000
    texts = captions(0, mixed, web=dataclasses.replace(QUIET, wrong=0.4))
    wrong = np.mean(
        [
            not {*EVERYDAY[c.classes[0]]} & {*t.replace(".", " ").split()}
            for c, t in zip(mixed, texts)
        ]
    )
    assert 0.15 < wrong < 0.25  # half of the 40 % meet a picture of the same class


def test_rows_choose_pictures():
    texts = captions(
        1,
        [Content(("cat",), (), "room"), Content(("bus",), (), "street")],
        rows=[1, 1, 1],
        web=QUIET,
    )
    assert len(texts) == 3 and all(
        {*EVERYDAY["bus"]} & {*t.replace(".", " ").split()} for t in texts
    )


def test_voc_words_are_rare_for_odd_classes():
    rng = np.random.default_rng(0)
    own = lambda name: np.mean(
        [
            w in (name, VOC_PROMPT_NAMES[VOC_CLASSES.index(name)])
            for w in (thing_word(rng, name, Web()) for _ in range(3000))
        ]
    )
    assert own("sofa") < 0.06 and 0.05 < own("sheep") and own("tvmonitor") < 0.06
