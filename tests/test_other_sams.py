"""SAM 2.1 and SAM 3 through transformers, with small random networks of their layouts."""

import numpy as np
import pytest
import torch

from fmwsss.files.errors import SettingsError
from fmwsss.minivoc.writing import split_scene
from fmwsss.refiners.refiner import label_maps, needs_masks
from fmwsss.sources.sam2 import ask_points, sam2_image_masks, sam2_masks, square_pixels
from fmwsss.sources.sam3 import Sam3Rival, phrase_masks
from fmwsss.sources.table import masks_for, open_source

transformers = pytest.importorskip("transformers")
EVERYTHING = dict(points_per_side=4, pred_iou_thresh=0, stability_thresh=0, min_region_area=0)


def small_sam2(side=64, width=32):
    "SAM 2's layout with random weights."
    parts = pytest.importorskip("transformers.models.sam2.configuration_sam2")
    backbone = parts.Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[side, side],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        window_positional_embedding_background_size=[4, 4],
        blocks_per_stage=[1] * 4,
        embed_dim_per_stage=[16, 32, 64, 128],
        window_size_per_stage=[4, 4, 4, 2],
        global_attention_blocks=[],
    )
    vision = parts.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_hidden_size=width,
        backbone_feature_sizes=[[side // s] * 2 for s in (4, 8, 16)],
    )
    prompt = parts.Sam2PromptEncoderConfig(hidden_size=width, image_size=side)
    decoder = parts.Sam2MaskDecoderConfig(
        hidden_size=width, mlp_dim=width, num_attention_heads=2, iou_head_hidden_dim=width
    )
    config = transformers.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    torch.manual_seed(0)
    return transformers.Sam2Model(config).eval()


def small_sam3():
    "SAM 3's layout with random weights."
    parts = pytest.importorskip("transformers.models.sam3.configuration_sam3")
    wide = dict(hidden_size=32, intermediate_size=32, num_attention_heads=2)
    vit = parts.Sam3ViTConfig(
        num_hidden_layers=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
        **wide,
    )
    vision = parts.Sam3VisionConfig(
        backbone_config=vit,
        fpn_hidden_size=32,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    )
    text = transformers.CLIPTextConfig(
        vocab_size=100,
        num_hidden_layers=1,
        max_position_embeddings=16,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        **wide,
    )
    config = transformers.Sam3Config(
        vision_config=vision,
        text_config=text.to_dict(),
        geometry_encoder_config=parts.Sam3GeometryEncoderConfig(num_layers=1, **wide),
        detr_encoder_config=parts.Sam3DETREncoderConfig(num_layers=1, **wide),
        detr_decoder_config=parts.Sam3DETRDecoderConfig(num_layers=1, num_queries=6, **wide),
        mask_decoder_config=parts.Sam3MaskDecoderConfig(hidden_size=32, num_attention_heads=2),
    )
    torch.manual_seed(0)
    return transformers.Sam3Model(config).eval()


def letters(phrases, return_tensors):
    "A tokenizer of single letters, for a network that knows no words."
    ids = [[0, *[2 + ord(c) % 90 for c in p][:10], 1] for p in phrases]
    return dict(input_ids=torch.tensor(ids))


@pytest.fixture(scope="module")
def image():
    return split_scene("val", 26).image[:96]


@pytest.mark.parametrize(
    "name, side, mean",
    [("Sam2ImageProcessor", 1024, None), ("Sam3ImageProcessor", 1008, (0.5, 0.5, 0.5))],
)
def test_pixels_are_those_of_the_published_processor(image, name, side, mean):
    kind = getattr(transformers, name, None) or getattr(transformers, f"{name}Fast", None)
    if kind is None:
        pytest.skip(f"transformers has no {name}")
    theirs = kind()(images=image, return_tensors="pt")["pixel_values"]
    ours = square_pixels(image, side, "cpu", *((mean, mean) if mean else ()))
    assert theirs.shape == ours.shape == (1, 3, side, side)
    assert (theirs - ours).abs().max() < 0.02  # theirs is rounded to 256 levels in between


def test_sam2_is_asked_as_its_own_processor_asks(image):
    model = small_sam2()
    pixels = square_pixels(image, 64)
    embeddings = model.get_image_embeddings(pixels)
    points = torch.tensor([[10.0, 20.0], [40.0, 50.0]])
    logits, iou = ask_points(model, embeddings, points)
    assert logits.shape[:2] == iou.shape == (2, 3)
    with torch.no_grad():
        one = model(pixel_values=pixels, input_points=points[None, 1:, None])
    assert torch.allclose(one.pred_masks[0, 0], logits[1], atol=1e-5)
    assert torch.allclose(one.iou_scores[0, 0], iou[1], atol=1e-5)


def test_sam2_is_a_mask_source(image, tmp_path):
    small_sam2().save_pretrained(tmp_path)
    source = open_source("fmwsss.sources.sam2:sam2_masks", model=str(tmp_path), **EVERYTHING)
    masks = masks_for(source, image)
    again = sam2_image_masks(small_sam2(), image, **dict(EVERYTHING, points_per_batch=3))
    assert len(masks) and masks.size == image.shape[:2] and set(masks.level) <= {0, 1, 2}
    assert np.array_equal(masks.dense(), again.dense())
    few = sam2_image_masks(small_sam2(), image, **dict(EVERYTHING, pred_iou_thresh=2.0))
    assert len(few) == 0 and few.size == masks.size


def test_weights_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(SettingsError, match="published name or a local folder") as error:
        sam2_masks(str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)
    with pytest.raises(SettingsError, match="Sam3Model") as error:
        Sam3Rival(["cat"], str(tmp_path / "nothing"), letters)
    assert "\n" not in str(error.value)


def test_sam3_answers_for_each_class_of_the_label(image):
    model = small_sam3()
    rival = Sam3Rival(["aeroplane", "bicycle", "bird"], model, letters)
    assert not needs_masks(rival)
    settings = [dict(least=0.0), dict(least=1.0)]
    all_object, nothing = label_maps(
        rival, image, np.zeros((2, *image.shape[:2])), np.array([0, 2]), None, settings
    )
    assert set(np.unique(all_object)) <= {1, 3} and not nothing.any()


def test_sam3_scores_are_its_processors(image):
    model = small_sam3()
    half = (0.5, 0.5, 0.5)
    pixels = square_pixels(image, 56, "cpu", half, half)
    ids = letters(["bird"], "pt")["input_ids"]
    maps, scores = phrase_masks(model, pixels, ids)
    with torch.no_grad():
        found = model(pixel_values=pixels, input_ids=ids)
    processor = getattr(transformers, "Sam3ImageProcessor", None)
    processor = processor or transformers.Sam3ImageProcessorFast
    theirs = processor().post_process_instance_segmentation(found, threshold=0.0)[0]
    assert torch.allclose(theirs["scores"].sort()[0], scores.sort()[0], atol=1e-6)
    area = theirs["masks"].flatten(1).sum(1).sort()[0]
    assert area.tolist() == (maps > 0.5).flatten(1).sum(1).sort()[0].tolist()
