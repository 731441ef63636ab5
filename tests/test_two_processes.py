"""Two processes share a run's images and batches, and make the tables of one."""
import contextlib
import os
import random
import socket
import subprocess
import sys

import pandas as pd
import pytest

pytestmark = pytest.mark.xdist_group("two_processes")      # one process runs it: the run is made once

SMALL = ["data.images={train: 6, tune: 3, val: 4}", "workers=1", "masks.source=[sam]", "masks.sam.points_per_side=4", "classification.training={steps: 4, batch_size: 5, lr: 0.02, warmup: 1}",
         "segmentation.training={steps: 2, batch_size: 5, lr: 0.05, warmup: 1}", "strips=1", "seeding.powers=[1, 2]", "seeding.box_thresholds=[0.4]", "seeding.crf={}",
         "seeding.rules=[{filter_thresh: 0.3, priority: [level, confidence]}]", "refiners.maps=[cam]", "refiners.sources=[sam]", "refiners.powers=[1, 2]", "refiners.pamr={iterations: [5], dilations: [[1, 2]]}",
         "refiners.affinity={beta: [8], log_steps: [1]}", "refiners.memory_images=1", "refiners.strips=1", "affinitynet.steps=3", "affinitynet.batch=2"]


def start(out, *launcher):
    "`fmwsss reproduce` in a process of its own, perhaps through a launcher."
    command = [sys.executable, *launcher, "-m", "fmwsss.app.cli", "reproduce", "minivoc", "--only", "seeds", "--only", "refiners", "--quiet", "--out", str(out), *[w for s in SMALL for w in ("--set", s)]]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port():
    "A port that is free, and the next one too (the notebook's kernels meet there), below those that systems hand out by themselves."
    for port in random.sample(range(20000, 30000, 2), 50):
        with socket.socket() as one, socket.socket() as two, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port)), two.bind(("127.0.0.1", port + 1))
            return port


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    port = free_port()
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    printed = start(folder / "two", *launcher, "--main_process_port", str(port))          # without GPUs the processes meet all the same
    start(folder / "one")
    return folder / "one", folder / "two", printed


def test_the_tables_are_the_same(runs):
    for table, columns in dict(seeds=("miou", "precision", "recall"), refiners=("miou", "boundary_iou")).items():
        one, two = (pd.read_csv(run / f"tables/{table}.csv") for run in runs[:2])
        assert list(one[one.columns[0]]) == list(two[two.columns[0]]) and len(one)
        for column in columns: assert two[column].tolist() == pytest.approx(one[column].tolist(), abs=5e-3), (table, column)      # sums in another order; a box of the affinity may flip
    first, second = (pd.read_csv(run / "tables/settings.csv") for run in runs[:2])
    pd.testing.assert_frame_equal(first, second)
    losses = [pd.read_csv(next((run / "cache/prompts_classification").glob("*.csv"))).loss for run in runs[:2]]
    assert losses[1].tolist() == pytest.approx(losses[0].tolist(), rel=1e-4)


def test_each_did_its_share(runs):
    import json
    stages = lambda folder: [s for name in ("seeds", "refiners") for s in json.loads((folder / f"records/{name}.json").read_text())["stages"]]
    shares, alone = [stages(runs[1]), stages(runs[1] / "processes/1")], stages(runs[0])
    assert {"readable", "masks_sam", "cams", "choosing", "seeds", "affinity_targets", "refiners_tune", "refiners"} <= {s["stage"] for s in alone}      # every kind of stage
    assert [s["stage"] for s in alone] == [s["stage"] for s in shares[0]] == [s["stage"] for s in shares[1]]
    for whole, a, b in zip(alone, *shares):
        if whole["images"]: assert a["computed"] + b["computed"] == whole["computed"] and abs(a["computed"] - b["computed"]) <= 1


def test_one_of_them_writes_the_page(runs):
    _, two, printed = runs
    assert (two / "report.html").exists() and (two / "run.json").exists() and not (two / "processes/1/report.html").exists()
    assert printed.count("open ") == 1 and len(list((two / "pseudo_labels/train").glob("*.png"))) == 6
    assert {p.name for p in (two / "notebooks").iterdir()} == {p.name for p in (two / "processes/1/notebooks").iterdir()} == {"seeds.ipynb", "refiners.ipynb"}
