"""The labs: sections in order, nbgrader's metadata complete, answers that quote only what their own
run printed, and no two labs that state different values of one figure."""
import json
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
LABS = sorted((ROOT / "nbs" / "labs").glob("q*.ipynb"))
SECTIONS = ["Question", "Predict", "Experiment", "Evidence", "Answer", "Limits", "Exercises"]
lab = pytest.mark.parametrize("path", LABS, ids=lambda p: p.stem)
NUMBER = r"\d+\.\d+|\d+(?=\s?(?:%|points))"
KEY = ["figure", "arm", "world", "pictures", "seeds"]


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def role(cell):
    return cell["metadata"].get("nbgrader", {})


def graded(notebook):
    "{name: (nbgrader's role, cell)}"
    return {r["grade_id"]: (r, c) for c in notebook if (r := role(c))}


def printed(notebook):
    "All text that the cells of a notebook have printed or shown as a table."
    parts = []
    for c in notebook:
        for o in c.get("outputs", []):
            parts.append("".join(o.get("text", "")))
            shown = o.get("data", {})
            kinds = ("text/plain", "text/html", "text/markdown")
            parts += ["".join(shown[k]) for k in kinds if k in shown]
    return "\n".join(parts)


def quoted(text):
    "The figures of an answer: decimal numbers, and whole ones that are per cent or points."
    return re.findall(NUMBER, text)


def numbers(text):
    return {float(n) for n in re.findall(r"\d+\.\d+|\d+", text)}


def unprinted(notebook):
    "Figures of the model answer that no output of the notebook shows."
    seen = numbers(printed(notebook))
    return [n for n in quoted(source(graded(notebook)["answer"][1])) if float(n) not in seen]


def stated(path):
    "What the lab stated at its end, in the run that is in the file: a table."
    last = [c for c in cells(path) if source(c).strip() == "lab.figures"][0]
    html = "".join(last["outputs"][0]["data"]["text/html"])
    rows = re.findall(r"<tr.*?</tr>", html, flags=re.S)
    each = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.S) for row in rows]
    return pd.DataFrame([r[1:] for r in each[1:]], columns=each[0][1:])


def contradictions(tables):
    "Figures that two of {name: table} state with different values."
    rows = pd.concat([t.assign(lab=name) for name, t in tables.items()])
    rows["value"] = rows.value.astype(float)
    found = []
    for key, group in rows.groupby(KEY):
        if group.value.max() - group.value.min() > 0.15:
            found.append((key, dict(zip(group.lab, group.value))))
    return found, sum(group.lab.nunique() > 1 for _, group in rows.groupby(KEY))


@lab
def test_sections_in_order(path):
    texts = [source(c) for c in cells(path) if c["cell_type"] == "markdown"]
    lines = [line for text in texts for line in text.splitlines()]
    heads = [line for line in lines if line.startswith(("# ", "## "))]
    assert re.match(rf"# Lab {int(path.stem[1:3])}: .+", heads[0])
    assert [h.removeprefix("## ") for h in heads[1:]] == SECTIONS


@lab
def test_cells_for_grading(path):
    notebook = cells(path)
    roles = graded(notebook)
    assert len(roles) == sum(bool(role(c)) for c in notebook), "grade_ids are unique"
    assert {"prediction", "answer"} <= roles.keys()
    solutions = [source(c) for r, c in roles.values() if r["solution"] and not r["grade"]]
    tests = [source(c) for r, c in roles.values() if r["grade"] and not r["solution"]]
    assert solutions and tests
    for text in solutions:
        assert text.count("### BEGIN SOLUTION") == text.count("### END SOLUTION") >= 1
    for text in tests:
        assert "assert" in text
        assert text.count("### BEGIN HIDDEN TESTS") == text.count("### END HIDDEN TESTS")
    assert any("### BEGIN HIDDEN TESTS" in text for text in tests)
    for r, c in roles.values():
        assert r["schema_version"] == 3 and (not r["grade"] or r["points"] > 0), source(c)[:60]


@lab
def test_the_mechanism_is_written_before_the_result_is_shown(path):
    texts = [source(c) for c in cells(path)]
    evidence = next(k for k, t in enumerate(texts) if t.startswith("## Evidence"))
    assert any("### BEGIN SOLUTION" in t for t in texts[:evidence])


@lab
def test_answer_quotes_only_printed_figures(path):
    notebook = cells(path)
    answer = source(graded(notebook)["answer"][1])
    assert quoted(answer), "the answer gives no figure at all"
    assert unprinted(notebook) == []


@lab
def test_a_lab_runs_anywhere(path):
    code = "\n".join(source(c) for c in cells(path) if c["cell_type"] == "code")
    assert "#| export" not in code and "default_exp" not in code
    assert not re.search(r"""["'](\.\./|runs/|nbs/)""", code), "a path inside the repository"


@lab
def test_a_lab_says_whether_its_large_run_was_made(path):
    table = path.parent / "results" / f"{path.stem[:3]}.csv"
    text = printed(cells(path))
    if not table.exists():
        assert "The large run of this lab has not been made" in text
        return
    head = table.read_text(encoding="utf-8").splitlines()[:2]
    assert head[0] == f"# Large run: python nbs/labs/full.py {path.stem[:3]}"
    assert re.match(r"# \d{4}-\d\d-\d\d, commit [0-9a-f]{7,}\+?, \d+ minutes", head[1])
    assert head[1].lstrip("# ") in text, "the committed run is the one that the lab shows"


def test_no_lab_contradicts_another():
    found, shared = contradictions({p.stem[:3]: stated(p) for p in LABS})
    assert found == []
    assert shared >= 4, "some figures are stated by several labs, so the test can fail"


def test_no_large_run_contradicts_another():
    found = (LABS[0].parent / "results").glob("*.csv")
    tables = {p.stem: pd.read_csv(p, comment="#") for p in found}
    if len(tables) < 2:
        pytest.skip("fewer than two large runs are there")
    assert contradictions(tables)[0] == []


def test_a_contradiction_is_found():
    row = dict(figure="mIoU", arm="hand", world="webclip", pictures=48, seeds=1)
    table = lambda value, **more: pd.DataFrame([{**row, **more, "value": value}])
    assert contradictions(dict(a=table(41.2), b=table(41.3))) == ([], 1)
    (found,), _ = contradictions(dict(a=table(41.2), b=table(43.0)))
    assert found[1] == dict(a=41.2, b=43.0)
    assert contradictions(dict(a=table(41.2), b=table(43.0, pictures=200))) == ([], 0)


def test_a_made_up_figure_is_found():
    text = ["mIoU 41.2 % of 20\n"]
    outputs = [dict(output_type="stream", text=text)]
    show = dict(cell_type="code", metadata={}, source=[], outputs=outputs)
    about = dict(nbgrader=dict(grade_id="answer"))
    answer = lambda text: [show, dict(cell_type="markdown", metadata=about, source=[text])]
    assert unprinted(answer("It is 41.2 %, from 20 points.")) == []
    assert unprinted(answer("It is 41.3 %.")) == ["41.3"]
    assert unprinted(answer("It is 42 %.")) == ["42"]
