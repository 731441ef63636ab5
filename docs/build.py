"""The notebooks as a web site: `python docs/build.py` writes docs/_build/html.

Jupyter Book 1, offline, without running anything. The notebooks, read as they are committed, are
copied beside this folder's pages into docs/_build/source, laid out as in the repository, so that
their links hold; the API reference is written from the docstrings. A warning of the builder is an
error, and so is a link that leads nowhere."""

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
DOCS = ROOT / "docs"
SOURCE = DOCS / "_build" / "source"
PATH = "method"
LABS = "labs"
ROOMS = {  # folder of notebooks: what it is called on the site, in reading order
    "minivoc": "The drawn world",
    "data": "Data",
    "models": "CLIP and SAM",
    "sources": "Where masks come from",
    "refiners": "Refiners, the rivals of SAMS",
    "study": "The study: train, choose, measure",
    "explore": "The explorer",
    "fast": "The same, faster",
    "engine": "Ten thousand images",
    "files": "Files and errors",
    "report": "The page of a run",
    "app": "Commands",
    "pretrain": "How the miniatures were made",
}
MARKS = ("#|", "### BEGIN", "### END")  # lines of nbdev and nbgrader
FOR_LECTURERS = ("lecturer", "glossary")


# ---------------------------------------------------------------- notebooks


def read_notebook(path: Path) -> dict:
    "A notebook as a dictionary."
    return json.loads(path.read_text(encoding="utf-8"))


def readers_cell(cell: dict) -> dict | None:
    """A cell without nbdev's directives and nbgrader's marks; None: nothing is left of it.

    `echo: false` hides its code; answers of labs are folded."""
    lines = "".join(cell["source"]).splitlines(keepends=True)
    if cell["cell_type"] != "code":
        return folded(cell) if is_answer(cell) else cell
    kept = [line for line in lines if not line.lstrip().startswith(MARKS)]
    code = "".join(kept).strip("\n")
    if not code.strip():
        return None
    hidden = any(line.replace(" ", "").startswith("#|echo:false") for line in lines)
    tag = "remove-input" if hidden else "hide-input" if is_answer(cell) else None
    tags = dict(tags=[tag]) if tag else {}
    return dict(cell, source=code, metadata=dict(cell["metadata"], **tags))


def is_answer(cell: dict) -> bool:
    "Is it a solution of a lab, or a test of it?"
    role = cell["metadata"].get("nbgrader", {})
    return bool(role.get("solution") or role.get("grade"))


def folded(cell: dict) -> dict:
    "A written answer of a lab, to be unfolded."
    head = "<details><summary>Model answer</summary>"
    return dict(cell, source=f"{head}\n\n{''.join(cell['source'])}\n\n</details>")


def cells_for_readers(notebook: dict) -> dict:
    "A notebook as people read it."
    cells = [readers_cell(cell) for cell in notebook["cells"]]
    return dict(notebook, cells=[cell for cell in cells if cell is not None])


def clickable_path(notebook: dict) -> dict:
    "The path figure as part of the page, so that its boxes can be clicked."
    svg = (NBS / "images" / "path.svg").read_text(encoding="utf-8").strip()
    svg = re.sub(r'href="\.\./([^"]+)\.ipynb"', r'href="\1.html"', svg)
    svg = re.sub(r'" height="\d+" role', '" style="max-width:100%;height:auto" role', svg)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            frame = r'<div [^>]*id="path">.*?</div>'
            cell["source"] = re.sub(frame, lambda _: svg, text, flags=re.S)
    return notebook


def copy_notebook(path: Path):
    "One notebook, cleaned for readers, to its place in SOURCE."
    target = SOURCE / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    notebook = clickable_path(cells_for_readers(read_notebook(path)))
    target.write_text(json.dumps(notebook), encoding="utf-8")


def title(path: Path) -> str:
    "First heading of a notebook."
    for cell in read_notebook(path)["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if cell["cell_type"] == "markdown" and line.startswith("# "):
                return line[2:]
    raise ValueError(f"{path} has no heading")


def notebooks(folder: str) -> list[Path]:
    "Notebooks of a folder, in their order; the page of the whole room comes first."
    found = (ROOT / folder).glob("[0-9a-z]*.ipynb")
    return sorted(found, key=lambda path: (path.stem != f"00_{path.parent.name}", path))


def chapters() -> list[Path]:
    "All notebooks of nbs/ but the index and the labs: the path, then the rooms."
    rooms = [path for room in (PATH, *ROOMS) for path in notebooks(f"nbs/{room}")]
    return [*rooms, NBS / "plots.ipynb"]


def results() -> list[Path]:
    "Benchmark notebooks that show results."
    return [p for p in notebooks("benchmarks") if p not in trainings()]


def trainings() -> list[Path]:
    "Notebooks that train the miniatures."
    return [p for p in notebooks("benchmarks") if p.stem.startswith("pretrain_")]


# ---------------------------------------------------------------- reference


def escape(text: str) -> str:
    "Plain text of a docstring as Markdown: `code` stays, all other signs stand for themselves."
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text.replace("`", "'")]
    plain = lambda t: re.sub(r"([\\*_\[\]<>{}$|#~])", r"\\\1", t)
    return "".join(f"`{p}`" if i % 2 else plain(p) for i, p in enumerate(parts))


def signature(name: str, thing) -> str:
    "How a function or class is called, on one line."
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        text = "(...)"
    return name + re.sub(r" at 0x[0-9a-f]+", "", text)


def unwrap(method):
    "The function behind a property, class method or static method."
    return getattr(method, "__func__", None) or getattr(method, "fget", None) or method


def documented(value) -> bool:
    "Is it a function with a docstring?"
    return inspect.isfunction(unwrap(value)) and bool(inspect.getdoc(unwrap(value)))


def shorten(text: str, most: int = 90) -> str:
    "At most so many characters."
    return text if len(text) <= most else text[:most] + " ..."


def entry(name: str, thing, depth: int = 2, of: str = "") -> str:
    "Heading, signature and docstring of one name; the public methods of a class follow."
    call = signature(name, thing) if callable(thing) else f"{name} = {shorten(repr(thing))}"
    doc = inspect.getdoc(thing) if callable(thing) else None
    kind = "python" if callable(thing) else "text"
    text = [f"{'#' * depth} {of}{name}", f"```{kind}\n{call}\n```", escape(doc) if doc else ""]
    if inspect.isclass(thing):
        own = {k: v for k, v in vars(thing).items() if not k.startswith("_") and documented(v)}
        text += [entry(k, unwrap(v), 3, f"{name}.") for k, v in own.items()]
    return "\n\n".join(text)


def module_of(path: Path) -> str | None:
    "The module that a notebook exports, e.g. method.cam; None if it exports none."
    for cell in read_notebook(path)["cells"]:
        found = re.search(r"^#\|\s*default_exp\s+(\S+)", "".join(cell["source"]), re.M)
        if found:
            return found[1]
    return None


def modules() -> dict[str, Path]:
    "{module: the notebook that makes it} in reading order."
    found = [(module_of(path), path) for path in [*chapters(), *notebooks(f"nbs/{LABS}")]]
    named = [(m.removesuffix(".__init__"), path) for m, path in found if m]
    return dict(named)


def api_page(module: str, chapter: Path) -> str:
    "The reference page of one module, in the order of its notebook."
    m = importlib.import_module(f"fmwsss.{module}")
    names = [n for n in m.__all__ if hasattr(m, n)]
    link = f"../{chapter.relative_to(ROOT).as_posix()}"
    source = f"From [{title(chapter)}]({link}), where each of these is built step by step."
    head = [f"# {module}", escape((m.__doc__ or "").strip()), source]
    return "\n\n".join([*head, *(entry(n, getattr(m, n)) for n in names)]) + "\n"


# ---------------------------------------------------------------- contents


def files(paths) -> list:
    "Entries of the table of contents."
    return [dict(file=p.relative_to(ROOT).with_suffix("").as_posix()) for p in paths]


def numbered(path: Path) -> dict:
    "A chapter of the path with its number in front."
    entry = files([path])[0]
    return dict(entry, title=f"{path.stem[:2]} {title(path)}")


def pages(*names) -> list:
    "Entries of pages of this folder that exist."
    return [dict(file=f"docs/{n}") for n in names if (DOCS / f"{n}.md").exists()]


def other_pages() -> list:
    "Pages of this folder that have no place of their own."
    placed = ("gallery", "api", *FOR_LECTURERS)
    return pages(*(p.stem for p in sorted(DOCS.glob("*.md")) if p.stem not in placed))


def reference(known: dict) -> list:
    "The pages of the modules under one head."
    sections = [dict(file=f"api/{module}") for module in known]
    names = ("CONTRIBUTING", "CHANGELOG")
    extra = [dict(file=name) for name in names if (ROOT / f"{name}.md").exists()]
    named = ("fmwsss/weights/MODEL_CARD", "tests/goldens/README")
    extra += [dict(file=name) for name in named if (ROOT / f"{name}.md").exists()]
    return [*pages("api"), *extra, dict(file="api/modules", sections=sections)]


def table_of_contents(known: dict) -> str:
    "Jupyter Book's _toc.yml as JSON, which is YAML too."
    rooms = {name: files(notebooks(f"nbs/{room}")) for room, name in ROOMS.items()}
    rooms[ROOMS["pretrain"]] += files(trainings())
    parts = [
        ("The path", [numbered(p) for p in notebooks(f"nbs/{PATH}")]),
        ("Labs", files(notebooks(f"nbs/{LABS}"))),
        ("Results", pages("gallery") + files(results())),
        ("For lecturers", pages(*FOR_LECTURERS)),
        ("In practice", other_pages()),
        *rooms.items(),
        ("Reference", files([NBS / "plots.ipynb"]) + reference(known)),
    ]
    parts = [dict(caption=caption, chapters=entries) for caption, entries in parts if entries]
    return json.dumps(dict(format="jb-book", root="nbs/index", parts=parts))


def collect():
    "Everything the site is made of, into SOURCE."
    shutil.rmtree(SOURCE, ignore_errors=True)
    labs = notebooks(f"nbs/{LABS}")
    for path in (*chapters(), *labs, *notebooks("benchmarks"), NBS / "index.ipynb"):
        copy_notebook(path)
    shutil.copytree(NBS / "images", SOURCE / "nbs" / "images")
    names = ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff")
    more = [ROOT / "fmwsss" / "weights" / "MODEL_CARD.md", ROOT / "tests" / "goldens" / "README.md"]
    for path in (*(ROOT / name for name in names), *more, *DOCS.glob("*.md")):
        if path.exists():
            target = SOURCE / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for path in DOCS.glob("*.csv"):
        shutil.copy(path, SOURCE / "docs")
    known = modules()
    (SOURCE / "api").mkdir()
    for module, chapter in known.items():
        page = api_page(module, chapter)
        (SOURCE / "api" / f"{module}.md").write_text(page, encoding="utf-8")
    text = "# Modules\n\nOne page for each module, in the order of the rooms.\n"
    (SOURCE / "api" / "modules.md").write_text(text, encoding="utf-8")
    (SOURCE / "_toc.yml").write_text(table_of_contents(known), encoding="utf-8")
    shutil.copy(DOCS / "_config.yml", SOURCE)
    (SOURCE / "_static").mkdir()
    shutil.copy(DOCS / "site.css", SOURCE / "_static")


# ---------------------------------------------------------------- building

LINK = r'<(?:a|img|iframe|link|script|image)\b[^>]*?\s(?:href|src|xlink:href)="([^"]+)"'


def is_local(link: str) -> bool:
    "Does a link stay inside the site?"
    return not re.match(r"[a-z]+:|//", link) and link not in ("#", "")


def broken_links(html: Path) -> list[str]:
    "Links and pictures inside a site that lead nowhere: list of 'page -> link'."
    found = [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]
    texts = {p: p.read_text(encoding="utf-8") for p in found}
    anchors = {p: set(re.findall(r'(?:id|name)="([^"]+)"', text)) for p, text in texts.items()}
    broken = []
    for page, text in texts.items():
        for link in filter(is_local, map(unescape, re.findall(LINK, text))):
            path, _, anchor = link.partition("#")
            target = page
            if path:
                target = (page.parent / unquote(path.partition("?")[0])).resolve()
            missing = anchor and target in anchors and unquote(anchor) not in anchors[target]
            if missing or not target.exists():
                broken.append(f"{page.relative_to(html)} -> {link}")
    return broken


def build() -> Path:
    "Build the site; returns the folder with index.html. Ends with the builder's code if it fails."
    collect()
    out = DOCS / "_build"
    shutil.rmtree(out / "html", ignore_errors=True)
    env = dict(os.environ, OMP_NUM_THREADS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    book = Path(sys.executable).parent / "jupyter-book"
    command = [book, "build", SOURCE, "--path-output", DOCS, "-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(command, env=env)
    if done.returncode:
        sys.exit(done.returncode)
    broken = broken_links(out / "html")
    if broken:
        sys.exit("links that lead nowhere:\n" + "\n".join(broken))
    return out / "html"


if __name__ == "__main__":
    page = build() / "index.html"
    print(page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page)
