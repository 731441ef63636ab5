"""The paper's presets from files in the published formats to pseudo labels, with random weights.

`make test-fullsize`.

Builds OpenAI's ViT-B/16 archive, SAM's ViT-B checkpoint, and VOC and COCO folders of drawn
pictures with as many (linked) files and list lines as the published ones, then runs both
presets: few pictures, points and iterations, everything else as published. It shows that the
whole way works at full size, in how many seconds and how much memory. The weights are random, so
the mIoU says nothing."""

import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image
from segment_anything import sam_model_registry

from fmwsss.app.runner import reproduce
from fmwsss.data.coco_names import COCO_CLASSES, COCO_IDS
from fmwsss.data.label_maps import save_label
from fmwsss.minivoc.scenes import scene

COUNTS = dict(
    voc=dict(train=1464, train_aug=10582, val=1449), coco=dict(train2014=82081, val2014=40137)
)
NOTHING = "The weights are random: the mIoU in this table says nothing about the method."


def openai_archive(path, config=None):
    """A TorchScript archive as OpenAI published CLIP.

    Half-precision weights with code, and three numbers beside them."""
    torch.manual_seed(0)
    clip = (
        open_clip.model.CLIP(**(config or open_clip.get_model_config("ViT-B-16-quickgelu")))
        .eval()
        .requires_grad_(False)
    )
    size = clip.visual.conv1.kernel_size[0] * round(
        (len(clip.visual.positional_embedding) - 1) ** 0.5
    )
    for name, value in dict(input_resolution=size, context_length=77, vocab_size=49408).items():
        if hasattr(clip, name):
            delattr(clip, name)
        clip.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace_module(
            clip,
            dict(
                encode_image=(torch.zeros(1, 3, size, size),),
                encode_text=(torch.zeros(1, 77, dtype=torch.long),),
            ),
            check_trace=False,
        )
        torch.jit.save(traced.half(), path)
    return path


def sam_checkpoint(path, sam=None):
    """A state dict as Meta published SAM.

    Random, but sure of itself, or the filters would leave no mask at all."""
    torch.manual_seed(0)
    sam = sam or sam_model_registry["vit_b"]()
    decoder = sam.mask_decoder
    decoder.iou_prediction_head.layers[-1].bias.data.fill_(0.95)
    for network in decoder.output_hypernetworks_mlps:
        network.layers[-1].weight.data.mul_(300)
    torch.save(sam.state_dict(), path)
    return path


def link(source, folder, names, ending):
    "The files `source`, under `names` in turn."
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        os.link(source[k % len(source)], folder / f"{name}{ending}")


def drawn(folder, n, size=(375, 500)):
    "Drawn pictures of photo size as JPEG and label map -> (scenes, JPEG files, PNG files)."
    folder.mkdir(parents=True)
    scenes = [scene(seed, size) for seed in range(n)]
    for k, s in enumerate(scenes):
        Image.fromarray(s.image).save(folder / f"{k}.jpg", quality=90)
        save_label(folder / f"{k}.png", s.label)
    return scenes, *[[folder / f"{k}{ending}" for k in range(n)] for ending in (".jpg", ".png")]


def voc_folder(root, n=6, counts=COUNTS["voc"], size=(375, 500)):
    "VOCdevkit/VOC2012 with lists of published length (train_aug: by its masks and val)."
    _, photos, labels = drawn(root / "drawn", n, size)
    names = [f"{2007 + k % 6}_{k:06d}" for k in range(counts["train_aug"] + counts["val"])]
    val, train_aug, voc = names[: counts["val"]], names[counts["val"] :], root / "VOCdevkit/VOC2012"
    link(photos, voc / "JPEGImages", names, ".jpg")
    link(labels, voc / "SegmentationClassAug", names, ".png")
    train = train_aug[: counts["train"]]
    link(labels, voc / "SegmentationClass", [*train, *val], ".png")
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    for split, listed in dict(train=train, val=val).items():
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(listed) + "\n")
    return root


def instances(scenes, ids, names):
    "COCO's annotation file: every object of every picture as polygons."
    shapes = [
        [
            (
                kind,
                [
                    c.flatten().tolist()
                    for c in cv2.findContours(
                        (s.instance == number).astype(np.uint8),
                        cv2.RETR_EXTERNAL,
                        cv2.CHAIN_APPROX_SIMPLE,
                    )[0]
                    if len(c) >= 3
                ],
                int((s.instance == number).sum()),
            )
            for number, kind in s.objects
        ]
        for s in scenes
    ]
    height, width = scenes[0].label.shape
    annotations = [
        dict(image_id=i, category_id=COCO_IDS[kind], segmentation=polygons, area=area, iscrowd=0)
        for k, i in enumerate(ids)
        for kind, polygons, area in shapes[k % len(shapes)]
        if polygons
    ]
    return dict(
        categories=[dict(id=i, name=name) for i, name in zip(COCO_IDS, COCO_CLASSES)],
        annotations=annotations,
        images=[
            dict(id=i, file_name=f"{name}.jpg", height=height, width=width)
            for i, name in zip(ids, names)
        ],
    )


def coco_folder(root, n=6, counts=COUNTS["coco"], size=(375, 500)):
    "train2014, val2014 and annotations with as many pictures as have objects in COCO."
    scenes, photos, _ = drawn(root / "drawn", n, size)
    (root / "annotations").mkdir()
    for split, count in counts.items():
        ids = list(range(1, count + 1))
        names = [f"COCO_{split}_{i:012d}" for i in ids]
        link(photos, root / split, names, ".jpg")
        (root / f"annotations/instances_{split}.json").write_text(
            json.dumps(instances(scenes, ids, names))
        )
    return root


def fewer(kind, root, clip, sam, images=2, points=2, steps=2, batch=4):
    """What is changed of a preset.

    Where things are, how many pictures, points and iterations. Everything else stays as
    published."""
    small = dict(training=dict(steps=steps, warmup=1, batch_size=batch))
    return dict(
        data=dict(root=str(root), images=dict(train=images, tune=1, val=1)),
        models=dict(clip_weights=str(clip), sam="vit_b", sam_weights=str(sam)),
        masks=dict(sam=dict(points_per_side=points)),
        classification=small,
        segmentation=small,
        workers=1,
        strips=1,
    )


def check(out, record):
    "Every notebook ran, and pseudo labels, table and figure are there -> the stages."
    assert all(n["ok"] for n in record["notebooks"]), [
        n["error"] for n in record["notebooks"] if n["error"]
    ]
    labels = [p for p in (out / "pseudo_labels").rglob("*.png") if p.stem != "legend"]
    table = pd.read_csv(out / "tables/seeds.csv")
    assert len(labels) == record["parameters"]["data"]["images"]["train"]
    assert {"fixed", "classification", "segmentation"} == set(table.task)
    assert not record["skipped"]
    assert (out / "figures/strip.png").exists() and (out / "report.html").exists()
    return table, pd.DataFrame(record["stages"])


def main(folder):
    "Build everything, run both presets, print seconds and memory."
    begin = time.perf_counter()
    clip, sam = (
        openai_archive(folder / "ViT-B-16.pt"),
        sam_checkpoint(folder / "sam_vit_b_01ec64.pth"),
    )
    print(
        *(f"{f.name} {f.stat().st_size / 1e6:.0f} MB," for f in (clip, sam)),
        f"{time.perf_counter() - begin:.0f} s",
        flush=True,
    )
    for kind, build in (("voc2012", voc_folder), ("coco2014", coco_folder)):
        start = time.perf_counter()
        root, out = build(folder / kind), folder / f"run-{kind}"
        print(f"== {kind}: folder built in {time.perf_counter() - start:.0f} s", flush=True)
        table, stages = check(
            out,
            reproduce(
                kind, out, ["models", "seeds"], changes=fewer(kind, root, clip, sam), progress=False
            ),
        )
        print(
            stages[["stage", "part", "images", "computed", "seconds", "peak_megabytes"]].to_string(
                index=False
            )
        )
        print(table[["task", "method", "split", "images", "miou"]].to_string(index=False))
        print(f"{NOTHING}\n{kind}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"all: {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else folder))
