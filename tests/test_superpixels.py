"""Masks as run lengths, what they are made of, SAM's answers to a grid, rock, sand and water."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor

from fmwsss.fast import runs as fast
from fmwsss.method import masks as plain
from fmwsss.method import sams as plain_sams
from fmwsss.method.masks import (
    Masks,
    ask,
    grid_masks,
    oracle_labels,
    point_grid,
    rock_sand_water,
    stability,
    suppress,
    sure,
    sure_answers,
)
from fmwsss.minivoc.writing import split_scene
from fmwsss.models.sam import load_sam
from fmwsss.sources.automatic import generate_masks
from fmwsss.sources.classical import join, label_masks


def drawn(n, size, seed=0):
    "n masks of one to three ellipses, (n, H, W) bool."
    rng, (h, w) = np.random.default_rng(seed), size
    out = np.zeros((n, h, w), np.uint8)
    for m in out:
        for _ in range(rng.integers(1, 4)):
            centre = int(rng.integers(w)), int(rng.integers(h))
            axes = int(rng.integers(1, w // 3)), int(rng.integers(1, h // 3))
            cv2.ellipse(m, centre, axes, int(rng.integers(180)), 0, 360, 1, -1)
    return out.astype(bool)


@pytest.fixture
def masks():
    dense = drawn(20, (37, 53))
    dense[3], dense[4] = False, True
    dense[5] = np.random.default_rng(1).random((37, 53)) < 0.5
    quality = np.linspace(0, 1, 20)
    return Masks.of(dense, np.arange(20) % 3, quality, quality[::-1]), dense


# Masks


def test_there_and_back(masks):
    m, dense = masks
    assert np.array_equal(m.dense(), dense) and m.dense().dtype == bool and len(m) == 20
    assert np.array_equal(m.area, dense.sum((1, 2))) and m.size == (37, 53)


def test_subsets(masks):
    m, dense = masks
    rows = ([2, 0], slice(1, 9, 3), m.level == 1, np.array([7]), torch.tensor([7, 3]), -1)
    for i in rows:
        assert np.array_equal(m[i].dense(), dense[i].reshape(-1, 37, 53))
        assert np.array_equal(m[i].level, np.reshape(m.level[i], -1))
    for nothing in ([], np.zeros(20, bool), slice(0, 0)):
        assert len(m[nothing]) == 0 and m[nothing].dense().shape == (0, 37, 53)
    assert np.array_equal(join(m[:5], m[5:]).dense(), dense)
    with pytest.raises(ValueError, match="one size"):
        join(m, Masks.of(np.ones((1, 3, 3), bool)))


def test_what_masks_are_made_of(masks):
    m, dense = masks
    polygon = [[1, 1, 6, 1, 6, 6, 1, 6]]
    lists = [coco_list(d) for d in dense]
    for x in (dense, torch.tensor(dense), dense.astype(np.uint8), 255 * dense.astype(int), m,
              [dict(segmentation=d) for d in dense], [dict(segmentation=r) for r in lists],
              lists, m.rles):  # fmt: skip
        assert np.array_equal(Masks.of(x).dense(), dense)
    assert Masks.of(dense[7]).dense().tolist() == dense[7:8].tolist()
    assert Masks.of(dense).level.tolist() == [2] * 20 and Masks.of(dense, level=0).level.max() == 0
    found = Masks.of([dict(segmentation=dense[0], predicted_iou=0.5, stability_score=0.7, level=1)])
    assert (found.level[0], found.iou[0], found.stability[0]) == (1, 0.5, np.float32(0.7))
    bare = Masks.of([dict(segmentation=dense[0])])
    assert (bare.level[0], bare.iou[0], bare.stability[0]) == (2, 1, 1)
    assert Masks.of([dict(segmentation=polygon)], size=(9, 12)).area.tolist() == [25]
    labels = np.array([[0, 0, 300], [7, 7, 300]])
    assert Masks.of(labels).area.tolist() == [2, 2, 2]
    assert len(Masks.of([], size=(4, 5))) == 0 and Masks.of([], size=(4, 5)).size == (4, 5)
    assert Masks.of(np.zeros((0, 4, 5), bool)).dense().shape == (0, 4, 5)


def coco_list(mask):
    "COCO's uncompressed run lengths."
    flat = np.r_[False, mask.T.ravel()]
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return dict(size=list(mask.shape), counts=np.diff(np.r_[0, edges, mask.size]).tolist())


@pytest.mark.parametrize("x, how, word", [
    (np.ones((2, 3, 3), bool), dict(level=[1]), "level"),
    (np.ones((2, 3, 3), bool), dict(iou=[1, 1, 1]), "iou"),
    (np.ones(3, bool), {}, "shape"),
    (np.ones((1, 1, 3, 3), bool), {}, "shape"),
    (None, {}, "shape"),
    (np.array([[[0.2, 0.9]]]), {}, "threshold"),
    (np.array([[[0, 1, 2]]]), {}, "True and False"),
    (np.array([[[0, np.nan]]]), {}, "True and False"),
    ([np.ones((3, 3)), np.ones((4, 4))], {}, "shape"),
    (np.ones((2, 3, 3), bool), dict(size=(9, 9)), "3x3.*9x9"),
    ([], {}, "size"),
    ([dict(bbox=[1, 2, 3, 4])], {}, "segmentation"),
    ([dict(segmentation=[[1, 1, 6, 1, 6, 6]])], {}, "size"),
    ([dict(size=[2, 2], counts=[1, 1])], {}, "2 pixels"),
    ([dict(segmentation=np.ones((n, 2), bool)) for n in (2, 3)], {}, "size"),
])  # fmt: skip
def test_what_masks_cannot_be_made_of(x, how, word):
    with pytest.raises(ValueError, match=word) as error:
        Masks.of(x, **how)
    assert "\n" not in str(error.value)


# Run lengths, computed with


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 2**32), st.floats(0, 1)
)
def test_runs_of_any_mask(h, w, n, seed, density):
    rng = np.random.default_rng(seed)
    dense = rng.random((n, h, w)) < density
    m, order = Masks.of(dense), rng.permutation(n)
    values = rng.normal(size=(2, h, w)).astype(np.float32)
    means, top = np.zeros((2, n)), np.full((h, w), -1)
    for i in range(n):
        means[:, i] = values[:, dense[i]].mean(1) if dense[i].any() else 0
    for i in order:
        top[dense[i]] = i
    for form in (fast, plain_sams):
        assert np.allclose(form.mask_means(values, m), means, atol=1e-6)
        assert np.array_equal(form.paint(m, order), top)
        numbers = np.arange(n, dtype=np.uint16) + 300
        assert np.array_equal(form.paint(m, order, numbers), np.r_[0, numbers][top + 1])
    start, end, owner = fast.runs_of(m)
    flat = np.zeros((n, h * w), bool)
    for a, b, i in zip(start, end, owner):
        flat[i, a:b] = True
    assert np.array_equal(flat.reshape(n, w, h).transpose(0, 2, 1), dense)


def test_long_runs_survive_parsing():
    dense = np.zeros((3, 900, 1100), bool)
    dense[0, :, 3:], dense[1, 1, ::2], dense[2, 899, 1099] = True, True, True
    start, end, owner = fast.runs_of(Masks.of(dense))
    assert np.bincount(owner, end - start).tolist() == dense.sum((1, 2)).tolist()


@pytest.mark.parametrize("counts", [b"", b"1", b"0j", b"000", b"\x7f\x7f"])
def test_damaged_runs_are_named(counts):
    good = Masks.of(np.ones((1, 4, 5), bool)).rles[0]["counts"]
    with pytest.raises(ValueError, match="mask 1"):
        fast.parse_runs([good, counts, good], 20)


def test_paint_may_leave_masks_out(masks):
    m, dense = masks
    for form in (fast, plain_sams):
        assert np.array_equal(form.paint(m, [7]) == 7, dense[7])
        assert (form.paint(m, []) == -1).all()


def test_values_of_another_size(masks):
    for form in (fast, plain_sams):
        with pytest.raises(ValueError, match="resize"):
            form.mask_means(np.ones((1, 4, 4)), masks[0])


# The filter


def dense_filter(dense, level, thresh):
    kept = []
    for n in sorted(set(level.tolist()), reverse=True):
        new = [i for i in range(len(dense)) if level[i] == n]
        share = lambda i, k: (dense[i] & dense[k]).sum() / max(dense[i].sum(), 1)
        kept += [i for i in new if not kept or max(share(i, k) for k in kept) < thresh]
    return kept


@pytest.mark.parametrize("form", [plain, fast])
@pytest.mark.parametrize("thresh", [0.1, 0.3, 0.9, 1.05])
def test_rock_sand_water_equals_dense(form, thresh):
    for seed in range(4):
        dense, rng = drawn(40, (40, 60), seed), np.random.default_rng(seed)
        dense[seed] = False
        m = Masks.of(dense, rng.integers(0, 3, 40))
        kept = form.rock_sand_water(m, thresh, indices=True)
        assert kept.tolist() == dense_filter(dense, m.level, thresh)
        assert np.array_equal(form.rock_sand_water(m, thresh).dense(), dense[kept])


@pytest.mark.parametrize("form", [plain, fast])
def test_rock_sand_water_of_nothing_and_of_water_only(form, masks):
    m, dense = masks
    assert len(form.rock_sand_water(m[[]])) == 0
    water = m[m.level == 0]
    assert len(form.rock_sand_water(water)) == len(water)
    assert len(form.rock_sand_water(dense)) == 20


def test_true_class_of_a_mask():
    truth = np.array([[0, 0, 7, 7], [0, 7, 7, 255]], np.uint8)
    m = join(label_masks(np.array([[1, 1, 2, 2], [1, 1, 2, 3]])))
    labels, purity = oracle_labels(m, truth)
    assert labels.tolist() == [0, 7, 0] and purity.tolist() == pytest.approx([0.75, 1, 0])
    assert oracle_labels(m, np.full((2, 4), 255))[0].tolist() == [0, 0, 0]
    assert [a.tolist() for a in oracle_labels(m[[]], truth)] == [[], []]
    with pytest.raises(ValueError, match="resize"):
        oracle_labels(m, truth[:, :3])


# SAM's answers


@pytest.fixture(scope="module")
def looked_at():
    predictor = SamPredictor(load_sam())
    predictor.set_image(split_scene("val", 26).image)
    return predictor


def test_ask_is_what_the_predictor_says(looked_at):
    logits, iou = ask(looked_at, [(78, 60), (10, 100)])
    theirs = looked_at.predict(np.array([[10, 100]]), np.array([1]), return_logits=True)
    assert logits.shape == (2, 3, 128, 128) and np.allclose(logits[1], theirs[0], atol=1e-4)
    assert np.allclose(iou[1], theirs[1], atol=1e-5)


def test_stability_by_hand():
    logits = torch.tensor([[2.0, 0.5, -0.5, -2.0], [3.0, 3.0, 3.0, 3.0]]).view(2, 2, 2)
    assert stability(logits).tolist() == pytest.approx([1 / 3, 1])
    assert stability(logits, 3.0).tolist() == [0, 0]
    assert stability(torch.full((2, 2), -9.0)).isnan()


def test_bonuses_help_wholes_alone():
    iou, logits = torch.full((1, 3), 0.8), torch.full((1, 3, 4, 4), 9.0)
    assert sure(logits, iou).tolist() == [[False, False, True]]
    assert not sure(logits, iou, bonus=0).any() and sure(logits, iou, 0.5).all()
    assert not sure(-logits, iou, 0.5).any()  # empty masks are no masks
    masks, level = torch.ones(2, 4, 4, dtype=torch.bool), torch.tensor([1, 2])
    iou = torch.tensor([0.9, 0.8])
    assert suppress(masks, iou, level).tolist() == [1]
    assert suppress(masks, iou, level, bonus=0).tolist() == [0]


def test_a_grid_lies_in_the_middle_of_its_tiles():
    assert point_grid(2, (40, 80)).tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]


@pytest.mark.parametrize("scene, thresh", [(1, 0.6), (3, 0.5), (26, 0.4)])
def test_the_path_finds_the_generators_masks(scene, thresh):
    image, sam = split_scene("val", scene).image, load_sam()
    limits = dict(points_per_side=10, pred_iou_thresh=thresh, stability_thresh=thresh)
    ours = grid_masks(sam, image, **limits)
    theirs = generate_masks(sam, image, crop_layers=0, min_region_area=0, **limits)
    assert len(ours) > 3 and ours.level.tolist() == theirs.level.tolist()
    for a, b in zip(ours.dense(), theirs.dense(), strict=True):
        assert (a & b).sum() > 0.999 * (a | b).sum()
    assert np.allclose(ours.iou, theirs.iou, atol=1e-4)
    assert np.allclose(ours.stability, theirs.stability, atol=0.01)


def test_a_grid_may_find_nothing():
    found = grid_masks(load_sam(), split_scene("val", 1).image, 4, pred_iou_thresh=9)
    assert len(found) == 0 and found.size == (128, 128)


def test_borders_of_what_is_sure():
    """Above the threshold of predicted IoU, at least at that of stability, strictly above 0."""
    quarter = torch.tensor([[2.0, 0.5, 0.5, 0.5]] * 3).view(1, 3, 2, 2)  # 1 of 4 above +1
    limits = dict(pred_iou_thresh=0.5, stability_thresh=0.25)
    assert sure(quarter, torch.tensor([[0.5, 0.75, 0.5]]), bonus=0.0, **limits).tolist() == [
        [False, True, False]
    ]
    assert stability(torch.tensor([[2.0, -1.0], [0.0, 0.0]])) == 1 / 3  # -1 is not above -1


class Answers:
    "A predictor that knows its answers."

    original_size, device = (2, 2), "cpu"

    class transform:
        apply_coords = staticmethod(lambda points, size: points)

    def predict_torch(self, points, hits, return_logits):
        assert return_logits and (hits == 1).all() and hits.shape == points.shape[:2]
        logits = torch.tensor([3.0, 0.0, -3.0, 3.0]).view(1, 1, 2, 2).expand(len(points), 3, 2, 2)
        return logits, torch.full((len(points), 3), 0.9), None


def test_a_logit_of_0_is_outside():
    masks, iou, crisp, level = sure_answers(Answers(), [[1.0, 1.0]], 0.5, 0.5, 0.0)
    assert masks.tolist() == [[[True, False], [False, True]]] * 3
    assert level.tolist() == [0, 1, 2] and crisp.tolist() == [crisp[0].item()] * 3


def test_a_mask_that_is_covered_by_just_the_threshold_stays_out():
    part, whole = np.zeros((2, 4, 4), bool)
    part[0], whole[0, :2], whole[1:] = True, True, True
    masks = Masks.of(np.stack([part, whole]), level=[0, 2])
    assert rock_sand_water(masks, 0.5, indices=True).tolist() == [1]
    assert rock_sand_water(masks, 0.51, indices=True).tolist() == [1, 0]


def test_a_mask_of_one_pixel_is_pure():
    pixel = np.zeros((1, 2, 2), bool)
    pixel[0, 0, 0] = True
    labels, purity = oracle_labels(pixel, np.full((2, 2), 3))
    assert labels.tolist() == [3] and purity.tolist() == [1]
