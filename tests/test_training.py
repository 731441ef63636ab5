"""Prompt training: exact resume, frozen CLIP, divergence stops, schedule."""
from functools import partial

import numpy as np
import pytest
import torch

from fmwsss.engine.checkpoints import TrainingDiverged
from fmwsss.engine.fit import fit
from fmwsss.method.training import batch_indices, learning_rate
from fmwsss.study.tasks import AugmentedViews, Batch, classification_loss, segmentation_loss
from fmwsss.models.clip import load_clip
from fmwsss.fast.text import PromptLearner

NAMES = ["cat", "dog", "car", "grass", "sky"]


@pytest.fixture(scope="module")
def clip(): return load_clip("miniclip")


class Fixed:
    "A source of random features and tokens that are a function of the index."
    def __init__(self, clip, n=12):
        g = torch.Generator().manual_seed(0)
        self.features = torch.nn.functional.normalize(torch.randn(n, clip.text_projection.shape[1], generator=g), dim=-1)
        self.tokens = torch.randn(n, 17, clip.visual.conv1.weight.shape[0], generator=g)
        self.labels = torch.zeros(n, 3, dtype=torch.uint8); self.labels[range(n), np.arange(n) % 3] = 1
        self.seeds = (self.labels.argmax(1) + 1)[:, None, None].expand(-1, 8, 8).clone().to(torch.uint8); self.seeds[:, :4] = 0
    def __len__(self): return len(self.labels)
    def __call__(self, i, rng, device="cpu"): return Batch(self.labels[i], self.features[i], self.tokens[i], (4, 4), self.seeds[i])


def train(clip, loss=classification_loss, **settings):
    learner = PromptLearner(clip, NAMES, n_ctx=4, seed=0)
    history = fit(learner, Fixed(clip), partial(loss, clip), batch_size=4, progress=False, **dict(dict(steps=8, lr=0.02), **settings))
    return learner, history


def test_schedule():
    rates = [learning_rate(t, 100, 1e-3, warmup=10) for t in range(100)]
    assert set(rates[:10]) == {1e-5} and rates[10] == 1e-3 and all(a > b for a, b in zip(rates[10:], rates[11:])) and rates[-1] < 1e-6


def test_an_epoch_sees_each_image_once_and_is_shuffled_anew():
    epochs = [np.concatenate([batch_indices(12, 4, 3 * e + k) for k in range(3)]) for e in range(2)]
    assert all(sorted(e) == list(range(12)) for e in epochs) and (epochs[0] != epochs[1]).any()
    assert len(batch_indices(3, 16, 5)) == 3                              # fewer images than a batch


@pytest.mark.parametrize("loss", [classification_loss, segmentation_loss])
def test_only_the_context_learns(clip, loss):
    before = {k: v.clone() for k, v in clip.state_dict().items()}
    learner, history = train(clip, loss, lr=0.1)
    assert not torch.equal(learner.ctx, PromptLearner(clip, NAMES, n_ctx=4, seed=0).ctx) and len(history) == 8
    assert all(torch.equal(v, before[k]) for k, v in clip.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())


def test_resume_is_exact(clip, tmp_path):
    straight, history = train(clip)
    calls = iter(range(99))
    def interrupted(clip, learner, batch):
        if next(calls) == 5: raise KeyboardInterrupt
        return classification_loss(clip, learner, batch)
    with pytest.raises(KeyboardInterrupt): train(clip, interrupted, checkpoint=tmp_path / "p.pt", save_every=2)
    resumed, again = train(clip, checkpoint=tmp_path / "p.pt", save_every=2)
    assert torch.equal(straight.ctx, resumed.ctx) and history == again
    done, _ = train(clip, checkpoint=tmp_path / "p.pt")
    assert torch.equal(done.ctx, straight.ctx)


@pytest.mark.fault
def test_divergence_names_the_iteration_and_keeps_the_checkpoint(clip, tmp_path):
    calls = iter(range(99))
    def explodes(clip, learner, batch):
        loss, weight = classification_loss(clip, learner, batch)
        return loss * (float("nan") if next(calls) == 5 else 1), weight
    with pytest.raises(TrainingDiverged, match="iteration 5.*p.pt"): train(clip, explodes, checkpoint=tmp_path / "p.pt", save_every=2)
    state = torch.load(tmp_path / "p.pt", weights_only=True)
    assert state["step"] == 4 and torch.isfinite(state["learner"]["ctx"]).all()


@pytest.mark.fault
def test_an_exploding_step_is_not_kept(clip, tmp_path):
    with pytest.raises(TrainingDiverged, match="no numbers any more at iteration 0.*none yet"): train(clip, lr=1e38, checkpoint=tmp_path / "p.pt", save_every=1)
    assert not list(tmp_path.iterdir())
    train(clip, steps=2, checkpoint=tmp_path / "p.pt", save_every=1)
    with pytest.raises(TrainingDiverged, match="iteration 2.*p.pt"): train(clip, lr=1e38, checkpoint=tmp_path / "p.pt", save_every=1)
    state = torch.load(tmp_path / "p.pt", weights_only=True)
    assert state["step"] == 2 and len(train(clip, checkpoint=tmp_path / "p.pt")[1]) == 8       # goes on from there


def test_accumulation_is_the_mean_of_micro_batches(clip):
    learner, history = train(clip, steps=1, accumulate=3, lr=0.0)
    losses = [train_loss(clip, step) for step in range(3)]
    assert history[0][1] == pytest.approx(np.mean(losses), rel=1e-5)


def train_loss(clip, step):
    source = Fixed(clip)
    return float(classification_loss(clip, PromptLearner(clip, NAMES, n_ctx=4, seed=0), source(batch_indices(12, 4, step), None))[0])


def test_unknown_optimizer(clip):
    with pytest.raises(ValueError, match="sgd"): train(clip, optimizer="adamx")


# ---- precision, log, shares of several processes

@pytest.mark.parametrize("loss", [classification_loss, segmentation_loss])
def test_bfloat16_trains_nearly_as_float32(clip, loss):
    exact, half = (train(clip, loss, steps=4, lr=0.01, precision=p) for p in ("float32", "bfloat16"))
    assert half[0].ctx.dtype == torch.float32 and torch.isfinite(half[0].ctx).all() and not torch.equal(half[0].ctx, exact[0].ctx)
    assert half[1][0][1] == pytest.approx(exact[1][0][1], rel=0.05)


def test_float16_needs_a_gpu_and_names_are_checked(clip):
    with pytest.raises(ValueError, match="bfloat16 or float32 on a CPU"): train(clip, precision="float16")
    with pytest.raises(ValueError, match="float32, bfloat16, float16"): train(clip, precision="fp8")


def test_the_log_has_every_iteration_once_also_after_a_resume(clip, tmp_path):
    calls = iter(range(99))
    def interrupted(clip, learner, batch):
        if next(calls) == 5: raise KeyboardInterrupt
        return classification_loss(clip, learner, batch)
    with pytest.raises(KeyboardInterrupt): train(clip, interrupted, checkpoint=tmp_path / "p.pt", save_every=2)
    _, history = train(clip, checkpoint=tmp_path / "p.pt", save_every=2)
    rows = (tmp_path / "p.pt.csv").read_text().splitlines()
    assert rows[0] == "iteration,loss,learning_rate" and [int(r.split(",")[0]) for r in rows[1:]] == list(range(8))
    assert [float(r.split(",")[1]) for r in rows[1:]] == [h[1] for h in history]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.pt", "p.pt.csv"]


@pytest.mark.fault
def test_a_full_disk_leaves_the_old_checkpoint(clip, tmp_path, monkeypatch):
    train(clip, steps=2, checkpoint=tmp_path / "p.pt")
    before = (tmp_path / "p.pt").read_bytes()
    def full(state, file):
        open(file, "wb").write(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError): train(clip, steps=4, checkpoint=tmp_path / "p.pt", save_every=1)
    assert (tmp_path / "p.pt").read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["p.pt", "p.pt.csv"]


@pytest.mark.fault
def test_a_damaged_checkpoint_is_named(clip, tmp_path):
    (tmp_path / "p.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="p.pt is damaged.*delete it"): train(clip, checkpoint=tmp_path / "p.pt")


def test_the_classification_step_computes_no_cam(clip, monkeypatch):
    def forbidden(*a, **k): raise AssertionError("a CAM was computed")
    monkeypatch.setattr(tasks, "softmax_gradcam", forbidden)
    train(clip, steps=2)
    with pytest.raises(AssertionError): train(clip, segmentation_loss, steps=2)


@pytest.mark.parametrize("loss, settings", [(classification_loss, {}), (classification_loss, dict(reduce="sample_mean")), (segmentation_loss, {})])
@pytest.mark.parametrize("world", [2, 3])
def test_weighted_shares_are_the_whole(clip, loss, settings, world):
    source = Fixed(clip)
    source.labels[:5, 1], source.labels[6] = 1, 1                        # several classes; one image with all of them, which has no rival
    source.seeds[3, :, :4] = 255
    def gradient(share):
        learner = PromptLearner(clip, NAMES, n_ctx=4, seed=0)
        i = np.arange(8)[share]
        value, weight = loss(clip, learner, source(i, None), **settings)
        value.backward()
        return float(value), learner.ctx.grad, float(weight)
    whole, parts = gradient(slice(None)), [gradient(slice(k, None, world)) for k in range(world)]
    total = sum(w for *_, w in parts)
    assert total == whole[2] and sum(v * w for v, _, w in parts) / total == pytest.approx(whole[0], rel=1e-4)
    torch.testing.assert_close(sum(g * w for _, g, w in parts) / total, whole[1], rtol=1e-3, atol=1e-6 * float(whole[1].abs().max()) + 1e-9)


# ---- augmented views

class Pictures:
    "Pictures of different sizes with labels."
    def __len__(self): return 6
    def image(self, i): return np.random.default_rng(i).integers(0, 256, (60 + i, 90 - i, 3), dtype=np.uint8)
    def labels(self, i): return np.eye(3, dtype=np.uint8)[i % 3]


def augmented(clip, tokens=False):
    label = lambda i: np.random.default_rng(i).integers(0, 4, (60 + i, 90 - i)).astype(np.uint8)
    return AugmentedViews(clip, Pictures(), label if tokens else None, tokens=tokens, size=64, scale=(80, 120), short_min=64)


@pytest.mark.parametrize("tokens", [False, True])
def test_augmented_views_are_a_function_of_the_draw_and_can_be_shared(clip, tokens):
    views, i = augmented(clip, tokens), np.arange(4)
    first, again, other = (views(i, np.random.default_rng(s)) for s in (0, 0, 1))
    part = views(i, np.random.default_rng(0), share=slice(1, None, 2))
    name = "tokens" if tokens else "features"
    assert torch.equal(getattr(first, name), getattr(again, name)) and not torch.equal(getattr(first, name), getattr(other, name))
    torch.testing.assert_close(getattr(part, name), getattr(first, name)[1::2], rtol=1e-4, atol=1e-4)
    assert first.grid == (8, 8) and (not tokens or (part.seeds == first.seeds[1::2]).all() and first.seeds.shape == (4, 64, 64))


@pytest.mark.parametrize("loss", [classification_loss, segmentation_loss])
def test_augmented_views_train_with_accumulation(clip, loss):
    learner = PromptLearner(clip, NAMES, n_ctx=4, seed=0)
    start = learner.ctx.detach().clone()
    history = fit(learner, augmented(clip, loss is segmentation_loss), partial(loss, clip), steps=3, batch_size=2, accumulate=2, lr=0.1, progress=False)
    assert len(history) == 3 and np.isfinite([h[1] for h in history]).all() and not torch.equal(learner.ctx, start)
