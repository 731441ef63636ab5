"""The door of the refiners: one protocol, names, settings from the signature, candidates; and label
maps that stay what they were, to the last pixel."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fmwsss.files.errors import SettingsError
from fmwsss.method.masks import Masks
from fmwsss.method.sams import resize_maps
from fmwsss.refiners.affinity_walk import AffinityNet
from fmwsss.refiners.refiner import (
    REFINERS,
    candidates,
    label_maps,
    needs_masks,
    open_refiner,
    prepared,
    settings_of,
    threshold_seed,
)

ROOT = Path(__file__).parent.parent
EXPECTED = np.load(Path(__file__).parent / "refiners_expected.npz")
WAYS = json.loads(str(EXPECTED["ways"]))


def drawn(n):
    "Scene n of the file: image, CAMs at its size, classes, masks, AffinityNet with its features."
    image = EXPECTED[f"image{n}"]
    cams = resize_maps(EXPECTED[f"cams{n}"], image.shape[:2]).numpy()
    dense = np.unpackbits(EXPECTED[f"masks{n}"], axis=-1).astype(bool)
    features = torch.tensor(EXPECTED[f"features{n}"])
    affinity = AffinityNet(lambda image: features)
    return image, cams, EXPECTED[f"classes{n}"], Masks.of(dense, EXPECTED[f"level{n}"]), affinity


@pytest.mark.parametrize("n", range(3))
def test_label_maps_are_those_of_the_first_edition(n):
    """35 settings of all refiners: arrays of the first edition's `seed_of` and `refine_all` on
    drawn scenes, one setting after the other and all of a refiner at once."""
    image, cams, classes, masks, affinity = drawn(n)
    for name in dict(WAYS):
        refiner = affinity if name == "affinity" else open_refiner(name)
        mine = [k for k, way in enumerate(WAYS) if way[0] == name]
        settings = [WAYS[k][1] for k in mine]
        together = label_maps(refiner, image, cams, classes, masks, settings)
        for k, seed, setting in zip(mine, together, settings):
            alone = refiner(image, cams, classes, masks, **setting)
            assert np.array_equal(seed, EXPECTED[f"seeds{n}"][k]), (name, setting)
            assert np.array_equal(alone, seed), (name, setting)


def test_names_open_and_wrong_ones_are_refused():
    assert set(REFINERS) == {"threshold", "sams", "crf", "pamr", "affinity"}
    assert open_refiner("fmwsss.refiners.refiner:threshold_seed") is threshold_seed
    for name, words in (
        ("pamer", r"did you mean 'pamr'\? Or give package\.module:object$"),
        ("nowhere_at_all:x", "No module named 'nowhere_at_all'"),
        ("fmwsss.refiners.crf:crf_sed", "did you mean 'crf_seed'"),
        ("math:pi", "cannot be called as a refiner"),
        ("fmwsss.refiners.affinity_walk:AffinityNet", "cannot be called as a refiner"),
        ("math:sqrt", "cannot be called as a refiner"),
    ):
        with pytest.raises(SettingsError, match=words) as error:
            open_refiner(name)
        assert "\n" not in str(error.value)


def test_the_signature_says_whether_masks_are_needed():
    assert [name for name, refiner in REFINERS.items() if needs_masks(refiner)] == ["sams"]
    assert settings_of(open_refiner("affinity")) == dict(power=16.0, beta=8, log_steps=8)


def with_places(image, cams, classes, masks=None, size=3, *, places=(1, 2), power=1.0):
    return np.zeros(cams.shape[-2:], np.uint8)


def test_lists_are_candidates():
    assert candidates(with_places, {}) == [{}]
    found = candidates(with_places, dict(size=[3, 5], power=[1, 2]))
    assert [tuple(f.values()) for f in found] == [(3, 1), (3, 2), (5, 1), (5, 2)]
    assert candidates(with_places, dict(places=[4, 5])) == [dict(places=(4, 5))]
    both = candidates(with_places, dict(places=[[4, 5], [6]], power=2))
    assert both == [dict(places=(4, 5), power=2), dict(places=(6,), power=2)]
    no_filter = candidates(open_refiner("sams"), dict(filter_thresh=[0.3, None]))[1]
    assert no_filter == dict(filter_thresh=None)
    with pytest.raises(SettingsError, match="refiners.mine.power is an empty list"):
        candidates(with_places, dict(power=[]), "refiners.mine")
    for wrong in (dict(pover=[1]), dict(masks=[1])):
        with pytest.raises(SettingsError, match="refiners.mine: setting"):
            candidates(with_places, wrong, "refiners.mine")


@pytest.mark.parametrize(
    "made, words",
    [
        (np.zeros((4, 4), np.uint8), r"returned \(4, 4\) uint8"),
        (np.zeros((6, 5)), r"returned \(6, 5\) float64"),
        (np.full((6, 5), -1), "a label map of integers"),
        (np.full((6, 5), 3, np.uint8), "returned label 3: there are"),
    ],
)
def test_what_is_no_label_map_is_refused(made, words):
    cams = np.ones((1, 6, 5), np.float32)
    with pytest.raises(SettingsError, match=words):
        label_maps(lambda image, cams, classes, masks: made, None, cams, [3], None, [{}])
    fine = np.full((6, 5), 4, np.uint16)
    fine[0, 0] = 255
    found = label_maps(lambda image, cams, classes, masks: fine, None, cams, [3], None, [{}])
    assert found[0] is fine


def test_affinity_refuses_to_refine_before_it_has_learned():
    with pytest.raises(SettingsError, match="has not learned yet"):
        open_refiner("affinity")(*drawn(0)[:3])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    "AffinityNet after three steps on two pictures, kept in a file and read again."
    from fmwsss.models.clip import load_clip

    clip = load_clip()
    examples = [drawn(n)[:3] for n in (0, 1)]
    affinity = open_refiner("affinity")
    options = dict(steps=3, width=4, blocks=[0, 2], stride=16, radius=4)
    kept = affinity.learn(examples, clip, **options)
    path = tmp_path_factory.mktemp("kept") / "learned.pt"
    torch.save(kept, path)
    return clip, examples, options, kept, torch.load(path, weights_only=True)


def test_affinity_learns_what_its_parts_learn(learned):
    from fmwsss.models.adapter import preprocess
    from fmwsss.method.sams import cam_scores
    from fmwsss.refiners.affinity_training import FrozenFeatures, train_affinity
    from fmwsss.refiners.affinitynet import affinity_targets, shrink_labels

    clip, examples, options, kept, _ = learned
    pixels = preprocess([image for image, *_ in examples])
    features = FrozenFeatures(clip, [pixels], 16, (0, 2))
    targets = [affinity_targets(image, cam_scores(c), k) for image, c, k in examples]
    labels = torch.tensor(np.stack([shrink_labels(t, (8, 8)) for t in targets]))
    head, losses = train_affinity(features, labels, 3, width=4, radius=4)
    assert losses == kept["losses"]
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), kept["head"].values()))
    again = open_refiner("affinity").learn(examples, clip, targets=targets, **options)
    assert again["losses"] == losses


def test_what_was_learned_can_be_kept_in_a_file(learned):
    clip, examples, options, kept, read = learned
    image, cams, classes = examples[0]
    fresh, ready = (open_refiner("affinity").prepare(x, clip) for x in (kept, read))
    settings = candidates(fresh, dict(power=[1, 4], log_steps=[0, 2]))
    found = label_maps(ready, image, cams, classes, None, settings)
    for seed, setting in zip(found, settings):
        assert np.array_equal(seed, fresh(image, cams, classes, None, **setting))
    assert prepared(threshold_seed, examples, clip) is threshold_seed


def test_refiners_need_no_dense_crf_to_be_imported():
    "Every module of the room, in a Python where pydensecrf cannot be imported."
    modules = [p.stem for p in (ROOT / "fmwsss" / "refiners").glob("*.py") if p.stem != "__init__"]
    assert len(modules) >= 6
    code = "import sys; sys.modules['pydensecrf'] = None\n"
    code += "".join(f"import fmwsss.refiners.{m}\n" for m in modules)
    code += "from fmwsss.refiners.refiner import open_refiner; import numpy as np\n"
    code += "open_refiner('crf')(np.zeros((8, 8, 3), np.uint8), np.ones((1, 8, 8)), [0])\n"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert found.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: the dense CRF needs pydensecrf: pip install \"fmwsss[crf]\""
    )


def users_file():
    "The file of the notebook 'add your own refiner', as it stands there."
    notebook = ROOT / "nbs" / "refiners" / "06_add_your_own.ipynb"
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    cell = next(s for c in cells if (s := "".join(c["source"])).startswith("MINE = '''"))
    return cell.removeprefix("MINE = '''").removesuffix("'''").strip() + "\n"


@pytest.fixture
def guided(tmp_path, monkeypatch):
    "That file on Python's path."
    (tmp_path / "my_refiner.py").write_text(users_file())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_refiner", raising=False)
    return tmp_path / "my_refiner.py"


def test_add_your_own_follows_edges(guided):
    assert len(users_file().splitlines()) <= 25
    image = np.full((40, 40, 3), 60, np.uint8)
    image[:, 20:] = 180
    cams = np.zeros((1, 40, 40), np.float32)
    cams[0, :, 17:] = 1  # three pixels too wide
    refiner = open_refiner("my_refiner:guided")
    assert not needs_masks(refiner)
    truth = np.where(np.arange(40) >= 20, 5, 0) * np.ones((40, 1))
    plain = threshold_seed(image, cams, [4])
    seed = label_maps(refiner, image, cams, [4], None, [dict(power=1, smooth=1e-4)])[0]
    assert (plain != truth).sum() == 3 * 40 > (seed != truth).sum()


def test_a_strangers_code_decides_its_key(guided):
    "A changed comment keeps the key under which its results are kept, a changed line does not."
    from fmwsss.engine.keys import code_digest

    key = code_digest(open_refiner("my_refiner:guided"))
    for old, new, same in (
        ("    refined = []", "    refined = []  # a comment", True),
        ("+ smooth)", "+ 2 * smooth)", False),
    ):
        guided.write_text(users_file().replace(old, new))
        assert (code_digest(open_refiner("my_refiner:guided")) == key) is same
