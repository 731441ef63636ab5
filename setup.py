"""Installs the package from settings.ini (nbdev's one place for names, versions and requirements)."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], author=cfg["author"],
    author_email=cfg["author_email"], url=cfg["git_url"], license="Apache-2.0", keywords=cfg["keywords"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=" + cfg["min_python"],
    packages=["fmwsss"], package_data={"fmwsss": ["weights/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": cfg["dev_requirements"].split(), "docs": cfg["docs_requirements"].split(), "mask2former": cfg["mask2former_requirements"].split()},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)
