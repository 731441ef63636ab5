"""How far is it from the command to the formula? The walk of an image through the modules."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fmwsss.app.cli import app
from fmwsss.fast import cam
from fmwsss.method.labels import VOC_CLASSES
from fmwsss.minivoc.writing import split_scene

ROOT = Path(__file__).parent.parent
HOPS = 8
SMALL = dict(
    base="minivoc",
    workers=1,
    data=dict(kind="folder", names="own", splits=dict(train="all", tune="all", val="all")),
    masks=dict(source=["felzenszwalb"]),
    notebooks=["seeds"],
    classification=dict(training=dict(steps=2, warmup=1, lr=[0.01, 0.02])),
    segmentation=dict(training=dict(steps=1, warmup=0, lr=[0.01])),
)


class Arrived(BaseException):
    "The label maps are written: the rest of the notebook shows tables."


def run_here(notebook, into, parameters, **options):
    "Stands for papermill: the cells of a notebook in this process, until the label maps are there."
    names = dict(__name__="notebook")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "base" in names and "plots" not in names:
                names.update(parameters)
            if "save_labels(study" in cell.source:
                raise Arrived


def walk_here():
    "Names of the modules on the stack from the command on, each once and in order."
    found, frame = [], sys._getframe(2)
    while frame:
        name = frame.f_globals.get("__name__", "")
        if name == "notebook" or name.startswith("fmwsss."):
            found.append(name.removeprefix("fmwsss."))
        frame = frame.f_back
    found = found[::-1]
    return [*dict.fromkeys(found[found.index("app.cli") :])]


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    "The walks to `softmax_gradcam` that `fmwsss masks` makes with two photos."
    folder = tmp_path_factory.mktemp("photos")
    rows = ["image,labels"]
    for number in (0, 1):
        scene = split_scene("val", number, size=64)
        Image.fromarray(scene.image).save(folder / f"{number}.png")
        names = sorted({VOC_CLASSES[c] for _, c in scene.objects})
        rows.append(f"{number}.png,{';'.join(names)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "small.yaml").write_text(json.dumps(SMALL))
    found, plain = [], cam.softmax_gradcam

    def watched(*args, **more):
        walk = [*walk_here(), "fast.cam"]
        if walk not in found:
            found.append(walk)
        return plain(*args, **more)

    out = tmp_path_factory.mktemp("run")
    words = ["masks", folder, "--preset", folder / "small.yaml", "--out", out, "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("papermill.execute_notebook", run_here)
        patch.setattr(cam, "softmax_gradcam", watched)
        patch.setattr("fmwsss.plots.inline", lambda: None)  # there is no notebook to show it in
        with pytest.raises(Arrived):
            CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    maps = sorted((out / "pseudo_labels").rglob("[01].png"))
    assert len(maps) == 2 and np.asarray(Image.open(maps[0])).shape == (64, 64)
    return found


def told(walk):
    return " -> ".join(walk)


def test_from_the_command_to_the_formula_in_eight_hops(walks):
    """A hop is a step into a module that the walk has not been in; the notebook counts as one.

    The walk of an image to its label map; rivals and training have one station more."""
    others = [w for w in walks if {"study.arms", "engine.fit"} & {*w}]
    own = [w for w in walks if w not in others]
    assert own and all("engine.stages" in w for w in own)
    for walk in own:
        assert len(walk) - 1 <= HOPS, told(walk)
    for walk in others:
        assert len(walk) - 1 <= HOPS + 1, told(walk)


def test_contributing_names_the_stations(walks):
    walk = max((w for w in walks if "study.arms" not in w and "engine.fit" not in w), key=len)
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d \| `([\w./]+)` \|", page, flags=re.M)
    names = [r.removesuffix(".ipynb").split("/")[-1] if "/" in r else r for r in rows]
    assert names == ["seeds" if station == "notebook" else station for station in walk]
