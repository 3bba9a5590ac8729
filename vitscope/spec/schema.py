"""json_schema(): the spec language as JSON Schema 2020-12, from the grammar classes, so that an editor completes and checks.

A schema cannot know everything: the length of per-block lists, shapes, and what a spec inherits are left to `validate`.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from vitscope.spec.construct import adapter
from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.kinds import KINDS
from vitscope.spec.reported import REPORTED_CHOICES, REPORTED_KEYS
from vitscope.spec.resolve import MAX_SIDE, MAX_TEXT, TOP_KEYS, Defaults
from vitscope.spec.stages import MAX_DEPTH, MAX_STAGES, MAX_STRIDE, MAX_WIDTH, STAGE_KEYS

Schema = dict[str, Any]

_SIDE: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_SIDE}
_TEXT: Schema = {"type": "string", "maxLength": MAX_TEXT}
_COUNT: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?\s*[kKMGT]?\s*$"},
    ]
}
_TIME: Schema = {"type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?\s*(s|ms|us|µs|ns)\s*$"}


def json_schema() -> Schema:
    """The JSON Schema of a spec file. With `extends`, what is inherited need not be given; with `plugins`, any kind goes."""
    parts = ("stem", "stages", "head")
    whole = {key: {"$ref": f"#/$defs/{key}"} for key in parts}
    changes = {key: {"$ref": f"#/$defs/changed_{key}"} for key in parts}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vitscope spec",
        "description": "An architecture: stem, stages of blocks, and head.",
        "type": "object",
        "properties": {key: _described(key) for key in TOP_KEYS},
        "additionalProperties": False,
        "allOf": [
            {"if": {"required": ["extends"]}, "else": {"required": ["input", "stem", "stages", "head"]}},
            {
                "if": {"required": ["plugins"]},
                "else": {
                    "if": {"required": ["extends"]},
                    "then": {"properties": changes},
                    "else": {"properties": whole},
                },
            },
        ],
        "$defs": _definitions(is_change=False) | _definitions(is_change=True) | {
            name: {key: value for key, value in _fields(kind).items() if key != "title"}
            for name, kind in ((f"{kind.role}_{kind.kind}", kind) for kind in KINDS)
        },
    }  # fmt: skip


def _described(key: str) -> Schema:
    shapes: dict[str, Schema] = {
        "name": _TEXT,
        "extends": {"type": "string", "minLength": 1},
        "family": _TEXT,
        "paper": _TEXT,
        "note": _TEXT,
        "input": {"type": "array", "items": _SIDE, "minItems": 3, "maxItems": 3, "examples": [[3, 224, 224]]},
        "drop_path_rate": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0},
        "plugins": {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}},
        "stem": {"type": ["object", "string"]},
        "stages": {"type": ["array", "object"]},
        "head": {"type": ["object", "string"]},
        "reported": _reported(),
    }
    shape = shapes.get(key) or {k: v for k, v in _fields(Defaults)["properties"][key].items() if k != "default"}
    if key == "input":  # what extends another spec may change one side
        sides = {"type": "object", "patternProperties": {"^[0-2]$": _SIDE}, "additionalProperties": False}
        shape = {"anyOf": [shape, sides]}
    return {"description": TOP_KEYS[key]} | {k: v for k, v in shape.items() if k not in ("title", "description")}


_PERCENT: Schema = {"type": "number", "minimum": 0, "maximum": 100}


def _reported() -> Schema:
    kinds: dict[str, Schema] = {
        "params": _COUNT,
        "macs": _COUNT,
        "top1": _PERCENT,
        "miou": _PERCENT,
        "map": _PERCENT,
        "latency": {"type": "object", "additionalProperties": _TIME},
        "source": {"type": "string", "minLength": 1},
        **{key: {"enum": list(words)} for key, words in REPORTED_CHOICES.items()},
        "differs": {
            "type": "object",
            "properties": {key: {"type": "string", "minLength": 1} for key in ("params", "macs")},
            "additionalProperties": False,
        },
    }
    return {
        "type": ["object", "null"],
        "properties": {key: {"description": REPORTED_KEYS[key]} | kind for key, kind in kinds.items()},
        "required": ["source"],
        "additionalProperties": False,
    }


def _definitions(is_change: bool) -> dict[str, Schema]:
    """What stands under stem, stages and head: as a whole, or as changes to what is inherited."""
    prefix = "changed_" if is_change else ""
    stage: Schema = {"$ref": f"#/$defs/{prefix}stage"}
    stages: Schema = {"type": "array", "items": {"$ref": "#/$defs/stage"}, "minItems": 1, "maxItems": MAX_STAGES}
    if is_change:
        by_number = {"type": "object", "patternProperties": {"^[0-9]{1,2}$": stage}, "additionalProperties": False}
        stages = {"if": {"type": "array"}, "then": stages, "else": by_number}
    return {
        f"{prefix}stem": _role("stem", is_change),
        f"{prefix}head": _role("head", is_change),
        f"{prefix}downsample": _role("downsample", is_change),
        f"{prefix}stages": stages,
        f"{prefix}stage": _stage(is_change),
        f"{prefix}entry": _entry(is_change),
    }


def _kinds(role: Role) -> list[type[BlockSpec]]:
    return [kind for kind in KINDS if kind.role == role]


@cache
def _fields(kind: type[Any]) -> Schema:
    return adapter(kind).json_schema() | {"description": inspect.cleandoc(kind.__doc__ or "")}


def _role(role: Role, is_change: bool) -> Schema:
    """A kind alone, or a mapping with `block: kind` and its fields."""
    names = [kind.kind for kind in _kinds(role)]
    return {
        "if": {"type": "string"},
        "then": {"enum": names},
        "else": _mapping(
            role, {"enum": names, "description": "kind"}, {kind: {"const": kind} for kind in names}, is_change
        ),
    }


def _mapping(role: Role, block: Schema, matches: dict[str, Schema], is_change: bool) -> Schema:
    """A mapping whose `block` decides which fields it has; `matches` are the texts of `block` that mean a kind."""
    branches = []
    taken_by_stage = {"width", "stride"} if role in ("block", "downsample") else set()
    for kind in _kinds(role):
        fields = _fields(kind)
        required = [] if is_change else [name for name in fields.get("required", []) if name not in taken_by_stage]
        reference = f"#/$defs/{role}_{kind.kind}/properties/"
        branches.append(
            {
                "if": {"properties": {"block": matches[kind.kind]}, "required": ["block"]},
                "then": {
                    "description": fields.get("description", ""),
                    "properties": {"block": {}} | {name: {"$ref": reference + name} for name in fields["properties"]},
                    "required": required,
                    "additionalProperties": False,
                },
            }
        )
    known = sorted({name for kind in _kinds(role) for name in _fields(kind)["properties"]})
    return {
        "type": "object",
        "properties": {"block": block},
        "required": [] if is_change else ["block"],
        "propertyNames": {"enum": ["block", *known]},
        "allOf": branches,
    }


def _entry(is_change: bool) -> Schema:
    """An item of `blocks`: kind, kind*3, kind*, or a mapping with that as its `block`."""
    names = [kind.kind for kind in _kinds("block")]
    matches: dict[str, Schema] = {name: {"pattern": rf"^\s*{name}\s*(\*\s*[0-9]*\s*)?$"} for name in names}
    text: Schema = {
        "anyOf": [{"enum": names}, *matches.values()],
        "description": "kind, kind*3, or kind* for what the depth leaves",
    }
    return {
        "if": {"type": "string"},
        "then": text,
        "else": _mapping("block", {"type": "string"} | text, matches, is_change),
    }


def _stage(is_change: bool) -> Schema:
    """Depth, width, kinds, downsample, and every field of a block, as one value or as a list of one a block."""
    kinds = _kinds("block")
    prefix = "changed_" if is_change else ""
    properties: dict[str, Schema] = {
        "depth": {"type": "integer", "minimum": 1, "maximum": MAX_DEPTH, "description": "number of blocks"},
        "width": {"type": "integer", "minimum": 1, "maximum": MAX_WIDTH, "description": "output channels"},
        "block": {"enum": [kind.kind for kind in kinds], "description": "kind of every block"},
        "blocks": {
            "type": "array",
            "minItems": 1,
            "items": {"$ref": f"#/$defs/{prefix}entry"},
            "description": "kinds in order, as [ffn*7, attention*2]",
        },
        "downsample": {
            "anyOf": [{"type": "null"}, {"$ref": f"#/$defs/{prefix}downsample"}],
            "description": "block in front of the stage that reduces the resolution and changes the width",
        },
        "stride": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_STRIDE,
            "description": "stride of the downsample, or else of the first block",
        },
    }
    variants: dict[str, list[Schema]] = {}
    for kind in kinds:
        for name in _fields(kind)["properties"]:
            if name not in properties:
                reference = {"$ref": f"#/$defs/{kind.role}_{kind.kind}/properties/{name}"}
                same = [v for v in variants.get(name, []) if _target(v) == _target(reference)]
                if not same:
                    variants.setdefault(name, []).append(reference)
    for name, options in variants.items():
        one = options[0] if len(options) == 1 else {"anyOf": options}
        properties[name] = {"if": {"type": "array"}, "then": {"items": {"anyOf": [one, {"type": "null"}]}}, "else": one}
    rules: list[Schema] = [
        {
            "if": {"properties": {"block": {"const": kind.kind}}, "required": ["block"]},
            "then": {"propertyNames": {"enum": sorted({*STAGE_KEYS, *_fields(kind)["properties"]})}},
        }
        for kind in kinds
    ]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if is_change:
        return schema | {"not": {"required": ["block", "blocks"]}}
    return schema | {
        "required": ["width"],
        "oneOf": [{"required": ["depth", "block"]}, {"required": ["blocks"]}],
        "allOf": rules,
    }


def _target(reference: Schema) -> Schema:
    """The schema that a reference to a field means, without its default, which kinds may differ in."""
    role_kind, _, name = reference["$ref"].removeprefix("#/$defs/").split("/")
    kind = next(kind for kind in KINDS if f"{kind.role}_{kind.kind}" == role_kind)
    return {key: value for key, value in _fields(kind)["properties"][name].items() if key != "default"}
