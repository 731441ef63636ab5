"""Settings as text: read as everybody means them, or refused in one line."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import one_line
from fmwsss.app.presets import benchmarks_folder, layers, parse_settings, settings_of
from fmwsss.files.errors import SettingsError
from fmwsss.files.yaml_text import load_yaml

pytestmark = pytest.mark.fault
FEW = settings(max_examples=200, deadline=None, database=None, derandomize=True)


@pytest.mark.parametrize(
    "text, value",
    [
        *[("010", 10), ("08", 8), ("-07", -7), ("+3", 3), ("0x1F", 31), ("0", 0)],
        *[("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-1.5e+2", -150.0)],
        *[(".inf", math.inf), ("-.inf", -math.inf)],
        *[("1:30", "1:30"), ("2007_000032", "2007_000032"), ("1_000", "1_000"), ("12e", "12e")],
        *[("1.2.3", "1.2.3"), ("-", None), ("0b101", "0b101"), ("'010'", "010"), ("yes", True)],
        *[("null", None), ("~", None), ("", None), ("[1, 2.5, x]", [1, 2.5, "x"])],
        *[("{255: 1, a: [b]}", {255: 1, "a": ["b"]}), ("{a: , b: 2}", {"a": None, "b": 2})],
    ],
)
def test_values(text, value):
    found = load_yaml(text, "here") if text != "-" else None
    assert found == value and type(found) is type(value)


@FEW
@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text()))
def test_what_yaml_writes_is_read_back(value):
    text = yaml.safe_dump(dict(x=value), allow_unicode=True)
    assert load_yaml(text, "here") == dict(x=value)


@FEW
@given(st.one_of(st.text(max_size=30), st.binary(max_size=30)))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        load_yaml(text, "p.yaml")
    except SettingsError as error:
        one_line(error, "p.yaml")


@pytest.mark.parametrize(
    "text, words",
    [
        ("{255:1}", ["space behind the colon", "{255: 1}"]),
        ("{train:10, val: 2}", ["space behind the colon", "{train: 10}"]),
        ("seed: 1\nseed: 2", ["'seed' is given twice"]),
        ("data: {root: a, kind: b, root: c}", ["'root' is given twice"]),
        ("a: [", ["not valid YAML"]),
        ("a:\n\tb: 1", ["not valid YAML"]),
        (b"\xff\xfe\x00", ["not valid YAML"]),
        ("a: \x00", ["not valid YAML"]),
        ("!!python/name:os.system", ["not valid YAML"]),
        ("[" * 3000, ["not valid YAML"]),
    ],
)
def test_what_cannot_be_meant(text, words):
    with pytest.raises(SettingsError) as error:
        load_yaml(text, "p.yaml")
    one_line(error, "p.yaml", *words)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_presets_in_any_unicode(tmp_path, encoding, end):
    path = tmp_path / "p.yaml"
    path.write_bytes(f"base: minivoc{end}seed: 3{end}fixed_prompt: 'ä {{}}'{end}".encode(encoding))
    assert settings_of(path).seed == 3 and settings_of(path).fixed_prompt == "ä {}"


def test_the_packaged_presets_mean_what_pyyaml_reads():
    for path in (benchmarks_folder() / "presets").glob("*.yaml"):
        assert load_yaml(path.read_bytes(), path) == yaml.safe_load(path.read_text()), path


def test_presets_based_on_one_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, base in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml\n")
    for name in "abcd":
        with pytest.raises(SettingsError, match="based on itself"):
            layers(f"{name}.yaml")


def test_settings_of_the_command_line():
    found = parse_settings(["a=010", "b.c={255: 1}", "b.d=1e-3"])
    assert found == dict(a=10, b=dict(c={255: 1}, d=1e-3))
    with pytest.raises(SettingsError) as error:
        parse_settings(["b.c={255:1}"])
    one_line(error, "--set", "{255: 1}")
