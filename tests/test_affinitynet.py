"""AffinityNet: pairs, loss, walk, and the small training."""
import numpy as np
import pytest
import torch
from fmwsss.affinitynet import (affinity_loss, affinity_targets, affinity_walk, dense_affinity, pair_affinity, pair_indices, pair_labels, random_walk,
                                shrink_labels, train_affinity, transition)


def test_pairs_are_near_and_counted_once():
    start, ends = pair_indices((12, 14), 5)
    y, x = ends // 14 - start // 14, ends % 14 - start % 14
    assert ((y**2 + x**2) < 25).all() and ends.shape[0] == 34
    assert len({tuple(p) for p in torch.stack([start.expand_as(ends), ends], -1).view(-1, 2).tolist()}) == ends.numel()
    with pytest.raises(ValueError, match='too small'): pair_indices((4, 20), 5)


def test_walk_keeps_the_mass_of_every_map():
    features, scores = torch.randn(4, 10, 12), torch.rand(3, 10, 12)
    pairs = pair_indices((10, 12))
    a = dense_affinity(pair_affinity(features, pairs), pairs, 120)
    assert torch.equal(a, a.T) and (a.diagonal() == 1).all()
    assert torch.allclose(transition(a).sum(0), torch.ones(120), atol=1e-5)
    walked = random_walk(scores, a, log_steps=3)
    assert walked.min() >= scores.min() - 1e-5 and walked.max() <= scores.max() + 1e-5
    assert torch.allclose(random_walk(torch.ones(1, 10, 12), a), torch.ones(1, 10, 12), atol=1e-3)


def test_scores_stop_where_features_change():
    features = torch.zeros(2, 12, 16)
    features[:, :, 8:] = 9
    scores = torch.zeros(1, 12, 16)
    scores[0, 6, 6] = 1
    for pad in (True, False):
        out = affinity_walk(features, scores, pad=pad)
        assert out.shape == scores.shape and out[0, :, :8].sum() > 0.5 and out[0, :, 8:].max() < 1e-6
    assert affinity_walk(features, scores)[0, 0, 0] > 0 and affinity_walk(features, scores, pad=False)[0, 0, 0] == 0


def test_ignored_pixels_have_no_pairs_and_cost_nothing():
    pairs = pair_indices((12, 14))
    a = pair_affinity(torch.randn(3, 12, 14), pairs)
    nothing = pair_labels(torch.full((12, 14), 255), pairs)
    assert not any(m.any() for m in nothing) and affinity_loss(a, nothing) == 0


def test_targets_are_sure_or_ignored():
    scores = np.zeros((1, 24, 24), np.float32)
    scores[0, 8:16, 8:16] = 1
    scores[0, 8:16, 4:8] = 0.3
    image = np.zeros((24, 24, 3), np.uint8)
    image[8:16, 8:16] = 200
    label = affinity_targets(image, scores, [6])
    assert set(np.unique(label)) <= {0, 7, 255} and label[12, 12] == 7 and label[1, 20] == 0
    assert np.array_equal(shrink_labels(np.arange(16).reshape(4, 4), (2, 2)), [[5, 7], [13, 15]])


def test_training_learns_and_repeats():
    labels = torch.zeros(4, 12, 14, dtype=torch.long)
    labels[:, :, 7:] = 3
    features = torch.randn(4, 6, 12, 14, generator=torch.Generator().manual_seed(0)) * 0.3 + labels[:, None] * torch.tensor([1., 0, 0, -1, 0, 0])[:, None, None]
    (head, losses), (again, _) = train_affinity(features, labels, 60), train_affinity(features, labels, 60)
    assert losses[-1] < 0.5 * losses[0] and all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters()))
    with pytest.raises(ValueError, match='shrink_labels'): train_affinity(features, labels[:, :6])
