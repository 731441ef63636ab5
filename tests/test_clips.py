"""CLIPs of other families, small and with random weights: CAM, affinity, learning; the table."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from fmwsss.method.affinity import refine
from fmwsss.method.prompts import PromptLearner
from fmwsss.models.adapter import Clip
from fmwsss.models.clip import build_open_clip

DOCS = Path(__file__).parent.parent / "docs"
TEXT = dict(context_length=24, vocab_size=49408, width=64, heads=2, layers=2)
VISION = dict(image_size=32, patch_size=8, width=64, head_width=32, layers=3)
TIMM = dict(timm_model_pretrained=False, image_size=32)


def timm(name, pool, proj):
    return dict(TIMM, timm_model_name=name, timm_pool=pool, timm_proj=proj)


CAPTIONS = dict(TEXT, context_length=24, n_queries=8, attn_pooler_heads=2)
FAMILIES = dict(
    openai=dict(embed_dim=32, quick_gelu=True, vision_cfg=VISION, text_cfg=TEXT),
    laion=dict(embed_dim=32, vision_cfg=VISION, text_cfg=TEXT),
    clipa=dict(
        embed_dim=32,
        vision_cfg=dict(VISION, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
        text_cfg=dict(TEXT, pool_type="last", no_causal_mask=True),
    ),
    coca=dict(
        embed_dim=32,
        vision_cfg=dict(VISION, attentional_pool=True, attn_pooler_heads=2, output_tokens=True),
        text_cfg=dict(TEXT, embed_cls=True, output_tokens=True),
        multimodal_cfg=dict(CAPTIONS, mlp_ratio=4),
        custom_text=True,
    ),
    siglip=dict(
        embed_dim=192,
        init_logit_bias=-10,
        custom_text=True,
        vision_cfg=timm("vit_tiny_patch16_224", "map", "none"),
        text_cfg=dict(TEXT, no_causal_mask=True, proj_bias=True, pool_type="last"),
    ),
    eva=dict(
        embed_dim=32,
        custom_text=True,
        vision_cfg=timm("eva02_tiny_patch14_224", "token", "linear"),
        text_cfg=TEXT,
    ),
)


@pytest.fixture(params=FAMILIES)
def clip(request, monkeypatch):
    copy = lambda c: {k: dict(v) if isinstance(v, dict) else v for k, v in c.items()}
    config = FAMILIES[request.param]
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: copy(config))
    torch.manual_seed(0)
    return Clip(build_open_clip(request.param), request.param)


def test_cam_affinity_and_learning(clip):
    "Signed CAMs of the right shape, attention whose rows sum to 1, a second-order gradient."
    torch.manual_seed(1)
    images = np.random.default_rng(0).integers(0, 256, (2, 3 * clip.patch, 4 * clip.patch, 3))
    pixels = clip.pixels(list(images.astype(np.uint8)), clip.patch)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]])
    tokens, attention = clip.trunk(pixels, 2)
    assert attention.shape == (2, 12, 12) and attention.min() >= 0
    assert (attention.sum(-1) <= 1 + 1e-4).all()
    learner = PromptLearner(clip, ["cat", "dog", "sheep", "tree"], n_ctx=4, seed=0)
    text = learner()
    cams, logits = clip.softmax_gradcam(tokens, clip.grid(pixels), text, labels, True)
    assert cams.shape == (3, 3, 4) and logits.shape == (2, 4)
    assert cams.isfinite().all() and (cams > 0).any() and (cams < 0).any()
    (gradient,) = torch.autograd.grad(cams.square().sum(), learner.ctx)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    refined = refine(cams.detach(), attention, labels.nonzero()[:, 0])
    assert refined.shape == cams.shape and refined.isfinite().all()


def test_the_fast_forms_are_taken_where_they_fit(clip):
    assert clip.fits_fast == (clip.name in ("openai", "laion"))


def test_the_feature_is_the_models_own_where_it_pools_patches(clip):
    "Towers that pool patches themselves: ours is their embedding, at their own size."
    if clip.name not in ("coca", "siglip", "clipa"):
        pytest.skip("it has a class token, which the method leaves out")
    pixels = torch.randn(2, 3, 32, 32)
    tokens = clip.trunk(pixels)
    ours = clip.feature(tokens, clip.activation(tokens), clip.grid(pixels))
    theirs = torch.nn.functional.normalize(clip.model.encode_image(pixels), dim=-1)
    assert torch.allclose(ours, theirs, atol=1e-4)


def table():
    page = (DOCS / "clips.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\S+) \| ([^|]+) \| (\S*) ?\| (\d+) \| (\d+) \| (.*) \|$", page)
    return page, {r[0]: r[1:] for r in rows}


def test_the_table_of_all_configurations():
    page, rows = table()
    works = [r for r in rows.values() if r[0] != "no"]
    assert f"**{len(works)} of {len(rows)} configurations work" in page
    assert all(r[-1] for r in rows.values() if r[0] == "no")
    for family in ("ViT-B-16-quickgelu", "ViT-L-14", "coca_ViT-B-32", "ViT-B-16-SigLIP"):
        assert rows[family][0] != "no", family
    for family in ("EVA02-B-16", "ViT-B-16-SigLIP2", "ViT-H-14-quickgelu", "ViT-B-16-plus-240"):
        assert rows[family][0] != "no", family


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-SigLIP2-256", "EVA02-B-16", "RN50"])
def test_the_table_is_what_is_built(name):
    spec = importlib.util.spec_from_file_location("clips", DOCS / "clips.py")
    clips = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(clips)
    found = clips.row(name)
    works, patch, tokens, _, why = table()[1][name]
    assert [found[k] for k in ("works", "why")] == [works, why]
    assert [str(found[k]) for k in ("patch", "tokens")] == [patch, tokens]
