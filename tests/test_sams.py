"""Seeds from CAMs, SAM-based seeding, and what happens where masks tie."""
import numpy as np
import pytest
from fmwsss.sams import add_background, cam_scores, mask_scores, oracle_seed, painting_order, sams, seed_from_cams
from fmwsss.superpixels import Masks, label_masks


def squares(*boxes, level=None, size=(20, 20)):
    "Masks of boxes (y0, y1, x0, x1)."
    dense = np.zeros((len(boxes), *size), bool)
    for m, (y0, y1, x0, x1) in zip(dense, boxes): m[y0:y1, x0:x1] = True
    return Masks.from_dense(dense, level)


def cam_on(*boxes, size=(20, 20)):
    "One CAM a box: 1 inside, -1 outside."
    out = -np.ones((len(boxes), *size), np.float32)
    for c, (y0, y1, x0, x1) in zip(out, boxes): c[y0:y1, x0:x1] = 1
    return out


def slow_sams(cams, dense, level, classes, power):
    "The formula, mask by mask; ties as `painting_order` says."
    means = np.array([[np.maximum(c, 0)[m].mean() for m in dense] for c in cams])
    low, high = means.min(1, keepdims=True), means.max(1, keepdims=True)
    score = (means - low) / (high - low)
    score = np.concatenate([(1 - score.max(0, keepdims=True))**power, score])
    seed = np.zeros(dense.shape[1:], np.uint8)
    for i in sorted(range(len(dense)), key=lambda i: (level[i], np.float32(score[:, i].max()), score[:, i].argmax() > 0, -dense[i].sum())):
        seed[dense[i]] = ([-1, *classes][score[:, i].argmax()]) + 1
    return seed


@pytest.mark.parametrize('seed', range(5))
def test_sams_equals_the_formula(seed):
    rng = np.random.default_rng(seed)
    dense = np.kron(rng.random((12, 5, 6)) < 0.4, np.ones((7, 8))).astype(bool)
    dense[0] = True
    level, cams = rng.integers(0, 3, 12), np.kron(rng.normal(size=(3, 10, 12)), np.ones((4, 4)))[:, :35, :48].astype(np.float32)
    ours, found = sams(cams, Masks.from_dense(dense, level), [2, 5, 19], 0.6)
    assert np.array_equal(ours, slow_sams(cams, dense, level, [2, 5, 19], 0.6))
    assert found.scores.shape == (12, 4) and sorted(found.order) == list(range(12))
    assert np.array_equal(found.confidence, found.scores.max(1))


def test_seed_from_cams_by_hand():
    cams = np.array([[[0., 1.], [-3., 0.5]]])
    assert seed_from_cams(cams, [4], power=1).tolist() == [[0, 5], [0, 0]]
    assert seed_from_cams(cams, [4], power=2).tolist() == [[0, 5], [0, 5]]
    assert seed_from_cams(cams, [4], threshold=0.4).tolist() == [[0, 5], [0, 5]]
    assert seed_from_cams(cams, [4], size=(8, 6)).shape == (8, 6)


def test_no_class_is_all_background():
    assert not seed_from_cams(np.zeros((0, 4, 4)), [], size=(8, 8)).any() and not seed_from_cams(np.zeros((0, 4, 4)), []).any()
    seed, found = sams(np.zeros((0, 20, 20), np.float32), squares((0, 5, 0, 5)), [])
    assert not seed.any() and found.labels.tolist() == [0]


def test_no_mask_is_all_background():
    seed, found = sams(cam_on((0, 5, 0, 5)), squares(), [3])
    assert not seed.any() and found.order.tolist() == []


def test_a_lone_mask_keeps_its_class_unless_published():
    cam, lone = cam_on((0, 5, 0, 5)), squares((0, 6, 0, 6))
    assert sams(cam, lone, [3])[0].max() == 4
    assert sams(cam, lone, [3], published=True)[0].max() == 0


def test_empty_background_never_covers_an_object_unless_published():
    "Two masks of one level: background has confidence 1 exactly, the object 1 - 1e-7 / range in the published code."
    cam, two = 0.5 * cam_on((0, 5, 0, 5)), squares((0, 5, 0, 5), (4, 20, 0, 20))
    cam[:, 4] = -1
    assert sams(cam, two, [3])[0][4, :5].tolist() == [4] * 5
    assert sams(cam, two, [3], published=True)[0][4, :5].tolist() == [0] * 5


def test_tiny_cams_keep_their_order_unless_published():
    cam = 1e-9 * cam_on((0, 5, 0, 5))
    two = squares((0, 5, 0, 5), (10, 20, 0, 20))
    assert sams(cam, two, [3])[0][0, 0] == 4 and sams(cam, two, [3], published=True)[0][0, 0] == 0


def test_all_negative_is_background():
    assert not sams(-np.ones((2, 20, 20), np.float32), squares((0, 5, 0, 5), (0, 9, 0, 9)), [1, 2])[0].any()


def test_higher_levels_and_then_confidence_win():
    cams = cam_on((0, 10, 0, 10), (5, 15, 5, 15))
    a, b = (0, 10, 0, 10), (5, 15, 5, 15)
    assert sams(cams, squares(a, b, (15, 20, 15, 20), level=[2, 1, 2]), [0, 1])[0][7, 7] == 1
    assert sams(cams, squares(a, b, (15, 20, 15, 20), level=[1, 2, 2]), [0, 1])[0][7, 7] == 2


def test_priorities():
    order = lambda *p, **k: painting_order([1, 1, 0], [0.9, 0.5, 0.9], [0, 1, 1], [4, 9, 2], p, **k).tolist()
    assert order('level', 'confidence') == [0, 1, 2] and order('-level', 'confidence') == [1, 2, 0]
    assert order('area') == [2, 0, 1] and order('-area') == [1, 0, 2]
    assert order('confidence') == [1, 2, 0] and order('confidence', published=True) == [1, 0, 2]
    with pytest.raises(ValueError, match='size'): order('size')


def test_oracle_is_perfect_with_perfect_masks():
    truth = np.zeros((20, 20), np.uint8)
    truth[2:9, 3:9], truth[12:18, 5:15] = 3, 20
    assert np.array_equal(oracle_seed(label_masks(truth), truth), truth)


def test_background_never_nan():
    assert np.isfinite(add_background(np.array([[1 + 1e-6]]), 0.5)).all()
    assert add_background(np.zeros((0, 2, 2)))[0].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize('call, word', [
    (lambda: sams(np.zeros((2, 20, 20)), squares((0, 5, 0, 5)), [1]), '2 CAMs for 1'),
    (lambda: sams(np.zeros((1, 9, 9)), squares((0, 5, 0, 5)), [1]), 'resize'),
    (lambda: mask_scores(np.zeros((1, 20, 20)), squares((0, 5, 0, 5)), 'both'), 'norm_first')])
def test_faults(call, word):
    with pytest.raises(ValueError, match=word): call()
