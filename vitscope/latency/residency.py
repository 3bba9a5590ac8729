"""Signs in a graph that an accelerator leaves for another processor, counted so that a device file can set a limit to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from vitscope.cost.ops import base_name, op_class
from vitscope.graph.record import Graph, OpRecord

Sign = Literal[
    "hard_activation", "window", "gather", "high_rank", "large_kernel", "large_pool", "dilated", "dynamic_weight",
    "token_norm_return", "unknown_op",
]  # fmt: skip
SIGNS: tuple[Sign, ...] = get_args(Sign)


@dataclass(frozen=True, slots=True)
class ResidencyRule:
    """How often `sign` may stand in a network that the accelerator runs whole, and what is known of networks beyond."""

    sign: Sign
    at_most: int
    reason: str


LARGE_KERNEL = 13  # convolutions with a wider kernel leave the Neural Engine (hollance, ANEForge)
LARGE_POOL = 13
MAX_RANK = 5

_HARD = frozenset({"hardswish", "hardsigmoid"})
_WINDOW = frozenset({"roll", "im2col", "col2im", "unfold", "native_channel_shuffle", "channel_shuffle"})
_LAST_AXIS_NORM = frozenset({"native_layer_norm", "_fused_rms_norm"})


@lru_cache(maxsize=65536)
def signs(graph: Graph) -> tuple[tuple[int, ...], str, str]:
    """How often each of SIGNS stands in `graph`, and the first and last of its `layout` letters.

    The letters continue over the border between two segments of a network: `N` a norm over the last axis of tokens,
    `C` a convolution. A `C` after an `N` is one `token_norm_return`.
    """
    counts = dict.fromkeys(SIGNS, 0)
    layout = ""
    for op in graph.ops:
        if graph.is_constant(op):
            continue
        letter = _letter(op)
        if letter:
            if letter == "C" and layout.endswith("N"):
                counts["token_norm_return"] += 1
            layout += letter
        for sign in _signs_of(graph, op):
            counts[sign] += 1
    return tuple(counts.values()), layout[:1], layout[-1:]


def first_broken(rules: Sequence[ResidencyRule], graphs: Sequence[Graph]) -> ResidencyRule | None:
    """The first of `rules` that the network of consecutive segments `graphs` breaks, None when it runs whole."""
    found = total_signs(graphs)
    return next((rule for rule in rules if found[rule.sign] > rule.at_most), None)


def total_signs(graphs: Sequence[Graph]) -> dict[Sign, int]:
    """The signs of consecutive segments of one network."""
    totals = [0] * len(SIGNS)
    returns = SIGNS.index("token_norm_return")
    previous = ""
    for graph in graphs:
        counts, first, last = signs(graph)
        if any(counts):
            totals = [a + b for a, b in zip(totals, counts, strict=True)]
        if previous == "N" and first == "C":
            totals[returns] += 1
        previous = last or previous
    return dict(zip(SIGNS, totals, strict=True))


def where(graph: Graph, sign: Sign) -> str:
    """`scope (operation)` of the first operation that shows `sign`, for messages; empty when none does."""
    after_norm = False
    for op in graph.ops:
        if graph.is_constant(op):
            continue
        letter = _letter(op)
        shown = sign in _signs_of(graph, op) or (sign == "token_norm_return" and letter == "C" and after_norm)
        if shown:
            return f"{op.scope or 'the network'} ({base_name(op)})"
        after_norm = letter == "N" if letter else after_norm
    return ""


def _letter(op: OpRecord) -> str:
    name = base_name(op)
    return "N" if name in _LAST_AXIS_NORM else "C" if name in ("convolution", "_convolution") else ""


def _signs_of(graph: Graph, op: OpRecord) -> list[Sign]:
    name, kind = base_name(op), op_class(graph, op)
    found: list[Sign] = []
    if name in _HARD:
        found.append("hard_activation")
    if name in _WINDOW and not op.is_view:
        found.append("window")
    if kind == "gather":
        found.append("gather")
    if kind == "unknown":
        found.append("unknown_op")
    if kind == "conv":
        if max(graph.tensors[op.inputs[1]].shape[2:], default=1) >= LARGE_KERNEL:
            found.append("large_kernel")
        if any(step != 1 for step in _ints(op.attr("dilation"))):
            found.append("dilated")
        if op.inputs[1] not in graph.constants:
            found.append("dynamic_weight")
    window = _ints(op.attr("kernel_size"))
    if kind == "pool" and min(window, default=1) > LARGE_POOL:  # Next-ViT pools tokens by 1 x 64 and runs whole
        found.append("large_pool")
    if any(len(graph.tensors[i].shape) > MAX_RANK for i in (*op.inputs, *op.outputs)):
        found.append("high_rank")
    return found


def _ints(value: object) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,)
    return tuple(v for v in value if isinstance(v, int)) if isinstance(value, tuple) else ()
