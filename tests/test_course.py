"""The students' edition: solutions and hidden tests are gone, nbgrader grades what comes back."""

import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "nbs" / "labs"))
import course  # noqa: E402

BLANK = "# YOUR CODE HERE\n    raise NotImplementedError()"
ROLE = dict(schema_version=3, task=False, grade=False, solution=False, locked=False)
nbgrader = pytest.mark.skipif(
    not (Path(sys.executable).parent / "nbgrader").exists(),
    reason="nbgrader is not installed: pip install nbgrader",
)


def cell(kind, source, **role):
    make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
    return make(source, metadata=dict(nbgrader=ROLE | role) if role else {})


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory):
    "A lab of seconds in the form of the real ones, in a folder that stands for nbs/labs."
    folder = tmp_path_factory.mktemp("nbs") / "labs"
    folder.mkdir()
    double = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    hidden = "### BEGIN HIDDEN TESTS\nassert double(3) == 6\n### END HIDDEN TESTS"
    answer = dict(grade_id="answer", grade=True, solution=True, points=4)
    test = dict(grade_id="test_double", grade=True, locked=True, points=2)
    cells = [
        cell("markdown", "# Lab 99: A sum"),
        cell("code", "from fmwsss.method.labels import VOC_CLASSES"),
        cell("markdown", "The model answer.", **answer),
        cell("code", double, grade_id="double", solution=True),
        cell("code", f"assert double(2) == 4\n{hidden}", **test),
    ]
    kernel = dict(name="python3", language="python", display_name="python3")
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel))
    nbformat.write(notebook, folder / "q99_sum.ipynb")
    return folder


def with_solution(notebook, text):
    out = copy.deepcopy(notebook)
    for c in out.cells:
        c.source = c.source.replace(BLANK, text)
    return out


@nbgrader
def test_generate_and_autograde(small_lab, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "LABS", small_lab)
    assert course.make_course(tmp_path, ["q99"]) == ["q99_sum"]
    released = nbformat.read(tmp_path / "release" / "q99_sum" / "q99_sum.ipynb", 4)
    text = "\n".join(c.source for c in released.cells)
    assert "double(2) == 4" in text
    assert not any(secret in text for secret in ("2 * x", "model answer", "double(3)"))
    # the guess passes the visible test
    for student, body, points in (("right", "return x + x", 2.0), ("guess", "return 4", 0.0)):
        path = tmp_path / f"{student}.ipynb"
        nbformat.write(with_solution(released, body), path)
        assert course.autograde(tmp_path, "q99_sum", student, path) == {"test_double": points}


@nbgrader
def test_students_work_is_not_overwritten(small_lab, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "LABS", small_lab)
    (tmp_path / "submitted" / "ada" / "q99_sum").mkdir(parents=True)
    (tmp_path / "gradebook.db").write_text("grades")
    with pytest.raises(FileExistsError, match="students' work"):
        course.make_course(tmp_path)
    assert (tmp_path / "gradebook.db").read_text() == "grades"


def test_a_release_that_gives_something_away_is_refused(small_lab, tmp_path):
    source = small_lab / "q99_sum.ipynb"
    both = "answer shows its solution.*test_double shows its hidden tests"
    with pytest.raises(RuntimeError, match=both):
        course.check_release(source, source)
    half = nbformat.read(source, 4)
    blanks = "YOUR ANSWER HERE", "raise NotImplementedError()", "assert double(2) == 4"
    for number, text in enumerate(blanks, 2):
        half.cells[number].source = text
    nbformat.write(half, tmp_path / "good.ipynb")
    course.check_release(source, tmp_path / "good.ipynb")
    half.cells[1].outputs = [nbformat.v4.new_output("stream", text="41.2")]
    del half.cells[4]
    nbformat.write(half, tmp_path / "bad.ipynb")
    with pytest.raises(RuntimeError, match="test_double is missing; some cells have outputs"):
        course.check_release(source, tmp_path / "bad.ipynb")


def points_of(lab):
    "{name: points} of the cells of a lab that grade themselves."
    found = course.roles(course.cells_of(lab))
    return {n: r["points"] for n, (r, _) in found.items() if r["grade"] and not r["solution"]}


def grade_solution_and_untouched(lab, folder):
    "A lab's solutions get all points and the students' edition as it is handed out gets none."
    course.make_course(folder, [lab.stem])
    released = folder / "release" / lab.stem / lab.name
    points = points_of(lab)
    assert course.autograde(folder, lab.stem, "model", lab) == points
    assert course.autograde(folder, lab.stem, "untouched", released) == dict.fromkeys(points, 0.0)


LABS = course.find_labs()
QUICK = [lab for lab in LABS if lab.stem[:3] in ("q02", "q09")]


@nbgrader
def test_the_students_edition_of_every_lab(tmp_path):
    "`make course`: each release gives nothing away, and what it links to lies beside it."
    assert course.make_course(tmp_path) == [lab.stem for lab in LABS]
    assert len(LABS) == 10
    assert all((tmp_path / "release" / lab.stem / lab.name).exists() for lab in LABS)


@nbgrader
@pytest.mark.parametrize("lab", QUICK, ids=lambda p: p.stem)
def test_two_labs_grade_themselves(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("FMWSSS_LAB", "tiny")  # a handful of pictures: the tests need no results
    grade_solution_and_untouched(lab, tmp_path)


@nbgrader
@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS, ids=lambda p: p.stem)
def test_all_labs_grade_themselves(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("FMWSSS_LAB", "tiny")
    grade_solution_and_untouched(lab, tmp_path)


def test_links_appear_when_the_repository_has_a_name(small_lab, tmp_path):
    source = small_lab / "q99_sum.ipynb"
    course.copy_lab(source, tmp_path / "without")
    course.copy_lab(source, tmp_path / "with", "somebody/fmwsss")
    plain = nbformat.read(tmp_path / "without" / source.name, 4)
    linked = nbformat.read(tmp_path / "with" / source.name, 4)
    assert len(linked.cells) == len(plain.cells) + 2
    assert "github/somebody/fmwsss/blob/main/nbs/labs/q99_sum.ipynb" in linked.cells[0].source
    assert "git+https://github.com/somebody/fmwsss" in linked.cells[1].source


def dead_links(folder):
    "Links of all notebooks of a folder that lead to no file."
    found = []
    for page in folder.rglob("*.ipynb"):
        texts = [c["source"] for c in course.cells_of(page) if c["cell_type"] == "markdown"]
        links = [link for _, link in course.LOCAL.findall("\n".join(map("".join, texts)))]
        found += [(page.name, n) for n in links if not (page.parent / n.split("#")[0]).exists()]
    return found


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    "The students' folder of one real lab."
    out = tmp_path_factory.mktemp("course")
    course.make_course(out, ["q03"])
    return out / "release"


@nbgrader
def test_the_students_first_page_runs_and_lists_labs_and_chapters(release):
    page = nbformat.read(release / "index.ipynb", 4)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(c.source for c in page.cells if c.cell_type == "code")],
        cwd=release,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "ready: fmwsss" in done.stdout, done.stderr
    text = "\n".join(c.source for c in page.cells)
    assert "[Lab 3: Why these two losses?](q03_losses/q03_losses.ipynb)" in text
    path = {p.name for p in (course.LABS.parent / "method").glob("*")} - {"__pycache__"}
    assert {p.name for p in (release / "method").glob("*")} == path, "the whole path, with its .py"
    assert all(f"(method/{name})" in text for name in path if name.endswith(".ipynb"))


@nbgrader
def test_no_link_of_the_students_folder_is_dead(release):
    assert dead_links(release) == []
    lab = release / "q03_losses" / "q03_losses.ipynb"
    text = "\n".join("".join(c["source"]) for c in course.cells_of(lab))
    assert "](../method/08_losses.ipynb)" in text, "links to what is there have stayed"
    nbformat.write(nbformat.v4.new_notebook(), release.parent / "alone.ipynb")
    broken = cell("markdown", "[here](alone.ipynb), [gone](../gone.ipynb#part)")
    nbformat.write(nbformat.v4.new_notebook(cells=[broken]), release.parent / "other.ipynb")
    assert ("other.ipynb", "../gone.ipynb#part") in dead_links(release.parent)


def test_a_link_to_nowhere_keeps_its_text(tmp_path):
    (tmp_path / "b.ipynb").touch()
    text = "[here](b.ipynb#x), [gone](../gone.ipynb), [page](https://x.org/a), ![p](no.png)"
    wanted = "[here](b.ipynb#x), gone, [page](https://x.org/a), ![p](no.png)"
    assert course.without_dead_links(text, tmp_path) == wanted


def test_links_of_the_labs_lead_to_chapters(tmp_path):
    course.copy_chapters(LABS, tmp_path)
    for lab in LABS:
        wanted = course.linked([lab])
        assert wanted and all((tmp_path / name).exists() for name in wanted)


def test_an_unknown_lab_is_named():
    with pytest.raises(FileNotFoundError, match="no lab q77"):
        course.find_labs(["q77"])
