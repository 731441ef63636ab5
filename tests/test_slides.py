"""The lecture's slides: the chapters' own figures, and nothing is loaded from elsewhere."""
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "nbs" / "slides"))
import make  # noqa: E402


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make.make(ROOT / "nbs/slides/lecture.md", tmp_path_factory.mktemp("slides"))


def test_every_slide_is_there_with_its_notes(page):
    html = page.read_text(encoding="utf-8")
    deck = make.notebook_of((ROOT / "nbs/slides/lecture.md").read_text(encoding="utf-8"))
    kinds = [c.metadata["slideshow"]["slide_type"] for c in deck.cells]
    assert kinds.count("slide") >= 20
    assert html.count('<aside class="notes">') == kinds.count("notes") >= 15


def test_the_minutes_of_the_notes_fill_the_lecture():
    text = (ROOT / "nbs/slides/lecture.md").read_text(encoding="utf-8")
    spans = [tuple(map(int, x)) for x in re.findall(r"^note: (\d+) to (\d+) minutes", text, re.M)]
    assert spans[0][0] == 0 and spans[-1][1] == 90
    assert all(a[1] == b[0] for a, b in zip(spans, spans[1:]))


def test_nothing_is_loaded_from_the_network(page):
    html = page.read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]+)"', html)
    assert loaded and not [x for x in loaded if not x.startswith(("data:", "reveal/"))]
    local = [x for x in loaded if x.startswith("reveal/")]
    assert local and all((page.parent / x).exists() for x in local)


def test_pictures_are_whole(page):
    import cv2
    import numpy as np

    html = page.read_text(encoding="utf-8")
    pictures = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    assert len(pictures) >= 20
    for text in pictures:
        data = np.frombuffer(make.base64.b64decode(text), np.uint8)
        assert min(cv2.imdecode(data, cv2.IMREAD_COLOR).shape[:2]) > 50


def test_a_figure_that_is_not_there_is_named():
    with pytest.raises(LookupError, match="no chapter nbs/method/none.ipynb"):
        make.figure("method/none.ipynb", "CAM", "1")
    with pytest.raises(LookupError, match="0 figures below 'Nowhere'"):
        make.figure("method/04_cam.ipynb", "Nowhere", "1")
