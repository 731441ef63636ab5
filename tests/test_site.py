"""The site's sources: links lead somewhere, every module has a reference, the figure is new."""

import importlib
import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import build  # noqa: E402
import path as path_figure  # noqa: E402

TEXTS = ["CONTRIBUTING.md", "README.md", "CHANGELOG.md", "fmwsss/weights/MODEL_CARD.md"]
PAGES = [
    *sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts),
    *sorted((ROOT / "benchmarks").glob("*.ipynb")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in TEXTS if (ROOT / name).exists()),
]
MODULES = build.modules()


def prose(page):
    "Markdown of a page or of the text cells of a notebook, without code."
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def dead_links(page):
    "Relative links of a page that name no file of the repository."
    text = prose(page)
    links = re.findall(r"\]\(([^)\s]+)(?:\s[^)]*)?\)", text)
    links += re.findall(r'(?:href|src)="([^"]+)"', text)
    local = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    return [x for x in local if not (page.parent / unquote(x.partition("#")[0])).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.md").write_text("[x](b.md) [y](a.md#z) [z](https://x.y) `[c](d.md)`")
    assert dead_links(tmp_path / "a.md") == ["b.md"]


def test_broken_links_of_a_built_site(tmp_path):
    links = '<a href="c.html">c</a> <img src="p.png"> <a href="#here">up</a>'
    text = f'<a id="here" href="b.html#there">b</a> {links} <a href="https://x.y">x</a>'
    (tmp_path / "a.html").write_text(text)
    (tmp_path / "b.html").write_text('<p id="elsewhere"><a href="a.html#here">a</a>')
    broken = ["a.html -> b.html#there", "a.html -> c.html", "a.html -> p.png"]
    assert build.broken_links(tmp_path) == broken


@pytest.mark.parametrize("module", MODULES)
def test_reference_of_every_module(module):
    page = build.api_page(module, MODULES[module])
    names = importlib.import_module(f"fmwsss.{module}").__all__
    assert page.startswith(f"# {module}")
    assert not [n for n in names if f"\n## {n}" not in page]


def test_every_module_has_its_notebook_on_the_site():
    files = (ROOT / "fmwsss").rglob("*.py")
    names = {".".join(p.relative_to(ROOT / "fmwsss").with_suffix("").parts) for p in files}
    assert {n for n in names if not n.rpartition(".")[2].startswith("_")} <= set(MODULES)


def test_docstrings_show_as_they_are():
    assert build.escape("a `x_y` of [0, 1] * b_c $p$") == r"a `x_y` of \[0, 1\] \* b\_c \$p\$"


def test_path_figure_is_up_to_date():
    committed = (ROOT / "nbs" / "images" / "path.svg").read_text(encoding="utf-8")
    assert committed == path_figure.figure(), "run: python docs/path.py"


def test_the_figure_shows_every_chapter_and_room():
    folder = ROOT / "nbs"
    lessons = (folder / "method").glob("[0-9]*.ipynb")
    numbers = {int(p.stem[:2]) for p in lessons}
    assert numbers <= set(path_figure.CHAPTERS), "add the new chapter to docs/path.py"
    rooms = {p.name for p in folder.iterdir() if any(p.glob("*.ipynb"))} - {"method", "slides"}
    assert rooms == set(path_figure.ROOMS), "add the new room to docs/path.py"
    assert {*build.ROOMS, "labs"} == rooms, "add the new room to docs/build.py"


def test_index_has_the_current_map():
    text = prose(ROOT / "nbs" / "index.ipynb")
    advice = "put what `python docs/path.py --map` prints into nbs/index.ipynb"
    assert path_figure.image_map() in text, advice


def test_the_site_shows_the_path_with_its_own_links():
    source = ["before\n", "\n", path_figure.image_map(), "\n\nafter"]
    cell = dict(cell_type="markdown", source=source)
    page = build.clickable_path(dict(cells=[cell]))["cells"][0]["source"]
    assert page.startswith("before\n\n<svg") and page.endswith("</svg>\n\nafter")
    assert 'href="method/04_cam.html"' in page and "ipynb" not in page


def test_readers_see_no_directives():
    cell = lambda *lines: dict(cell_type="code", metadata={}, source=[f"{x}\n" for x in lines])
    cells = [cell("#| default_exp x"), cell("#| export", "a = 1"), cell("#| echo: false", "b")]
    out = build.cells_for_readers(dict(cells=cells))["cells"]
    assert [c["source"] for c in out] == ["a = 1", "b"]
    assert out[1]["metadata"] == dict(tags=["remove-input"])


def test_answers_of_labs_are_folded():
    answer = dict(nbgrader=dict(solution=True, grade=True))
    text = ["def f():\n", "    ### BEGIN SOLUTION\n", "    return 1\n", "    ### END SOLUTION"]
    code = build.readers_cell(dict(cell_type="code", metadata=answer, source=text))
    assert code["source"] == "def f():\n    return 1" and "hide-input" in code["metadata"]["tags"]
    words = build.readers_cell(dict(cell_type="markdown", metadata=answer, source=["Because."]))
    assert words["source"].startswith("<details>") and "Because." in words["source"]
    question = dict(cell_type="markdown", metadata={}, source=["Why?"])
    assert build.readers_cell(question) == question


def test_readme_is_made_from_the_index():
    sys.path.insert(0, str(ROOT / "nbs"))
    import readme

    committed = (ROOT / "README.md").read_text(encoding="utf-8")
    assert committed == readme.readme(), "run: make readme"


def test_citation_names_version_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = re.search(r"^version = (.+)$", (ROOT / "settings.ini").read_text(), re.M)[1]
    paper = citation["references"][0]["title"]
    assert citation["version"] == version and citation["cff-version"] == "1.2.0"
    assert "Foundation Model Assisted" in paper


def test_the_first_picture_is_three_rows_high():
    sys.path.insert(0, str(ROOT / "nbs"))
    import readme
    from PIL import Image

    strip = Image.new("RGB", (400, 20 + 6 * 60), "white")
    strip.paste("black", (10, 4, 40, 14))
    for k in range(6):
        strip.paste("green", (10, 20 + 60 * k, 390, 74 + 60 * k))
    assert readme.first_rows(strip).size == (400, 20 + 2 * 60 + 54 + 2)
    assert readme.first_rows(readme.first_rows(strip)).size[1] == 196
