"""Random specs for property tests: documents drawn from the grammar itself, whose shapes mostly fit."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from vitscope.spec.fields import field_docs
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.kinds import KINDS
from vitscope.spec.reported import REPORTED_CHOICES

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


def needs_fields(kind: type[BlockSpec]) -> bool:
    return any(doc.is_required for doc in field_docs(kind).values() if doc.name not in ("width", "stride"))


@st.composite
def fields_of(draw: st.DrawFn, kind: type[BlockSpec], leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The required and some of the optional fields of a kind, with values that it takes."""
    given: dict[str, Any] = {}
    for doc in field_docs(kind).values():
        if doc.name in ("width", "stride", *leave_out) or not (doc.is_required or draw(st.booleans())):
            continue
        if doc.choices:
            given[doc.name] = draw(st.sampled_from(doc.choices))
        elif doc.takes == "true or false":
            given[doc.name] = draw(st.booleans())
        elif doc.name in _NUMBERS:
            whole = doc.takes.startswith("a whole number")
            values = [v for v in _NUMBERS[doc.name] if not whole or (isinstance(v, int) and v >= 1)]
            given[doc.name] = draw(st.sampled_from(values))
        elif doc.is_required and (low := re.match(r"a whole number from (\d+)", doc.takes)):
            given[doc.name] = int(low[1]) + draw(st.sampled_from([0, 7, 15]))
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
        stage |= draw(fields_of(kind)) if needs_fields(kind) else {}
        used = [kind] * depth
    else:
        used = [draw(st.sampled_from(kinds)) for _ in range(depth)]
        stage["blocks"] = [
            {"block": kind.kind, **draw(fields_of(kind))} if needs_fields(kind) or draw(st.booleans()) else kind.kind
            for kind in used
        ]
    for name, value in draw(fields_of(draw(st.sampled_from(used)))).items():
        if draw(st.booleans()):
            stage[name] = [value if name in field_docs(kind) else None for kind in used]
        else:
            stage[name] = value
    down = None
    if width != arrives or draw(st.booleans()):
        down = draw(st.sampled_from(kinds_of("downsample")))
        is_short = not needs_fields(down) and draw(st.booleans())
        stage["downsample"] = down.kind if is_short else {"block": down.kind, **draw(fields_of(down))}
    opens = down if "downsample" in stage else used[0]
    if "stride" in field_docs(opens) and draw(st.booleans()):
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
        document["reported"] = {"source": draw(st.text("abc é\"'\\:#", min_size=1).filter(str.strip))} | draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "params": st.sampled_from(["6.1M", 5330000, "1e3"]),
                    "macs": st.sampled_from(["0.65G", 1.5, "2 k"]),
                    **{metric: st.sampled_from([79.0, 80, 0.5]) for metric in ("top1", "miou", "map")},
                    "latency": st.dictionaries(
                        st.sampled_from(["iphone12", "my-phone", "on", "a b"]), st.just("1.1ms")
                    ),
                    **{key: st.sampled_from(words) for key, words in REPORTED_CHOICES.items()},
                },
            )
        )
    if draw(st.booleans()):
        document["drop_path_rate"] = draw(st.sampled_from([0, 0.1, 0.999]))
    return document
