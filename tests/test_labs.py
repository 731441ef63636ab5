"""The labs: sections in order, nbgrader's metadata complete, answers that quote only what their own run printed."""
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LABS = sorted((ROOT / "nbs" / "labs").glob("*.ipynb"))
SECTIONS = ["Question", "Predict", "Experiment", "Evidence", "Answer", "Limits", "Exercises"]
lab = pytest.mark.parametrize("path", LABS, ids=lambda p: p.stem)
cells = lambda path: json.loads(path.read_text(encoding="utf-8"))["cells"]
source = lambda cell: "".join(cell["source"])
role = lambda cell: cell["metadata"].get("nbgrader", {})
NUMBER = r"\d+\.\d+|\d+(?=\s?(?:%|points))"


def printed(notebook):
    "All text that the cells of a notebook have printed or shown as a table."
    outputs = [o for c in notebook if c["cell_type"] == "code" for o in c["outputs"]]
    parts = [o.get("text", "") for o in outputs] + [v for o in outputs for k, v in o.get("data", {}).items() if k in ("text/plain", "text/html", "text/markdown")]
    return "\n".join("".join(p) for p in parts)


def quoted(text):
    "The figures of an answer: decimal numbers, and whole ones that are per cent or points."
    return re.findall(NUMBER, text)


def numbers(text): return {float(n) for n in re.findall(r"\d+\.\d+|\d+", text)}


def unprinted(notebook):
    "Figures of the model answer that no output of the notebook shows."
    answer = next(source(c) for c in notebook if role(c).get("grade_id") == "answer")
    seen = numbers(printed(notebook))
    return [n for n in quoted(answer) if float(n) not in seen]


@lab
def test_sections_in_order(path):
    heads = [line for c in cells(path) if c["cell_type"] == "markdown" for line in source(c).splitlines() if line.startswith(("# ", "## "))]
    assert re.match(rf"# Lab {int(path.stem[1:3])}: .+", heads[0])
    assert [h.removeprefix("## ") for h in heads[1:]] == SECTIONS


@lab
def test_cells_for_grading(path):
    roles = {r["grade_id"]: (r, c) for c in cells(path) if (r := role(c))}
    assert len(roles) == sum(bool(role(c)) for c in cells(path)), "grade_ids are unique"
    assert {"prediction", "answer"} <= roles.keys()
    solutions = [c for r, c in roles.values() if r["solution"] and not r["grade"]]
    tests = [c for r, c in roles.values() if r["grade"] and not r["solution"]]
    assert solutions and tests
    for c in solutions: assert source(c).count("### BEGIN SOLUTION") == source(c).count("### END SOLUTION") >= 1
    for c in tests: assert "assert" in source(c) and source(c).count("### BEGIN HIDDEN TESTS") == source(c).count("### END HIDDEN TESTS")
    assert any("### BEGIN HIDDEN TESTS" in source(c) for c in tests)
    for r, c in roles.values(): assert r["schema_version"] == 3 and (not r["grade"] or r["points"] > 0), source(c)[:60]


@lab
def test_answer_quotes_only_printed_figures(path):
    notebook = cells(path)
    assert quoted(next(source(c) for c in notebook if role(c).get("grade_id") == "answer")), "the answer gives no figure at all"
    assert unprinted(notebook) == []


@lab
def test_a_lab_runs_anywhere(path):
    code = "\n".join(source(c) for c in cells(path) if c["cell_type"] == "code")
    assert "#| export" not in code and "default_exp" not in code
    assert not re.search(r"""["'](\.\./|runs/|nbs/)""", code), "a path inside the repository"


def test_a_made_up_figure_is_found():
    show = dict(cell_type="code", metadata={}, source=[], outputs=[dict(output_type="stream", text=["mIoU 41.2 % of 20\n"])])
    answer = lambda text: [show, dict(cell_type="markdown", metadata=dict(nbgrader=dict(grade_id="answer")), source=[text])]
    assert unprinted(answer("It is 41.2 %, from 20 points.")) == []
    assert unprinted(answer("It is 41.3 %.")) == ["41.3"] and unprinted(answer("It is 42 %.")) == ["42"]
