"""The same results as the published code computes them: `speed.py` measures against these.

Written from the papers' descriptions and the behaviour of their code; nothing of the library's
short cuts is used, only its models and its box finder.
"""
import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco

from fmwsss.method.affinity import affinity_mask, box_mask, min_max
from fmwsss.method.cam import class_scores
from fmwsss.fast.image import embed_patches
from fmwsss.method.losses import cam_activation_loss, contrastive_loss


def decode(masks):
    "Stored masks as a dense boolean tensor (S,H,W)."
    return torch.as_tensor(coco.decode(masks.rles)).permute(2, 0, 1).bool().contiguous()


def rock_sand_water(masks, thresh=0.3, chunk=8):
    """Indices kept: all intersections of a level with the masks kept so far, on dense masks.

    chunk: so many masks at a time."""
    dense, kept = decode(masks), []
    for level in (2, 1, 0):
        new = np.flatnonzero(masks.level == level)
        if kept and len(new):
            a, b = dense[new], dense[kept]
            common = lambda x, b=b: (x[:, None] & b).sum((2, 3), dtype=torch.long)
            both = torch.cat([common(x) for x in a.split(chunk)])
            new = new[((both / a.sum((1, 2))[:, None]).amax(1) < thresh).numpy()]
        kept += new.tolist()
    return kept


def sams(cams, masks, classes, power):
    "SAM-based seeding: dense masks times CAMs, then the masks painted one by one."
    dense, cams = decode(masks), torch.as_tensor(cams).clamp(min=0)
    mean = (cams[:, None] * dense).sum((2, 3)) / dense.sum((1, 2))
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    scores = (mean - low) / (high - low + 1e-7)
    scores = torch.cat([(1 - scores.amax(0, keepdim=True)) ** power, scores])
    confidence, best = scores.max(0)
    ids, seed = [0, *(c + 1 for c in classes)], np.zeros(cams.shape[1:], np.uint8)
    for i in sorted(range(len(dense)), key=lambda i: (masks.level[i], confidence[i].item())):
        seed[dense[i].numpy()] = ids[best[i]]
    return seed


def encode_text(learner):
    "Unit-norm features (G,E) of all prompts, 77 positions each, by open_clip's own transformer."
    clip, x = learner.clip, learner.embeddings()
    rest = clip.token_embedding.weight[:1].expand(len(x), clip.context_length - x.shape[1], -1)
    x = torch.cat([x, rest], 1) + clip.positional_embedding
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
    return F.normalize(x[torch.arange(len(x)), learner.eos] @ clip.text_projection, dim=-1)


def encode_image(clip, images):
    """Images -> (features (N,E), activation of the last block's first LayerNorm (N,1+L,D),
    attention of all layers (layers,N,1+L,1+L))."""
    blocks, maps = clip.visual.transformer.resblocks, []
    with torch.no_grad():
        x = embed_patches(clip, images)
        for block in blocks[:-1]:
            h = block.ln_1(x)
            h, weights = block.attn(h, h, h, need_weights=True)
            x = x + h
            x = x + block.mlp(block.ln_2(x))
            maps.append(weights)
    block = blocks[-1]
    activation = block.ln_1(x).detach().requires_grad_()
    h, weights = block.attn(activation, activation, activation, need_weights=True)
    x = x + h
    x = x + block.mlp(block.ln_2(x))
    feature = clip.visual.ln_post(x[:, 1:]).mean(1) @ clip.visual.proj
    return F.normalize(feature, dim=-1), activation, torch.stack([*maps, weights.detach()])


def softmax_gradcam(clip, images, learner, labels, grid, create_graph=False):
    """Text tower, image tower, then one gradient for each present class.

    Returns CAMs (P,h,w), logits (N,G), attention of all layers."""
    text = encode_text(learner)
    feature, activation, attention = encode_image(clip, images)
    logits = clip.logit_scale.exp() * feature @ text.T
    scores, cams = class_scores(logits, labels), []
    for n, c in labels.nonzero().tolist():
        more = dict(retain_graph=True, create_graph=create_graph)
        (gradient,) = torch.autograd.grad(scores[n, c], activation, **more)
        cams.append((activation[n, 1:].detach() * gradient[n, 1:].mean(0)).sum(-1).view(grid))
    return torch.stack(cams), logits, attention


def cam_and_caa(clip, image, learner, labels, grid, layers=8, power=2, threshold=0.4):
    """CAMs and refined maps (P,h,w) of one image.

    The affinity is masked by a whole (L,L) matrix for each class."""
    cams, _, attention = softmax_gradcam(clip, image, learner, labels, grid)
    a = attention[-layers:, 0, 1:, 1:].mean(0)
    a = a / a.sum(0, keepdim=True)
    a = a / a.sum(1, keepdim=True)
    a = torch.linalg.matrix_power((a + a.T) / 2, power)
    score = min_max(cams.detach())
    pairs = affinity_mask(box_mask(score, threshold))
    refined = [(a * p) @ s.flatten() for p, s in zip(pairs, score)]
    return cams.detach(), torch.stack(refined).view_as(score)


def classification_step(clip, images, learner, labels, grid):
    """Gradient of the context of one classification step.

    The CAM is computed, as the forward pass always does, and not used."""
    _, logits, _ = softmax_gradcam(clip, images, learner, labels, grid, create_graph=True)
    return torch.autograd.grad(contrastive_loss(logits, labels), learner.ctx)[0]


def activation_step(clip, images, learner, labels, grid, seeds):
    "Gradient of the context of one step of the segmentation task."
    cams, _, _ = softmax_gradcam(clip, images, learner, labels, grid, create_graph=True)
    return torch.autograd.grad(cam_activation_loss(cams, labels, seeds), learner.ctx)[0]
