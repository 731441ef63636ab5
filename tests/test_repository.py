"""The repository itself: modules are what the notebooks export, rooms import only lower rooms."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
BOOKS = [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
PAGES = sorted(BOOKS) + sorted((ROOT / "benchmarks").glob("*.ipynb"))
OWN_PATHS = r"/tmp/(?!bash)|/home/|/root/|/site-packages/"

# Lower rooms first. `files` and `plots` are tools for all of them.
ROOMS = [
    "files", "method", "fast", "data", "minivoc", "models", "sources", "refiners", "engine",
    "study", "pretrain", "report", "explore", "app", "labs",
]  # fmt: skip


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def place(path):
    "Path without the folders above the repository, for test names."
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    "Dotted name of the module that a notebook exports, or None."
    found = [re.search(r"#\| default_exp ([\w.]+)", source(c)) for c in cells(path)]
    return next((m[1] for m in found if m), None)


EXPORTS = {path: module_of(path) for path in BOOKS if module_of(path)}


def modules():
    files = sorted((ROOT / "fmwsss").rglob("*.py"))
    return [f for f in files if f.name != "_modidx.py" and "__pycache__" not in f.parts]


@pytest.mark.parametrize("path", EXPORTS, ids=place)
def test_one_notebook_one_module(path):
    room, name = place(path).split("/")[1:-1], path.stem.split("_", 1)[-1]
    expected = ".".join([*room, name])
    if path.stem.startswith("00_") and name in ("fmwsss", *room):  # the package, or a whole room
        expected = ".".join([*room, "__init__"])
    assert EXPORTS[path] == expected


@pytest.mark.parametrize("path", PAGES, ids=place)
def test_notebook_is_small_clean_and_free_of_errors(path):
    assert path.stat().st_size < 600_000
    for cell in cells(path):
        outputs = cell.get("outputs", [])
        assert not any(o["output_type"] == "error" for o in outputs), source(cell)[:80]
    text = path.read_text(encoding="utf-8")
    found = re.search(rf".{{0,60}}(?:{OWN_PATHS}).{{0,60}}", text)
    assert not found, f"a path of one machine: {found[0]}"


def imported(path):
    "Rooms that a module imports from."
    rel = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = rel[: len(rel) - node.level] if node.level else ()
        parts = [*base, *(node.module or "").split(".")]
        if parts[0] == "fmwsss" and len(parts) > 1 and parts[1]:
            yield parts[1]


def test_rooms_import_only_lower_rooms():
    for path in modules():
        room = path.relative_to(ROOT / "fmwsss").parts[0]
        if room not in ROOMS:
            continue
        higher = {r for r in imported(path) if r in ROOMS and ROOMS.index(r) > ROOMS.index(room)}
        assert not higher, f"{place(path)} imports {sorted(higher)}"


def test_every_room_has_its_place():
    found = {p.name for p in (ROOT / "fmwsss").iterdir() if (p / "__init__.py").exists()}
    assert found == set(ROOMS)


def test_modules_are_what_the_notebooks_export(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "weights", ".ipynb_checkpoints")
    for part in ("nbs", "fmwsss"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    for part in ("settings.ini", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / part, tmp_path / part)
    export = Path(sys.executable).parent / "nbdev_export"
    subprocess.run([export], cwd=tmp_path, check=True, capture_output=True)
    for file in modules():
        again = tmp_path / place(file)
        same = again.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
        assert same, f"{place(file)}: run `make export` and commit"


def test_every_module_has_a_notebook():
    found = {f.relative_to(ROOT / "fmwsss").with_suffix("").as_posix() for f in modules()}
    found = {f.replace("/", ".") for f in found}
    rooms = {f"{room}.__init__" for room in ROOMS}
    assert found - rooms == set(EXPORTS.values()) - rooms


def test_importing_is_quick_and_brings_no_network():
    "`import fmwsss` and the formulas of SAMS need NumPy and pycocotools, not torch."
    code = "import sys, time; t = time.process_time(); from fmwsss import Masks, sams; "
    code += "print(time.process_time() - t, *(m for m in HEAVY if m in sys.modules))"
    heavy = ["torch", "torchvision", "skimage", "segment_anything", "open_clip", "scipy", "pandas"]
    code = f"HEAVY = {heavy}; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    seconds, *found = done.stdout.split()
    assert not found and float(seconds) <= 1.5


def test_lowest_versions_are_those_of_the_settings():
    import lowest

    pins = lowest.pins()
    assert any(p.startswith("torch==2.") for p in pins)
    assert all("==" in p or p in lowest.TOOLS for p in pins), "a requirement has no lower bound"


def test_what_the_first_page_says_of_the_second_half_is_what_was_found():
    "Its sentence is prose; this fails when the committed claims say something else."
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "The CAMs get better, and so do the pseudo labels of the training pictures" in text
    verdicts = {}
    for preset in ("minivoc", "miniclip"):
        table = pd.read_csv(ROOT / "benchmarks" / "results" / preset / "claims.csv")
        verdicts[preset] = table.set_index("claim").verdict
    found = verdicts["minivoc"]
    better = "Fine seeds are better than coarse seeds"
    cams = "CAMs of the segmentation task are better than those of the classification task"
    network = "Fine seeds teach a network better than coarse seeds"
    assert {found[c] for c in (cams, f"{better} on the training pictures", network)} == {"holds"}
    kept = "Prompts of the segmentation task beat the coarse prompts kept"
    assert "cannot tell, not even with three trainings" in text
    assert found[better] == found[kept] == "undecided"
    assert verdicts["miniclip"][better] == "opposite"  # "with miniclip it does harm"
