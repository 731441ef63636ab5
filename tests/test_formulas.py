"""What the tests of the formulas did not notice until `make mutants` showed it.

The defaults are the paper's numbers (or say that nothing is done), and means are means."""

import importlib
import inspect

import numpy as np
import pytest
import torch

from fmwsss.method.evaluation import activation_errors, mean_over, scores
from fmwsss.method.masks import Masks, to_numpy
from fmwsss.method.sams import add_background, mask_means, painting_order, seed_from_scores

DEFAULTS = {
    "cam.class_scores": dict(mode="present+background", eps=0.0),
    "cam.masked_softmax": dict(eps=0.0),
    "cam.softmax_gradcam": dict(create_graph=False, eps=0.0, mode="present+background"),
    "affinity.affinity_mask": dict(inside="inside", outside="inside"),
    "affinity.affinity_matrix": dict(rounds=1, power=2),
    "affinity.affinity_of": dict(index=None, rounds=1, power=2),
    "affinity.box_mask": dict(threshold=0.4, published=False),
    "affinity.boxes": dict(threshold=0.4, published=False),
    "affinity.min_max": dict(eps=0.0),
    "affinity.propagate": dict(inside="inside", outside="inside"),
    "affinity.refine": dict(
        index=None,
        rounds=1,
        power=2,
        threshold=0.4,
        at="score",
        published=False,
        inside="inside",
        outside="inside",
    ),
    "affinity.sinkhorn": dict(rounds=1),
    "losses.cam_activation_loss": dict(
        norm="l1", reduce="all", detach_max=True, bg_threshold=0.0, eps=1e-05, parts=False
    ),
    "losses.contrastive_loss": dict(reduce="pos_mean", gamma=1.0),
    "masks.grid_masks": dict(
        points_per_side=32,
        pred_iou_thresh=0.86,
        stability_thresh=0.92,
        box_nms_thresh=0.7,
        whole_iou_bonus=0.1,
        whole_nms_bonus=1.0,
    ),
    "masks.masks_of": dict(level=None, iou=None, stability=None, size=None),
    "masks.of_records": dict(size=None),
    "masks.oracle_labels": dict(ignore=255),
    "masks.rock_sand_water": dict(thresh=0.3, indices=False),
    "masks.run_length": dict(size=None),
    "masks.stability": dict(offset=1.0),
    "masks.suppress": dict(thresh=0.7, bonus=1.0),
    "masks.sure": dict(pred_iou_thresh=0.86, stability_thresh=0.92, bonus=0.1),
    "sams.add_background": dict(power=1.0, threshold=None),
    "sams.cam_scores": dict(size=None, resize_first=True, published=False),
    "sams.cut": dict(norm_first=True, published=False),
    "sams.label_numbers": dict(ignore=255),
    "sams.mask_scores": dict(norm_first=True, published=False),
    "sams.oracle_seed": dict(ignore=255, priority=("confidence",)),
    "sams.over_masks": dict(published=False),
    "sams.paint": dict(values=None),
    "sams.painting_order": dict(priority=("level", "confidence"), published=False),
    "sams.sams": dict(
        power=0.6,
        threshold=None,
        norm_first=True,
        priority=("level", "confidence"),
        published=False,
        ignore=255,
    ),
    "sams.seed_from_cams": dict(
        power=1.0, threshold=None, size=None, resize_first=True, published=False, ignore=255
    ),
    "sams.seed_from_scores": dict(ignore=255),
    "sams.stretch": dict(eps=0.0),
    "evaluation.activation_errors": dict(relative_to="union"),
    "evaluation.class_table": dict(names=None),
    "evaluation.confusion": dict(n=21, ignore=255, void=False),
    "evaluation.evaluate": dict(n=21, ignore=255),
    "evaluation.scores": dict(over="truth"),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_written_down(name):
    module, _, function = name.rpartition(".")
    found = getattr(importlib.import_module(f"fmwsss.method.{module}"), function)
    parameters = inspect.signature(found).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert defaults == DEFAULTS[name]
    for key, value in DEFAULTS[name].items():
        assert type(defaults[key]) is type(value), key


def test_over_and_under_activation_are_means_over_objects():
    conf = np.array([[50, 4, 6], [10, 20, 0], [2, 0, 8]])
    found = activation_errors(conf)
    over, under = np.array([4 / 34, 6 / 16]), np.array([10 / 34, 2 / 16])
    assert found["mean_over"] == pytest.approx(over.mean())
    assert found["mean_under"] == pytest.approx(under.mean())


def test_a_single_true_pixel_counts():
    values, true, pred = np.array([1.0, 0.5, 0.25]), np.array([9, 1, 0]), np.array([0, 0, 1])
    assert mean_over(values, true, pred, "truth") == 0.75
    assert mean_over(values, true, pred, "seen") == pytest.approx(1.75 / 3)
    assert scores(np.diag([3, 1, 0]))["miou"] == 1


def test_a_class_that_is_nowhere_is_not_seen():
    values, true, pred = np.array([1.0, 0.5, np.nan]), np.array([9, 1, 0]), np.array([9, 0, 0])
    assert mean_over(values, true, pred, "seen") == 0.75
    assert mean_over(values, true, pred, "all") == 0.5


def test_an_object_of_one_pixel_counts():
    conf = np.array([[5, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert activation_errors(conf)["mean_over"] == 0.5


def test_the_background_is_what_the_best_class_leaves():
    maps = np.array([[[0.25, 1.0]], [[0.5, 0.0]]], np.float32)
    assert add_background(maps)[0].tolist() == [[0.5, 0.0]]
    assert add_background(maps, 2)[0].tolist() == [[0.25, 0.0]]
    assert add_background(maps, threshold=0.3)[0].tolist() == pytest.approx(np.array([[0.3, 0.3]]))
    assert add_background(np.zeros((0, 2)))[0].tolist() == [1, 1]


def test_labels_of_scores():
    table = np.array([[0.5, 0.1, 0.2], [0.5, 0.7, 0.2], [0.1, 0.7, 0.3]])
    assert seed_from_scores(table, [4, 8]).tolist() == [0, 5, 9]


def test_means_of_masks_are_of_their_pixels():
    dense = np.array([[[1, 1], [0, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]], bool)
    found = mask_means(np.array([[[1.0, 3.0], [5.0, 7.0]]]), Masks.of(dense))
    assert found.tolist() == [[2.0, 7.0, 0.0]]


def test_ties_are_broken_for_objects_and_small_masks():
    "Equal level and confidence: background below classes, larger below smaller, then the order."
    args = [0, 3, 3, 3], [0.5] * 4, [2] * 4, [9, 9, 4, 9]
    assert painting_order(*args).tolist() == [0, 1, 3, 2]
    assert painting_order(*args, published=True).tolist() == [0, 1, 2, 3]


def test_nothing_of_the_path_needs_a_gradient_it_was_not_asked_for():
    from fmwsss.method.affinity import refine

    cams = torch.rand(1, 2, 3)
    assert not refine(cams, torch.full((6, 6), 1 / 6)).requires_grad


def test_masks_of_pixels_are_sure_and_stable():
    masks = Masks.of(np.ones((2, 3, 4), bool))
    assert masks.iou.tolist() == masks.stability.tolist() == [1, 1] and set(masks.level) == {2}


def test_only_half_precision_changes_its_kind():
    for kind in (torch.int8, torch.uint8, torch.bool, torch.float64, torch.float32):
        assert to_numpy(torch.ones(2).to(kind)).dtype == torch.ones(2).to(kind).numpy().dtype
    assert to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
