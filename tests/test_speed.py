"""The speed table compares equal results: every row's check at tiny sizes, and the table's form. No time is tested."""
import csv, importlib.util
from pathlib import Path
import numpy as np
import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "speed.py"
spec = importlib.util.spec_from_file_location("speed", FILE)
speed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(speed)
WORKS = list(speed.works(quick=True))


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.name)
def test_both_ways_give_the_same(work): assert work.same(work.theirs(), work.ours())


def test_a_difference_is_noticed():
    with pytest.raises(AssertionError): speed.equal([1, 2], [1, 3])
    with pytest.raises(AssertionError): speed.close(1e-3)(np.ones(3), np.array([1, 1, 1.01]))
    official, ours = [dict(area=4, segmentation=np.ones((2, 2), bool))], speed.Masks.of(np.ones((1, 2, 2)))
    assert speed.same_masks(official, ours)
    with pytest.raises(AssertionError): speed.same_masks(official, speed.Masks.of(np.eye(2)[None]))


def test_table(tmp_path, capsys):
    speed.main(["--quick", "--rounds", "1", "--only", "disk", "--out", str(tmp_path / "new" / "speed.csv")])
    rows = list(csv.DictReader(open(tmp_path / "new" / "speed.csv")))
    assert list(rows[0]) == ["work", "published_seconds", "our_seconds", "ratio", "target"] and len(rows) == 1
    assert speed.met(rows[0]) and "met" in capsys.readouterr().out


def test_targets():
    row = lambda ratio, target: dict(ratio=ratio, our_seconds="0.05", target=target)
    assert speed.met(row("3", ">= 2.8")) and not speed.met(row("2", ">= 2.8"))
    assert speed.met(row("1.1", "<= 1.15")) and not speed.met(row("1.2", "<= 1.15")) and not speed.met(row("9", "<= 0.04 MB"))
