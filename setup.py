"""Installs the package from settings.ini (nbdev's one place for names, versions, requirements).

A wheel holds what it needs to run: modules, weights, templates, benchmark notebooks, presets."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

extras = {name: cfg[f"{name}_requirements"].split() for name in ("crf", "bench", "lab", "docs")}
extras["all"] = [r for name in ("crf", "bench", "lab") for r in extras[name]]
extras["dev"] = extras["all"] + cfg["dev_requirements"].split()
data = ["weights/*", "py.typed", "report/templates/*"]
benchmarks = ["*.ipynb", "*.csv", "presets/*.yaml", "results/*/*"]
readme = here / "README.md"

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=" + cfg["min_python"],
    packages=[*find_packages(include=["fmwsss", "fmwsss.*"]), "fmwsss.benchmarks"],
    package_dir={"fmwsss.benchmarks": "benchmarks"},
    package_data={"fmwsss": data, "fmwsss.benchmarks": benchmarks},
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)
