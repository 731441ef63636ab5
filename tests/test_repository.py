"""The repository itself: modules are what the notebooks export, data flows one way, notebooks are small and clean."""
import ast, json, re, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
cells = lambda path: json.loads(path.read_text(encoding="utf-8"))["cells"]
source = lambda cell: "".join(cell["source"])


def module_of(path): return next(m[1] for c in cells(path) if (m := re.search(r"#\| default_exp (\w+)", source(c))))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_one_notebook_one_module(path): assert module_of(path) == path.stem.split("_", 1)[1]


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").rglob("*.ipynb")) + sorted((ROOT / "benchmarks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_is_small_clean_and_free_of_errors(path):
    assert path.stat().st_size < 500_000
    for cell in cells(path):
        assert not any(o["output_type"] == "error" for o in cell.get("outputs", [])), source(cell)[:80]
    assert not re.search(r"/tmp/(?!bash)|/home/|/root/|/site-packages/", path.read_text(encoding="utf-8")), "a path of one machine"


def test_a_module_imports_only_lower_ones():
    number = {module_of(p): int(p.stem[:2]) for p in NOTEBOOKS}
    for name, own in number.items():
        tree = ast.parse((ROOT / "fmwsss" / f"{name}.py").read_text(encoding="utf-8"))
        used = {n.module.split(".")[-1] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and (n.level or n.module.startswith("fmwsss"))}
        higher = [u for u in used if u in number and number[u] >= own and u != "plots"]
        assert not higher, f"{name} imports {higher}"


def test_modules_are_what_the_notebooks_export(tmp_path):
    for part in ("nbs", "fmwsss"): shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "weights", ".ipynb_checkpoints"))
    for part in ("settings.ini", "setup.py"): shutil.copy(ROOT / part, tmp_path / part)
    subprocess.run([Path(sys.executable).parent / "nbdev_export"], cwd=tmp_path, check=True, capture_output=True)
    for file in sorted((tmp_path / "fmwsss").glob("*.py")):
        assert file.read_text(encoding="utf-8") == (ROOT / "fmwsss" / file.name).read_text(encoding="utf-8"), f"{file.name}: run `make export` and commit"


def test_every_module_has_a_notebook():
    assert {p.stem for p in (ROOT / "fmwsss").glob("[a-z]*.py")} == {module_of(p) for p in NOTEBOOKS}
