"""What the fault tests share.

Giving any bytes to a reader, and counting how often, for their closing line (they run in one
process)."""

import tempfile
from pathlib import Path

tried = 0  # inputs given to a parser by the fuzz tests


def attempt(read, content, name, errors, said=None):
    """read(path) of a file `name` with this content, or None after one of `errors`, whose one
    line holds `said` (default: the name)."""
    global tried
    tried += 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return read(path)
        except errors as error:
            assert "\n" not in str(error) and (said or name) in str(error)
