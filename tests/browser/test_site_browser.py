"""The site in a real browser, from disk: first page, chapters, a lab and their quizzes on a phone, a laptop and a projector."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = dict(
    first="nbs/index",
    chapter="nbs/method/04_cam",
    build="nbs/method/12_build_it_yourself",
    shapes="nbs/method/13_shapes",
    lab="nbs/labs/q09_masks_without_class",
    lecturer="docs/lecturer",
    reference="api/method.cam",
)
SIZES = dict(phone=(390, 844), laptop=(1366, 768), projector=(1920, 1080))


@pytest.fixture
def browser(chromium):
    if not (SITE / "index.html").exists():
        pytest.skip("there is no site yet: make site")
    chromium.get_log("browser"), chromium.get_log("performance")
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def show(browser, name, size):
    width, height = SIZES[size]
    metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=size == "phone")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((SITE / f"{PAGES[name]}.html").as_uri())
    browser.execute_async_script("const done = arguments[0]; window.MathJax?.startup?.promise ? MathJax.startup.promise.then(() => done()) : done()")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_is_whole(browser, picture, name, size):
    show(browser, name, size)
    picture(f"site_{name}_{size}")
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner == SIZES[size][0]
    lost = browser.execute_script("return [...document.querySelectorAll('main img')].filter(i => i.loading != 'lazy' && !(i.complete && i.naturalWidth)).map(i => i.src)")
    assert lost == []
    assert [m for m in browser.get_log("browser") if m["level"] == "SEVERE"] == []
    asked = [m["message"].split('"initiator"')[0] for m in browser.get_log("performance") if '"Network.requestWillBeSent"' in m["message"]]
    assert asked and not [m for m in asked if "http://" in m or "https://" in m]


def test_the_first_page_says_what_it_is_and_what_to_type(browser):
    "In the first screen of a laptop: the sentence, the picture and the command."
    show(browser, "first", "laptop")
    low = lambda what: browser.execute_script(f"return ({what}).getBoundingClientRect().bottom")
    assert low("[...document.querySelectorAll('main p')].find(p => p.textContent.startsWith('Weakly supervised'))") < 768
    assert low("document.querySelector('main img')") < 1.5 * 768
    assert low("[...document.querySelectorAll('main pre')].find(p => p.textContent.includes('make reproduce'))") < 2 * 768


def test_the_path_leads_to_its_chapters(browser):
    show(browser, "first", "laptop")
    links = browser.execute_script("return [...document.querySelectorAll('main svg a')].map(a => a.href.baseVal ?? a.getAttribute('href'))")
    assert len(links) >= 11 and all((SITE / "nbs" / link).exists() for link in links)


@pytest.mark.parametrize("size", ["phone", "laptop"])
def test_answers_are_folded_until_asked_for(browser, picture, size):
    show(browser, "chapter", size)
    folds = browser.execute_script("return [...document.querySelectorAll('main details')].map(d => [d.open, d.querySelector('summary').textContent.trim()])")
    assert len(folds) >= 4 and not any(is_open for is_open, _ in folds)
    quiz = "const d = [...document.querySelectorAll('main details')].find(d => d.querySelector('summary').textContent.trim() == 'Answers');"
    assert browser.execute_script(f"{quiz} return d.querySelector('ol, p').checkVisibility()") is False
    browser.execute_script(f"{quiz} d.querySelector('summary').scrollIntoView({{block: 'center'}}); d.querySelector('summary').click()")
    assert browser.execute_script(f"{quiz} return d.querySelector('ol, p').checkVisibility()") is True
    picture(f"site_quiz_{size}")
