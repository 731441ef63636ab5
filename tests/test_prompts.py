"""Prompts: where the context stands, what learns, and that the short cuts of `fast` are exact."""
import warnings

import pytest
import torch
import torch.nn.functional as F
from small import small_clip

from fmwsss.fast.text import PromptLearner
from fmwsss.method import prompts as plain
from fmwsss.method.prompts import context_places, insert, text_features
from fmwsss.models.adapter import tokenize

NAMES = ["cat", "tv monitor screen", "potted_plant", "", "bird avian"]
GROUPS = [False, True, [0, 1, 0, 1, 2]]


@pytest.fixture(scope="module")
def clip():
    return small_clip()


def full_length(prompts):
    "The features of the prompts by open_clip's own text tower on all 77 positions."
    clip, x = prompts.clip, prompts.embeddings()
    assert x.shape[1] == 77
    x = clip.transformer(x + clip.positional_embedding, attn_mask=clip.attn_mask)
    x = clip.ln_final(x)[torch.arange(len(x)), prompts.eos]
    return F.normalize(x @ clip.text_projection, dim=-1)


def assert_same_gradient(prompts, ours, theirs, direction):
    "Gradients of two sets of features by the context agree."
    a, b = (torch.autograd.grad((f * direction).sum(), prompts.ctx)[0] for f in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("position", ["end", "front", "middle"])
@pytest.mark.parametrize("per_class", GROUPS)
@pytest.mark.parametrize("n_ctx", [1, 5, 16])
def test_short_cuts_are_exact(clip, position, per_class, n_ctx):
    "Cut after the end token, shared prefix once: features and gradients of 77 tokens a prompt."
    prompts = PromptLearner(clip, NAMES, n_ctx, per_class, position, std=0.5, seed=0)
    ours, theirs = prompts(), full_length(prompts)
    assert torch.allclose(ours, theirs, atol=1e-6)
    shares = position == "end" or (position == "middle" and n_ctx > 1)
    assert (prompts.shared > 1) == (per_class is False and shares)
    assert_same_gradient(prompts, ours, theirs, torch.randn(len(NAMES), 32))


@pytest.mark.parametrize("per_class", GROUPS)
def test_plain_form_is_the_same(clip, per_class):
    "The chapter's learner and the fast one have the same context and features."
    both = [
        form(clip, NAMES, 4, per_class, "middle", std=0.5, seed=0)
        for form in (plain.PromptLearner, PromptLearner)
    ]
    assert torch.equal(both[0].ctx, both[1].ctx)
    assert torch.allclose(both[0](), both[1](), atol=1e-6)


@pytest.mark.parametrize("per_class", GROUPS)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_first_prompts_alone(clip, per_class, n):
    "The first n prompts alone: the features and gradients they have among all."
    prompts = PromptLearner(clip, NAMES, 4, per_class, "middle", std=0.5, seed=0)
    assert prompts(n).shape == (n, 32)
    assert torch.allclose(prompts(n), prompts()[:n], atol=1e-6)
    assert_same_gradient(prompts, prompts(n), prompts()[:n], torch.randn(n, 32))


def test_plain_texts_equal_open_clip(clip):
    texts = ["a clean origami cat.", "sky", "a photo of a person with clothes,people,human"]
    theirs = clip.model.encode_text(tokenize(texts), normalize=True)
    assert torch.allclose(text_features(clip, texts), theirs, atol=1e-6)
    assert torch.equal(text_features(clip, texts[0]), text_features(clip, texts[:1]))


@pytest.mark.parametrize(
    "position, expected",
    [
        ("end", [1, 90, 91, 92, 50, 51, 9, 2, 0]),
        ("front", [1, 50, 51, 90, 91, 92, 9, 2, 0]),
        ("middle", [1, 90, 50, 51, 91, 92, 9, 2, 0]),
    ],
)
def test_layout(position, expected):
    "Start, 3 contexts, name of 2, '.', end, padding: the odd context vector goes behind the name."
    places = context_places(position, 3, [2])
    ids = torch.tensor([[1, 50, 51, 9, 2, 0, 0, 0, 0]])
    assert insert(ids, torch.tensor([90, 91, 92]), places)[0].tolist() == expected


def test_context_lies_where_it_should(clip):
    for position, first in (("end", 1), ("front", 4), ("middle", 1)):
        prompts = PromptLearner(clip, ["tv monitor screen"], n_ctx=4, position=position, seed=0)
        assert torch.equal(prompts.embeddings()[0, first], prompts.ctx[0])
    assert prompts.name_lengths == [3]
    assert torch.equal(prompts.embeddings()[0, 6], prompts.ctx[2])


def test_ctx_init_sets_length_and_start(clip):
    prompts = PromptLearner(clip, NAMES[:2], n_ctx=99, ctx_init="a_photo of a")
    assert prompts.ctx.shape == (4, 64)
    words = text_features(clip, [f"a photo of a {name}." for name in NAMES[:2]])
    assert torch.allclose(prompts(), words, atol=1e-6)
    own = PromptLearner(clip, NAMES[:2], ctx_init="a photo of a", per_class=True)
    assert own.ctx.shape == (2, 4, 64)


def test_seed_and_groups(clip):
    a, b = (PromptLearner(clip, NAMES, seed=3) for _ in range(2))
    assert torch.equal(a.ctx, b.ctx)
    assert abs(a.ctx.std().item() - 0.015) < 0.002
    assert PromptLearner(clip, NAMES, per_class=[0, 1, 0, 1, 0]).ctx.shape == (2, 16, 64)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(position="start"), "use end, front or middle"),
        (dict(per_class=[0, 1]), "give one each"),
        (dict(n_ctx=75), "shorten"),
    ],
)
def test_errors(clip, settings, message):
    with pytest.raises(ValueError, match=message):
        PromptLearner(clip, NAMES, **settings)


def test_unknown_words_warn():
    clip = small_clip()
    clip.token_embedding.weight.data[tokenize("zebra")[0, 1]] = 0
    with pytest.warns(UserWarning, match="zebra"):
        text_features(clip, ["a photo of a zebra."])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text_features(clip, ["a photo of a cat."])


def test_only_the_context_is_owned_and_learns(clip):
    prompts = PromptLearner(clip, NAMES, seed=0)
    assert [name for name, _ in prompts.named_parameters()] == ["ctx"]
    assert list(prompts.state_dict()) == ["ctx"]
    prompts()[0].sum().backward()
    assert prompts.ctx.grad.abs().sum() > 0
    assert all(p.grad is None for p in clip.parameters())


def test_no_work_for_77_tokens(clip):
    "The tower's blocks see each prompt's own tokens, and the shared ones once."
    prompts, rows = PromptLearner(clip, NAMES, seed=0), []
    watch = clip.transformer.resblocks[0].ln_2.register_forward_hook(
        lambda module, args, out: rows.append(args[0].numel() // args[0].shape[-1])
    )
    prompts.encode()
    watch.remove()
    own = prompts.eos + 1 - prompts.shared
    assert rows == [prompts.shared + int(own.sum())]
    assert rows[0] < 0.25 * 77 * len(NAMES)
