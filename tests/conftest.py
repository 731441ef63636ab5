"""Shared by all tests: one torch thread a process (they run in parallel), and the closing line of the parity test."""
import sys
from pathlib import Path
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    reports = [r for r in terminalreporter.stats.get('passed', []) if 'test_parity.py' in r.nodeid]
    total = lambda name: sum(value for r in reports for key, value in r.user_properties if key == name)
    if reports:
        terminalreporter.write_sep('=', f"parity: {total('arrays_compared')} arrays of {len(reports)} files compared, "
                                        f"{total('arrays_read')} read as inputs, none skipped")
