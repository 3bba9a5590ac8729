"""Whatever is read ends as a Spec or as a SpecError of whole lines; what is written is read back; --set is an edit."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_specs import documents

from vitscope.errors import SpecError
from vitscope.spec import Spec, dump_spec, load_spec, parse_spec
from vitscope.spec.zoo import zoo_names, zoo_path

ZOO = [path.read_text() for name in zoo_names() if (path := zoo_path(name)) is not None]
TOKEN = re.compile(r"[\w.]+|\n *|[^\w\s]| +")
NASTY = [
    *("", " ", "\n", "\n  ", "\t", "null", "~", "true", "on", "-1", "0", "1.5", "1e999", "9" * 30, ".nan"),
    *("'", '"', "{", "}", "[", "]", ",", ": ", "- ", "? ", "#", "&a ", "*a", "<<: ", "!x ", "!!python/name:os.system "),
    *(
        "|",
        ">",
        "%",
        "@",
        "`",
        "---",
        "...",
        "\x00",
        "\ufeff",
        "\u2028",
        "\x85",
        "\ud800",
        "🦜",
        "[[4]]",
        "{a: b}",
        "norm: none",
    ),
    *("block", "blocks", "depth", "width", "stride", "ffn", "ffn*", "ffn*99", "conv", "classifier"),
    *("extends", "plugins", "reported", "stages", "input"),
]
settings.register_profile(
    "spec", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
settings.load_profile("spec")


def attempt(text: str, overrides: tuple[str, ...] = ()) -> Spec | SpecError:
    """What `text` means, or why it means nothing; any other exception fails the test."""
    try:
        return parse_spec(text, "fuzz.yaml", overrides)
    except SpecError as error:
        assert error.problems
        for line in error.problems:
            assert re.match(r"(fuzz\.yaml(:\d+:\d+)?|--set .*|.*\.yaml:\d+:\d+): \S", line), line
            assert line.isprintable() and len(line) < 1000, line
        return error


@st.composite
def mutations(draw: st.DrawFn) -> str:
    tokens = TOKEN.findall(draw(st.sampled_from(ZOO)))
    for _ in range(draw(st.integers(1, 6))):
        i = draw(st.integers(0, len(tokens) - 1))
        match draw(st.sampled_from(["drop", "double", "replace", "insert", "move", "cut"])):
            case "drop":
                del tokens[i : i + draw(st.integers(1, 4))]
            case "double":
                tokens[i:i] = tokens[i : i + draw(st.integers(1, 12))]
            case "replace":
                tokens[i] = draw(st.sampled_from(NASTY))
            case "insert":
                tokens.insert(i, draw(st.sampled_from(NASTY)))
            case "move":
                tokens.insert(draw(st.integers(0, len(tokens) - 1)), tokens.pop(i))
            case "cut":
                del tokens[max(1, i) :]
        tokens = tokens or [""]
    return "".join(tokens)


@settings(max_examples=600)
@given(mutations())
def test_a_damaged_spec_of_the_zoo_is_a_spec_or_a_clear_error(text: str) -> None:
    result = attempt(text)
    if isinstance(result, Spec):
        assert parse_spec(dump_spec(result)) == result


@settings(max_examples=300)
@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_clear_error(text: str) -> None:
    assert isinstance(attempt(text), SpecError)


@settings(max_examples=150)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(NASTY),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)),
       st.sampled_from(["input", "stem", "stages", "head", "act", "reported", "drop_path_rate", "plugins", "name"]))  # fmt: skip
def test_any_value_under_any_key_is_a_spec_or_a_clear_error(value: Any, key: str) -> None:
    good = yaml.safe_load(ZOO[zoo_names().index("efficientformerv2_s1")])
    attempt(json.dumps(good | {key: value}))
    attempt(json.dumps(good | {"stages": [good["stages"][0] | {key: value}]}))
    attempt(json.dumps(good), (f"stages.2.{key}={json.dumps(value)}",))


@settings(max_examples=300)
@given(documents())
def test_a_document_of_the_grammar_loads_and_is_written_back_as_itself(document: dict[str, Any]) -> None:
    result = attempt(json.dumps(document))
    if isinstance(result, Spec):
        assert len(result.stages) == len(document["stages"]) and result.name == " ".join(document["name"].split())
        assert parse_spec(dump_spec(result)) == result
        again = parse_spec(result.document)
        assert again.digest == result.digest  # whose keys are sorted, devices too
        assert replace(again, reported=None) == replace(result, reported=None)
        assert hash(result) == hash(parse_spec(json.dumps(document)))
    else:  # nothing but its shapes may be wrong, or fields that are good alone and not together
        expected = re.compile(r": (stem|head|stages\.\d+\.\S+)( to \d+)?: |\((stem|downsample|block|head) \w+\)$")
        assert all(expected.search(line) for line in result.problems), result.problems


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [*([path] if path else []), *(leaf for key, item in items for leaf in leaves(item, (*path, key)))]


@settings(max_examples=200)
@given(documents(), st.data())
def test_set_is_an_edit_of_the_text(document: dict[str, Any], data: st.DataObject) -> None:
    document.pop("reported", None)  # a setting drops it, for it makes another network
    path = data.draw(st.sampled_from(leaves(document)))
    value = data.draw(
        st.sampled_from([None, 0, 1, 3, -2, 2.5, True, "ffn", "relu", "x", [], [1], [1, 2], {}, {"block": "ffn"}])
    )
    edited = copy.deepcopy(document)
    inner: Any = edited
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    dotted = "".join(f".{key}" if data.draw(st.booleans()) or not isinstance(key, int) else f"[{key}]" for key in path)
    setting = f"{dotted.lstrip('.')}={json.dumps(value)}"
    by_text = attempt(json.dumps(edited))
    by_set = attempt(json.dumps(document), (setting,))
    if isinstance(by_text, Spec):
        assert by_set == by_text
    else:
        assert isinstance(by_set, SpecError)
        assert {said(line, setting) for line in by_set.problems} == {said(line, setting) for line in by_text.problems}


def said(line: str, setting: str) -> str:
    """A problem without its places."""
    line = re.sub(r"fuzz\.yaml:\d+:\d+", "HERE", line.replace(f"--set {setting}", "HERE"))
    return re.sub(r", \w+ at HERE", "", line.removeprefix("HERE: "))


def test_every_spec_of_the_zoo_is_written_back_as_itself() -> None:
    for name in zoo_names():
        spec = load_spec(name)
        assert parse_spec(dump_spec(spec)) == spec
        assert parse_spec(spec.document) == spec
