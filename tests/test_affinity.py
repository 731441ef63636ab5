"""Class-aware attention affinity: contracts, faults, what differs from the published code."""

import pytest
import torch

from fmwsss.method.affinity import (
    affinity_mask,
    affinity_matrix,
    affinity_of,
    box_mask,
    boxes,
    min_max,
    near_attention,
    propagate,
    refine,
    sinkhorn,
    uniform_attention,
)


@pytest.fixture
def attention():
    return torch.rand(42, 42, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.fixture
def cams():
    return torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(1))


def test_sinkhorn_is_symmetric_and_converges_to_doubly_stochastic(attention):
    a = sinkhorn(attention, 50)
    assert torch.equal(a, a.mT) and torch.allclose(a.sum(0), torch.ones(42), atol=1e-5)


def test_refine_is_the_formula(attention, cams):
    a = attention / attention.sum(0)
    a = a / a.sum(1, keepdim=True)
    a = (a + a.T) / 2
    a = a @ a @ a
    score = cams.clamp(min=0)
    score = score / score.amax((1, 2), keepdim=True)
    for at, maps in (("score", score), ("cam", cams)):
        found = refine(cams, attention, power=3, threshold=0.5, at=at)
        for out, m, s in zip(found, maps, score):
            giving = torch.zeros(6, 7)
            for x0, y0, x1, y1 in boxes(s, 0.5):
                giving[y0:y1, x0:x1] = 1
            assert torch.allclose(out.flatten(), a @ (giving * m).flatten(), atol=1e-6)


def test_the_defaults_are_the_papers(attention, cams):
    paper = dict(rounds=1, power=2, threshold=0.4, at="score", inside="inside", outside="inside")
    assert torch.equal(refine(cams, attention), refine(cams, attention, None, **paper))
    assert torch.equal(sinkhorn(attention), sinkhorn(attention, 1))
    assert (boxes(min_max(cams)[0]) == boxes(min_max(cams)[0], 0.4)).all()
    assert torch.equal(box_mask(min_max(cams)), box_mask(min_max(cams), 0.4))
    expected = sinkhorn(attention, 1) @ sinkhorn(attention, 1)
    assert torch.allclose(affinity_matrix(attention), expected, atol=1e-7)
    assert torch.equal(affinity_of(cams, attention), affinity_matrix(attention))


def test_index_says_whose_attention_it_is(attention, cams):
    both = torch.stack([attention, attention.flip(0)])
    swapped = refine(cams[:2], both, index=torch.tensor([1, 0]))
    assert torch.allclose(swapped, refine(cams[:2], both.flip(0)), atol=1e-7)
    assert not torch.allclose(swapped, refine(cams[:2], both), atol=1e-4)


def test_one_attention_serves_all_whatever_the_index(attention, cams):
    index = torch.tensor([0, 0, 0])
    assert torch.equal(refine(cams, attention, index), refine(cams, attention))


def test_published_boxes_end_one_short():
    full = torch.ones(5, 8)
    full[2, 3] = 0
    rows = boxes(full, 0.5, published=True).tolist()
    assert [0, 0, 7, 4] in rows and len(rows) == 2  # the hole has a box too
    assert boxes(full, 0.5).tolist() == [[0, 0, 8, 5]]
    assert boxes(0 * full, published=True).tolist() == [[0, 0, 0, 0]] and len(boxes(0 * full)) == 0


def test_a_region_is_strictly_above_the_threshold():
    score = torch.tensor([[0.5, 0.0, 1.0], [0.0, 0.0, 0.75]])
    assert boxes(score, 0.5).tolist() == [[2, 0, 3, 2]]
    assert sorted(boxes(score, 0.4).tolist()) == [[0, 0, 1, 1], [2, 0, 3, 2]]


def test_maps_leave_their_device_once(cams, monkeypatch):
    "A copy for every map would stop a GPU again and again."
    copies, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copies.append(x.shape) or cpu(x))
    box_mask(min_max(cams))
    assert copies == [cams.shape]


def test_batch_equals_one_by_one(attention, cams):
    both = torch.stack([attention, attention.flip(0)])
    together = refine(cams, both, index=torch.tensor([0, 1, 1]))
    alone = torch.cat([refine(cams[:1], both[0]), refine(cams[1:], both[1])])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("inside", ["inside", "outside", "all"])
@pytest.mark.parametrize("outside", ["inside", "outside", "all"])
def test_propagate_never_needs_the_mask(attention, cams, inside, outside):
    box = box_mask(min_max(cams))
    pairs = attention * affinity_mask(box, inside, outside)
    direct = (pairs @ cams.flatten(1)[..., None])[..., 0]
    found = propagate(attention, box, cams, inside, outside).flatten(1)
    assert torch.allclose(found, direct, atol=1e-6)


def test_last_row_and_column_are_inside_a_box_unless_published():
    score = torch.zeros(5, 6)
    score[4, 5] = 1
    assert boxes(score).tolist() == [[5, 4, 6, 5]]
    assert box_mask(score).nonzero().tolist() == [[4, 5]]
    assert not box_mask(score, published=True).any()


def test_regions_touch_at_corners_and_stay_apart_otherwise():
    score = torch.zeros(6, 6)
    score[0, 0] = score[1, 1] = score[4, 4] = 1
    assert sorted(boxes(score).tolist()) == [[0, 0, 2, 2], [4, 4, 5, 5]]


def test_a_map_without_box_comes_back_unrefined_unless_published(attention):
    nothing = -torch.ones(1, 6, 7)
    assert torch.equal(refine(nothing, attention, at="cam"), nothing)
    assert not refine(nothing, attention, at="cam", published=True).any()
    assert not refine(nothing, attention).any()


def test_power_0_and_no_cam(attention, cams):
    assert torch.equal(refine(cams, attention, power=0, at="cam"), cams)
    assert refine(cams[:0], attention).shape == (0, 6, 7)


def test_uniform_attention_gives_everything_away():
    assert torch.allclose(uniform_attention(7).sum(0), torch.ones(7))


def test_the_control_fills_the_boxes(cams):
    box = box_mask(min_max(cams))
    out = refine(cams, uniform_attention(42), outside="none")
    assert not out[~box].any() and all(o[b].std() < 1e-6 for o, b in zip(out, box))


def test_near_attention_knows_only_distance():
    near = near_attention((6, 7), 0.7)
    assert near.shape == (42, 42) and torch.allclose(near.sum(1), torch.ones(42))
    row = near[3 * 7 + 3].view(6, 7)  # symmetric about its place, falling with distance
    assert row.argmax() == 3 * 7 + 3 and torch.allclose(row[:, 2], row[:, 4])
    assert row[3, 4] > row[4, 4] > row[3, 5]
    ratio = row[3, 4] / row[3, 3]
    assert torch.allclose(ratio, torch.exp(torch.tensor(-1 / (2 * 0.7**2))))


def test_near_attention_is_a_gaussian():
    found = near_attention((1, 4), 1.5)
    ratios = found[0] / found[0, 0]
    expected = torch.exp(-(torch.arange(4.0) ** 2) / (2 * 1.5**2))
    assert torch.allclose(ratios, expected) and torch.allclose(found.sum(1), torch.ones(4))


def test_the_fair_control_blurs_what_is_in_the_boxes(cams):
    box = box_mask(min_max(cams))
    sharp = refine(cams, near_attention((6, 7), 0.05), power=1)  # reach of nearly nothing
    assert torch.allclose(sharp, min_max(cams) * box, atol=1e-6)
    wide = refine(cams, near_attention((6, 7), 1.5), power=1)
    assert all(w[b].std() < s[b].std() for w, s, b in zip(wide, sharp, box))


def test_uniform_attention_is_the_mean_of_the_boxes(cams):
    box, score = box_mask(min_max(cams)), min_max(cams)
    out = refine(cams, uniform_attention(42))
    assert torch.allclose(
        out, ((score * box).sum((1, 2)) / 42)[:, None, None].expand(3, 6, 7), atol=1e-6
    )


def test_min_max_is_exact_for_tiny_cams():
    x = min_max(1e-9 * torch.rand(2, 3, 3))
    assert x.amax((1, 2)).tolist() == [1, 1] and x.amin((1, 2)).tolist() == [0, 0]
    assert min_max(1e-9 * torch.rand(2, 3, 3), 1e-7).max() < 0.02


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda c, a: refine(c, a[:41, :41]), "class token"),
        (lambda c, a: affinity_matrix(a[:40]), "square"),
        (lambda c, a: refine(c, a, at="logit"), "score"),
        (lambda c, a: refine(c, torch.stack([a, a])), "index"),
        (lambda c, a: propagate(a, c > 0, c, "box"), "inside"),
    ],
)
def test_faults(call, word, cams, attention):
    with pytest.raises(ValueError, match=word):
        call(cams, attention)
