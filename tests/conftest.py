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
    """Moments killed, faults put in and inputs tried, if the run was killed at all (make
    test-faults); else None."""
    import counts

    reports = terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
    total = lambda name: sum(
        value for r in reports for key, value in r.user_properties if key == name
    )
    if not any("kill" in r.keywords for r in reports):
        return None
    injected = sum("fault" in r.keywords for r in terminalreporter.stats.get("passed", []))
    lost = total("lost") + sum("kill" in r.keywords and r.failed for r in reports)
    return (
        f"moments killed: {total('killed')}, faults injected: {injected}, "
        f"inputs tried: {counts.tried}, results lost: {lost}"
    )


def pytest_unconfigure(config):
    if line := getattr(config, "fault_counts", None):
        print(line)
