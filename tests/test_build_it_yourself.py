"""The page with blanks: the blanks are told so, the solutions are right, each mistake is named."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "nbs" / "method" / "12_build_it_yourself.ipynb"
sys.path.insert(0, str(PAGE.parent))
import build_checks  # noqa: E402

CASES = [(n, i) for n, mistakes in build_checks.MISTAKES.items() for i in range(len(mistakes))]


def solutions(notebook) -> dict:
    "Name of a function -> its text in the folded cell."
    texts = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    found = re.findall(r"```python\n(def (\w+)\(.*?)```", texts, re.S)
    return {name: text.strip() for text, name in found}


def fill(notebook):
    "The page with every blank replaced by its solution."
    known = solutions(notebook)
    for cell in notebook.cells:
        name = re.search(r"^(\w+) = check\(\1\)", cell.source, re.M)
        if cell.cell_type == "code" and name:
            cell.source = f"{known[name[1]]}\n\n\n{name[0]}"
    return notebook


def said(notebook) -> str:
    "All that the executed page printed."
    place = dict(metadata=dict(path=str(PAGE.parent)))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    return "".join(o.get("text", "") for o in outputs)


def test_every_function_has_a_solution():
    assert set(solutions(nbformat.read(PAGE, 4))) == set(build_checks.REFERENCE)


@pytest.mark.parametrize("name", build_checks.REFERENCE)
def test_the_solution_is_right(name):
    import numpy as np
    import torch
    import torch.nn.functional as F

    space = dict(np=np, torch=torch, F=F)
    exec(solutions(nbformat.read(PAGE, 4))[name], space)
    assert build_checks.judge(name, space[name]) == ""


@pytest.mark.parametrize("name, i", CASES)
def test_a_mistake_is_named(name, i):
    mistake, words = build_checks.MISTAKES[name][i]
    assert build_checks.judge(name, mistake) == words


@pytest.mark.parametrize("name", build_checks.REFERENCE)
def test_a_blank_and_an_error_are_told(name):
    assert "still returns `...`" in build_checks.judge(name, lambda *args: ...)
    assert "returns nothing" in build_checks.judge(name, lambda *args: None)
    assert "ZeroDivisionError" in build_checks.judge(name, lambda *args: 1 / 0)
    assert build_checks.judge(name, lambda *args: "text")


@pytest.mark.slow
def test_the_filled_page_runs_and_all_is_right():
    text = said(fill(nbformat.read(PAGE, 4)))
    total = len(build_checks.REFERENCE)
    assert text.count(": right") == total and "not yet" not in text
    assert f"{total} of {total} functions are yours" in text


@pytest.mark.slow
def test_the_page_with_blanks_runs_and_says_so():
    text = said(nbformat.read(PAGE, 4))
    assert text.count("not yet, it still returns `...`") == len(build_checks.REFERENCE)
