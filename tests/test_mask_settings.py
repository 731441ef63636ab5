"""The search of mask settings keeps what the generator keeps."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fmwsss.method.sams import oracle_seed
from fmwsss.minivoc.writing import split_scene
from fmwsss.models.sam import load_sam
from fmwsss.sources.needed import needed_masks

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import mask_settings

SIDE = 6


@pytest.fixture(scope="module")
def asked():
    sam, drawn = load_sam(), split_scene("tune", 2)
    return sam, drawn, mask_settings.ask_all(sam, drawn.image, drawn.label, SIDE)


@pytest.mark.parametrize("setting", [(0.6, 0.5, 0.3, 0.7, 0.0), (0.3, 0.4, 0.6, 0.6, 0.2)])
def test_a_setting_keeps_what_the_generator_keeps(asked, setting):
    sam, drawn, answers = asked
    iou, parts, wholes, box_nms, max_area = setting
    masks, points = mask_settings.kept(answers, *setting)
    expected = needed_masks(
        sam,
        drawn.image,
        SIDE,
        max_area,
        iou,
        (parts, parts, wholes),
        box_nms_thresh=box_nms,
        min_region_area=0,
        whole_iou_bonus=0,
        whole_nms_bonus=0,
        points_per_batch=mask_settings.BATCH,
    )
    assert len(masks) == len(expected) > 0
    assert sorted(answers.rows[masks, 6].tolist()) == sorted(expected.level.tolist())
    found = mask_settings.bound_map(answers, masks)
    assert (found != oracle_seed(expected, drawn.label)).mean() < 0.01  # purity ties may differ
    assert points == SIDE**2 if not max_area else points < SIDE**2


def test_the_table_has_the_best_bound_first(asked):
    _, _, answers = asked
    table = mask_settings.search([answers], (0.3, 0.9), (0.2, 0.9), (0.2,), (0.7,), (0.0, 0.2))
    assert len(table) == 8 and table.bound.is_monotonic_decreasing
    assert np.isfinite(table.bound).all() and table.bound.max() > 80
    assert set(table.columns) == set(mask_settings.COLUMNS)
