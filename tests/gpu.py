"""A card's first day: `make test-gpu`; reduced, on the CPU: `python tests/gpu.py --dry`.

Random weights at full size, no download, about ten minutes. Every row is one question with what was
measured and a verdict; the table is printed and written to `runs/gpu/<name of the card>.csv`.
Rows: parity with the published arrays in float32 and what bfloat16 costs; prompts, CAM, affinity,
masks (fast and official decoder), SAMS and training steps against the CPU; two processes on the
card; seconds and memory of ViT-B/16 and SAM ViT-H a photo; a plan for VOC and COCO from them."""

import argparse
import copy
import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import parity  # noqa: E402
from fmwsss.app.presets import settings_of  # noqa: E402
from fmwsss.engine.fit import fit  # noqa: E402
from fmwsss.fast import runs as fast_sams  # noqa: E402
from fmwsss.fast.decoder import decode_points  # noqa: E402
from fmwsss.fast.text import PromptLearner  # noqa: E402
from fmwsss.method.affinity import refine  # noqa: E402
from fmwsss.method.labels import VOC_BACKGROUND, VOC_PROMPT_NAMES  # noqa: E402
from fmwsss.method.prompts import text_features  # noqa: E402
from fmwsss.minivoc.scenes import scene  # noqa: E402
from fmwsss.models.adapter import Clip  # noqa: E402
from fmwsss.models.clip import build_open_clip  # noqa: E402
from fmwsss.models.sam import load_sam, sam_model_registry  # noqa: E402
from fmwsss.models.weights import freeze  # noqa: E402
from fmwsss.sources.automatic import generate_masks  # noqa: E402
from fmwsss.study.plan import plan  # noqa: E402
from fmwsss.study.tasks import Batch, classification_loss, segmentation_loss  # noqa: E402
from small import small_clip, small_sam  # noqa: E402

SLACK = 4.0  # a card adds up in another order: so many times the tolerances of the CPU
ON_DEVICE = "clip_model prompts gradcam masked_softmax contrastive_loss cam_activation_loss".split()
ON_DEVICE += ["affinity", "affinitynet"]


class Table:
    "Rows (what, measured, wanted, verdict), printed as they come."

    def __init__(self):
        self.rows = []

    def add(self, what, measured, wanted="", good=None):
        verdict = "" if good is None else "ok" if good else "WRONG"
        self.rows.append((what, measured, wanted, verdict))
        print(f"{what:<58} {measured:<26} {wanted:<22} {verdict}", flush=True)

    def ask(self, what, question):
        "question() -> (measured, wanted, good); an exception is a wrong row, the others follow."
        try:
            self.add(what, *question())
        except Exception as error:
            text = " ".join(str(error).split())[:120]
            self.add(what, f"{type(error).__name__}: {text}", "", False)

    @property
    def wrong(self):
        return sum(row[3] == "WRONG" for row in self.rows)


class Meter:
    "Seconds of a piece of work, after a warm-up, and the largest memory of the card."

    def __init__(self, device, repeats):
        self.cuda, self.repeats = torch.device(device).type == "cuda", repeats

    def __call__(self, work):
        work()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        for _ in range(self.repeats):
            work()
        if self.cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / self.repeats
        return seconds, torch.cuda.max_memory_allocated() / 1e9 if self.cuda else 0.0


def difference(a, b):
    "Largest difference, relative to the largest value of a."
    a, b = (x.detach().double().cpu() for x in (a, b))
    return float((a - b).abs().max() / a.abs().max().clamp(min=1e-12))


# ---------------------------------------------------------------- parity


def parity_rows(table, device):
    parity.DEVICE, parity.SLACK = device, SLACK if torch.device(device).type == "cuda" else 1.0
    checks = parity.checks()
    for group in ON_DEVICE:
        files = [f for f in parity.case_files() if parity.group_of(f, checks) == group]

        def question(group=group, files=files):
            count = 0
            for file in files:
                case = parity.Case(file)
                checks[group](case)
                count += case.finish()
            return f"{count} arrays", f"x {parity.SLACK:g} of the CPU's", count > 0

        table.ask(f"parity {group}, float32", question)


def half_rows(table, device):
    "What bfloat16 does to features, logits and losses: a table of tolerances."
    clip, images = small_clip().to(device), photos(2, (64, 96))
    names = VOC_PROMPT_NAMES + VOC_BACKGROUND
    kind = torch.device(device).type
    pixels = clip.pixels(images, clip.patch)
    tokens = clip.trunk(pixels)
    learner = PromptLearner(clip, names, n_ctx=4, seed=0).to(device)
    labels = some_labels(2).to(device)
    with torch.autocast(kind, torch.bfloat16):
        low_tokens, low_text = clip.trunk(pixels), learner()
    text = learner()
    feature = lambda x: clip.feature(x.float(), clip.activation(x.float()), clip.grid(pixels))
    batch = Batch(labels, feature(tokens), None, clip.grid(pixels), None)
    with torch.autocast(kind, torch.bfloat16):
        low_loss, _ = classification_loss(clip, low_text, batch)
    loss, _ = classification_loss(clip, text, batch)
    rows = dict(tokens=(tokens, low_tokens, 3e-2), text=(text, low_text, 3e-2))
    rows["loss, of float32 logits"] = (loss, low_loss, 3e-2)
    for name, (a, b, allowed) in rows.items():
        found = difference(a, b)
        table.add(f"bfloat16 {name}", f"{found:.1e}", f"<= {allowed:.0e}", found <= allowed)


# ---------------------------------------------------------------- against the CPU


def photos(n, size):
    return [scene(seed, size).image for seed in range(n)]


def some_labels(n, present=2):
    labels = torch.zeros(n, len(VOC_PROMPT_NAMES), dtype=torch.long)
    for i in range(n):
        labels[i, i : i + present] = 1
    return labels


def chain(clip, device):
    "Prompts, CAM, affinity, SAMS and gradients of both losses on a device."
    images, names = photos(2, (128, 128)), VOC_PROMPT_NAMES + VOC_BACKGROUND
    clip = Clip(copy.deepcopy(clip.model), "small").to(device)
    labels = some_labels(2).to(device)
    pixels = clip.pixels(images, clip.patch)
    grid = clip.grid(pixels)
    tokens, attention = clip.trunk(pixels, 2)
    learner = PromptLearner(clip, names, n_ctx=4, seed=0).to(device)
    text = learner()
    cams, logits = clip.softmax_gradcam(tokens, grid, text.detach(), labels)
    index = labels.nonzero()[:, 0]
    found = {"prompts": text, "logits": logits, "CAM": cams}
    found["affinity"] = refine(cams, attention, index)
    seeds = torch.randint(0, 3, (2, 128, 128), generator=torch.Generator().manual_seed(0))
    features = clip.feature(tokens, clip.activation(tokens), grid)
    batch = Batch(labels, features, tokens, grid, seeds.to(device))
    for name, loss in dict(
        classification=classification_loss, activation=segmentation_loss
    ).items():
        value, _ = loss(clip, learner(), batch)
        found[f"{name} loss"] = value
        found[f"{name} gradient"] = torch.autograd.grad(value, learner.ctx)[0]
    return found


def chain_rows(table, device):
    clip = small_clip()
    expected, found = chain(clip, "cpu"), chain(clip, device)
    for name, values in expected.items():
        allowed = 2e-3 if "gradient" in name or name == "affinity" else 2e-4
        error = difference(values, found[name])
        table.add(f"{name}, card against CPU", f"{error:.1e}", f"<= {allowed:g}", error <= allowed)


def overlap(a, b):
    "Share of the masks of a that b has too (IoU of 0.95)."
    x, y = a.dense().reshape(len(a), -1).astype(float), b.dense().reshape(len(b), -1).astype(float)
    both = x @ y.T
    union = x.sum(1)[:, None] + y.sum(1)[None] - both
    return float((both / np.maximum(union, 1)).max(1, initial=0).__ge__(0.95).mean())


def mask_rows(table, device, dry):
    image = photos(1, (128, 128))[0]
    options = dict(points_per_side=6 if dry else 12, crop_layers=0 if dry else 1)
    options |= dict(pred_iou_thresh=0.5, stability_thresh=0.4)
    expected = generate_masks(load_sam(), image, **options)
    sam = load_sam(device=device)
    found = generate_masks(sam, image, **options)
    share = overlap(expected, found)
    table.add("masks, card against CPU", f"{share:.1%} of {len(expected)}", ">= 95%", share >= 0.95)
    found = official_against_fast(sam, image, device)
    table.add("fast against official decoder", f"{found:.1e}", "<= 1e-03", found <= 1e-3)

    def painted():
        cams = np.random.default_rng(0).normal(size=(2, *image.shape[:2])).astype(np.float32)
        seeds = [
            fast_sams.sams(torch.tensor(cams, device=d), expected, [3, 7])[0]
            for d in ("cpu", device)
        ]
        same = float((seeds[0] == seeds[1]).mean())
        return f"{same:.2%} of the pixels", ">= 99.9%", same >= 0.999

    table.ask("SAMS, CAMs on the card", painted)


@torch.no_grad()
def official_against_fast(sam, image, device):
    "Relative difference of the logits of both decoders for some points."
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam)
    predictor.set_image(image)
    rng = np.random.default_rng(0)
    points = predictor.transform.apply_coords(rng.uniform(10, 110, (8, 2)), image.shape[:2])
    points = torch.as_tensor(points, device=device)
    logits, _, _ = decode_points(sam, predictor.features, points, lambda iou: iou == iou)
    ones = torch.ones(8, 1, device=device)
    sparse, dense = sam.prompt_encoder((points[:, None].float(), ones), None, None)
    official, _ = sam.mask_decoder(
        image_embeddings=predictor.features,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return difference(official.flatten(0, 1), logits)


# ---------------------------------------------------------------- two processes


class Features:
    "Frozen features of drawn pictures: what the classification task learns from."

    def __init__(self, clip, device, n=8):
        pixels = clip.pixels(photos(n, (64, 64)), clip.patch)
        tokens = clip.trunk(pixels)
        self.features = clip.feature(tokens, clip.activation(tokens), clip.grid(pixels)).cpu()
        self.labels = some_labels(n)

    def __len__(self):
        return len(self.labels)

    def __call__(self, indices, rng, device, share=slice(None)):
        i = torch.as_tensor(np.asarray(indices))[share]
        return Batch(self.labels[i].to(device), self.features[i].to(device), None, (8, 8), None)


def train_share(out, device):
    "What each of the processes does: its share of six iterations; the first writes the contexts."
    from fmwsss.engine.processes import processes

    rank, world = processes()
    clip = small_clip().to(device)
    names = VOC_PROMPT_NAMES + VOC_BACKGROUND
    learner = PromptLearner(clip, names, n_ctx=4, seed=0).to(device)
    loss = lambda text, batch: classification_loss(clip, text, batch)
    options = dict(lr=0.02, device=device, rank=rank, world=world, progress=False)
    fit(learner, Features(clip, device), loss, 6, 4, **options)
    if rank == 0:
        torch.save(learner.ctx.detach().cpu(), out)


def two_processes(device):
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one.pt", Path(folder) / "two.pt"
        train_share(one, device)
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
        launch += [
            "--dynamo_backend",
            "no",
            "--main_process_port",
            str(random.randint(20000, 30000)),
        ]
        command = [*launch, str(Path(__file__)), "--share", str(two), "--device", device]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if not two.exists():
            raise RuntimeError(done.stderr[-300:] or done.stdout[-300:])
        error = difference(torch.load(one, weights_only=True), torch.load(two, weights_only=True))
    return f"{error:.1e}", "<= 1e-03", error <= 1e-3


# ---------------------------------------------------------------- seconds, memory, plan


def random_clip(dry):
    if dry:
        return small_clip()
    torch.manual_seed(0)
    return Clip(build_open_clip("ViT-B-16-quickgelu"), "ViT-B-16-quickgelu")


def random_sam(dry):
    "SAM at full size; sure of itself, or the filters would leave no mask to be counted and copied."
    torch.manual_seed(0)
    sam = small_sam() if dry else sam_model_registry["vit_h"]()
    decoder = sam.mask_decoder
    decoder.iou_prediction_head.layers[-1].bias.data.fill_(0.95)
    for network in decoder.output_hypernetworks_mlps:
        network.layers[-1].weight.data.mul_(300)
    return freeze(sam)


def clip_rows(table, device, dry, meter):
    "Seconds of CAM + CAA a photo and of the training steps -> {stage: seconds}."
    clip = random_clip(dry).to(device)
    size = (96, 128) if dry else (375, 500)
    images, names = photos(2, size), VOC_PROMPT_NAMES + VOC_BACKGROUND
    labels = some_labels(2).to(device)
    text = text_features(clip, names)
    layers = 2 if dry else 8

    def cams():
        pixels = clip.pixels(images, clip.patch)
        tokens, attention = clip.trunk(pixels, layers)
        maps, _ = clip.softmax_gradcam(tokens, clip.grid(pixels), text, labels)
        refine(maps.detach(), attention, labels.nonzero()[:, 0])

    seconds, memory = meter(cams)
    known = {"cams": seconds / 2}
    table.add("CAM and affinity, seconds a photo", f"{seconds / 2:.3f} s, {memory:.1f} GB")
    n = 2 if dry else 16
    batch_images = photos(n, (64, 64) if dry else (224, 224))
    labels = some_labels(n).to(device)
    learner = PromptLearner(clip, names, n_ctx=16, seed=0).to(device)
    seeds = torch.zeros(n, *batch_images[0].shape[:2], dtype=torch.long, device=device)

    def step(loss, tokens_too):
        pixels = clip.pixels(batch_images, clip.patch)
        tokens, grid = clip.trunk(pixels), clip.grid(pixels)
        features = None if tokens_too else clip.feature(tokens, clip.activation(tokens), grid)
        used = None if tokens_too else len(VOC_PROMPT_NAMES)
        value, _ = loss(clip, learner(used), Batch(labels, features, tokens, grid, seeds))
        learner.zero_grad()
        value.backward()

    for task, loss in dict(
        classification=classification_loss, segmentation=segmentation_loss
    ).items():
        seconds, memory = meter(lambda loss=loss, task=task: step(loss, task == "segmentation"))
        known[f"prompts_{task}"] = seconds
        table.add(f"{task} step of {n} images", f"{seconds:.3f} s, {memory:.1f} GB")
    return known


def sam_rows(table, device, dry, meter):
    "Seconds of SAM's masks a photo -> {stage: seconds}."
    sam = random_sam(dry).to(device)
    image = photos(1, (96, 128) if dry else (375, 500))[0]
    settings = dict(points_per_side=4, crop_layers=0) if dry else {}
    meter = Meter(device, 1)
    found = []
    seconds, memory = meter(lambda: found.append(generate_masks(sam, image, **settings)))
    name = "small SAM" if dry else "SAM ViT-H, 1,024 + 4 x 256 points"
    measured = f"{seconds:.2f} s, {memory:.1f} GB, {len(found[-1])} masks"
    table.add(f"{name}, a photo", measured, "masks there", len(found[-1]) > 0)
    if not dry:
        before = torch.get_float32_matmul_precision()
        table.add("float32 products after it", before, "highest", before == "highest")
    return {"masks_sam": seconds}


def plan_rows(table, known):
    "The plan of both presets, from what was measured here."
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "records").mkdir()
        stages = [dict(stage=s, computed=1, seconds=x) for s, x in known.items()]
        (Path(folder) / "records" / "gpu.json").write_text(json.dumps(dict(stages=stages)))
        for preset in ("voc2012", "coco2014"):
            found = plan(settings_of(preset), "cuda", folder)
            hours, measured = found.hours.sum(), found.hours[found.basis == "measured"].sum()
            text = f"{hours:.1f} h, {measured:.1f} h of it measured"
            table.add(f"plan of {preset}, one process", text, "", bool(np.isfinite(hours)))


def card_name(device):
    kind = torch.device(device).type
    return torch.cuda.get_device_name(device) if kind == "cuda" else "CPU, reduced"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", action="store_true", help="everything reduced, on the CPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--share", help=argparse.SUPPRESS)  # one of two processes
    parser.add_argument("--out", default="runs/gpu")
    options = parser.parse_args()
    device = "cpu" if options.dry else options.device
    if options.share:
        return train_share(options.share, options.device)
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no card here: python tests/gpu.py --dry runs everything reduced")
    begin, table = time.perf_counter(), Table()
    meter = Meter(device, 1 if options.dry else 3)
    print(f"{card_name(device)}, torch {torch.__version__}")
    parity_rows(table, device)
    table_part(table, "bfloat16", half_rows, device)
    table_part(table, "the method", chain_rows, device)
    table_part(table, "masks", mask_rows, device, options.dry)
    table.ask("two processes on one card, contexts against one", lambda: two_processes(device))
    known = table_part(table, "ViT-B/16", clip_rows, device, options.dry, meter) or {}
    known |= table_part(table, "SAM ViT-H", sam_rows, device, options.dry, meter) or {}
    table_part(table, "plan", plan_rows, known)
    seconds = time.perf_counter() - begin
    table.add("all, seconds", f"{seconds:.0f} s", "<= 600 s", seconds <= 600)
    name = re.sub(r"\W+", "_", card_name(device))
    out = Path(options.out) / f"{name}.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows([("what", "measured", "wanted", "verdict"), *table.rows])
    print(f"{len(table.rows)} rows, {table.wrong} wrong: {out}")
    sys.exit(bool(table.wrong))


def table_part(table, name, part, *args):
    "A part of the table; if it breaks off, that is a wrong row and the next part follows."
    try:
        return part(table, *args)
    except Exception as error:
        text = " ".join(str(error).split())[:120]
        table.add(name, f"{type(error).__name__}: {text}", "", False)
        return None


if __name__ == "__main__":
    main()
