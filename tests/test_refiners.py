"""The refiners in one frame: settings come from tune, training is kept, the notebook's figures are
what its label maps say, and an outsider's refiner is a row of its table."""

import json
import os
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest
import torch
from PIL import Image

from fmwsss.app.presets import benchmarks_folder, settings_of
from fmwsss.data.label_maps import load_label
from fmwsss.files.errors import DataError, SettingsError
from fmwsss.study.claims import Claim
from fmwsss.study.compare import (
    all_ways,
    best_bound,
    choose_refiners,
    in_words,
    measured_row,
    need_truth,
    open_all,
    peak_growth,
    refiner_row,
    train_affinity_net,
)
from fmwsss.study.measuring import bound, bound_seeds, measure
from fmwsss.study.boundary import boundary_counts, boundary_scores
from fmwsss.study.statistics import miou
from fmwsss.study.study import Study
from fmwsss.study.ways import Way, sweep

SMALL = dict(
    workers=1,
    data=dict(images=dict(train=6, tune=3, val=3)),
    masks=dict(source=["slic"]),
    seeding=dict(
        affinity=dict(attn_layers=2, power=1),
        box_thresholds=[0.3],
        powers=[1, 2],
        rules=[
            dict(filter_thresh=0.3),
            dict(filter_thresh=None, priority=["-area", "confidence"]),
        ],
        control=False,
    ),
    affinitynet=dict(stride=8, blocks=[0, 2], width=8, steps=12, batch=4),
    classification=dict(
        prompts=dict(n_ctx=2),
        training=dict(steps=3, batch_size=3, lr=0.001, warmup=1),
    ),
    refiners=dict(
        sources=["slic"],
        powers=[1, 4],
        pamr=dict(iterations=[2], dilations=[[1, 2]]),
        affinity=dict(beta=[4], log_steps=[0, 1]),
        memory_images=1,
        strips=2,
    ),
)


@pytest.fixture(scope="module")
def outsider(tmp_path_factory):
    "A refiner in a module of its own, which Python and its workers find."
    folder = tmp_path_factory.mktemp("own")
    (folder / "outside_refiner.py").write_text(textwrap.dedent("""
        import numpy as np

        def cut(image, cams, classes, masks=None, *, level=0.5):
            "The class of the highest CAM where it is above a share of its maximum."
            top = cams.max((1, 2), keepdims=True)
            share = np.where(top > 0, cams / np.maximum(top, 1e-12), 0)
            label = np.asarray(classes)[share.argmax(0)] + 1
            return np.where(share.max(0) > level, label, 0)
    """))
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    yield "outside_refiner:cut", folder
    sys.path[:] = before
    sys.modules.pop("outside_refiner", None)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    settings = settings_of("minivoc", changes=SMALL)
    study = Study(settings, tmp_path_factory.mktemp("run"), progress=False)
    prompts = study.fixed("{}.")
    return study, prompts, *train_affinity_net(study, prompts)


def test_every_refiner_gets_all_its_combinations(small, outsider):
    settings = small[0].settings
    ways = all_ways(settings, 0.3)
    names = {"cam", "crf_clip_es", "crf_deeplab", "crf_psa", "affinitynet", "pamr", "sams_slic"}
    on_cam = {name.removesuffix(" cam") for name in ways if name.endswith(" cam")}
    assert on_cam == names and "caa caa" in ways
    assert len(ways["affinitynet cam"]) == 4 and len(ways["sams_slic caa"]) == 4
    boxes = lambda name: {w.box for w in ways[name]}
    assert boxes("pamr caa") == {0.3} and boxes("pamr cam") == {None}
    assert not any(name.endswith(" caa") for name in all_ways(settings, None))
    own = {outsider[0]: dict(level=[0.3, 0.6])}
    more = all_ways(settings_of("minivoc", changes=dict(SMALL, refiners=dict(own=own))), None)
    assert [w.settings for w in more[f"{outsider[0]} cam"]] == [dict(level=0.3), dict(level=0.6)]


def test_an_unknown_refiner_or_setting_is_one_line(outsider):
    for own, words in (
        ({"outside_refiner:cat": {}}, "did you mean 'cut'"),
        ({outsider[0]: dict(levle=[1])}, "did you mean 'level'"),
    ):
        with pytest.raises(SettingsError, match=words) as error:
            settings_of("minivoc", changes=dict(refiners=dict(own=own)))
        assert "\n" not in str(error.value)


def test_training_is_kept_and_repeats(small):
    study, prompts, network, known = small
    assert len(known["losses"]) == 12 and known["seconds"] > 0
    assert set(known["accuracy"]) == {"sure pixels", "truth"}
    written = network.path.stat().st_mtime_ns
    again, read = train_affinity_net(study, prompts)
    assert again.path.stat().st_mtime_ns == written and read["losses"] == known["losses"]
    network.path.unlink()
    assert train_affinity_net(study, prompts)[1]["losses"] == known["losses"]
    assert network(study.data["val"].image(0), np.ones((1, 128, 128)), [3]).shape == (128, 128)


def test_settings_are_the_best_on_tune(small):
    study, prompts, network, _ = small
    found = all_ways(study.settings, 0.3)
    ways = {name: found[name] for name in ("cam cam", "affinitynet cam", "sams_slic caa")}
    refiners = open_all(ways, network)
    chosen, best = choose_refiners(study, prompts, ways, refiners)
    for name, each in ways.items():
        store = lambda w: study.seeds(prompts, w, "tune", refiners[w.method])
        values = [miou(measure(study, "tune", store(w))) for w in each]
        assert best[name] == pytest.approx(max(values))
        assert chosen[name] == each[int(np.argmax(values))]


def test_bound_is_above_every_seed(small):
    study, prompts, *_ = small
    way, value = best_bound(study, "slic")
    rules = [asdict(rule) for rule in study.settings.seeding.rules]
    assert way.settings in rules and value == miou(bound(study, "tune", way))
    seeds = sweep(Way("sams", source="slic", settings=way.settings), power=[1, 2, 4])
    assert value > max(study.score(prompts, seeds))
    label = bound_seeds(study, "tune", way)(0)
    assert label.shape == study.data["tune"].mask(0).shape


def test_a_row_says_what_the_label_maps_say(small):
    study, prompts, *_ = small
    way = Way(settings=dict(power=2))
    seeds, d = study.seeds(prompts, way, "val"), study.data["val"]
    row = refiner_row(study, prompts, "val", way, seeds, measure(study, "val", seeds))
    pairs = [(seeds.load(i)["seed"], d.mask(k)) for k, i in enumerate(d.ids)]
    counts = sum(boundary_counts(*pair) for pair in pairs)
    assert row["boundary_iou"] == boundary_scores(counts)["miou"]
    assert row["miou"] == pytest.approx(own_miou(*map(np.stack, zip(*pairs))))
    assert row["low"] <= row["miou"] <= row["high"] and row["images"] == 3
    assert row["seconds_per_image"] > row["refining_seconds"] > 0 and row["settings"] == "power 2"


def own_miou(pred, true):
    "mIoU by sets of pixels, class by class: another way than a confusion matrix."
    pred, true = np.ravel(pred), np.ravel(true)
    pred, true = pred[true != 255], true[true != 255]
    sets = [(pred == c, true == c) for c in np.unique(true)]
    return np.mean([(p & t).sum() / (p | t).sum() for p, t in sets])


class NoTruth:
    "A part without masks of the truth."

    split, ids = "all", ["a"]
    mask = staticmethod(lambda i: None)
    __len__ = lambda self: 1


def test_parts_without_truth_are_refused(small):
    other = small[0].variant(data=dict(small[0].data, val=NoTruth()))
    need_truth(other, ["tune"])
    with pytest.raises(DataError, match="'all' has no masks .* data.splits.val"):
        need_truth(other, ["tune", "val"])


def test_measured_claims_can_go_either_way():
    row = lambda limit, most: measured_row(Claim("a"), [2, 3, 4], limit, "val", most=most)
    at_least = [row(x, False)["verdict"] for x in (1, 3, 9)]
    assert at_least == ["holds", "undecided", "opposite"]
    assert [row(x, True)["verdict"] for x in (1, 3, 9)] == at_least[::-1]
    assert "at least 1" in measured_row(Claim("a"), 2.0, 1, "val")["by_how_much"]
    assert in_words(Way(settings=dict(power=1, gaussian=[1, 3]))) == "power 1"


def test_peak_growth_sees_a_large_array():
    def setup(megabytes):
        return lambda indices: [np.ones((megabytes, 2**20), np.uint8).sum() for _ in indices]

    found = peak_growth([(setup, (300,))], [0])
    assert found["host"] > 100
    assert np.isnan(found["gpu"]) or torch.cuda.is_initialized()


def test_the_notebook_alone(tmp_path, outsider, monkeypatch):
    "By plain papermill, in small: tables, figures, claims, and one mIoU by another implementation."
    own, folder = outsider
    options = dict(SMALL["refiners"], own={own: dict(level=[0.3])})
    write_preset(tmp_path, dict(SMALL, refiners=options))
    given = dict(root=str(tmp_path / "run"), base=str(tmp_path / "mine.yaml"))
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [known])]))
    papermill.execute_notebook(
        str(benchmarks_folder() / "refiners.ipynb"),
        str(tmp_path / "out.ipynb"),
        given,
        progress_bar=False,
    )
    run = tmp_path / "run"
    read = lambda name: pd.read_csv(run / "tables" / f"{name}.csv")
    table, claims = read("refiners"), read("claims_refiners")
    crf = {f"crf_{name}" for name in ("clip_es", "deeplab", "psa")}
    methods = {"cam", "caa", "affinitynet", "pamr", "sams_slic", "bound_slic", own, *crf}
    assert set(table.method) == methods and set(table.split) == {"val"}
    refiners = table[table.maps != "truth"]
    assert (refiners.seconds_per_image > refiners.refining_seconds).all()
    assert (refiners.peak_memory_mb >= 0).all() and refiners.peak_memory_mb.max() > 10
    assert (table[table.method == "affinitynet"].training_seconds > 0).all()
    answers = {"holds", "opposite", "undecided", "no effect"}
    assert len(claims) >= 1 and set(claims.verdict) <= answers
    labels = sorted((run / "label_maps" / "refiners" / "cam_cam").glob("*.png"))
    labels = [p for p in labels if not p.stem.startswith("legend")]
    truth = [load_label(run / "data" / "SegmentationClass" / p.name) for p in labels]
    row = table[(table.method == "cam") & (table.maps == "cam")]
    value = own_miou(np.stack([np.array(Image.open(p)) for p in labels]), np.stack(truth))
    assert len(labels) == 3 and row.miou.item() == pytest.approx(value, abs=1e-4)
    figures = {p.name for p in (run / "figures").iterdir()}
    strip_of_own = f"refiners_strip_{own.replace(':', '.')}.png"
    assert {"refiners_bars.png", "refiners_time.png", "refiners_strip_pamr.png"} <= figures
    assert strip_of_own in figures


def write_preset(folder: Path, changes: dict):
    "A preset file based on minivoc; JSON is YAML."
    (folder / "mine.yaml").write_text(json.dumps(dict(base="minivoc", **changes)))

