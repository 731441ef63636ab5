"""Sharpness, synonyms, confident labels and the plain CAM classifier, each against its definition by hand."""
import numpy as np
import pytest
import torch

from fmwsss.study import clip_es
from fmwsss.fast.image import encode_image_trunk, last_block
from fmwsss.minivoc.scenes import scene
from fmwsss.models.clip import load_clip, preprocess
from fmwsss.fast.text import text_features


@pytest.fixture(scope="module")
def clip(): return load_clip()


def test_sharpness_is_the_mean_squared_coefficient_of_variation():
    rng = np.random.default_rng(0)
    scores, labels = rng.uniform(.01, 1, (20, 6)), (rng.random((20, 6)) < .5).astype(np.uint8)
    rows = [(np.std(s[y > 0]) / np.mean(s[y > 0])) ** 2 for s, y in zip(scores, labels) if y.sum() > 1]
    assert clip_es.sharpness(torch.tensor(scores), torch.tensor(labels)) == pytest.approx(np.mean(rows), rel=1e-6)


def test_sharpness_looks_only_at_present_classes_of_pictures_with_several():
    scores, labels = torch.tensor([[.5, .1, .2], [.9, .05, .05]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    changed = scores.clone(); changed[0, 2], changed[1] = .9, torch.tensor([.1, .2, .3])
    assert clip_es.sharpness(scores, labels) == clip_es.sharpness(changed, labels) > 0
    assert np.isnan(clip_es.sharpness(scores[1:], labels[1:]))


def test_the_template_with_the_lowest_sharpness_is_chosen(clip):
    features = torch.nn.functional.normalize(torch.randn(6, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.zeros(6, 20); labels[:, [0, 11]] = 1
    template, table = clip_es.choose_template(clip, features, labels, ["{}.", "a toy {}."])
    assert set(table) == {"{}.", "a toy {}."} and table[template] == min(table.values())


def test_fused_features_are_unit_means_and_a_single_word_is_itself(clip):
    fused = clip_es.fused_features(clip, [["sofa", "couch"], ["dog"]], "a photo of a {}.")
    alone = text_features(clip, ["a photo of a sofa.", "a photo of a couch.", "a photo of a dog."])
    assert torch.allclose(fused[0], torch.nn.functional.normalize(alone[:2].mean(0), dim=0), atol=1e-6) and torch.allclose(fused[1], alone[2], atol=1e-6)


def test_every_synonym_is_known_to_the_miniature(clip, recwarn):
    text_features(clip, [word for words in clip_es.SYNONYMS.values() for word in words] + [t.format("dog") for t in clip_es.TEMPLATES])
    assert not [w for w in recwarn if "never saw" in str(w.message)]


def test_unsure_pixels_are_ignored_and_the_others_keep_their_label():
    s = scene(3)
    cams = np.random.default_rng(0).random((2, *s.label.shape)).astype(np.float32)
    label, kept = clip_es.confident_label(s.image, cams, [3, 7], confidence=.95)
    assert set(np.unique(label)) <= {0, 4, 8} and (kept == 255).any()
    assert (label[kept != 255] == kept[kept != 255]).all()
    assert (clip_es.confident_label(s.image, cams, [3, 7], confidence=0)[1] == label).all()


def test_patch_features_and_their_mean_are_those_of_the_image_feature(clip):
    tokens = encode_image_trunk(clip, preprocess([scene(1).image, scene(2).image]))
    feature = clip_es.patch_features(clip, tokens).mean(1) @ clip.visual.proj
    assert torch.allclose(torch.nn.functional.normalize(feature, dim=1), last_block(clip, tokens).feature, atol=1e-5)


def test_plain_cams_add_up_to_the_classifier_and_learning_is_repeatable():
    rng = torch.Generator().manual_seed(0)
    patches, labels = torch.randn(30, 16, 8, generator=rng), torch.zeros(30, 3)
    labels[:, 1] = (patches.mean(1)[:, 0] > 0).float()
    a, losses = clip_es.train_plain_cam(patches.mean(1), labels, steps=60)
    b, _ = clip_es.train_plain_cam(patches.mean(1), labels, steps=60)
    assert losses[-1] < .5 * losses[0] and torch.equal(a.weight, b.weight)
    maps = a.cams(patches[0], [1, 2], (4, 4))
    assert maps.shape == (2, 4, 4) and torch.allclose(maps.mean((1, 2)) + a.bias[1:], a(patches[0].mean(0))[1:], atol=1e-5)
