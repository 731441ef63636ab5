"""mIoU and the pixels nobody should count."""
import numpy as np
import pytest
import cv2
from fmwsss.evaluation import Confusion, activation_errors, boundary_band, boundary_counts, boundary_scores, confusion, evaluate, scores


def test_by_hand():
    s = scores(confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 255]), n=3))
    assert s['iou'][:2].tolist() == [0.5, 0.5] and np.isnan(s['iou'][2])
    assert s['precision'][:2].tolist() == [0.5, 1] and s['recall'][:2].tolist() == [1, 0.5]
    assert s['miou'] == 0.5 and s['accuracy'] == pytest.approx(2 / 3)


def test_rows_are_truth(): assert confusion(np.array([2]), np.array([1]), n=3)[1, 2] == 1


def test_an_undecided_prediction_is_wrong_never_skipped():
    truth, pred = np.zeros(10, np.uint8), np.r_[np.zeros(5), np.full(5, 255)].astype(np.uint8)
    with pytest.raises(ValueError, match='void=True'): confusion(pred, truth)
    s = evaluate([(pred, truth)]).scores()
    assert s['iou'][0] == 0.5 and s['recall'][0] == 0.5 and s['precision'][0] == 1 and s['accuracy'] == 0.5
    assert evaluate([(np.full(3, 255), np.full(3, 255))]).matrix.sum() == 0


def test_a_class_predicted_but_absent():
    conf = confusion(np.array([0, 1]), np.array([0, 0]), n=2)
    assert scores(conf)['miou'] == 0.5 and scores(conf, 'seen')['miou'] == 0.25 and scores(conf, 'all')['miou'] == 0.25


def test_images_add_up():
    rng = np.random.default_rng(0)
    p, t = rng.integers(0, 3, (2, 4, 5, 6))
    total = evaluate(zip(p, t), n=3)
    assert np.array_equal(total.matrix, (Confusion(3).add(p[:2], t[:2]) + Confusion(3).add(p[2:], t[2:])).matrix)
    assert total.images == 4 and list(total.table().columns) == ['iou', 'precision', 'recall']


def test_nothing_is_nan(): assert np.isnan(Confusion().miou)


@pytest.mark.parametrize('pred, truth, word', [([0, 0], [0], 'size'), ([21], [0], '21'), ([0], [30], '30'), ([-1], [0], '-1')])
def test_faults(pred, truth, word):
    with pytest.raises(ValueError, match=word): confusion(np.array(pred), np.array(truth))


def plain_boundary(mask, ratio=0.02):
    "Cheng et al.: the mask without what d erosions by one pixel leave, the outside of the image being background."
    d = max(1, int(round(ratio * np.sqrt(mask.shape[0]**2 + mask.shape[1]**2))))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask & (cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=d)[1:-1, 1:-1] == 0)


def blobs(rng, shape, n):
    "A random label map of smooth regions of labels 0..n-1, some of them touching the image's edge."
    return np.stack([cv2.GaussianBlur(rng.random(shape), (0, 0), 5) for _ in range(n)]).argmax(0).astype(np.uint8)


def test_boundary_bands_of_all_classes_at_once_are_those_of_each_class():
    rng = np.random.default_rng(0)
    for shape in ((60, 90), (31, 17), (128, 128)):
        label = blobs(rng, shape, 5)
        for c in np.unique(label): assert np.array_equal(boundary_band(label) & (label == c), plain_boundary(label == c))


def test_boundary_iou_is_the_plain_one():
    rng = np.random.default_rng(1)
    pairs = [(blobs(rng, (60, 90), 4), blobs(rng, (60, 90), 4)) for _ in range(3)]
    found = boundary_scores(sum(boundary_counts(p, t, 6) for p, t in pairs))
    for c in range(4):
        bands = [(plain_boundary(p == c), plain_boundary(t == c)) for p, t in pairs]
        assert found['iou'][c] == sum((a & b).sum() for a, b in bands) / sum((a | b).sum() for a, b in bands)
    assert np.isnan(found['iou'][4:]).all() and found['miou'] == pytest.approx(found['iou'][:4].mean())
    with pytest.raises(ValueError, match='classes'): boundary_counts(pairs[0][0], pairs[0][1], 3)
    with pytest.raises(ValueError, match='differ'): boundary_counts(pairs[0][0], pairs[0][1][:5])


def test_boundary_iou_and_ignored_pixels():
    truth = np.zeros((50, 60), np.uint8)
    truth[10:40, 10:40] = 3
    assert boundary_scores(boundary_counts(truth, truth))['miou'] == 1
    ring = truth.copy()
    ring[cv2.dilate(truth, np.ones((7, 7))) != cv2.erode(truth, np.ones((7, 7)))] = 255         # nobody knows near the outline
    wobbly = np.roll(truth, 2, 1)
    assert boundary_scores(boundary_counts(wobbly, ring))['miou'] == 1
    assert boundary_scores(boundary_counts(wobbly, truth))['miou'] < 0.6
    undecided = np.where(boundary_band(truth), 255, truth)                                     # answering only the easy pixels
    assert boundary_scores(boundary_counts(undecided, truth))['iou'][3] == 0


def test_over_and_under_activation_fill_the_union():
    rng = np.random.default_rng(2)
    conf = rng.integers(1, 50, (4, 5))                                                          # last column: undecided
    found = activation_errors(conf)
    assert np.allclose(scores(conf)['iou'] + found['over'] + found['under'], 1)
    hand = activation_errors(confusion(np.array([1, 1, 1, 0, 0]), np.array([0, 1, 1, 1, 0]), 3), relative_to='hits')
    assert (hand['over'][1], hand['under'][1]) == (0.5, 0.5) and hand['mean_over'] == 0.5 and np.isnan(hand['over'][2])
    assert activation_errors(np.array([[5, 3], [0, 2]]))['mean_over'] == 3 / 5                  # background is not in the mean
    with pytest.raises(ValueError, match='union'): activation_errors(conf, 'iou')
