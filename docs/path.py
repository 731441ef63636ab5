"""The path and the rooms as one figure: `python docs/path.py` writes nbs/images/path.svg.

Each box is a link to its chapter, or to the first notebook of its room. `--map` prints the picture
with links laid over it, as HTML for a Markdown cell (links inside a picture cannot be clicked)."""

import sys
from html import escape
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / "nbs"
WIDTH, HEIGHT = 1000, 524
BOX_HEIGHT = 54
CHAPTER_WIDTH, ROOM_WIDTH = 164, 130
GREY = "#767676"  # lines and words outside boxes: 4.5:1 on white and on black
KINDS = dict(  # fill and edge
    data=("#dbe9f6", "#3b6ea5"),
    clip=("#fde3c8", "#b8651b"),
    sam=("#dcf0d8", "#3f8a35"),
    seed=("#f7d6d6", "#b03a3a"),
    learn=("#e9def5", "#7a4fb0"),
    tool=("#e8e8e8", "#6b6b6b"),
)
CHAPTERS = {  # number: (name, second line, x, y, kind)
    1: ("labels", "a name, not a place", 20, 40, "data"),
    2: ("CLIP", "picture meets text", 216, 40, "clip"),
    3: ("prompts", "a sentence to learn", 20, 150, "learn"),
    4: ("CAM", "where is the class?", 216, 150, "clip"),
    5: ("affinity", "spread over objects", 412, 150, "clip"),
    6: ("masks", "SAM cuts, no names", 608, 40, "sam"),
    7: ("SAMS", "masks get classes", 608, 150, "seed"),
    8: ("losses", "what do we ask for?", 216, 260, "learn"),
    9: ("training", "the contexts learn", 20, 260, "learn"),
    10: ("coarse to fine", "seeds teach again", 412, 260, "seed"),
    11: ("evaluation", "is a mask right?", 816, 260, "tool"),
    12: ("build it", "the path in blanks", 816, 40, "tool"),
    13: ("shapes", "all tensors drawn", 412, 40, "tool"),
}
ROOMS = {  # room: (second line, x, y, kind)
    "minivoc": ("the drawn world", 20, 384, "data"),
    "data": ("your pictures", 158, 384, "data"),
    "models": ("CLIP and SAM", 296, 384, "clip"),
    "sources": ("others' masks", 434, 384, "sam"),
    "refiners": ("rivals of SAMS", 572, 384, "sam"),
    "study": ("train, measure", 710, 384, "seed"),
    "explore": ("knobs by hand", 848, 384, "seed"),
    "fast": ("same, sooner", 20, 456, "tool"),
    "files": ("nothing is lost", 158, 456, "tool"),
    "engine": ("many pictures", 296, 456, "tool"),
    "report": ("a page of a run", 434, 456, "tool"),
    "app": ("commands", 572, 456, "tool"),
    "pretrain": ("the miniatures", 710, 456, "learn"),
    "labs": ("ten questions", 848, 456, "learn"),
}
WORDS = [
    (20, 26, "the path: the whole method, step by step"),
    (20, 372, "the rooms: what the method needs to run on your pictures"),
    (700, 332, "coarse seeds teach"),
    (700, 349, "the second task"),
]
ARROWS = [
    "M184 67H216",
    "M298 94V150",
    "M184 177H216",
    "M380 177H412",
    "M576 177H608",
    "M690 94V150",
    "M772 177H816",
    "M898 204V260",
    "M298 204V260",
    "M216 287H184",
    "M102 260V204",
]
LOOP = ["M690 204V340H494V314", "M412 287H380"]  # seeds -> coarse to fine -> losses
GOAL = (816, 150)  # what it is all for; not a chapter


def chapter(number: int) -> str | None:
    "A chapter of the path, as a path below nbs/, or None while it is not there."
    found = sorted((NBS / "method").glob(f"{number:02}_*.ipynb"))
    return found[0].relative_to(NBS).as_posix() if found else None


def first_of(room: str) -> str | None:
    "The page of a room, else its first notebook, as a path below nbs/."
    found = sorted((NBS / room).glob("*.ipynb"), key=lambda p: (p.stem != f"00_{room}", p))
    return found[0].relative_to(NBS).as_posix() if found else None


def boxes() -> list:
    "(target, title, second line, x, y, width, kind) of everything that can be clicked."
    path = [(chapter(n), f"{n:02} {name}", *rest) for n, (name, *rest) in CHAPTERS.items()]
    rooms = [(first_of(room), room, *rest) for room, rest in ROOMS.items()]
    placed = [(t, name, line, x, y, CHAPTER_WIDTH, k) for t, name, line, x, y, k in path if t]
    return placed + [(t, name, line, x, y, ROOM_WIDTH, k) for t, name, line, x, y, k in rooms if t]


def words_in_box(name: str, line: str, x: float, y: float, width: float) -> str:
    "The two lines of a box."
    middle = x + width / 2
    first = f'<text x="{middle:g}" y="{y + 23}" class="name">{escape(name)}</text>'
    return first + f'<text x="{middle:g}" y="{y + 41}" class="line">{escape(line)}</text>'


def rectangle(x, y, width, fill, edge, thick=1.5) -> str:
    "A rounded box."
    size = f'x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="8"'
    return f'<rect {size} fill="{fill}" stroke="{edge}" stroke-width="{thick}"/>'


def linked_box(target, name, line, x, y, width, kind) -> str:
    "A box that leads to its notebook."
    title = f"<title>{escape(name)}: {escape(line)}</title>"
    shape = rectangle(x, y, width, *KINDS[kind]) + words_in_box(name, line, x, y, width)
    return f'<a href="../{target}" target="_top">{title}{shape}</a>'


def style() -> str:
    "Style sheet of the figure, for itself alone."
    font = "font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
    rules = {
        "text": f"{font};text-anchor:middle;fill:#1c1c1c",
        ".name": "font-size:15px;font-weight:600",
        ".line": "font-size:14px",
        ".word": f"font-size:14px;text-anchor:start;fill:{GREY}",
        "a:hover rect,#fmwsss-path a:focus rect": "stroke-width:3",
    }
    return "".join(f"#fmwsss-path {name}{{{rule}}}" for name, rule in rules.items())


def head() -> str:
    "Opening tag, title, style and arrow head."
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    title = "The path through the chapters, from image and labels to pseudo label, and the rooms"
    marker = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" id="fmwsss-path" {size} role="img" '
        f'aria-labelledby="path-title"><title id="path-title">{title}</title>'
        f"<style>{style()}</style><defs>{marker}</defs>"
    )


def arrow(d: str, dashes: str = "") -> str:
    "An arrow along a path."
    look = f'fill="none" stroke="{GREY}" stroke-width="1.6" marker-end="url(#tip)"'
    return f'<path d="{d}" {look}{dashes}/>'


def figure() -> str:
    "The whole SVG file as text."
    dashed = ' stroke-dasharray="5 4"'
    lines = [*map(arrow, ARROWS), *(arrow(d, dashed) for d in LOOP)]
    words = [f'<text x="{x}" y="{y}" class="word">{escape(text)}</text>' for x, y, text in WORDS]
    goal = rectangle(*GOAL, CHAPTER_WIDTH, "#fff3bf", "#b08900", 2.5)
    goal += words_in_box("pseudo label", "a class a pixel", *GOAL, CHAPTER_WIDTH)
    shapes = [linked_box(*box) for box in boxes()]
    return "\n".join([head(), *lines, *words, goal, *shapes, "</svg>"]) + "\n"


def image_map() -> str:
    "The figure for a Markdown cell: the picture, and a link over each box."
    links = []
    for target, name, _, x, y, width, _ in boxes():
        place = f"display:block;position:absolute;left:{x}px;top:{y}px;"
        place += f"width:{width}px;height:{BOX_HEIGHT}px"
        links.append(f'<a href="{target}" title="{escape(name)}" style="{place}"></a>')
    text = "The path through the chapters, from image and labels to pseudo label, and the rooms"
    picture = f'<img src="images/path.svg" width="{WIDTH}" alt="{text}" style="max-width:none">'
    frame = f'<div style="position:relative;width:{WIDTH}px" id="path">'
    return "\n".join([frame, picture, *links, "</div>"])


if __name__ == "__main__":
    if "--map" in sys.argv:
        print(image_map())
    else:
        (NBS / "images" / "path.svg").write_text(figure(), encoding="utf-8")
