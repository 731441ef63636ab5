"""The lowest versions that settings.ini allows, as pip's requirements: `python tests/lowest.py`."""

import configparser
import re
from pathlib import Path

SETTINGS = Path(__file__).parent.parent / "settings.ini"
WANTED = ("requirements", "crf_requirements")
TOOLS = ("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6")  # the tests' own, at any version


def lowest(requirement: str) -> str:
    "`torch>=2.9` -> `torch==2.9`; without a lower bound as it is."
    return re.sub(r">=([\w.]+).*", r"==\1", requirement)


def pins() -> list[str]:
    "One line a requirement."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(SETTINGS, encoding="utf-8")
    texts = [settings["DEFAULT"][key] for key in WANTED]
    return [lowest(r) for text in texts for r in text.split()] + list(TOOLS)


if __name__ == "__main__":
    print("\n".join(pins()))
