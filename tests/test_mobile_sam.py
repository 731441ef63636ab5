"""MobileSAM: the published code's numbers (mobile_sam_expected.npz) on a photo of scikit-image."""
import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from fmwsss.files.errors import SettingsError
from fmwsss.models.mobile_sam import (
    MOBILE_SAM,
    build_mobile_sam,
    fetch_mobile_sam,
    load_mobile_sam,
    our_name,
    our_state,
)
from fmwsss.models.sam import load_sam, sam_loader
from real import EXPECTED, need_weights


def test_numbers_of_the_published_code():
    data = pytest.importorskip("skimage.data")
    predictor = SamPredictor(load_sam("mobile_sam", need_weights()))
    predictor.set_image(data.chelsea())
    expected = np.load(EXPECTED / "mobile_sam_expected.npz")
    features = predictor.features[0, ::8, ::4, ::4].numpy()
    assert np.abs(features - expected["features"]).max() < 1e-4
    for k, point in enumerate(expected["points"]):
        masks, iou, low = predictor.predict(point[None], np.array([1]), multimask_output=True)
        assert np.abs(iou - expected["iou"][k]).max() < 1e-4
        assert np.abs(low[:, ::8, ::8] - expected["logits"][k]).max() < 1e-2
        assert np.abs(masks.sum((1, 2)) - expected["area"][k]).max() <= 5


def published_state(sam):
    "Tensors of a MobileSAM by the published file's names, with the classifier that nobody asks."
    ours = sam.state_dict()
    theirs = {}
    for name in ours:
        old = name.replace("image_encoder.net.", "image_encoder.").replace(".conv.", ".c.")
        old = old.replace("patch_embed.conv1", "patch_embed.seq.0")
        old = old.replace("patch_embed.conv2", "patch_embed.seq.2")
        for i in (1, 2, 3):
            old = old.replace(f"stages.{i}.downsample", f"layers.{i - 1}.downsample")
        theirs[old.replace("stages.", "layers.")] = ours[name]
    return theirs | {"image_encoder.head.weight": torch.zeros(1000, 320)}


def test_every_tensor_of_the_published_file_finds_its_place(tmp_path):
    torch.manual_seed(0)
    sam = build_mobile_sam(128).eval()
    torch.save(published_state(sam), tmp_path / "mobile_sam.pt")
    again = load_mobile_sam(tmp_path / "mobile_sam.pt", img_size=128)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(sam.image_encoder(x), again.image_encoder(x))
    assert our_name("mask_decoder.iou_token.weight") == "mask_decoder.iou_token.weight"
    assert not any(p.requires_grad for p in again.parameters())


def test_other_files_are_refused_in_one_line(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="another architecture") as error:
        load_sam("mobile_sam", tmp_path / "other.pt")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="multiple of 64"):
        build_mobile_sam(1000)
    assert our_state({"image_encoder.norm_head.bias": torch.zeros(2)}) == {}


def test_the_download_names_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(MOBILE_SAM, "url", "http://127.0.0.1:9/weights/mobile_sam.pt")
    with pytest.raises(FileNotFoundError, match="mobile_sam.pt.*41 MB") as error:
        fetch_mobile_sam(tmp_path)
    assert "\n" not in str(error.value)


def test_a_strangers_sam_by_address():
    assert sam_loader("small:small_sam")().image_encoder.img_size > 0
    with pytest.raises(SettingsError, match="mobile_sam"):
        load_sam("mobilesam")
