"""Parity with the authors' published code: golden vectors, one npz file per case.

The folder is `tests/goldens`, or the one that the environment variable `FMWSSS_GOLDENS` names.
Everything a check needs (sizes, names, options) comes from the arrays of its file, so that any
folder with the same keys will do."""

import importlib
import os
import pkgutil
from pathlib import Path

import numpy as np
import torch

OWN = Path(__file__).resolve().parents[1] / "goldens"
FOLDER = Path(os.environ.get("FMWSSS_GOLDENS") or OWN)
DEVICE = "cpu"  # where inputs lie; tests/gpu.py sets it
SLACK = 1.0  # factor of all tolerances but 0; a card adds up in another order


def case_files():
    return sorted(FOLDER.glob("*.npz"))


def group_of(path, names):
    "The group of a file: the longest of `names` that its name begins with, or None."
    fits = [n for n in names if path.stem == n or path.stem.startswith(f"{n}_")]
    return max(fits, key=len, default=None)


def whole(x):
    "Half precision only saves place: the numbers are float32."
    return x.astype(np.float32) if x.dtype == np.float16 else x


class Case:
    """The arrays of one file.

    `case[key]` reads an input, `case.compare(key, ours)` checks an output; `finish()` fails if
    an array was neither. `compared` counts the arrays checked."""

    def __init__(self, path):
        self.path, self.name = Path(path), Path(path).stem
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: whole(file[key]) for key in file.files}
        self.read, self.checked = set(), set()

    def __contains__(self, key):
        return key in self.arrays

    def keys(self):
        return self.arrays.keys()

    def array(self, key):
        "Input as numpy array."
        self.read.add(key)
        return self.arrays[key]

    def __getitem__(self, key):
        "Input as tensor; integers become int64."
        x = torch.from_numpy(np.array(self.array(key)))
        return (x if x.is_floating_point() else x.long()).to(DEVICE)

    def compare(self, key, ours, tolerance=0.0, scale=None):
        """Output `key` must equal `ours`.

        Shape, and values within `tolerance` times `scale` (default: the largest absolute value
        of the reference). Tolerance 0 means exactly."""
        self.checked.add(key)
        theirs = np.asarray(self.arrays[key])
        ours = np.asarray(ours.detach().cpu().numpy() if isinstance(ours, torch.Tensor) else ours)
        assert ours.shape == theirs.shape, (
            f"{self.name}: {key} has shape {ours.shape}, reference {theirs.shape}"
        )
        if not theirs.size:
            return
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        scale = max(np.abs(theirs).max(), 1e-6) if scale is None else float(scale)
        error = np.abs(ours - theirs).max()
        tolerance = tolerance * SLACK
        if os.environ.get("FMWSSS_PARITY_LOG"):
            with open(os.environ["FMWSSS_PARITY_LOG"], "a") as log:
                log.write(f"{error / scale:.2e} {tolerance:.0e} {key} {self.name}\n")
        assert np.isfinite(ours).all() and error <= tolerance * scale, (
            f"{self.name}: {key} differs by {error:.3g}, allowed {tolerance * scale:.3g} "
            f"(largest reference value {np.abs(theirs).max():.3g})"
        )

    def finish(self):
        left = sorted(self.arrays.keys() - self.read - self.checked)
        assert not left, f"{self.name}: arrays neither read nor compared: {left}"
        return len(self.checked)


def checks():
    "Check function of every group: the `CHECKS` of all modules of this package."
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").CHECKS
    return found
