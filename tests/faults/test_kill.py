"""kill -9 at twenty moments of one run, over all its stages; the same command goes on, and ends with the tables of an undisturbed run."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.kill
MOMENTS = int(os.environ.get("FMWSSS_KILLS", 20))
SMALL = ["data.images={train: 16, tune: 8, val: 10}", "workers=2", "masks.sam.points_per_side=8", "classification.training.steps=40",
         "segmentation.training.steps=12", "strips=2", "seeding.powers=[1, 2]", "seeding.box_thresholds=[0.3, 0.4]"]


def start(out):
    "The run as a process group of its own."
    command = [sys.executable, "-c", "from fmwsss.cli import app; app()", "reproduce", "minivoc", "--only", "models", "--only", "seeds", "--quiet", "--out", str(out), *[w for s in SMALL for w in ("--set", s)]]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ, OMP_NUM_THREADS="1", COLUMNS="200"))


def finish(out):
    "Run to the end; fails with what it printed."
    process = start(out)
    told = process.communicate(timeout=1800)[0]
    assert process.returncode == 0, told


def results(out):
    "Finished results in the cache; half-written files (.part) do not count."
    return {str(p.relative_to(out)) for p in (out / "cache").rglob("*") if p.suffix in (".npz", ".pt")}


def kill(process):
    "kill -9 for the run, its kernel and its workers."
    children = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True).stdout.split("\n")
    parent = {int(a): int(b) for a, b in (line.split() for line in children if line.strip())}
    family = {process.pid}
    while grown := {p for p, q in parent.items() if q in family} - family: family |= grown
    for pid in family:
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: pass
    process.communicate()


def stages(files): return {name.split("/")[1] for name in files}


def tables(out):
    "All tables of a run without the columns of measured times."
    found = {p.name: pd.read_csv(p) for p in sorted((out / "tables").glob("*.csv"))}
    return {name: t.drop(columns=[c for c in t if "seconds" in c]) for name, t in found.items()}


def test_killed_runs_lose_nothing(tmp_path, record_property):
    whole, broken, draw = tmp_path / "whole", tmp_path / "broken", random.Random(0)
    finish(whole)
    everything = results(whole)
    assert len(everything) > 3 * MOMENTS
    wanted = sorted(draw.sample(range(1, len(everything)), MOMENTS))
    met, had, moments = set(), set(), 0
    for count in wanted:
        process = start(broken)
        while process.poll() is None and len(results(broken)) < count: time.sleep(0.05)
        time.sleep(draw.random() * 0.3)
        if process.poll() is None:
            kill(process)
            moments += 1
        now = results(broken)
        assert had <= now, "a finished result was lost"
        met |= stages(now - had)
        had = now
    finish(broken)
    assert moments == MOMENTS and met == stages(everything)
    lost = everything - results(broken)
    expected, found = tables(whole), tables(broken)
    record_property("killed", moments)
    record_property("lost", len(lost))
    assert not lost and expected.keys() == found.keys()
    for name in expected: pd.testing.assert_frame_equal(expected[name], found[name], check_exact=True)
    label_maps = sorted((whole / "pseudo_labels").rglob("*.png"))
    assert len(label_maps) == 16 and all(p.read_bytes() == (broken / p.relative_to(whole)).read_bytes() for p in label_maps)
    assert not list(broken.rglob("*.part")) or all(p.stat().st_size >= 0 for p in broken.rglob("*.part"))
