"""Files that are not what their names say: called what they are, wherever they stand."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from small import small_clip

from data_cases import folder, one_line, picture, write
from fmwsss.data.folder import FolderDataset
from fmwsss.data.images import image_size, read_image
from fmwsss.data.label_maps import load_label
from fmwsss.files.contents import contents_of, looks_like
from fmwsss.files.errors import DataError
from fmwsss.files.stamps import Stamps
from fmwsss.models.weights import read_state_dict

pytestmark = pytest.mark.fault
OTHERS = {
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
    "web page": b"\n <!DOCTYPE html><html><title>Sign in</title></html>",
    "a PDF": b"%PDF-1.4\n",
    "gzip": b"\x1f\x8b\x08\0",
    "nothing but zeros": bytes(4096),
    "empty": b"",
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp"])
def test_a_photo_that_is_another_file_is_called_that(tmp_path, kind, name):
    path = write(tmp_path / name, OTHERS[kind])
    for read in (read_image, image_size, load_label):
        with pytest.raises(DataError) as error:
            read(path)
        one_line(error, path, kind)


@pytest.mark.parametrize("kind", [k for k in OTHERS if k != "empty"])
@pytest.mark.parametrize("name", ["clip.pt", "clip.safetensors", "clip.pth", "clip.bin"])
def test_weights_that_are_another_file_are_called_that(tmp_path, kind, name):
    with pytest.raises(DataError) as error:
        read_state_dict(write(tmp_path / name, OTHERS[kind]))
    one_line(error, name, "not a readable weights file", kind)


@pytest.mark.parametrize("name", ["clip.pt", "clip.pth", "clip.bin", "clip"])
def test_safetensors_are_read_whatever_their_name(tmp_path, name):
    state = small_clip().state_dict()
    save_file(state, tmp_path / name)
    assert read_state_dict(tmp_path / name).keys() == state.keys()


def test_a_zip_of_other_things_is_no_weights_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("readme.txt", "weights are elsewhere")
    with pytest.raises(DataError) as error:
        read_state_dict(tmp_path / "clip.pt")
    one_line(error, "clip.pt", "not a readable weights file")


@pytest.mark.parametrize("make", ["pipe", "device", "socket"])
def test_what_would_be_read_for_ever_is_refused(tmp_path, make):
    path = tmp_path / "c.png"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "device":
        path.symlink_to("/dev/zero")
    else:
        import socket

        place = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        place.bind(path.name)
        os.chdir(here)
    for read in (read_image, load_label):
        with pytest.raises(DataError) as error:
            read(path)
        one_line(error, path)
    assert Stamps().stamp(path) == "unreadable" and contents_of(path) is None


def test_a_pipe_among_photos_costs_one_photo(tmp_path):
    os.mkfifo(folder(tmp_path, "image,labels\n2,sofa\nc.png,tabby\n") / "c.png")
    data = FolderDataset(tmp_path)
    assert data.ids == ["2", "c"] and data.image(0).shape == (24, 32, 3) and data.fingerprint()
    with pytest.raises(DataError, match="take it off the list"):
        data.image(1)


def test_pictures_and_texts_are_not_called_something_else(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "x.webp")
    np.save(tmp_path / "x.npy", np.arange(3))
    assert contents_of(tmp_path / "x.webp") is None and looks_like(b"image,labels") is None
    assert looks_like(b"a,b\n<html>") is None
