"""The chapters of the path keep to their limits, and the numbers are counted right."""

import ast
import builtins
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "nbs"))
import course_stats  # noqa: E402

CHAPTERS = course_stats.chapters()


def names_made(text) -> set:
    "Names that a text binds: assigned, imported, defined, arguments."
    made = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(a.asname or a.name).split(".")[0] for a in node.names}
    return made


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_keeps_its_limits(path):
    assert course_stats.beyond(course_stats.measure(path)) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_is_a_lesson(path):
    "A question, a prediction, solved exercises, a quiz of five questions, and pictures."
    text = "\n".join(course_stats.source(c) for c in course_stats.cells(path))
    for part in ("**The question.**", "**Predict.**", "## What can go wrong", "## Exercises"):
        assert part in text, part
    exercises, quiz = text.split("## Exercises")[1].split("## Quiz")
    assert exercises.count("<summary>Solution</summary>") >= 3
    assert quiz.count("<summary>Answers</summary>") == 1
    assert all(quiz.count(f"{k}. ") >= 2 for k in range(1, 6))
    assert course_stats.measure(path)["figures"] >= 4


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_solutions_are_python(path):
    "Every code of a solution can be parsed and uses no name that chapter and solution lack."
    code = [c for c in course_stats.cells(path) if c["cell_type"] == "code"]
    known = {*dir(builtins), *names_made("\n".join(map(course_stats.source, code)))}
    for cell in course_stats.cells(path):
        if cell["cell_type"] == "markdown":
            for text in re.findall(r"```python\n(.*?)```", course_stats.source(cell), re.S):
                used = {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
                assert used <= known | names_made(text), used - known - names_made(text)


def test_the_path_is_short():
    lines = sum(course_stats.measure(path)["exported"] for path in CHAPTERS)
    assert len(CHAPTERS) == 11 and lines <= course_stats.PATH_LINES


def test_words_lines_and_figures():
    folded = "one two <details><summary>Solution</summary> three </details> $x = y$ [four](a/b.md)"
    prose = dict(cell_type="markdown", source=folded)
    code = dict(cell_type="code", source="#| export\n\nx = 1\ny = 2\n")
    code["outputs"] = [dict(data={"image/jpeg": "..."}), dict(text="no picture")]
    assert course_stats.words(prose) == 3
    assert course_stats.lines(code) == ["x = 1", "y = 2"]
    assert course_stats.figures(code) == 1 and course_stats.exported(code)


def test_one_chapter_is_shown(capsys):
    assert course_stats.main(["04_cam"]) == 0
    shown = capsys.readouterr().out
    assert "04_cam" in shown and "05_affinity" not in shown
