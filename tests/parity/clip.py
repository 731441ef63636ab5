"""Parity of CLIP weights, prompts, Softmax-GradCAM and the masked softmax.

The plain and the fast form."""

import re
from functools import lru_cache

import torch

import parity
from fmwsss.fast import cam as fast_cam
from fmwsss.fast import image as fast
from fmwsss.fast import text as fast_text
from fmwsss.method import cam as plain_cam
from fmwsss.method import clip as plain
from fmwsss.method import prompts as plain_text
from fmwsss.method.cam import PUBLISHED_EPS, class_scores, masked_softmax
from fmwsss.method.losses import contrastive_loss
from fmwsss.models.adapter import Clip
from fmwsss.models.clip import clip_from_state_dict

from . import FOLDER, Case

# float32 noise of the reference, relative to the largest value of an array (README of the vectors):
# CAMs 1.1e-5, logits 2.4e-6, gradients 1.5e-5. Allowed: about four times as much.
FEATURE = 1e-5
LOGIT = 1e-5
CAM = 5e-5
GRADIENT = 6e-5
MODES = dict(true="present+background", false="all", fgonly="foreground")


def tensors(case):
    return {key: case[key] for key in case.keys()}


@lru_cache(1)
def model(name):
    "The CLIP of a weights file, with the fast forms and without."
    state = tensors(Case(FOLDER / f"clip_model_{name}.npz"))
    clip = clip_from_state_dict(state, round_fp16=True).to(parity.DEVICE)
    return clip, Clip(clip.model, plain=True)


def models_of(case):
    "The two CLIPs of the model that a case names: gradcam_<model>_..., prompts_<model>_..."
    names = [path.stem.removeprefix("clip_model_") for path in FOLDER.glob("clip_model_*.npz")]
    rest = case.name.split("_", 1)[1]
    return model(max((n for n in names if f"{rest}_".startswith(f"{n}_")), key=len))


def words(ids):
    "Text of token ids, without the spaces that the decoder puts around punctuation."
    from open_clip.tokenizer import _tokenizer

    return re.sub(r"\s*([^\w\s])\s*", r"\1", _tokenizer.decode(ids)).strip()


def learner(case, clip, kind):
    "A `PromptLearner` with the context, names and options of a prompts file, all from its arrays."
    ctx, tokens = case["ctx"], case["tokenized_prompts"]
    n_ctx, ends = ctx.shape[-2], tokens.argmax(1).tolist()
    names = [words(row[1 + n_ctx : end - 1].tolist()) for row, end in zip(tokens, ends)]
    start = words(tokens[0, 1 : 1 + n_ctx].tolist())
    options = dict(n_ctx=n_ctx, ctx_init=None if set(start.split()) <= {"x"} else start)
    options["per_class"] = case["csc"].tolist() if "csc" in case else ctx.ndim == 3
    theirs = case[next(key for key in case.keys() if key.startswith("prompts_first"))]
    found = []
    for position in ("end", "front", "middle"):
        prompts = kind(clip, names, position=position, **options).to(parity.DEVICE)
        if options["ctx_init"]:
            case.compare("ctx", prompts.ctx)
        with torch.no_grad():
            prompts.ctx.copy_(ctx)
        length = min(theirs.shape[1], prompts.frame.shape[1])
        difference = prompts.embeddings()[:, :length] - theirs[:, :length]
        found.append((difference.abs().max().item(), prompts))
    return min(found, key=lambda pair: pair[0])[1]


def learners(case, clips):
    "The fast learner on the fast CLIP, the plain one on the plain."
    kinds = fast_text.PromptLearner, plain_text.PromptLearner
    return [learner(case, clip, kind) for clip, kind in zip(clips, kinds)]


def check_clip_model(case):
    clip = clip_from_state_dict(tensors(case), round_fp16=True)
    loaded = clip.state_dict()
    ids = case["token_ids"]
    table = loaded.pop("token_embedding.weight")
    case.compare("token_embedding_rows", table[ids])
    all_used = (table[ids].abs().sum(1) > 0).all()
    case.compare("token_ids", table.abs().sum(1).nonzero()[:, 0] if all_used else ids)
    for key in case.keys() - {"token_ids", "token_embedding_rows"}:
        case.compare(key, loaded.pop(key))
    assert not loaded, f"parameters that the file does not hold: {list(loaded)}"
    assert not any(p.requires_grad for p in clip.parameters())


def check_prompts(case):
    for prompts in learners(case, models_of(case)):
        case.compare("tokenized_prompts", prompts.tokens)
        case.compare("name_lens", prompts.name_lengths)
        key = next(key for key in case.keys() if key.startswith("prompts_first"))
        case.compare(key, prompts.embeddings()[:, : case.arrays[key].shape[1]], 1e-7)
        case.compare("text_features", prompts.encode(), FEATURE)
        text = prompts()
        case.compare("text_features_normalized", text, FEATURE)
        (gradient,) = torch.autograd.grad((text * case["R"]).sum(), prompts.ctx)
        case.compare("grad_ctx_textfeat", gradient, GRADIENT)


def prompts_file(case):
    "The prompts file with the context of a gradcam file: of equal ones the longest name that fits."
    rest = case.name.removeprefix("gradcam_")
    files = [Case(path) for path in FOLDER.glob("prompts_*.npz")]
    fits = [f for f in files if f.arrays["ctx"].shape == case["ctx"].shape]
    fits = [f for f in fits if bool((f["ctx"] == case["ctx"]).all())]
    return max(fits, key=lambda f: (rest.startswith(f.name.removeprefix("prompts_")), len(f.name)))


def check_gradcam(case):
    clips = models_of(case)
    quick, slow = learners(prompts_file(case), clips)
    scale = clips[0].logit_scale.detach().clone()
    if "logit_scale" in case:
        clips[0].logit_scale.detach().copy_(case["logit_scale"])
    try:
        check_fast(case, clips[0], quick)
        if "padding_mask" not in case:  # padding exists in the fast form only
            check_plain(case, clips[1], slow)
    finally:
        clips[0].logit_scale.detach().copy_(scale)


def check_fast(case, clip, prompts):
    images = case["img"]
    grid = fast.patch_grid(clip, images)
    padded = fast.padded_patches(case["padding_mask"], grid) if "padding_mask" in case else None
    case.compare("emb_hw", grid)
    maps = fast.attention_maps(clip, images, padded)
    case.compare("att_weights", maps, FEATURE)
    for layers in (1, maps.shape[1]):
        tokens, mean = fast.encode_image_trunk(clip, images, layers, padded)
        assert torch.allclose(mean, maps[:, -layers:, 1:, 1:].mean(1), atol=1e-6)
    last = fast.last_block(clip, tokens, padded)
    case.compare("gcam_avt", last.activation.transpose(0, 1), FEATURE)
    case.compare("img_emb", last.embedding, FEATURE)
    case.compare("cls_emb", last.class_embedding, FEATURE)
    text = prompts()
    logits = clip.logits(fast.image_features(clip, images, padded), text)
    check_loss(case, logits, prompts)

    def run(graph, eps, mode):
        args = clip, tokens, grid, text, case["fg_cls_lb"], graph, eps, mode, padded
        return fast_cam.softmax_gradcam(*args)

    check_maps(case, run, logits, prompts)


def check_plain(case, clip, prompts):
    images = case["img"]
    grid = plain.patch_grid(clip, images)
    case.compare("emb_hw", grid)
    maps = plain.attention_maps(clip, images)
    case.compare("att_weights", maps, FEATURE)
    for layers in (1, maps.shape[1]):
        tokens, mean = plain.trunk(clip, images, layers)
        assert torch.allclose(mean, maps[:, -layers:, 1:, 1:].mean(1), atol=1e-6)
    activation = plain.activation(clip, tokens)
    case.compare("gcam_avt", activation.transpose(0, 1), FEATURE)
    behind = plain.last_block(clip, tokens, activation)
    case.compare("img_emb", plain.patch_mean(clip, behind), FEATURE)
    text = prompts()
    logits = plain.logits(clip, plain.feature(clip, tokens, activation), text)
    check_loss(case, logits, prompts)

    def run(graph, eps, mode):
        args = clip, tokens, grid, text, case["fg_cls_lb"], graph, eps, mode
        return plain_cam.softmax_gradcam(*args)

    check_maps(case, run, logits, prompts)


def check_loss(case, logits, prompts):
    labels, count = case["fg_cls_lb"], case.arrays["fg_cls_lb"].shape[1]
    case.compare("logits", logits, LOGIT)
    loss = contrastive_loss(logits[:, :count], labels, reduce="pos_mean")
    case.compare("cl_loss", loss, LOGIT)
    (gradient,) = torch.autograd.grad(loss, prompts.ctx, retain_graph=True)
    case.compare("grad_ctx_cl_loss", gradient, GRADIENT)


def check_maps(case, run, logits, prompts):
    "Scores, CAMs and their second-order gradients, for every kind of scores in the file."
    for key in case.keys():
        if not (found := re.fullmatch(r"sm_logits_([a-z]+)(_eps0)?", key)):
            continue
        mode, eps = MODES[found[1]], 0.0 if found[2] else PUBLISHED_EPS
        case.compare(key, class_scores(logits, case["fg_cls_lb"], mode, eps), LOGIT)
        suffix = key.removeprefix("sm_logits_")
        cams, cam_logits = run(False, eps, mode)
        case.compare(f"pos_cam_{suffix}", cams, CAM)
        case.compare("logits", cam_logits, LOGIT)
        cams = run(True, eps, mode)[0]
        case.compare(f"pos_cam_{suffix}", cams, CAM)
        if f"grad_ctx_R_{suffix}" not in case:
            continue
        check_second_order(case, cams, suffix, prompts)


def check_second_order(case, cams, suffix, prompts):
    def gradient(x):
        return torch.autograd.grad(x, prompts.ctx, retain_graph=True)[0]

    case.compare(f"grad_ctx_R_{suffix}", gradient((cams * case["R_cam"]).sum()), GRADIENT)
    # the plain sum can cancel to nearly nothing: its noise is that of the random cotangent's
    kinds = [case.arrays[f"grad_ctx_{kind}_{suffix}"] for kind in ("R", "sum")]
    largest = max(abs(values).max() for values in kinds)
    case.compare(f"grad_ctx_sum_{suffix}", gradient(cams.sum()), GRADIENT, largest)


def check_masked_softmax(case):
    x, mask = case["x"].requires_grad_(), case["mask"]
    y = masked_softmax(x, mask, PUBLISHED_EPS)
    case.compare("y", y, LOGIT)
    case.compare("grad", torch.autograd.grad((y * case["R"]).sum(), x)[0], GRADIENT)
    exact = masked_softmax(x, mask)
    assert ((exact.sum(-1) - (mask.sum(-1) > 0).float()).abs() < 1e-6).all()
    assert (exact[mask == 0] == 0).all()


CHECKS = dict(
    clip_model=check_clip_model,
    prompts=check_prompts,
    gradcam=check_gradcam,
    masked_softmax=check_masked_softmax,
)
