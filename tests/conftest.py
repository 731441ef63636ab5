"""Shared by all tests.

One torch thread a process (they run in parallel), and the closing lines of the parity and fault
tests."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter, config):
    config.fault_counts = count_faults(terminalreporter)
    reports = [r for r in terminalreporter.stats.get("passed", []) if "test_parity[" in r.nodeid]
    total = lambda name: sum(
        value for r in reports for key, value in r.user_properties if key == name
    )
    if reports:
        terminalreporter.write_sep(
            "=",
            f"parity: {total('arrays_compared')} arrays of {len(reports)} files compared, "
            f"{total('arrays_read')} read as inputs, none skipped",
        )


def count_faults(terminalreporter):
    "Kinds of bad input, inputs and moments tried, and what went wrong; None without fault tests."
    import counts

    stats = terminalreporter.stats
    reports = [r for word in ("passed", "failed", "error") for r in stats.get(word, [])]
    faults = [r for r in reports if {"fault", "kill"} & set(r.keywords)]
    if not faults or not any("fault or kill" in word for word in sys.argv):
        return None
    total = lambda name: sum(
        value for r in faults for key, value in r.user_properties if key == name
    )
    killed = [r for r in faults if "kill" in r.keywords]
    lost = total("lost") + sum(r.failed for r in killed)
    wrong = sum(r.failed for r in faults if "kill" not in r.keywords)
    return (
        f"kinds of bad input: {len(faults) - len(killed)}, inputs tried: {counts.tried}, moments "
        f"killed: {total('killed')}; wrong in silence: {wrong}, results lost: {lost}"
    )


def pytest_unconfigure(config):
    if line := getattr(config, "fault_counts", None):
        print(line)
