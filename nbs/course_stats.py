"""What a reader of the course has before him, in numbers: `python nbs/course_stats.py`.

For every chapter of the path and every lab: words of prose, code cells, lines a cell (median,
longest), figures, lines that are exported; `--run` executes each and measures its seconds.
`--check` ends with an error where a chapter is beyond the limits below."""

import argparse
import json
import re
import statistics
import sys
import time
from pathlib import Path

NBS = Path(__file__).resolve().parent
LIMITS = dict(words=900, median=4, longest=12)  # of a chapter
PATH_LINES = 1200  # exported, all chapters together
FOLDED = re.compile(r"<details>.*?</details>", re.S)
FIGURES = ("image/png", "image/jpeg", "image/svg+xml")


def chapters() -> list:
    "The notebooks of the path, in order: those of nbs/method that export a module."
    found = sorted((NBS / "method").glob("[0-9]*.ipynb"))
    return [path for path in found if any(exported(cell) for cell in cells(path))]


def labs() -> list:
    return sorted((NBS / "labs").glob("q*.ipynb"))


def cells(path) -> list:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell) -> str:
    return "".join(cell["source"])


def exported(cell) -> bool:
    return cell["cell_type"] == "code" and source(cell).startswith("#| export")


def lines(cell) -> list:
    "Lines of code: no blank ones, no directives."
    return [x for x in source(cell).splitlines() if x.strip() and not x.startswith("#|")]


def words(cell) -> int:
    "Words of prose: without what is folded (solutions, answers), formulas and targets of links."
    text = FOLDED.sub("", source(cell))
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$", " ", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|```.*?```", " ", text, flags=re.S)
    return len(re.findall(r"[A-Za-z][\w'-]*", text))


def figures(cell) -> int:
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    return sum(any(kind in d for kind in FIGURES) for d in data)


def seconds(path) -> float:
    "How long the notebook takes, in a kernel of its own; nothing is written."
    import nbformat
    from nbclient import NotebookClient

    start = time.perf_counter()
    place = dict(metadata=dict(path=str(path.parent)))
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=place).execute()
    return time.perf_counter() - start


def measure(path) -> dict:
    "The numbers of one notebook."
    code = [cell for cell in cells(path) if cell["cell_type"] == "code" and lines(cell)]
    prose = [cell for cell in cells(path) if cell["cell_type"] == "markdown"]
    sizes = [len(lines(cell)) for cell in code]
    return dict(
        name=path.stem,
        words=sum(map(words, prose)),
        cells=len(code),
        median=statistics.median(sizes) if sizes else 0,
        longest=max(sizes, default=0),
        figures=sum(map(figures, code)),
        exported=sum(len(lines(cell)) for cell in code if exported(cell)),
    )


def beyond(row) -> list:
    "What of a chapter is beyond the limits, in words."
    return [f"{row['name']}: {k} {row[k]}, at most {v}" for k, v in LIMITS.items() if row[k] > v]


def show(title: str, rows: list):
    "A table on the screen, with its sums."
    columns = list(rows[0])
    width = max(len(row["name"]) for row in rows)
    print(f"{title:{width}s} " + " ".join(f"{c:>8s}" for c in columns[1:]))
    for row in rows:
        print(f"{row['name']:{width}s} " + " ".join(f"{row[c]:8g}" for c in columns[1:]))
    summed = [c for c in columns[1:] if c not in ("median", "longest")]
    total = {c: f"{sum(row[c] for row in rows):8g}" for c in summed}
    print(f"{'all':{width}s} " + " ".join(total.get(c, " " * 8) for c in columns[1:]) + "\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="execute, and measure the seconds")
    parser.add_argument("--check", action="store_true", help="an error beyond the limits")
    parser.add_argument("names", nargs="*", help="only these: a part of the name")
    options = parser.parse_args(arguments)
    wanted = lambda path: not options.names or any(n in path.stem for n in options.names)
    tables = {}
    for title, paths in (("chapter", chapters()), ("lab", labs())):
        rows = [measure(path) for path in paths if wanted(path)]
        for row, path in zip(rows, filter(wanted, paths)):
            row |= dict(seconds=round(seconds(path), 1)) if options.run else {}
        tables[title] = rows
        if rows:
            show(title, rows)
    wrong = [text for row in tables["chapter"] for text in beyond(row)]
    total = sum(row["exported"] for row in tables["chapter"])
    wrong += [f"the path: {total} exported lines, at most {PATH_LINES}"] * (total > PATH_LINES)
    print("\n".join(wrong) or "every chapter is within its limits")
    return int(bool(wrong) and options.check)


if __name__ == "__main__":
    sys.exit(main())
