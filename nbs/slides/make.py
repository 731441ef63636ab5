"""Lectures as reveal.js slides, offline: `python nbs/slides/make.py [--out docs/_build/slides]`.

A deck is a Markdown file: slides between lines of `---`, pictures taken from the executed chapters,
so a slide shows what its chapter shows. In a slide:

    figure: method/04_cam.ipynb | The whole batch | 1     the first figure below that heading
    demo: method/07_sams.ipynb | Painting | 1 | 3 x 2     the same, cut into frames with a slider
    note: what the lecturer says (key S opens the speaker's window)
    include: lecture.md | The control | Your turn | 0 to 15     slides of another deck, from the
        title to the title, in these minutes of this one

Each deck is one HTML file beside the folder `reveal`: no network, no kernel, nothing to fail."""

import argparse
import base64
import io
import json
import re
import shutil
import sys
from html import escape
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from PIL import Image

HERE = Path(__file__).resolve().parent
KINDS = ("image/png", "image/jpeg")
MINUTES = re.compile(r"^note: \d+ to \d+ minutes\. *", re.M)
STYLE = """<style>
html, body, main { height: 100%; margin: 0; overflow: hidden; background: white; }
.reveal { font: 30px/1.35 "DejaVu Sans", Verdana, Arial, sans-serif; color: #1b1b1b; }
.reveal .slides { text-align: left; }
.reveal .slides section { padding: 0; }
.reveal section .jp-RenderedHTMLCommon, .reveal section .frames {
  display: flex; flex-direction: column; min-height: 0; font-size: inherit; }
.reveal section .jp-RenderedHTMLCommon { height: 680px; }
.reveal section:not(:has(img)) .jp-RenderedHTMLCommon { font-size: 1.25em; }
.reveal .frames { flex: 0 1 auto; }
.reveal section .jp-RenderedHTMLCommon > :nth-child(2) { margin-top: auto; }
.reveal section .jp-RenderedHTMLCommon > :last-child { margin-bottom: auto; }
.reveal h1 { font-size: 1.7em; }
.reveal h2 { font-size: 1.35em; }
.reveal h1, .reveal h2 { line-height: 1.2; margin: 0 0 .5em; }
.reveal p, .reveal ul, .reveal ol { flex: none; margin: 0 0 .6em; }
.reveal pre { font-size: .72em; margin: 0 0 1em; }
.reveal img { width: 100%; min-height: 0; flex: 0 1 auto; object-fit: contain; }
.reveal img[hidden] { display: none; }
.reveal small { display: block; text-align: right; color: #555; font-size: .5em; }
.reveal input[type=range] { flex: none; width: 60%; margin: .5em auto; accent-color: #b03a3a; }
.reveal .slide-number { font-size: 18px; color: #555; background: none; }
.jp-InputPrompt, a.anchor-link { display: none !important; }
</style>"""
SLIDER = """<div class="frames">{images}
<input type="range" min="0" max="{last}" value="0" aria-label="step"
oninput="[...this.parentNode.querySelectorAll('img')].forEach((x, i) =>
x.hidden = i != this.value)"></div>"""
START = """<script src="reveal/reveal.js"></script><script src="reveal/notes.js"></script>
<script>Reveal.initialize({hash: true, slideNumber: "c/t", width: 1280, height: 720, center: false,
controls: false, transition: "none", plugins: [RevealNotes]});</script>"""


def figure(chapter: str, heading: str, number: str) -> tuple:
    "The `number`-th figure (from 1) below a heading of a chapter -> (kind, bytes)."
    path = HERE.parent / chapter
    if not path.exists():
        raise LookupError(f"there is no chapter nbs/{chapter}")
    below, found = "", []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            heads = [x for x in "".join(cell["source"]).splitlines() if x.startswith("#")]
            below = heads[-1].lstrip("# ") if heads else below
        if below != heading:
            continue
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found += [(k, base64.b64decode("".join(data[k]))) for k in KINDS if k in data][:1]
    if len(found) < int(number):
        words = f"nbs/{chapter} has {len(found)} figures below '{heading}', not {number}"
        raise LookupError(f"{words}: correct the deck, or execute the chapter")
    return found[int(number) - 1]


def shown(kind: str, data: bytes, says: str, hidden: bool = False) -> str:
    "An <img> with the picture in it; `says` is read out where it cannot be seen."
    text, more = base64.b64encode(data).decode(), " hidden" if hidden else ""
    return f'<img alt="{escape(says)}" src="data:{kind};base64,{text}"{more}>'


def frames(data: bytes, columns: int, rows: int) -> list:
    "A figure of columns x rows panels, cut into its panels: PNG bytes."
    image, cut = Image.open(io.BytesIO(data)).convert("RGB"), []
    width, height = image.width / columns, image.height / rows
    for k in range(columns * rows):
        x, y = (k % columns) * width, (k // columns) * height
        panel = image.crop(tuple(map(int, (x, y, x + width, y + height))))
        panel = panel.resize((2 * panel.width, 2 * panel.height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        panel.save(buffer, "PNG")
        cut.append(buffer.getvalue())
    return cut


def line_of(line: str) -> str:
    "One line of a slide, figures and demonstrations resolved."
    word, _, rest = line.partition(":")
    parts = [p.strip() for p in rest.split("|")]
    if word == "figure":
        source = f"{parts[0].removeprefix('../')}, {parts[1]}"
        return f"{shown(*figure(*parts), f'Figure of {source}')}\n\n<small>{source}</small>"
    if word == "demo":
        columns, rows = (int(n) for n in parts[3].split("x"))
        each = frames(figure(*parts[:3])[1], columns, rows)
        images = "".join(
            shown("image/png", data, f"{parts[1]}, step {k + 1}", k > 0)
            for k, data in enumerate(each)
        )
        return SLIDER.format(images=images, last=len(each) - 1)
    return line


def cells_of(slide: str) -> list:
    "A slide as notebook cells: what is shown, and the speaker's notes."
    lines = slide.strip().splitlines()
    notes = [x.removeprefix("note:").strip() for x in lines if x.startswith("note: ")]
    text = "\n".join(line_of(x) for x in lines if not x.startswith("note:"))
    make = nbformat.v4.new_markdown_cell
    found = [make(text, metadata=dict(slideshow=dict(slide_type="slide")))]
    if notes:
        found.append(make("\n\n".join(notes), metadata=dict(slideshow=dict(slide_type="notes"))))
    return found


def title_of(slide: str) -> str:
    "The heading of a slide."
    return slide.strip().partition("\n")[0].lstrip("# ")


def included(deck: str, first: str, last: str, minutes: str) -> list:
    "Slides of another deck, with the minutes that they have in this one."
    slides = slides_of((HERE / deck).read_text(encoding="utf-8"))
    titles = [title_of(slide) for slide in slides]
    missing = [title for title in (first, last) if title not in titles]
    if missing:
        raise LookupError(f"nbs/slides/{deck} has no slide '{missing[0]}'")
    found = [MINUTES.sub("note: ", s) for s in slides[titles.index(first) :]]
    found = found[: titles.index(last) - titles.index(first) + 1]
    return [f"{found[0].rstrip()}\nnote: {minutes} minutes.\n", *found[1:]]


def slides_of(deck: str) -> list:
    "The slides of a deck (Markdown text), those of other decks in their places."
    found = []
    for slide in ("\n" + deck).split("\n---\n"):
        word, _, rest = slide.strip().partition(":")
        if word == "include":
            found += included(*(part.strip() for part in rest.split("|")))
        elif slide.strip():
            found.append(slide)
    return found


def notebook_of(deck: str) -> nbformat.NotebookNode:
    "The slides of a deck (Markdown text) as a notebook."
    return nbformat.v4.new_notebook(cells=[c for s in slides_of(deck) for c in cells_of(s)])


def offline(html: str, title: str = "Lecture") -> str:
    "nbconvert's page without what it would load from the network, with the reveal.js beside it."
    body = html[html.index("<body") : html.index("</main>") + len("</main>")]
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    head += f"<title>{title}</title>"
    css = '<link rel="stylesheet" href="reveal/reveal.css">'
    return f"{head}{css}{STYLE}</head>{body}{START}</body></html>"


def make(deck: Path, out: Path) -> Path:
    "Write the slides of a deck into the folder `out`: notebook and HTML; returns the HTML."
    text = deck.read_text(encoding="utf-8")
    notebook = notebook_of(text)
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / f"{deck.stem}.ipynb")
    html, _ = SlidesExporter().from_notebook_node(notebook)
    path = out / f"{deck.stem}.html"
    path.write_text(offline(html, escape(title_of(text))), encoding="utf-8")
    shutil.copytree(HERE / "reveal", out / "reveal", dirs_exist_ok=True)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="docs/_build/slides")
    arguments = parser.parse_args()
    try:
        for deck in sorted(HERE.glob("*.md")):
            print(make(deck, Path(arguments.out)))
    except LookupError as error:
        sys.exit(f"make.py: {error}")


if __name__ == "__main__":
    main()
