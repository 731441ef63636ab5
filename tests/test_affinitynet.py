"""AffinityNet: pairs, loss, walk, and the small training."""

import numpy as np
import pytest
import torch

from fmwsss.models.clip import load_clip
from fmwsss.refiners.affinity_training import (
    AffinityHead,
    FrozenFeatures,
    TimmFeatures,
    clip_features,
    pair_accuracy,
    train_affinity,
    window_affinity,
)
from fmwsss.refiners.affinity_walk import (
    affinity_walk,
    affinity_walks,
    dense_affinity,
    random_walk,
    sparse_transition,
    transition,
)
from fmwsss.refiners.affinitynet import (
    affinity_loss,
    affinity_targets,
    pair_affinity,
    pair_indices,
    pair_labels,
    shrink_labels,
)


def test_pairs_are_near_and_counted_once():
    start, ends = pair_indices((12, 14), 5)
    y, x = ends // 14 - start // 14, ends % 14 - start % 14
    assert ((y**2 + x**2) < 25).all() and ends.shape[0] == 34
    assert (
        len({tuple(p) for p in torch.stack([start.expand_as(ends), ends], -1).view(-1, 2).tolist()})
        == ends.numel()
    )
    with pytest.raises(ValueError, match="too small"):
        pair_indices((4, 20), 5)


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
        assert (
            out.shape == scores.shape and out[0, :, :8].sum() > 0.5 and out[0, :, 8:].max() < 1e-6
        )
    assert (
        affinity_walk(features, scores)[0, 0, 0] > 0
        and affinity_walk(features, scores, pad=False)[0, 0, 0] == 0
    )


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
    features = (
        torch.randn(4, 6, 12, 14, generator=torch.Generator().manual_seed(0)) * 0.3
        + labels[:, None] * torch.tensor([1.0, 0, 0, -1, 0, 0])[:, None, None]
    )
    (head, losses), (again, _) = (
        train_affinity(features, labels, 60),
        train_affinity(features, labels, 60),
    )
    assert losses[-1] < 0.5 * losses[0] and all(
        torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters())
    )
    with pytest.raises(ValueError, match="shrink_labels"):
        train_affinity(features, labels[:, :6])


def test_windows_are_the_pairs():
    features = torch.randn(2, 5, 12, 14, requires_grad=True)
    for radius in (2, 3, 5):
        slow, fast = (
            pair_affinity(features, pair_indices((12, 14), radius)),
            window_affinity(features, radius),
        )
        assert torch.allclose(slow, fast, atol=1e-6)
        a, b = (
            torch.autograd.grad(x.log().sum(), features, retain_graph=True)[0] for x in (slow, fast)
        )
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("pad", (True, False))
def test_sparse_steps_are_the_dense_walk(pad):
    features, scores = torch.randn(4, 11, 13) * 0.3, torch.rand(3, 11, 13)
    pairs = pair_indices((11, 13))
    a = pair_affinity(features, pairs)
    dense = dense_affinity(a, pairs, 143)
    assert np.allclose(
        sparse_transition(a, pairs, 143, 4).toarray(), transition(dense, 4).T, atol=1e-6
    )
    if not pad:
        assert torch.allclose(
            affinity_walk(features, scores, log_steps=5, pad=False),
            random_walk(scores, dense, log_steps=5),
            atol=1e-4,
        )
    for t, found in zip((0, 2, 5), affinity_walks(features, scores, log_steps=(0, 2, 5), pad=pad)):
        assert torch.allclose(
            found, affinity_walk(features, scores, log_steps=t, pad=pad), atol=1e-5
        )


def halves(n=6, seed=0):
    """Images of two classes side by side, cut at different places, with noisy features that tell
    them apart."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.zeros(n, 12, 14, dtype=torch.long)
    for i in range(n):
        labels[i, :, 5 + i % 4 :] = 1 + i % 3
    return torch.randn(n, 6, 12, 14, generator=rng) * 0.3 + (labels > 0)[:, None] * torch.tensor(
        [1.0, 0, 0, -1, 0, 0]
    )[:, None, None], labels


def test_pair_accuracy_is_half_without_looking_and_high_after_training():
    features, labels = halves()
    net, losses = train_affinity(*halves(8, 1), 150)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert pair_accuracy(net, features, labels)["balanced"] > 0.85
    for constant in (0.0, 1.0):  # all the same; all different
        blind = lambda x, constant=constant: (
            constant * 5 * torch.arange(168.0).view(1, 1, 12, 14).expand(len(x), 1, 12, 14)
        )
        assert pair_accuracy(blind, features, labels)["balanced"] == 0.5
    assert pair_accuracy(net, features, labels, batch=1) == pytest.approx(
        pair_accuracy(net, features, labels, batch=6)
    )
    by_hand = [
        torch.stack(pair_labels(labels, pair_indices((12, 14)))),
        pair_affinity(net(features), pair_indices((12, 14))) > 0.5,
    ]
    right = [
        (by_hand[1] if k < 2 else ~by_hand[1])[by_hand[0][k]].float().mean().item()
        for k in range(3)
    ]
    found = pair_accuracy(net, features, labels)
    assert [found[k] for k in ("background", "foreground", "different")] == pytest.approx(
        right, abs=1e-6
    )


def test_features_may_come_from_a_function_and_the_network_from_outside():
    features, labels = halves()
    (_, losses), (_, again) = (
        train_affinity(features, labels, 5),
        train_affinity(lambda i: features[i], labels, 5),
    )
    assert losses == again
    own = AffinityHead(6, 8)
    net, _ = train_affinity(features, labels, 3, net=own)
    assert (
        net is own
        and net(features[:1]).shape == (1, 8, 12, 14)
        and not any(p.requires_grad for p in net.parameters())
    )


def test_frozen_clip_features():
    clip, images = load_clip(), torch.randn(2, 3, 64, 96)
    x = clip_features(clip, images, stride=8, blocks=(0, 3))
    assert x.shape == (2, 2 * clip.visual.conv1.out_channels + 3, 8, 12) and clip_features(
        clip, images, 4, (2,)
    ).shape[-3:] == (195, 16, 24)
    assert x[:, :192].mean(1).abs().max() < 1e-4  # every level has mean 0 over its channels
    kept = FrozenFeatures(clip, images.split(1), 8, (0, 3))
    assert len(kept) == 2 and torch.allclose(kept(torch.tensor([1, 0])), x.flip(0), atol=2e-2)
    assert torch.allclose(
        x[:, -3:], 3 * images.unflatten(3, (12, 8)).unflatten(2, (8, 8)).mean((3, 5)), atol=1e-4
    )


def test_any_timm_network_can_be_the_backbone():
    images, labels = torch.randn(2, 3, 96, 112), halves(2)[1]
    frozen = TimmFeatures("resnet18", pretrained=False)
    assert (
        frozen(images).shape == (2, frozen.channels, 12, 14)
        and not frozen.net.training
        and not frozen.train().net.training
    )
    net = torch.nn.Sequential(
        TimmFeatures("resnet18", pretrained=False, frozen=False), AffinityHead(frozen.channels, 8)
    )
    before = net[0].net.conv1.weight.clone()
    train_affinity(images, labels, steps=2, net=net, batch=2)
    assert not torch.equal(before, net[0].net.conv1.weight)
