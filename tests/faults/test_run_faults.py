"""Faults from outside, put into a run through the stages and commands that users call.

Each ends in one line with a remedy, or is skipped and told."""

import ast
import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fmwsss.app import runner
from fmwsss.minivoc import writing
from fmwsss.app.cli import app
from fmwsss.data.coco_objects import Instances
from fmwsss.data.kinds import open_dataset
from fmwsss.study.study import Study
from fmwsss.study.ways import Way
from fmwsss.models.weights import read_state_dict
from fmwsss.data.label_maps import save_label
from fmwsss.engine.stages import Run
from fmwsss.engine.store import Store
from fmwsss.files.writing import PACKAGE
from fmwsss.study.stages import masks_stage, readable
from fmwsss.app.notebooks import in_one_line
from fmwsss.app.presets import settings_of
from fmwsss.app.runner import alone_in, remove_leftovers
from fmwsss.sources.disk import load_masks
from fmwsss.engine.checkpoints import Checkpoint

pytestmark = pytest.mark.fault
call = lambda *words: CliRunner().invoke(app, list(words), env=dict(COLUMNS="300", TERM="dumb"))


@pytest.fixture
def data(tmp_path):
    writing.write(tmp_path / "data", splits=dict(train=4, tune=2, val=2))
    return tmp_path / "data"


def stage(root, data, **options):
    "Felzenszwalb masks of the training images: a stage without a network."
    run = Run(root, progress=False, **options)
    return run, masks_stage(run, open_dataset("minivoc", data, "train"), "felzenszwalb", {})


def spoil_truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_text(path):
    path.write_text("no picture")


def spoil_tiny(path):
    Image.new("RGB", (1, 1)).save(path, "PNG")


def spoil_huge(path):
    Image.new("1", (12_000, 8_000)).save(path, "PNG")


def spoil_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil", [spoil_truncate, spoil_empty, spoil_text, spoil_tiny, spoil_huge, spoil_folder]
)
def test_one_bad_image_is_skipped_and_named(tmp_path, data, spoil):
    dataset = open_dataset("minivoc", data, "train")
    spoil(Path(dataset.image_path(1)))
    run, store = stage(tmp_path / "run", data)
    assert (
        list(run.skipped) == [dataset.ids[1]]
        and Path(dataset.image_path(1)).name in run.skipped[dataset.ids[1]]
        and "\n" not in run.skipped[dataset.ids[1]]
    )
    assert [store.has(i) for i in dataset.ids] == [True, False, True, True]


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).resize((40, 30)).save(path, "JPEG", exif=exif)


def animated(path):
    frames = [Image.new("RGB", (30, 40), colour) for colour in ("red", "green")]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def grey16(path):
    Image.fromarray(np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(40, 30)).save(
        path, "PNG"
    )


def cmyk(path):
    Image.open(path).resize((30, 40)).convert("CMYK").save(path, "JPEG")


@pytest.mark.filterwarnings("ignore:image .* is animated")
@pytest.mark.parametrize("change", [turned, animated, grey16, cmyk])
def test_odd_images_are_read_upright_and_in_colour(tmp_path, data, change):
    change(Path(open_dataset("minivoc", data, "train").image_path(1)))
    dataset = open_dataset("minivoc", data, "train")
    run, store = stage(tmp_path / "run", data)
    assert (
        not run.skipped
        and store.has(dataset.ids[1])
        and tuple(load_masks(store.path(dataset.ids[1])).size) == (40, 30)
    )


def test_an_image_with_a_wrong_mask_is_left_out_and_named(tmp_path, data):
    dataset = open_dataset("minivoc", data, "train")
    save_label(dataset.mask_path(2), np.full(dataset.mask(2).shape, 77, np.uint8))
    run = Run(tmp_path / "run", progress=False)
    kept = readable(run, open_dataset("minivoc", data, "train"))
    assert len(kept) == 3 and dataset.ids[2] not in kept.ids
    assert (
        Path(dataset.mask_path(2)).name in run.skipped[dataset.ids[2]]
        and "unknown labels [77]" in run.skipped[dataset.ids[2]]
    )


def test_a_changed_list_computes_only_what_is_new(tmp_path, data):
    listed = data / "ImageSets/Segmentation/train.txt"
    names = listed.read_text().split()
    listed.write_text("\n".join(names[:2]))
    stage(tmp_path / "run", data)
    listed.write_text("\n".join([names[3], names[1]]))
    run, store = stage(tmp_path / "run", data)
    assert run.records[0]["computed"] == 1 and run.records[0]["images"] == 2 and store.has(names[3])


def test_strict_stops_at_the_first_bad_image(tmp_path, data):
    spoil_truncate(Path(open_dataset("minivoc", data, "train").image_path(1)))
    with pytest.raises(ValueError, match="train_000001"):
        stage(tmp_path / "run", data, strict=True)


def test_a_changed_image_is_computed_again(tmp_path, data):
    _, before = stage(tmp_path / "run", data)
    path = Path(open_dataset("minivoc", data, "train").image_path(0))
    Image.fromarray(255 - np.array(Image.open(path))).save(path, quality=60)
    os.utime(path, (1, 1))
    run, after = stage(tmp_path / "run", data)
    assert run.records[0]["computed"] == 1 and [
        after.path(i).name == before.path(i).name for i in before.stamps
    ] == [False, True, True, True]


def test_the_order_of_files_on_disk_changes_nothing(tmp_path, data):
    _, before = stage(tmp_path / "run", data)
    for path in sorted(
        (data / "JPEGImages").iterdir(), reverse=True
    ):  # written again, the other way round
        content = path.read_bytes()
        stamp = path.stat()
        path.unlink()
        path.write_bytes(content)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
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
        with pytest.raises(ValueError, match="damaged.*delete it and run the stage again") as error:
            store.load("a")
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
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        preexec_fn=set_limit,
        capture_output=True,
        text=True,
    )


def test_full_disk_leaves_no_half_file(tmp_path):
    code = "import sys; from fmwsss.engine.store import Store\nimport numpy as np\n"
    code += "x = np.random.default_rng(0).random(100_000)\n"
    code += "Store(sys.argv[1], 'toy', {}).save('big', dict(x=x))"
    found = limited(50_000, code, str(tmp_path))
    assert found.returncode and "File too large" in found.stderr
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "kind, text, remedy",
    [
        ("OSError", "[Errno 28] No space left on device", "free some space"),
        ("MemoryError", "", "lower workers"),
        (
            "RuntimeError",
            "[enforce fail] DefaultCPUAllocator: can't allocate memory",
            "lower workers",
        ),
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", "lower workers"),
        ("BrokenProcessPool", "A process in the process pool was terminated", "workers=1"),
    ],
)
def test_want_of_memory_or_disk_names_the_remedy(kind, text, remedy):
    line = in_one_line(kind, text)
    assert remedy in line and "same command" in line and "\n" not in line


def test_two_runs_in_one_folder(tmp_path):
    with alone_in(tmp_path / "run"):
        told = call("reproduce", "minivoc", "--out", str(tmp_path / "run"))
    assert (
        told.exit_code == 1
        and "another run" in told.output
        and "--out" in told.output
        and len(told.output.strip().splitlines()) == 1
    )


def test_a_killed_run_lets_go_of_its_folder(tmp_path):
    code = "import sys, time; from pathlib import Path; "
    code += "from fmwsss.app.runner import alone_in\n"
    code += "with alone_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "held"
    with pytest.raises(ValueError, match="another run"), alone_in(tmp_path):
        pass
    process.kill()
    process.wait()
    with alone_in(tmp_path):
        pass


def test_run_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    told = call("reproduce", "minivoc", "--out", str(tmp_path / "run"))
    assert (
        told.exit_code == 1
        and "Traceback" not in told.output
        and len(told.output.strip().splitlines()) == 1
    )


@pytest.fixture
def plain_user():
    "A folder; root, who may read and write everything, becomes a plain user for the test."
    with tempfile.TemporaryDirectory() as folder:
        root = os.geteuid() == 0
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)


def test_read_only_folder(plain_user):
    preset = plain_user / "preset.yaml"
    preset.write_text("base: minivoc\nseed: 0")
    plain_user.chmod(0o500)
    told = call("reproduce", str(preset), "--out", str(plain_user / "run"))
    assert (
        told.exit_code == 1
        and str(plain_user / "run") in told.output
        and "change permissions" in told.output
        and len(told.output.strip().splitlines()) == 1
    )


def test_a_cache_that_may_not_be_written_names_file_and_remedy(plain_user):
    writing.write(plain_user / "data", splits=dict(train=2))
    _, store = stage(plain_user / "run", plain_user / "data")
    store.path(next(iter(store.stamps))).unlink()
    store.folder.chmod(0o500)
    with pytest.raises(OSError) as error:
        stage(plain_user / "run", plain_user / "data")
    line = in_one_line(type(error.value).__name__, error.value)
    assert str(store.folder) in line and "change its permissions" in line and "same command" in line
    store.folder.chmod(0o700)
    assert stage(plain_user / "run", plain_user / "data")[0].records[0]["computed"] == 1


def test_an_image_that_may_not_be_read_is_skipped(plain_user):
    writing.write(plain_user / "data", splits=dict(train=3))
    dataset = open_dataset("minivoc", plain_user / "data", "train")
    before = dataset.fingerprint()
    dataset.image_path(1).chmod(0)
    run = Run(plain_user / "run", progress=False)
    kept = readable(run, open_dataset("minivoc", plain_user / "data", "train"))
    assert kept.ids == [dataset.ids[0], dataset.ids[2]] and before
    assert (
        "may not be read" in run.skipped[dataset.ids[1]]
        and "permissions" in run.skipped[dataset.ids[1]]
    )


def computes(killer):
    "Setup of a stage whose worker is killed at image `killer`, as for want of memory."

    def compute(indices):
        for i in indices:
            if i == killer:
                os.kill(os.getpid(), signal.SIGKILL)
            yield dict(value=np.array(i)), {}

    return compute


def test_a_killed_worker_costs_its_own_images(tmp_path, data):
    dataset = open_dataset("minivoc", data, "train")
    run = Run(tmp_path / "run", workers=2, progress=False)
    store = run.stage("numbers", {}, dataset, computes, 3)
    assert [store.has(i) for i in dataset.ids] == [True, True, True, False]
    assert list(run.skipped) == [dataset.ids[3]] and "lower workers" in run.skipped[dataset.ids[3]]
    again = Run(tmp_path / "run", workers=2, progress=False)
    store = again.stage("numbers", {}, dataset, computes, None)
    assert [int(store.load(i)["value"]) for i in dataset.ids] == [0, 1, 2, 3]


class Bomb:
    "What a file must not be able to do when it is read: call a function."

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_that_is_read_is_executed(tmp_path):
    exploded = tmp_path / "exploded"
    objects = np.array([Bomb(exploded)], dtype=object)
    np.savez(tmp_path / "bomb.npz", counts=objects, level=objects, quality=objects, size=objects)
    torch.save(
        dict(step=Bomb(exploded), learner=Bomb(exploded), network=Bomb(exploded)),
        tmp_path / "bomb.pt",
    )
    (tmp_path / "bomb.npy").write_bytes(pickle.dumps(Bomb(exploded)))
    store = Store(tmp_path / "cache", "toy", {})
    store.path("x").write_bytes((tmp_path / "bomb.npz").read_bytes())
    for read in (
        lambda: store.load("x"),
        lambda: load_masks(tmp_path / "bomb.npz"),
        lambda: Checkpoint(tmp_path / "bomb.pt").load(),
        lambda: read_state_dict(tmp_path / "bomb.pt"),
        lambda: Instances.open(tmp_path / "bomb.npy"),
    ):
        with pytest.raises((ValueError, OSError, RuntimeError, KeyError)):
            read()
    assert not exploded.exists()
    assert not [call for file in PACKAGE.rglob("*.py") for call in careless_calls(file)]


def careless_calls(file):
    "Calls of a module that could execute what a file says."
    careless = ("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            safe = given.get("weights_only") == "True"
            safe |= given.get("pickle_module") == "SAFE_PICKLE"
            pickled = given.get("allow_pickle") == "True"
            if name in careless or pickled or (name == "torch.load" and not safe):
                yield f"{file.name}, line {node.lineno}: {name}"


def test_no_network_unless_asked(tmp_path, monkeypatch):
    def forbidden(*words, **more):
        raise AssertionError(f"the network was asked: {words}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    small = dict(points_per_side=2, crop_layers=0)
    changes = dict(
        data=dict(images=dict(train=2, tune=1, val=1)),
        masks=dict(source="sam", sam=small),
        classification=dict(training=dict(steps=1, batch_size=2, lr=0.01, warmup=0)),
    )
    study = Study(settings_of("minivoc", changes=changes), tmp_path, progress=False)
    prompts = study.train("classification", study.settings.classification)
    way = Way("sams", "caa", study.settings.seeding.box_thresholds[0], "sam")
    seeds = study.seeds(prompts, way, "train")
    assert all(seeds.has(i) for i in study.data["train"].ids)


def test_leftovers_of_killed_processes_are_removed_and_no_others(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "cache").mkdir()
    names = [
        f"cache/a.npz.{dead.pid}.part",
        f"x.csv.{os.getpid()}.part",
        "photos.zip.part",
        "cache/a.npz",
    ]
    for name in names:
        (tmp_path / name).write_text("half")
    there = lambda: [name for name in names if (tmp_path / name).exists()]
    remove_leftovers(tmp_path)
    assert there() == names[1:]


def test_a_run_killed_before_its_page_makes_it_next_time(tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell("seed = 1\nroot = '.'", metadata=dict(tags=["parameters"]))
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[cell],
            metadata=dict(
                kernelspec=dict(name="python3", display_name="python3", language="python")
            ),
        ),
        tmp_path / "one.ipynb",
    )
    (tmp_path / "p.yaml").write_text("base: minivoc\nnotebooks: [one]\nside_by_side: []")

    def page(out):
        (out / "report.html").write_text((out / "run.json").read_text())

    def killed(*_):
        raise KeyboardInterrupt

    go = lambda a: runner.reproduce(
        str(tmp_path / "p.yaml"), tmp_path / "run", ["one"], changes=dict(seed=a), progress=False
    )
    monkeypatch.setattr(runner, "benchmarks_folder", lambda: tmp_path)
    # killed while it writes the page, or before run.json
    for number, place in enumerate(("build_report", "collect_claims"), start=2):
        monkeypatch.setattr(runner, "build_report", page)
        go(1)
        with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt):
            now.setattr(runner, place, killed)
            go(number)
        assert all(n["reused"] for n in go(number)["notebooks"])
        shown = json.loads((tmp_path / "run/report.html").read_text())
        assert shown["parameters"]["seed"] == number


@pytest.mark.parametrize(
    "content",
    ["", "- a", "a: [", "a: b: c", "\x00", "42", "seed: !!python/object/apply:os.system ['true']"],
)
def test_bad_presets(tmp_path, content):
    (tmp_path / "p.yaml").write_text(content)
    told = call("reproduce", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "run"))
    assert told.exit_code == 1 and "p.yaml" in told.output and "Traceback" not in told.output
