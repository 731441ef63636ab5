"""The chapters of the path keep to their limits, and the numbers are counted right."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "nbs"))
import course_stats  # noqa: E402

CHAPTERS = course_stats.chapters()


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
