"""The command line: help for newcomers, one line for each error."""
import pytest
from typer.testing import CliRunner

from fmwsss.cli import NOTEBOOKS, app
from fmwsss.runner import benchmarks_folder, load_preset, merge, parse_settings

call = lambda *words: CliRunner().invoke(app, list(words), env=dict(COLUMNS="120", TERM="dumb"))


def one_line(result):
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1, result.output
    return result.output


@pytest.mark.parametrize("command", ["reproduce", "models", "data"])
def test_help(command):
    result = call(command, "--help")
    assert result.exit_code == 0 and "Usage" in result.output
    assert command in call("--help").output


def test_unknown_preset_names_the_known_ones(): assert "minivoc" in one_line(call("reproduce", "minivok"))
def test_unknown_notebook(tmp_path): assert "seeds" in one_line(call("reproduce", "minivoc", "--only", "seedz", "--out", str(tmp_path)))
def test_unknown_parameter(tmp_path): assert "sede" in one_line(call("reproduce", "minivoc", "--set", "sede=1", "--out", str(tmp_path)))
def test_malformed_setting(): assert "KEY=VALUE" in one_line(call("reproduce", "minivoc", "--set", "seed"))
def test_missing_data_folder(): assert "nowhere" in one_line(call("data", "nowhere"))


def test_broken_preset(tmp_path):
    (tmp_path / "p.yaml").write_text("a: [1\n")
    assert "not valid YAML" in one_line(call("reproduce", str(tmp_path / "p.yaml")))
    (tmp_path / "p.yaml").write_text("- 1\n")
    assert "parameter: value" in one_line(call("reproduce", str(tmp_path / "p.yaml")))


def test_settings_reach_into_groups():
    preset = load_preset("minivoc")
    merged = merge(preset, parse_settings(["masks.sam.points_per_side=8", "seed=3"]))
    assert merged["seed"] == 3 and merged["masks"]["sam"] == dict(preset["masks"]["sam"], points_per_side=8)
    with pytest.raises(ValueError, match="no parameter"): merge(preset, parse_settings(["masks.sam.points=8"]))


def test_notebooks_declare_what_the_preset_sets():
    import papermill
    declared = set().union(*[papermill.inspect_notebook(str(benchmarks_folder() / f"{n}.ipynb")) for n in NOTEBOOKS])
    assert set(load_preset("minivoc")) - {"quick", "notebooks"} <= declared


def test_minivoc_is_drawn_and_listed(tmp_path):
    result = call("data", "minivoc", "--root", str(tmp_path / "d"), "--train", "4", "--tune", "2", "--val", "2")
    assert result.exit_code == 0, result.output
    assert "train" in result.output and len(list((tmp_path / "d" / "JPEGImages").iterdir())) == 8
