"""The second stage: ignored pixels, sizes, what is frozen, chance, exact resume, a study."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fmwsss.engine.checkpoints import TrainingDiverged
from fmwsss.files.errors import SettingsError
from fmwsss.minivoc.scenes import scene
from fmwsss.models.clip import load_clip
from fmwsss.study import networks, second_stage, segmentation
from fmwsss.study.overlay import overlay
from fmwsss.study.settings import NetworkTraining, Settings, Views
from fmwsss.study.study import Study

ENCODER = "tu-mobilenetv3_small_100"
QUICK = NetworkTraining(
    steps=8, batch_size=4, optimizer="adamw", lr=5e-3, weight_decay=0.01, precision="float32"
)


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def pictures():
    scenes = [scene(i) for i in range(6)]
    return [s.image for s in scenes], [s.label for s in scenes]


@pytest.fixture(scope="module")
def encoded(clip, pictures):
    return segmentation.encode_once(frozen(clip), pictures[0], batch=4)


def frozen(clip, decoder="segformer", **options):
    torch.manual_seed(0)
    return networks.build_network(decoder, encoder="clip", clip=clip, **options)


def train(clip, encoded, labels, training=QUICK, **more):
    network = frozen(clip)
    source = segmentation.EncodedPairs(encoded, labels)
    history = segmentation.train_network(network, source, training, progress=False, **more)
    return network, history


# ---- networks


def test_loss_is_the_mean_over_labelled_pixels():
    logits = torch.randn(2, 5, 4, 6)
    labels = torch.randint(0, 5, (2, 4, 6), dtype=torch.uint8)
    labels[0, :2] = 255
    labels[1, 3] = 255
    seen = labels != 255
    by_hand = F.cross_entropy(logits.permute(0, 2, 3, 1)[seen], labels[seen].long())
    assert torch.allclose(networks.masked_cross_entropy(logits, labels), by_hand)
    assert networks.masked_cross_entropy(logits, torch.full_like(labels, 255)) == 0


@pytest.mark.parametrize("name", ["segformer", "deeplabv3plus"])
def test_any_image_size_and_a_frozen_encoder(clip, name):
    network = frozen(clip, name).eval()
    image = np.random.default_rng(0).integers(0, 256, (50, 77, 3), dtype=np.uint8)
    assert segmentation.predict(network, image).shape == (50, 77)
    owned = {id(p) for p in network.parameters()}
    assert not owned & {id(p) for p in clip.model.parameters()}
    assert sum(v.numel() for v in network.state_dict().values()) < 500_000


def test_networks_of_the_library_take_any_size_and_unknown_ones_are_named():
    network = networks.build_network("deeplabv3plus", 5, ENCODER).eval()
    assert network(torch.zeros(1, 3, 40, 70, dtype=torch.uint8)).shape == (1, 5, 40, 70)
    with pytest.raises(SettingsError, match="deeplab99"):
        networks.build_network("deeplab99", 5, ENCODER)
    with pytest.raises(SettingsError, match="needs the model"):
        networks.build_network("segformer", encoder="clip")


def test_an_unknown_decoder_on_a_frozen_clip_is_named(clip):
    with pytest.raises(SettingsError, match="'unet' is unknown for a frozen CLIP: use"):
        frozen(clip, "unet")


def test_padding_does_not_reach_into_the_picture_size():
    network = networks.Network(torch.nn.Conv2d(3, 4, 1), 4)
    image = torch.randint(0, 256, (1, 3, 40, 70), dtype=torch.uint8)
    assert network.encode(image).shape[-2:] == (64, 96)
    assert torch.allclose(network(image), network.net(network.encode(image))[..., :40, :70])


# ---- batches


def test_encoded_once_is_encoded_each_time(clip, pictures, encoded):
    network = frozen(clip).eval()
    assert encoded.shape[:2] == (2, 6)
    image = pictures[0][2]
    stored = segmentation.predict_encoded(network, encoded[0, 2:3], image.shape[:2])[0]
    assert (stored == segmentation.predict(network, image)).mean() > 0.99  # kept in float16
    mirrored = network.encode(networks.to_bytes([image[:, ::-1].copy()]))
    assert torch.allclose(encoded[1, 2].float(), mirrored[0], atol=0.02, rtol=0.02)


def test_only_a_frozen_encoder_may_encode_once(pictures):
    learns = networks.Network(torch.nn.Conv2d(3, 4, 1), 4)
    with pytest.raises(SettingsError, match="frozen encoder"):
        segmentation.encode_once(learns, pictures[0])


def test_labels_are_mirrored_with_their_picture():
    views = torch.stack([torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)])
    labels = [np.array([[i, 9]], np.uint8) for i in range(3)]
    asked = [0, 1, 2, 0, 1, 2]
    source = segmentation.EncodedPairs(views, labels)
    inputs, target = source(asked, np.random.default_rng(0))
    flipped = inputs[:, 0, 0, 0] == 1
    assert 0 < flipped.sum() < 6
    for turned, found, i in zip(flipped, target, asked):
        assert found.tolist() == ([[9, i]] if turned else [[i, 9]])


# ---- training


def test_it_learns_and_ignored_pixels_do_not_matter(clip, pictures, encoded):
    left = np.arange(128) < 64
    half = [np.where(left, label, 255).astype(np.uint8) for label in pictures[1]]
    training = replace(QUICK, steps=25, batch_size=6, lr=1e-2)
    network, history = train(clip, encoded, half, training)
    assert history[-1][1] < 0.3 * history[0][1] and history[-1][2] < history[0][2]
    assert not any((segmentation.predict(network, image) == 255).any() for image in pictures[0])


def test_resume_is_exact_and_the_seed_decides(clip, pictures, encoded, tmp_path):
    whole, history = train(clip, encoded, pictures[1])
    train(clip, encoded, pictures[1], stop=3, checkpoint=tmp_path / "n.pt")
    resumed, again = train(clip, encoded, pictures[1], checkpoint=tmp_path / "n.pt")
    assert again == history
    states = zip(whole.state_dict().values(), resumed.state_dict().values())
    assert all(torch.equal(a, b) for a, b in states)
    assert train(clip, encoded, pictures[1], seed=1)[1] != history


def test_training_on_augmented_pictures_in_bfloat16_with_sgd(pictures):
    torch.manual_seed(0)
    options = dict(decoder_segmentation_channels=16)
    network = networks.build_network("segformer", 21, ENCODER, **options)
    window = dict(size=64, scale=(70, 140), short_min=64)
    source = segmentation.AugmentedPairs(network, *pictures, **window)
    training = replace(QUICK, steps=3, optimizer="sgd", lr=0.01, precision="bfloat16")
    history = segmentation.train_network(network, source, training, progress=False)
    assert len(history) == 3 and all(np.isfinite(h[1]) for h in history)


def test_an_unknown_optimiser_is_named(clip):
    with pytest.raises(SettingsError, match="'adagrad' is unknown: use 'sgd' or 'adamw'"):
        segmentation.network_optimizer(frozen(clip), replace(QUICK, optimizer="adagrad"))


@pytest.mark.fault
def test_a_loss_that_is_no_number_stops_the_training(clip, pictures, encoded):
    with pytest.raises(TrainingDiverged, match="iteration 0"):
        train(clip, encoded * float("nan"), pictures[1])


# ---- in a study

SMALL = dict(
    workers=1,
    data=dict(
        kind="minivoc",
        splits=dict(train="train", tune="tune", val="val"),
        images=dict(train=5, tune=2, val=3),
    ),
    models=dict(clip="miniclip", clip_fp16=False),
    seeding=dict(published=False, affinity=None, powers=[1.0], crf={}),
    network=dict(name="segformer", encoder="clip", weights=None),
    network_training=dict(steps=3, optimizer="adamw", precision="float32", batch_size=2),
    encode_once=True,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("second")
    return Study(overlay(Settings(), SMALL), folder, progress=False)


def test_the_same_training_is_done_once(study):
    first = second_stage.predictions(study, None, "val")
    again = second_stage.predictions(study, None, "val")
    assert study.run.records[-1]["computed"] == 0 and again.key == first.key
    assert len(list((study.run.cache / "networks").glob("*.pt"))) == 1
    prompts = study.fixed("{}.")
    seeds = study.seeds(prompts, study.choose(prompts, ["cam"])["cam"], "train")
    assert second_stage.predictions(study, seeds, "val").key != first.key
    assert len(list((study.run.cache / "networks").glob("*.pt"))) == 2


def test_a_halt_does_not_cut_the_whole_training(study):
    second_stage.predictions(study, None, "tune", stop=2)
    _, history = second_stage.taught(study, None)
    assert len(history) == 3
    assert len(second_stage.taught(study, None, stop=2)[1]) == 2


def test_pictures_without_a_seed_are_left_out(study):
    class Some:
        "Seeds of two pictures."

        def has(self, image_id):
            return image_id in study.data["train"].ids[:2]

        def load(self, image_id):
            return dict(seed=np.zeros((128, 128), np.uint8))

    network = second_stage.second_network(study)
    assert len(second_stage.label_source(study, network, Some())) == 2
    augmented = study.variant(
        encode_once=False,
        network_training=replace(QUICK, augmentation=Views(64, (70, 140), 64)),
    )
    source = second_stage.label_source(augmented, network, Some())
    inputs, labels = source([0, 1], np.random.default_rng(0))
    assert len(source) == 2 and labels.shape == (2, 64, 64)


# ---- Mask2Former


def test_mask2former_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"fmwsss\[mask2former\]"):
        networks.build_network("mask2former")


def small_mask2former():
    from transformers import SwinConfig

    swin = SwinConfig(
        embed_dim=12,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    sizes = dict(hidden_dim=32, feature_size=32, mask_feature_size=32, dim_feedforward=32)
    layers = dict(encoder_layers=1, decoder_layers=2, num_attention_heads=2)
    more = dict(num_queries=8, encoder_feedforward_dim=32, train_num_points=64)
    torch.manual_seed(0)
    options = dict(backbone_config=swin, **sizes, **layers, **more)
    return networks.build_network("mask2former", 4, **options)


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra mask2former"
)
def test_mask2former_trains_and_predicts():
    network = small_mask2former()
    images = [np.full((40, 48, 3), v, np.uint8) for v in (40, 200)]
    labels = [np.zeros((40, 48), np.uint8), np.full((40, 48), 2, np.uint8)]
    labels[0][:, 20:] = 3
    labels[1][:5] = 255
    source = segmentation.AugmentedPairs(network, images, labels, flip_only=True)
    training = replace(QUICK, steps=3, batch_size=2, lr=1e-3)
    history = segmentation.train_network(network, source, training, progress=False)
    assert len(history) == 3 and all(np.isfinite(h[1]) for h in history)
    network.eval()
    with torch.no_grad():
        logits = network(networks.to_bytes(images))
    assert logits.shape == (2, 4, 40, 48) and (logits <= 1e-3 + np.log(8)).all()
    assert segmentation.predict(network, images[0]).shape == (40, 48)
