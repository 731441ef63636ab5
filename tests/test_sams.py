"""Seeds from CAMs, SAM-based seeding, where masks tie, and everything that people pass to it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmwsss.fast import runs as fast
from fmwsss.method import sams as plain
from fmwsss.method.affinity import min_max
from fmwsss.method.masks import Masks
from fmwsss.method.sams import (
    add_background,
    cam_scores,
    cut,
    label_numbers,
    mask_scores,
    oracle_seed,
    painting_order,
    resize_maps,
    seed_from_cams,
    seed_from_scores,
    stretch,
)
from fmwsss.sources.classical import label_masks


@pytest.fixture(params=[plain, fast], ids=["plain", "fast"])
def sams(request):
    "Both forms must do the same."
    return request.param.sams


def squares(*boxes, level=None, size=(20, 20)):
    "Masks of boxes (y0, y1, x0, x1)."
    dense = np.zeros((len(boxes), *size), bool)
    for m, (y0, y1, x0, x1) in zip(dense, boxes):
        m[y0:y1, x0:x1] = True
    return Masks.of(dense, level)


def cam_on(*boxes, size=(20, 20)):
    "One CAM a box: 1 inside, -1 outside."
    out = -np.ones((len(boxes), *size), np.float32)
    for c, (y0, y1, x0, x1) in zip(out, boxes):
        c[y0:y1, x0:x1] = 1
    return out


def slow_sams(cams, dense, level, classes, power):
    "The formula, mask by mask; ties as `painting_order` says."
    means = np.array([[np.maximum(c, 0)[m].mean() for m in dense] for c in cams])
    low, high = means.min(1, keepdims=True), means.max(1, keepdims=True)
    score = (means - low) / (high - low)
    score = np.concatenate([(1 - score.max(0, keepdims=True)) ** power, score])
    best = score.argmax(0)
    rank = lambda i: (level[i], np.float32(score[:, i].max()), best[i] > 0, -dense[i].sum())
    seed = np.zeros(dense.shape[1:], np.uint8)
    for i in sorted(range(len(dense)), key=rank):
        seed[dense[i]] = [-1, *classes][best[i]] + 1
    return seed


@pytest.mark.parametrize("seed", range(5))
def test_sams_equals_the_formula(sams, seed):
    rng = np.random.default_rng(seed)
    dense = np.kron(rng.random((12, 5, 6)) < 0.4, np.ones((7, 8))).astype(bool)
    dense[0] = True
    level = rng.integers(0, 3, 12)
    cams = np.kron(rng.normal(size=(3, 10, 12)), np.ones((4, 4)))[:, :35, :48].astype(np.float32)
    ours, found = sams(cams, Masks.of(dense, level), [2, 5, 19], 0.6)
    assert np.array_equal(ours, slow_sams(cams, dense, level, [2, 5, 19], 0.6))
    assert found.scores.shape == (12, 4) and sorted(found.order) == list(range(12))
    assert np.array_equal(found.confidence, found.scores.max(1))


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 2**32),
    st.sampled_from([True, False, "double"]),
    st.booleans(),
    st.sampled_from([("level", "confidence"), ("-area",), ("confidence", "area")]),
)
def test_fast_sams_is_plain_sams(size, n_masks, n_classes, seed, norm, published, priority):
    "CAMs in 64ths, so that sums are exact in any order: equal to the last bit, ties and all."
    rng = np.random.default_rng(seed)
    masks = Masks.of(rng.random((n_masks, *size)) < rng.random(), rng.integers(0, 3, n_masks))
    cams = rng.integers(-64, 64, (n_classes, *size)) / np.float32(64)
    classes = rng.permutation(300)[:n_classes].tolist()
    classes = [c for c in classes if c != 254] + [7] * classes.count(254)
    how = dict(norm_first=norm, published=published, priority=priority)
    a, b = (form.sams(cams, masks, classes, 0.6, **how) for form in (plain, fast))
    assert np.array_equal(a[0], b[0]) and a[0].dtype == b[0].dtype
    for name in ("labels", "order", "confidence", "scores"):
        left, right = getattr(a[1], name), getattr(b[1], name)
        exact = norm != "double" or name in ("labels", "order")
        assert np.array_equal(left, right) if exact else np.allclose(left, right, atol=1e-6)


def test_seed_from_cams_by_hand():
    cams = np.array([[[0.0, 1.0], [-3.0, 0.5]]])
    assert seed_from_cams(cams, [4], power=1).tolist() == [[0, 5], [0, 0]]
    assert seed_from_cams(cams, [4], power=2).tolist() == [[0, 5], [0, 5]]
    assert seed_from_cams(cams, [4], threshold=0.4).tolist() == [[0, 5], [0, 5]]
    assert seed_from_cams(cams, [4], size=(8, 6)).shape == (8, 6)


def test_stretch_is_min_max_without_torch():
    cams = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    cams[2] = -1
    cams[1] = cams[1].abs() + 0.5  # above zero everywhere
    for eps in (0.0, 1e-7):
        assert np.array_equal(stretch(cams, eps), min_max(cams, eps).numpy())


def test_no_class_is_all_background(sams):
    assert not seed_from_cams(np.zeros((0, 4, 4)), [], size=(8, 8)).any()
    assert not seed_from_cams(np.zeros((0, 4, 4)), []).any()
    for nothing in (np.zeros((0, 20, 20), np.float32), []):
        seed, found = sams(nothing, squares((0, 5, 0, 5)), [])
        assert seed.shape == (20, 20) and not seed.any() and found.labels.tolist() == [0]


def test_no_mask_is_all_background(sams):
    for nothing in (squares(), [], np.zeros((0, 20, 20), bool)):
        seed, found = sams(cam_on((0, 5, 0, 5)), nothing, [3])
        assert seed.shape == (20, 20) and not seed.any() and found.order.tolist() == []


def test_an_empty_mask_takes_no_pixel_and_no_score(sams):
    masks = squares((0, 5, 0, 5), (3, 3, 3, 3), (10, 20, 10, 20))
    seed, found = sams(cam_on((0, 5, 0, 5)), masks, [3])
    assert (seed == 4).sum() == 25 and np.isfinite(found.scores).all()


def test_a_lone_mask_keeps_its_class_unless_published(sams):
    cam, lone = cam_on((0, 5, 0, 5)), squares((0, 6, 0, 6))
    assert sams(cam, lone, [3])[0].max() == 4
    assert sams(cam, lone, [3], published=True)[0].max() == 0


def test_empty_background_never_covers_an_object_unless_published(sams):
    "Two masks of one level; published: background is 1 exactly, the object 1 - 1e-7 / range."
    cam, two = 0.5 * cam_on((0, 5, 0, 5)), squares((0, 5, 0, 5), (4, 20, 0, 20))
    cam[:, 4] = -1
    assert sams(cam, two, [3])[0][4, :5].tolist() == [4] * 5
    assert sams(cam, two, [3], published=True)[0][4, :5].tolist() == [0] * 5


def test_tiny_cams_keep_their_order_unless_published(sams):
    cam = 1e-9 * cam_on((0, 5, 0, 5))
    two = squares((0, 5, 0, 5), (10, 20, 0, 20))
    assert sams(cam, two, [3])[0][0, 0] == 4
    assert sams(cam, two, [3], published=True)[0][0, 0] == 0


def test_all_negative_is_background(sams):
    masks = squares((0, 5, 0, 5), (0, 9, 0, 9))
    assert not sams(-np.ones((2, 20, 20), np.float32), masks, [1, 2])[0].any()


def test_higher_levels_and_then_confidence_win(sams):
    cams = cam_on((0, 10, 0, 10), (5, 15, 5, 15))
    boxes = (0, 10, 0, 10), (5, 15, 5, 15), (15, 20, 15, 20)
    assert sams(cams, squares(*boxes, level=[2, 1, 2]), [0, 1])[0][7, 7] == 1
    assert sams(cams, squares(*boxes, level=[1, 2, 2]), [0, 1])[0][7, 7] == 2


def test_mask_scores_by_hand():
    masks = squares((0, 2, 0, 1), (2, 4, 0, 1), (4, 8, 0, 1))
    cam = np.full((1, 20, 20), -1, np.float32)
    cam[0, :2, 0], cam[0, 2, 0], cam[0, 4:8, 0] = 4, 4, 1
    assert mask_scores(cam, masks)[0].tolist() == [1, pytest.approx(1 / 3), 0]
    assert mask_scores(cam, masks, norm_first=False)[0].tolist() == [1, pytest.approx(1 / 6), 0]
    published = mask_scores(1e-7 * cam, masks, published=True)[0]
    assert published.tolist() == pytest.approx([3 / 4, 1 / 4, 0])  # a range of 3e-7, and 1e-7 more


def test_stretched_before_the_mean_with_the_published_constant_or_none():
    tiny = np.array([[[0, 1e-7], [2e-7, 4e-7]]], np.float32)
    assert np.array_equal(cut(tiny, "double"), plain.stretch(tiny))
    assert np.array_equal(cut(tiny, "double", published=True), plain.stretch(tiny, 1e-7))
    assert cut(tiny, "double").max() == 1 and 0.7 < cut(tiny, "double", True).max() < 0.9


def test_paint_names_the_mask_on_top():
    masks = squares((0, 9, 0, 9), (5, 20, 5, 20))
    for form in (plain, fast):
        assert np.unique(form.paint(masks, [1, 0])).tolist() == [-1, 0, 1]
        assert form.paint(masks, [1, 0])[6, 6] == 0 and form.paint(masks, [0, 1])[6, 6] == 1


def test_priorities():
    order = lambda *p, **k: painting_order(
        [1, 1, 0], [0.9, 0.5, 0.9], [0, 1, 1], [4, 9, 2], p, **k
    ).tolist()
    assert order("level", "confidence") == [0, 1, 2] and order("-level", "confidence") == [1, 2, 0]
    assert order("area") == [2, 0, 1] and order("-area") == [1, 0, 2]
    assert order("confidence") == [1, 2, 0] and order("confidence", published=True) == [1, 0, 2]
    small = np.array([4, 9, 2], np.uint8)  # must not wrap when it is turned round
    assert painting_order([1, 1, 1], [1, 1, 1], [0, 0, 0], small, ("-area",)).tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match="size"):
        order("size")


def test_oracle_is_perfect_with_perfect_masks():
    truth = np.zeros((20, 20), np.uint8)
    truth[2:9, 3:9], truth[12:18, 5:15] = 3, 20
    seed = oracle_seed(label_masks(truth), truth)
    assert np.array_equal(seed, truth) and seed.dtype == np.uint8
    many = truth.astype(np.int64) * 100
    seed = oracle_seed(label_masks(many), many, ignore=-1)
    assert np.array_equal(seed, many) and seed.dtype == np.uint16


def test_background_never_nan():
    assert np.isfinite(add_background(np.array([[1 + 1e-6]]), 0.5)).all()
    assert add_background(np.zeros((0, 2, 2)))[0].tolist() == [[1, 1], [1, 1]]


# What people have: never a wrong number, and one line where it cannot be


CAMS, BOX = cam_on((0, 5, 0, 5), (9, 15, 9, 15)), squares((0, 5, 0, 5), (9, 15, 9, 15))


@pytest.mark.parametrize("first, second", [(3, 253), (3, 255), (299, 64999), (0, 65534)])
def test_class_numbers_never_wrap(sams, first, second):
    seed, found = sams(CAMS, BOX, [first, second])
    assert seed[0, 0] == first + 1 and seed[10, 10] == second + 1 and seed[19, 19] == 0
    assert seed.dtype == (np.uint8 if second < 254 else np.uint16)
    assert seed_from_cams(CAMS, [first, second])[10, 10] == second + 1
    assert found.labels.tolist() == [first + 1, second + 1]


def test_the_label_that_means_ignored_is_never_given(sams):
    for make in (
        lambda **k: sams(CAMS, BOX, [3, 254], **k)[0],
        lambda **k: seed_from_cams(CAMS, [3, 254], **k),
    ):
        with pytest.raises(ValueError, match="class 254.*label 255"):
            make()
        seed = make(ignore=65535)
        assert seed[10, 10] == 255 and seed.dtype == np.uint16
    with pytest.raises(ValueError, match="class 9.*label 10"):
        sams(CAMS, BOX, [3, 9], ignore=10)


@pytest.mark.parametrize("classes, word", [
    ([3, -1], "-1"),
    ([3, 65535], "65535"),
    ([3.0, 4.0], "whole numbers"),
    ([True, False], "whole numbers"),
    (["cat", "dog"], "whole numbers"),
    ([[3], [4]], "whole numbers"),
    (3, "whole numbers"),
    ([3], "2 CAMs for 1"),
])  # fmt: skip
def test_wrong_classes(sams, classes, word):
    for call in (lambda: sams(CAMS, BOX, classes), lambda: seed_from_cams(CAMS, classes)):
        with pytest.raises(ValueError, match=word) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_cams_that_are_no_numbers(sams, bad):
    cams = CAMS.astype(np.float64)
    cams[1, 4, 4] = bad
    for call in (
        lambda: sams(cams, BOX, [3, 8]),
        lambda: mask_scores(cams, BOX),
        lambda: seed_from_cams(cams, [3, 8]),
    ):
        with pytest.raises(ValueError, match="NaN or infinite") as error:
            call()
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="class 8"):
        sams(cams, BOX, [3, 8])
    with pytest.raises(ValueError, match="NaN or infinite"):
        seed_from_scores(np.array([[0.5], [np.nan]]), [3])


def test_tensors_of_every_kind(sams):
    expected = sams(CAMS, BOX, [3, 8])[0]
    cams, dense = torch.tensor(CAMS), torch.tensor(BOX.dense())
    kinds = [cams, cams.requires_grad_() * 1, cams.double(), cams.bfloat16(), cams.half(),
             cams.detach().mT.contiguous().mT]  # fmt: skip
    for x in kinds:
        assert np.array_equal(sams(x, dense, torch.tensor([3, 8]))[0], expected)
        assert np.array_equal(seed_from_cams(x, np.array([3, 8])), seed_from_cams(CAMS, [3, 8]))
    assert cam_scores(cams).shape == (2, 20, 20) and not resize_maps(CAMS, (8, 8)).requires_grad


def test_masks_of_every_kind(sams):
    expected = sams(CAMS, BOX, [3, 8])[0]
    dense = BOX.dense()
    records = [dict(segmentation=m, predicted_iou=0.9, stability_score=0.9) for m in dense]
    texts = [dict(segmentation=dict(r, counts=r["counts"].decode())) for r in BOX.rles]
    for masks in (dense, dense.astype(np.uint8), dense * np.uint8(255), list(dense), records,
                  texts, list(BOX.rles), 1.0 * dense):  # fmt: skip
        assert np.array_equal(sams(CAMS, masks, [3, 8])[0], expected)


@pytest.mark.parametrize("cams, masks, word", [
    (CAMS[:, :9, :9], BOX, "resize"),
    (CAMS[0], BOX, r"shape \(K, H, W\)"),
    (CAMS[None], BOX, r"shape \(K, H, W\)"),
    (CAMS, BOX.dense()[:, :9], "resize"),
    (CAMS, 0.3 * BOX.dense(), "threshold"),
    (CAMS, BOX.dense()[None], "shape"),
    (CAMS, [dict(mask=1)], "segmentation"),
    (CAMS, None, "shape"),
    (CAMS, "masks.npz", "shape"),
])  # fmt: skip
def test_wrong_shapes_and_kinds(sams, cams, masks, word):
    with pytest.raises(ValueError, match=word) as error:
        sams(cams, masks, [3, 8])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how, word", [
    (dict(norm_first="both"), "norm_first"),
    (dict(priority=("levl",)), "levl"),
    (dict(power=-1), "power"),
    (dict(power=float("nan")), "power"),
])  # fmt: skip
def test_wrong_settings(sams, how, word):
    with pytest.raises(ValueError, match=word):
        sams(CAMS, BOX, [3, 8], **how)


def test_labels_are_as_small_as_they_can_be():
    assert label_numbers([]).dtype == np.uint8 and label_numbers([253]).max() == 254
    assert label_numbers(torch.tensor([300])).tolist() == [0, 301]


def test_importing_is_light():
    "Masks and sams without torch, torchvision, skimage, segment_anything, pandas."
    code = """if True:
        import sys
        from fmwsss.method.masks import Masks
        from fmwsss.method.sams import sams
        import numpy as np
        masks = Masks.of(np.ones((1, 4, 4), bool))
        seed = sams(np.ones((1, 4, 4)), masks, [2])[0]
        print(seed.max(), *{name.split('.')[0] for name in sys.modules})"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words = said.stdout.split()
    assert words[0] == "3"
    assert not {"torch", "torchvision", "skimage", "segment_anything", "pandas", "cv2"} & set(words)
