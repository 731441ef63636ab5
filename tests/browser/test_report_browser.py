"""The page in a real browser, from disk: sorting, console, phone, projector, colours, accessibility (axe-core). Run with: make test-browser"""

import sys
from importlib import resources
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from report_run import make_run

pytestmark = pytest.mark.browser
SIZES = dict(projector=(1920, 1080), phone=(390, 844))


@pytest.fixture
def browser(chromium):
    "The browser, with its window as it was afterwards."
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=[]))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    from fmwsss.report.compare import compare_runs
    from fmwsss.report.page import build_report

    root = tmp_path_factory.mktemp("browser")
    compare_runs(make_run(root / "a"), make_run(root / "b"), page=root / "compare.html")
    return dict(report=build_report(root / "a"), compare=root / "compare.html")


def show(browser, page, size="projector", scheme="light"):
    width, height = SIZES[size]
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        dict(width=width, height=height, deviceScaleFactor=1, mobile=size == "phone"),
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        dict(features=[dict(name="prefers-color-scheme", value=scheme)]),
    )
    browser.get(page.as_uri())


def column(browser, table, k):
    return browser.execute_script(
        'return [...document.getElementById(arguments[0]).closest("table").tBodies[0].rows].map(r => r.cells[arguments[1]].dataset.sort)',
        table,
        k,
    )


def head(browser, table, k):
    return browser.execute_script(
        'return document.getElementById(arguments[0]).closest("table").tHead.rows[0].cells[arguments[1]]',
        table,
        k,
    )


def missing_last(values, sign):
    return sorted(values, key=lambda text: (text == "", sign * float(text or 0)))


def test_sorting_by_mouse_and_keyboard(browser, pages):
    from selenium.webdriver.common.keys import Keys

    show(browser, pages["report"])
    before, th = column(browser, "table-run-glance", 1), head(browser, "table-run-glance", 1)
    th.find_element("tag name", "button").click()
    assert th.get_attribute("aria-sort") == "descending"
    assert column(browser, "table-run-glance", 1) == missing_last(before, -1) != before
    th.find_element("tag name", "button").send_keys(Keys.ENTER)
    assert th.get_attribute("aria-sort") == "ascending"
    assert column(browser, "table-run-glance", 1) == missing_last(before, 1)
    first = head(browser, "table-run-glance", 0)
    first.find_element("tag name", "button").send_keys(Keys.SPACE)
    assert (first.get_attribute("aria-sort"), th.get_attribute("aria-sort")) == (
        "ascending",
        "none",
    )
    assert "method" in browser.execute_script(
        'return document.getElementById("status").textContent'
    )


def test_missing_values_stay_last(browser, pages):
    show(browser, pages["report"])
    button = head(browser, "table-per_class", 1).find_element("tag name", "button")
    for _ in range(2):
        button.click()
        assert column(browser, "table-per_class", 1)[-1] == ""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["report", "compare"])
def test_no_overflow_no_errors_no_requests(browser, pages, name, size):
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, pages[name], size)
    wide = browser.execute_script(
        'document.querySelectorAll("details").forEach(d => d.open = true); return [document.documentElement.scrollWidth, innerWidth]'
    )
    assert wide[0] <= wide[1] == SIZES[size][0]
    assert browser.execute_script(
        "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert browser.get_log("browser") == []
    asked = [
        m["message"]
        for m in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in m["message"]
    ]
    assert asked and not [
        m
        for m in asked
        if "http://" in m.split('"initiator"')[0] or "https://" in m.split('"initiator"')[0]
    ]


def test_contents_follow_the_reader(browser, pages):
    show(browser, pages["report"])
    for name in ("models", "making"):
        browser.find_element("css selector", f'nav a[href="#{name}"]').click()
        browser.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        )
        assert (
            browser.find_element("css selector", "nav a[aria-current]").get_attribute("hash")
            == f"#{name}"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["report", "compare"])
def test_accessibility_and_picture(browser, pages, picture, name, size, scheme):
    show(browser, pages[name], size, scheme)
    browser.execute_script('document.querySelectorAll("details").forEach(d => d.open = true)')
    browser.execute_script(
        resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    )
    found = browser.execute_async_script(
        'const done = arguments[0]; axe.run().then(r => done(r.violations.map(v => v.id + ": " + v.nodes[0].html)))'
    )
    if scheme == "light":
        picture(f"{name}_{size}")
    assert found == []
