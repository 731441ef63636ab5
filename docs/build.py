"""The notebooks as a web site: `python docs/build.py` writes docs/_build/html with Jupyter Book 1, offline and without running anything.

The notebooks, read as they are committed, are copied beside this folder's pages into docs/_build/source, laid out as in the repository, so that
their links hold; the API reference is written from the docstrings. A warning of the builder is an error."""
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
DOCS = ROOT / "docs"
SOURCE = DOCS / "_build" / "source"


def cells_for_readers(notebook):
    "A notebook without nbdev's directives; cells of directives alone are dropped, `echo: false` hides the code."
    kept = []
    for cell in notebook["cells"]:
        lines = "".join(cell["source"]).splitlines(keepends=True)
        code = [line for line in lines if not line.startswith("#|")]
        if cell["cell_type"] == "code":
            if not "".join(code).strip(): continue
            if any(line.replace(" ", "").startswith("#|echo:false") for line in lines): cell["metadata"]["tags"] = ["remove-input"]
            cell["source"] = "".join(code).strip("\n")
        kept.append(cell)
    return dict(notebook, cells=kept)


def clickable_path(notebook):
    "The path figure as part of the page, so that its boxes can be clicked, instead of a picture with links laid over it."
    svg = (ROOT / "nbs" / "images" / "path.svg").read_text(encoding="utf-8")
    svg = re.sub(r'href="\.\./([^"]+)\.ipynb"', r'href="\1.html"', svg).replace('height="716"', 'style="max-width:100%;height:auto"').strip()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown": cell["source"] = re.sub(r'<div [^>]*id="path">.*?</div>', lambda _: svg, "".join(cell["source"]), flags=re.S)
    return notebook


def copy_notebook(path):
    "One notebook, cleaned for readers, to its place in SOURCE."
    target = SOURCE / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(clickable_path(cells_for_readers(json.loads(path.read_text(encoding="utf-8"))))), encoding="utf-8")


def escape(text):
    "Plain text of a docstring as Markdown: `code` stays, all other signs stand for themselves."
    parts = text.split("`")
    if len(parts) % 2 == 0: parts = [text.replace("`", "'")]
    plain = lambda t: re.sub(r"([\\*_\[\]<>{}$|#~])", r"\\\1", t)
    return "".join(f"`{p}`" if i % 2 else plain(p) for i, p in enumerate(parts))


def signature(name, thing):
    "How a function or class is called, on one line."
    try: text = str(inspect.signature(thing))
    except (TypeError, ValueError): text = "(...)"
    return name + re.sub(r" at 0x[0-9a-f]+", "", text)


def entry(name, thing, depth=2, of=""):
    "Heading, signature and docstring of one name; the public methods of a class follow."
    call = signature(name, thing) if callable(thing) else f"{name} = {shorten(repr(thing))}"
    doc = inspect.getdoc(thing) if callable(thing) else None
    own = [] if not inspect.isclass(thing) else [(k, v) for k, v in vars(thing).items() if not k.startswith("_") and documented(v)]
    text = [f"{'#' * depth} {of}{name}", f"```python\n{call}\n```", escape(doc) if doc else ""]
    return "\n\n".join(text + [entry(k, unwrap(v), 3, f"{name}.") for k, v in own])


def unwrap(method): return getattr(method, "__func__", None) or getattr(method, "fget", None) or method


def documented(value): return inspect.isfunction(unwrap(value)) and bool(inspect.getdoc(unwrap(value)))


def shorten(text, most=90): return text if len(text) <= most else text[:most] + " ..."


def api_page(module, chapter):
    "The reference page of one module, in the order of its notebook."
    m = importlib.import_module(f"fmwsss.{module}")
    names = [n for n in m.__all__ if hasattr(m, n)]
    head = f"# {module}\n\n{escape((m.__doc__ or '').strip())}\n\nFrom the chapter [{chapter}](../nbs/{chapter}.ipynb), where each of these is built step by step."
    return "\n\n".join([head, *(entry(n, getattr(m, n)) for n in names)]) + "\n"


def title(path):
    "First heading of a notebook."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return next(line[2:] for c in cells for line in "".join(c["source"]).splitlines() if c["cell_type"] == "markdown" and line.startswith("# "))


def table_of_contents(chapters, labs, results, modules):
    "Jupyter Book's _toc.yml as JSON, which is YAML too."
    files = lambda paths: [dict(file=p.relative_to(ROOT).with_suffix("").as_posix()) for p in paths]
    number = lambda p: int(p.stem[:2])
    numbered = lambda p: dict(file=f"nbs/{p.stem}", title=f"{p.stem[:2]} {title(p)}")
    pick = lambda low, high: [numbered(p) for p in chapters if low <= number(p) < high]
    page = lambda *names: [dict(file=f"docs/{n}") for n in names if (DOCS / f"{n}.md").exists()]
    parts = [("The path", pick(0, 14)), ("In batch", pick(14, 20)), ("Rivals and tools", pick(20, 30)), ("How the miniatures were made", pick(30, 99)), ("Labs", files(labs)),
             ("Results", page("gallery") + files(results)), ("For lecturers", page("lecturer")), ("Reference", page("scale", "api") + [dict(file=f"api/{m}") for m in modules] + [dict(file="CONTRIBUTING"), dict(file="fmwsss/weights/MODEL_CARD")])]
    return json.dumps(dict(format="jb-book", root="nbs/index", parts=[dict(caption=c, chapters=f) for c, f in parts if f]))


def collect():
    "Everything the site is made of, into SOURCE."
    shutil.rmtree(SOURCE, ignore_errors=True)
    found = lambda folder, pattern: sorted((ROOT / folder).glob(pattern))
    chapters, labs = found("nbs", "[0-9]*.ipynb"), found("nbs/labs", "q*.ipynb")
    results = [p for p in found("benchmarks", "*.ipynb") if not p.stem.startswith("pretrain_")]
    for path in (*chapters, *labs, *found("benchmarks", "*.ipynb"), ROOT / "nbs" / "index.ipynb"): copy_notebook(path)
    shutil.copytree(ROOT / "nbs" / "images", SOURCE / "nbs" / "images")
    for path in (ROOT / "CONTRIBUTING.md", ROOT / "LICENSE", ROOT / "CITATION.cff", ROOT / "fmwsss" / "weights" / "MODEL_CARD.md", *DOCS.glob("*.md")):
        target = SOURCE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    modules = {p.stem.split("_", 1)[1]: p.stem for p in chapters}
    (SOURCE / "api").mkdir()
    for module, chapter in modules.items(): (SOURCE / "api" / f"{module}.md").write_text(api_page(module, chapter), encoding="utf-8")
    (SOURCE / "_toc.yml").write_text(table_of_contents(chapters, labs, results, modules), encoding="utf-8")
    shutil.copy(DOCS / "_config.yml", SOURCE)


def broken_links(html):
    "Links and pictures inside a site that lead nowhere: list of 'page -> link'."
    pages = {p: p.read_text(encoding="utf-8") for p in sorted(html.rglob("*.html")) if "_static" not in p.parts}
    anchors = {p: set(re.findall(r'(?:id|name)="([^"]+)"', text)) for p, text in pages.items()}
    broken = []
    for page, text in pages.items():
        for link in re.findall(r'<(?:a|img|iframe|link|script|image)\b[^>]*?\s(?:href|src|xlink:href)="([^"]+)"', text):
            link = unescape(link)
            if re.match(r"[a-z]+:|//", link) or link in ("#", ""): continue
            path, _, anchor = link.partition("#")
            target = page if not path else (page.parent / unquote(path.partition("?")[0])).resolve()
            if not target.exists() or (anchor and target in anchors and unquote(anchor) not in anchors[target]): broken.append(f"{page.relative_to(html)} -> {link}")
    return broken


def build():
    "Build the site; returns the folder with index.html. Ends the program with the builder's code if it fails."
    collect()
    out = DOCS / "_build"
    shutil.rmtree(out / "html", ignore_errors=True)
    env = dict(os.environ, OMP_NUM_THREADS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    done = subprocess.run([Path(sys.executable).parent / "jupyter-book", "build", SOURCE, "--path-output", DOCS, "-W", "-n", "--keep-going", "-q"], env=env)
    if done.returncode: sys.exit(done.returncode)
    broken = broken_links(out / "html")
    if broken: sys.exit("links that lead nowhere:\n" + "\n".join(broken))
    return out / "html"


if __name__ == "__main__": print(f"{build().relative_to(Path.cwd()) if ROOT == Path.cwd() else DOCS / '_build' / 'html'}/index.html")
