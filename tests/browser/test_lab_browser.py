"""JupyterLab in a real browser, as a student meets it: the first page, the path, a chapter, a lab and the explorer, run to the end.

Run with `make test-browser`; pictures are left in runs/browser. Works on a copy of the notebooks, so that running changes nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "nbs" / "method").glob("[0-9]*.ipynb"))
SLOW = 600  # seconds that a whole notebook may take on a busy machine


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    "Address of a JupyterLab that serves a copy of the notebooks."
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "nbs", root / "nbs", ignore=shutil.ignore_patterns(".*", "_*"))
    for name in ("CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    settings = root / ".settings" / "@jupyterlab"
    for place, value in (
        ("notebook-extension/tracker", dict(kernelShutdown=True)),
        ("apputils-extension/notification", dict(fetchNews="false", checkForUpdates=False)),
    ):
        (settings / place).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{place}.jupyterlab-settings").write_text(json.dumps(value))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = dict(
        os.environ,
        OMP_NUM_THREADS="1",
        JUPYTERLAB_SETTINGS_DIR=str(root / ".settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(root / ".workspaces"),
    )
    log = open(root / "server.log", "wb")
    process = subprocess.Popen(
        [
            Path(sys.executable).parent / "jupyter",
            "lab",
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            "--IdentityProvider.token=",
            f"--ServerApp.root_dir={root}",
            "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ],
        env=env,
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}"
    wait_until(
        lambda: answers(f"{address}/api/status"), 120, lambda: (root / "server.log").read_text()
    )
    yield address
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def wait_until(true, seconds, otherwise):
    "Wait until `true()`; AssertionError with the text of `otherwise()` after so many seconds."
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, otherwise()
        time.sleep(0.5)
    return found


def script(chromium, text, *arguments):
    return chromium.execute_script(text, *arguments)


def title(chromium):
    return script(
        chromium,
        'return document.querySelector("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-current")?.textContent ?? ""',
    )


def open_notebook(chromium, server, path):
    "Open a notebook in a clean workspace and wait until it is drawn."
    chromium.get(f"{server}/lab/workspaces/{Path(path).stem}/tree/nbs/{path}?reset")
    wait_until(
        lambda: (
            Path(path).name in title(chromium)
            and script(
                chromium,
                'return document.querySelectorAll(".jp-Notebook .jp-MarkdownOutput h1").length',
            )
        ),
        90,
        lambda: f"{path} did not open; the tab shows {title(chromium)!r}",
    )


def menu(chromium, *labels):
    "Choose from JupyterLab's menu bar, like ('Run', 'Run All Cells')."
    top = wait_until(
        lambda: script(
            chromium,
            'return [...document.querySelectorAll("#jp-MainMenu .lm-MenuBar-item")].find(e => e.textContent.trim() == arguments[0])',
            labels[0],
        ),
        30,
        lambda: f"no menu {labels[0]}",
    )
    top.click()
    item = wait_until(
        lambda: script(
            chromium,
            'return [...document.querySelectorAll(".lm-Menu-item")].find(e => e.querySelector(".lm-Menu-itemLabel").textContent.startsWith(arguments[0]))',
            labels[1],
        ),
        30,
        lambda: f"no item {labels[1]}",
    )
    item.click()


def press(chromium, find):
    "Click the element that the script `find` returns with the mouse; once more if the page has drawn it anew meanwhile."
    from selenium.common.exceptions import (
        ElementNotInteractableException,
        StaleElementReferenceException,
    )

    def clicked():
        try:
            element = script(chromium, find)
            element and element.click()
            return element
        except (StaleElementReferenceException, ElementNotInteractableException):
            return None

    return wait_until(clicked, 60, lambda: f"nothing to click: {find}")


def close_tab(chromium):
    "Close the notebook in front, unsaved, and its kernel."
    before = title(chromium)
    discard = 'const b = [...document.querySelectorAll(".jp-Dialog button")].find(b => /Discard|without saving/i.test(b.textContent)); b?.click(); return false'
    press(
        chromium,
        'return document.querySelector("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-current .lm-TabBar-tabCloseIcon")',
    )
    wait_until(
        lambda: script(chromium, discard) or title(chromium) != before,
        60,
        lambda: f"{before} does not close",
    )


STATE = """
const panel = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden)');
const cells = [...panel.querySelectorAll('.jp-CodeCell')];
return { prompts: cells.map(c => c.querySelector('.jp-InputPrompt').textContent), status: panel.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status,
         errors: [...panel.querySelectorAll('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"], .jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')].map(e => e.textContent.slice(0, 400)) }
"""


def run_to_the_end(chromium):
    "Run all cells and wait until the kernel is idle; returns what the errors and warnings say."
    wait_until(lambda: script(chromium, STATE)["status"] == "idle", 90, lambda: "no kernel")
    wait_until(
        lambda: script(
            chromium,
            'document.querySelectorAll(".jp-Notebook").forEach(n => n.scrollTop = 0); return true',
        ),
        5,
        str,
    )
    menu(chromium, "Run", "Run All Cells")
    time.sleep(2)
    wait_until(
        lambda: (
            (s := script(chromium, STATE))["status"] == "idle"
            and not any("*" in p for p in s["prompts"])
        ),
        SLOW,
        lambda: f"still running: {script(chromium, STATE)}",
    )
    return script(chromium, STATE)["errors"]


def real_errors(texts):
    return [t for t in texts if "Error" in t.split("Warning")[0] or "Traceback" in t]


def scroll_to(chromium, text):
    "Bring the first heading or output with this text to the top."
    script(
        chromium,
        'const e = [...document.querySelectorAll(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedHTMLCommon :is(h1,h2,h3,p), .jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output")].find(e => e.textContent.includes(arguments[0])); e?.scrollIntoView()',
        text,
    )
    time.sleep(1)


def test_first_page_and_its_links(chromium, server, picture):
    open_notebook(chromium, server, "index.ipynb")
    time.sleep(2)
    picture("index")
    scroll_to(chromium, "The path")
    picture("path")
    assert script(
        chromium,
        'return [...document.querySelectorAll(".jp-MarkdownOutput img")].every(i => i.naturalWidth > 0)',
    ), "a picture of the first page is missing"
    box = 'return document.querySelector("[data-jupyter-id=path] a[title^=\\"06\\"]")'
    if script(chromium, box):  # the figure: a link lies over each box
        press(chromium, box)
        wait_until(
            lambda: title(chromium).startswith("06"),
            90,
            lambda: f"the box 06 leads to {title(chromium)!r}",
        )
        close_tab(chromium)
        wait_until(
            lambda: "index" in title(chromium), 60, lambda: "the first page did not come back"
        )
    wanted = script(
        chromium,
        'return [...document.querySelectorAll(".jp-MarkdownOutput table a")].map(a => a.textContent.trim()).filter(t => /^\\d\\d /.test(t))',
    )
    assert len(wanted) == len(CHAPTERS)
    for name in wanted:
        script(
            chromium,
            'const a = [...document.querySelectorAll(".jp-MarkdownOutput table a")].find(a => a.textContent.trim() == arguments[0]); a.scrollIntoView({block: "center"}); a.click()',
            name,
        )
        wait_until(
            lambda: title(chromium).startswith(name[:2]),
            90,
            lambda: f"the link {name} leads to {title(chromium)!r}",
        )
        wait_until(
            lambda: script(
                chromium,
                'return document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-MarkdownOutput h1")',
            ),
            60,
            lambda: f"{name} shows no heading",
        )
        close_tab(chromium)
        wait_until(
            lambda: "index" in title(chromium),
            60,
            lambda: f"after closing {name}: {title(chromium)!r}",
        )


def test_a_chapter_runs_to_the_end(chromium, server, picture):
    open_notebook(chromium, server, "method/07_sams.ipynb")
    errors = run_to_the_end(chromium)
    picture("chapter")
    assert not real_errors(errors), errors


def test_a_lab_runs_to_the_end(chromium, server, picture):
    open_notebook(chromium, server, "labs/q09_masks_without_class.ipynb")
    errors = run_to_the_end(chromium)
    scroll_to(chromium, "Evidence")
    picture("lab")
    assert not real_errors(errors), errors


def test_the_explorer_answers(chromium, server, picture):
    open_notebook(chromium, server, "explore/03_page.ipynb")
    errors = run_to_the_end(chromium)
    assert not real_errors(errors), errors
    panels = wait_until(
        lambda: script(
            chromium,
            'return [...document.querySelectorAll(".jp-OutputArea-output img")].filter(i => i.src.startsWith("blob:")).length',
        ),
        60,
        lambda: "the explorer shows no picture",
    )
    assert panels == 5
    script(
        chromium,
        '[...document.querySelectorAll(".jp-OutputArea-output img")].find(i => i.src.startsWith("blob:")).closest(".jp-OutputArea").scrollIntoView({block: "center"})',
    )
    time.sleep(2)
    picture("explorer")
    alt = lambda start: script(
        chromium,
        'return [...document.querySelectorAll(".jp-OutputArea-output img")].find(i => i.alt.startsWith(arguments[0]))',
        start,
    )
    before = alt("seed").get_attribute("src")
    chromium.execute_cdp_cmd("Page.bringToFront", {})
    alt("masks").click()  # the centre of the picture
    wait_until(
        lambda: alt("seed").get_attribute("src") != before, 30, lambda: "a click changed nothing"
    )
    wait_until(
        lambda: script(chromium, "return document.body.innerText.match(/Mask \\d+ \\(/)"),
        30,
        lambda: "the clicked mask does not explain itself",
    )
    picture("explorer_click")
    choose(chromium, "picture", "val 3")
    wait_until(
        lambda: script(chromium, 'return document.body.innerText.includes("boat")'),
        60,
        lambda: "the other picture does not show",
    )
    time.sleep(2)
    picture("explorer_other")
    choose(chromium, "maps", "uniform attention")
    time.sleep(2)
    picture("explorer_uniform")
    assert all(
        script(
            chromium,
            'return [...document.querySelectorAll(".jp-OutputArea-output img")].filter(i => i.src.startsWith("blob:")).map(i => i.naturalWidth > 0)',
        )
    )


def choose(chromium, label, option):
    "Choose from one of the explorer's menus as a user does."
    from selenium.webdriver.support.ui import Select

    Select(
        script(
            chromium,
            'return [...document.querySelectorAll(".widget-dropdown")].find(w => w.querySelector("label").textContent == arguments[0]).querySelector("select")',
            label,
        )
    ).select_by_visible_text(option)
