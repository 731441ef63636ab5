"""Run-length masks, the rock-sand-water filter, and automatic masks equal to segment_anything's own."""
from functools import partial
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils import amg
from fmwsss.superpixels import Masks, felzenszwalb_masks, generate_masks, join, label_masks, oracle_labels, rock_sand_water, slic_masks


def drawn(n, size, seed=0):
    "n masks of one to three ellipses, (n, H, W) bool."
    rng, (h, w) = np.random.default_rng(seed), size
    out = np.zeros((n, h, w), np.uint8)
    for m in out:
        for _ in range(rng.integers(1, 4)):
            cv2.ellipse(m, (int(rng.integers(w)), int(rng.integers(h))), (int(rng.integers(1, w // 3)), int(rng.integers(1, h // 3))), int(rng.integers(180)), 0, 360, 1, -1)
    return out.astype(bool)


@pytest.fixture
def masks():
    dense = drawn(20, (37, 53))
    dense[3], dense[4], dense[5] = False, True, np.random.default_rng(1).random((37, 53)) < 0.5
    return Masks.from_dense(dense, np.arange(20) % 3, np.linspace(0, 1, 20), np.linspace(1, 0, 20)), dense


def test_there_and_back(masks, tmp_path):
    m, dense = masks
    assert np.array_equal(m.dense(), dense) and np.array_equal(m.area, dense.sum((1, 2))) and len(m) == 20
    m.save(tmp_path / 'm.npz')
    again = Masks.load(tmp_path / 'm.npz')
    assert again.rles == m.rles and again.size == m.size and all(np.array_equal(getattr(again, k), getattr(m, k)) for k in ('level', 'iou', 'stability'))
    assert [p.name for p in tmp_path.iterdir()] == ['m.npz']


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 2**32), st.floats(0, 1))
def test_runs_of_any_mask(h, w, n, seed, density):
    rng = np.random.default_rng(seed)
    dense = rng.random((n, h, w)) < density
    m, values, order = Masks.from_dense(dense), rng.normal(size=(2, h, w)).astype(np.float32), rng.permutation(n)
    expected, top = np.zeros((2, n)), np.full((h, w), -1)
    for i in range(n): expected[:, i] = values[:, dense[i]].mean(1) if dense[i].any() else 0
    for i in order: top[dense[i]] = i
    assert np.allclose(m.means(values), expected, atol=1e-6) and np.array_equal(m.paint(order), top)
    start, end, owner = m.runs()
    flat = np.zeros((n, h * w), bool)
    for a, b, i in zip(start, end, owner): flat[i, a:b] = True
    assert np.array_equal(flat.reshape(n, w, h).transpose(0, 2, 1), dense)


def test_long_runs_survive_parsing():
    dense = np.zeros((3, 900, 1100), bool)
    dense[0, :, 3:], dense[1, 1, ::2], dense[2, 899, 1099] = True, True, True
    start, end, owner = Masks.from_dense(dense).runs()
    assert [(end - start)[owner == i].sum() for i in range(3)] == dense.sum((1, 2)).tolist()


def test_paint_may_leave_masks_out(masks):
    m, dense = masks
    assert np.array_equal(m.paint([7]) == 7, dense[7]) and (m.paint([]) == -1).all()


def test_subsets(masks):
    m, dense = masks
    for i in ([2, 0], slice(1, 9, 3), m.level == 1, []): assert np.array_equal(m[i].dense(), dense[np.asarray(i, int) if i == [] else i]) if not isinstance(i, np.ndarray) else np.array_equal(m[i].dense(), dense[i])
    assert np.array_equal(join(m[:5], m[5:]).dense(), dense)


def test_files_are_small(tmp_path):
    m = Masks.from_dense(drawn(40, (375, 500)))
    m.save(tmp_path / 'm.npz')
    assert (tmp_path / 'm.npz').stat().st_size < 12_000


@pytest.mark.fault
def test_damaged_files(masks, tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.npz'): Masks.load(tmp_path / 'gone.npz')
    path = tmp_path / 'm.npz'
    masks[0].save(path)
    data = path.read_bytes()
    for bad in (b'', data[:100], data[:-30], b'no zip at all'):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match='m.npz'): Masks.load(path)
    np.savez(path, something=1)
    with pytest.raises(ValueError, match='m.npz'): Masks.load(path)


def dense_filter(dense, level, thresh):
    kept = []
    for l in sorted(set(level.tolist()), reverse=True):
        new = [i for i in range(len(dense)) if level[i] == l]
        kept += [i for i in new if not kept or max((dense[i] & dense[k]).sum() / max(dense[i].sum(), 1) for k in kept) < thresh]
    return kept


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('thresh', [0.1, 0.3, 0.9])
def test_rock_sand_water_equals_dense(seed, thresh):
    dense = drawn(40, (40, 60), seed)
    m = Masks.from_dense(dense, np.random.default_rng(seed).integers(0, 3, 40))
    assert rock_sand_water(m, thresh, indices=True).tolist() == dense_filter(dense, m.level, thresh)


def test_rock_sand_water_of_nothing_and_of_water_only(masks):
    assert len(rock_sand_water(masks[0][[]])) == 0
    water = masks[0][masks[0].level == 0]
    assert len(rock_sand_water(water)) == len(water)


def random_sam(seed, size=128, patch=8, width=32):
    "A Sam of official modules whose random masks depend on the point."
    torch.manual_seed(seed)
    grid = size // patch
    sam = Sam(ImageEncoderViT(img_size=size, patch_size=patch, embed_dim=width, depth=1, num_heads=2, out_chans=width, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)),
              PromptEncoder(embed_dim=width, image_embedding_size=(grid, grid), input_image_size=(size, size), mask_in_chans=4),
              MaskDecoder(transformer_dim=width, transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=2, mlp_dim=32), iou_head_hidden_dim=32))
    sam.eval().requires_grad_(False)
    for m in sam.mask_decoder.transformer.modules():
        if hasattr(m, 'q_proj'): m.q_proj.weight *= 8; m.k_proj.weight *= 8; m.v_proj.weight *= 4; m.out_proj.weight *= 4
    for f in sam.mask_decoder.output_hypernetworks_mlps:
        for layer in f.layers: layer.weight *= 3; layer.bias *= 0
    return sam


def picture(size, seed=0):
    return cv2.resize(np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)


def own_thresholds(sam, image):
    "Thresholds in the middle of what this random model says: (predicted IoU, stability offset)."
    p, (h, w) = SamPredictor(sam), image.shape[:2]
    p.set_image(image)
    points = torch.tensor(p.transform.apply_coords(amg.build_point_grid(6) * [w, h], (h, w)))
    logits, iou, _ = p.predict_torch(points[:, None], torch.ones(36, 1, dtype=torch.int), return_logits=True)
    sam.mask_threshold = float(np.quantile(logits.numpy(), 0.8))
    return float(iou.quantile(0.4)), 0.02 * float(logits.std())


@pytest.mark.parametrize('seed, size, crops, area', [(0, (128, 128), 0, 0), (0, (96, 150), 1, 0), (2, (96, 150), 0, 40), (2, (200, 140), 1, 40), (3, (128, 128), 1, 40)])
def test_generator_equals_the_official_one(seed, size, crops, area):
    sam, image = random_sam(seed), picture(size)
    iou, offset = own_thresholds(sam, image)
    theirs = SamAutomaticMaskGenerator(sam, points_per_side=8, pred_iou_thresh=iou, stability_score_thresh=0.3, stability_score_offset=offset, box_nms_thresh=0.8,
                                       crop_nms_thresh=0.8, crop_n_layers=crops, crop_n_points_downscale_factor=2, min_mask_region_area=area).generate(image)
    ours = generate_masks(sam, image, 8, iou, 0.3, offset, 0.8, crops, 0.8, min_region_area=area, whole_iou_bonus=0, whole_nms_bonus=0)
    theirs = [m for m in theirs if m['area']]       # the only difference: empty masks are never returned
    assert len(ours) == len(theirs) > 3
    for a, b, iou, stability in zip(theirs, ours.dense(), ours.iou, ours.stability):
        both = (a['segmentation'] & b).sum() / (a['segmentation'] | b).sum()
        assert both > 0.99 and iou == pytest.approx(a['predicted_iou'], abs=1e-4) and stability == pytest.approx(a['stability_score'], abs=0.01)


def test_decoder_equals_the_official_one():
    from fmwsss.superpixels import _two_way
    sam = random_sam(1)
    t, d = sam.mask_decoder.transformer.double(), sam.mask_decoder.transformer_dim
    image, tokens, positions = (torch.randn(*s, dtype=torch.float64) for s in ((1, d, 16, 16), (5, 7, d), (1, d, 16, 16)))
    for ours, theirs in zip(_two_way(t, image, positions, tokens), t(image.expand(5, -1, -1, -1), positions.expand(5, -1, -1, -1), tokens)):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_bonuses_let_wholes_win():
    sam, image = random_sam(0), picture((96, 150))
    iou, offset = own_thresholds(sam, image)
    count = lambda **bonus: np.bincount(generate_masks(sam, image, 8, iou, 0.3, offset, 0.8, 0, min_region_area=0, **bonus).level, minlength=3)
    plain, favoured = count(whole_iou_bonus=0, whole_nms_bonus=0), count(whole_iou_bonus=1, whole_nms_bonus=9)
    assert favoured[2] > plain[2] and favoured[:2].sum() <= plain[:2].sum()


def test_no_mask_at_all():
    found = generate_masks(random_sam(0), picture((96, 150)), 4, pred_iou_thresh=99, crop_layers=0)
    assert len(found) == 0 and found.size == (96, 150)


def test_an_image_must_be_an_image():
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match='uint8'): generate_masks(None, bad)


def test_slic_levels_cover_the_image_and_follow_its_edges():
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 40:] = 200
    m = slic_masks(image, scales=(60, 24, 6))
    assert all((m[m.level == l].dense().sum(0) == 1).all() for l in (0, 1, 2))
    counts = [(m.level == l).sum() for l in (0, 1, 2)]
    assert counts[0] > counts[1] > counts[2] > 1
    left = m.means((np.arange(96)[None, None] < 40).astype(np.float32).repeat(64, 1))[0]
    assert np.minimum(left, 1 - left).max() == 0                     # no piece crosses the only edge

def test_felzenszwalb_levels_cover_the_image():
    image = picture((96, 150))
    m = felzenszwalb_masks(image)
    assert set(m.level) == {0, 1, 2} and np.array_equal(m.dense().sum(0), np.full((96, 150), 3))
    assert np.all(np.diff(np.bincount(m.level)) <= 0)
    big = felzenszwalb_masks(cv2.resize(image, None, fx=2, fy=2))
    assert len(big) < 2 * len(m)


def test_true_class_of_a_mask():
    truth = np.array([[0, 0, 7, 7], [0, 7, 7, 255]], np.uint8)
    m = join(label_masks(np.array([[1, 1, 2, 2], [1, 1, 2, 3]])))
    labels, purity = oracle_labels(m, truth)
    assert labels.tolist() == [0, 7, 0] and purity.tolist() == pytest.approx([0.75, 1, 0])
    assert oracle_labels(m, np.full((2, 4), 255))[0].tolist() == [0, 0, 0]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='levels'): Masks.from_dense(np.ones((2, 3, 3)), level=[1])
    with pytest.raises(ValueError, match='shape'): Masks.from_dense(np.ones((3, 3)))
    with pytest.raises(ValueError, match='resize'): Masks.from_dense(np.ones((1, 3, 3))).means(np.ones((1, 4, 4)))
