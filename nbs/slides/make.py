"""The lecture as reveal.js slides, offline: `python nbs/slides/make.py [--out docs/_build/slides]`.

A deck is a Markdown file: slides between lines of `---`, pictures taken from the executed chapters,
so a slide shows what its chapter shows. In a slide:

    figure: method/04_cam.ipynb | The whole batch | 1     the first figure below that heading
    demo: method/07_sams.ipynb | Painting | 1 | 3 x 2     the same, cut into frames with a slider
    note: what the lecturer says (key S opens the speaker's window)

All lies in one HTML file beside the folder `reveal`: no network, no kernel, nothing to fail."""
import argparse
import base64
import io
import json
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from PIL import Image

HERE = Path(__file__).resolve().parent
KINDS = ("image/png", "image/jpeg")
STYLE = """<style>
.reveal { font: 26px/1.35 "DejaVu Sans", Arial, sans-serif; color: #1b1b1b; }
.reveal .slides { text-align: left; }
.reveal h1 { font-size: 1.7em; }
.reveal h2 { font-size: 1.35em; }
.reveal h1, .reveal h2 { margin: 0 0 .5em; }
.reveal img { max-width: 100%; max-height: 470px; display: block; margin: .3em auto; }
.reveal small { color: #555; font-size: .55em; }
.reveal input[type=range] { width: 60%; display: block; margin: .4em auto; }
.jp-InputPrompt { display: none; } .jp-RenderedHTMLCommon { font-size: inherit; }
body { background: white; }
a.anchor-link { display: none; }
</style>"""
SLIDER = """<div class="frames">{images}
<input type="range" min="0" max="{last}" value="0" aria-label="step"
oninput="[...this.parentNode.querySelectorAll('img')].forEach((x, i) =>
x.hidden = i != this.value)"></div>"""
START = """<script src="reveal/reveal.js"></script><script src="reveal/notes.js"></script>
<script>Reveal.initialize({hash: true, slideNumber: true, width: 1100, height: 720, center: false,
transition: "none", plugins: [RevealNotes]});</script>"""


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


def shown(kind: str, data: bytes, hidden: bool = False) -> str:
    "An <img> with the picture in it."
    text = base64.b64encode(data).decode()
    return f'<img alt="" src="data:{kind};base64,{text}"{" hidden" if hidden else ""}>'


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
        return f"{shown(*figure(*parts))}\n\n<small>{parts[0]}, {parts[1]}</small>"
    if word == "demo":
        columns, rows = (int(n) for n in parts[3].split("x"))
        each = frames(figure(*parts[:3])[1], columns, rows)
        images = "".join(shown("image/png", data, k > 0) for k, data in enumerate(each))
        return SLIDER.format(images=images, last=len(each) - 1)
    return line


def cells_of(slide: str) -> list:
    "A slide as notebook cells: what is shown, and the speaker's notes."
    lines = slide.strip().splitlines()
    notes = [x.removeprefix("note:").strip() for x in lines if x.startswith("note:")]
    text = "\n".join(line_of(x) for x in lines if not x.startswith("note:"))
    make = nbformat.v4.new_markdown_cell
    found = [make(text, metadata=dict(slideshow=dict(slide_type="slide")))]
    if notes:
        found.append(make("\n\n".join(notes), metadata=dict(slideshow=dict(slide_type="notes"))))
    return found


def notebook_of(deck: str) -> nbformat.NotebookNode:
    "The slides of a deck (Markdown text) as a notebook."
    slides = [s for s in ("\n" + deck).split("\n---\n") if s.strip()]
    return nbformat.v4.new_notebook(cells=[c for s in slides for c in cells_of(s)])


def offline(html: str) -> str:
    "nbconvert's page without what it would load from the network, with the reveal.js beside it."
    body = html[html.index("<body") : html.index("</main>") + len("</main>")]
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Lecture</title>'
    css = '<link rel="stylesheet" href="reveal/reveal.css">'
    return f"{head}{css}{STYLE}</head>{body}{START}</body></html>"


def make(deck: Path, out: Path) -> Path:
    "Write the slides of a deck into the folder `out`: notebook and HTML; returns the HTML."
    notebook = notebook_of(deck.read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / f"{deck.stem}.ipynb")
    html, _ = SlidesExporter().from_notebook_node(notebook)
    path = out / f"{deck.stem}.html"
    path.write_text(offline(html), encoding="utf-8")
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
