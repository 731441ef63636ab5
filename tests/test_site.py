"""The site's sources: links between notebooks and pages lead somewhere, every module has a reference, the path figure is up to date."""
import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import build
import path as path_figure

PAGES = [*(p for folder in ("nbs", "nbs/labs", "benchmarks") for p in sorted((ROOT / folder).glob("*.ipynb"))), *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
CHAPTERS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))


def prose(page):
    "Markdown of a page or of the text cells of a notebook, without code."
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb": text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def dead_links(page):
    "Relative links of a page that name no file of the repository."
    links = re.findall(r"\]\(([^)\s]+)(?:\s[^)]*)?\)", prose(page)) + re.findall(r'(?:href|src)="([^"]+)"', prose(page))
    local = [l for l in links if not re.match(r"[a-z]+:|#", l)]
    return [l for l in local if not (page.parent / unquote(l.partition("#")[0])).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page): assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.md").write_text("[x](b.md) [y](a.md#z) [z](https://x.y) `[c](d.md)`")
    assert dead_links(tmp_path / "a.md") == ["b.md"]


def test_broken_links_of_a_built_site(tmp_path):
    (tmp_path / "a.html").write_text('<a id="here" href="b.html#there">b</a> <a href="c.html">c</a> <img src="p.png"> <a href="#here">up</a> <a href="https://x.y">x</a>')
    (tmp_path / "b.html").write_text('<p id="elsewhere"><a href="a.html#here">a</a>')
    assert build.broken_links(tmp_path) == ["a.html -> b.html#there", "a.html -> c.html", "a.html -> p.png"]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_reference_of_every_module(chapter):
    import importlib
    module = chapter.stem.split("_", 1)[1]
    page = build.api_page(module, chapter.stem)
    missing = [n for n in importlib.import_module(f"fmwsss.{module}").__all__ if f"\n## {n}" not in page]
    assert page.startswith(f"# {module}") and not missing


def test_docstrings_show_as_they_are(): assert build.escape("a `x_y` of [0, 1] * b_c $p$") == r"a `x_y` of \[0, 1\] \* b\_c \$p\$"


def test_path_figure_is_up_to_date():
    assert (ROOT / "nbs" / "images" / "path.svg").read_text(encoding="utf-8") == path_figure.figure(), "run: python docs/path.py"


def test_the_path_shows_every_chapter():
    assert {int(p.stem[:2]) for p in CHAPTERS} == set(path_figure.BOXES) - {n for n in path_figure.BOXES if path_figure.chapter(n) is None}, "add the new chapter to docs/path.py"


def test_index_has_the_current_map():
    text = prose(ROOT / "nbs" / "index.ipynb")
    if 'images/path.svg' in text: assert path_figure.image_map() in text, "put what `python docs/path.py --map` prints into nbs/index.ipynb"


def test_the_site_shows_the_path_with_its_own_links():
    page = build.clickable_path(dict(cells=[dict(cell_type="markdown", source=["before\n", "\n", path_figure.image_map(), "\n\nafter"])]))["cells"][0]["source"]
    assert page.startswith("before\n\n<svg") and page.endswith("</svg>\n\nafter") and 'href="06_cam.html"' in page and "ipynb" not in page


def test_readers_see_no_directives():
    cell = lambda *lines: dict(cell_type="code", metadata={}, source=[f"{l}\n" for l in lines], outputs=[])
    out = build.cells_for_readers(dict(cells=[cell("#| default_exp x"), cell("#| export", "a = 1"), cell("#| echo: false", "b")]))["cells"]
    assert [c["source"] for c in out] == ["a = 1", "b"] and out[1]["metadata"] == dict(tags=["remove-input"])


def test_citation_names_version_and_paper():
    import yaml
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r"^version = (.+)$", (ROOT / "settings.ini").read_text(), re.M)[1]
    assert citation["version"] == version and "Foundation Model Assisted" in citation["references"][0]["title"] and citation["cff-version"] == "1.2.0"
