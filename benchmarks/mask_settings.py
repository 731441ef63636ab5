"""Which thresholds fit a SAM? A wide search on photos with true masks.

    python benchmarks/mask_settings.py --images JPEGImages --truth SegmentationClass \
        --list choose.txt --weights mobile_sam.pt [--model mobile_sam] [--out search.csv]

Every photo is asked once, with all points of the grid and without a threshold; then every setting
is tried on these answers. What is compared is the bound: each mask takes its true class, purer
masks on top, mIoU over all photos. Small regions are not cleaned and crops are not tried. The
answers of 36 photos take a gigabyte of memory, and all of it half an hour of one core.
"""

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from segment_anything import SamPredictor
from torchvision.ops import nms

from fmwsss.data.images import read_image
from fmwsss.data.label_maps import read_mask
from fmwsss.fast.decoder import decode_points
from fmwsss.method.evaluation import evaluate
from fmwsss.method.masks import Masks, oracle_labels
from fmwsss.models.sam import load_sam
from fmwsss.sources.automatic import Limits
from fmwsss.sources.needed import Small, coarse_to_fine, enlarged, judge_small, still_needed

BATCH = 16  # points asked at once; a batch decides which points the next one may leave out
IOU = (0.3, 0.5, 0.6, 0.7, 0.86)
PARTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.92)  # stability of subparts and parts
WHOLES = (0.2, 0.4, 0.6, 0.8)
NMS = (0.6, 0.7, 0.8)
AREAS = (0.0, 0.05)  # points in a mask below this share of the photo are left out
COLUMNS = ["bound", "masks", "points", "pred_iou_thresh", "parts", "wholes", "box_nms", "max_area"]


@dataclass
class Answers:
    "All answers of a SAM on one photo; masks as packed bits, of the photo and of the small logits."

    rows: torch.Tensor  # x0, y0, x1, y1, predicted IoU, stability, level (M, 7)
    point: np.ndarray  # number of the point that was asked (M,)
    large: np.ndarray
    little: np.ndarray
    label: np.ndarray  # true class (M,)
    purity: np.ndarray
    truth: np.ndarray
    cells: np.ndarray  # place of every point in the small logits
    shape: tuple  # of the small logits


@torch.no_grad()
def ask_all(sam, image, truth, side: int) -> Answers:
    "The answers to all points of a grid."
    predictor, size, grid = SamPredictor(sam), image.shape[:2], coarse_to_fine(side)
    points = predictor.transform.apply_coords(grid * size[::-1], size)
    predictor.set_image(image)
    small = Small(predictor)
    nothing = Limits.of(predictor.device, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    found = []
    for first in range(0, len(points), BATCH):
        some = torch.as_tensor(points[first : first + BATCH], device=predictor.device)
        low, iou, flat = decode_points(sam, predictor.features, some, nothing.wanted)
        good, rows = judge_small(sam, low, iou, flat % 3, small, nothing)
        masks = enlarged(predictor, low[good])
        seen = low[good][:, : small.shape[0], : small.shape[1]] > sam.mask_threshold
        bits = [np.packbits(x.reshape(len(masks), -1), 1) for x in (masks, seen.cpu().numpy())]
        number = first + (flat[good] // 3).cpu().numpy()
        found.append([rows.cpu().numpy(), number, *bits, *oracle_labels(Masks.of(masks), truth)])
    rows, *others = (np.concatenate(x) for x in zip(*found))
    rows = torch.from_numpy(rows).float()
    return Answers(rows, *others, truth, small.cells(points), tuple(small.shape))


def asked(answers: Answers, fits, max_area: float) -> np.ndarray:
    "Which points would be asked if masks that `fits` (M,) names cover theirs."
    count, pixels = answers.cells.shape[1], answers.shape[0] * answers.shape[1]
    if not max_area:
        return np.ones(count, bool)
    covered, done, waiting = np.zeros(answers.shape, bool), np.zeros(count, bool), range(count)
    while waiting:
        some, waiting = still_needed(waiting, answers.cells, covered, BATCH)
        done[some] = True
        new = np.flatnonzero(fits & np.isin(answers.point, some))
        masks = np.unpackbits(answers.little[new], axis=1, count=pixels).astype(bool)
        covered |= masks[masks.mean(1) < max_area].any(0).reshape(answers.shape)
    return done


def kept(answers: Answers, iou: float, parts: float, wholes: float, box_nms: float, max_area):
    "Indices of the masks that a setting keeps, and how many points it asks."
    rows, level = answers.rows, answers.rows[:, 6].long()
    least = torch.tensor([parts, parts, wholes])[level]
    fits = ((rows[:, 4] > iou) & (rows[:, 5] >= least)).numpy()
    points = asked(answers, fits, max_area)
    usable = torch.from_numpy(np.flatnonzero(fits & points[answers.point]))
    return usable[nms(rows[usable, :4], rows[usable, 4], box_nms)].numpy(), int(points.sum())


def bound_map(answers: Answers, masks) -> np.ndarray:
    "The photo painted with the true class of its masks, purer ones on top."
    canvas = np.zeros(answers.truth.size, int)
    for i in masks[np.argsort(answers.purity[masks], kind="stable")]:
        canvas[np.unpackbits(answers.large[i], count=canvas.size).astype(bool)] = answers.label[i]
    return canvas.reshape(answers.truth.shape)


def row(photos: list, setting: tuple) -> list:
    "Bound in per cent, masks and points a photo, and the setting."
    found = [kept(answers, *setting) for answers in photos]
    maps = [bound_map(answers, masks) for answers, (masks, _) in zip(photos, found)]
    bound = evaluate(zip(maps, [answers.truth for answers in photos])).miou
    counts = np.mean([(len(masks), points) for masks, points in found], axis=0)
    return [100 * bound, *counts, *setting]


def search(photos: list, *lists) -> pd.DataFrame:
    "A row for every setting, the best bound first."
    rows = [row(photos, setting) for setting in itertools.product(*lists)]
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("bound", ascending=False)


def named(folder: Path, name: str) -> Path:
    "The file of a folder with this name, whatever its ending."
    found = sorted(folder.glob(f"{name}.*"))
    if not found:
        raise SystemExit(f"{folder} has no picture {name}")
    return found[0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True, help="NAME.png, 255 is ignored")
    parser.add_argument("--list", type=Path, required=True, help="a name a line")
    parser.add_argument("--model", default="mobile_sam")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--classes", type=int, default=20, help="of the true masks")
    parser.add_argument("--side", type=int, default=16, help="points a side")
    parser.add_argument("--most", type=float, default=120, help="masks a photo, at most")
    parser.add_argument("--out", type=Path, default=Path("runs/mask_settings.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sam, photos, begin = load_sam(options.model, options.weights), [], time.process_time()
    for name in options.list.read_text(encoding="utf-8").split():
        image = read_image(named(options.images, name))
        truth = read_mask(options.truth / f"{name}.png", options.classes)
        photos.append(ask_all(sam, image, truth, options.side))
        seconds = time.process_time() - begin
        print(f"{name}: {len(photos[-1].point)} answers, {seconds:.0f} s", flush=True)
    table = search(photos, IOU, PARTS, WHOLES, NMS, AREAS)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(options.out, index=False)
    few = table[table.masks <= options.most]
    for title, rows in (("all points", few[few.max_area == 0]), ("needed", few[few.max_area > 0])):
        print(f"{title}, at most {options.most:g} masks a photo, best of {len(rows)}:")
        print(rows.head(8).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
