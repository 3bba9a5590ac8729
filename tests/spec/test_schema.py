"""The JSON Schema: valid itself, accepts what loads, refuses what people mistype, and knows every field of the grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from examples import MINI
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from random_specs import documents

from vitscope.cli import main
from vitscope.spec.kinds import KINDS
from vitscope.spec.schema import json_schema
from vitscope.spec.text import read_yaml
from vitscope.spec.zoo import zoo_names, zoo_path

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def instance(text: str) -> Any:
    """A YAML text as an editor sees it, whose keys are all text."""
    return with_text_keys(read_yaml(text, "x.yaml").data)


def with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): with_text_keys(item) for key, item in value.items()}
    return [with_text_keys(item) for item in value] if isinstance(value, list) else value


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(instance(text))]


def test_it_is_a_schema_of_its_dialect() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("name", zoo_names())
def test_every_file_of_the_zoo_is_valid(name: str) -> None:
    path = zoo_path(name)
    assert path is not None and errors(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        MINI,
        "extends: mini\nhead: {classes: 5}",
        "extends: mini\nstages: {1: {depth: 5, blocks: [ffn*, attention], downsample: {kernel: 5}}}\ninput: {1: 32}",
        "extends: mini\nhead: distilled_classifier\nstages: [{depth: 2, width: 8, block: ffn}]",
        "plugins: [my.py]\ninput: [3, 8, 8]\nstem: mine\nhead: {block: mine, foo: 1}\nstages: [{block: mine, bar: [1, 2]}]",
        MINI + "reported: {source: here, params: 6.1M, macs: 650000000, top1: 79.0, latency: {iphone12: 1.1ms}}",
        MINI.replace(
            "block: ffn}",
            "blocks: [{block: ffn*2, expansion: 3}, 'attention * 2', mb4d*], num_heads: [null, null, 4, 4, null]}",
        ),
    ],
)
def test_what_loads_is_valid(text: str) -> None:
    assert errors(text) == []


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(documents())
def test_what_the_grammar_makes_is_valid(document: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name:", "nmae:"),
        ("head:", "haed:"),
        ("[3, 64, 64]", "[3, 64]"),
        ("[3, 64, 64]", "[3, 0, 64]"),
        ("[3, 64, 64]", "64"),
        ("conv_stem,", "conv_stm,"),
        ("conv_stem,", "classifier,"),
        ("block: conv_stem, width: 16", "block: conv_stem"),
        ("{block: conv_stem, width: 16}", "conv_stm"),
        ("width: 16}", "width: '16'}"),
        ("width: 16}", "width: 16, dpth: 2}"),
        ("depth: 2", "depth: 0"),
        ("depth: 2", "depth: 2.5"),
        ("depth: 2", "depth: [2]"),
        ("depth: 2, ", ""),
        ("width: 16, ", ""),
        ("width: 16, ", "width: -1, "),
        ("block: ffn}", "block: fnn}"),
        ("block: ffn}", "block: ffn, blocks: [ffn]}"),
        ("block: ffn}", "block: ffn, expanson: 4}"),
        ("block: ffn}", "block: ffn, num_heads: 4}"),
        ("block: ffn}", "block: ffn, kernel: -4}"),
        ("block: ffn}", "block: ffn, expansion: '4'}"),
        ("block: ffn}", "block: ffn, expansion: [4, '3']}"),
        ("block: ffn}", "block: ffn, act: gleu}"),
        ("ffn*2", "fnn*2"),
        ("ffn*2", "ffn*x"),
        ("ffn*2", "{block: ffn*2, num_heads: 4}"),
        ("downsample: conv", "downsample: cnv"),
        ("downsample: conv", "downsample: {block: conv, kernal: 3}"),
        ("downsample: conv", "downsample: {block: conv, kernel: 4}"),
        ("classes: 10", "classes: 0"),
        ("classes: 10", "clases: 10"),
        ("head:", "act: gleu\nhead:"),
        ("head:", "drop_path_rate: 1\nhead:"),
        ("head:", "reported: {params: 6M}\nhead:"),
        ("head:", "reported: {source: a, latency: {iphone12: 1.1}}\nhead:"),
        ("head:", "plugins: my.py\nhead:"),
        ("name: mini", "extends: base\nfoo: 1"),
    ],
)
def test_what_people_mistype_is_refused(old: str, new: str) -> None:
    assert old in MINI
    assert errors(MINI.replace(old, new, 1))


@pytest.mark.parametrize(
    "text",
    ["extends: a\nhead: {clases: 5}", "extends: a\nstages: {1: {dpth: 5}}", "plugins: [a.py]\nfoo: 1", "{}", "[]"],
)
def test_variants_and_specs_with_plugins_are_checked_as_far_as_they_can_be(text: str) -> None:
    assert errors(text)


def test_every_field_of_every_kind_is_described() -> None:
    for kind in KINDS:
        definition = SCHEMA["$defs"][f"{kind.role}_{kind.kind}"]
        for name, field in definition["properties"].items():
            assert field.get("description"), (kind, name)
        assert definition["description"]
    assert all(key.get("description") for key in SCHEMA["properties"].values())


def test_the_command_prints_it_or_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
    path = tmp_path / "spec.schema.json"
    assert main(["schema", "-o", str(path)]) == 0 and json.loads(path.read_text()) == SCHEMA
    assert main(["schema", "-o", str(path)]) == 2 and "--force" in capsys.readouterr().err
    assert main(["schema", "-o", str(path), "--force"]) == 0
