"""The slides in a real browser: every slide fits on it, nothing is asked of the network, the demo moves."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "nbs" / "slides"))
import make  # noqa: E402

pytestmark = pytest.mark.browser
DECKS = sorted((ROOT / "nbs" / "slides").glob("*.md"))

# What is drawn of the slide in view: its lowest and rightmost end, the place it has, missing pictures, its smallest picture.
LOOK = """
const slide = Reveal.getCurrentSlide(), page = document.querySelector('.reveal .slides').getBoundingClientRect();
const shown = [...slide.querySelectorAll('h1,h2,p,li,pre,img,input,small')].filter(e => !e.closest('aside') && e.offsetParent);
const ends = shown.map(e => e.getBoundingClientRect()), pictures = shown.filter(e => e.tagName == 'IMG');
return { low: Math.max(...ends.map(b => b.bottom)), right: Math.max(...ends.map(b => b.right)), bottom: page.bottom, side: page.right,
         wide: shown.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.textContent), height: page.height,
         missing: pictures.filter(i => !i.naturalWidth).length, size: Math.min(...pictures.map(i => i.clientHeight), 999), pictures: pictures.length };
"""


@pytest.fixture
def projector(chromium):
    size = dict(width=1920, height=1080, deviceScaleFactor=1, mobile=False)
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get_log("browser"), chromium.get_log("performance")
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp("slides")
    return {deck.stem: make.make(deck, out) for deck in DECKS}


def asked_of_the_network(browser):
    asked = [m["message"].split('"initiator"')[0] for m in browser.get_log("performance") if '"Network.requestWillBeSent"' in m["message"]]
    assert asked
    return [m for m in asked if "http://" in m or "https://" in m]


@pytest.mark.parametrize("deck", [d.stem for d in DECKS])
def test_every_slide_fits_and_nothing_is_loaded(projector, pages, picture, deck):
    projector.get(pages[deck].as_uri())
    count = projector.execute_script("return Reveal.getTotalSlides()")
    for k in range(count):
        projector.execute_script("Reveal.slide(arguments[0])", k)
        seen = projector.execute_script(LOOK)
        picture(f"slides_{deck}_{k + 1:02d}")
        where = f"slide {k + 1} of {deck}: {seen}"
        assert seen["height"] > 900 and seen["low"] <= seen["bottom"] and seen["right"] <= seen["side"] + 1, where
        assert seen["missing"] == 0 and seen["wide"] == [] and seen["size"] > 200, where
    assert projector.get_log("browser") == []
    assert asked_of_the_network(projector) == []


def test_the_demonstration_moves(projector, pages):
    from selenium.webdriver.common.keys import Keys

    projector.get(pages["lecture"].as_uri())
    titles = projector.execute_script("return Reveal.getSlides().map(s => s.querySelector('h1,h2').firstChild.textContent)")
    projector.execute_script("Reveal.slide(arguments[0])", titles.index("Painting, step by step"))
    visible = lambda: projector.execute_script("return [...Reveal.getCurrentSlide().querySelectorAll('img')].map(i => i.clientHeight > 0)")
    assert visible() == [True] + 5 * [False]
    slider = projector.execute_script("return Reveal.getCurrentSlide().querySelector('input')")
    slider.send_keys(Keys.ARROW_RIGHT)
    assert visible() == [False, True] + 4 * [False]
    slider.send_keys(Keys.END)
    assert visible() == 5 * [False] + [True]
    assert projector.execute_script("return Reveal.getCurrentSlide().querySelector('h2').firstChild.textContent") == "Painting, step by step"
