"""mIoU and the pixels nobody should count."""
import numpy as np
import pytest
from fmwsss.evaluation import Confusion, confusion, evaluate, scores


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
