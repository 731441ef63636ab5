"""Parity of CLIP weights, prompts, Softmax-GradCAM and the masked softmax."""
import re
from functools import lru_cache
import torch
import torch.nn.functional as F
from fmwsss.cam import PUBLISHED_EPS, class_scores, masked_softmax, softmax_gradcam
from fmwsss.features import attention_maps, encode_image_trunk, image_features, last_block, padded_patches, patch_grid
from fmwsss.losses import contrastive_loss
from fmwsss.models import clip_from_state_dict
from fmwsss.prompts import PromptLearner
from . import FOLDER, Case

# float32 noise of the reference, relative to the largest value of an array (README of the vectors): CAMs 1.1e-5,
# logits 2.4e-6, gradients 1.5e-5. Allowed: about four times as much.
FEATURE, LOGIT, CAM, GRADIENT = 1e-5, 1e-5, 5e-5, 6e-5
MODES = dict(true='present+background', false='all', fgonly='foreground')


@lru_cache(1)
def model(name):
    return clip_from_state_dict({k: v for k, v in _state(Case(FOLDER / f'clip_model_{name}.npz')).items()}, round_fp16=True)


def _state(case): return {key: case[key] for key in case.keys()}


def model_of(case):
    "The CLIP model that a case names: gradcam_<model>_..., prompts_<model>_..."
    names = [path.stem.removeprefix('clip_model_') for path in FOLDER.glob('clip_model_*.npz')]
    rest = case.name.split('_', 1)[1]
    return model(max((n for n in names if f'{rest}_'.startswith(f'{n}_')), key=len))


def words(ids):
    "Text of token ids, without the spaces that the decoder puts around punctuation."
    from open_clip.tokenizer import _tokenizer
    return re.sub(r'\s*([^\w\s])\s*', r'\1', _tokenizer.decode(ids)).strip()


def learner(case, clip):
    "A `PromptLearner` with the context, names and options of a prompts file, all read from its arrays."
    ctx, tokens = case['ctx'], case['tokenized_prompts']
    n_ctx, ends = ctx.shape[-2], tokens.argmax(1).tolist()
    names = [words(row[1 + n_ctx:end - 1].tolist()) for row, end in zip(tokens, ends)]
    start = words(tokens[0, 1:1 + n_ctx].tolist())
    options = dict(n_ctx=n_ctx, ctx_init=None if set(start.split()) <= {'x'} else start)
    options['per_class'] = case['csc'].tolist() if 'csc' in case else ctx.ndim == 3
    theirs = case[next(key for key in case.keys() if key.startswith('prompts_first'))]
    found = []
    for position in ('end', 'front', 'middle'):
        prompts = PromptLearner(clip, names, position=position, **options)
        if options['ctx_init']: case.compare('ctx', prompts.ctx)
        with torch.no_grad(): prompts.ctx.copy_(ctx)
        length = min(theirs.shape[1], prompts.frame.shape[1])
        found.append(((prompts.embeddings()[:, :length] - theirs[:, :length]).abs().max().item(), prompts))
    return min(found, key=lambda pair: pair[0])[1]


def check_clip_model(case):
    clip = clip_from_state_dict(_state(case), round_fp16=True)
    loaded = clip.state_dict()
    ids = case['token_ids']
    table = loaded.pop('token_embedding.weight')
    case.compare('token_embedding_rows', table[ids])
    case.compare('token_ids', table.abs().sum(1).nonzero()[:, 0] if (table[ids].abs().sum(1) > 0).all() else ids)
    for key in case.keys() - {'token_ids', 'token_embedding_rows'}: case.compare(key, loaded.pop(key))
    assert not loaded, f'parameters that the file does not hold: {list(loaded)}'
    assert not any(p.requires_grad for p in clip.parameters())


def check_prompts(case):
    clip = model_of(case)
    prompts = learner(case, clip)
    case.compare('tokenized_prompts', prompts.tokens)
    case.compare('name_lens', prompts.name_lengths)
    key = next(key for key in case.keys() if key.startswith('prompts_first'))
    ours, length = prompts.embeddings(), case.arrays[key].shape[1]
    padding = clip.token_embedding.weight[:1].expand(len(ours), max(0, length - ours.shape[1]), -1)
    case.compare(key, torch.cat([ours, padding], 1)[:, :length], 1e-7)
    case.compare('text_features', prompts.encode(), FEATURE)
    text = prompts()
    case.compare('text_features_normalized', text, FEATURE)
    (gradient,) = torch.autograd.grad((text * case['R']).sum(), prompts.ctx)
    case.compare('grad_ctx_textfeat', gradient, GRADIENT)


def prompts_of(case, clip):
    "The prompts file with the context of a gradcam file: among equal contexts the longest name that fits."
    rest = case.name.removeprefix('gradcam_')
    files = [Case(path) for path in FOLDER.glob('prompts_*.npz')]
    fits = [f for f in files if f.arrays['ctx'].shape == case['ctx'].shape and bool((f['ctx'] == case['ctx']).all())]
    return learner(max(fits, key=lambda f: (rest.startswith(f.name.removeprefix('prompts_')), len(f.name))), clip)


def check_gradcam(case):
    clip, scale = model_of(case), None
    prompts = prompts_of(case, clip)
    if 'logit_scale' in case: scale, clip.logit_scale.data = clip.logit_scale.data, case['logit_scale']
    try: _check_gradcam(case, clip, prompts)
    finally:
        if scale is not None: clip.logit_scale.data = scale


def _check_gradcam(case, clip, prompts):
    images, labels, count = case['img'], case['fg_cls_lb'], case.arrays['fg_cls_lb'].shape[1]
    grid = patch_grid(clip, images)
    padded = padded_patches(case['padding_mask'], grid) if 'padding_mask' in case else None
    case.compare('emb_hw', grid)
    maps = attention_maps(clip, images, padded)
    case.compare('att_weights', maps, FEATURE)
    for layers in (1, maps.shape[1]):
        tokens, mean = encode_image_trunk(clip, images, layers, padded)
        assert torch.allclose(mean, maps[:, -layers:, 1:, 1:].mean(1), atol=1e-6)
    last = last_block(clip, tokens, padded)
    case.compare('gcam_avt', last.activation.transpose(0, 1), FEATURE)
    case.compare('img_emb', last.embedding, FEATURE)
    case.compare('cls_emb', last.class_embedding, FEATURE)
    text = prompts()
    logits = clip.logit_scale.exp() * image_features(clip, images, padded) @ text.T
    case.compare('logits', logits, LOGIT)
    loss = contrastive_loss(logits[:, :count], labels, reduce='pos_mean')
    case.compare('cl_loss', loss, LOGIT)
    case.compare('grad_ctx_cl_loss', torch.autograd.grad(loss, prompts.ctx, retain_graph=True)[0], GRADIENT)
    for key in case.keys():
        if not (found := re.fullmatch(r'sm_logits_([a-z]+)(_eps0)?', key)): continue
        mode, eps = MODES[found[1]], 0. if found[2] else PUBLISHED_EPS
        case.compare(key, class_scores(logits, labels, mode, eps), LOGIT)
        suffix = key.removeprefix('sm_logits_')
        run = lambda graph: softmax_gradcam(clip, tokens, grid, text, labels, graph, eps, mode, padded)
        cams, cam_logits = run(False)
        case.compare(f'pos_cam_{suffix}', cams, CAM)
        case.compare('logits', cam_logits, LOGIT)
        cams = run(True)[0]
        case.compare(f'pos_cam_{suffix}', cams, CAM)
        if f'grad_ctx_R_{suffix}' not in case: continue
        gradient = lambda x: torch.autograd.grad(x, prompts.ctx, retain_graph=True)[0]
        case.compare(f'grad_ctx_R_{suffix}', gradient((cams * case['R_cam']).sum()), GRADIENT)
        # the plain sum can cancel to nearly nothing: its noise is that of the gradient with the random cotangent
        largest = max(abs(case.arrays[f'grad_ctx_{kind}_{suffix}']).max() for kind in ('R', 'sum'))
        case.compare(f'grad_ctx_sum_{suffix}', gradient(cams.sum()), GRADIENT, largest)


def check_masked_softmax(case):
    x, mask = case['x'].requires_grad_(), case['mask']
    y = masked_softmax(x, mask, PUBLISHED_EPS)
    case.compare('y', y, LOGIT)
    case.compare('grad', torch.autograd.grad((y * case['R']).sum(), x)[0], GRADIENT)
    exact = masked_softmax(x, mask)
    assert ((exact.sum(-1) - (mask.sum(-1) > 0).float()).abs() < 1e-6).all() and (exact[mask == 0] == 0).all()


CHECKS = dict(clip_model=check_clip_model, prompts=check_prompts, gradcam=check_gradcam, masked_softmax=check_masked_softmax)
