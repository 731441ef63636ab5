"""The students' edition of the labs: `python nbs/labs/course.py [lab ...] [--out build/course]`.

`source/` holds the labs with solutions, `release/` what students get (solutions and hidden tests removed, the chapters beside, so
that links lead somewhere), `submitted/<student>/<lab>/` is where their work goes; then `nbgrader autograde <lab>` in that folder."""
import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

LABS = Path(__file__).resolve().parent
CONFIG = 'c = get_config()\nc.CourseDirectory.course_id = "fmwsss"\nc.ExecutePreprocessor.timeout = 600\n'


def nbgrader(folder, command, *options):
    "Run one nbgrader command on the course `folder`; RuntimeError with its last lines if it fails."
    tools = Path(sys.executable).parent                       # nbgrader calls alembic by name
    env = dict(os.environ, PATH=f"{tools}{os.pathsep}{os.environ.get('PATH', '')}")
    done = subprocess.run([tools / "nbgrader", command, *options], cwd=folder, env=env, text=True, capture_output=True)
    if done.returncode: raise RuntimeError(f"nbgrader {command} {' '.join(options)} failed:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-15:]))


def find_labs(names=()):
    "Paths of the labs: all, or those whose file name starts with one of `names` ('q01' is enough)."
    found = sorted(LABS.glob("q*.ipynb"))
    unknown = [n for n in names if not any(p.stem.startswith(n) for p in found)]
    if unknown: raise FileNotFoundError(f"no lab {unknown[0]} in {LABS}: there are {', '.join(p.stem for p in found) or 'none'}")
    return [p for p in found if not names or any(p.stem.startswith(n) for n in names)]


def check_release(source, release):
    "RuntimeError if the students' edition of a lab still shows a solution, a hidden test or an output, or lacks a cell for grading."
    read = lambda notebook: json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    roles = lambda cells: {r["grade_id"]: (r, "".join(c["source"])) for c in cells if (r := c["metadata"].get("nbgrader"))}
    given, faults = read(release), []
    shown = {name: text for name, (_, text) in roles(given).items()}
    for name, (role, text) in roles(read(source)).items():
        if name not in shown: faults.append(f"cell {name} is missing")
        elif role["solution"] and shown[name] == text: faults.append(f"cell {name} shows its solution")
        elif "### BEGIN" in shown[name]: faults.append(f"cell {name} shows its hidden tests")
    if any(c.get("outputs") for c in given): faults.append("some cells have outputs")
    if faults: raise RuntimeError(f"{release}: {'; '.join(faults)}")


def make_course(out, names=()):
    """Write source and release of the labs into the folder `out`, check that the release gives nothing away; returns the names of the labs.

    FileExistsError if students' work lies in `out` already: its grades belong to the edition that is there."""
    out = Path(out)
    if any((out / "submitted").glob("*/*")): raise FileExistsError(f"{out} holds students' work and its grades; write this edition to another folder (--out), or move submitted and gradebook.db away")
    for folder in ("source", "release"): shutil.rmtree(out / folder, ignore_errors=True)
    (out / "gradebook.db").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    labs = find_labs(names)
    for lab in labs:
        (out / "source" / lab.stem).mkdir(parents=True)
        shutil.copy(lab, out / "source" / lab.stem)
        nbgrader(out, "generate_assignment", "--create", lab.stem)
        check_release(lab, out / "release" / lab.stem / lab.name)
    for chapter in (*LABS.parent.glob("[0-9]*.ipynb"), LABS.parent / "index.ipynb"): shutil.copy(chapter, out / "release")
    if labs: shutil.copytree(LABS.parent / "images", out / "release" / "images", dirs_exist_ok=True)
    return [lab.stem for lab in labs]


def autograde(out, lab, student, notebook):
    "Hand in `notebook` as the work of `student` and grade it; returns {cell: points} of the automatic tests."
    from nbgrader.api import Gradebook
    folder = Path(out) / "submitted" / student / lab
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(notebook, folder / f"{lab}.ipynb")
    nbgrader(out, "autograde", "--create", "--force", lab, "--student", student)
    tools = str(Path(sys.executable).parent)
    if tools not in os.environ["PATH"].split(os.pathsep): os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
    with Gradebook(f"sqlite:///{Path(out).resolve() / 'gradebook.db'}") as book:
        grades = book.find_submission_notebook(lab, lab, student).grades
        return {g.name: g.score for g in grades if g.cell_type == "code"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labs", nargs="*", help="names, or how they start (q01); all labs if none is given")
    parser.add_argument("--out", default="build/course")
    arguments = parser.parse_args()
    try: made = make_course(arguments.out, arguments.labs)
    except (FileExistsError, FileNotFoundError, RuntimeError) as error: sys.exit(f"course.py: {error}")
    print(f"{arguments.out}/release: the students' edition of {', '.join(made)}, and the chapters they link to; with solutions: {arguments.out}/source")
    print("Checked: no solution, hidden test or output is in the release. Not run here: the labs themselves and their grading (pytest tests/test_course.py -m slow).")
