"""Faults from outside, put into a run through the same stages and commands that users call: each ends in one line with a remedy, or is skipped and told."""
import csv
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fmwsss import minivoc
from fmwsss.cli import app
from fmwsss.data import open_dataset
from fmwsss.names import VOC_CLASSES, save_label
from fmwsss.pipeline import Run, Store, masks_stage
from fmwsss.runner import alone_in, in_one_line, load_preset, merge, parse_settings

pytestmark = pytest.mark.fault
call = lambda *words: CliRunner().invoke(app, list(words), env=dict(COLUMNS="300", TERM="dumb"))


@pytest.fixture
def data(tmp_path):
    minivoc.write(tmp_path / "data", splits=dict(train=4, tune=2, val=2))
    return tmp_path / "data"


def stage(root, data, **options):
    "Felzenszwalb masks of the training images: a stage without a network."
    run = Run(root, progress=False, **options)
    return run, masks_stage(run, open_dataset("minivoc", data, "train"), "felzenszwalb")


def spoil_truncate(path): path.write_bytes(path.read_bytes()[:300])
def spoil_empty(path): path.write_bytes(b"")
def spoil_text(path): path.write_text("no picture")
def spoil_tiny(path): Image.new("RGB", (1, 1)).save(path, "PNG")


@pytest.mark.parametrize("spoil", [spoil_truncate, spoil_empty, spoil_text, spoil_tiny])
def test_one_bad_image_is_skipped_and_named(tmp_path, data, spoil):
    dataset = open_dataset("minivoc", data, "train")
    spoil(Path(dataset.image_path(1)))
    run, store = stage(tmp_path / "run", data)
    assert list(run.skipped) == [dataset.ids[1]] and Path(dataset.image_path(1)).name in run.skipped[dataset.ids[1]] and "\n" not in run.skipped[dataset.ids[1]]
    assert [store.has(i) for i in dataset.ids] == [True, False, True, True]


def test_strict_stops_at_the_first_bad_image(tmp_path, data):
    spoil_truncate(Path(open_dataset("minivoc", data, "train").image_path(1)))
    with pytest.raises(ValueError, match="train_000001"): stage(tmp_path / "run", data, strict=True)


def test_a_changed_image_is_computed_again(tmp_path, data):
    _, before = stage(tmp_path / "run", data)
    path = Path(open_dataset("minivoc", data, "train").image_path(0))
    Image.fromarray(255 - np.array(Image.open(path))).save(path, quality=60)
    os.utime(path, (1, 1))
    run, after = stage(tmp_path / "run", data)
    assert run.records[0]["computed"] == 1 and [after.path(i).name == before.path(i).name for i in before.stamps] == [False, True, True, True]


def test_the_order_of_files_on_disk_changes_nothing(tmp_path, data):
    _, before = stage(tmp_path / "run", data)
    for path in sorted((data / "JPEGImages").iterdir(), reverse=True):           # written again, the other way round
        content = path.read_bytes(); stamp = path.stat(); path.unlink(); path.write_bytes(content); os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    run, after = stage(tmp_path / "run", data)
    assert after.key == before.key and run.records[0]["computed"] == 0


def test_workers_change_nothing(tmp_path, data):
    _, one = stage(tmp_path / "one", data, workers=1)
    _, two = stage(tmp_path / "two", data, workers=2)
    for name in open_dataset("minivoc", data, "train").ids:
        a, b = one.load(name), two.load(name)
        assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def test_damaged_result_names_file_and_remedy(tmp_path):
    store = Store(tmp_path, "toy", {})
    store.save("a", dict(x=np.arange(3)))
    for content in (b"", b"PK\3\4", store.path("a").read_bytes()[:-9]):
        store.path("a").write_bytes(content)
        with pytest.raises(ValueError, match="damaged.*delete it and run the stage again") as error: store.load("a")
        assert str(store.path("a")) in str(error.value)


def test_result_names_stay_in_their_folder(tmp_path):
    store = Store(tmp_path, "toy", {})
    for name in ("../../evil", "a/b", "..", "ü x.jpg", "a\\b"):
        store.save(name, dict(x=np.arange(2)))
        assert store.path(name).resolve().parent == store.folder.resolve() and store.has(name)


def limited(bytes_per_file, code, *words):
    "Python code in a process that may not write larger files (as on a full disk)."
    set_limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, bytes_per_file))
    program = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{code}"
    return subprocess.run([sys.executable, "-c", program, *words], preexec_fn=set_limit, capture_output=True, text=True)


def test_full_disk_leaves_no_half_file(tmp_path):
    code = "import sys; from fmwsss.pipeline import Store\nimport numpy as np\nStore(sys.argv[1], 'toy', {}).save('big', dict(x=np.random.default_rng(0).random(100_000)))"
    found = limited(50_000, code, str(tmp_path))
    assert found.returncode and "File too large" in found.stderr
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("kind, text, remedy", [("OSError", "[Errno 28] No space left on device", "free some space"), ("MemoryError", "", "lower workers"),
    ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", "lower workers"),
    ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", "lower workers"), ("BrokenProcessPool", "A process in the process pool was terminated", "workers=1")])
def test_want_of_memory_or_disk_names_the_remedy(kind, text, remedy):
    line = in_one_line(kind, text)
    assert remedy in line and "same command" in line and "\n" not in line


def test_two_runs_in_one_folder(tmp_path):
    with alone_in(tmp_path / "run"):
        told = call("reproduce", "minivoc", "--out", str(tmp_path / "run"))
    assert told.exit_code == 1 and "another run" in told.output and "--out" in told.output and len(told.output.strip().splitlines()) == 1


def test_a_killed_run_lets_go_of_its_folder(tmp_path):
    code = "import sys, time; from pathlib import Path; from fmwsss.runner import alone_in\nwith alone_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "held"
    with pytest.raises(ValueError, match="another run"), alone_in(tmp_path): pass
    process.kill(); process.wait()
    with alone_in(tmp_path): pass


def test_run_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    told = call("reproduce", "minivoc", "--out", str(tmp_path / "run"))
    assert told.exit_code == 1 and "Traceback" not in told.output and len(told.output.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    told = call("reproduce", "minivoc", "--out", str(tmp_path / "run"))
    tmp_path.chmod(0o700)
    assert told.exit_code == 1 and str(tmp_path) in told.output and len(told.output.strip().splitlines()) == 1


@pytest.mark.parametrize("content", ["", "- a", "a: [", "a: b: c", "\x00", "42", "seed: !!python/object/apply:os.system ['true']"])
def test_bad_presets(tmp_path, content):
    (tmp_path / "p.yaml").write_text(content)
    told = call("reproduce", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "run"))
    assert told.exit_code == 1 and "p.yaml" in told.output and "Traceback" not in told.output
