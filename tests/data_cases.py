"""Small data sets on disk that the data tests share, and what a message must look like."""

import io
import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from fmwsss.data.label_maps import save_label
from fmwsss.data.coco_names import COCO_CLASSES, COCO_IDS

NAMES = ("2007_000032", "2007_000039", "2007_000063")


def picture(height=24, width=32, seed=0):
    "Noise: (height, width, 3) uint8."
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mask_of(number):
    "A label map (24, 32) with class `number`, person and a row to ignore."
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 4:20] = number + 1
    mask[12:20, 4:20] = 15
    mask[3, :] = 255
    return mask


def voc(root, names=NAMES, split="train"):
    "A folder in VOC's layout with a picture and a mask for each name."
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(seed=number)).save(root / f"JPEGImages/{name}.jpg")
        save_label(root / f"SegmentationClass/{name}.png", mask_of(number))
    lines = "".join(f"{name}\n" for name in names)
    (root / f"ImageSets/Segmentation/{split}.txt").write_text(lines, encoding="utf-8")
    return root


ROWS = "image,labels\ncats/1.png,tabby\n2,sofa;tabby\nn 3.jpg,\n"


def folder(root, rows=ROWS, encoding="utf-8", photos=("cats/1.png", "2.png", "n 3.jpg")):
    "Own photos with a table."
    for name in photos:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture()).save(root / name)
    (root / "labels.csv").write_bytes(rows.encode(encoding))
    return root


def box(x, y, width, height):
    "A polygon of COCO."
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def entry(image, category, shape, area, crowd=0):
    "An annotation of COCO."
    return dict(
        image_id=image, category_id=category, segmentation=shape, area=area, iscrowd=crowd
    )


def coco(root, split="val2014", spoil=None):
    "Two photos of COCO with three objects and one; `spoil` changes the annotations."
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir()
    names = {n: f"COCO_{split}_{n:012d}.jpg" for n in (7, 42)}
    for number, name in names.items():
        Image.fromarray(picture(30, 40, number)).save(root / split / name)
    content = dict(
        categories=[dict(id=i, name=n) for i, n in zip(COCO_IDS, COCO_CLASSES)][::-1],
        images=[dict(id=n, file_name=names[n], height=30, width=40) for n in (42, 7)],
        annotations=[
            entry(42, 90, box(4, 4, 4, 4), 16),
            entry(42, 1, box(0, 0, 20, 20), 400),
            entry(42, 13, dict(size=[30, 40], counts=[0, 30 * 2, 30 * 38]), 60, 1),
            entry(7, 44, [[1, 1, 2]] + box(10, 10, 5, 5), 25),
        ],
    )
    content["images"].append(dict(id=9, file_name="empty.jpg", height=1, width=1))
    if spoil:
        spoil(content)
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def one_line(error, *parts):
    "The message of an error is one line and names these parts."
    message = str(getattr(error, "value", error))
    assert "\n" not in message and len(message) < 600, message
    for part in parts:
        assert str(part) in message, (part, message)
    return message


def told(make):
    "make() -> (its result, the lines of all warnings)."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = make()
    return result, [str(warning.message) for warning in caught]


# ---- files that no library writes


def chunk(kind, content=b""):
    "A block of a PNG."
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def packed(values, bits):
    "Rows of values with 1, 2, 4, 8, 12 or 16 bits each: list of bytes."
    wide = values.astype(">u2").view(np.uint8).reshape(*values.shape, 2)
    rows = np.unpackbits(wide, axis=2)[:, :, 16 - bits :].reshape(len(values), -1)
    return [np.packbits(row).tobytes() for row in rows]


def png(values, bits, extra=b""):
    "A grey PNG with so many bits a pixel, and other blocks."
    height, width = values.shape
    body = b"".join(b"\0" + row for row in packed(values, bits))
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(values, bits, photometric=1, kind=1, **tags):
    "A grey TIFF with so many bits a pixel; kind: 1 unsigned, 2 signed, 3 float."
    height, width = values.shape
    if bits in (1, 2, 4, 12):
        data = b"".join(packed(values, bits))
    else:
        letter = {1: "u", 2: "i", 3: "f"}[kind]
        data = values.astype(f"<{letter}{bits // 8}").tobytes()
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    entries |= {279: len(data), 273: 0, 339: kind} | tags
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start
    body = struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        body += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + data


def jpeg(array, quality=95, **more):
    "The bytes of a JPEG."
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=quality, **more)
    return file.getvalue()


def with_exif(array, note, suffix):
    "The bytes of a picture with a turn note, in a format by its ending."
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = note
    if suffix in (".heic", ".heif"):
        import pillow_heif

        made = pillow_heif.from_pillow(Image.fromarray(array))
        made.save(file, quality=-1, exif=exif.tobytes(), format="HEIF")
        return file.getvalue()
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    exact = {".jpg": dict(quality=98, subsampling=0), ".webp": dict(lossless=True)}
    exact |= {".avif": dict(quality=100)}
    kind = formats.get(suffix, suffix[1:].upper())
    Image.fromarray(array).save(file, kind, exif=exif, **exact.get(suffix, {}))
    return file.getvalue()


def write(path, content):
    "Write bytes and return the path."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
