"""Large runs of the labs: `python nbs/labs/full.py q01 [q05 ...]` (all labs without a name).

Each lab's own cells are executed with FMWSSS_LAB=large: more pictures, three training seeds. What
the lab states is written to `results/qNN.csv`, with the command, the date and the commit before it.
What was trained once is kept, so a run that was stopped goes on where it stopped."""
import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import course  # noqa: E402

LAST = "print(lab.figures.to_csv(index=False))"


def git(*words: str) -> str:
    "What git says in this folder."
    done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True)
    return done.stdout.strip()


def code_of(text: str) -> list:
    "The code cells of a notebook's text."
    found = json.loads(text)["cells"] if text else []
    return ["".join(c["source"]) for c in found if c["cell_type"] == "code"]


def commit(path: Path) -> str:
    "The commit of the code, with '+' if the package or the lab's code was changed since."
    there = code_of(git("show", f"HEAD:./{path.name}"))
    here = code_of(path.read_text(encoding="utf-8"))
    changed = git("status", "--porcelain", "--", "../../fmwsss") or there != here
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def large_run(path: Path) -> str:
    "Execute a lab in its large size -> its figures as CSV."
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST))
    os.environ["FMWSSS_LAB"] = "large"
    resources = dict(metadata=dict(path=str(path.parent)))
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    return notebook.cells[-1].outputs[0]["text"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labs", nargs="*", help="names, or how they start (q01); all without one")
    arguments = parser.parse_args()
    for path in course.find_labs(arguments.labs):
        name = path.stem[:3]
        wall = time.perf_counter()
        table = large_run(path)
        minutes = (time.perf_counter() - wall) / 60
        head = [
            f"# Large run: python nbs/labs/full.py {name}",
            f"# {datetime.date.today()}, commit {commit(path)}, {minutes:.0f} minutes",
        ]
        (HERE / "results").mkdir(exist_ok=True)
        text = "\n".join([*head, table.strip(), ""])
        (HERE / "results" / f"{name}.csv").write_text(text, encoding="utf-8")
        print(f"{name}: {minutes:.0f} minutes, figures in results/{name}.csv", flush=True)


if __name__ == "__main__":
    main()
