"""Sizes, crops and colours: the same generator gives the same view, labels are never mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import picture
from fmwsss.data.augment import augment, jitter_colours, random_window, resize_to_patch
from fmwsss.data.augment import whole_window

FEW = settings(max_examples=60, deadline=None, database=None, derandomize=True)
PATCHES = [
    ((375, 500), 16, {}, (384, 512)),
    ((384, 512), 16, {}, (384, 512)),
    ((1, 1), 16, {}, (16, 16)),
    ((375, 500), 16, dict(long_side=250), (192, 256)),
    ((100, 400), 8, dict(long_side=200, short_side=64), (64, 256)),
    ((33, 47), 8, {}, (40, 48)),
]


@pytest.mark.parametrize("size, patch, options, expected", PATCHES)
def test_resize_to_patch(size, patch, options, expected):
    image = picture(*size)
    assert resize_to_patch(image, patch, **options).shape == (*expected, 3)
    with pytest.raises(ValueError):
        resize_to_patch(image, 0)


@pytest.mark.parametrize("size", [(375, 500), (500, 300), (40, 60), (8, 300), (1500, 900)])
def test_augment(size):
    image = picture(*size)
    label = np.random.default_rng(1).integers(0, 3, size, np.uint8) * 7
    a, b = (augment(image, label, np.random.default_rng(5)) for _ in range(2))
    assert (a[0] == b[0]).all() and (a[1] == b[1]).all() and a[0].shape == (224, 224, 3)
    assert a[0].dtype == np.uint8 and set(np.unique(a[1])) <= {0, 7, 14}
    assert a[1].dtype == label.dtype and augment(image, None, np.random.default_rng(5))[1] is None
    alone = augment(image, None, np.random.default_rng(5))[0]
    assert (alone == a[0]).all()  # a label map changes nothing for the image


def test_augment_moves_image_and_label_together():
    mask = np.zeros((300, 400), np.uint8)
    mask[80:200, 150:330] = 1
    image = np.repeat(mask[..., None] * 255, 3, 2)
    for seed in range(20):
        view = augment(image, mask, np.random.default_rng(seed), jitter=(0, 0, 0, 0))
        assert ((view[0][..., 0] > 127) == (view[1] == 1)).mean() > 0.99


def test_the_scale_is_the_one_asked_for():
    rng, sides = np.random.default_rng(0), []
    for _ in range(300):
        top, left, side = random_window(300, 400, rng, 224, (288, 480), 224)
        assert 0 <= top <= 300 - side + 1e-9 and 0 <= left <= 400 - side + 1e-9
        sides.append(400 * 224 / side)
    assert 298.6 < min(sides) < 303 and 475 < max(sides) < 480.1  # short side at least 224


@FEW
@given(st.integers(8, 900), st.integers(8, 900), st.integers(0, 999))
def test_windows_of_whole_pixels_lie_in_the_image(height, width, seed):
    window = random_window(height, width, np.random.default_rng(seed), 224, (288, 480), 224)
    top, left, side = whole_window(height, width, window)
    assert side >= 1 and 0 <= top <= height - side and 0 <= left <= width - side
    assert max(abs(top - window[0]), abs(left - window[1]), abs(side - window[2])) <= 1


def test_flip_only_changes_nothing_else():
    image, label = picture(), np.arange(24 * 32).reshape(24, 32) % 200
    flipped, moved = augment(image, label, np.random.default_rng(0), flip=1, flip_only=True)
    assert (flipped == image[:, ::-1]).all() and (moved == label[:, ::-1]).all()
    assert flipped.flags.c_contiguous
    same, _ = augment(image, None, np.random.default_rng(0), flip=0, flip_only=True)
    assert (same == image).all()
    with pytest.raises(ValueError):
        augment(image, label[:5], np.random.default_rng(0))


def test_a_mirror_is_drawn_as_often_as_asked():
    image = np.arange(64, dtype=np.uint8).reshape(1, 64, 1).repeat(8, 0).repeat(3, 2)
    rng = np.random.default_rng(0)
    flips = [
        augment(image, None, rng, flip=0.3, flip_only=True)[0][0, 0, 0] > 0 for _ in range(2000)
    ]
    assert abs(np.mean(flips) - 0.3) < 0.03


@pytest.mark.parametrize("place", range(4))
def test_each_colour_knob_stays_within_its_strength(place):
    image, strength = picture(), [0.0] * 4
    strength[place] = 0.3
    views = [jitter_colours(image, np.random.default_rng(seed), strength) for seed in range(20)]
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
    assert len({view.tobytes() for view in views}) == 20
    assert jitter_colours(image, np.random.default_rng(0), (0, 0, 0, 0)) is image
    if place == 0:
        means = [view.mean() / image.mean() for view in views]
        assert 0.69 < min(means) and max(means) < 1.31
    if place == 3:
        greys = np.full((8, 8, 3), 77, np.uint8)
        assert (jitter_colours(greys, np.random.default_rng(0), strength) == greys).all()


def test_the_numbers_are_ours_and_torch_draws_none():
    import torch

    torch.manual_seed(0)
    a = augment(picture(300, 400), None, np.random.default_rng(3))[0]
    torch.manual_seed(1)
    assert (augment(picture(300, 400), None, np.random.default_rng(3))[0] == a).all()
