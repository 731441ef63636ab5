"""The two prompt losses: values by hand, gradients, and batches in which nothing is left to learn from."""
import numpy as np
import pytest
import torch
from fmwsss.losses import cam_activation_loss, contrastive_loss


def by_hand(s, y):
    each = [-np.log(np.exp(s[n, i]) / (np.exp(s[n, i]) + sum(np.exp(s[n, j]) for j in range(y.shape[1]) if y[n, j] == 0)))
            for n in range(len(y)) for i in range(y.shape[1]) if y[n, i] == 1 and (y[n] == 0).any()]
    return np.mean(each)


def test_contrastive_by_hand():
    rng = np.random.default_rng(0)
    s, y = rng.normal(size=(5, 6)), rng.integers(0, 2, (5, 4))
    y[0], y[1] = 0, 1
    assert contrastive_loss(torch.tensor(s), torch.tensor(y)).item() == pytest.approx(by_hand(s, y))


def test_contrastive_gradient():
    y = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]])
    s = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    for reduce in ('pos_mean', 'sample_mean'): assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, y, reduce), s)


@pytest.mark.parametrize('scale', [1, 100, 1e4])
def test_contrastive_never_overflows(scale):
    s = (scale * torch.tensor([[1., -1., 0.5]])).requires_grad_()
    loss = contrastive_loss(s, torch.tensor([[0, 1, 0]]))
    loss.backward()
    assert loss.isfinite() and s.grad.isfinite().all() and loss.item() >= 2 * scale


@pytest.mark.parametrize('label', [[[0, 0, 0]], [[1, 1, 1]], [[255, 255, 255]], [[1, 255, 255]]])
@pytest.mark.parametrize('reduce', ['pos_mean', 'sample_mean'])
def test_contrastive_of_nothing_is_0(label, reduce):
    s = torch.randn(1, 3, requires_grad=True)
    loss = contrastive_loss(s, torch.tensor(label), reduce)
    loss.backward()
    assert loss.item() == 0 and not s.grad.any()


def test_activation_pulls_up_inside_and_down_outside():
    cams = torch.tensor([[[0.2, 1.0], [0.6, -0.4]]], requires_grad=True)
    seeds = torch.tensor([[[1, 1], [0, 0]]])
    fg, bg = cam_activation_loss(cams, torch.tensor([[1, 0]]), seeds, parts=True)
    assert fg.item() == pytest.approx(0.8 / 4) and bg.item() == pytest.approx(0.6 / 4)
    (fg + bg).backward()
    assert cams.grad[0].tolist() == [[-0.25, 0.0], [0.25, 0.0]]


@pytest.mark.parametrize('norm', ['l1', 'l2'])
@pytest.mark.parametrize('reduce', ['all', 'fg-bg', 'fg-bg-per-pos'])
def test_activation_of_nothing_is_0(norm, reduce):
    ignored = torch.full((2, 4, 4), 255)
    cams = torch.randn(2, 2, 2, requires_grad=True)
    loss = cam_activation_loss(cams, torch.eye(2), ignored, norm, reduce)
    loss.backward()
    assert loss.item() == 0 and not cams.grad.any()
    none = torch.zeros(0, 2, 2, requires_grad=True)
    cam_activation_loss(none, torch.zeros(2, 3), ignored, norm, reduce).backward()


def test_other_objects_are_background_and_ignored_pixels_are_free():
    cams = torch.ones(2, 2, 2)
    seeds = torch.tensor([[[1, 2], [255, 255]]])
    fg, bg = cam_activation_loss(cams, torch.tensor([[1, 1]]), seeds, parts=True)
    assert fg.item() == 0 and bg.item() == pytest.approx(0.5)


@pytest.mark.parametrize('call, word', [
    (lambda: contrastive_loss(torch.zeros(1, 2), torch.zeros(1, 2), 'mean'), 'pos_mean'),
    (lambda: cam_activation_loss(torch.zeros(1, 2, 2), torch.ones(1, 2), torch.zeros(1, 4, 4)), '2 positive'),
    (lambda: cam_activation_loss(torch.zeros(1, 2, 2), torch.ones(1, 1), torch.zeros(1, 4, 4), norm='l3'), 'l1'),
    (lambda: cam_activation_loss(torch.zeros(1, 2, 2), torch.ones(1, 1), torch.zeros(1, 4, 4), reduce='sum'), 'fg-bg')])
def test_faults(call, word):
    with pytest.raises(ValueError, match=word): call()
