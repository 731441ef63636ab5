"""The refiners in one frame: sharing changes nothing, settings come from tune, the notebook's figures are what its label maps say."""
import numpy as np
import papermill
import pandas as pd
import pytest
import torch
from PIL import Image

from fmwsss.study.boundary import boundary_counts, boundary_scores
from fmwsss.study.method import Method, way
from fmwsss.data.label_maps import load_label
from fmwsss.refiners.pamr import pamr
from fmwsss.study.refiners import OneOf, choose_refiners, grid, load_network, peak_growth, refine_all, refined_seeds, repeated, train_network
from fmwsss.study.statistics import bootstrap_interval, boundary_miou
from fmwsss.app.presets import benchmarks_folder
from fmwsss.sources.classical import slic_masks

NET = dict(backbone="clip", stride=8, blocks=[0, 2], colour=3.0, width=8, radius=5, steps=12, batch=4, lr=0.003, side=None)
SEEDING = dict(affinity=dict(attn_layers=2, power=1), box_thresholds=[0.3], powers=[1, 2], rules=[dict(filter_thresh=0.3)])
MODELS, DATA = dict(clip="miniclip", sam="minisam"), dict(kind="minivoc", images=dict(train=6, tune=3, val=3))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    m = Method(tmp_path_factory.mktemp("run"), DATA, MODELS, dict(source=["slic"]), SEEDING, progress=False)
    prompts = m.fixed("{}.")
    return m, prompts, *train_network(m, prompts, NET)


def test_grid_is_all_combinations():
    ways = grid("pamr", maps=("cam", "caa"), powers=(1, 2), box=0.3, iterations=(5, 10), dilations=[(1, 2)])
    assert len(ways) == 8 and ways[0] == way("pamr", 0.3, "cam", 1, iterations=5, dilations=(1, 2))


def test_sharing_changes_no_seed():
    rng = np.random.default_rng(0)
    image, maps = rng.integers(0, 256, (64, 80, 3)).astype(np.uint8), rng.random((2, 64, 80)).astype(np.float32)
    features, masks = torch.randn(4, 10, 12) * 0.2, slic_masks(image, (20, 10, 5))
    ways = [*grid("pamr", powers=(1, 3), iterations=(2, 5), dilations=[(1, 2)]), *grid("affinity", powers=(1, 3), beta=(4,), log_steps=(0, 2)),
            *grid("threshold", powers=(1, 3)), *grid("sams", powers=(1,), source="slic", rules=(dict(filter_thresh=None),))]
    run = lambda ways: refine_all(ways, lambda w: maps, np.array([3, 7]), image, lambda w: masks, lambda: features)
    together = run(ways)
    for w, seed in zip(ways, together): assert (run([w])[0] == seed).mean() > 0.999 and set(np.unique(seed)) <= {0, 4, 8}
    assert len({s.tobytes() for s in together}) > 5                                # they do differ


def test_steps_go_on_from_each_other():
    image, maps = np.random.default_rng(1).integers(0, 256, (20, 24, 3)).astype(np.uint8), np.random.default_rng(2).random((2, 20, 24)).astype(np.float32)
    found = repeated("pamr", image, None, maps, [2, 5], dict(dilations=(1, 2)))
    assert all(torch.allclose(x, pamr(image, maps, t, (1, 2)), atol=1e-5) for x, t in zip(found, (2, 5)))


def test_training_is_kept_and_repeats(small):
    m, prompts, network, kept = small
    assert len(kept["losses"]) == 12 and kept["seconds"] > 0 and set(kept["accuracy"]) == {"sure pixels", "truth"}
    again = train_network(m, prompts, NET)
    assert again[0][0] == network[0] and again[1]["losses"] == kept["losses"]      # read, not trained again
    network[0].unlink()
    assert train_network(m, prompts, NET)[1]["losses"] == kept["losses"]           # the same seed, the same training
    assert load_network(*network)(m.data["val"].image(0)).shape == (8, 16, 16)


def test_settings_are_the_best_on_tune(small):
    m, prompts, network, _ = small
    candidates = dict(cam=grid("threshold", powers=(0.2, 1, 4)), affinity=grid("affinity", powers=(1, 4), beta=(4,), log_steps=(0, 1)),
                      bound=grid("oracle", source="slic", rules=(dict(filter_thresh=None, priority=("-area", "confidence")),)))
    chosen, best = choose_refiners(m, prompts, candidates, network)
    for name, ways in candidates.items():
        value = [m.confusions("tune", OneOf(refined_seeds(m, prompts, {"x": w}, network, "tune"), "x")).sum(0) for w in ways]
        ious = [np.mean((np.diag(c) / np.maximum(c.sum(0) + c.sum(1) - np.diag(c), 1))[c.sum(1) > 0]) for c in value]
        assert best[name] == pytest.approx(max(ious)) and chosen[name] == ways[int(np.argmax(ious))]
    assert best["bound"] > best["cam"]


def test_interval_and_boundary_of_a_split(small):
    m, prompts, _, _ = small
    store = refined_seeds(m, prompts, dict(cam=way("threshold", power=2)))
    seeds, d = OneOf(store, "cam"), m.data["val"]
    counts = sum(boundary_counts(store.load(i)["cam"], d.mask(k)) for k, i in enumerate(d.ids))
    assert boundary_miou(d, seeds) == boundary_scores(counts)["miou"] and 0 < store.seconds("cam") < 60
    c = m.confusions("val", seeds)
    low, high = bootstrap_interval(c)
    assert 0 <= low < high <= 1
    same = np.repeat(c[:1], 5, 0)
    assert bootstrap_interval(same)[0] == bootstrap_interval(same)[1]              # equal images leave no doubt


def test_peak_growth_sees_a_large_array():
    def setup(megabytes): return lambda indices: [np.ones((megabytes, 2**20), np.uint8).sum() for _ in indices]
    assert peak_growth([(setup, (300,))], [0]) > 100


def test_the_notebook_alone(tmp_path):
    "By plain papermill, in small: tables, figures, claims, and one mIoU by another implementation from the written label maps."
    parameters = dict(root=str(tmp_path), workers=1, data=dict(DATA, names="voc"), masks=dict(source=["slic"]), affinitynet=NET,
                      seeding=dict(SEEDING, crf=dict(clip_es=dict(gaussian=[1, 3], bilateral=[67, 3, 4]))),
                      classification=dict(prompts=dict(n_ctx=2, per_class=False, position="end", std=0.015), background="nouns", training=dict(steps=3, batch_size=3, lr=0.001, warmup=1)),
                      refiners=dict(part="val", maps=["cam", "caa"], sources=["slic"], powers=[1], pamr=dict(iterations=[2], dilations=[[1, 2]]),
                                    affinity=dict(beta=[4], log_steps=[0]), memory_images=1, strips=2))
    papermill.execute_notebook(str(benchmarks_folder() / "refiners.ipynb"), str(tmp_path / "out.ipynb"), parameters, progress_bar=False)
    table, claims = (pd.read_csv(tmp_path / "tables" / f"{t}.csv") for t in ("refiners", "claims_refiners"))
    assert {"method", "split", "images", "miou", "boundary_iou", "seconds_per_image", "training_seconds", "peak_memory_mb", "settings"} <= set(table)
    assert set(table.method) == {"cam", "caa", "crf_clip_es", "affinitynet", "pamr", "sams_slic", "bound_slic"} and set(table.split) == {"val"}
    refiners = table[table.maps != "truth"]
    assert (refiners.seconds_per_image > refiners.refining_seconds).all() and (refiners.peak_memory_mb > 0).all()
    assert (table[table.method == "affinitynet"].training_seconds > 0).all()
    assert len(claims) >= 1 and set(claims.holds) <= {"yes", "no", "undecided"}
    labels = sorted((tmp_path / "label_maps" / "refiners" / "cam_cam").glob("*.png"))
    truth = [load_label(tmp_path / "data" / "SegmentationClass" / p.name) for p in labels]
    pred, true = np.concatenate([np.array(Image.open(p)).ravel() for p in labels]), np.concatenate([t.ravel() for t in truth])
    ious = [((pred == c) & (true == c)).sum() / ((pred == c) | (true == c)).sum() for c in np.unique(true)]
    assert len(labels) == 3 and table[(table.method == "cam") & (table.maps == "cam")].miou.item() == pytest.approx(np.mean(ious), abs=1e-4)
    assert {"refiners_bars.png", "refiners_time.png", "refiners_strip_pamr.png"} <= {p.name for p in (tmp_path / "figures").iterdir()}
