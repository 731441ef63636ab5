"""The paper's presets over their whole length, with everything small but the formats.

What `make test-fullsize` does in minutes, in seconds."""

import json

import pytest
from fullsize import check, coco_folder, fewer, openai_archive, sam_checkpoint, voc_folder
from safetensors.torch import save_file
from small import SAM_CONFIG, small_sam

from fmwsss.app.runner import reproduce
from fmwsss.models.clip import load_clip
from fmwsss.models.weights import is_torchscript

CONFIG = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=64, patch_size=16, width=64, head_width=64, layers=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=2),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    "An archive in OpenAI's form and a SAM with its config, a few megabytes together."
    folder = tmp_path_factory.mktemp("models")
    sam = small_sam()
    sam_checkpoint(folder / "sam.pth", sam)
    save_file(sam.state_dict(), folder / "sam.safetensors")
    (folder / "sam.json").write_text(json.dumps(SAM_CONFIG))
    return openai_archive(folder / "clip.pt", CONFIG), folder / "sam.safetensors"


def test_the_archive_is_in_openais_form(models):
    assert is_torchscript(models[0]) and load_clip(
        "miniclip", models[0]
    ).visual.conv1.weight.shape == (64, 3, 16, 16)


@pytest.mark.parametrize(
    "kind, build, counts",
    [
        ("voc2012", voc_folder, dict(train=3, train_aug=5, val=2)),
        ("coco2014", coco_folder, dict(train2014=5, val2014=2)),
    ],
)
def test_a_preset_from_files_to_pseudo_labels(tmp_path, models, kind, build, counts):
    root = build(tmp_path / "data", 3, counts, (90, 120))
    changes = fewer(kind, root, *models, images=3, steps=2, batch=2)
    changes["models"] = dict(changes["models"], clip="miniclip", sam="minisam")
    changes["data"] = dict(changes["data"], options=dict(check=False))
    table, stages = check(
        tmp_path / "run",
        reproduce(kind, tmp_path / "run", ["models", "seeds"], changes=changes, progress=False),
    )
    assert set(table.split) == ({"train", "val"} if kind == "voc2012" else {"train2014", "val2014"})
    assert "caa" in set(table.method[table.task == "classification"]) and (
        "caa" in set(table.method[table.task == "segmentation"])
    ) == (kind == "voc2012")
    assert {"masks_sam", "prompts_classification", "prompts_segmentation", "cams", "seeds"} <= set(
        stages.stage
    )
    settings = json.loads((tmp_path / "run/run.json").read_text())["parameters"]
    assert settings["seeding"]["published"] and settings["segmentation"]["training"][
        "accumulate"
    ] == (1 if kind == "voc2012" else 8)
    again = reproduce(kind, tmp_path / "run", ["models", "seeds"], changes=changes, progress=False)
    assert all(n["reused"] for n in again["notebooks"])
