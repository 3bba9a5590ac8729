"""Random specs for property tests: documents drawn from the grammar itself, whose shapes mostly fit."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vitscope.spec.fields import field_docs
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.kinds import KINDS

# Numbers that keep a network small, by field; other fields take their choices, or are left out.
_NUMBERS: dict[str, list[Any]] = {
    "expansion": [0.5, 1, 2, 3.25, 4],
    "kernel": [1, 3, 5, 7],
    "num_heads": [1, 2, 3, 8],
    "key_dim": [4, 8, 16],
    "value_ratio": [1, 2, 2.5],
    "norm_eps": [1e-5, 1e-3],
    "layer_scale_init": [None, 0, 1e-5, 0.5],
    "attention_stride": [2, 3],
    "classes": [1, 10, 1000],
}


def kinds_of(role: str) -> list[type[BlockSpec]]:
    return [kind for kind in KINDS if kind.role == role]


@st.composite
def fields_of(draw: st.DrawFn, kind: type[BlockSpec], leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Some of the optional fields of a kind, with values that it takes."""
    given: dict[str, Any] = {}
    for doc in field_docs(kind).values():
        if doc.name in ("width", "stride", *leave_out) or not draw(st.booleans()):
            continue
        if doc.choices:
            given[doc.name] = draw(st.sampled_from(doc.choices))
        elif doc.takes == "true or false":
            given[doc.name] = draw(st.booleans())
        elif doc.name in _NUMBERS:
            given[doc.name] = draw(st.sampled_from(_NUMBERS[doc.name]))
    return given


@st.composite
def stages(draw: st.DrawFn, arrives: int) -> dict[str, Any]:
    width = draw(st.sampled_from([8, 12, 16, 32]))
    depth = draw(st.integers(1, 4))
    stage: dict[str, Any] = {"width": width, "depth": depth}
    kinds = kinds_of("block")
    if draw(st.booleans()):
        kind = draw(st.sampled_from(kinds))
        stage["block"] = kind.kind
        used = [kind] * depth
    else:
        used = [draw(st.sampled_from(kinds)) for _ in range(depth)]
        stage["blocks"] = [
            {"block": kind.kind, **draw(fields_of(kind))} if draw(st.booleans()) else kind.kind for kind in used
        ]
    for name, value in draw(fields_of(draw(st.sampled_from(used)))).items():
        if draw(st.booleans()):
            stage[name] = [value if name in field_docs(kind) else None for kind in used]
        else:
            stage[name] = value
    if width != arrives or draw(st.booleans()):
        down = draw(st.sampled_from(kinds_of("downsample")))
        stage["downsample"] = {"block": down.kind, **draw(fields_of(down))} if draw(st.booleans()) else down.kind
    if ("downsample" in stage or used[0].kind == "inverted_residual") and draw(st.booleans()):
        stage["stride"] = draw(st.integers(1, 3))
    return stage


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A whole document as plain data. Its keys and values are good; a shape may still not fit."""
    width = draw(st.sampled_from([8, 16, 32]))
    stem = draw(st.sampled_from(kinds_of("stem")))
    head = draw(st.sampled_from(kinds_of("head")))
    document: dict[str, Any] = {
        "name": draw(st.from_regex(r"[a-zA-Z][a-zA-Z0-9_ .:#-]{0,12}[a-z0-9]", fullmatch=True)),
        "input": [draw(st.integers(1, 4)), draw(st.integers(1, 70)), draw(st.integers(1, 70))],
        "stem": {"block": stem.kind, "width": width, **draw(fields_of(stem, ("depth",)))},
        "head": {"block": head.kind, **({"width": 24} if "width" in field_docs(head) else {}), **draw(fields_of(head))},
        "stages": [],
    }
    for _ in range(draw(st.integers(1, 4))):
        stage = draw(stages(width))
        document["stages"].append(stage)
        width = stage["width"]
    if draw(st.booleans()):
        document["act"] = draw(st.sampled_from(["relu", "silu", "none"]))
    if draw(st.booleans()):
        document["drop_path_rate"] = draw(st.sampled_from([0, 0.1, 0.999]))
    return document
