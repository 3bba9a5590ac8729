"""Device files: what ships loads, and every kind of mistake in one is one clear line."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml

from vitscope.errors import UnavailableError, UsageError
from vitscope.latency.device import DEVICES, list_devices, load_device, parse_device
from vitscope.latency.fields import read_yaml
from vitscope.latency.runtime import load_runtime


@pytest.fixture
def document() -> dict:
    return copy.deepcopy(read_yaml(DEVICES / "iphone12.yaml"))  # type: ignore[return-value]


def test_shipped_devices_load_and_every_fact_has_a_source():
    assert "iphone12" in list_devices()
    for name in list_devices():
        device = load_device(name)
        assert device.name == name
        assert device.facts and all(fact.source for fact in device.facts)
        assert load_device(name) is device  # kept


def test_a_fact_from_memory_is_unconfirmed(document: dict):
    facts = {fact.key: fact for fact in parse_device(document, "x").facts}
    assert facts["peak_macs_per_s"].confirmed and not facts["memory_bytes_per_s"].confirmed
    with pytest.raises(UsageError, match=r"facts\.memory_bytes_per_s\.unconfirmed must be true or false, got 'yes'"):
        parse_device(edited(document, "facts.memory_bytes_per_s.unconfirmed", "yes"), "x")


def test_a_device_without_a_fit_is_roofline_only(document: dict):
    del document["fit"]
    with pytest.raises(UsageError, match="fit is missing"):
        parse_device(document, "x")
    document["roofline_only"] = "nobody measured it"
    device = parse_device(document, "x")
    assert (device.coefficients, device.held_out, device.ranges) == (None, None, ())
    assert device.roofline_only == "nobody measured it"
    document["fit"] = {}
    with pytest.raises(UsageError, match="unknown key fit"):
        parse_device(document, "x")
    del document["fit"], document["facts"]["peak_macs_per_s"]
    with pytest.raises(UsageError, match="roofline_only needs the facts peak_macs_per_s and memory_bytes_per_s"):
        parse_device(document, "x")


def test_what_ships_without_a_fit_says_so():
    for name in ("pixel6_cpu", "raspberry_pi5", "h200"):
        device = load_device(name)
        assert device.coefficients is None and device.roofline_only


def test_a_device_file_of_the_user_is_read_by_its_path(tmp_path: Path, document: dict):
    document["name"] = "mine"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    device = load_device(path)
    assert device.name == "mine"
    assert device.coefficients == load_device("iphone12").coefficients


def test_unknown_device_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown device 'iphone112' — did you mean 'iphone12'\?; known: .*iphone12"):
        load_device("iphone112")
    with pytest.raises(UsageError, match="no such device file"):
        load_device("nothing.yaml")
    with pytest.raises(UnavailableError, match="no fusion rules for runtime 'tflight'"):
        load_runtime("tflight")


def edited(document: dict, path: str, value: object) -> dict:
    *parents, last = path.split(".")
    inner = document
    for key in parents:
        inner = inner[int(key)] if key.isdigit() else inner[key]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("facts.peak_macs_per_s.value", -1, "facts.peak_macs_per_s.value must be a number above 0, got -1"),
        ("facts.peak_macs_per_s.value", "fast", "facts.peak_macs_per_s.value must be a number above 0, got 'fast'"),
        ("facts.peak_macs_per_s.source", KeyError, "facts.peak_macs_per_s.source is missing, expected a text"),
        ("facts.peak_macs", {"value": 1, "source": "x"}, "unknown fact 'peak_macs' — did you mean 'peak_macs_per_s'"),
        ("facts.peak_macs_per_s.unit", "T", "unknown key facts.peak_macs_per_s.unit; keys: source, unconfirmed, value"),
        ("facts", [], "facts must be a mapping, got []"),
        ("precision", "float61", "precision must be one of float16, float32, int8, got 'float61' — did you mean"),
        ("precision", KeyError, "precision is missing, expected one of float16"),
        ("batch", 0, "batch must be a whole number of at least 1, got 0"),
        ("batch", True, "batch must be a whole number of at least 1, got True"),
        ("prcision", "float16", "unknown key prcision — did you mean 'precision'?"),
        ("name", 12, "name must be a text, got 12"),
        ("residency.0.sign", "windows", "residency.0.sign must be one of .*, got 'windows' — did you mean 'window'"),
        ("residency", {}, "residency must be a list of mappings, got {}"),
        ("fit.coefficients.floor_s", float("nan"), "fit.coefficients.floor_s must be a number of at least 0, got nan"),
        ("fit.coefficients.weight_byte_s", -1e-9, "fit.coefficients.weight_byte_s must be a number of at least 0"),
        ("fit.coefficients.overlap", "some", "fit.coefficients.overlap must be one of none, kernel, network"),
        ("fit.ranges.macs.low", 1e20, "fit.ranges.macs.low must be at most high"),
        ("fit.held_out.interval", 80, "fit.held_out.interval must be below 1, as 0.8, got 80"),
        ("fit.held_out.bands", [], "fit.held_out.bands must be a list with growing pixels"),
        ("fit", KeyError, "fit is missing, expected a mapping"),
    ],
)
def test_mistakes_are_one_line(document: dict, path: str, value: object, message: str):
    with pytest.raises(UsageError, match=r"^bad\.yaml: ") as caught:
        parse_device(edited(document, path, value), "bad.yaml")
    assert re.search(message.replace("[]", r"\[\]").replace("{}", r"\{\}").replace("?", r"\?"), str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "just a text", "- a\n- list", "a: [", "\x00\x01", "a: b: c", "&a [*a]", "'1': {"])
def test_files_that_are_not_a_device(tmp_path: Path, text: str):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_device(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_binary_directory_and_huge_files(tmp_path: Path):
    (tmp_path / "binary.yaml").write_bytes(bytes(range(128, 256)))
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "huge.yaml").write_text("a" * 5_000_000)
    for name in ("binary", "folder", "huge"):
        with pytest.raises(UsageError):
            load_device(tmp_path / f"{name}.yaml")


def test_a_number_without_a_point_is_read_as_meant(document: dict):
    # YAML 1.1 reads 1e-5 as a text
    coefficients = parse_device(edited(document, "fit.coefficients.floor_s", "1e-5"), "x").coefficients
    assert coefficients is not None and coefficients.floor_s == 1e-5


def test_a_key_given_twice_is_refused(tmp_path: Path):
    path = tmp_path / "twice.yaml"
    path.write_text("name: a\nfacts: {}\nname: b\n")
    with pytest.raises(UsageError, match=r"twice.yaml:1: the key 'name' is given twice"):
        load_device(path)
