import warnings
import pytest
import torch
import torch.nn.functional as F
from fmwsss.models.clip import tokenize
from fmwsss.fast.text import PromptLearner, encode_embeddings, prompt_layout, text_features
from small import small_clip

NAMES = ['cat', 'tv monitor screen', 'potted_plant', '', 'bird avian']


@pytest.fixture(scope='module')
def clip(): return small_clip()


def full_length(prompts):
    "The features of the prompts by open_clip's own text tower on all 77 positions."
    clip, x = prompts.clip, prompts.embeddings()
    rest = clip.token_embedding.weight[:1].expand(len(x), 77 - x.shape[1], -1)
    x = clip.ln_final(clip.transformer(torch.cat([x, rest], 1) + clip.positional_embedding, attn_mask=clip.attn_mask))
    return F.normalize(x[torch.arange(len(x)), prompts.eos] @ clip.text_projection, dim=-1)


@pytest.mark.parametrize('position', ['end', 'front', 'middle'])
@pytest.mark.parametrize('per_class', [False, True, [0, 1, 0, 1, 2]])
@pytest.mark.parametrize('n_ctx', [1, 5, 16])
def test_short_cuts_are_exact(clip, position, per_class, n_ctx):
    "Cut after the longest EOS, shared prefix once: the same features and gradients as 77 tokens of every prompt."
    prompts = PromptLearner(clip, NAMES, n_ctx, per_class, position, std=.5, seed=0)
    direction = torch.randn(len(NAMES), 32)
    ours, theirs = prompts(), full_length(prompts)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert (prompts.shared > 1) == (per_class is False and position != 'front' and (position == 'end' or n_ctx > 1))
    gradients = [torch.autograd.grad((f * direction).sum(), prompts.ctx)[0] for f in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-5 * gradients[1].abs().max().item())


@pytest.mark.parametrize('per_class', [False, True, [0, 1, 0, 1, 2]])
@pytest.mark.parametrize('n', [1, 2, 4])
def test_first_prompts_alone(clip, per_class, n):
    "The first n prompts alone: the features and gradients they have among all."
    prompts = PromptLearner(clip, NAMES, 4, per_class, 'middle', std=.5, seed=0)
    direction = torch.randn(n, 32)
    assert prompts(n).shape == (n, 32) and torch.allclose(prompts(n), prompts()[:n], atol=1e-6)
    few, all_ = (torch.autograd.grad((f * direction).sum(), prompts.ctx)[0] for f in (prompts(n), prompts()[:n]))
    assert torch.allclose(few, all_, atol=1e-5 * all_.abs().max().item())


def test_plain_texts_equal_open_clip(clip):
    texts = ['a clean origami cat.', 'sky', 'a photo of a person with clothes,people,human']
    assert torch.allclose(text_features(clip, texts), clip.encode_text(tokenize(texts), normalize=True), atol=1e-6)
    assert torch.equal(text_features(clip, texts[0]), text_features(clip, texts[:1]))


@pytest.mark.parametrize('position, expected', [('end', [0, 1, 2, 3, 4, 5, 6, 7, 8]), ('front', [0, 3, 4, 5, 1, 2, 6, 7, 8]), ('middle', [0, 1, 4, 5, 2, 3, 6, 7, 8])])
def test_layout(position, expected):
    "[SOS] 3 contexts, name of 2, '.', [EOS], 1 padding: the name moves, the odd context vector goes behind it."
    assert prompt_layout(3, [2], 9, position)[0].tolist() == expected


def test_context_lies_where_it_should(clip):
    for position, first in (('end', 1), ('front', 4), ('middle', 1)):
        prompts = PromptLearner(clip, ['tv monitor screen'], n_ctx=4, position=position, seed=0)
        assert torch.equal(prompts.embeddings()[0, first], prompts.ctx[0])
    assert prompts.name_lengths == [3] and torch.equal(prompts.embeddings()[0, 6], prompts.ctx[2])


def test_ctx_init_sets_length_and_start(clip):
    prompts = PromptLearner(clip, NAMES[:2], n_ctx=99, ctx_init='a_photo of a')
    assert prompts.ctx.shape == (4, 64)
    assert torch.allclose(prompts(), text_features(clip, [f'a photo of a {name}.' for name in NAMES[:2]]), atol=1e-6)
    assert PromptLearner(clip, NAMES[:2], ctx_init='a photo of a', per_class=True).ctx.shape == (2, 4, 64)


def test_seed_and_groups(clip):
    a, b = (PromptLearner(clip, NAMES, seed=3) for _ in range(2))
    assert torch.equal(a.ctx, b.ctx) and abs(a.ctx.std().item() - .015) < .002
    assert PromptLearner(clip, NAMES, per_class=[0, 1, 0, 1, 0]).ctx.shape == (2, 16, 64)


def test_errors(clip):
    with pytest.raises(ValueError, match='use end, front or middle'): PromptLearner(clip, NAMES, position='start')
    with pytest.raises(ValueError, match='give one each'): PromptLearner(clip, NAMES, per_class=[0, 1])
    with pytest.raises(ValueError, match='shorten'): PromptLearner(clip, NAMES, n_ctx=75)


def test_unknown_words_warn():
    clip = small_clip()
    clip.token_embedding.weight.data[tokenize('zebra')[0, 1]] = 0
    with pytest.warns(UserWarning, match='zebra'): text_features(clip, ['a photo of a zebra.'])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        text_features(clip, ['a photo of a cat.'])


def test_only_the_context_is_owned_and_learns(clip):
    prompts = PromptLearner(clip, NAMES, seed=0)
    assert [name for name, _ in prompts.named_parameters()] == ['ctx'] and list(prompts.state_dict()) == ['ctx']
    prompts()[0].sum().backward()
    assert prompts.ctx.grad.abs().sum() > 0 and all(p.grad is None for p in clip.parameters())


def test_no_memory_of_77_tokens(clip):
    prompts = PromptLearner(clip, NAMES, seed=0)
    assert prompts.embeddings().shape[1] == 1 + 16 + 3 + 1 + 1
    assert torch.allclose(encode_embeddings(clip, prompts.embeddings(), prompts.eos), prompts.encode(), atol=1e-6)
