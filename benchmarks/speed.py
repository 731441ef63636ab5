"""How much faster than the published way of computing, and is it the same result?

    python benchmarks/speed.py [--quick] [--rounds 5] [--only WORD] [--out runs/bench/speed.csv]

Every row is first checked to be equal in result, then both ways are timed in turn on the same inputs: CPU seconds of this one process
(`time.process_time`, one thread), medians. CPU seconds, not seconds on the clock, so that other jobs on the machine hardly matter; only ratios are
meant to be compared between machines. Weights are random (nothing is downloaded): time does not depend on them. `--quick`: tiny sizes, to see that it runs.
"""
import argparse, csv, io, os, sys, tempfile, time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")            # before NumPy and torch are loaded

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

sys.path.insert(0, str(Path(__file__).parent))
import published_way as published
from fmwsss.method.affinity import refine
from fmwsss.fast.cam import softmax_gradcam
from fmwsss.refiners.crf import CLIP_ES, dense_crf, scores_to_probs
from fmwsss.fast.image import embed_patches, encode_image_trunk, image_features, patch_grid
from fmwsss.method.losses import cam_activation_loss, contrastive_loss
from fmwsss.minivoc.scenes import scene
from fmwsss.models.clip import build_open_clip
from fmwsss.models.sam import load_sam
from fmwsss.models.weights import freeze
from fmwsss.method.labels import VOC_BACKGROUND, VOC_PROMPT_NAMES
from fmwsss.study.stages import pack
from fmwsss.fast.text import PromptLearner
from fmwsss.fast.runs import rock_sand_water, sams
from fmwsss.method.sams import add_background, cam_scores
from fmwsss.method.masks import Masks
from fmwsss.sources.disk import save_masks
from fmwsss.sources.automatic import generate_masks

COLUMNS = ["work", "published_seconds", "our_seconds", "ratio", "target"]


@dataclass
class Work:
    """One row: `theirs()` and `ours()` give results that `same(theirs, ours)` finds equal (it returns what it compared, as text, or raises).

    target: '>= x' of theirs / ours, or '<= x' of ours / theirs. `less`: seconds of a part that both have and that is taken off both.
    `size`: results are numbers of bytes, not to be timed."""
    name: str
    theirs: Callable
    ours: Callable
    same: Callable
    target: str
    less: Callable | None = None
    size: bool = False


def close(tolerance):
    "Compare arrays (or tuples of arrays), relative to the largest value."
    def same(a, b):
        pairs = zip(a, b) if isinstance(a, tuple) else [(a, b)]
        worst = max(float((torch.as_tensor(x) - torch.as_tensor(y)).abs().max() / torch.as_tensor(x).abs().max()) for x, y in pairs)
        assert worst <= tolerance, f"results differ by {worst:.1e} of the largest value, allowed {tolerance:.0e}"
        return f"differ by at most {worst:.0e} of the largest value"
    return same


def equal(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape and (a == b).all(), "results differ"
    return f"equal, {a.size} numbers"


def same_masks(theirs, ours):
    "Every official mask is among ours and the other way round, IoU 1 after matching."
    theirs, dense = [m for m in theirs if m["area"]], ours.dense()
    iou = np.array([[(t["segmentation"] & o).sum() / (t["segmentation"] | o).sum() for o in dense] for t in theirs])
    assert len(theirs) == len(dense) > 0 and iou.max(1).min() > 0.999 and iou.max(0).min() > 0.999, "masks differ"
    return f"{len(dense)} masks, smallest IoU after matching {iou.max(1).min():.4f}"


def drawn_masks(n, size, seed=0):
    "n masks of one to three ellipses with levels drawn at random: `Masks`."
    rng, (h, w) = np.random.default_rng(seed), size
    dense = np.zeros((n, h, w), np.uint8)
    for m in dense:
        for _ in range(rng.integers(1, 4)):
            axes = int(rng.integers(3, w // 4)), int(rng.integers(3, h // 4))
            cv2.ellipse(m, (int(rng.integers(w)), int(rng.integers(h))), axes, int(rng.integers(180)), 0, 360, 1, -1)
    return Masks.of(dense, rng.integers(0, 3, n), rng.random(n), rng.random(n))


def smooth_cams(k, size, seed=0):
    "k smooth signed maps (k,H,W) float32."
    return np.stack([cv2.GaussianBlur(np.random.default_rng([seed, i]).normal(size=size).astype(np.float32), (0, 0), size[0] / 9) for i in range(k)])


def tiny_clip():
    from open_clip.model import CLIP
    return CLIP(embed_dim=32, quick_gelu=True, vision_cfg=dict(image_size=32, patch_size=8, width=64, head_width=32, layers=3),
                text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=1, layers=2))


def make_clip(quick):
    "A frozen ViT-B/16 (or a tiny one) with random weights, norms and biases not trivial."
    torch.manual_seed(0)
    clip = tiny_clip() if quick else build_open_clip("ViT-B-16-quickgelu")
    for parameter in clip.parameters():
        if parameter.ndim == 1: torch.nn.init.normal_(parameter, float(parameter.detach().mean()), 0.1)
    return freeze(clip)


def mask_works(quick):
    size, n, few = ((60, 80), 30, 12) if quick else ((375, 500), 150, 60)
    many, some, cams = drawn_masks(n, size), drawn_masks(few, size, 1), smooth_cams(2, size)
    yield Work(f"rock-sand-water filter, {n} masks {size[0]}x{size[1]}", lambda: published.rock_sand_water(many), lambda: rock_sand_water(many, indices=True).tolist(), equal, ">= 500")
    seed = lambda: sams(cams, some, [3, 7], 0.6)[0]
    yield Work(f"SAMS, {few} masks {size[0]}x{size[1]}, 2 classes", lambda: published.sams(cams, some, [3, 7], 0.6), seed, equal, ">= 15")
    image = scene(3, size=size).image
    probabilities = scores_to_probs(add_background(cam_scores(cams), 1.0))
    def both_are_labels(theirs, ours):
        assert theirs.shape[1:] == ours.shape == size and set(np.unique(ours)) <= {0, 4, 8}
        return "two methods: both give a label to every pixel"
    yield Work(f"refinement of {size[0]}x{size[1]}, dense CRF 10 iterations against SAMS", lambda: dense_crf(image, probabilities, 10, **CLIP_ES), seed, both_are_labels, ">= 20")


def cam_works(quick):
    clip, names = make_clip(quick), VOC_PROMPT_NAMES + VOC_BACKGROUND
    learner = PromptLearner(clip, names, seed=0)
    (h, w), side = ((40, 56), 32) if quick else ((368, 496), 224)
    image, batch = torch.randn(1, 3, h, w), torch.randn(4, 3, side, side)
    labels, grid = torch.zeros(1, 20, dtype=torch.long), patch_grid(clip, image)
    labels[0, [3, 7]] = 1
    with torch.no_grad(): text = learner()

    def ours():
        tokens, attention = encode_image_trunk(clip, image, attn_layers=8)
        cams, _ = softmax_gradcam(clip, tokens, grid, text, labels)
        return cams, refine(cams, attention[0], power=2, threshold=0.4)

    def forward():
        "The frozen encoder alone: open_clip's own transformer, no gradient, no attention maps kept."
        with torch.no_grad():
            x = clip.visual.transformer(embed_patches(clip, image))
            return F.normalize(clip.visual.ln_post(x[:, 1:]).mean(1) @ clip.visual.proj, dim=-1)

    yield Work(f"CAM + CAA of a {h}x{w} image, 2 classes, 45 prompts", lambda: published.cam_and_caa(clip, image, learner, labels, grid), ours, close(1e-3), ">= 2.8")
    yield Work("the same against the encoder's forward alone", forward, ours, lambda a, b: close(1e-3)(a, image_features(clip, image)) + " (the feature both start from)", "<= 1.15")
    alone = torch.zeros_like(labels); alone[0, 3] = 1
    def one():
        tokens, attention = encode_image_trunk(clip, image, attn_layers=8)
        return refine(softmax_gradcam(clip, tokens, grid, text, alone)[0], attention[0], power=2, threshold=0.4)
    yield Work("the same with 1 class", forward, one, lambda a, b: "as above", "<= 1.15")

    many = torch.zeros(4, 20, dtype=torch.long)
    for n, c in ((0, 1), (1, 2), (1, 14), (2, 5), (2, 6), (3, 11)): many[n, c] = 1
    grid4, seeds = patch_grid(clip, batch), torch.randint(0, 16, (4, side, side))

    def classify():
        logits = clip.logit_scale.exp() * image_features(clip, batch) @ learner(20).T             # the loss looks at the classes alone
        return torch.autograd.grad(contrastive_loss(logits, many), learner.ctx)[0]
    yield Work(f"classification step, batch 4 at {side}, 45 prompts, one context", lambda: published.classification_step(clip, batch, learner, many, grid4), classify, close(1e-3), ">= 6")

    own = PromptLearner(clip, names, per_class=True, position="front", seed=0)
    def activate(learner):
        cams, _ = softmax_gradcam(clip, encode_image_trunk(clip, batch), grid4, learner(), many, create_graph=True)
        return torch.autograd.grad(cam_activation_loss(cams, many, seeds), learner.ctx)[0]
    for what, contexts in (("one context", learner), ("a context a class", own)):
        yield Work(f"CAM activation step, the same sizes, {what}", lambda c=contexts: published.activation_step(clip, batch, c, many, grid4, seeds), lambda c=contexts: activate(c), close(1e-3), ">= 2.2")


def generation_works(quick):
    sam, settings = load_sam(), dict(points_per_side=4 if quick else 16, pred_iou_thresh=0.6)
    for size in ((96, 128),) if quick else ((375, 500), (128, 128)):
        image = scene(3, size=size).image
        official = SamAutomaticMaskGenerator(sam, stability_score_thresh=0.5, min_mask_region_area=20, **settings)
        ours = lambda image=image: generate_masks(sam, image, stability_thresh=0.5, crop_layers=0, min_region_area=20, whole_iou_bonus=0, whole_nms_bonus=0, **settings)
        yield Work(f"mask generation beyond the encoder, {settings['points_per_side']} points a side, {size[0]}x{size[1]}", lambda image=image, g=official: g.generate(image), ours, same_masks,
                   ">= 2", lambda image=image: SamPredictor(sam).set_image(image))


def disk_works(quick):
    size, grid, n = ((60, 80), (5, 7), 12) if quick else ((375, 500), (23, 31), 60)
    rng, length = np.random.default_rng(0), grid[0] * grid[1]
    cams, masks = smooth_cams(2, grid), drawn_masks(n, size, 1)

    def stored():
        "Bytes of one image as the library stores it: masks, and CAM, CAA and control packed; the attention is used when it is there, and not kept."
        with tempfile.TemporaryDirectory() as folder:
            save_masks(Path(folder) / "masks.npz", masks)
            maps = {f"{name}{part}": value for name in ("cam", "caa", "uniform") for part, value in zip(("", "_scale"), pack(cams))}
            np.savez_compressed(Path(folder) / "cams.npz", classes=np.array([3, 7], np.uint8), size=np.array(size), **maps)
            return sum(p.stat().st_size for p in Path(folder).iterdir())

    def cached():
        "Bytes with the attention of 8 layers cached as float32 beside the CAMs."
        file = io.BytesIO()
        np.savez(file, attention=rng.random((8, length, length), np.float32), cams=cams)
        return file.getbuffer().nbytes
    def read_back(theirs, ours):
        stored_maps, scale = pack(cams)
        assert np.abs(stored_maps.astype(np.float32) * scale - cams).max() < 1e-3 * np.abs(cams).max()
        return "masks exact, maps to a thousandth"
    yield Work(f"disk an image of {size[0]}x{size[1]}, {n} masks, 2 classes: MB, not seconds", cached, stored, read_back, "<= 0.04 MB", size=True)


def works(quick=False):
    "All rows."
    for group in (mask_works, cam_works, generation_works, disk_works): yield from group(quick)


def seconds(f):
    start = time.process_time()
    f()
    return time.process_time() - start


def measure(work, rounds):
    "Check equality, then time both ways in turn -> (text of the check, row)."
    theirs, ours = work.theirs(), work.ours()
    checked = work.same(theirs, ours)
    if work.size: a, b = theirs / 1e6, ours / 1e6
    else:
        calls = max(1, min(30, int(0.02 / max(seconds(work.ours), 1e-4))))                # short ones several times in a row
        times = np.array([(seconds(work.theirs), np.median([seconds(work.ours) for _ in range(calls)]), seconds(work.less) if work.less else 0) for _ in range(rounds)])
        a, b, less = np.median(times, 0)
        a, b = a - less, b - less
    ratio = b / a if work.target.startswith("<=") and not work.size else a / b
    return checked, dict(zip(COLUMNS, (work.name, f"{a:.6f}", f"{b:.6f}", f"{ratio:.4g}", work.target)))


def met(row):
    "Whether a row reaches its target."
    sign, limit = row["target"].split()[:2]
    value = float(row["our_seconds"] if "MB" in row["target"] else row["ratio"])
    return value >= float(limit) if sign == ">=" else value <= float(limit)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; targets mean nothing then")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/speed.csv"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    print(f"{'work':68s} {'published':>10s} {'ours':>10s} {'ratio':>8s}  {'target':>10s}")
    for work in works(options.quick):
        if options.only not in work.name: continue
        checked, row = measure(work, options.rounds)
        rows.append(row)
        print(f"{row['work']:68s} {float(row['published_seconds']):10.4f} {float(row['our_seconds']):10.4f} {float(row['ratio']):8.2f}  {row['target']:>10s} "
              f"{'met' if met(row) else 'MISSED'}   [{checked}]", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{sum(map(met, rows))} of {len(rows)} targets met{' (tiny sizes: meaningless)' if options.quick else ''}; CPU seconds, one thread; {options.out}")


if __name__ == "__main__": main()
