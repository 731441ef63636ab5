"""Two processes share a run's images and batches, and make the tables of one."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys

import pandas as pd
import pytest


SMALL = [
    "data.images={train: 6, tune: 3, val: 4}",
    "workers=1",
    "masks.source=[sam]",
    "masks.sam.points_per_side=4",
    "classification.training={steps: 4, batch_size: 5, lr: 0.02, warmup: 1}",
    "segmentation.training={steps: 2, batch_size: 5, lr: 0.05, warmup: 1}",
    "strips=1",
    "seeding.powers=[1, 2]",
    "seeding.box_thresholds=[0.4]",
    "seeding.crf={}",
    "seeding.rules=[{filter_thresh: 0.3, priority: [level, confidence]}]",
    "refiners.maps=[cam]",
    "refiners.sources=[sam]",
    "refiners.powers=[1, 2]",
    "refiners.pamr={iterations: [5], dilations: [[1, 2]]}",
    "refiners.affinity={beta: [8], log_steps: [1]}",
    "refiners.memory_images=1",
    "refiners.strips=1",
    "affinitynet.steps=3",
    "affinitynet.batch=2",
]
LAUNCHER = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCHER += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
NOTEBOOKS = ["seeds", "refiners"]
EVERY_KIND = {"readable", "masks_sam", "cams", "choosing", "seeds", "affinity_targets"}


def start(out, *launcher) -> str:
    "`fmwsss reproduce` in a process of its own, perhaps through a launcher."
    command = [sys.executable, *launcher, "-m", "fmwsss.app.cli", "reproduce", "minivoc"]
    command += [word for name in NOTEBOOKS for word in ("--only", name)]
    command += ["--quiet", "--out", str(out), *[w for s in SMALL for w in ("--set", s)]]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    "A free port and the next one too (the notebooks' kernels meet there), in a quiet range."
    for port in random.sample(range(20000, 30000, 2), 50):
        with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            return port
    raise OSError("no free port between 20000 and 30000")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "Folders of a run in one process and of one in two, and what the two printed."
    folder = tmp_path_factory.mktemp("runs")
    launcher = [*LAUNCHER, "--main_process_port", str(free_port())]
    printed = start(folder / "two", *launcher)  # without GPUs the processes meet all the same
    start(folder / "one")
    return folder / "one", folder / "two", printed


def table(run, name):
    "A table of a run."
    return pd.read_csv(run / f"tables/{name}.csv")


def test_the_tables_are_the_same(runs):
    columns = dict(seeds=("miou", "precision", "recall"), refiners=("miou", "boundary_iou"))
    for name, measures in columns.items():
        one, two = (table(run, name) for run in runs[:2])
        assert len(one) and list(one[one.columns[0]]) == list(two[two.columns[0]])
        for measure in measures:  # sums in another order; a box of the affinity may flip
            expected = pytest.approx(one[measure].tolist(), abs=5e-3)
            assert two[measure].tolist() == expected, (name, measure)
    pd.testing.assert_frame_equal(*(table(run, "settings") for run in runs[:2]))


def test_the_losses_are_the_same(runs):
    files = [next((run / "cache/prompts_classification").glob("*.pt.csv")) for run in runs[:2]]
    one, two = (pd.read_csv(file).loss.tolist() for file in files)
    assert two == pytest.approx(one, rel=1e-4)


def stages(folder) -> list:
    "All stages that a process has recorded."
    files = [folder / f"records/{name}.json" for name in NOTEBOOKS]
    return [stage for file in files for stage in json.loads(file.read_text())["stages"]]


def test_each_did_its_share(runs):
    one, two, _ = runs
    shares, alone = [stages(two), stages(two / "processes/1")], stages(one)
    names = [stage["stage"] for stage in alone]
    assert EVERY_KIND <= set(names)
    assert [[s["stage"] for s in share] for share in shares] == [names, names]
    for whole, a, b in zip(alone, *shares):
        if whole["images"]:
            assert a["computed"] + b["computed"] == whole["computed"]
            assert abs(a["computed"] - b["computed"]) <= 1


def test_one_of_them_writes_the_page(runs):
    _, two, printed = runs
    assert (two / "report.html").exists() and (two / "run.json").exists()
    assert not (two / "processes/1/report.html").exists()
    assert printed.count("open ") == 1
    assert len(list((two / "pseudo_labels/train").glob("*.png"))) == 6
    notebooks = {f"{name}.ipynb" for name in NOTEBOOKS}
    for folder in (two, two / "processes/1"):
        assert {path.name for path in (folder / "notebooks").iterdir()} == notebooks
