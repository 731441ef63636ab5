"""One image of any kind: upright, in RGB, at its depth, or one line."""

import builtins
import io
import struct
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from data_cases import chunk, jpeg, one_line, picture, png, tiff, told, with_exif, write
from fmwsss.data.formats import TURNS, bare_file, exif_block, exif_turn, turned_array
from fmwsss.data.images import image_size, read_image, resize, size_within
from fmwsss.files.errors import DataError, MissingData

RAMP = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (24, 1))
FEW = settings(max_examples=60, deadline=None, database=None, derandomize=True)


# ---- modes and depths

MODES = [
    *[("1", "png"), ("L", "png"), ("P", "gif"), ("LA", "png"), ("RGBA", "png"), ("RGB", "webp")],
    *[("CMYK", "jpg"), ("YCbCr", "jpg"), ("RGB", "bmp"), ("CMYK", "tif"), ("RGB", "avif")],
]


@pytest.mark.parametrize("mode, suffix", MODES)
@pytest.mark.fault
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    grey = "L" if mode in ("P", "LA") else "RGB"
    Image.fromarray(np.stack([RAMP] * 3, 2)).convert(grey).convert(mode).save(
        tmp_path / f"x.{suffix}"
    )
    read = read_image(tmp_path / f"x.{suffix}")
    assert read.shape == (24, 32, 3) and read.dtype == np.uint8
    assert abs(read.mean() - RAMP.mean()) < 4
    assert mode == "1" or np.abs(read.astype(int).mean(2) - RAMP).mean() < 4


def at_depth(make, bits):
    "A ramp of so many bits, written by `make`."
    top = 2**bits - 1
    values = (RAMP / 255 * top).round().astype(np.uint16)
    return make(values, bits), (values / top * 255).round().astype(int)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.fault
def test_png_of_any_depth_is_read_at_its_depth(tmp_path, bits):
    content, expected = at_depth(png, bits)
    read = read_image(write(tmp_path / "x.png", content))
    assert np.abs(read[..., 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.fault
def test_tiff_of_any_depth_is_read_at_its_depth(tmp_path, bits, white_is_zero):
    content, expected = at_depth(lambda v, b: tiff(v, b, int(not white_is_zero)), bits)
    path = write(tmp_path / "x.tif", content)
    if bits == 12 and white_is_zero:
        with pytest.raises(DataError) as error:
            read_image(path)
        one_line(error, path)
        return
    read = read_image(path)[..., 0].astype(int)
    assert np.abs(read - (255 - expected if white_is_zero else expected)).max() <= 1


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.fault
def test_few_bits_in_sixteen_are_stretched_and_told(tmp_path, bits):
    values = (RAMP / 255 * (2**bits - 1)).astype(np.uint16)
    path = tmp_path / "microscope.png"
    Image.fromarray(values).save(path)
    read, lines = told(lambda: read_image(path))
    assert np.abs(read[..., 0].astype(int) - RAMP).max() <= 1
    one_line(lines[0], "microscope.png", f"{bits} of its bits")


@pytest.mark.parametrize(
    "values, words",
    [
        (np.linspace(0, 3.7, 768).reshape(24, 32), "from 0 to 3.7"),
        (np.linspace(-1, 1, 768).reshape(24, 32), "from -1 to 1"),
        (np.linspace(0, 5000, 768).reshape(24, 32), "0..1 or 0..255"),
        (np.full((24, 32), np.nan), "nan"),
        (np.full((24, 32), np.inf), "inf"),
    ],
)
@pytest.mark.fault
def test_floats_without_a_scale_are_refused(tmp_path, values, words):
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "x.tif")
    one_line(error, "x.tif", words)


@pytest.mark.parametrize("top", [1.0, 255.0, 200.0])
@pytest.mark.fault
def test_floats_on_a_known_scale_are_read(tmp_path, top):
    Image.fromarray((RAMP / 255 * top).astype(np.float32)).save(tmp_path / "x.tif")
    expected = RAMP if top != 200 else RAMP * (200 / 255)
    assert np.abs(read_image(tmp_path / "x.tif")[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("bits, kind", [(8, 2), (16, 2), (32, 2), (64, 3), (16, 3)])
@pytest.mark.fault
def test_signed_and_odd_floats_are_refused(tmp_path, bits, kind):
    path = write(tmp_path / "x.tif", tiff(RAMP.astype(float) - 99, bits, kind=kind))
    with pytest.raises(DataError) as error:
        read_image(path)
    one_line(error, "x.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.fault
def test_twelve_bits_in_colours_of_sixteen_are_refused(tmp_path, planar):
    import tifffile

    colours = np.full((24, 32, 3), 4095, np.uint16)
    if planar == "separate":
        colours = colours.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "x.tif", colours, photometric="rgb", planarconfig=planar)
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "x.tif")
    one_line(error, "x.tif", "16", "8-bit PNG")


@pytest.mark.fault
def test_colours_of_sixteen_bits_are_read(tmp_path):
    import tifffile

    colours = picture().astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "x.tif", colours, photometric="rgb")
    assert (read_image(tmp_path / "x.tif") == picture()).all()


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.zeros((10, 10, 4), np.uint8)
    pixels[:5, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    read = read_image(tmp_path / "x.png")
    assert read[0, 0, 0] == 0 and read[9, 0, 0] == 255


@pytest.mark.fault
def test_a_picture_that_is_transparent_everywhere_is_told(tmp_path):
    pixels = np.dstack([picture(), np.zeros((24, 32), np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "x.png")
    read, lines = told(lambda: read_image(tmp_path / "x.png"))
    assert (read == 255).all()
    one_line(lines[0], "x.png", "transparent everywhere")


# ---- which way is up

SUFFIXES = [".jpg", ".png", ".tif", ".webp", ".avif", ".heic"]


@pytest.mark.parametrize("note", range(1, 9))
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.fault
def test_every_turn_note_is_followed(tmp_path, note, suffix):
    stored = np.repeat(np.repeat(picture(3, 4), 8, 0), 8, 1)  # blocks survive compression
    path = write(tmp_path / f"x{suffix}", with_exif(stored, note, suffix))
    expected = turned_array(stored, note)
    read = read_image(path)
    assert read.shape == expected.shape and image_size(path) == expected.shape[:2]
    assert np.abs(read.astype(int) - expected).mean() < 12
    if suffix in (".png", ".tif", ".webp"):
        assert (read == expected).all()


@pytest.mark.parametrize("note", [0, 9, 77, "6", 6.5])
@pytest.mark.fault
def test_turn_notes_without_meaning_play_no_part(tmp_path, note):
    exif = Image.Exif()
    exif[0x0112] = note
    try:
        Image.fromarray(picture()).save(tmp_path / "x.png", exif=exif)
    except (struct.error, TypeError, ValueError):
        return  # Pillow does not write it at all
    assert (read_image(tmp_path / "x.png") == picture()).all()


@FEW
@given(st.binary(max_size=80))
def test_any_bytes_of_exif_are_read_by_hand(block):
    assert exif_turn(block) in {1, *TURNS}


@pytest.mark.parametrize("note", range(2, 9))
def test_own_blocks_of_exif_are_read(note):
    assert exif_turn(exif_block(note)) == note
    exif = Image.Exif()
    exif[0x0112] = note
    assert exif_turn(exif.tobytes().removeprefix(b"Exif\0\0")) == note


# ---- pixels that only look damaged


def wrong_type_exif(note):
    "A block of EXIF whose camera name has the type of a fraction."
    extra = 8 + 2 + 24 + 4
    head = b"II*\0" + struct.pack("<IH", 8, 2)
    camera = struct.pack("<HHII", 0x10F, 5, 1, extra)
    turn = struct.pack("<HHIHH", 0x112, 3, 1, note, 0)
    return head + camera + turn + bytes(4) + struct.pack("<II", 1, 2)


def with_block(data, marker, block):
    "A JPEG with one more block in front."
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(block) + 2) + block + data[2:]


ODD_BLOCKS = {
    "a tag of the wrong type": (0xE1, b"Exif\0\0" + wrong_type_exif(6)),
    "exif cut off": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff"),
    "exif of zeros": (0xE1, b"Exif\0\0" + bytes(40)),
    "exif of noise": (0xE1, b"Exif\0\0II*\0" + bytes(range(250))),
    "multi-picture cut off": (0xE2, b"MPF\0II*\0\x08\0\0\0\x01"),
    "a broken colour profile": (0xE2, b"ICC_PROFILE\0\1\1" + bytes(9)),
    "photoshop cut off": (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0"),
    "xmp that is no xml": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta <<<"),
}


@pytest.mark.parametrize("name", ODD_BLOCKS)
@pytest.mark.fault
def test_jpegs_with_odd_notes_are_read(tmp_path, name):
    plain = jpeg(picture())
    path = write(tmp_path / "x.jpg", with_block(plain, *ODD_BLOCKS[name]))
    expected = np.array(Image.open(io.BytesIO(plain)))
    read, lines = told(lambda: read_image(path))
    if name == "a tag of the wrong type":
        expected = turned_array(expected, 6)
    assert (read == expected).all() and not lines


@FEW
@given(marker=st.integers(0xE0, 0xEF), block=st.binary(max_size=200))
@pytest.mark.fault
def test_jpegs_with_any_notes_are_read_or_refused(tmp_path_factory, marker, block):
    path = tmp_path_factory.mktemp("j") / "x.jpg"
    path.write_bytes(with_block(jpeg(picture()), marker, block))
    try:
        assert told(lambda: read_image(path))[0].shape[2] == 3
    except DataError as error:
        one_line(error, path)


def long_text(kind):
    "A block of text in a PNG that is more than Pillow's guard allows."
    info = PngImagePlugin.PngInfo()
    if kind == "itxt":
        info.add_itxt("workflow", "x" * 1_100_000, zip=True)
    else:
        info.add_text("workflow", "x" * 1_100_000, zip=kind == "ztxt")
    return info


@pytest.mark.parametrize("kind", ["ztxt", "itxt", "text"])
@pytest.mark.fault
def test_pngs_with_long_texts_are_read(tmp_path, kind):
    Image.fromarray(picture()).save(tmp_path / "x.png", pnginfo=long_text(kind))
    assert (read_image(tmp_path / "x.png") == picture()).all()


BROKEN_CHUNKS = {
    "text with a wrong checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
    "a profile of noise": chunk(b"iCCP", b"name\0\0" + bytes(range(50))),
    "text that is no zip": chunk(b"zTXt", b"a\0\0" + bytes(range(50))),
    "exif of noise": chunk(b"eXIf", bytes(range(50))),
    "sizes of zero": chunk(b"pHYs", bytes(3)),
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.fault
def test_pngs_with_broken_notes_are_read(tmp_path, name, place):
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "PNG")
    data = file.getvalue()
    cut = 33 if place == "before" else len(data) - 12  # behind IHDR, or before IEND
    path = write(tmp_path / "x.png", data[:cut] + BROKEN_CHUNKS[name] + data[cut:])
    assert (read_image(path) == picture()).all()


@pytest.mark.fault
def test_a_jpeg_without_its_end_mark_is_read_if_no_pixel_is_missing(tmp_path):
    noise = jpeg(picture(64, 64))
    expected = np.array(Image.open(io.BytesIO(noise)))
    assert (read_image(write(tmp_path / "x.jpg", noise[:-2])) == expected).all()
    for cut in (40, 200, 1000):
        with pytest.raises(DataError):
            read_image(write(tmp_path / "x.jpg", noise[:-cut]))


@pytest.mark.fault
def test_a_png_without_its_last_block_is_read(tmp_path):
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "PNG")
    path = write(tmp_path / "x.png", file.getvalue()[:-12])
    assert (read_image(path) == picture()).all()


def test_the_turn_note_survives_without_the_other_notes():
    for suffix in (".jpg", ".png"):
        bare = bare_file(with_exif(picture(), 6, suffix))
        assert Image.open(io.BytesIO(bare)).getexif()[0x0112] == 6


# ---- damaged


def truncated(path):
    Image.fromarray(picture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:5000])


def wrong_bits(path):
    Image.fromarray(picture(100, 100)).save(path)
    content = bytearray(path.read_bytes())
    content[60:900] = bytes(840)
    path.write_bytes(content)


SPOILERS = [
    truncated,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("<html>not found</html>"),
    lambda path: path.mkdir(),
]


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp", "avif"])
@pytest.mark.parametrize("spoil", SPOILERS)
@pytest.mark.fault
def test_damaged_images(tmp_path, suffix, spoil):
    path = tmp_path / f"x.{suffix}"
    spoil(path)
    with pytest.raises(DataError) as error:
        read_image(path)
    one_line(error, path)


@pytest.mark.fault
def test_png_with_wrong_bits(tmp_path):
    wrong_bits(tmp_path / "x.png")
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "x.png")
    one_line(error, "x.png", "damaged")


@pytest.mark.fault
def test_a_missing_image(tmp_path):
    with pytest.raises(MissingData) as error:
        read_image(tmp_path / "no.jpg")
    one_line(error, "no.jpg", "does not exist")


@pytest.mark.parametrize("size", [(0, 24), (24, 0), (1, 1), (7, 100), (100, 7)])
@pytest.mark.fault
def test_images_without_pixels_and_tiny_ones(tmp_path, size):
    width, height = size
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", b"x\x9c\x03\0\0\0\0\x01") + chunk(b"IEND")
    path = write(tmp_path / "dot.png", b"\x89PNG\r\n\x1a\n" + body)
    for read in (read_image, image_size):
        with pytest.raises(DataError) as error:
            read(path)
        one_line(error, "dot.png")


@pytest.mark.fault
def test_huge_images(tmp_path):
    Image.new("1", (30000, 10000)).save(tmp_path / "bomb.png")  # 300 million pixels in a few kB
    Image.new("1", (10000, 10000)).save(tmp_path / "big.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as error:
            read_image(tmp_path / "bomb.png")
        one_line(error, "bomb.png", "huge", "scale it down")
        with pytest.raises(DataError) as error:
            read_image(tmp_path / "big.png")
        one_line(error, "big.png", "10000 x 10000")
    with pytest.raises(DataError):
        read_image(tmp_path / "big.png", max_pixels=1000)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
@pytest.mark.fault
def test_of_several_pictures_the_first_is_read_and_told(tmp_path, suffix):
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (10, 200)]
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    read, lines = told(lambda: read_image(path))
    assert abs(int(read.mean()) - 10) < 3 and len(lines) == 1
    one_line(lines[0], path, "only the first")
    frames[0].save(path)
    assert told(lambda: read_image(path))[1] == []


# ---- phones


@pytest.mark.fault
def test_heic_without_its_library_is_called_that(tmp_path, monkeypatch):
    path = write(tmp_path / "IMG_2.HEIC", with_exif(picture(), 1, ".heic"))
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pillow_heif"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for loaded in [name for name in sys.modules if name.startswith("pillow_heif")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(DataError) as error:
        read_image(path)
    one_line(error, "IMG_2.HEIC", "HEIC", "pip install pillow-heif")


@pytest.mark.fault
def test_heic_with_its_library_is_read_or_refused(tmp_path):
    made = with_exif(picture(), 1, ".heic")
    assert read_image(write(tmp_path / "x.heic", made)).shape == (24, 32, 3)
    assert read_image(write(tmp_path / "called.jpg", made)).shape == (24, 32, 3)
    for content in (made[: len(made) // 2], b"\0\0\0\x18ftypheic" + bytes(200)):
        with pytest.raises(DataError) as error:
            read_image(write(tmp_path / "x.heic", content))
        one_line(error, "x.heic")


# ---- sizes


@FEW
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 800))
def test_sizes_within_a_longest_side(height, width, longest):
    found = size_within((height, width), longest)
    assert max(found) <= max(longest, 1) or max(height, width) <= longest
    assert min(found) >= 1 and size_within((height, width), None) == (height, width)
    if max(height, width) <= longest:
        assert found == (height, width)


def test_resize_keeps_an_image_of_that_size():
    image = picture()
    assert resize(image, 24, 32) is image and resize(image, 12, 40).shape == (12, 40, 3)
