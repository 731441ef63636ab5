"""Prompt training: exact resume, frozen CLIP, divergence stops, schedule."""
from functools import partial

import numpy as np
import pytest
import torch

from fmwsss.training import Batch, TrainingDiverged, batch_indices, classification_loss, fit, learning_rate, segmentation_loss
from fmwsss.models import load_clip
from fmwsss.prompts import PromptLearner

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


def test_divergence_names_the_iteration_and_keeps_the_checkpoint(clip, tmp_path):
    calls = iter(range(99))
    def explodes(clip, learner, batch):
        loss, weight = classification_loss(clip, learner, batch)
        return loss * (float("nan") if next(calls) == 5 else 1), weight
    with pytest.raises(TrainingDiverged, match="iteration 5.*p.pt"): train(clip, explodes, checkpoint=tmp_path / "p.pt", save_every=2)
    state = torch.load(tmp_path / "p.pt", weights_only=True)
    assert state["step"] == 4 and torch.isfinite(state["learner"]["ctx"]).all()


def test_accumulation_is_the_mean_of_micro_batches(clip):
    learner, history = train(clip, steps=1, accumulate=3, lr=0.0)
    losses = [train_loss(clip, step) for step in range(3)]
    assert history[0][1] == pytest.approx(np.mean(losses), rel=1e-5)


def train_loss(clip, step):
    source = Fixed(clip)
    return float(classification_loss(clip, PromptLearner(clip, NAMES, n_ctx=4, seed=0), source(batch_indices(12, 4, step), None))[0])


def test_unknown_optimizer(clip):
    with pytest.raises(ValueError, match="sgd"): train(clip, optimizer="adamx")
