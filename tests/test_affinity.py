"""Class-aware attention affinity: contracts, faults, and the decisions that differ from the published code."""
import pytest
import torch
from fmwsss.affinity import affinity_mask, affinity_matrix, box_mask, boxes, min_max, propagate, refine, sinkhorn, uniform_attention


@pytest.fixture
def attention(): return torch.rand(42, 42, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.fixture
def cams(): return torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(1))


def test_sinkhorn_is_symmetric_and_converges_to_doubly_stochastic(attention):
    a = sinkhorn(attention, 50)
    assert torch.equal(a, a.mT) and torch.allclose(a.sum(0), torch.ones(42), atol=1e-5)


def test_batch_equals_one_by_one(attention, cams):
    both = torch.stack([attention, attention.flip(0)])
    together = refine(cams, both, index=torch.tensor([0, 1, 1]))
    alone = torch.cat([refine(cams[:1], both[0]), refine(cams[1:], both[1])])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize('inside', ['inside', 'outside', 'all'])
@pytest.mark.parametrize('outside', ['inside', 'outside', 'all'])
def test_propagate_never_needs_the_mask(attention, cams, inside, outside):
    box = box_mask(min_max(cams))
    direct = ((attention * affinity_mask(box, inside, outside)) @ cams.flatten(1)[..., None])[..., 0]
    assert torch.allclose(propagate(attention, box, cams, inside, outside).flatten(1), direct, atol=1e-6)


def test_last_row_and_column_are_inside_a_box_unless_published():
    score = torch.zeros(5, 6)
    score[4, 5] = 1
    assert boxes(score).tolist() == [[5, 4, 6, 5]] and box_mask(score).nonzero().tolist() == [[4, 5]]
    assert not box_mask(score, published=True).any()


def test_regions_touch_at_corners_and_stay_apart_otherwise():
    score = torch.zeros(6, 6)
    score[0, 0] = score[1, 1] = score[4, 4] = 1
    assert sorted(boxes(score).tolist()) == [[0, 0, 2, 2], [4, 4, 5, 5]]


def test_a_map_without_box_comes_back_unrefined_unless_published(attention):
    nothing = -torch.ones(1, 6, 7)
    assert torch.equal(refine(nothing, attention, at='cam'), nothing)
    assert not refine(nothing, attention, at='cam', published=True).any()
    assert not refine(nothing, attention).any()


def test_power_0_and_no_cam(attention, cams):
    assert torch.equal(refine(cams, attention, power=0, at='cam'), cams)
    assert refine(cams[:0], attention).shape == (0, 6, 7)


def test_the_control_fills_the_boxes(cams):
    box, score = box_mask(min_max(cams)), min_max(cams)
    out = refine(cams, uniform_attention(42), outside='none')
    assert not out[~box].any() and all(o[b].std() < 1e-6 for o, b in zip(out, box))


def test_uniform_attention_is_the_mean_of_the_boxes(cams):
    box, score = box_mask(min_max(cams)), min_max(cams)
    out = refine(cams, uniform_attention(42))
    assert torch.allclose(out, ((score * box).sum((1, 2)) / 42)[:, None, None].expand(3, 6, 7), atol=1e-6)


def test_min_max_is_exact_for_tiny_cams():
    x = min_max(1e-9 * torch.rand(2, 3, 3))
    assert x.amax((1, 2)).tolist() == [1, 1] and x.amin((1, 2)).tolist() == [0, 0]
    assert min_max(1e-9 * torch.rand(2, 3, 3), 1e-7).max() < 0.02


@pytest.mark.parametrize('call, word', [
    (lambda c, a: refine(c, a[:41, :41]), 'class token'), (lambda c, a: affinity_matrix(a[:40]), 'square'),
    (lambda c, a: refine(c, a, at='logit'), 'score'), (lambda c, a: refine(c, torch.stack([a, a])), 'index'),
    (lambda c, a: propagate(a, c > 0, c, 'box'), 'inside')])
def test_faults(call, word, cams, attention):
    with pytest.raises(ValueError, match=word): call(cams, attention)
