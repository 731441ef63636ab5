"""What `12_build_it_yourself.ipynb` says to your functions: right, or what is wrong with them.

Every check runs your function and the library's on small inputs. If yours gives what a well-known
mistake gives, the mistake is named. It returns your function if it is right, else the library's,
so that the next step works in any case."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from fmwsss.method import affinity, cam, labels, losses, masks, prompts, sams

RIGHT = {}  # name: was the last answer right?


def array(x) -> np.ndarray:
    "A result as float64 array; tensors leave their graph."
    return np.asarray(x.detach() if torch.is_tensor(x) else x, np.float64)


def same(a, b) -> bool:
    "Are two results equal in shape and, nearly, in value?"
    try:
        a, b = array(a), array(b)
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-6)


def trouble(name: str, wrong, inputs) -> str:
    "What is wrong with an answer of other values, in words."
    answer = wrong(*inputs)
    if answer is Ellipsis:
        return "it still returns `...`"
    if answer is None:
        return "it returns nothing: is there a `return`?"
    target = array(REFERENCE[name](*inputs))
    for mistake, words in MISTAKES[name]:
        if same(answer, mistake(*inputs)) and not same(answer, target):
            return words
    try:
        found = array(answer)
    except (TypeError, ValueError):
        return f"it returns {type(answer).__name__}, not numbers"
    if found.shape != target.shape:
        return f"it returns the shape {found.shape}, wanted is {target.shape}"
    off = np.abs(found - target) > 1e-6 + 1e-4 * np.abs(target)
    place = tuple(int(i) for i in np.argwhere(off)[0]) if off.any() else ()
    at = f" at {place}" if place else ""
    return f"value {found[place]:.4g}{at}, wanted is {target[place]:.4g}"


def judge(name: str, function) -> str:
    "Empty if `function` is right on all inputs, else what is wrong."
    for inputs in INPUTS[name]():
        try:
            if not same(function(*inputs), REFERENCE[name](*inputs)):
                return trouble(name, function, inputs)
        except Exception as error:  # whatever a half-written function raises
            return f"{type(error).__name__}: {error}"
    return ""


def check(function):
    "Say whether a function of this page is right; returns it, or else the library's."
    name = function.__name__
    words = judge(name, function)
    RIGHT[name] = not words
    print(f"{name}: right" if not words else f"{name}: not yet, {words}")
    return REFERENCE[name] if words else function


def tally() -> str:
    "How much of the method is yours."
    return f"{sum(RIGHT.values())} of {len(REFERENCE)} functions are yours"


# ---------------------------------------------------------------- what is right
def library_feature(clip, tokens):
    from fmwsss.method.clip import patch_mean

    return F.normalize(patch_mean(clip, tokens), dim=-1)


def library_cam(activation, gradient):
    return activation[1:] @ gradient[1:].mean(0)


def library_score(logits, present, n_background):
    return cam.class_scores(logits[None], present[None])[0]


def library_seed(maps, classes, power):
    return sams.seed_from_cams(maps, classes, power)


def library_jar(cover, level, thresh):
    "As `rock_sand_water`, of a table |a and b| / |a| (S, S)."
    kept = np.zeros(0, int)
    for this in np.unique(level)[::-1]:
        new = np.flatnonzero(level == this)
        kept = np.r_[kept, new[(cover[np.ix_(new, kept)] < thresh).all(1)]]
    return sorted(kept.tolist())


def library_scores(maps, pixels):
    return sams.mask_scores(maps, masks.Masks.of(pixels))


def library_paint(pixels, label, level, confidence):
    order = np.lexsort([confidence, level])
    return sams.paint(masks.Masks.of(pixels), order, label)


REFERENCE = dict(
    multi_hot=labels.multi_hot,
    image_feature=library_feature,
    fill=prompts.fill,
    class_scores=library_score,
    class_map=library_cam,
    sinkhorn=affinity.sinkhorn,
    cam_seed=library_seed,
    fill_the_jar=library_jar,
    name_masks=library_scores,
    paint=library_paint,
    contrastive_loss=lambda s, y: losses.contrastive_loss(s, y),
    activation_loss=lambda m, inside, outside: activation(m, inside, outside),
)


def activation(m, inside, outside, top=None):
    "Activation loss of one map (H, W), all pixels counted alike."
    top = (m * inside).max().clamp(min=0).detach() if top is None else top
    up, down = ((top - m).abs() * inside).sum(), (m.relu() * outside).sum()
    return (up + down) / (inside | outside).sum()


# ---------------------------------------------------------------- what people write instead
def no_shift(label, n):
    out = np.zeros(n + 1, np.uint8)
    known = np.unique(label[(label != 255) & (label > 0)])
    out[known] = 1
    return out[:n]


def everything(label, n):
    out = np.zeros(n, np.uint8)
    out[(np.unique(label).astype(int) - 1) % n] = 1
    return out


def of_all_tokens(clip, tokens):
    return F.normalize(clip.visual.ln_post(tokens).mean(1) @ clip.visual.proj, dim=-1)


def of_class_token(clip, tokens):
    return F.normalize(clip.visual.ln_post(tokens[:, 0]) @ clip.visual.proj, dim=-1)


def not_normal(clip, tokens):
    return clip.visual.ln_post(tokens[:, 1:]).mean(1) @ clip.visual.proj


def norm_last(clip, tokens):
    return F.normalize(clip.visual.ln_post(tokens[:, 1:].mean(1)) @ clip.visual.proj, dim=-1)


def filled(places, added=False):
    "A filler that puts the context at other places (a function of the right ones)."

    def fill(frame, ctx, right):
        out = frame.clone()
        for g, where in enumerate(places(right)):
            out[g, where] = out[g, where] + ctx if added else ctx
        return out

    return fill


def rows_first(attention):
    rows = attention / attention.sum(1, keepdim=True)
    balanced = rows / rows.sum(0, keepdim=True)
    return (balanced + balanced.T) / 2


def not_symmetric(attention):
    columns = attention / attention.sum(0, keepdim=True)
    return columns / columns.sum(1, keepdim=True)


def all_below(s, y):
    return -(s.log_softmax(1) * y).sum() / y.sum()


def stretched(maps, axis):
    x = np.maximum(maps, 0)
    low, high = x.min(axis, keepdims=True), x.max(axis, keepdims=True)
    return (x - low) / np.where(high > low, high - low, 1)


def seed_of(scores, classes, power):
    background = (1 - scores.max(0)) ** power
    return np.r_[0, np.array(classes) + 1][np.r_[background[None], scores].argmax(0)]


def shifted_seed(maps, classes, power):
    found = seed_of(stretched(maps, (1, 2)), classes, power)
    return np.where(found > 0, found - 1, 0)


def union_jar(cover, level, thresh):
    kept = []
    for this in (2, 1, 0):
        new = list(np.flatnonzero(level == this))
        kept += [i for i in new if cover[i, kept].sum() < thresh]
    return sorted(int(i) for i in kept)


def greedy_jar(cover, level, thresh):
    kept = []
    for i in np.argsort(-level, kind="stable"):
        if (cover[i, kept] < thresh).all():
            kept.append(int(i))
    return sorted(kept)


def turned_jar(cover, level, thresh):
    return library_jar(cover.T, level, thresh)


def means(maps, pixels):
    return np.stack([[m[p].mean() for p in pixels] for m in maps])


def scaled(a, axis):
    low, high = a.min(axis, keepdims=True), a.max(axis, keepdims=True)
    return (a - low) / (high - low)


def painted(keys):
    def paint(pixels, label, level, confidence):
        order = np.lexsort(keys(level, confidence))
        return sams.paint(masks.Masks.of(pixels), order, label)

    return paint


def whole_top(m, inside, outside):
    return activation(m, inside, outside, m.max().detach())


MISTAKES = dict(
    multi_hot=[
        (no_shift, "class c has label c + 1: move everything by one"),
        (everything, "255 (nobody knows) or 0 (background) was taken for a class"),
    ],
    image_feature=[
        (of_all_tokens, "the class token is in the mean: leave out the first token"),
        (of_class_token, "that is the class token; wanted is the mean of the patches"),
        (not_normal, "the length must be 1: F.normalize(..., dim=-1)"),
        (norm_last, "the layer norm comes before the mean"),
    ],
    fill=[
        (
            filled(lambda places: places[:1].expand_as(places)),
            "each sentence has places of its own: row g of `places` belongs to sentence g",
        ),
        (filled(lambda places: places, added=True), "replace what is there, do not add to it"),
        (
            filled(lambda places: places - 1),
            "`places` count from 0, the start token among them: take them as they are",
        ),
        (lambda frame, ctx, places: frame.clone(), "nothing was put in: the context is missing"),
    ],
    sinkhorn=[
        (rows_first, "columns first, then rows: the last step is right exactly"),
        (not_symmetric, "make it symmetric at the end: (A + A^T) / 2"),
        (lambda a: (a + a.T) / 2, "divide by the sums of columns and rows before the mean"),
        (
            lambda a: affinity.sinkhorn(a, 2),
            "one round is enough: columns, rows, and the mean with its mirror image",
        ),
    ],
    contrastive_loss=[
        (all_below, "other present classes are below the line, but they do not compete"),
        (
            lambda s, y: F.binary_cross_entropy_with_logits(s, y.float()),
            "that is binary cross-entropy: no class is compared with another",
        ),
        (
            lambda s, y: losses.contrastive_loss(s, y) * y.sum(),
            "take the mean over the present classes, not the sum",
        ),
    ],
    class_scores=[
        (lambda s, y, n: s.softmax(0), "absent classes take a share: hide them (-inf) first"),
        (
            lambda s, y, n: F.pad(s[:-n].masked_fill(~y.bool(), -torch.inf).softmax(0), (0, n)),
            "the background nouns must compete as well",
        ),
    ],
    class_map=[
        (lambda a, g: a @ g.mean(0), "the class token has no place: leave it out of map and mean"),
        (lambda a, g: a[1:] @ g.mean(0), "the class token is still in the mean of the gradient"),
        (
            lambda a, g: (a[1:] * g[1:]).sum(1),
            "average the gradient over the places first: one weight a channel",
        ),
        (lambda a, g: (a[1:] @ g[1:].mean(0)).relu(), "keep the sign: the loss will need it"),
        (lambda a, g: a[1:] @ g[1:].sum(0), "the weight is the mean over the places, not the sum"),
    ],
    cam_seed=[
        (shifted_seed, "class c gets label c + 1, 0 is background"),
        (
            lambda m, c, p: np.r_[0, np.array(c) + 1][1 + np.asarray(m).argmax(0)],
            "no pixel is background: (1 - best score) ** power competes, too",
        ),
        (
            lambda m, c, p: seed_of(np.maximum(m, 0) / np.max(m), c, p),
            "stretch each map on its own, from its smallest to its largest value",
        ),
        (
            lambda m, c, p: seed_of(stretched(m, (1, 2)), c, 1),
            "the power of the background is missing",
        ),
    ],
    fill_the_jar=[
        (union_jar, "compare with each mask in the jar, not with their sum"),
        (greedy_jar, "masks of one level are not compared with each other"),
        (turned_jar, "cover[a, b] is the share of a: rows are the candidates"),
        (lambda c, level, t: list(range(len(level))), "nothing was left out"),
    ],
    name_masks=[
        (means, "stretch every class to [0, 1] across the masks"),
        (lambda m, p: scaled(means(np.maximum(m, 0), p), 0), "stretch across masks, not classes"),
        (lambda m, p: scaled(means(m, p), 1), "cut the maps at 0 before the mean"),
        (
            lambda m, p: scaled(np.stack([[x[q].max() for q in p] for x in np.maximum(m, 0)]), 1),
            "that is the maximum in each mask; wanted is the mean",
        ),
        (
            lambda m, p: scaled(np.stack([[x[q].sum() for q in p] for x in np.maximum(m, 0)]), 1),
            "that is the sum in each mask: large masks would always win",
        ),
    ],
    paint=[
        (painted(lambda lv, c: [np.arange(len(lv))]), "sort them first"),
        (painted(lambda lv, c: [-c, -lv]), "the other way round: what is painted last is on top"),
        (painted(lambda lv, c: [lv, c]), "the level decides first, then the confidence"),
        (painted(lambda lv, c: [c]), "the level decides first, then the confidence"),
    ],
    activation_loss=[
        (whole_top, "the maximum is the one inside the seed"),
        (
            lambda m, f, b: activation(m, f, b) * (f | b).sum() / m.numel(),
            "ignored pixels do not count: divide by those that are inside or outside",
        ),
        (
            lambda m, f, b: activation(m, f, b) * (f | b).sum(),
            "divide by the number of pixels",
        ),
        (
            lambda m, f, b: activation(m, f, b) + ((-m).relu() * b).sum() / (f | b).sum(),
            "outside, only what is above 0 costs",
        ),
    ],
)


# ---------------------------------------------------------------- what they are tried on
def some_labels():
    yield np.array([[0, 1, 1], [3, 255, 20]]), 20
    yield np.zeros((2, 2), int), 20


@cache
def a_clip():
    from fmwsss.models.clip import load_clip

    return load_clip("webclip")


def some_tokens():
    clip = a_clip()
    torch.manual_seed(0)
    yield clip, torch.randn(2, 5, clip.visual.conv1.out_channels)


def some_frames():
    torch.manual_seed(0)
    yield torch.randn(2, 6, 3), torch.randn(2, 3), torch.tensor([[1, 2], [2, 4]])


def some_attention():
    torch.manual_seed(0)
    yield (torch.rand(5, 5).softmax(1) ** 3,)


def some_logits():
    yield torch.tensor([[2.0, 1.0, 0.0, -1.0]]), torch.tensor([[1, 1, 0, 0]])
    yield torch.tensor([[2.0, 1.0, 0.5], [0.0, 1.0, 3.0]]), torch.tensor([[0, 1, 0], [1, 0, 1]])


def some_scores():
    yield torch.tensor([2.0, 1.0, 3.0, 0.5, 1.5]), torch.tensor([1, 0, 1]), 2


def some_activation():
    torch.manual_seed(0)
    yield torch.randn(5, 3), torch.randn(5, 3)


def some_maps():
    first = np.array([[4.0, 2.0, 1.0], [3.0, 0.5, -1.0]])
    second = np.array([[0.0, 0.1, 0.3], [-0.2, 0.4, 0.2]])
    yield np.stack([first, second]), [0, 14], 1.0
    yield np.stack([first, second]), [0, 14], 3.0


def some_jars():
    cover = np.array(
        [
            [1.0, 0.4, 0.5, 0.0, 0.0],
            [0.4, 1.0, 0.0, 0.0, 0.0],
            [0.2, 0.2, 1.0, 0.5, 0.0],
            [0.0, 0.0, 0.5, 1.0, 0.1],
            [0.9, 0.0, 0.0, 0.2, 1.0],
        ]
    )
    yield cover, np.array([2, 2, 1, 1, 0]), 0.3


def some_masks():
    pixels = np.zeros((3, 4, 4), bool)
    pixels[0, :2], pixels[1, 2:, :2], pixels[2, 1:, 3] = True, True, True
    return pixels


def maps_and_masks():
    rng = np.random.default_rng(0)
    yield rng.normal(size=(2, 4, 4)), some_masks()


def to_paint():
    pixels = np.ones((3, 4, 4), bool)
    pixels[0, 2:], pixels[1, :, 3], pixels[2, :1] = False, False, False
    yield pixels, np.array([5, 7, 9]), np.array([2, 1, 2]), np.array([0.9, 1.0, 0.6])
    yield pixels, np.array([5, 7, 9]), np.array([2, 2, 2]), np.array([0.9, 1.0, 0.6])


def one_map():
    m = torch.tensor([[0.2, 1.0, 1.6, -0.4], [0.1, 0.3, 0.5, 2.0]])
    inside = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]) == 1
    outside = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]]) == 1
    yield m, inside, outside


INPUTS = dict(
    multi_hot=some_labels,
    image_feature=some_tokens,
    fill=some_frames,
    class_scores=some_scores,
    class_map=some_activation,
    sinkhorn=some_attention,
    cam_seed=some_maps,
    fill_the_jar=some_jars,
    name_masks=maps_and_masks,
    paint=to_paint,
    contrastive_loss=some_logits,
    activation_loss=one_map,
)
