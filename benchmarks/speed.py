"""How much faster than the published way of computing, and is it the same result?

    python benchmarks/speed.py [--quick] [--rounds 5] [--only WORD] [--out runs/bench/speed.csv]

Every row is first checked to be equal in result, then both ways are timed in turn on the same
inputs: CPU seconds of this one process (`time.process_time`, one thread), medians. CPU seconds, not
seconds on the clock, so that other jobs on the machine hardly matter; only ratios are meant to be
compared between machines. Weights are random (nothing is downloaded): time does not depend on them.

Rows that name a module of `fmwsss.fast` compare a user's stage with the plain form of that one part
and with its fast form: a form that saves less than 10 % of its stage is not worth its lines.
`--quick`: tiny sizes, to see that it runs.
"""

import argparse
import csv
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch are loaded

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

sys.path.insert(0, str(Path(__file__).parent))
import published_way as published

from fmwsss.data.voc import VOCDataset
from fmwsss.fast import image as fast_image
from fmwsss.fast import runs as fast_runs
from fmwsss.fast.linear_cam import cam_matrices, linear_gradcam
from fmwsss.fast.text import PromptLearner
from fmwsss.method import cam as plain_cam
from fmwsss.method import masks as plain_masks
from fmwsss.method import sams as plain_sams
from fmwsss.method.affinity import refine
from fmwsss.method.evaluation import evaluate
from fmwsss.method.labels import VOC_BACKGROUND, VOC_PROMPT_NAMES
from fmwsss.method.losses import cam_activation_loss, contrastive_loss
from fmwsss.method.masks import Masks
from fmwsss.method.sams import oracle_seed
from fmwsss.minivoc.scenes import scene
from fmwsss.models.adapter import Clip
from fmwsss.models.clip import build_open_clip, load_clip
from fmwsss.models.sam import load_sam
from fmwsss.refiners.crf import CLIP_ES, dense_crf, probabilities
from fmwsss.sources.automatic import generate_masks
from fmwsss.sources.disk import save_masks
from fmwsss.sources.needed import sam_source
from fmwsss.sources.settings import FOR_MODEL
from fmwsss.study.stages import pack
from fmwsss.study.tasks import image_features

COLUMNS = ["work", "published_seconds", "our_seconds", "ratio", "target", "saves_percent"]
WORTH_IT = ">= 1.11"  # a fast form saves at least 10 % of its stage


@dataclass
class Work:
    """One row: `theirs()` and `ours()` give results that `same(theirs, ours)` finds equal.

    same: returns what it compared, as text, or raises. target: '>= x' of theirs / ours, or '<= x'
    of ours / theirs. less: seconds of a part that both have and that is taken off both. size:
    results are numbers of bytes, not to be timed."""

    name: str
    theirs: Callable
    ours: Callable
    same: Callable
    target: str
    less: Callable | None = None
    size: bool = False


# ------------------------------------------------------------------ equal?
def close(tolerance: float) -> Callable:
    "Compare arrays (or tuples of arrays), relative to the largest value."

    def same(a, b):
        pairs = zip(a, b) if isinstance(a, tuple) else [(a, b)]
        worst = max(difference(x, y) for x, y in pairs)
        allowed = f"allowed {tolerance:.0e}"
        assert worst <= tolerance, f"results differ by {worst:.1e} of the largest value, {allowed}"
        return f"differ by at most {worst:.0e} of the largest value"

    return same


def difference(x, y) -> float:
    "The largest difference, as a share of the largest value."
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    return float((x - y).abs().max() / x.abs().max())


def equal(a, b) -> str:
    "Compare arrays exactly."
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape and (a == b).all(), "results differ"
    return f"equal, {a.size} numbers"


def same_masks(theirs, ours: Masks) -> str:
    "Every official mask is among ours and the other way round, IoU 1 after matching."
    dense = ours.dense()
    theirs = [m["segmentation"] for m in theirs if m["area"]]
    iou = np.array([[(t & o).sum() / (t | o).sum() for o in dense] for t in theirs])
    assert len(theirs) == len(dense) > 0, f"{len(theirs)} and {len(dense)} masks"
    worst = min(iou.max(1).min(), iou.max(0).min())
    assert worst > 0.999, "masks differ"
    return f"{len(dense)} masks, smallest IoU after matching {worst:.4f}"


# ------------------------------------------------------------------ inputs
def drawn_masks(n: int, size, seed: int = 0) -> Masks:
    "n masks of one to three ellipses with levels drawn at random."
    rng, (h, w) = np.random.default_rng(seed), size
    dense = np.zeros((n, h, w), np.uint8)
    for mask in dense:
        for _ in range(rng.integers(1, 4)):
            axes = int(rng.integers(3, w // 4)), int(rng.integers(3, h // 4))
            centre = int(rng.integers(w)), int(rng.integers(h))
            cv2.ellipse(mask, centre, axes, int(rng.integers(180)), 0, 360, 1, -1)
    return Masks.of(dense, rng.integers(0, 3, n), rng.random(n), rng.random(n))


def smooth_cams(k: int, size, seed: int = 0) -> np.ndarray:
    "k smooth signed maps (k, H, W) float32."
    draw = lambda i: np.random.default_rng([seed, i]).normal(size=size).astype(np.float32)
    return np.stack([cv2.GaussianBlur(draw(i), (0, 0), size[0] / 9) for i in range(k)])


def tiny_clip():
    "A CLIP of three narrow blocks."
    from open_clip.model import CLIP

    vision = dict(image_size=32, patch_size=8, width=64, head_width=32, layers=3)
    text = dict(context_length=77, vocab_size=49408, width=32, heads=1, layers=2)
    return CLIP(embed_dim=32, quick_gelu=True, vision_cfg=vision, text_cfg=text)


def make_clip(quick: bool) -> Clip:
    "A frozen ViT-B/16 (or a tiny one) with random weights, norms and biases not trivial."
    torch.manual_seed(0)
    model = tiny_clip() if quick else build_open_clip("ViT-B-16-quickgelu")
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, float(parameter.detach().mean()), 0.1)
    return Clip(model, "random")


# ------------------------------------------------------------------ masks and seeds
def mask_works(quick: bool):
    "Filter, seeding, and the rival."
    size, n, few = ((60, 80), 30, 12) if quick else ((375, 500), 150, 60)
    of = f"{size[0]}x{size[1]}"
    many, some, cams = drawn_masks(n, size), drawn_masks(few, size, 1), smooth_cams(2, size)
    kept = lambda module: lambda: np.asarray(module.rock_sand_water(many, indices=True))
    yield Work(
        f"rock-sand-water filter, {n} masks {of}",
        lambda: published.rock_sand_water(many),
        kept(fast_runs),
        equal,
        ">= 500",
    )
    seed = lambda: fast_runs.sams(cams, some, [3, 7], 0.6)[0]
    yield Work(
        f"SAMS, {few} masks {of}, 2 classes",
        lambda: published.sams(cams, some, [3, 7], 0.6),
        seed,
        equal,
        ">= 15",
    )
    yield Work(
        f"refinement of {of}, dense CRF 10 iterations against SAMS",
        partial(dense_crf, scene(3, size=size).image, probabilities(cams), 10, **CLIP_ES),
        seed,
        both_are_labels(size),
        ">= 20",
    )
    yield Work(
        f"fast.runs: filter and SAMS of an image, {n} masks {of}",
        partial(filter_and_sams, plain_masks.rock_sand_water, plain_sams.sams, cams, many),
        partial(filter_and_sams, fast_runs.rock_sand_water, fast_runs.sams, cams, many),
        equal,
        WORTH_IT,
    )


def filter_and_sams(rock_sand_water, sams, cams, masks):
    "What makes a seed of stored masks and maps."
    return sams(cams, rock_sand_water(masks), [3, 7], 0.6)[0]


def both_are_labels(size) -> Callable:
    "Two methods: not equal, but both must give a label to every pixel."

    def same(theirs, ours):
        assert theirs.shape[1:] == ours.shape == size and set(np.unique(ours)) <= {0, 4, 8}
        return "two methods: both give a label to every pixel"

    return same


# ------------------------------------------------------------------ CAMs and training
def multi_hot(n: int, pairs) -> torch.Tensor:
    "Labels (n, 20) of (image, class) pairs."
    labels = torch.zeros(n, 20, dtype=torch.long)
    for image, label in pairs:
        labels[image, label] = 1
    return labels


def maps_of(clip, trunk, cam, image, text, labels) -> tuple:
    "CAMs and refined CAMs (P, h, w) of one image."
    tokens, attention = trunk(image, 8)
    cams, _ = cam(tokens, clip.grid(image), text, labels)
    cams = cams.detach()
    return cams, refine(cams, attention[0], power=2, threshold=0.4)


def encoder_alone(clip, image):
    "open_clip's own transformer, no gradient, no attention kept -> feature of unit norm."
    with torch.no_grad():
        x = clip.visual.transformer(fast_image.embed_patches(clip, image))
        return F.normalize(clip.visual.ln_post(x[:, 1:]).mean(1) @ clip.visual.proj, dim=-1)


def cam_works(quick: bool):
    "CAM and CAA of an image."
    clip, names = make_clip(quick), VOC_PROMPT_NAMES + VOC_BACKGROUND
    learner = PromptLearner(clip, names, seed=0)
    h, w = (40, 56) if quick else (368, 496)
    image, two, one = torch.randn(1, 3, h, w), [(0, 3), (0, 7)], [(0, 3)]
    with torch.no_grad():
        text = learner()
    maps = partial(maps_of, clip, clip.trunk, clip.softmax_gradcam, image, text)
    ours = lambda: maps(multi_hot(1, two))
    grid = clip.grid(image)
    theirs = lambda: published.cam_and_caa(clip, image, learner, multi_hot(1, two), grid)
    name = f"CAM + CAA of a {h}x{w} image, 2 classes, 45 prompts"
    yield Work(name, theirs, ours, close(1e-3), ">= 2.8")
    forward = lambda: encoder_alone(clip, image)
    same = lambda a, b: close(1e-3)(a, fast_image.image_features(clip, image))
    words = "the same against the encoder's forward alone"
    yield Work(words, forward, ours, lambda a, b: f"{same(a, b)} (the feature)", "<= 1.15")
    single = lambda: maps(multi_hot(1, one))
    yield Work("the same with 1 class", forward, single, same, "<= 1.15")
    form = f"CAM + CAA of a {h}x{w} image, 2 classes"
    more = image, text, multi_hot(1, two)
    slow_trunk = partial(maps_of, clip, clip.image.trunk, clip.softmax_gradcam, *more)
    yield Work(f"fast.image: {form}", slow_trunk, ours, close(1e-3), WORTH_IT)
    slow_cam = partial(plain_cam.softmax_gradcam, clip)
    slow = partial(maps_of, clip, clip.trunk, slow_cam, *more)
    yield Work(f"fast.cam: {form}", slow, ours, close(1e-3), WORTH_IT)


def training_works(quick: bool):
    "Steps of the two tasks."
    clip, names = make_clip(quick), VOC_PROMPT_NAMES + VOC_BACKGROUND
    side = 32 if quick else 224
    batch, seeds = torch.randn(4, 3, side, side), torch.randint(0, 16, (4, side, side))
    labels = multi_hot(4, ((0, 1), (1, 2), (1, 14), (2, 5), (2, 6), (3, 11)))
    grid = clip.grid(batch)
    shared = PromptLearner(clip, names, seed=0)
    own = PromptLearner(clip, names, per_class=True, position="front", seed=0)

    def classify(features=lambda: image_features(clip, batch)):
        text = shared(20)  # the loss looks at the classes alone
        loss = contrastive_loss(clip.logits(features(), text), labels)
        return torch.autograd.grad(loss, shared.ctx)[0]

    def activate(learner, cam=clip.softmax_gradcam):
        tokens = clip.trunk(batch)
        cams, _ = cam(tokens, grid, learner(), labels, create_graph=True)
        return torch.autograd.grad(cam_activation_loss(cams, labels, seeds), learner.ctx)[0]

    sizes = f"batch 4 at {side}, 45 prompts"
    theirs = lambda: published.classification_step(clip, batch, shared, labels, grid)
    name = f"classification step, {sizes}, one context"
    yield Work(name, theirs, classify, close(1e-3), ">= 6")
    for what, learner in (("one context", shared), ("a context a class", own)):
        theirs = partial(published.activation_step, clip, batch, learner, labels, grid, seeds)
        name = f"CAM activation step, the same sizes, {what}"
        yield Work(name, theirs, partial(activate, learner), close(1e-3), ">= 2.2")
    slow = lambda: classify(lambda: plain_features(clip, batch))
    name = f"fast.image: classification step, {sizes}"
    yield Work(name, slow, classify, close(1e-3), WORTH_IT)
    yield Work(
        f"fast.text: classification step, {sizes}",
        with_plain_text(clip, classify),
        classify,
        close(1e-3),
        WORTH_IT,
    )


def linear_works(quick: bool):
    "A step on pictures whose matrices of all CAMs are known."
    clip, names = load_clip("webclip"), VOC_PROMPT_NAMES + VOC_BACKGROUND
    learner = PromptLearner(clip, names, per_class=True, position="front", seed=0)
    side, many = (64, 2) if quick else (128, 8)
    pixels = torch.randn(many, 3, side, side)
    seeds = torch.randint(0, 21, (many, side, side))
    labels = multi_hot(many, [(n, c) for n in range(many) for c in (n, n + 9)])
    tokens, grid = clip.trunk(pixels), clip.grid(pixels)
    matrices = cam_matrices(clip, tokens)

    def step(cam, known):
        cams, _ = cam(known, grid, learner(), labels, create_graph=True)
        return torch.autograd.grad(cam_activation_loss(cams, labels, seeds), learner.ctx)[0]

    slow = partial(step, clip.softmax_gradcam, tokens)
    ours = partial(step, partial(linear_gradcam, clip), matrices)
    name = f"fast.linear_cam: CAM activation step of webclip, batch {many} at {side}"
    yield Work(f"{name}, matrices known", slow, ours, close(1e-3), WORTH_IT)


def plain_features(clip, pixels):
    "Image features by the plain forms of the towers."
    with torch.no_grad():
        tokens = clip.image.trunk(pixels)
        return clip.feature(tokens, clip.activation(tokens), clip.grid(pixels))


def with_plain_text(clip, f) -> Callable:
    "f with the plain form of the text tower; the image tower of `f` is fast in any case."

    def run():
        clip.plain = True
        try:
            return f()
        finally:
            clip.plain = False

    return run


# ------------------------------------------------------------------ mask generation
def generation_works(quick: bool):
    "The official generator against ours."
    sam, points = load_sam(), 4 if quick else 16
    settings = dict(points_per_side=points, pred_iou_thresh=0.6)
    ours = dict(settings, stability_thresh=0.5, crop_layers=0, min_region_area=20)
    ours.update(whole_iou_bonus=0, whole_nms_bonus=0)
    official = SamAutomaticMaskGenerator(
        sam, stability_score_thresh=0.5, min_mask_region_area=20, **settings
    )
    for size in ((96, 128),) if quick else ((375, 500), (128, 128)):
        image = scene(3, size=size).image
        of = f"{points} points a side, {size[0]}x{size[1]}"
        works = partial(official.generate, image), partial(generate_masks, sam, image, **ours)
        less = partial(lambda image: SamPredictor(sam).set_image(image), image)
        name = f"mask generation beyond the encoder, {of}"
        yield Work(name, *works, same_masks, ">= 2", less)
        if size[0] > 128 or quick:
            yield Work(f"fast.decoder: masks of an image, {of}", *works, same_masks, WORTH_IT)


# ------------------------------------------------------------------ masks on a laptop
REAL_PHOTOS = 8


def real_photos() -> tuple:
    "Photos, true masks and MobileSAM's weights of FMWSSS_REAL, or ([], [], None) without it."
    folder = Path(os.environ.get("FMWSSS_REAL", "")) / "voc"
    weights = folder.parent / "weights" / "mobile_sam.pt"
    if not weights.is_file():
        return [], [], None
    photos = VOCDataset(folder, "val")
    some = range(min(REAL_PHOTOS, len(photos)))
    return [photos.image(i) for i in some], [photos.mask(i) for i in some], str(weights)


def masks_bound(several, truths) -> float:
    "mIoU of some photos when each of their masks takes its true class."
    pairs = zip(several, truths)
    return evaluate((oracle_seed(masks, t), t) for masks, t in pairs).miou


def good_masks(truths: list) -> Callable:
    "Compare two lists of masks, one an image, by their bound; without truth by their number."

    def same(theirs, ours):
        theirs = [Masks.of(m) for m in theirs]
        counts = [np.mean([len(m) for m in several]) for several in (theirs, ours)]
        if not truths:
            assert min(counts) > 0, "no masks"
            return "masks an image {:.0f} and {:.0f}".format(*counts)
        a, b = masks_bound(theirs, truths), masks_bound(ours, truths)
        assert b >= a - 0.01, f"bound {b:.3f}, of the whole grid {a:.3f}"
        return "bound {:.3f} and {:.3f}, masks {:.0f} and {:.0f}".format(a, b, *counts)

    return same


def needed_works(quick: bool):
    "The official generator against points that are needed, in bfloat16 where the CPU has it."
    images, truths, weights = ([], [], None) if quick else real_photos()
    model = "mobile_sam" if weights else "minisam"
    settings = FOR_MODEL["mobile_sam" if weights else "minisam"].settings
    if not weights:  # random weights find no masks that could be left out: the miniature's do
        settings = dict(settings, max_area=0.15, points_per_side=4 if quick else 16)
        images = [scene(3, size=(96, 128) if quick else (375, 500)).image]
    least = settings["stability_thresh"]
    official = SamAutomaticMaskGenerator(
        load_sam(model, weights),
        points_per_side=settings["points_per_side"],
        pred_iou_thresh=settings["pred_iou_thresh"],
        stability_score_thresh=min(least) if isinstance(least, tuple) else least,
        min_mask_region_area=100,
    )
    source = sam_source(model, weights, **settings)
    theirs = lambda: [official.generate(image) for image in images]
    ours = lambda: [source(image) for image in images]
    name = f"masks of {len(images)} images, {model}, {settings['points_per_side']} points a side"
    yield Work(name, theirs, ours, good_masks(truths), ">= 4" if weights else ">= 1")


# ------------------------------------------------------------------ disk
def disk_works(quick: bool):
    "Bytes of one image: what is stored, against the attention of 8 layers kept beside the CAMs."
    size, grid, n = ((60, 80), (5, 7), 12) if quick else ((375, 500), (23, 31), 60)
    length = grid[0] * grid[1]
    cams, masks = smooth_cams(2, grid), drawn_masks(n, size, 1)

    def stored():
        "Masks, and CAM, CAA and control packed; the attention is used when it is there."
        with tempfile.TemporaryDirectory() as folder:
            save_masks(Path(folder) / "masks.npz", masks)
            maps = dict(classes=np.array([3, 7], np.uint8), size=np.array(size))
            for name in ("cam", "caa", "uniform"):
                maps[name], maps[f"{name}_scale"] = pack(cams)
            np.savez_compressed(Path(folder) / "cams.npz", **maps)
            return sum(p.stat().st_size for p in Path(folder).iterdir())

    def cached():
        file = io.BytesIO()
        attention = np.random.default_rng(0).random((8, length, length), np.float32)
        np.savez(file, attention=attention, cams=cams)
        return file.getbuffer().nbytes

    def read_back(theirs, ours):
        maps, scale = pack(cams)
        worst = np.abs(maps.astype(np.float32) * scale - cams).max()
        assert worst < 1e-3 * np.abs(cams).max()
        return "masks exact, maps to a thousandth"

    name = f"disk an image of {size[0]}x{size[1]}, {n} masks, 2 classes: MB, not seconds"
    yield Work(name, cached, stored, read_back, "<= 0.04 MB", size=True)


# ------------------------------------------------------------------ the table
LONG = 60.0
GROUPS = (mask_works, cam_works, training_works, linear_works)
GROUPS += (generation_works, needed_works, disk_works)


def works(quick: bool = False):
    "All rows."
    for group in GROUPS:
        yield from group(quick)


def clocked(f) -> tuple:
    "What f() gives, and its CPU seconds."
    start = time.process_time()
    found = f()
    return found, time.process_time() - start


def seconds(f) -> float:
    "CPU seconds of f()."
    return clocked(f)[1]


def one_round(work: Work, calls: int) -> tuple:
    "Seconds of both ways and of what is taken off both."
    ours = np.median([seconds(work.ours) for _ in range(calls)])
    return seconds(work.theirs), ours, seconds(work.less) if work.less else 0.0


def measure(work: Work, rounds: int) -> tuple[str, dict]:
    """Check equality, then time both ways in turn -> (text of the check, row).

    What takes more than `LONG` seconds is timed while it is checked, and once."""
    (theirs, a), (ours, b) = clocked(work.theirs), clocked(work.ours)
    checked = work.same(theirs, ours)
    if work.size:
        a, b = theirs / 1e6, ours / 1e6
    elif a < LONG:
        calls = max(1, min(30, int(0.02 / max(seconds(work.ours), 1e-4))))  # short ones often
        a, b, less = np.median([one_round(work, calls) for _ in range(rounds)], 0)
        a, b = a - less, b - less
    slower = work.target.startswith("<=") and not work.size
    ratio = b / a if slower else a / b
    saves = "" if slower else f"{100 * (1 - b / a):.1f}"
    values = (work.name, f"{a:.6f}", f"{b:.6f}", f"{ratio:.4g}", work.target, saves)
    return checked, dict(zip(COLUMNS, values))


def met(row: dict) -> bool:
    "Whether a row reaches its target."
    sign, limit = row["target"].split()[:2]
    value = float(row["our_seconds"] if "MB" in row["target"] else row["ratio"])
    return value >= float(limit) if sign == ">=" else value <= float(limit)


def show(row: dict, checked: str):
    "One line for the terminal."
    numbers = [float(row[c]) for c in COLUMNS[1:4]]
    answer = "met" if met(row) else "MISSED"
    left = f"{row['work']:68s} {numbers[0]:10.4f} {numbers[1]:10.4f} {numbers[2]:8.2f}"
    print(f"{left}  {row['target']:>10s} {answer}   [{checked}]", flush=True)


def read(path: Path) -> dict:
    "{work: row} of a table that is there already."
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {row["work"]: row for row in csv.DictReader(file)}


def write(path: Path, rows: dict):
    "The table as a file."
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows.values())


def main(arguments=None):
    "The command."
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes; targets mean nothing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this in it; others stay")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/speed.csv"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    kept = read(options.out) if options.only else {}
    rows = {}
    print(f"{'work':68s} {'published':>10s} {'ours':>10s} {'ratio':>8s}  {'target':>10s}")
    for work in works(options.quick):
        if options.only in work.name:
            checked, row = measure(work, options.rounds)
            rows[work.name] = row
            show(row, checked)
            write(options.out, {**kept, **rows})
    tiny = " (tiny sizes: meaningless)" if options.quick else ""
    counts = f"{sum(map(met, rows.values()))} of {len(rows)} targets met{tiny}"
    print(f"{counts}; CPU seconds, one thread; {options.out}")


if __name__ == "__main__":
    main()
