"""Links that open a notebook in Colab or Binder: `python nbs/labs/links.py` prints all of them.

`public_repository` in settings.ini names the repository; while it is empty there are none."""
import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def repository() -> str:
    "owner/name of the public repository, or ''."
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    return settings["DEFAULT"].get("public_repository", "").strip()


def links(path: str, where: str, branch: str = "main") -> str:
    "Markdown links that open `path`, a notebook of the repository `where` (owner/name)."
    colab = f"https://colab.research.google.com/github/{where}/blob/{branch}/{path}"
    binder = f"https://mybinder.org/v2/gh/{where}/{branch}?labpath={path.replace('/', '%2F')}"
    return f"[Open in Colab]({colab}) · [Open in Binder]({binder})"


def install_cell(where: str) -> str:
    "Code that installs the package where it is missing, as on Colab."
    lines = [
        "import importlib.util",
        "",
        'if importlib.util.find_spec("fmwsss") is None:',
        f"    %pip install -q git+https://github.com/{where}",
    ]
    return "\n".join(lines)


def main():
    where = repository()
    if not where:
        print("no links: public_repository in settings.ini is empty")
        return
    for folder in ("method", "labs"):
        for path in sorted((ROOT / "nbs" / folder).glob("[0-9q]*.ipynb")):
            name = path.relative_to(ROOT).as_posix()
            print(f"- {name}: {links(name, where)}")


if __name__ == "__main__":
    main()
