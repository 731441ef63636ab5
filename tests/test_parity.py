"""Every array of every golden vector file (see `parity`): compared with ours, or read as an input. Nothing is skipped."""
import pytest
import parity
from parity import FOLDER, Case, case_files

if not case_files():
    pytest.skip(f'no golden vectors in {FOLDER}: set FMWSSS_GOLDENS to their folder', allow_module_level=True)

CHECKS = parity.checks()


@pytest.mark.parametrize('path', case_files(), ids=lambda path: path.stem)
def test_parity(path, record_property):
    group = max((g for g in CHECKS if path.stem == g or path.stem.startswith(f'{g}_')), key=len, default=None)
    assert group, f'{path.name} is of no known group ({", ".join(sorted(CHECKS))}): write its check in tests/parity'
    case = Case(path)
    CHECKS[group](case)
    record_property('arrays_compared', case.finish())
    record_property('arrays_read', len(case.read - case.checked))
