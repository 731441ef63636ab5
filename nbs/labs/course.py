"""The students' edition of the labs: `python nbs/labs/course.py [lab ...] [--out build/course]`.

`source/` holds the labs with solutions, `release/` what students get: a first page, the labs with
solutions and hidden tests removed, and the chapters of the path. `submitted/<student>/<lab>/` is
where their work goes; then `nbgrader autograde <lab>` in that folder."""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
from links import install_cell, links, repository  # noqa: E402

LABS = Path(__file__).resolve().parent
CONFIG = """c = get_config()
c.CourseDirectory.course_id = "fmwsss"
c.ExecutePreprocessor.timeout = 900
"""
LINK = re.compile(r"\]\(\.\./([\w/]+\.ipynb)")
LOCAL = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#|attachment:)([^)\s]+)\)")
START = """# Labs of weakly supervised segmentation

Run the next cell first. If it fails, `fmwsss` is not installed in the environment of this notebook.

In each lab write your prediction before you run anything. Hand in the notebook of the lab,
under the name that it has here."""
CHECK = """import fmwsss

print("ready: fmwsss", fmwsss.__version__)"""


def nbgrader(folder, command, *options):
    "Run one nbgrader command on the course `folder`; RuntimeError with its last lines if it fails."
    tools = Path(sys.executable).parent  # nbgrader calls alembic by name
    env = dict(os.environ, PATH=f"{tools}{os.pathsep}{os.environ.get('PATH', '')}")
    call = dict(cwd=folder, env=env, text=True, capture_output=True)
    done = subprocess.run([tools / "nbgrader", command, *options], **call)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"nbgrader {command} {' '.join(options)} failed:\n{last}")


def find_labs(names=()):
    "Paths of the labs: all, or those whose file name starts with one of `names` ('q01' is enough)."
    found = sorted(LABS.glob("q*.ipynb"))
    unknown = [n for n in names if not any(p.stem.startswith(n) for p in found)]
    if unknown:
        known = ", ".join(p.stem for p in found) or "none"
        raise FileNotFoundError(f"no lab {unknown[0]} in {LABS}: there are {known}")
    return [p for p in found if not names or any(p.stem.startswith(n) for n in names)]


def cells_of(notebook):
    "Cells of a notebook file."
    return json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]


def roles(cells):
    "{name: (nbgrader's role, source)} of the cells that have one."
    graded = [(c["metadata"].get("nbgrader"), "".join(c["source"])) for c in cells]
    return {role["grade_id"]: (role, text) for role, text in graded if role}


def check_release(source, release):
    "RuntimeError if the students' edition gives something away, or lacks a cell."
    given, faults = cells_of(release), []
    shown = {name: text for name, (_, text) in roles(given).items()}
    for name, (role, text) in roles(cells_of(source)).items():
        if name not in shown:
            faults.append(f"cell {name} is missing")
        elif role["solution"] and shown[name] == text:
            faults.append(f"cell {name} shows its solution")
        elif "### BEGIN" in shown[name]:
            faults.append(f"cell {name} shows its hidden tests")
    if any(c.get("outputs") for c in given):
        faults.append("some cells have outputs")
    if faults:
        raise RuntimeError(f"{release}: {'; '.join(faults)}")


def linked(labs):
    "The chapters that the labs link to, as paths in nbs. FileNotFoundError if one is not there."
    texts = ["".join(c["source"]) for lab in labs for c in cells_of(lab)]
    names = sorted({name for text in texts for name in LINK.findall(text)})
    for name in names:
        if not (LABS.parent / name).exists():
            raise FileNotFoundError(f"a lab links to {name}, which is not in {LABS.parent}")
    return names


def copy_chapters(labs, release):
    "Copy the whole path (nbs/method) and what else the labs link to."
    path = sorted(p for p in (LABS.parent / "method").glob("*") if p.suffix in (".ipynb", ".py"))
    for chapter in {*path, *(LABS.parent / name for name in linked(labs))}:
        there = release / chapter.relative_to(LABS.parent)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(chapter, there)


def title_of(notebook):
    "The first heading of a notebook file."
    text = "\n".join("".join(c["source"]) for c in cells_of(notebook))
    return re.search(r"^# (.+)$", text, flags=re.M)[1]


def first_page(labs, release):
    "Write the students' index.ipynb: a cell that checks the installation, labs and chapters."
    entry = lambda page, link: f"- [{title_of(page)}]({link})"
    path = sorted((release / "method").glob("*.ipynb"))
    texts = [START, "\n".join(["## Labs", "", *(entry(x, f"{x.stem}/{x.name}") for x in labs)])]
    if path:
        chapters = [entry(p, f"method/{p.name}") for p in path]
        texts.append("\n".join(["## Chapters to read", "", *chapters]))
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    cells.insert(1, nbformat.v4.new_code_cell(CHECK))
    for number, cell in enumerate(cells):
        cell["id"] = f"first-{number}"
    kernel = dict(name="python3", language="python", display_name="Python 3 (ipykernel)")
    page = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel))
    nbformat.write(page, release / "index.ipynb")


def without_dead_links(text, folder):
    "Markdown in which a link to a file that is not there is only its text; paths from `folder`."
    there = lambda path: (folder / path.split("#")[0]).exists()
    return LOCAL.sub(lambda found: found[0] if there(found[2]) else found[1], text)


def unlink(release):
    "Take dead links out of all notebooks of the release: it holds less than the repository."
    for page in sorted(release.rglob("*.ipynb")):
        notebook = nbformat.read(page, 4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = without_dead_links(cell.source, page.parent)
        nbformat.write(notebook, page)


def add_large_run(lab, folder):
    "Put the lab's large run, if there is one, where the lab looks for it."
    table = LABS / "results" / f"{lab.stem[:3]}.csv"
    if table.exists():
        (folder / "results").mkdir(parents=True, exist_ok=True)
        shutil.copy(table, folder / "results")


def copy_lab(lab, folder, where=""):
    "A lab in its source folder; with a public repository `where` also links to open it."
    notebook = nbformat.read(lab, 4)
    if where:
        head = nbformat.v4.new_markdown_cell(links(f"nbs/labs/{lab.name}", where))
        notebook.cells[:0] = [head, nbformat.v4.new_code_cell(install_cell(where))]
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / lab.name)


def make_course(out, names=()):
    """Write source and release of the labs into the folder `out` -> names of the labs.

    The release is checked to give nothing away. FileExistsError if students' work lies in `out`
    already: its grades belong to the edition that is there."""
    out = Path(out)
    if any((out / "submitted").glob("*/*")):
        raise FileExistsError(
            f"{out} holds students' work and its grades; write this edition to another folder "
            "(--out), or move submitted and gradebook.db away"
        )
    for folder in ("source", "release"):
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / "gradebook.db").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    labs = find_labs(names)
    for lab in labs:
        folder = out / "source" / lab.stem
        copy_lab(lab, folder, repository())
        add_large_run(lab, folder)
        nbgrader(out, "generate_assignment", "--create", lab.stem)
        check_release(lab, out / "release" / lab.stem / lab.name)
    copy_chapters(labs, out / "release")
    first_page(labs, out / "release")
    unlink(out / "release")
    return [lab.stem for lab in labs]


def autograde(out, lab, student, notebook):
    "Hand in `notebook` as the work of `student` and grade it -> {cell: points} of the tests."
    from nbgrader.api import Gradebook

    folder = Path(out) / "submitted" / student / lab
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(notebook, folder / f"{lab}.ipynb")
    nbgrader(out, "autograde", "--create", "--force", lab, "--student", student)
    tools = str(Path(sys.executable).parent)
    if tools not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    with Gradebook(f"sqlite:///{Path(out).resolve() / 'gradebook.db'}") as book:
        grades = book.find_submission_notebook(lab, lab, student).grades
        return {g.name: g.score for g in grades if g.cell_type == "code"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labs", nargs="*", help="names, or how they start (q01); all without one")
    parser.add_argument("--out", default="build/course")
    arguments = parser.parse_args()
    try:
        made = make_course(arguments.out, arguments.labs)
    except (FileExistsError, FileNotFoundError, RuntimeError) as error:
        sys.exit(f"course.py: {error}")
    out = arguments.out
    print(f"{out}/release: the students' edition of {', '.join(made)}")
    print("with a first page (index.ipynb) and the chapters of the path")
    print(f"{out}/source: the same with solutions")
    print("Checked: no solution, hidden test or output is in the release.")
    print("Not run here: the labs and their grading (pytest tests/test_course.py -m slow).")


if __name__ == "__main__":
    main()
