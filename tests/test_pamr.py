"""Pixel-adaptive mask refinement against its definition, pixel by pixel."""

import numpy as np
import pytest
import torch

from fmwsss.refiners.pamr import neighbours, pamr, pixel_affinity


def by_definition(image, maps, iterations, dilations, width=0.1):
    "Loops over pixels and neighbours; indices beyond the edge are clipped."
    h, w, _ = image.shape
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    offsets = [(dy * d, dx * d) for d in dilations for dy, dx in around]
    at = lambda y, x: (min(max(y, 0), h - 1), min(max(x, 0), w - 1))
    for _ in range(iterations):
        out = np.zeros_like(maps)
        for y in range(h):
            for x in range(w):
                places = [at(y + dy, x + dx) for dy, dx in offsets]
                near = np.array([image[p] for p in places], float)
                own = np.repeat(image[y, x][None].astype(float), len(dilations), 0)
                spread = np.concatenate([near, own]).std(0, ddof=1)
                k = -(np.abs(near - image[y, x]) / (width * spread + 1e-8)).mean(1)
                alpha = np.exp(k - k.max())
                alpha /= alpha.sum()
                out[:, y, x] = sum(a * maps[(slice(None), *p)] for a, p in zip(alpha, places))
        maps = out
    return maps


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4)])
def test_equals_the_definition(dilations):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    maps = rng.random((2, 7, 9))
    found = pamr(image, maps, 3, dilations).numpy()
    assert np.allclose(found, by_definition(image, maps, 3, dilations), atol=1e-5)


def test_probabilities_stay_probabilities():
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    probs = torch.rand(3, 20, 30).softmax(0)
    out = pamr(image, probs)
    assert torch.allclose(out.sum(0), torch.ones(20, 30), atol=1e-4) and out.min() >= 0
    assert torch.equal(pamr(image, probs, 0), probs)


def test_scores_stop_at_edges_and_flow_without_them():
    image = np.zeros((24, 40, 3), np.uint8)
    image[:, 20:] = 200
    maps = np.zeros((1, 24, 40), np.float32)
    maps[0, :, 8:20] = 1
    edge = pamr(image, maps, 5, (1, 2))
    flat = pamr(np.zeros_like(image), maps, 5, (1, 2))
    assert edge[0, :, 20:].max() < 0.02 and edge[0, 12, 19] > 0.7
    assert flat[0, 12, 21] > 0.2
    assert torch.isfinite(flat).all()  # no colour differs: all neighbours weigh the same


def test_other_sizes_are_refused_and_weights_have_no_units():
    with pytest.raises(ValueError, match="resize"):
        pamr(np.zeros((8, 8, 3), np.uint8), np.zeros((1, 4, 4)))
    image = torch.rand(3, 12, 12)
    assert torch.allclose(pixel_affinity(image), pixel_affinity(image * 40 + 3), atol=1e-4)
    assert len(list(neighbours(image, (1, 3)))) == 16
