"""YAML as specs read it: scalars of YAML 1.2, positions, traps, duplicates, aliases, and syntax errors in plain words."""
# ruff: noqa: E501 — messages stand here in one piece, as they are printed

from __future__ import annotations

from typing import Any

import pytest

from vitscope.errors import SpecError
from vitscope.spec.text import Mark, read_yaml


def data(text: str) -> Any:
    document = read_yaml(text, "x.yaml")
    document.check()
    return document.data


def said(text: str) -> list[str]:
    """Every problem of a text, whether it could be read to its end or not."""
    with pytest.raises(SpecError) as caught:
        read_yaml(text, "x.yaml").check()
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12), ("-3", -3), ("+3", 3), ("0", 0), ("1e-5", 1e-5), ("1E3", 1000.0), (".5", 0.5), ("2.", 2.0), ("-0.5", -0.5),
        ("true", True), ("false", False), ("null", None), ("~", None), ("gelu", "gelu"), ("'on'", "on"), ('"12"', "12"), ("'010'", "010"),
        ("6.1M", "6.1M"), ("1.1ms", "1.1ms"), ("ffn*7", "ffn*7"), ("1.2.3", "1.2.3"), ("a b", "a b"), ('"a\\nb"', "a\nb"), ("!  x", "x"),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    read = data(f"k: {text}")["k"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("on", "a boolean"), ("Yes", "a boolean"), ("NO", "a boolean"), ("off", "a boolean"), ("y", "a boolean"), ("True", "a boolean"),
        ("NULL", "no value"), ("010", "an octal number"), ("0o17", "an octal number"), ("09", "an octal number"),
        ("0x1F", "a hexadecimal number"), ("1:30", "a number of base 60"), ("1_000", "a number with digit groups"),
        ("2020-01-01", "a date"), (".inf", "a number that is not finite"), ("-.INF", "a number that is not finite"),
        (".nan", "a number that is not finite"),
    ],
)  # fmt: skip
def test_what_readers_disagree_about_is_said_and_not_guessed(text: str, what: str) -> None:
    (line,) = said(f"k: {text}")
    assert line.startswith(f"x.yaml:1:4: some YAML readers take {text} for {what}: ")


def test_traps_in_keys_and_lists_are_found_too_all_at_once() -> None:
    lines = said("on: 1\nk: [1, yes, 0x1]\n")
    assert [line.split(": ")[0] for line in lines] == ["x.yaml:1:1", "x.yaml:2:8", "x.yaml:2:13"]


@pytest.mark.parametrize("text", ["9" * 19, "1e999", "-" + "9" * 400])
def test_numbers_have_a_size(text: str) -> None:
    assert said(f"k: {text}") == [f"x.yaml:1:4: {text[:20]}{'…' * (text[1] != 'e')} is too large a number"]


def test_positions_of_keys_and_values() -> None:
    document = read_yaml("a: 1\nb:\n  - {c: 2}\n  - 3\n", "x.yaml")
    assert document.data == {"a": 1, "b": [{"c": 2}, 3]}
    assert document.mark(("a",)) == Mark("x.yaml", 1, 4)
    assert document.key_mark(("b", 0, "c")) == Mark("x.yaml", 3, 6)
    assert document.mark(("b", 0, "c")) == Mark("x.yaml", 3, 9)
    assert document.mark(("b", 1)) == Mark("x.yaml", 4, 5)
    assert document.mark(("b", 1, "no", "such")) == Mark("x.yaml", 4, 5)


def test_duplicate_keys_say_where_the_first_one_is() -> None:
    assert said("a: 1\nb: {c: 1,\n  c: 2}\na: 3\n") == [
        "x.yaml:3:3: duplicate key 'c', first given at line 2",
        "x.yaml:4:1: duplicate key 'a', first given at line 1",
    ]


def test_keys_are_words_or_the_numbers_of_items() -> None:
    assert data("{0: a, b: c}") == {0: "a", "b": "c"}
    assert said("1.5: a\ntrue: b\n? [c]\n: d\n? {e: f}\n: g\n? ~\n: h\n") == [
        "x.yaml:1:1: 1.5 cannot be a key, expected a word",
        "x.yaml:2:1: true cannot be a key, expected a word",
        "x.yaml:3:3: a list or mapping cannot be a key",
        "x.yaml:5:3: a list or mapping cannot be a key",
        "x.yaml:7:3: null cannot be a key, expected a word",
    ]


def test_anchors_aliases_and_merge_keys() -> None:
    text = "a: &a {x: 1, w: 2}\nb: *a\nc: {<<: *a, w: 3}\nd: {<<: [*a, {z: 4, x: 5}]}\n'<<': 6\n"
    assert data(text) == {
        "a": {"x": 1, "w": 2}, "b": {"x": 1, "w": 2}, "c": {"w": 3, "x": 1}, "d": {"x": 1, "w": 2, "z": 4}, "<<": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: *b", "x.yaml:1:4: alias *b has no anchor &b before it"),
        ("a: &a [*a]", "x.yaml:1:8: alias *a contains itself"),
        ("a: &a {b: *a}", "x.yaml:1:11: alias *a contains itself"),
        ("a: &a {<<: *a}", "x.yaml:1:12: alias *a contains itself"),
        ("a: {<<: 3}", "x.yaml:1:9: << merges mappings only"),
        ("a: {<<: [{b: 1}, c]}", "x.yaml:1:18: << merges mappings only"),
        ("a: !!python/name:os.system x", "x.yaml:1:4: tag 'tag:yaml.org,2002:python/name:os.system' is not allowed in a spec"),
        ("a: !x [1]", "x.yaml:1:4: tag '!x' is not allowed in a spec"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document starts here, expected one spec a file"),
        ("", "x.yaml: empty, expected a spec with name, input, stem, stages and head"),
        ("# only a comment\n", "x.yaml: empty, expected a spec with name, input, stem, stages and head"),
        ("a:\n\tb: 1\n", "x.yaml:2:1: not valid YAML: a tab cannot indent: use spaces"),
        ("a: [1,\n  2\nb: 3\n", "x.yaml:3:2: not valid YAML: expected ',' or ']' (the list opened at line 1, column 4)"),
        ("a: 'b\n", "x.yaml:2:1: not valid YAML: the text ends too early (the quoted text opened at line 1, column 4)"),
        ("a: @b", "x.yaml:1:4: not valid YAML: a value cannot start with '@': quote it as text"),
        ("a: `b`", "x.yaml:1:4: not valid YAML: a value cannot start with '`': quote it as text"),
        ("a: b: c", "x.yaml:1:5: not valid YAML: a ': ' that starts no key here: quote a text that holds one, and check the indentation"),
        ("a: 1\nb\nc: 2\n", "x.yaml:3:1: not valid YAML: expected ': ' after this key"),
        ("a: b\x00c", "x.yaml:1:5: a zero byte cannot stand in YAML"),
        ("a: 1\nb: \x1b[31m", "x.yaml:2:4: a \\x1b cannot stand in YAML"),
        ("a: \ud800", "x.yaml:1:4: a \\ud800 cannot stand in YAML"),
        ("a: " + "[" * 50, "x.yaml:1:35: nested more than 32 levels deep"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(text: str, line: str) -> None:
    assert said(text) == [line]


def test_line_ends_and_byte_order_marks_are_no_matter() -> None:
    assert data("\ufeffa: 1\r\nb: [2,\r\n  3]\r\n") == {"a": 1, "b": [2, 3]}


def test_the_c_reader_and_the_python_reader_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = "a: &a {x: 1}\nb: {<<: *a, c: [on, '<<']}\n"
    expected = (read_yaml(text, "x").data, list(read_yaml(text, "x").lines()))
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert (read_yaml(text, "x").data, list(read_yaml(text, "x").lines())) == expected
    assert said("a: @b")[0].startswith("x.yaml:1:4: not valid YAML: a value cannot start with '@'")
