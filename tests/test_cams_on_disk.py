"""CAM files of other programs: every form, safely, with their class numbers understood."""
import pickle

import numpy as np
import pytest
import torch

from fmwsss.data.cams import (
    Cams,
    class_maps,
    first_number,
    lies_across,
    maps_of_size,
    read_cams,
)
from fmwsss.files.errors import DataError, MissingData, SettingsError

MAPS = np.random.default_rng(0).random((2, 4, 6), dtype=np.float32)
KEYS = np.array([3, 14])


def as_tensors(x):
    return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in x.items()}


FORMS = {
    "ours": dict(keys=KEYS, cam=MAPS),
    "irn": dict(keys=KEYS, cam=MAPS[:, ::2, ::2], high_res=MAPS),
    "irn tensors": as_tensors(dict(keys=KEYS, cam=MAPS[:, ::2, ::2], high_res=MAPS)),
    "clip-es": dict(
        keys=KEYS,
        cam=MAPS[:, ::2],
        highres=MAPS[:, 1:],
        attn_highres=MAPS.astype("f2"),
    ),
    "clip-es list": dict(keys=KEYS, cam=list(MAPS)),
    "psa": {3: MAPS[0], 14: MAPS[1]},
    "psa numpy keys": {np.int64(14): MAPS[1], np.int64(3): MAPS[0]},
}


@pytest.mark.parametrize("form", FORMS)
def test_dictionaries(tmp_path, form):
    np.save(tmp_path / "photo.npy", FORMS[form])
    cams = read_cams(tmp_path / "photo.npy")
    assert cams.keys.tolist() == [3, 14] and cams.maps.dtype == np.float32
    np.testing.assert_allclose(cams.maps, MAPS, atol=1e-3)


def test_npz_and_fields(tmp_path):
    np.savez(tmp_path / "photo.npz", keys=KEYS, cam=MAPS.astype(np.float16))
    np.testing.assert_allclose(read_cams(tmp_path / "photo.npz").maps, MAPS, atol=1e-3)
    np.save(tmp_path / "irn.npy", FORMS["irn"])
    assert read_cams(tmp_path / "irn.npy", "cam").maps.shape == (2, 2, 3)
    with pytest.raises(DataError, match="no map 'logits'"):
        read_cams(tmp_path / "irn.npy", "logits")


class Evil:
    "A pickle of this would make a file when it is opened."

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def evil_array(path):
    "Evil inside an npy file."
    holder = np.empty((), object)
    holder[()] = {3: Evil(path)}
    return holder


def test_a_pickle_cannot_run_anything(tmp_path):
    np.save(tmp_path / "photo.npy", evil_array(tmp_path / "made"), allow_pickle=True)
    with pytest.raises(DataError, match="open: only arrays") as error:
        read_cams(tmp_path / "photo.npy")
    assert not (tmp_path / "made").exists() and "\n" not in str(error.value)


def test_a_tensor_cannot_hide_anything(tmp_path):
    class Storage:
        def __reduce__(self):
            import io

            file = io.BytesIO()
            torch.save(Evil(tmp_path / "made"), file)
            return torch.storage._load_from_bytes, (file.getvalue(),)

    holder = np.empty((), object)
    holder[()] = {3: Storage()}
    np.save(tmp_path / "photo.npy", holder, allow_pickle=True)
    with pytest.raises(DataError):
        read_cams(tmp_path / "photo.npy")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "found, match",
    [
        (dict(keys=KEYS, cam=MAPS[:1]), "2 classes"),
        (dict(keys=np.array([3, 3]), cam=MAPS), "not classes"),
        (dict(keys=np.array([-1, 3]), cam=MAPS), "not classes"),
        (dict(keys=KEYS, cam=MAPS * np.nan), "NaN"),
        ({3: MAPS[0], 14: MAPS[1, :2]}, "cannot be read"),
        (dict(keys=KEYS), "no map"),
    ],
)
def test_what_cannot_be_right_is_told(tmp_path, found, match):
    np.save(tmp_path / "photo.npy", found)
    with pytest.raises(DataError, match=match) as error:
        read_cams(tmp_path / "photo.npy")
    assert "photo.npy" in str(error.value) and "\n" not in str(error.value)


def test_broken_and_missing_files(tmp_path):
    (tmp_path / "photo.npy").write_bytes(b"\x93NUMPY\x01\x00nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_cams(tmp_path / "photo.npy")
    np.save(tmp_path / "cut.npy", FORMS["irn"])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-40])
    with pytest.raises(DataError):
        read_cams(tmp_path / "cut.npy")
    with pytest.raises(MissingData):
        read_cams(tmp_path / "none.npy")
    (tmp_path / "list.npy").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError):
        read_cams(tmp_path / "list.npy")


def some(*keys):
    return Cams(np.random.default_rng(0).random((len(keys), 2, 2)), np.array(keys))


def test_numbers_are_told_apart():
    assert first_number([some(3), some(0, 5)], [[3], [0, 5]], 20) == 0
    assert first_number([some(4), some(1, 6)], [[3], [0, 5]], 20) == 1
    assert first_number([some(0, 4), some(0, 1, 6)], [[3], [0, 5]], 20) == 1
    assert first_number([some(20)], None, 20) == 1
    assert first_number([some(0, 3), some(7)], None, 20) == 0
    background = some(0, 3)
    background.maps[0] = 1 - background.maps[1]
    assert first_number([background], None, 20) == 1


def test_what_cannot_be_told_is_asked():
    with pytest.raises(SettingsError, match="--numbers 0 or --numbers 1"):
        first_number([some(3), some(5)], None, 20)
    with pytest.raises(DataError, match="class 25"):
        first_number([some(25)], None, 20)
    with pytest.raises(DataError, match="no photo"):
        first_number([some(3)], [[9]], 20)


def test_maps_of_the_classes_of_a_photo():
    maps, classes = class_maps(some(0, 4, 6), 1)
    assert classes.tolist() == [3, 5] and maps.shape == (2, 2, 2)
    maps, classes = class_maps(some(4), 1, present=[3, 8])
    assert classes.tolist() == [3, 8] and not maps[1].any()
    maps, classes = class_maps(some(0), 1)
    assert maps_of_size(maps, (3, 5)).shape == (0, 3, 5) and len(classes) == 0


@pytest.mark.fault
def test_numbers_as_texts_are_numbers_and_other_names_are_refused(tmp_path):
    np.save(tmp_path / "photo.npy", {"3": MAPS[0], "14": MAPS[1]})
    cams = read_cams(tmp_path / "photo.npy")
    assert cams.keys.tolist() == [3, 14] and (cams.maps == MAPS).all()
    for found in (dict(cam=MAPS), dict(dog=MAPS[0], cat=MAPS[1]), {True: MAPS[0]}):
        np.save(tmp_path / "photo.npy", found)
        with pytest.raises(DataError, match="neither class numbers nor 'keys'"):
            read_cams(tmp_path / "photo.npy")
    np.save(tmp_path / "photo.npy", {})
    assert len(read_cams(tmp_path / "photo.npy").maps) == 0


@pytest.mark.parametrize("size, across", [((6, 4), True), ((4, 6), False), ((5, 5), False)])
def test_maps_that_lie_across_their_photo(size, across):
    assert lies_across(MAPS, size) == across
    assert not lies_across(MAPS[:0], size)
