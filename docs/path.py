"""The path through the chapters as one figure: `python docs/path.py` writes nbs/images/path.svg, each box a link to its chapter.

`--map` prints the picture with its links as HTML for a Markdown cell (the links inside a picture cannot be clicked)."""
import sys
from html import escape
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / "nbs"
WIDTH, HEIGHT, H = 1000, 716, 54
width = lambda y: 132 if y == 536 else 150                     # seven boxes in the row of tools
# kind: fill, edge; the text on them is dark, whatever the page around looks like. Lines and words outside boxes have 4.5:1 on white and on black.
KINDS = dict(data=("#dbe9f6", "#3b6ea5"), clip=("#fde3c8", "#b8651b"), sam=("#dcf0d8", "#3f8a35"), seed=("#f7d6d6", "#b03a3a"), learn=("#e9def5", "#7a4fb0"), tool=("#e8e8e8", "#6b6b6b"))
GREY = "#767676"
# number: (name, second line, column x, row y, kind)
BOXES = {
    0: ("names", "what CLIP reads", 20, 40, "data"), 1: ("minivoc", "drawn pictures", 190, 40, "data"), 2: ("data", "image and labels", 360, 40, "data"),
    3: ("models", "frozen CLIP and SAM", 610, 40, "data"),
    4: ("features", "computed once", 360, 150, "clip"), 5: ("prompts", "a sentence to learn", 20, 250, "learn"), 6: ("cam", "where is the class?", 190, 250, "clip"),
    7: ("affinity", "spread over the object", 360, 250, "clip"), 9: ("superpixels", "masks without a class", 730, 150, "sam"),
    10: ("sams", "masks get classes", 560, 250, "seed"), 11: ("crf", "the rival of masks", 360, 350, "sam"), 26: ("refiners", "compared fairly", 640, 350, "sam"), 12: ("evaluation", "when is a mask right?", 830, 350, "tool"),
    8: ("losses", "what do we ask for?", 190, 350, "learn"), 13: ("training", "learn, twice", 20, 350, "learn"),
    22: ("segmentation", "a network learns from it", 830, 440, "tool"),
    14: ("pipeline", "loses nothing", 20, 536, "tool"), 15: ("plots", "figures", 158, 536, "tool"), 16: ("report", "the page", 296, 536, "tool"), 17: ("runner", "reproduce", 434, 536, "tool"),
    18: ("cli", "commands", 572, 536, "tool"), 19: ("method", "all as one object", 710, 536, "tool"), 25: ("plan", "hours before a run", 848, 536, "tool"),
    24: ("explore", "every knob by hand", 20, 642, "seed"), 20: ("affinitynet", "learned affinity", 182, 642, "clip"), 21: ("pamr", "refined by colour", 344, 642, "clip"), 23: ("clip_es", "the ancestor", 506, 642, "clip"),
    30: ("pretrain_clip", "miniature CLIP", 668, 642, "tool"), 31: ("pretrain_sam", "miniature SAM", 830, 642, "tool"),
}
WORDS = [(20, 28, "image and image-level labels"), (20, 524, "the same for many images"), (20, 630, "try it, compare it, and how the miniatures were made"), (280, 458, "coarse seeds teach the prompts of the second task")]
ARROWS = ["M170 67H190", "M340 67H360", "M510 67H610", "M660 94V122H435V150", "M710 94V122H805V150", "M435 204V226H265V250", "M170 277H190", "M340 277H360", "M510 277H560",
          "M805 204V226H635V250", "M435 304V350", "M265 304V350", "M710 277H830", "M690 304V350", "M905 304V350", "M190 377H170", "M95 350V304", "M905 404V440"]
LOOP = "M590 304V438H265V404"                                   # seeds -> training, dashed: for the second task
PSEUDO = (830, 250)                                              # what it is all for; not a chapter


def chapter(number):
    "File name of a chapter, or None while it is not there."
    return next((p.name for p in NBS.glob(f"{number:02}_*.ipynb")), None)


def box(number, x, y, name, line, kind):
    (fill, edge), W = KINDS[kind], width(y)
    shape = (f'<rect x="{x}" y="{y}" width="{W}" height="{H}" rx="8" fill="{fill}" stroke="{edge}" stroke-width="1.5"/>'
             f'<text x="{x + W / 2:g}" y="{y + 23}" class="name">{number:02} {escape(name)}</text><text x="{x + W / 2:g}" y="{y + 41}" class="line">{escape(line)}</text>')
    return f'<a href="../{chapter(number)}" target="_top"><title>{number:02} {escape(name)}: {escape(line)}</title>{shape}</a>'


def figure():
    "The whole SVG file as text; chapters that are not there are left out."
    (x, y), W = PSEUDO, width(0)
    style = f"#fmwsss-path text{{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;text-anchor:middle;fill:#1c1c1c}}#fmwsss-path .name{{font-size:15px;font-weight:600}}#fmwsss-path .line{{font-size:12px}}#fmwsss-path .word{{font-size:13px;text-anchor:start;fill:{GREY}}}#fmwsss-path a:hover rect,#fmwsss-path a:focus rect{{stroke-width:3}}"
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" id="fmwsss-path" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="path-title"><title id="path-title">The path through the chapters, from image and labels to pseudo label</title>'
            f'<style>{style}</style><defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker></defs>')
    lines = [f'<path d="{d}" fill="none" stroke="{GREY}" stroke-width="1.6" marker-end="url(#tip)"/>' for d in ARROWS if chapter(22) or not d.endswith("V440")]
    lines.append(f'<path d="{LOOP}" fill="none" stroke="{GREY}" stroke-width="1.6" stroke-dasharray="5 4" marker-end="url(#tip)"/>')
    words = [f'<text x="{a}" y="{b}" class="word">{escape(t)}</text>' for a, b, t in WORDS]
    goal = f'<rect x="{x}" y="{y}" width="{W}" height="{H}" rx="8" fill="#fff3bf" stroke="#b08900" stroke-width="2.5"/><text x="{x + W / 2:g}" y="{y + 23}" class="name">pseudo label</text><text x="{x + W / 2:g}" y="{y + 41}" class="line">a class for every pixel</text>'
    boxes = [box(n, bx, by, name, line, kind) for n, (name, line, bx, by, kind) in BOXES.items() if chapter(n)]
    return "\n".join([head, *lines, *words, goal, *boxes, "</svg>"]) + "\n"


def image_map():
    "The figure for a Markdown cell: the picture, and a link over each box (JupyterLab drops HTML image maps and links inside pictures)."
    place = lambda x, y: f"display:block;position:absolute;left:{x}px;top:{y}px;width:{width(y)}px;height:{H}px"
    links = [f'<a href="{chapter(n)}" title="{n:02} {escape(name)}" style="{place(x, y)}"></a>' for n, (name, _, x, y, _) in BOXES.items() if chapter(n)]
    picture = f'<img src="images/path.svg" width="{WIDTH}" alt="The path through the chapters, from image and labels to pseudo label" style="max-width:none">'
    return "\n".join([f'<div style="position:relative;width:{WIDTH}px" id="path">', picture, *links, "</div>"])


if __name__ == "__main__":
    if "--map" in sys.argv: print(image_map())
    else: (NBS / "images" / "path.svg").write_text(figure(), encoding="utf-8")
