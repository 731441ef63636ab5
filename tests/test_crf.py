"""Dense CRF through pydensecrf."""

import sys

import numpy as np
import pytest

from fmwsss.refiners.crf import CLIP_ES, DEEPLAB, PSA, dense_crf, scores_to_probs


@pytest.fixture
def edge():
    "A picture of two halves, and probabilities that are only sure of the outer columns."
    image = np.zeros((24, 32, 3), np.uint8)
    image[:, 16:] = 200
    p = np.full((24, 32), 0.5, np.float32)
    p[:, :4], p[:, -4:] = 0.95, 0.05
    return image, np.stack([p, 1 - p])


@pytest.mark.parametrize("setting", [CLIP_ES, DEEPLAB, PSA])
def test_labels_stop_at_the_edge(edge, setting):
    image, probs = edge
    q = dense_crf(image, probs, **setting)
    assert q.shape == probs.shape and q.dtype == np.float32
    assert np.allclose(q.sum(0), 1, atol=1e-4)
    assert np.array_equal(q.argmax(0), np.repeat([[0] * 16 + [1] * 16], 24, 0))


def test_same_twice(edge):
    assert np.array_equal(dense_crf(*edge), dense_crf(*edge))


def test_an_image_that_cannot_be_written_is_only_read(edge):
    image, probs = edge
    expected = dense_crf(image, probs)
    fixed = image.copy()
    fixed.flags.writeable = False  # as np.asarray gives of a PIL image
    assert np.array_equal(dense_crf(fixed, probs), expected)


def test_scores_to_probs():
    p = scores_to_probs(np.array([[[0.0, 1.0]], [[0.0, 3.0]]]))
    assert np.allclose(p.sum(0), 1) and np.allclose(p[:, 0, 0], 0.5)
    assert p[1, 0, 1] == pytest.approx(0.75, abs=1e-4)


def test_faults(edge, monkeypatch):
    image, probs = edge
    with pytest.raises(ValueError, match="same size"):
        dense_crf(image[:20], probs)
    with pytest.raises(ValueError, match="uint8"):
        dense_crf(image / 255, probs)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fmwsss\[crf\]"'):
        dense_crf(image, probs)
