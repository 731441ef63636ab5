"""The second stage: ignored pixels, sizes, what is frozen, what is drawn at random, and an exact resume."""
import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmwsss.study import segmentation
from fmwsss.minivoc.scenes import scene
from fmwsss.models.clip import load_clip
from fmwsss.engine.checkpoints import TrainingDiverged

ENCODER = "tu-mobilenetv3_small_100"


@pytest.fixture(scope="module")
def clip(): return load_clip()


@pytest.fixture(scope="module")
def pictures():
    scenes = [scene(i) for i in range(6)]
    return [s.image for s in scenes], [s.label for s in scenes]


def frozen(clip, decoder="segformer", **options):
    torch.manual_seed(0)
    return segmentation.build_network(decoder, encoder="clip", clip=clip, **options)


def test_loss_is_the_mean_over_labelled_pixels():
    logits, labels = torch.randn(2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6), dtype=torch.uint8)
    labels[0, :2], labels[1, 3] = 255, 255
    seen = labels != 255
    by_hand = F.cross_entropy(logits.permute(0, 2, 3, 1)[seen], labels[seen].long())
    assert torch.allclose(segmentation.masked_cross_entropy(logits, labels), by_hand)
    assert segmentation.masked_cross_entropy(logits, torch.full_like(labels, 255)) == 0


@pytest.mark.parametrize("name", ["segformer", "deeplabv3plus"])
def test_any_image_size_and_a_frozen_encoder(clip, name):
    network = frozen(clip, name).eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 77, 3), dtype=np.uint8)
    assert segmentation.predict(network, image).shape == (50, 77)
    assert not {id(p) for p in clip.parameters()} & {id(p) for p in network.parameters()}
    assert sum(v.numel() for v in network.state_dict().values()) < 500_000


def test_networks_of_the_library_take_any_size_and_unknown_ones_are_named():
    network = segmentation.build_network("deeplabv3plus", 5, ENCODER).eval()
    assert network(torch.zeros(1, 3, 40, 70, dtype=torch.uint8)).shape == (1, 5, 40, 70)
    with pytest.raises(ValueError, match="deeplab99"): segmentation.build_network("deeplab99", 5, ENCODER)
    with pytest.raises(ValueError, match="clip"): segmentation.build_network("segformer", encoder="clip")


def test_padding_does_not_reach_into_the_picture_size():
    network = segmentation.Network(torch.nn.Conv2d(3, 4, 1), 4)
    image = torch.randint(0, 256, (1, 3, 40, 70), dtype=torch.uint8)
    assert network.encode(image).shape[-2:] == (64, 96)
    assert torch.allclose(network(image), network.net(network.encode(image))[..., :40, :70])


def test_encoded_once_is_encoded_each_time(clip, pictures):
    network = frozen(clip).eval()
    encoded = segmentation.encode_once(network, pictures[0], batch=4)
    assert encoded.shape[:2] == (2, 6)
    assert (segmentation.predict_encoded(network, encoded[0, 2:3], (128, 128))[0] == segmentation.predict(network, pictures[0][2])).mean() > .99      # stored in float16
    mirrored = network.encode(segmentation.to_bytes([pictures[0][2][:, ::-1].copy()]))
    assert torch.allclose(encoded[1, 2].float(), mirrored[0], atol=.02, rtol=.02)
    with pytest.raises(ValueError, match="does not learn"): segmentation.encode_once(segmentation.Network(torch.nn.Conv2d(3, 4, 1), 4), pictures[0])


def test_labels_are_mirrored_with_their_picture():
    encoded, labels = torch.stack([torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)]), [np.array([[i, 9]], np.uint8) for i in range(3)]
    inputs, target = segmentation.encoded_batch(encoded, labels, [0, 1, 2, 0, 1, 2], np.random.default_rng(0), "cpu")
    flipped = inputs[:, 0, 0, 0] == 1
    assert 0 < flipped.sum() < 6
    for f, t, i in zip(flipped, target, [0, 1, 2, 0, 1, 2]): assert t.tolist() == ([[9, i]] if f else [[i, 9]])


def test_it_learns_and_ignored_pixels_do_not_matter(clip, pictures):
    images, labels = pictures
    half = [np.where(np.arange(128) < 64, label, 255).astype(np.uint8) for label in labels]
    network = frozen(clip)
    encoded = segmentation.encode_once(network, images)
    history = segmentation.train_network(network, None, half, 25, 6, 1e-2, encoded=encoded, progress=False)
    assert history[-1][1] < .3 * history[0][1] and history[-1][2] < history[0][2]
    assert not any((segmentation.predict(network, image) == 255).any() for image in images)


def test_resume_is_exact_and_the_seed_decides(clip, pictures, tmp_path):
    images, labels = pictures
    encoded = segmentation.encode_once(frozen(clip), images)
    run = lambda seed=0, **more: (lambda n: (n, segmentation.train_network(n, None, labels, 8, 4, 5e-3, encoded=encoded, seed=seed, progress=False, **more)))(frozen(clip))
    whole, history = run()
    run(stop=3, checkpoint=tmp_path / "n.pt")
    resumed, again = run(checkpoint=tmp_path / "n.pt")
    assert again == history and all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    assert run(seed=1)[1] != history


def test_training_on_augmented_pictures_bf16_and_sgd(pictures):
    images, labels = pictures
    torch.manual_seed(0)
    network = segmentation.build_network("segformer", 21, ENCODER, decoder_segmentation_channels=16)
    history = segmentation.train_network(network, images, labels, 3, 4, .01, "sgd", augmentation=dict(size=64, scale=(70, 140), short_min=64), precision="bfloat16", progress=False)
    assert len(history) == 3 and all(np.isfinite(h[1]) for h in history)
    with pytest.raises(ValueError, match="adagrad"): segmentation.make_optimizer(network, "adagrad")


@pytest.mark.fault
def test_a_loss_that_is_no_number_stops_the_training(clip, pictures):
    network = frozen(clip)
    encoded = segmentation.encode_once(network, pictures[0]) * float("nan")
    with pytest.raises(TrainingDiverged, match="iteration 0"): segmentation.train_network(network, None, pictures[1], 2, 4, encoded=encoded, progress=False)


def test_mask2former_is_an_extra(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"fmwsss\[mask2former\]"): segmentation.build_network("mask2former")


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the extra mask2former")
def test_mask2former_trains_and_predicts():
    from transformers import SwinConfig
    swin = SwinConfig(embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, out_features=["stage1", "stage2", "stage3", "stage4"])
    torch.manual_seed(0)
    network = segmentation.build_network("mask2former", 4, backbone_config=swin, hidden_dim=32, feature_size=32, mask_feature_size=32, num_queries=8, encoder_layers=1, decoder_layers=2,
                                   num_attention_heads=2, dim_feedforward=32, encoder_feedforward_dim=32, train_num_points=64)
    images = [np.full((40, 48, 3), v, np.uint8) for v in (40, 200)]
    labels = [np.zeros((40, 48), np.uint8), np.full((40, 48), 2, np.uint8)]
    labels[0][:, 20:], labels[1][:5] = 3, 255
    history = segmentation.train_network(network, images, labels, 3, 2, 1e-3, augmentation=dict(flip_only=True), progress=False)
    assert len(history) == 3 and all(np.isfinite(h[1]) for h in history)
    network.eval()
    logits = network(segmentation.to_bytes(images))
    assert logits.shape == (2, 4, 40, 48) and (logits <= 1e-3 + np.log(8)).all()
    assert segmentation.predict(network, images[0]).shape == (40, 48)
