"""Label maps keep their numbers, however they were saved; what holds no labels is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, PngImagePlugin

from data_cases import one_line, picture, png, tiff, write
from fmwsss.data.formats import turned_array
from fmwsss.data.label_maps import load_label, open_label, read_mask, restore, save_label
from fmwsss.files.errors import DataError, MissingData
from fmwsss.method.labels import palette

FEW = settings(max_examples=40, deadline=None, database=None, derandomize=True)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
maps = arrays(np.uint8, sizes)
few_labels = arrays(np.uint8, sizes, elements=st.sampled_from([0, 1, 5, 20, 255]))


# ---- written and read


@FEW
@given(label=maps)
def test_label_maps_survive_storage(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    save_label(path, label)
    assert np.array_equal(load_label(path), label) and load_label(path).dtype == np.uint8
    assert Image.open(path).mode == "P" and [p.name for p in path.parent.iterdir()] == ["mask.png"]


@FEW
@given(label=arrays(st.sampled_from([np.uint16, np.int64]), sizes, elements=st.integers(0, 32767)))
@pytest.mark.fault
def test_numbers_never_wrap(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    save_label(path, label)
    assert np.array_equal(load_label(path), label)
    assert Image.open(path).mode == ("P" if label.max() <= 255 else "I;16")


def test_the_largest_labels(tmp_path):
    label = np.array([[0, 254, 255, 256, 65535]])
    save_label(tmp_path / "x.png", label)
    assert np.array_equal(load_label(tmp_path / "x.png"), label)
    save_label(tmp_path / "x.png", np.array([[True, False]]))
    assert load_label(tmp_path / "x.png").tolist() == [[1, 0]]


WRONG = [
    *[np.zeros((2, 2, 3), int), np.full((2, 2), 65536), np.full((2, 2), -1)],
    *[np.zeros((2, 2)), np.full((2, 2), 1.5), np.array([["a", "b"]])],
]


@pytest.mark.parametrize("label", WRONG)
@pytest.mark.fault
def test_what_is_no_label_map_is_not_written(tmp_path, label):
    with pytest.raises(ValueError, match="save_label"):
        save_label(tmp_path / "mask.png", label)
    assert not list(tmp_path.iterdir())


# ---- grey values of any depth


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.fault
def test_grey_pngs_of_any_depth_keep_their_numbers(tmp_path, bits):
    labels = np.arange(48).reshape(6, 8) % 2**bits
    path = write(tmp_path / "x.png", png(labels, bits))
    assert np.array_equal(load_label(path), labels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.fault
def test_grey_tiffs_of_any_depth_keep_their_numbers(tmp_path, bits, photometric):
    labels = np.arange(48).reshape(6, 8) % 2**bits
    path = write(tmp_path / "x.tif", tiff(labels, bits, photometric))
    if (bits, photometric) == (12, 0):
        with pytest.raises(DataError):
            load_label(path)
    else:
        assert np.array_equal(load_label(path), labels)


@pytest.mark.parametrize("bits, kind", [(8, 2), (16, 2), (32, 2), (32, 3), (64, 3)])
@pytest.mark.fault
def test_signed_numbers_and_floats_are_refused(tmp_path, bits, kind):
    path = write(tmp_path / "x.tif", tiff(np.arange(48).reshape(6, 8) - 3, bits, kind=kind))
    with pytest.raises(DataError) as error:
        load_label(path)
    one_line(error, "x.tif")


# ---- palettes and colours


@FEW
@given(label=few_labels, seed=st.integers(0, 1000))
@pytest.mark.fault
def test_permuted_palettes_are_read_by_colour(tmp_path_factory, label, seed):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    order = np.random.default_rng(seed).permutation(256)
    saved = Image.fromarray(np.argsort(order).astype(np.uint8)[label]).convert("P")
    saved.putpalette(palette()[order].ravel().tolist())
    saved.save(path)
    assert np.array_equal(load_label(path, 20), label)


@FEW
@given(label=few_labels)
@pytest.mark.fault
def test_palettes_of_the_colours_in_use_are_read_by_colour(tmp_path_factory, label):
    "Picture programs keep only the colours that occur, the most frequent first."
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    used, place, counts = np.unique(label, return_inverse=True, return_counts=True)
    rank = np.argsort(-counts, kind="stable")
    numbers = np.argsort(rank)[place.reshape(label.shape)].astype(np.uint8)
    saved = Image.fromarray(numbers).convert("P")
    saved.putpalette(palette()[used[rank]].ravel().tolist())
    saved.save(path)
    assert np.array_equal(load_label(path, 20), label)


@FEW
@given(label=few_labels, seed=st.integers(0, 1000))
def test_palettes_of_other_colours_are_paint(tmp_path_factory, label, seed):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    own = np.random.default_rng(seed).integers(1, 255, (256, 3)) | 1  # VOC's are even or 0
    saved = Image.fromarray(label).convert("P")
    saved.putpalette(own.ravel().tolist())
    saved.save(path)
    assert np.array_equal(load_label(path, 20), label)


@FEW
@given(label=maps)
def test_grey_palettes_hold_numbers(tmp_path_factory, label):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    saved = Image.fromarray(label).convert("P")
    saved.putpalette(np.repeat(np.arange(256), 3).tolist())
    saved.save(path)
    assert np.array_equal(load_label(path), label)


def test_own_colours_that_look_like_vocs_are_numbers_if_only_these_can_be_meant(tmp_path):
    numbers = np.array([[0, 1, 2, 1]], np.uint8)
    saved = Image.fromarray(numbers).convert("P")
    saved.putpalette(palette()[[0, 9, 12]].ravel().tolist())
    saved.save(tmp_path / "x.png")
    assert load_label(tmp_path / "x.png", 2).tolist() == numbers.tolist()  # 9 and 12 are no labels
    assert load_label(tmp_path / "x.png", 20).tolist() == [[0, 9, 12, 9]]


@FEW
@given(label=few_labels, mode=st.sampled_from(["RGB", "RGBA"]))
@pytest.mark.fault
def test_pictures_of_vocs_colours_are_read(tmp_path_factory, label, mode):
    path = tmp_path_factory.mktemp("labels") / "mask.png"
    Image.fromarray(palette()[label]).convert(mode).save(path)
    found, how = open_label(path)
    assert np.array_equal(found, label) and how == "colour"


def test_grey_pictures_with_three_channels_are_read(tmp_path):
    label = np.array([[0, 1, 2, 255]], np.uint8)
    Image.fromarray(np.stack([label] * 3, 2)).save(tmp_path / "x.png")
    assert load_label(tmp_path / "x.png").tolist() == label.tolist()


@pytest.mark.fault
def test_transparent_pixels_are_background_and_half_transparent_ones_refused(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (128, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert load_label(tmp_path / "x.png").tolist() == [[1, 1], [0, 0]]
    pixels[0, 0, 3] = 100
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with pytest.raises(DataError) as error:
        load_label(tmp_path / "x.png")
    one_line(error, "half transparent")


# ---- wrong files


@pytest.mark.fault
def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.png"):
        load_label(tmp_path / "missing.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="broken.png"):
        load_label(tmp_path / "broken.png")
    Image.fromarray(picture()).save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match="colour.png.*palette"):
        load_label(tmp_path / "colour.png")
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "ink.tif")
    with pytest.raises(ValueError, match="ink.tif.*CMYK"):
        load_label(tmp_path / "ink.tif")
    pages = [Image.new("L", (4, 4)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="pages.tif holds 2 pictures"):
        load_label(tmp_path / "pages.tif")


@pytest.mark.fault
def test_a_label_map_with_a_long_text_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 1_100_000, zip=True)
    Image.fromarray(np.full((8, 8), 3, np.uint8)).save(tmp_path / "x.png", pnginfo=info)
    assert (load_label(tmp_path / "x.png") == 3).all()


@pytest.mark.parametrize("note", range(1, 9))
@pytest.mark.fault
def test_label_maps_with_a_turn_note_are_turned(tmp_path, note):
    label, exif = np.arange(12, dtype=np.uint8).reshape(3, 4), Image.Exif()
    exif[0x0112] = note
    Image.fromarray(label).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(load_label(tmp_path / "x.png"), turned_array(label, note))


# ---- as a mask


@pytest.mark.fault
def test_masks_with_other_sizes_and_labels(tmp_path):
    path = tmp_path / "mask.png"
    save_label(path, np.full((10, 32), 21))
    with pytest.raises(DataError) as error:
        read_mask(path, 30, (24, 32))
    one_line(error, path, "32 x 10", "32 x 24")
    with pytest.raises(DataError) as error:
        read_mask(path, 20)
    one_line(error, path, "[21]", "1..20", "mask_values")
    with pytest.raises(MissingData):
        read_mask(tmp_path / "no.png", 20)


def test_masks_with_other_values(tmp_path):
    path = tmp_path / "mask.png"
    save_label(path, np.array([[0, 255, 7]]))
    assert read_mask(path, 2, values={255: 1, 7: 2}).tolist() == [[0, 1, 2]]
    assert read_mask(path, 7, values={0: 255, 255: 0}).tolist() == [[255, 0, 7]]  # exchanged
    save_label(path, np.array([[0, 300, 65535]]))
    assert read_mask(path, 300).tolist() == [[0, 300, 255]]


@pytest.mark.parametrize("size", [(48, 64), (12, 16)])
@pytest.mark.fault
def test_smoothed_masks_are_called_that(tmp_path, size):
    grey = Image.fromarray(np.linspace(0, 255, 24 * 32).astype(np.uint8).reshape(24, 32))
    grey.resize(size[::-1], Image.BICUBIC).save(tmp_path / "x.png")
    with pytest.raises(DataError) as error:
        read_mask(tmp_path / "x.png", 3)
    one_line(error, "x.png", "smoothed", "PNG")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.fault
def test_grey_masks_with_transparency_are_read(tmp_path, mode):
    label = np.zeros((24, 32), np.uint8)
    label[4:12, 4:20] = 2
    plain = Image.fromarray(label)
    opaque = Image.new("L", plain.size, 255)
    bands = [plain, opaque] if mode == "LA" else [plain, plain, plain, opaque]
    Image.merge(mode, bands).save(tmp_path / "x.png")
    assert (load_label(tmp_path / "x.png") == label).all()
    bands[-1] = Image.fromarray(np.where(label > 0, 255, 0).astype(np.uint8))
    Image.merge(mode, bands).save(tmp_path / "x.png")
    assert (load_label(tmp_path / "x.png") == label).all()


# ---- in another size


@FEW
@given(label=maps, size=sizes)
def test_no_new_labels_appear_in_another_size(label, size):
    found = restore(label, size)
    assert found.shape == size and found.dtype == label.dtype
    assert set(np.unique(found)) <= set(np.unique(label))
    assert np.array_equal(restore(label, label.shape), label)


@FEW
@given(label=maps, times=st.integers(2, 5))
def test_to_a_multiple_and_back_changes_nothing(label, times):
    large = restore(label, (label.shape[0] * times, label.shape[1] * times))
    assert np.array_equal(large, np.repeat(np.repeat(label, times, 0), times, 1))
    assert np.array_equal(restore(large, label.shape), label)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, bool])
def test_every_kind_of_number_is_restored(dtype):
    label = np.arange(6).reshape(2, 3).astype(dtype)
    assert restore(label, (4, 6)).dtype == dtype and restore(label, (4, 6))[0, 0] == label[0, 0]
