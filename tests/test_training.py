"""Prompt training: exact resume, frozen CLIP, divergence stops, schedule, shares of a batch."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmwsss.engine.checkpoints import TrainingDiverged
from fmwsss.engine.fit import fit
from fmwsss.fast.text import PromptLearner
from fmwsss.files.errors import DataError, SettingsError
from fmwsss.method.training import batch_indices, learning_rate
from fmwsss.models.adapter import Clip
from fmwsss.models.clip import load_clip
from fmwsss.study.tasks import AugmentedViews, Batch, classification_loss, segmentation_loss

NAMES = ["cat", "dog", "car", "grass", "sky"]
BOTH = pytest.mark.parametrize("loss", [classification_loss, segmentation_loss])


@pytest.fixture(scope="module")
def clip():
    return load_clip("miniclip")


class Fixed:
    "A source of random features and tokens that are a function of the index."

    def __init__(self, clip, n=12):
        rng = torch.Generator().manual_seed(0)
        width = clip.text_projection.shape[1]
        self.features = F.normalize(torch.randn(n, width, generator=rng), dim=-1)
        self.tokens = torch.randn(n, 17, clip.visual.conv1.weight.shape[0], generator=rng)
        self.labels = torch.zeros(n, 3, dtype=torch.uint8)
        self.labels[range(n), np.arange(n) % 3] = 1
        seeds = (self.labels.argmax(1) + 1)[:, None, None]
        self.seeds = seeds.expand(-1, 8, 8).clone().to(torch.uint8)
        self.seeds[:, :4] = 0

    def __len__(self):
        return len(self.labels)

    def __call__(self, i, rng, device="cpu"):
        return Batch(self.labels[i], self.features[i], self.tokens[i], (4, 4), self.seeds[i])


def new_learner(clip):
    return PromptLearner(clip, NAMES, n_ctx=4, seed=0)


def train(clip, loss=classification_loss, source=None, **settings):
    learner = new_learner(clip)
    options = dict(dict(steps=8, lr=0.02, batch_size=4), **settings)
    history = fit(learner, source or Fixed(clip), partial(loss, clip), progress=False, **options)
    return learner, history


def stopped_at(number):
    "A loss that is interrupted when it is asked for the time `number`."
    calls = iter(range(99))

    def interrupted(clip, text, batch):
        if next(calls) == number:
            raise KeyboardInterrupt
        return classification_loss(clip, text, batch)

    return interrupted


# ---- schedule and batches


def test_schedule():
    rates = [learning_rate(t, 100, 1e-3, warmup=10) for t in range(100)]
    assert set(rates[:10]) == {1e-5} and rates[10] == 1e-3 and rates[-1] < 1e-6
    assert all(a > b for a, b in zip(rates[10:], rates[11:]))


def test_an_epoch_sees_each_image_once_and_is_shuffled_anew():
    epochs = [np.concatenate([batch_indices(12, 4, 3 * e + k) for k in range(3)]) for e in (0, 1)]
    assert all(sorted(e) == list(range(12)) for e in epochs) and (epochs[0] != epochs[1]).any()
    assert len(batch_indices(3, 16, 5)) == 3  # fewer images than a batch


# ---- what learns, and going on


@BOTH
def test_only_the_context_learns(clip, loss):
    before = {k: v.clone() for k, v in clip.state_dict().items()}
    learner, history = train(clip, loss, lr=0.1)
    assert not torch.equal(learner.ctx, new_learner(clip).ctx) and len(history) == 8
    assert all(torch.equal(v, before[k]) for k, v in clip.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())


def test_resume_is_exact(clip, tmp_path):
    straight, history = train(clip)
    kept = dict(checkpoint=tmp_path / "p.pt", save_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(clip, stopped_at(5), **kept)
    resumed, again = train(clip, **kept)
    assert torch.equal(straight.ctx, resumed.ctx) and history == again
    done, _ = train(clip, checkpoint=tmp_path / "p.pt")
    assert torch.equal(done.ctx, straight.ctx)


def test_the_log_has_every_iteration_once_also_after_a_resume(clip, tmp_path):
    kept = dict(checkpoint=tmp_path / "p.pt", save_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(clip, stopped_at(5), **kept)
    _, history = train(clip, **kept)
    head, *rows = (tmp_path / "p.pt.csv").read_text().splitlines()
    assert head == "iteration,loss,learning_rate"
    assert [int(r.split(",")[0]) for r in rows] == list(range(8))
    assert [float(r.split(",")[1]) for r in rows] == [h[1] for h in history]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.pt", "p.pt.csv"]


# ---- what goes wrong


@pytest.mark.fault
def test_divergence_names_the_iteration_and_keeps_the_checkpoint(clip, tmp_path):
    calls = iter(range(99))

    def explodes(clip, text, batch):
        loss, weight = classification_loss(clip, text, batch)
        return loss * (float("nan") if next(calls) == 5 else 1), weight

    with pytest.raises(TrainingDiverged, match="iteration 5.*p.pt"):
        train(clip, explodes, checkpoint=tmp_path / "p.pt", save_every=2)
    state = torch.load(tmp_path / "p.pt", weights_only=True)
    assert state["step"] == 4 and torch.isfinite(state["learner"]["ctx"]).all()


@pytest.mark.fault
def test_an_exploding_step_is_not_kept(clip, tmp_path):
    kept = dict(checkpoint=tmp_path / "p.pt", save_every=1)

    def steep(clip, text, batch):
        loss, weight = classification_loss(clip, text, batch)
        return 1e9 * loss, weight

    with pytest.raises(TrainingDiverged, match="no numbers any more at iteration 0.*none yet"):
        train(clip, steep, lr=1e38, **kept)
    assert not list(tmp_path.iterdir())
    assert len(train(clip, **kept)[1]) == 8  # nothing is in the way of a sane training


@pytest.mark.fault
def test_a_full_disk_leaves_the_old_checkpoint(clip, tmp_path, monkeypatch):
    train(clip, steps=2, checkpoint=tmp_path / "p.pt")
    before = (tmp_path / "p.pt").read_bytes()

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError):
        train(clip, steps=4, checkpoint=tmp_path / "p.pt", save_every=1)
    assert (tmp_path / "p.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.pt", "p.pt.csv"]


@pytest.mark.fault
def test_a_damaged_checkpoint_is_named(clip, tmp_path):
    (tmp_path / "p.pt").write_bytes(b"damaged")
    with pytest.raises(DataError, match="p.pt is damaged.*delete it"):
        train(clip, checkpoint=tmp_path / "p.pt")


@pytest.mark.parametrize(
    "settings, word",
    [
        (dict(optimizer="adamx"), "sgd"),
        (dict(precision="float16"), "bfloat16 or float32 on a CPU"),
        (dict(precision="fp8"), "float32, bfloat16, float16"),
    ],
)
def test_names_are_checked(clip, settings, word):
    with pytest.raises(SettingsError, match=word):
        train(clip, **settings)


# ---- precision, micro-batches, shares of several processes


@BOTH
def test_bfloat16_trains_nearly_as_float32(clip, loss):
    options = dict(steps=4, lr=0.01)
    exact, half = (train(clip, loss, precision=p, **options) for p in ("float32", "bfloat16"))
    assert half[0].ctx.dtype == torch.float32 and torch.isfinite(half[0].ctx).all()
    assert not torch.equal(half[0].ctx, exact[0].ctx)
    assert half[1][0][1] == pytest.approx(exact[1][0][1], rel=0.05)


def test_accumulation_is_the_mean_of_micro_batches(clip):
    _, history = train(clip, steps=1, accumulate=3, lr=0.0)
    source, text = Fixed(clip), new_learner(clip)().detach()
    losses = [
        float(classification_loss(clip, text, source(batch_indices(12, 4, step), None))[0])
        for step in range(3)
    ]
    assert history[0][1] == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_classification_step_computes_no_cam(clip, monkeypatch):
    def forbidden(*args, **more):
        raise AssertionError("a CAM was computed")

    monkeypatch.setattr(Clip, "softmax_gradcam", forbidden)
    train(clip, steps=2)
    with pytest.raises(AssertionError, match="a CAM was computed"):
        train(clip, segmentation_loss, steps=2)


@pytest.mark.parametrize(
    "loss, settings",
    [
        (classification_loss, {}),
        (classification_loss, dict(reduce="sample_mean")),
        (segmentation_loss, {}),
    ],
)
@pytest.mark.parametrize("world", [2, 3])
def test_weighted_shares_are_the_whole(clip, loss, settings, world):
    source = Fixed(clip)
    source.labels[:5, 1] = 1  # several classes
    source.labels[6] = 1  # all classes: this image has no rival
    source.seeds[3, :, :4] = 255

    def gradient(share):
        learner = new_learner(clip)
        value, weight = loss(clip, learner(), source(np.arange(8)[share], None), **settings)
        value.backward()
        return float(value.detach()), learner.ctx.grad, float(weight)

    value, slope, weight = gradient(slice(None))
    parts = [gradient(slice(k, None, world)) for k in range(world)]
    total = sum(w for *_, w in parts)
    assert total == weight
    assert sum(v * w for v, _, w in parts) / total == pytest.approx(value, rel=1e-4)
    mean = sum(g * w for _, g, w in parts) / total
    small = 1e-6 * float(slope.abs().max()) + 1e-9
    torch.testing.assert_close(mean, slope, rtol=1e-3, atol=small)


# ---- augmented views


class Pictures:
    "Pictures of different sizes with labels."

    def __len__(self):
        return 6

    def image(self, i):
        return np.random.default_rng(i).integers(0, 256, (60 + i, 90 - i, 3), dtype=np.uint8)

    def labels(self, i):
        return np.eye(3, dtype=np.uint8)[i % 3]


def augmented(clip, tokens=False):
    def label(i):
        return np.random.default_rng(i).integers(0, 4, (60 + i, 90 - i)).astype(np.uint8)

    seeds = label if tokens else None
    window = dict(size=64, scale=(80, 120), short_min=64)
    return AugmentedViews(clip, Pictures(), seeds, tokens=tokens, **window)


@pytest.mark.parametrize("tokens", [False, True])
def test_augmented_views_are_a_function_of_the_draw_and_can_be_shared(clip, tokens):
    views, i = augmented(clip, tokens), np.arange(4)
    first, again, other = (views(i, np.random.default_rng(s)) for s in (0, 0, 1))
    part = views(i, np.random.default_rng(0), share=slice(1, None, 2))
    found = lambda batch: batch.tokens if tokens else batch.features
    assert torch.equal(found(first), found(again)) and not torch.equal(found(first), found(other))
    torch.testing.assert_close(found(part), found(first)[1::2], rtol=1e-4, atol=1e-4)
    assert first.grid == (8, 8)
    if tokens:
        assert (part.seeds == first.seeds[1::2]).all() and first.seeds.shape == (4, 64, 64)


@BOTH
def test_augmented_views_train_with_accumulation(clip, loss):
    source = augmented(clip, loss is segmentation_loss)
    options = dict(steps=3, batch_size=2, accumulate=2, lr=0.1)
    learner, history = train(clip, loss, source, **options)
    assert len(history) == 3 and np.isfinite([h[1] for h in history]).all()
    assert not torch.equal(learner.ctx, new_learner(clip).ctx)
