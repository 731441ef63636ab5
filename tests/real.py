"""Photos, weights and CAMs that are not part of the repository.

The folder that FMWSSS_REAL names."""

import os
from pathlib import Path

import pytest

EXPECTED = Path(__file__).parent


def real_folder() -> Path | None:
    "The folder with voc/, weights/ and cams/, or None."
    folder = os.environ.get("FMWSSS_REAL")
    return Path(folder) if folder and Path(folder).is_dir() else None


def need_real(*parts: str) -> Path:
    "The folder, or a part of it; the test is skipped where it is missing."
    folder = real_folder()
    if folder is None:
        pytest.skip("FMWSSS_REAL names no folder with voc/, weights/ and cams/")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"FMWSSS_REAL has no {'/'.join(parts)}")
    return path


def need_weights() -> Path:
    "MobileSAM's weights, in FMWSSS_REAL or downloaded before; the test is skipped without them."
    from fmwsss.models.mobile_sam import found_mobile_sam

    path = found_mobile_sam()
    if path is None:
        pytest.skip("no weights of MobileSAM: FMWSSS_REAL has none and none were downloaded")
    return path
