"""Document → Spec: checks every key and value, fills in defaults, and reports all problems of a file at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError

from vitscope.spec.construct import Context, Kinds, adapter, role_block
from vitscope.spec.fields import field_docs
from vitscope.spec.fit import check_shapes
from vitscope.spec.grammar import ActField, LayerScale, NormEps, NormField
from vitscope.spec.reported import reported_of
from vitscope.spec.stages import stages_of
from vitscope.spec.text import Document
from vitscope.spec.value import Spec
from vitscope.spec.wording import choices, shown

MAX_SIDE = 16384
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a spec may give once at its top, for every block that has the field."""

    act: ActField = "gelu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-5


# Every key of a spec, with what it means. `extends` is gone when a document comes here.
TOP_KEYS = {
    "name": "name of the network; by default that of the file",
    "extends": "a spec, by file or by its name in the zoo, whose values hold where this file gives none",
    "family": "name of the architecture's family",
    "paper": "title and address of the paper",
    "note": "anything a reader should know; not inherited",
    "input": "channels, height and width of the image, in pixels",
    "act": "default activation of every block that has one",
    "norm": "default norm of every block that has one",
    "norm_eps": "default epsilon of every norm",
    "layer_scale_init": "default initial layer scale of every block that has one",
    "drop_path_rate": "probability of dropping the last block's residual branches in training; earlier ones linearly less",
    "plugins": "Python files with further block kinds, run only when the user allows it",
    "stem": "first block, from the image to features",
    "stages": "groups of blocks at one resolution",
    "head": "last block, from features to what the network puts out",
    "reported": "figures that the authors printed, and where; not inherited",
}
_REQUIRED = {
    "input": "[channels, height, width], as [3, 224, 224]",
    "stem": "as {block: conv_stem, width: 32}",
    "stages": "a list, as [{depth: 2, width: 32, block: ffn}]",
    "head": "as {block: classifier, classes: 1000}",
}


def resolve(document: Document, kinds: Kinds, plugins: tuple[str, ...] = ()) -> Spec:
    """The Spec that `document` says. Raises SpecError with every problem, each with its place."""
    data = document.data
    context = Context(document, kinds)
    for key in data:
        if key not in TOP_KEYS:
            context.key_problem((key,), f"unknown key {shown(key)}{choices(key, TOP_KEYS, 'keys')}")
    for key, what in _REQUIRED.items():
        if data.get(key) is None:
            context.problem((key,) if key in data else (), f"a spec needs {key}, {what}")
    _read_defaults(context)
    size = _input(context)
    stem = role_block(context, "stem", data["stem"], ("stem",)) if data.get("stem") is not None else None
    stages = stages_of(context)
    head = role_block(context, "head", data["head"], ("head",)) if data.get("head") is not None else None
    rate = _drop_path_rate(context)
    reported = reported_of(data["reported"], context.problem) if data.get("reported") is not None else None
    texts = {key: _text(context, key) for key in ("name", "family", "paper", "note")}
    document.check()
    assert size is not None and stem is not None and stages is not None and head is not None
    spec = Spec(
        input=size, stem=stem, stages=stages, head=head, drop_path_rate=rate, reported=reported,
        document=json.dumps(data, sort_keys=True), plugins=plugins, **(texts | {"name": texts["name"] or "unnamed"}),
    )  # fmt: skip
    check_shapes(spec, document, context.places)
    document.check()
    return spec


def _read_defaults(context: Context) -> None:
    """Keep the top-level defaults that are good in themselves, so that a bad one is one problem, not one a block."""
    data = context.document.data
    docs = field_docs(Defaults)
    for field in fields(Defaults):
        key = field.name
        if key not in data:
            continue
        try:
            adapter(Defaults).validate_python({key: data[key]})
            context.defaults[key] = (data[key], (key,))
        except ValidationError:
            doc = docs[key]
            is_word = doc.choices and isinstance(data[key], str)
            text = f"unknown {key} {shown(data[key])}{choices(data[key], doc.choices, 'one of')}"
            context.problem((key,), text if is_word else f"{key} expects {doc.takes}, got {shown(data[key])}")


def _text(context: Context, key: str) -> str:
    value: Any = context.document.data.get(key, "")
    where = (key,)
    if not isinstance(value, str):
        context.problem(where, f"{key} expects a text, got {shown(value)}")
    elif len(value) > MAX_TEXT:
        context.problem(where, f"{key} has {len(value):,} characters, at most {MAX_TEXT:,} are allowed")
    elif not (line := " ".join(value.split())).isprintable() or (key == "name" and not value.strip().isprintable()):
        context.problem(
            where,
            f"{key} expects a text{' of one line' * (key == 'name')} without control characters, got {shown(value)}",
        )
    else:
        return line
    return ""


def _input(context: Context) -> tuple[int, int, int] | None:
    value = context.document.data.get("input")
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 3 and all(is_side(side) for side in value):
        return (value[0], value[1], value[2])
    text = f"input expects [channels, height, width] of whole numbers from 1 to {MAX_SIDE}, got {shown(value)}"
    wrong = (
        [i for i, side in enumerate(value) if not is_side(side)] if isinstance(value, list) and len(value) == 3 else []
    )
    context.problem(("input", wrong[0]) if wrong else ("input",), text)
    return None


def is_side(value: object) -> bool:
    """Whether `value` can be a number of channels or pixels of an input."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _drop_path_rate(context: Context) -> float:
    value = context.document.data.get("drop_path_rate", 0.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        context.problem(
            ("drop_path_rate",), f"drop_path_rate expects a number from 0 up to, not including, 1; got {shown(value)}"
        )
        return 0.0
    return float(value)
