"""Every array of every golden vector file (see `parity`): compared with ours, or read as an input.

Nothing is skipped: missing files are a failure."""

import re

import parity
import pytest
from parity import FOLDER, OWN, Case, case_files, group_of

CHECKS = parity.checks()


def test_the_vectors_are_here():
    "In a clone: all files of the table with all their arrays. Elsewhere: some file."
    assert case_files(), f"no golden vectors in {FOLDER}"
    if FOLDER != OWN:
        return
    page = (OWN / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| (\w\S*) \| (\d+) \|$", page))
    assert set(rows) == {path.stem for path in case_files()}
    for name, number in rows.items():
        assert len(Case(OWN / f"{name}.npz").arrays) == int(number), name
    assert sum(path.stat().st_size for path in case_files()) <= 3_000_000


def test_every_group_of_cases_is_there():
    assert {group_of(path, CHECKS) for path in case_files()} == set(CHECKS)


@pytest.mark.parametrize("path", case_files(), ids=lambda path: path.stem)
def test_parity(path, record_property):
    group = group_of(path, CHECKS)
    known = ", ".join(sorted(CHECKS))
    assert group, f"{path.name} is of no known group ({known}): write its check in tests/parity"
    case = Case(path)
    CHECKS[group](case)
    record_property("arrays_compared", case.finish())
    record_property("arrays_read", len(case.read - case.checked))
