"""The speed table compares equal results: every row's check at tiny sizes, and the table's form.

No time is tested."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("speed", ROOT / "benchmarks" / "speed.py")
speed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speed)
WORKS = list(speed.works(quick=True))


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.name)
def test_both_ways_give_the_same(work):
    assert work.same(work.theirs(), work.ours())


def test_every_fast_form_has_its_row():
    "A module of the room `fast` without a row cannot show what it saves."
    modules = {p.stem for p in (ROOT / "fmwsss" / "fast").glob("*.py")} - {"__init__"}
    rows = {w.name.split(":")[0] for w in WORKS if w.name.startswith("fast.")}
    assert rows == {f"fast.{name}" for name in modules}
    assert all(w.target == speed.WORTH_IT for w in WORKS if w.name.startswith("fast."))


def test_plain_forms_are_measured_in_the_plain_rows():
    "What is called plain is not the fast form under another name."
    clip = speed.make_clip(quick=True)
    seen = []
    speed.with_plain_text(clip, lambda: seen.append(clip.plain))()
    assert seen == [True] and not clip.plain
    with pytest.raises(ZeroDivisionError):
        speed.with_plain_text(clip, lambda: 1 / 0)()
    assert not clip.plain


def test_a_difference_is_noticed():
    with pytest.raises(AssertionError):
        speed.equal([1, 2], [1, 3])
    with pytest.raises(AssertionError):
        speed.close(1e-3)(np.ones(3), np.array([1, 1, 1.01]))
    official = [dict(area=4, segmentation=np.ones((2, 2), bool))]
    assert speed.same_masks(official, speed.Masks.of(np.ones((1, 2, 2))))
    with pytest.raises(AssertionError):
        speed.same_masks(official, speed.Masks.of(np.eye(2)[None]))


def test_table(tmp_path, capsys):
    out = tmp_path / "new" / "speed.csv"
    speed.main(["--quick", "--rounds", "1", "--only", "disk", "--out", str(out)])
    with open(out) as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == speed.COLUMNS and len(rows) == 1
    assert speed.met(rows[0]) and "met" in capsys.readouterr().out


def test_rows_that_are_not_measured_anew_stay(tmp_path):
    out = tmp_path / "speed.csv"
    known = {"another row": dict.fromkeys(speed.COLUMNS, "1") | dict(work="another row")}
    speed.write(out, known)
    speed.main(["--quick", "--rounds", "1", "--only", "disk", "--out", str(out)])
    assert len(speed.read(out)) == 2 and speed.read(out)["another row"] == known["another row"]


def test_what_is_saved():
    work = speed.Work("w", lambda: sum(range(300000)), lambda: 1, lambda a, b: "", ">= 2")
    row = speed.measure(work, 3)[1]
    assert float(row["ratio"]) > 2 and 50 < float(row["saves_percent"]) <= 100


def test_targets():
    row = lambda ratio, target: dict(ratio=ratio, our_seconds="0.05", target=target)
    assert speed.met(row("3", ">= 2.8")) and not speed.met(row("2", ">= 2.8"))
    assert speed.met(row("1.1", "<= 1.15")) and not speed.met(row("1.2", "<= 1.15"))
    assert not speed.met(row("9", "<= 0.04 MB"))
