import copy

import pytest
import torch
import torch.nn.functional as F
from small import small_clip, small_sam

from fmwsss.app.presets import parse_settings, settings_of
from fmwsss.fast.cam import softmax_gradcam
from fmwsss.fast.image import (
    attend,
    attention_maps,
    encode_image_trunk,
    image_features,
    last_block,
    padded_patches,
    patch_grid,
    patch_mean,
    project_qkv,
    residual,
    resize_positions,
)
from fmwsss.fast.linear_cam import cam_matrices, linear_gradcam
from fmwsss.fast.text import PromptLearner
from fmwsss.files.errors import SettingsError
from fmwsss.method import cam as plain_cam
from fmwsss.method.cam import PUBLISHED_EPS, class_scores, masked_softmax
from fmwsss.study.checks import check

MODES = ["present+background", "all", "foreground"]
LABELS = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])


@pytest.fixture(scope="module")
def clip():
    clip = small_clip()
    clip.logit_scale.data.fill_(3.0)
    return clip


@pytest.fixture(scope="module")
def case(clip):
    torch.manual_seed(1)
    images = torch.randn(4, 3, 40, 56)
    return images, encode_image_trunk(clip, images), F.normalize(torch.randn(7, 32), dim=-1)


def plain_loop(clip, tokens, text, labels, mode, eps=0.0):
    "As in the paper: one gradient for each positive, with respect to all activations, graph kept."
    block, cams = clip.visual.transformer.resblocks[-1], []
    activation = block.ln_1(tokens).detach().requires_grad_()
    out = residual(block, tokens, attend(block, project_qkv(block, activation), fused=False)[0])
    logits = clip.logit_scale.exp() * F.normalize(patch_mean(clip, out), dim=-1) @ text.T
    scores = class_scores(logits, labels, mode, eps)
    for n, c in labels.nonzero().tolist():
        (gradient,) = torch.autograd.grad(scores[n, c], activation, create_graph=True)
        cams.append((activation[n, 1:].detach() * gradient[n, 1:].mean(0)).sum(1))
    return torch.stack(cams), logits


# ------------------------------------------------------------------ features
def test_trunk_and_last_block_are_the_open_clip_tower(clip, case):
    images, tokens, _ = case
    assert (
        patch_grid(clip, images) == (5, 7)
        and tokens.shape == (4, 36, 128)
        and not tokens.requires_grad
    )
    native = images[:, :, :32, :32]
    assert torch.allclose(
        last_block(clip, encode_image_trunk(clip, native)).class_embedding,
        clip.encode_image(native),
        atol=1e-5,
    )
    features = image_features(clip, images)
    assert torch.allclose(features.norm(dim=1), torch.ones(4)) and torch.allclose(
        features, last_block(clip, tokens).feature, atol=1e-6
    )


def test_sides_that_are_no_multiple_are_cut(clip, case):
    images = case[0]
    assert torch.equal(
        encode_image_trunk(clip, images), encode_image_trunk(clip, F.pad(images, (0, 5, 0, 7)))
    )


def test_attention_option(clip, case):
    images, tokens, _ = case
    maps = attention_maps(clip, images)
    assert maps.shape == (4, 3, 36, 36) and torch.allclose(
        maps.sum(-1), torch.ones(4, 3, 36), atol=1e-5
    )
    for layers, used in ((1, 1), (2, 2), (8, 3)):
        same, mean = encode_image_trunk(clip, images, attn_layers=layers)
        assert torch.allclose(same, tokens, atol=1e-5) and torch.allclose(
            mean, maps[:, -used:, 1:, 1:].mean(1), atol=1e-6
        )


def test_positions_keep_the_native_grid_and_the_class_token(clip):
    table = clip.visual.positional_embedding
    assert resize_positions(table, (4, 4), (4, 4)) is table
    larger = resize_positions(table, (4, 4), (8, 4))
    assert larger.shape == (33, 128) and torch.equal(larger[0], table[0])


def test_padding_is_invisible(clip, case):
    """A padded image has the feature and the attention of the image alone.

    A patch with one real pixel is not padding."""
    images, padding = case[0], torch.zeros(4, 40, 56, dtype=torch.bool)
    padding[:, 24:], padding[:, :, 40:] = True, True
    padded = padded_patches(padding, (5, 7))
    assert padded.sum() == 4 * (35 - 15) and padded_patches(
        padding[:, 1:].roll(1, 1), (4, 7)
    ).shape == (4, 4, 7)
    alone = images[:, :, :24, :40]
    assert torch.allclose(
        image_features(clip, images, padded), image_features(clip, alone), atol=1e-5
    )
    text = case[2]
    cams, logits = softmax_gradcam(
        clip, encode_image_trunk(clip, images, padded=padded), (5, 7), text, LABELS, padded=padded
    )
    small, same = softmax_gradcam(clip, encode_image_trunk(clip, alone), (3, 5), text, LABELS)
    assert torch.allclose(logits, same, atol=1e-4) and torch.allclose(
        cams[:, :3, :5] * 35 / 15, small, atol=1e-5
    )


# ------------------------------------------------------------------ masked softmax
def test_exact_masked_softmax_does_not_leak():
    x = torch.tensor([[0.0, 0.0, 12.0], [1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 1]])
    exact, published = masked_softmax(x, mask), masked_softmax(x, mask, PUBLISHED_EPS)
    assert torch.allclose(exact.sum(1), torch.ones(2)) and torch.allclose(
        exact[1, [0, 2]], x[1, [0, 2]].softmax(0)
    )
    assert published[0].sum() < 0.6 and abs(published[1].sum() - 1) < 1e-4


def test_masked_softmax_without_any_entry_is_zero_with_finite_gradients():
    x = torch.randn(2, 4, requires_grad=True)
    y = masked_softmax(x, torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]))
    y.sum().backward()
    assert torch.equal(y, torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0]])) and x.grad.isfinite().all()


def test_modes():
    logits, labels = torch.randn(4, 7), LABELS
    assert torch.equal(class_scores(logits, labels, "all"), logits.softmax(1))
    scores = class_scores(logits, labels)
    assert (scores[:, :4][labels == 0] == 0).all() and torch.allclose(scores.sum(1), torch.ones(4))
    foreground = class_scores(logits, labels, "foreground")
    assert (
        torch.equal(foreground[2], logits[2])
        and torch.equal(foreground[1], torch.zeros(7))
        and (foreground[0, 4:] == 0).all()
    )
    with pytest.raises(ValueError, match="use present"):
        class_scores(logits, labels, "background")


# ------------------------------------------------------------------ CAMs
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("eps", [0.0, PUBLISHED_EPS])
def test_one_batched_backward_equals_one_gradient_per_class(clip, case, mode, eps):
    _, tokens, text = case
    cams, logits = softmax_gradcam(clip, tokens, (5, 7), text, LABELS, mode=mode, eps=eps)
    slow, same = plain_loop(clip, tokens, text, LABELS, mode, eps)
    assert cams.shape == (6, 5, 7) and torch.allclose(
        cams.flatten(1), slow, atol=1e-5 * slow.abs().max().item()
    )
    assert torch.allclose(logits, same, atol=1e-5) and not cams.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_batched_equals_per_image(clip, case, mode):
    _, tokens, text = case
    cams, logits = softmax_gradcam(clip, tokens, (5, 7), text, LABELS, mode=mode)
    single = [
        softmax_gradcam(clip, tokens[n : n + 1], (5, 7), text, LABELS[n : n + 1], mode=mode)
        for n in range(4)
    ]
    assert torch.allclose(cams, torch.cat([s[0] for s in single]), atol=1e-6)
    assert torch.allclose(logits, torch.cat([s[1] for s in single]), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_second_order_gradient_reaches_the_text_as_in_the_plain_loop(clip, case, mode):
    _, tokens, text = case
    text = text.clone().requires_grad_()
    direction = torch.randn(6, 5, 7)
    cams, _ = softmax_gradcam(clip, tokens, (5, 7), text, LABELS, create_graph=True, mode=mode)
    slow, _ = plain_loop(clip, tokens, text, LABELS, mode)
    ours, theirs = (
        torch.autograd.grad((c.view(6, 5, 7) * direction).sum(), text)[0] for c in (cams, slow)
    )
    assert torch.allclose(ours, theirs, atol=2e-5 * theirs.abs().max().item())
    step, moved = 1e-2 * F.normalize(torch.randn_like(text), dim=-1), 0.0
    for sign in (1, -1):
        moved += (
            sign
            * (
                softmax_gradcam(
                    clip, tokens, (5, 7), text.detach() + sign * step, LABELS, mode=mode
                )[0]
                * direction
            ).sum()
            / 2
        )
    assert abs(moved - (ours * step).sum()) < 0.02 * ours.norm() * step.norm()


def test_no_positive_at_all(clip, case):
    _, tokens, text = case
    text = text.clone().requires_grad_()
    cams, logits = softmax_gradcam(
        clip, tokens, (5, 7), text, torch.zeros_like(LABELS), create_graph=True
    )
    assert cams.shape == (0, 5, 7) and logits.shape == (4, 7)
    (cams.sum() + logits.sum() * 0).backward()
    assert text.grad.isfinite().all()


def test_works_without_outer_gradients(clip, case):
    _, tokens, text = case
    with torch.no_grad():
        quiet, _ = softmax_gradcam(clip, tokens, (5, 7), text, LABELS)
    assert torch.equal(quiet, softmax_gradcam(clip, tokens, (5, 7), text, LABELS)[0])


def test_frozen_means_frozen(case):
    """Training prompts on logits and on CAMs leaves every CLIP and SAM parameter without
    gradient and bit for bit the same."""
    clip, sam = small_clip(), small_sam()
    before = copy.deepcopy((clip.state_dict(), sam.state_dict()))
    images = case[0]
    prompts = PromptLearner(
        clip, ["cat", "dog", "cow", "sheep", "sky", "grass", "sea"], n_ctx=4, seed=0
    )
    start, optimiser = (
        prompts.ctx.detach().clone(),
        torch.optim.SGD(prompts.parameters(), lr=1.0, momentum=0.9),
    )
    for _ in range(3):
        cams, logits = softmax_gradcam(
            clip, encode_image_trunk(clip, images), (5, 7), prompts(), LABELS, create_graph=True
        )
        optimiser.zero_grad()
        (cams.relu().sum() + logits.logsumexp(1).mean()).backward()
        optimiser.step()
    assert not torch.equal(start, prompts.ctx)
    for model, state in zip((clip, sam), before):
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("form", [softmax_gradcam, plain_cam.softmax_gradcam])
def test_the_defaults(clip, case, form):
    "The exact softmax over present classes and background, and no graph to the text."
    images, tokens, text = case
    text = text.clone().requires_grad_()
    args = clip, tokens, patch_grid(clip, images), text, LABELS
    cams, logits = form(*args)
    expected = form(*args, True, 0.0, "present+background")[0]
    assert not cams.requires_grad and logits.requires_grad and expected.requires_grad
    assert torch.allclose(cams, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    other = form(*args, False, 0.1)[0]
    assert not torch.allclose(cams, other, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("eps", [0, PUBLISHED_EPS])
def test_masked_softmax_goes_over_the_last_axis(eps):
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 5) * 4, torch.rand(2, 3, 5) > 0.4
    whole = masked_softmax(logits, mask, eps)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(whole[i, j], masked_softmax(logits[i, j], mask[i, j], eps))


# ---- all CAMs of a picture as one matrix


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("eps", [0.0, PUBLISHED_EPS])
def test_cams_of_matrices_are_those_of_the_plain_form(clip, case, mode, eps):
    (_, tokens, text), grid = case, (5, 7)
    matrices = cam_matrices(clip, tokens, rows=5)
    assert matrices[0].shape == (len(tokens), grid[0] * grid[1], text.shape[1])
    ours, logits = linear_gradcam(clip, matrices, grid, text, LABELS, eps=eps, mode=mode)
    args = clip, tokens, grid, text, LABELS
    theirs, same = plain_cam.softmax_gradcam(*args, eps=eps, mode=mode)
    assert ours.shape == theirs.shape == (6, *grid)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert torch.allclose(logits, same, atol=1e-4)


def test_matrices_of_no_positive_give_no_cam(clip, case):
    (_, tokens, text), grid = case, (5, 7)
    nothing = torch.zeros_like(LABELS)
    cams, logits = linear_gradcam(clip, cam_matrices(clip, tokens), grid, text, nothing)
    assert cams.shape == (0, *grid) and len(logits) == len(tokens)


def test_a_tower_without_a_fast_form_has_no_matrices(clip, case, monkeypatch):
    monkeypatch.setattr(clip.image, "fits_fast", False)
    with pytest.raises(SettingsError, match="frozen"):
        cam_matrices(clip, case[1])


def test_linear_views_are_for_the_segmentation_task():
    assert parse_and_check("segmentation.views=linear").segmentation.views == "linear"
    with pytest.raises(SettingsError, match="classification.views: 'linear'"):
        parse_and_check("classification.views=linear")
    with pytest.raises(SettingsError, match="'frozen' or 'linear'"):
        parse_and_check("segmentation.views=lineal")


def parse_and_check(*changes):
    "The settings of minivoc with changes, checked."
    return check(settings_of("minivoc", changes=parse_settings(changes)))


def test_ablations_with_matrices_need_pictures_that_are_encoded_once():
    with pytest.raises(SettingsError, match="ablations.linear needs pictures"):
        parse_and_check("segmentation.views={size: 96}", "ablations.linear=true")
