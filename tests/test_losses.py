"""The prompt losses and their alternatives: by hand, gradients, batches with nothing to learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmwsss.files.errors import SettingsError
from fmwsss.method.losses import cam_activation_loss, contrastive_loss, divisors, enlarge
from fmwsss.study.losses import CLASSIFICATION_LOSSES, SEGMENTATION_LOSSES
from fmwsss.study.losses import asymmetric_loss, bce_loss
from fmwsss.study.losses import pixel_cross_entropy, softmax_loss, zlpr_loss
from fmwsss.study.tasks import named_loss


def by_hand(s, y):
    "The contrastive loss of logits (N, G) and labels (N, C), one positive after the other."
    each = []
    for n, row in enumerate(y):
        rivals = sum(np.exp(s[n, j]) for j in range(len(row)) if row[j] == 0)
        for i in range(len(row)):
            if row[i] == 1 and (row == 0).any():
                each.append(-np.log(np.exp(s[n, i]) / (np.exp(s[n, i]) + rivals)))
    return np.mean(each)


def test_contrastive_by_hand():
    rng = np.random.default_rng(0)
    s, y = rng.normal(size=(5, 6)), rng.integers(0, 2, (5, 4))
    y[0], y[1] = 0, 1
    assert contrastive_loss(torch.tensor(s), torch.tensor(y)).item() == pytest.approx(by_hand(s, y))


@pytest.mark.parametrize("reduce", ["pos_mean", "sample_mean"])
def test_contrastive_gradient(reduce):
    y = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]])
    s = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, y, reduce), s)


@pytest.mark.parametrize("scale", [1, 100, 1e4])
def test_contrastive_never_overflows(scale):
    s = (scale * torch.tensor([[1.0, -1.0, 0.5]])).requires_grad_()
    loss = contrastive_loss(s, torch.tensor([[0, 1, 0]]))
    loss.backward()
    assert loss.isfinite() and s.grad.isfinite().all() and loss.item() >= 2 * scale


@pytest.mark.parametrize("label", [[[0, 0, 0]], [[1, 1, 1]], [[255, 255, 255]], [[1, 255, 255]]])
@pytest.mark.parametrize("reduce", ["pos_mean", "sample_mean"])
def test_contrastive_of_nothing_is_0(label, reduce):
    s = torch.randn(1, 3, requires_grad=True)
    loss = contrastive_loss(s, torch.tensor(label), reduce)
    loss.backward()
    assert loss.item() == 0 and not s.grad.any()


def test_activation_pulls_up_inside_and_down_outside():
    cams = torch.tensor([[[0.2, 1.0], [0.6, -0.4]]], requires_grad=True)
    seeds = torch.tensor([[[1, 1], [0, 0]]])
    loss = cam_activation_loss(cams, torch.tensor([[1, 0]]), seeds)
    assert loss.item() == pytest.approx(0.8 / 4 + 0.6 / 4)
    loss.backward()
    assert cams.grad[0].tolist() == [[-0.25, 0.0], [0.25, 0.0]]


def test_the_balanced_reduction_lifts_a_small_object_as_much_as_a_large_one():
    lift = {}
    for reduce in ("all", "fg-bg-per-pos"):
        for pixels in (2, 32):
            cams = torch.full((1, 8, 8), 0.1)
            cams[0, 0, 0] = 1
            cams.requires_grad_()
            seed = torch.zeros(1, 64, dtype=torch.int64)
            seed[0, :pixels] = 1
            loss = cam_activation_loss(cams, torch.ones(1, 1), seed.view(1, 8, 8), reduce=reduce)
            loss.backward()
            lift[reduce, pixels] = -cams.grad.view(-1)[1:pixels].sum().item()
    balanced = lift["fg-bg-per-pos", 2], lift["fg-bg-per-pos", 32]
    assert balanced[0] == pytest.approx(0.25, rel=1e-3)  # one of two pixels is the maximum itself
    assert balanced[1] == pytest.approx(31 / 64, rel=1e-3)
    assert lift["all", 32] == pytest.approx(31 * lift["all", 2])  # over all pixels: by its size


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("reduce", ["all", "fg-bg", "fg-bg-per-pos"])
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
    loss = cam_activation_loss(cams, torch.tensor([[1, 1]]), seeds)
    assert loss.item() == pytest.approx(0.5)  # inside they stand at their maximum already


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def alternatives_by_hand(s, y):
    "The other classification losses from their formulas, float64; labels of 255 are skipped."
    N, C = y.shape
    known = [(n, c) for n in range(N) for c in range(C) if y[n, c] in (0, 1)]
    right = [sigmoid(s[n, c]) if y[n, c] == 1 else 1 - sigmoid(s[n, c]) for n, c in known]
    bce = -np.mean(np.log(right))

    def asl(n, c, gp, gn, m):
        p = sigmoid(s[n, c])
        pm = max(p - m, 0)
        return -((1 - p) ** gp) * np.log(p) if y[n, c] == 1 else -(pm**gn) * np.log(1 - pm)

    softmax, zlpr = [], []
    for n in range(N):
        pos = [s[n, c] for c in range(C) if y[n, c] == 1]
        neg = [s[n, c] for c in range(C) if y[n, c] == 0]
        if pos:
            softmax.append(np.mean([-np.log(np.exp(p) / np.exp(pos + neg).sum()) for p in pos]))
        if pos or neg:
            zlpr.append(np.log(1 + np.exp(-np.array(pos)).sum()) + np.log(1 + np.exp(neg).sum()))
    return dict(
        bce=bce,
        softmax=np.mean(softmax),
        zlpr=np.mean(zlpr),
        asl=np.mean([asl(n, c, 0, 4, 0.05) for n, c in known]),
        asl_other=np.mean([asl(n, c, 1, 2, 0.2) for n, c in known]),
    )


@pytest.mark.parametrize("extra", [0, 3])
def test_alternatives_by_hand(extra):
    "With background prompts behind the classes, unknown labels, images without a positive."
    rng = np.random.default_rng(1)
    s, y = 3 * rng.normal(size=(6, 5 + extra)), rng.choice([0, 1, 255], (6, 5), p=[0.5, 0.3, 0.2])
    y[0], y[1], y[2] = 0, 1, 255
    want, (logits, labels) = alternatives_by_hand(s, y), (torch.tensor(s), torch.tensor(y))
    for name in ("bce", "asl", "softmax", "zlpr"):
        found = CLASSIFICATION_LOSSES[name](logits, labels).item()
        assert found == pytest.approx(want[name], rel=1e-9), name
    other = asymmetric_loss(logits, labels, 1, 2, 0.2).item()
    assert other == pytest.approx(want["asl_other"], rel=1e-9)


def test_alternatives_meet_where_they_should():
    s, y = 5 * torch.randn(8, 6, dtype=torch.float64), torch.randint(0, 2, (8, 6))
    one = F.one_hot(torch.arange(8) % 6, 6)
    assert torch.isclose(bce_loss(s, y), F.binary_cross_entropy_with_logits(s, y.double()))
    assert torch.isclose(asymmetric_loss(s, y, 0, 0, 0), bce_loss(s, y))
    focal = (
        (1 - s.sigmoid()) ** 2 * y * F.softplus(-s) + s.sigmoid() ** 2 * (1 - y) * F.softplus(s)
    ).mean()
    assert torch.isclose(asymmetric_loss(s, y, 2, 2, 0), focal)
    assert torch.isclose(softmax_loss(s, one), F.cross_entropy(s, one.argmax(1))) and torch.isclose(
        softmax_loss(s, one), contrastive_loss(s, one)
    )
    for loss in (bce_loss, asymmetric_loss, zlpr_loss):
        assert torch.isclose(loss(s, y, centre=2), loss(s - 2, y)) and torch.isclose(
            loss(s, y, centre="mean"), loss(s - s.mean(), y)
        )


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_classification_gradients_and_extremes(name):
    loss, y = CLASSIFICATION_LOSSES[name], torch.tensor([[1, 0, 0, 1], [0, 1, 255, 0]])
    assert torch.autograd.gradcheck(
        lambda x: loss(x, y), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    )
    for scale in (100, 1e4):
        s = (scale * torch.tensor([[1.0, -1.0, 0.5, 0.0], [-1.0, -1.0, 1.0, 1.0]])).requires_grad_()
        value = loss(s, y)
        value.backward()
        assert value.isfinite() and s.grad.isfinite().all()
    s = torch.randn(1, 3, requires_grad=True)
    value = loss(s, torch.full((1, 3), 255))
    value.backward()
    assert value.item() == 0 and not s.grad.any()


@pytest.mark.parametrize("gammas", [(0, 0, 0), (1, 4, 0), (0, 4, 0.05)])
def test_asl_extremes(gammas):
    s = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    value = asymmetric_loss(s, torch.tensor([[1, 1, 0, 0]]), *gammas)
    value.backward()
    assert value.isfinite() and s.grad.isfinite().all() and value.item() > 1


def pixels_by_hand(cams, labels, seeds, b, tau):
    "Cross-entropy of every counted pixel, written out; CAMs at the seeds' size."
    pairs = np.argwhere(labels)
    each = []
    for n in range(len(labels)):
        own = {c + 1: cams[k] / np.abs(cams[k]).max() for k, (m, c) in enumerate(pairs) if m == n}
        for x in np.ndindex(seeds.shape[1:]):
            score = {0: b, **{c: s[x] for c, s in own.items()}}
            if seeds[n][x] in score:
                total = sum(np.exp(v / tau) for v in score.values())
                each.append(-np.log(np.exp(score[seeds[n][x]] / tau) / total))
    return np.mean(each)


def test_pixel_cross_entropy_by_hand():
    rng = np.random.default_rng(2)
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    seeds = rng.choice([0, 1, 2, 3, 255], (3, 4, 5))
    cams = rng.normal(size=(3, 4, 5)) * np.array([1e-4, 1, 1e3])[:, None, None]
    for b, tau in ((0.5, 0.2), (0.2, 1.0)):
        given = [torch.tensor(x) for x in (cams, labels, seeds)]
        got = pixel_cross_entropy(*given, b, tau)
        assert got.item() == pytest.approx(pixels_by_hand(cams, labels, seeds, b, tau), rel=1e-9)


def test_pixel_cross_entropy_resizes_and_pushes_the_right_way():
    cams = torch.tensor([[[0.2, 1.0], [0.9, -0.4]]], requires_grad=True)
    pixel_cross_entropy(cams, torch.tensor([[1, 0]]), torch.tensor([[[1, 1], [0, 0]]])).backward()
    assert (cams.grad[0, 0] < 0).all() and (cams.grad[0, 1] > 0).all()
    big = F.interpolate(cams[None].detach(), (8, 8), mode="bilinear", align_corners=False)[0]
    seeds = torch.randint(0, 2, (1, 8, 8))
    assert torch.isclose(
        pixel_cross_entropy(cams.detach(), torch.tensor([[1, 0]]), seeds),
        pixel_cross_entropy(big, torch.tensor([[1, 0]]), seeds),
    )


def test_pixel_cross_entropy_of_nothing_is_0():
    for cams, labels in (
        (torch.randn(2, 2, 2), torch.eye(2)),
        (torch.zeros(0, 2, 2), torch.zeros(2, 3)),
        (torch.zeros(2, 2, 2), torch.eye(2)),
    ):
        cams = cams.requires_grad_()
        value = pixel_cross_entropy(cams, labels, torch.full((2, 4, 4), 255))
        value.backward()
        assert value.item() == 0 and not cams.grad.any()


def test_tables_of_losses():
    assert named_loss("contrastive", CLASSIFICATION_LOSSES) is contrastive_loss
    assert named_loss("activation", SEGMENTATION_LOSSES) is cam_activation_loss
    with pytest.raises(SettingsError, match="(?s)hinge.*contrastive"):
        named_loss("hinge", CLASSIFICATION_LOSSES)


ONE = torch.zeros(1, 2), torch.zeros(1, 2)
SEED = torch.zeros(1, 4, 4)
TWO_POSITIVES = torch.zeros(1, 2, 2), torch.ones(1, 2), SEED
FITTING = torch.zeros(1, 2, 2), torch.ones(1, 1), SEED


@pytest.mark.parametrize(
    "loss, given, settings, word",
    [
        (asymmetric_loss, ONE, dict(gamma_neg=0.5), "at least 1"),
        (contrastive_loss, ONE, dict(reduce="mean"), "pos_mean"),
        (pixel_cross_entropy, TWO_POSITIVES, {}, "2 positive"),
        (cam_activation_loss, TWO_POSITIVES, {}, "2 positive"),
        (cam_activation_loss, FITTING, dict(norm="l3"), "l1"),
        (cam_activation_loss, FITTING, dict(reduce="sum"), "fg-bg"),
    ],
)
def test_faults(loss, given, settings, word):
    with pytest.raises(ValueError, match=word):
        loss(*given, **settings)


def test_no_cams_are_enlarged_to_none():
    cams = torch.zeros(0, 2, 3, requires_grad=True)
    large = enlarge(cams, (4, 6))
    assert large.shape == (0, 4, 6) and large.requires_grad


def test_divisors_by_hand():
    inside, outside = torch.zeros(2, 2, 3), torch.ones(2, 2, 3)
    inside[0, 0, :2], outside[0, 0, :2] = 1, 0
    assert [float(n) for n in divisors(inside, outside, "all", 0.5)] == [12, 12]
    assert [float(n) for n in divisors(inside, outside, "fg-bg", 0.5)] == [5, 21]
    up, down = divisors(inside, outside, "fg-bg-per-pos", 0.5)
    assert up.tolist() == [10, 2] and down.tolist() == [18, 26]


def test_one_pixel_is_divided_by_one():
    one, nothing = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    assert [float(n) for n in divisors(one, nothing, "all", 0)] == [1, 1]
