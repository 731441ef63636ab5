"""Small random models of the published layouts, built in milliseconds."""
import torch
from open_clip.model import CLIP
from fmwsss.models.clip import Clip
from fmwsss.models.sam import build_sam
from fmwsss.models.weights import freeze

CLIP_CONFIG = dict(embed_dim=32, quick_gelu=True,
                   vision_cfg=dict(image_size=32, patch_size=8, width=128, head_width=64, layers=3),
                   text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=2))
SAM_CONFIG = dict(img_size=64, patch_size=8,
                  encoder=dict(embed_dim=32, depth=1, num_heads=1, use_rel_pos=True, window_size=0, global_attn_indexes=[0],
                               stem=dict(channels=[8, 16, 32], blocks=[0, 1, 1])),
                  decoder=dict(transformer_dim=32, depth=1, mlp_dim=32, num_heads=2, iou_head_hidden_dim=32))


def small_clip(seed=0):
    torch.manual_seed(seed)
    clip = CLIP(**CLIP_CONFIG)
    for name, parameter in clip.named_parameters():       # default initialisation leaves biases and norms trivial
        if parameter.ndim == 1: torch.nn.init.normal_(parameter, 1. if name.endswith('weight') else 0., .2)
    return Clip(clip, 'small')


def small_sam(seed=0):
    torch.manual_seed(seed)
    return freeze(build_sam(SAM_CONFIG))
