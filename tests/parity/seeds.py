"""Parity of losses, affinity, seeds, SAMS, rock-sand-water, evaluation, dense CRF and
AffinityNet.

The authors' quirks live behind `published=True` (see the chapters' prose); everything else is
the default."""

import re

import numpy as np
import torch

from fmwsss.fast import runs as fast
from fmwsss.method import affinity as aff
from fmwsss.method import masks as plain_masks
from fmwsss.method import sams as plain
from fmwsss.method.evaluation import Confusion
from fmwsss.method.losses import cam_activation_loss, contrastive_loss
from fmwsss.method.masks import Masks
from fmwsss.method.sams import add_background, cam_scores, resize_maps, seed_from_cams
from fmwsss.refiners import affinitynet as net
from fmwsss.refiners.affinity_walk import dense_affinity, random_walk
from fmwsss.refiners.crf import dense_crf

# sums of a few thousand float32 numbers: noise of the reference up to 5e-7 of the largest value
FLOAT = 2e-6
GRADIENT = 1e-5
SCORE = 5e-6  # scores in [0, 1] after min-max, which magnifies the noise of the means
WALK = 1e-4  # 2^t matrix products: float64 and float32 of the reference differ by 1e-5


def keys(case, pattern):
    "(key, groups of the regular expression) of every array whose whole name matches."
    return [(k, m.groups()) for k in sorted(case.keys()) if (m := re.fullmatch(pattern, k))]


def number(name, prefix):
    return float(name.removeprefix(prefix))


def contrastive(case):
    labels = case["labels"]
    for key, (gamma, reduce) in keys(case, r"loss_gamma_(none|[\d.]+)_(\w+)"):
        logits = case["logits"].requires_grad_()
        loss = contrastive_loss(logits, labels, reduce, 1.0 if gamma == "none" else float(gamma))
        loss.backward()
        case.compare(key, loss, FLOAT, scale=max(1, abs(loss.item())))
        case.compare(f"grad_gamma_{gamma}_{reduce}", logits.grad, GRADIENT)


def cam_activation(case):
    labels, seeds = case["fg_cls_lb"], case["label"]
    case.compare("pos_cam_up", resize_maps(case["pos_cam"], seeds.shape[-2:]), FLOAT)
    for key, (norm, reduce, options) in keys(
        case, r"fg_loss_(l1|l2)_(all|fg-bg|fg-bg-per-pos)(?:_(\w+[\d.]*))?"
    ):
        kw = {}
        if options == "nodetach":
            kw["detach_max"] = False
        elif options:
            kw["bg_threshold"] = number(options, "bgthresh")
        cams = case["pos_cam"].requires_grad_()
        fg, bg = cam_activation_loss(cams, labels, seeds, norm, reduce, parts=True, **kw)
        total = cam_activation_loss(cams, labels, seeds, norm, reduce, **kw)
        total.backward()
        assert torch.allclose(total, fg + bg)
        case.compare(key, fg, FLOAT, scale=max(0.01, fg.item()))
        case.compare(key.replace("fg_loss", "bg_loss", 1), bg, FLOAT, scale=max(0.01, bg.item()))
        case.compare(key.replace("fg_loss", "grad", 1), cams.grad, GRADIENT)


PLACE = dict(in_bbox="inside", out_bbox="outside", all="all")


def affinity(case):
    maps, cams = case["att"], case["cam"]
    merged = [maps[-n:].mean(0)[1:, 1:] for n in range(1, len(maps) + 1)]
    attention = min(
        merged, key=lambda m: (m - case["merged_att"]).abs().max()
    )  # the number of layers is not an array
    case.compare("merged_att", attention, FLOAT)
    score = aff.min_max(cams, 1e-7)
    case.compare("score", score, FLOAT)
    for key, (rounds,) in keys(case, r"aff_sinkhorn(\d+)"):
        case.compare(key, aff.sinkhorn(attention, int(rounds)), FLOAT)
    for key, (t,) in keys(case, r"boxes_thresh([\d.]+)"):
        rows = [
            np.column_stack([np.full(len(b), p), b])
            for p, b in enumerate(aff.boxes(s, float(t), True) for s in score)
        ]
        case.compare(key, np.concatenate(rows))
    for key, (t,) in keys(case, r"box_mask_thresh([\d.]+)"):
        case.compare(key, aff.box_mask(score, float(t), True))
    for key, (t, inside, outside) in keys(
        case, r"aff_mask_thresh([\d.]+?)(?:_(in_bbox|out_bbox|all)_(in_bbox|out_bbox|all))?"
    ):
        pair = (PLACE[inside or "in_bbox"], PLACE[outside or "in_bbox"])
        mask = aff.affinity_mask(box := aff.box_mask(score, float(t), True), *pair)
        case.compare(key, mask)
        spread = aff.sinkhorn(attention)
        assert torch.allclose(
            aff.propagate(spread, box, score, *pair).flatten(1),
            ((spread * mask) @ score.flatten(1)[..., None])[..., 0],
            atol=1e-6,
        )
    for key, (at, rounds, t, n) in keys(case, r"affcam_(score|cam)_sh(\d+)_thresh([\d.]+)_n(\d+)"):
        box = aff.box_mask(score, float(t), True)
        case.compare(
            key,
            aff.propagate(
                aff.affinity_matrix(attention, int(rounds), int(n)),
                box,
                score if at == "score" else cams,
            ),
            FLOAT,
        )
    for key, (at, rounds, t, n) in keys(case, r"att_cam_(score|cam)_sh(\d+)_thresh([\d.]+)_n(\d+)"):
        case.compare(
            key,
            aff.refine(cams, attention, None, int(rounds), int(n), float(t), at, published=True),
            FLOAT,
        )


def background(name):
    "pow0.6 or thresh0.3 -> keyword of ours."
    return (
        dict(power=number(name, "pow"))
        if name.startswith("pow")
        else dict(threshold=number(name, "thresh"))
    )


def seeds(case):
    cams, classes, size = case["cam"], case.array("fg_cls"), tuple(case.array("dsize"))
    for key, (order,) in keys(case, r"score_(resizefirst|normfirst)"):
        scores = cam_scores(cams, size, order == "resizefirst", published=True)
        case.compare(key, scores, FLOAT)
        for seed, (method,) in keys(case, rf"seed_{order}_(.*)"):
            case.compare(
                seed.replace("seed", "bg", 1),
                add_background(scores, **background(method))[0],
                FLOAT,
                scale=1,
            )
            case.compare(
                seed,
                seed_from_cams(
                    cams,
                    classes,
                    size=size,
                    resize_first=order == "resizefirst",
                    published=True,
                    **background(method),
                ),
            )


NORM = dict(normfirst=True, gatherfirst=False, doublenorm="double")


def priority(text):
    "level_smaller+conf_bigger -> ('-level', 'confidence')."
    words = [w.rsplit("_", 1) for w in text.split("+")]
    return tuple(
        ("-" if side == "smaller" else "") + dict(conf="confidence").get(key, key)
        for key, side in words
    )


def painting(case, key, ours, level, confidence):
    """Painting orders are equal.

    Masks of one level whose confidences agree within rounding may change places."""
    theirs = case.arrays[key]
    same = np.array_equal(level[ours], level[theirs]) and np.allclose(
        confidence[ours], confidence[theirs], rtol=0, atol=5e-7
    )
    case.compare(key, theirs if same and sorted(ours) == list(range(len(theirs))) else ours)


def seeding(case):
    "The plain form and the fast one, each against every array."
    for form in (plain, fast):
        seeding_by(case, form)


def seeding_by(case, form):
    for name in [k.removesuffix("masks") for k in case.keys() if k.endswith("masks")]:
        level = case.array(f"{name}levels")
        masks = Masks.of(case.array(f"{name}masks"), level)
        cams, classes = case[f"{name}cam"], case.array(f"{name}fg_cls")
        if name:  # edge cases: the published defaults
            seed, found = form.sams(cams, masks, classes, 0.6, published=True)
            case.compare(f"{name}seedmap", seed)
            case.compare(f"{name}maskscore", found.scores, SCORE, scale=1)
            case.compare(f"{name}maskseed", found.labels)
            continue
        case.compare("areas", masks.area)
        case.compare("gathered_cam", form.mask_means(cams.cpu().numpy(), masks), FLOAT)
        case.compare(
            "gathered_relu_cam", form.mask_means(cams.clamp(min=0).cpu().numpy(), masks), FLOAT
        )
        for key, (norm, method, first) in keys(
            case, r"seedmap_([a-z]+)_((?:pow|thresh)[\d.]+)(?:_prio_(.*))?"
        ):
            kw = dict(priority=priority(first)) if first else {}
            seed, found = form.sams(
                cams,
                masks,
                classes,
                norm_first=NORM[norm],
                published=True,
                **background(method),
                **kw,
            )
            case.compare(key, seed)
            if first:
                continue
            rest = key.removeprefix("seedmap")
            case.compare(f"maskscore{rest}", found.scores, SCORE, scale=1)
            case.compare(f"maskseed{rest}", found.labels)
            case.compare(f"maskconf{rest}", found.confidence, SCORE, scale=1)
            painting(case, f"order{rest}", found.order, level, case.arrays[f"maskconf{rest}"])


def rock(case):
    masks = Masks.of(case.array("masks"), case.array("levels"))
    for key, (t,) in keys(case, r"kept_idx_thresh([\d.]+)"):
        for form in (plain_masks, fast):
            kept = form.rock_sand_water(masks, float(t), indices=True)
            case.compare(key, kept)
        if f"kept_level_thresh{t}" in case:
            case.compare(f"kept_level_thresh{t}", masks.level[kept])


def evaluation(case):
    n = len(case.arrays["conf_matrix"])
    total = Confusion(n)
    for pred, truth in zip(case.array("preds"), case.array("gts")):
        total.add(pred, truth)
    case.compare("conf_matrix", total.matrix[:, :n])
    found = total.scores()
    for key, ours in (("cls_IoU", "iou"), ("cls_recall", "recall"), ("cls_precision", "precision")):
        case.compare(key, np.nan_to_num(found[ours], nan=-1), FLOAT)
    case.compare("valid", found["valid"])
    case.compare("mIoU", found["miou"], FLOAT)
    case.compare("mIoU_all_classes_nan0", total.scores("all")["miou"], FLOAT)
    case.compare("accuracy", found["accuracy"], FLOAT)


def crf(case):
    image, probs, steps = case.array("image"), case.array("probs"), int(case.array("iterations"))
    for key, (name,) in keys(case, r"Q_(\w+)"):
        w1, xy1, w2, xy2, rgb = case.array(f"settings_{name}").tolist()
        case.compare(key, dense_crf(image, probs, steps, (xy1, w1), (xy2, rgb, w2)), 1e-5)


def affinitynet(case):
    features, label = case["features"].requires_grad_(), case["label"]
    size, offsets = tuple(label.shape), case.arrays["pairs_to"].shape[0]
    half_disc = lambda r: sum(
        y * y + x * x < r * r for y in range(r) for x in range(-r + 1, r) if y or x > 0
    )
    pairs = net.pair_indices(size, next(r for r in range(2, 50) if half_disc(r) == offsets))
    case.compare("pairs_from", pairs[0])
    case.compare("pairs_to", pairs[1])
    a = net.pair_affinity(features, pairs)
    case.compare("affinity", a, FLOAT)
    labels = net.pair_labels(label, pairs)
    for key, mask in zip(("bg_pairs", "fg_pairs", "neg_pairs"), labels):
        case.compare(key, mask)
    for key, part in zip(
        ("bg_loss", "fg_loss", "neg_loss"), net.affinity_loss(a, labels, parts=True)
    ):
        case.compare(key, part, 1e-5)
    loss = net.affinity_loss(a, labels)
    loss.backward()
    case.compare("loss", loss, 1e-5)
    case.compare("grad_features", features.grad, 5e-5)
    dense = dense_affinity(a.detach(), pairs, label.numel())
    case.compare("dense_affinity", dense, FLOAT)
    beta, steps = float(case.array("beta")), int(case.array("logt"))
    case.compare("transition_colsum", (dense**beta).sum(0), 1e-5)
    scores = add_background(case.array("cam"), float(case.array("alpha")))
    case.compare("scores", scores, FLOAT)
    case.compare(
        "walked", random_walk(torch.from_numpy(scores).to(dense.device), dense, beta, steps), WALK
    )


CHECKS = dict(
    contrastive_loss=contrastive,
    cam_activation_loss=cam_activation,
    affinity=affinity,
    seeds=seeds,
    sams=seeding,
    rock_sand_water=rock,
    evaluation=evaluation,
    crf=crf,
    affinitynet=affinitynet,
)
