"""Every notebook of nbs/ runs from top to bottom: `python tests/notebooks.py [words of names]`.

Each runs in a process of its own, forked from one that has loaded the heavy libraries already:
most notebooks then take about a second instead of six. Two run at a time."""

import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

NBS = Path(__file__).resolve().parent.parent / "nbs"
AT_ONCE = int(os.environ.get("FMWSSS_NOTEBOOKS", 2))
LIMIT = 300  # seconds a notebook
HEAVY = """numpy pandas scipy skimage matplotlib.pyplot torch torchvision open_clip segment_anything
timm IPython execnb.shell"""


def found(words: list) -> list[Path]:
    "Notebooks whose path holds one of the words, or all; the labs first, they take longest."
    names = {p.relative_to(NBS).as_posix(): p for p in NBS.rglob("*.ipynb")}
    shown = [n for n in names if not any(part[0] in "._" for part in n.split("/"))]
    wanted = [n for n in shown if not words or any(word in n for word in words)]
    return [names[n] for n in sorted(wanted, key=lambda n: (not n.startswith("labs/"), n))]


def execute(path: Path) -> int:
    "Run a notebook in this process -> exit code."
    from execnb.shell import CaptureShell

    os.chdir(path.parent)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    shell = CaptureShell(path.parent)
    shell.execute(path, exc_stop=True)
    if shell.exc:
        traceback.print_exception(*shell.exc)
    return int(bool(shell.exc))


def start(path: Path) -> tuple:
    "A process for a notebook -> (its number, the file of what it prints)."
    log = tempfile.TemporaryFile("w+")
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number, log
    code = 1
    try:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        signal.alarm(LIMIT)
        code = execute(path)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(running: dict) -> bool:
    "Wait for the next notebook to end and tell how it went -> did it succeed?"
    number, status = os.wait()
    path, log, began = running.pop(number)
    good = os.waitstatus_to_exitcode(status) == 0
    word = "ok" if good else "FAILED"
    print(f"{word:<6} {time.time() - began:6.1f} s  {path.relative_to(NBS)}", flush=True)
    if not good:
        log.seek(0)
        print("".join(log.readlines()[-60:]), flush=True)
    return good


def run(paths: list) -> int:
    "All notebooks, some at once -> how many have failed."
    waiting, running, failed = list(paths), {}, 0
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            path = waiting.pop(0)
            number, log = start(path)
            running[number] = (path, log, time.time())
        failed += not wait(running)
    return failed


if __name__ == "__main__":
    begin = time.time()
    for name in HEAVY.split():
        __import__(name)
    chosen = found(sys.argv[1:])
    failures = run(chosen)
    print(f"{len(chosen)} notebooks, {failures} failed, {time.time() - begin:.0f} s")
    sys.exit(1 if failures or not chosen else 0)
