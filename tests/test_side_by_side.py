"""Notebooks that run at the same time: the same results, and no process that is left behind."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from fmwsss.app import runner, side_by_side as module
from fmwsss.app.notebooks import outputs_of
from fmwsss.app.presets import known_presets, settings_of
from fmwsss.app.runner import grouped, reproduce
from fmwsss.app.side_by_side import OwnLines, side_by_side
from fmwsss.files.errors import SettingsError

KILL_ITS_PROGRAM = "import os, psutil\npsutil.Process(os.getppid()).kill()"
SLEEP = "import time\ntime.sleep(120)"


def jobs_of(folder, **texts) -> list:
    "Jobs for notebooks {name: code}, in which x is 5."
    kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    for name, text in texts.items():
        parameters = nbformat.v4.new_code_cell("x = 0", metadata=dict(tags=["parameters"]))
        cells = [parameters, nbformat.v4.new_code_cell(text)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    options = dict(run=str(folder / "run"), parameters=dict(x=5), progress=False)
    return [dict(source=str(folder / f"{name}.ipynb"), **options) for name in texts]


def together(jobs, number=2):
    "Results by name, and what was told."
    told = []
    found = side_by_side(jobs, number, lambda j: told.append(j), lambda r: told.append(r))
    return {r["name"]: r for r in found}, told


def test_each_notebook_gives_its_result_and_a_bad_one_costs_only_itself(tmp_path):
    jobs = jobs_of(tmp_path, good="print(x)", bad="assert x == 0, 'five'", last="print(x + 1)")
    found, told = together(jobs)
    assert list(found) == ["good", "bad", "last"] and len(told) == 6
    assert found["good"]["ok"] and found["last"]["ok"] and not found["bad"]["ok"]
    assert found["bad"]["error"] == "AssertionError: five"
    printed = (tmp_path / "run" / "notebooks" / "last.ipynb").read_text()
    assert '"6\\n"' in printed


def test_what_has_run_does_not_run_again(tmp_path):
    jobs = jobs_of(tmp_path, one="print(x)", two="print(x)")
    assert not any(r["reused"] for r in together(jobs)[0].values())
    assert all(r["reused"] for r in together(jobs)[0].values())


def test_a_process_that_is_killed_is_a_failed_notebook(tmp_path):
    found, _ = together(jobs_of(tmp_path, killed=KILL_ITS_PROGRAM, good="print(x)"))
    assert found["good"]["ok"] and not found["killed"]["ok"]
    assert "its process ended with code -9" in found["killed"]["error"]
    assert "run the same command" in found["killed"]["error"]


CODE = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from fmwsss.app.side_by_side import side_by_side
side_by_side(json.loads(sys.argv[1]), 2, print, print)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_goes_on_when_the_program_is_stopped(tmp_path, number):
    jobs = jobs_of(tmp_path, one=SLEEP, two=SLEEP)
    command = [sys.executable, "-c", CODE, json.dumps(jobs)]
    options = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    program = psutil.Popen(command, **options)
    kernels = lambda: [p for p in program.children(recursive=True) if "ipykernel" in p.cmdline()]
    deadline = time.monotonic() + 60
    while len(kernels()) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    family = program.children(recursive=True)
    assert len(kernels()) == 2
    program.send_signal(number)
    program.wait(20)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_lines_are_told_apart_and_bars_left_out(capsys):
    lines = OwnLines("seeds", sys.stdout)
    for text in ("\rcams 1/2", "\rcams 2/2\n", "mIoU ", "84\n", "\n", "no end"):
        assert lines.write(text) == len(text)
    assert capsys.readouterr().out == "   seeds: mIoU 84\n"


def test_only_neighbours_are_put_together():
    assert grouped(list("abcd"), "bc") == [["a"], ["b", "c"], ["d"]]
    assert grouped(list("abc"), "ac") == [["a"], ["b"], ["c"]]
    assert grouped(list("abc"), "") == [["a"], ["b"], ["c"]] and grouped([], "ab") == []


@pytest.mark.parametrize("preset", known_presets())
def test_what_measures_seconds_runs_alone(preset):
    assert "efficiency" not in settings_of(preset).side_by_side


def test_an_unknown_name_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(SettingsError, match="gallry"):
        reproduce("minivoc", tmp_path, changes=dict(side_by_side=["gallry"]), progress=False)


# ---- what a reviewer found


def test_what_a_kernel_prints_is_no_answer(tmp_path):
    noise = "import os\nos.write(1, b'{}')\nos.system('echo noise')"
    found, _ = together(jobs_of(tmp_path, loud=noise, quiet="print(x)"))
    assert found["loud"]["ok"] and found["quiet"]["ok"]


def test_a_process_that_dies_at_once_is_a_failed_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CODE", "raise SystemExit(3)")
    found, _ = together(jobs_of(tmp_path, one="print(x)", two="print(x)"))
    assert not any(r["ok"] for r in found.values())
    assert all("ended with code 3" in r["error"] for r in found.values())


def test_half_written_files_of_another_notebook_are_not_its_outputs(tmp_path):
    (tmp_path / "tables").mkdir()
    for name in ("seeds.csv", "models.csv.123.part"):
        (tmp_path / "tables" / name).write_text("x")
    assert list(outputs_of(tmp_path)) == ["tables/seeds.csv"]


@pytest.mark.parametrize("workers, at_once, each", [(2, 2, 1), (8, 3, 2), (1, None, 1)])
def test_workers_are_all_processes_together(monkeypatch, workers, at_once, each):
    seen = {}

    def together(jobs, number, *_):
        seen.update(number=number, each={job["parameters"]["workers"] for job in jobs})

    monkeypatch.setattr(runner, "side_by_side", together)
    monkeypatch.setattr(runner, "run_notebook", lambda **job: dict(name="n", ok=True, **FINE))
    parameters = dict(workers=workers)
    options = dict(run="", parameters=parameters, progress=False, number=0)
    runner.run_group([dict(source=f"{n}.ipynb", **options) for n in "abc"], workers, 3)
    assert seen.get("number") == at_once and seen.get("each", {1}) == {each}


FINE = dict(seconds=0.0, reused=False, error=None)
