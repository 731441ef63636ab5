"""The lectures' slides: the chapters' own figures, and nothing is loaded from elsewhere."""
import base64
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SLIDES = ROOT / "nbs" / "slides"
sys.path.insert(0, str(SLIDES))
import make  # noqa: E402

DECKS = ["lecture", "week_1", "week_2", "week_3", "week_4"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp("slides")
    return {deck.stem: make.make(deck, out) for deck in sorted(SLIDES.glob("*.md"))}


def test_there_is_a_lecture_and_a_deck_for_each_of_four_weeks(pages):
    assert sorted(pages) == DECKS


@pytest.mark.parametrize("deck", DECKS)
def test_every_slide_is_there_with_its_notes(pages, deck):
    html = pages[deck].read_text(encoding="utf-8")
    book = make.notebook_of((SLIDES / f"{deck}.md").read_text(encoding="utf-8"))
    kinds = [c.metadata["slideshow"]["slide_type"] for c in book.cells]
    assert kinds.count("slide") >= (20 if deck == "lecture" else 10)
    assert html.count('<aside class="notes">') == kinds.count("notes")
    assert kinds.count("notes") >= 0.7 * kinds.count("slide")


@pytest.mark.parametrize("deck", DECKS)
def test_the_minutes_of_the_notes_fill_the_lecture(deck):
    slides = make.slides_of((SLIDES / f"{deck}.md").read_text(encoding="utf-8"))
    found = re.findall(r"^note: (\d+) to (\d+) minutes", "\n".join(slides), re.M)
    spans = [tuple(map(int, span)) for span in found]
    assert spans[0][0] == 0 and spans[-1][1] == 90
    assert all(a[1] == b[0] for a, b in zip(spans, spans[1:]))


@pytest.mark.parametrize("deck", DECKS)
def test_nothing_is_loaded_from_the_network(pages, deck):
    html = pages[deck].read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="([^"]+)"', html)
    assert loaded and not [x for x in loaded if not x.startswith(("data:", "reveal/"))]
    local = [x for x in loaded if x.startswith("reveal/")]
    assert local and all((pages[deck].parent / x).exists() for x in local)


@pytest.mark.parametrize("deck", DECKS)
def test_pictures_are_whole(pages, deck):
    html = pages[deck].read_text(encoding="utf-8")
    pictures = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    assert len(pictures) >= (20 if deck == "lecture" else 5)
    for text in pictures:
        data = np.frombuffer(base64.b64decode(text), np.uint8)
        assert min(cv2.imdecode(data, cv2.IMREAD_COLOR).shape[:2]) > 50


def test_slides_of_another_deck_bring_their_own_minutes_only():
    titles = "What a label costs", "What an image-level label hides"
    slide, after = make.included("lecture.md", *titles, "5 to 15")
    assert re.findall(r"\d+ to \d+ minutes", slide) == ["5 to 15 minutes"]
    assert "Ask the room" in slide and "minutes" not in after


def test_what_is_not_there_is_named():
    with pytest.raises(LookupError, match="no chapter nbs/method/none.ipynb"):
        make.figure("method/none.ipynb", "CAM", "1")
    with pytest.raises(LookupError, match="0 figures below 'Nowhere'"):
        make.figure("method/04_cam.ipynb", "Nowhere", "1")
    with pytest.raises(LookupError, match="lecture.md has no slide 'Nowhere'"):
        make.included("lecture.md", "What a label costs", "Nowhere", "0 to 5")
