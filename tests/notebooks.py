"""Every notebook of nbs/ runs from top to bottom.

`pytest tests/notebooks.py` (its name keeps it out of plain `pytest tests`)."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NBS = Path(__file__).parent.parent / "nbs"
FOUND = sorted(
    p.relative_to(NBS).as_posix()
    for p in NBS.rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in p.parts)
)


@pytest.mark.parametrize("name", FOUND)
def test_notebook_runs(name):
    notebook = nbformat.read(NBS / name, 4)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources=dict(metadata=dict(path=str((NBS / name).parent))),
    ).execute()
