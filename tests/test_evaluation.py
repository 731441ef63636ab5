"""mIoU and the pixels nobody should count; outlines; what is no label map."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmwsss.method.evaluation import Confusion, activation_errors, confusion, evaluate, scores
from fmwsss.study.boundary import (
    boundary_band,
    boundary_counts,
    boundary_miou,
    boundary_scores,
)


def test_by_hand():
    s = scores(confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 255]), n=3))
    assert s["iou"][:2].tolist() == [0.5, 0.5] and np.isnan(s["iou"][2])
    assert s["precision"][:2].tolist() == [0.5, 1] and s["recall"][:2].tolist() == [1, 0.5]
    assert s["miou"] == 0.5 and s["accuracy"] == pytest.approx(2 / 3)
    assert s["valid"].tolist() == [True, True, False]


def test_rows_are_truth():
    assert confusion(np.array([2]), np.array([1]), n=3)[1, 2] == 1


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(0, 2**32),
    st.sampled_from([np.uint8, np.int16, np.int64, np.uint16]),
)
def test_confusion_counts_pixels(n, seed, dtype):
    rng = np.random.default_rng(seed)
    pred, truth = rng.integers(0, n, (2, 5, 6)).astype(dtype)
    pred[0, :3], truth[1:3] = 255, 255
    conf = confusion(pred, truth, n, void=True)
    for t in range(n):
        for p in range(n + 1):
            assert conf[t, p] == ((truth == t) & (pred == (p if p < n else 255))).sum()
    union = [((truth == c) | (pred == c)) & (truth != 255) for c in range(n)]
    hits = [(truth == c) & (pred == c) for c in range(n)]
    found = scores(conf)["iou"]
    for c in range(n):
        assert (
            np.isnan(found[c]) if not union[c].any() else found[c] == hits[c].sum() / union[c].sum()
        )


def test_an_undecided_prediction_is_wrong_never_skipped():
    truth, pred = np.zeros(10, np.uint8), np.r_[np.zeros(5), np.full(5, 255)].astype(np.uint8)
    with pytest.raises(ValueError, match="void=True"):
        confusion(pred, truth)
    s = evaluate([(pred, truth)]).scores()
    assert s["iou"][0] == 0.5 and s["recall"][0] == 0.5
    assert s["precision"][0] == 1 and s["accuracy"] == 0.5
    assert evaluate([(np.full(3, 255), np.full(3, 255))]).matrix.sum() == 0


def test_a_class_predicted_but_absent():
    conf = confusion(np.array([0, 1]), np.array([0, 0]), n=2)
    assert [scores(conf, over)["miou"] for over in ("truth", "seen", "all")] == [0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="over"):
        scores(conf, "some")


def test_images_add_up():
    rng = np.random.default_rng(0)
    p, t = rng.integers(0, 3, (2, 4, 5, 6))
    total = evaluate(zip(p, t), n=3)
    both = Confusion(3).add(p[:2], t[:2]) + Confusion(3).add(p[2:], t[2:])
    assert np.array_equal(total.matrix, both.matrix) and both.images == 2
    assert total.matrix.sum() == p.size and total.matrix.min() >= 0
    assert total.images == 4 and list(total.table().columns) == ["iou", "precision", "recall"]
    assert total.table(["background", "cat", "dog"]).index.tolist() == ["background", "cat", "dog"]


def test_nothing_is_nan():
    assert np.isnan(Confusion().miou)


@pytest.mark.parametrize("pred, truth, word", [
    ([0, 0], [0], "size"),
    ([21], [0], "21"),
    ([0], [30], "30"),
    ([-1], [0], "-1"),
    ([0], [-1], "-1"),
    ([0.0], [0], "float64"),
    ([0.7], [0], "argmax"),
    ([True], [0], "bool"),
    (["cat"], [0], "labels"),
    ([None], [0], "object"),
    ([0], [0.0], "truth"),
])  # fmt: skip
def test_what_is_no_label_map(pred, truth, word):
    pred, truth = np.array(pred), np.array(truth)
    for call in (lambda: confusion(pred, truth), lambda: Confusion().add(pred, truth)):
        with pytest.raises(ValueError, match=word) as error:
            call()
        assert "\n" not in str(error.value)


def test_labels_that_wrapped_are_not_counted():
    wrapped = np.array([200, 3], np.uint8).astype(np.int8)  # 200 became -56
    with pytest.raises(ValueError, match="-56"):
        confusion(wrapped, np.array([3, 3]), 256, ignore=-1)
    with pytest.raises(ValueError, match="truth has label -56"):
        confusion(np.array([3, 3]), wrapped, 21)
    top = np.array([254, 20], np.uint8)  # products of small types never wrap
    assert confusion(top, top, 255)[254, 254] == 1


def test_the_number_that_means_ignored_is_no_class():
    labels = np.array([[255, 300]], np.uint16)
    with pytest.raises(ValueError, match="label 255"):
        confusion(labels, labels, n=301)
    assert confusion(labels, labels, 301, ignore=65535)[255, 255] == 1
    assert confusion(labels, labels, 301, ignore=-1).trace() == 2


def test_tensors_and_other_arrays():
    truth = torch.tensor([[0, 1], [1, 255]])
    for pred in (truth, truth.to(torch.uint8), truth.tolist(), truth.numpy()):
        assert confusion(pred, truth, 2, void=True).tolist() == [[1, 0, 0], [0, 2, 0]]
    with pytest.raises(ValueError, match="float32"):
        confusion(truth.float().requires_grad_(), truth)


# Outlines


def plain_boundary(mask, ratio=0.02):
    "Cheng et al.: the mask without what d erosions by one pixel leave; outside is background."
    d = max(1, int(round(ratio * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask & (cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1] == 0)


def blobs(rng, shape, n):
    "A random label map of smooth regions of labels 0..n-1, some touching the image's edge."
    smooth = [cv2.GaussianBlur(rng.random(shape), (0, 0), 5) for _ in range(n)]
    return np.stack(smooth).argmax(0).astype(np.uint8)


def test_boundary_bands_of_all_classes_at_once_are_those_of_each_class():
    rng = np.random.default_rng(0)
    for shape in ((60, 90), (31, 17), (128, 128)):
        label = blobs(rng, shape, 5)
        for c in np.unique(label):
            assert np.array_equal(boundary_band(label) & (label == c), plain_boundary(label == c))


def test_boundary_iou_is_the_plain_one():
    rng = np.random.default_rng(1)
    pairs = [(blobs(rng, (60, 90), 4), blobs(rng, (60, 90), 4)) for _ in range(3)]
    found = boundary_scores(sum(boundary_counts(p, t, 6) for p, t in pairs))
    for c in range(4):
        bands = [(plain_boundary(p == c), plain_boundary(t == c)) for p, t in pairs]
        both, either = sum((a & b).sum() for a, b in bands), sum((a | b).sum() for a, b in bands)
        assert found["iou"][c] == both / either
    assert np.isnan(found["iou"][4:]).all()
    assert found["miou"] == pytest.approx(found["iou"][:4].mean())
    with pytest.raises(ValueError, match="classes"):
        boundary_counts(pairs[0][0], pairs[0][1], 3)
    with pytest.raises(ValueError, match="differ"):
        boundary_counts(pairs[0][0], pairs[0][1][:5])


def test_boundary_iou_of_a_data_set():
    rng = np.random.default_rng(3)
    masks = [blobs(rng, (40, 50), 3), None, blobs(rng, (30, 30), 3)]

    class Few:
        classes = ["cat", "dog"]
        __len__ = lambda self: 3
        mask = lambda self, i: masks[i]

    labels = [np.roll(m, 2, 1) if m is not None else np.zeros((4, 4), int) for m in masks]
    counts = boundary_counts(labels[0], masks[0], 3) + boundary_counts(labels[2], masks[2], 3)
    assert boundary_miou(Few(), lambda i: labels[i]) == boundary_scores(counts)["miou"]
    assert np.isnan(boundary_miou(Few(), lambda i: None))


def test_boundary_iou_and_ignored_pixels():
    truth = np.zeros((50, 60), np.uint8)
    truth[10:40, 10:40] = 3
    assert boundary_scores(boundary_counts(truth, truth))["miou"] == 1
    ring, kernel = truth.copy(), np.ones((7, 7))  # nobody knows near the outline
    ring[cv2.dilate(truth, kernel) != cv2.erode(truth, kernel)] = 255
    wobbly = np.roll(truth, 2, 1)
    assert boundary_scores(boundary_counts(wobbly, ring))["miou"] == 1
    assert boundary_scores(boundary_counts(wobbly, truth))["miou"] < 0.6
    undecided = np.where(boundary_band(truth), 255, truth)  # answering only the easy pixels
    assert boundary_scores(boundary_counts(undecided, truth))["iou"][3] == 0
    minus = np.where(ring == 255, -1, ring.astype(int))
    counts = boundary_counts(wobbly, ring)
    assert np.array_equal(boundary_counts(wobbly, minus, ignore=-1), counts)


@pytest.mark.parametrize("label, word", [
    (np.zeros((4, 4)), "float64"),
    (np.full((4, 4), -1), "-1"),
    (np.zeros(4, int), "shape"),
    (np.full((4, 4), 65535), "65535"),
])  # fmt: skip
def test_outlines_of_what_is_no_label_map(label, word):
    with pytest.raises(ValueError, match=word):
        boundary_band(label)


def test_over_and_under_activation_fill_the_union():
    rng = np.random.default_rng(2)
    conf = rng.integers(1, 50, (4, 5))  # last column: undecided
    found = activation_errors(conf)
    assert np.allclose(scores(conf)["iou"] + found["over"] + found["under"], 1)
    pred, truth = np.array([1, 1, 1, 0, 0]), np.array([0, 1, 1, 1, 0])
    hand = activation_errors(confusion(pred, truth, 3), relative_to="hits")
    assert (hand["over"][1], hand["under"][1]) == (0.5, 0.5) and hand["mean_over"] == 0.5
    assert np.isnan(hand["over"][2])
    assert activation_errors(np.array([[5, 3], [0, 2]]))["mean_over"] == 3 / 5  # no background
    assert activation_errors(np.array([[5, 0], [1, 0]]))["mean_under"] == 1  # of a single pixel
    with pytest.raises(ValueError, match="union"):
        activation_errors(conf, "iou")


def test_background_alone_is_one_class():
    nothing = np.zeros((2, 3), int)
    assert confusion(nothing, nothing, 1).tolist() == [[6]]
