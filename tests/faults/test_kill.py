"""kill -9 at twenty moments of one run, over all its stages.

The same command goes on, and ends with the tables of an undisturbed run."""

import os
import random
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import yaml

from fmwsss.app.presets import parse_settings

MOMENTS = int(os.environ.get("FMWSSS_KILLS", 20))
EVERY_KIND = {"masks_sam", "cams", "choosing", "seeds"}  # stages in which a run must be killed
EVERY_KIND |= {"prompts_classification", "prompts_segmentation"}
SAVE_EVERY = 5  # iterations between two checkpoints of a training
SMALL = [
    "data.images={train: 12, tune: 6, val: 8}",
    "workers=2",
    "masks.sam.points_per_side=6",
    "classification.training={steps: 30, lr: 0.02, warmup: 5}",
    "segmentation.training={steps: 15, batch_size: 6, lr: 0.5, warmup: 5}",
    "strips=2",
    "seeding.powers=[1, 2]",
    "seeding.box_thresholds=[0.3, 0.4]",
    "notebooks=[models, seeds]",
]


def preset(folder):
    "A preset file with few pictures, and checkpoints often enough to be killed between them."
    parameters = dict(base="minivoc", **parse_settings(SMALL))
    for task in ("classification", "segmentation"):
        parameters[task]["training"]["save_every"] = SAVE_EVERY
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(parameters))
    return path


def start(settings, out):
    "The run as a process group of its own."
    command = [
        sys.executable,
        "-c",
        "from fmwsss.app.cli import app; app()",
        "reproduce",
        str(settings),
        "--quiet",
        "--out",
        str(out),
    ]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS="1", COLUMNS="200"),
    )


def finish(settings, out):
    "Run to the end; fails with what it printed."
    process = start(settings, out)
    told = process.communicate(timeout=1800)[0]
    assert process.returncode == 0, told


def family(process):
    "The run, its kernel and its workers."
    try:
        return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(process):
    "kill -9 for the whole family at once."
    for member in family(process):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            pass
    process.communicate()


def results(out):
    "Finished results of images and when each was written; half-written files (.part) do not count."
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in (out / "cache").rglob("*.npz")}


def events(out):
    """What an undisturbed run finished, in this order: (time, file, its lines).

    Every file that it keeps; a training once for each checkpoint."""
    found = []
    for path in out.rglob("*"):
        name, logs = str(path.relative_to(out)), path.name.endswith(".pt.csv")
        if (
            not path.is_file()
            or path.name in ("settings.json", ".lock")
            or path.suffix == ".pt"
            or path.name.startswith("seconds-")
        ):
            continue
        lines = (
            range(SAVE_EVERY + 1, len(path.read_text().splitlines()) + 1, SAVE_EVERY)
            if logs
            else [0]
        )
        found += [(path.stat().st_mtime, name, n) for n in lines]
    return sorted(found)


def done(out, event):
    "Has this run come so far?"
    _, name, lines = event
    try:
        return (out / name).exists() and (
            not lines or len((out / name).read_text().splitlines()) >= lines
        )
    except OSError:
        return False


def stage(event):
    "Where in the run an event lies: a stage of the cache, or the folder of the file."
    parts = event[1].split("/")
    return parts[1] if parts[0] == "cache" else "page" if len(parts) == 1 else parts[0]


def draw_moments(order, draw):
    "Places in the order of events: one in every stage, the others anywhere."
    places = {
        name: [k for k in range(1, len(order)) if stage(order[k]) == name]
        for name in map(stage, order)
    }
    chosen = {draw.choice(of) for of in places.values()}
    rest = [k for k in range(1, len(order)) if k not in chosen]
    return sorted([*chosen, *draw.sample(rest, max(0, MOMENTS - len(chosen)))])[:MOMENTS]


def slipped(order, hit, draw) -> list:
    """Places to kill a new run at: on a busy machine a run may end, or leave a stage, before it is
    killed. One in every stage that was missed, and for every run that ended."""
    missed = sorted(EVERY_KIND - set(hit))
    within = lambda name: [k for k in range(1, len(order) - 1) if stage(order[k]) == name]
    places = [within(name)[0] for name in missed]
    more = hit.count(None) - len(places)
    return places + [draw.randrange(1, len(order) // 2) for _ in range(more)]


def kill_in(settings, out, order, place, draw, wait=1.0):
    """Kill a run while it makes event `place` -> the stage it was in; None: it ended before.

    wait: at most so many seconds after the event before it."""
    missing = [k for k, event in enumerate(order) if not done(out, event)]
    if not missing:
        return None
    place = min(max(place, missing[0] + 1), len(order) - 1)  # the event before it is still to come
    process, gap = start(settings, out), order[place][0] - order[place - 1][0]
    while process.poll() is None and not done(out, order[place - 1]):
        time.sleep(0.005)
    time.sleep(draw.random() * min(gap, wait))
    alive = process.poll() is None
    kill(process)
    return (
        stage(next((event for event in order if not done(out, event)), order[-1]))
        if alive
        else None
    )


def tables(out):
    "All tables of a run without the columns of measured times."
    found = {p.name: pd.read_csv(p) for p in sorted((out / "tables").glob("*.csv"))}
    return {name: t.drop(columns=[c for c in t if "seconds" in c]) for name, t in found.items()}


@pytest.mark.kill
def test_killed_runs_lose_nothing(tmp_path, record_property):
    whole, broken, draw, settings = (
        tmp_path / "whole",
        tmp_path / "broken",
        random.Random(0),
        preset(tmp_path),
    )
    finish(settings, whole)
    order, hit, had, halves = events(whole), [], {}, 0
    for place in draw_moments(order, draw):
        hit.append(kill_in(settings, broken, order, place, draw))
        now = results(broken)
        assert had.items() <= now.items(), "a finished result was lost or made again"
        had, halves = now, halves + len(list(broken.rglob("*.part")))
        print(f"killed in {hit[-1]} with {len(now)} results", flush=True)
    finish(settings, broken)
    lost = set(results(whole).keys() - results(broken).keys())
    for place in slipped(order, hit, draw):
        again = tmp_path / f"again{len(hit)}"
        hit.append(kill_in(settings, again, order, place, draw, wait=0))
        finish(settings, again)
        lost |= results(whole).keys() - results(again).keys()
    record_property("killed", sum(name is not None for name in hit))
    record_property("lost", len(lost))
    print(f"{halves} half-written files met", flush=True)
    assert not lost and had.items() <= results(broken).items()
    assert sum(name is not None for name in hit) >= MOMENTS and set(hit) >= EVERY_KIND
    assert {"pseudo_labels", "figures", "tables", "records", "page"} & set(
        hit
    )  # and while the notebook writes what it found
    expected, found = tables(whole), tables(broken)
    assert expected.keys() == found.keys()
    for name in expected:
        pd.testing.assert_frame_equal(expected[name], found[name], check_exact=True)
    same = [
        *sorted((whole / "pseudo_labels").rglob("*.png")),
        *sorted((whole / "cache").rglob("*.pt.csv")),
    ]
    assert len(same) == 12 + 2 and all(
        p.read_bytes() == (broken / p.relative_to(whole)).read_bytes() for p in same
    )
    assert not list(
        broken.rglob("*.part")
    )  # the next run has removed what the killed ones left half-written


def wait_for_end(processes, seconds=20):
    "Those that are still alive after so long."
    return psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.fault
def test_workers_end_with_their_run(tmp_path):
    process = start(preset(tmp_path), tmp_path / "run")
    while process.poll() is None and not list((tmp_path / "run").glob("cache/masks_sam/*/*.npz")):
        time.sleep(0.05)
    members = family(process)
    process.kill()  # the run alone: neither its kernel nor the workers
    assert len(members) >= 4 and not wait_for_end(members), (
        "a kernel or a worker goes on without its run"
    )


@pytest.mark.fault
def test_drawing_ends_with_its_run(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from fmwsss.minivoc import writing; "
            "writing.write(sys.argv[1], splits=dict(train=5000), workers=2)",
            str(tmp_path),
        ]
    )
    while process.poll() is None and not list((tmp_path / "JPEGImages").glob("*.jpg")):
        time.sleep(0.05)
    members = family(process)
    process.kill()
    assert len(members) >= 3 and not wait_for_end(members), "a worker goes on without its run"
