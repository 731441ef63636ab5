"""What a card would see, without one: the method's paths on the device of `card.Card`.

Its tensors have numbers, but mixing them with tensors of the CPU, or giving them to NumPy, is an
error as on a real card. Results must be those of the CPU."""

import contextlib
import copy
import csv
import subprocess
import sys

import gpu
import numpy as np
import parity
import pytest
import torch
from card import Card, MixedDevices, OnCard
from parity import clip as clip_parity
from small import drawn_list, small_clip

from fmwsss.engine.fit import fit
from fmwsss.fast.text import PromptLearner
from fmwsss.method import prompts as plain_prompts
from fmwsss.method.affinity import refine
from fmwsss.minivoc.writing import split_scene
from fmwsss.models.adapter import Clip
from fmwsss.models.sam import load_sam
from fmwsss.refiners.affinitynet import pair_affinity, pair_indices
from fmwsss.sources import automatic
from fmwsss.sources.automatic import generate_masks
from fmwsss.study.stages import cams_of_group
from fmwsss.study.tasks import Batch, classification_loss, segmentation_loss

CARD = torch.device("meta")
NAMES = ["cat", "dog", "sheep", "tree", "ground"]
LABELS = torch.tensor([[1, 0, 1], [0, 1, 0]])


def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype(np.uint8)


@pytest.fixture(params=["fast", "plain"])
def clips(request):
    "The same CLIP on the CPU and to be put on the card."
    plain = request.param == "plain"
    clip = small_clip()
    made = [Clip(copy.deepcopy(clip.model), "small", plain=plain) for _ in range(2)]
    return made, plain_prompts.PromptLearner if plain else PromptLearner


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    "Of the device `meta` torch knows no half precision; on a real card these lines turn it off."
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())


@pytest.fixture
def card():
    with Card() as card:
        yield card


def real(x):
    return x.real_numbers if isinstance(x, OnCard) else x


def close(theirs, ours):
    assert isinstance(ours, OnCard)
    return torch.allclose(real(ours), theirs, rtol=1e-4, atol=1e-5)


def both(clips, work):
    "work(clip, to the device) on the CPU, and on the card."
    on_cpu = work(clips[0], lambda x: x)
    with Card() as card:
        card.put(clips[1].model)
        on_card = work(clips[1], lambda x: OnCard(x) if torch.is_tensor(x) else card.put(x))
    return on_cpu, on_card, card


def test_mixing_devices_is_an_error(card):
    x = torch.ones(3, device=CARD)
    with pytest.raises(MixedDevices):
        x + torch.ones(3)
    with pytest.raises(Exception, match="numpy|meta"):
        x.numpy()
    assert real(x + torch.tensor(1.0)).tolist() == [2, 2, 2]


def test_cams_and_affinity(clips):
    (pair, _), images = clips, pictures()

    def work(clip, to):
        pixels = clip.pixels(list(images), clip.patch)
        tokens, attention = clip.trunk(pixels, 2)
        text = plain_prompts.text_features(clip, NAMES)
        cams, logits = clip.softmax_gradcam(tokens, clip.grid(pixels), text, to(LABELS))
        index = to(LABELS.nonzero()[:, 0])
        refined = refine(cams, attention, index)
        return tokens, attention, text, cams, logits, refined

    on_cpu, on_card, card = both(pair, work)
    assert all(map(close, on_cpu, on_card))
    seen = [name for name, _ in card.copies]
    assert len(seen) <= 2  # the scores, for the boxes: OpenCV draws them


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_training_steps(clips, task):
    pair, kind = clips
    images = pictures()
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randint(0, 4, (2, 32, 48), generator=generator)
    loss = dict(classification=classification_loss, segmentation=segmentation_loss)[task]

    def work(clip, to):
        learner = to(kind(clip, NAMES, n_ctx=4, seed=0))
        pixels = clip.pixels(list(images), clip.patch)
        tokens, grid = clip.trunk(pixels), clip.grid(pixels)
        features = clip.feature(tokens, clip.activation(tokens), grid)
        batch = Batch(to(LABELS), features, tokens, grid, to(seeds))
        values = []
        for _ in range(2):
            text = learner()
            value, weight = loss(clip, text, batch)
            (gradient,) = torch.autograd.grad(value, learner.ctx)
            with torch.no_grad():
                learner.ctx -= 0.1 * gradient
            values += [value.detach(), weight]
        return *values, learner.ctx.detach()

    on_cpu, on_card, card = both(pair, work)
    assert all(
        torch.allclose(real(b).float(), a.float(), atol=1e-4) for a, b in zip(on_cpu, on_card)
    )
    assert len(card.copies) <= 2  # at most the number of classes of each image, once a step


def test_masks(card):
    "Equal to those of the CPU; counted, packed and compared on the card, survivors copied once."
    image = split_scene("val", 3).image
    settings = dict(points_per_side=6, crop_layers=1, pred_iou_thresh=0.5, stability_thresh=0.4)
    expected = generate_masks(load_sam(), image, **settings)
    card.copies.clear()
    found = generate_masks(card.put(load_sam()), image, **settings)
    assert found.rles == expected.rles and np.array_equal(found.level, expected.level)
    crops = 5
    assert len([c for c in card.copies if "copy" in c[0]]) <= 4 * crops


def test_stored_maps_of_a_group(card):
    data, clip = drawn_list(2), small_clip()
    card.put(clip.model)
    text = plain_prompts.text_features(clip, data.classes)
    pixels = clip.pixels([data.image(i) for i in range(2)], clip.patch)
    labels = torch.stack([torch.as_tensor(data.labels(i)) for i in range(2)]).to(CARD)
    affinity = dict(attn_layers=2, thresholds=[0.4], control=True)
    group = cams_of_group(clip, text, pixels, labels, [(128, 128)] * 2, {}, affinity)
    for result, seconds in group:
        assert result["caa_0.4"].dtype == np.float16 and set(seconds) == {"cam", "caa"}


def test_affinitynet(card):
    features = torch.rand(8, 7, 12, device=CARD)
    found = pair_affinity(features, pair_indices((7, 12)))
    assert isinstance(found, OnCard)


def test_a_faster_product_is_put_back_even_after_an_error():
    with pytest.raises(ValueError), automatic.faster_products("cuda"):
        assert torch.get_float32_matmul_precision() == "high"
        raise ValueError
    assert torch.get_float32_matmul_precision() == "highest"


def test_training_on_the_card(card):
    clip = small_clip()
    card.put(clip.model)
    learner = card.put(PromptLearner(clip, NAMES, n_ctx=2, seed=0))
    features = torch.nn.functional.normalize(torch.rand(2, 32, device=CARD), dim=1)

    class Source:
        def __len__(self):
            return 2

        def __call__(self, indices, rng, device):
            return Batch(LABELS.to(CARD), features, None, (4, 6), None)

    loss = lambda text, batch: classification_loss(clip, text, batch)
    history = fit(learner, Source(), loss, 3, 2, device="cpu", progress=False)
    assert len(history) == 3 and all(np.isfinite(h[1]) for h in history)


@pytest.mark.parametrize("group", gpu.ON_DEVICE)
def test_parity_on_the_card(card, group, monkeypatch):
    "The checks of `make test-gpu` themselves: nothing of them is made on the wrong device."
    monkeypatch.setattr(parity, "DEVICE", "meta")
    clip_parity.model.cache_clear()
    checks = parity.checks()
    files = [f for f in parity.case_files() if parity.group_of(f, checks) == group]
    for file in files:
        case = parity.Case(file)
        checks[group](case)
        assert case.finish()
    clip_parity.model.cache_clear()


def test_the_first_day_of_a_card_ends_in_a_table(tmp_path):
    "`make test-gpu` in its reduced form, on the CPU, to its end."
    command = [sys.executable, "-W", "ignore", gpu.__file__, "--dry", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (file,) = tmp_path.glob("*.csv")
    with file.open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) >= 28 and {r["verdict"] for r in rows} == {"ok", ""}
    assert "0 wrong" in done.stdout
