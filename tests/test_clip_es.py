"""Sharpness, synonyms, confident labels and the plain CAM classifier, each by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmwsss.method.prompts import text_features
from fmwsss.minivoc.scenes import scene
from fmwsss.models.clip import load_clip
from fmwsss.study import clip_es, plain_cam


@pytest.fixture(scope="module")
def clip():
    return load_clip()


# ---- the sentence


def test_sharpness_is_the_mean_squared_coefficient_of_variation():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 1, (20, 6))
    labels = (rng.random((20, 6)) < 0.5).astype(np.uint8)
    pairs = [s[y > 0] for s, y in zip(scores, labels) if y.sum() > 1]
    expected = np.mean([(np.std(s) / np.mean(s)) ** 2 for s in pairs])
    found = clip_es.sharpness(torch.tensor(scores), torch.tensor(labels))
    assert found == pytest.approx(expected, rel=1e-6)


def test_sharpness_looks_only_at_present_classes_of_pictures_with_several():
    scores = torch.tensor([[0.5, 0.1, 0.2], [0.9, 0.05, 0.05]])
    labels = torch.tensor([[1, 1, 0], [1, 0, 0]])
    changed = scores.clone()
    changed[0, 2] = 0.9
    changed[1] = torch.tensor([0.1, 0.2, 0.3])
    assert clip_es.sharpness(scores, labels) == clip_es.sharpness(changed, labels) > 0
    assert np.isnan(clip_es.sharpness(scores[1:], labels[1:]))


def test_the_template_with_the_lowest_sharpness_is_chosen(clip):
    rng = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(6, 128, generator=rng), dim=1)
    labels = torch.zeros(6, 20)
    labels[:, [0, 11]] = 1
    templates = ["{}.", "a toy {}."]
    chosen, table = clip_es.choose_template(clip, features, labels, templates)
    assert set(table) == set(templates) and table[chosen] == min(table.values())


# ---- synonyms


def test_fused_features_are_unit_means_and_a_single_word_is_itself(clip):
    fused = clip_es.fused_features(clip, [["sofa", "couch"], ["dog"]], "a photo of a {}.")
    words = ("sofa", "couch", "dog")
    alone = text_features(clip, [f"a photo of a {word}." for word in words])
    assert torch.allclose(fused[0], F.normalize(alone[:2].mean(0), dim=0), atol=1e-6)
    assert torch.allclose(fused[1], alone[2], atol=1e-6)


def test_classes_come_first_and_those_without_synonyms_keep_their_name(clip):
    found = clip_es.clip_es_text(clip, ["sofa", "dog"], ["sofa", "cat"], ["grass"], "{}.")
    own = text_features(clip, ["cat.", "grass."])
    assert torch.allclose(found[1:], own, atol=1e-6)
    assert torch.allclose(found[:1], clip_es.fused_features(clip, [["sofa", "couch"]], "{}."))


def test_every_synonym_is_known_to_the_miniature(clip, recwarn):
    words = [word for group in clip_es.SYNONYMS.values() for word in group]
    text_features(clip, words + [t.format("dog") for t in clip_es.TEMPLATES])
    assert not [w for w in recwarn if "never saw" in str(w.message)]


# ---- confidence


def test_unsure_pixels_are_ignored_and_the_others_keep_their_label():
    s = scene(3)
    cams = np.random.default_rng(0).random((2, *s.label.shape)).astype(np.float32)
    label, kept = clip_es.confident_label(s.image, cams, [3, 7], confidence=0.95)
    assert set(np.unique(label)) <= {0, 4, 8} and (kept == 255).any()
    assert (label[kept != 255] == kept[kept != 255]).all()
    assert (clip_es.confident_label(s.image, cams, [3, 7], confidence=0)[1] == label).all()


# ---- without text


def test_the_mean_of_the_patches_is_the_image_feature(clip):
    pixels = clip.pixels([scene(1).image, scene(2).image])
    tokens = clip.trunk(pixels)
    feature = plain_cam.patch_features(clip, tokens).mean(1) @ clip.visual.proj
    expected = clip.feature(tokens, clip.activation(tokens), clip.grid(pixels))
    assert torch.allclose(F.normalize(feature, dim=1), expected, atol=1e-5)


def test_plain_cams_add_up_to_the_classifier_and_learning_is_repeatable():
    rng = torch.Generator().manual_seed(0)
    patches = torch.randn(30, 16, 8, generator=rng)
    labels = torch.zeros(30, 3)
    labels[:, 1] = (patches.mean(1)[:, 0] > 0).float()
    one, losses = plain_cam.train_plain_cam(patches.mean(1), labels, steps=60)
    other, _ = plain_cam.train_plain_cam(patches.mean(1), labels, steps=60)
    assert losses[-1] < 0.5 * losses[0] and torch.equal(one.weight, other.weight)
    maps = one.cams(patches[0], [1, 2], (4, 4))
    scores = one(patches[0].mean(0))[1:]
    assert maps.shape == (2, 4, 4)
    assert torch.allclose(maps.mean((1, 2)) + one.bias[1:], scores, atol=1e-5)
