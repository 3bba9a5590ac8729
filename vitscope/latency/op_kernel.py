"""What an operation is as a kernel on its own: its kind, what it may be to a fusion rule, and the sizes that rules ask for."""

from __future__ import annotations

from math import prod

from vitscope.cost.ops import base_name, op_class
from vitscope.graph.record import Graph, OpRecord, Shape
from vitscope.latency.runtime import CONVOLUTIONS, Fusable, KernelKind

JOINS_BY_NAME: dict[str, tuple[Fusable, ...]] = {
    "relu": ("relu", "activation"),
    "hardtanh": ("clamp", "activation"),
    "relu6": ("clamp", "activation"),
    "gelu": ("gelu", "activation"),
    "hardswish": ("hardswish", "activation"),
    "hardsigmoid": ("hardsigmoid", "activation"),
    "sigmoid": ("sigmoid", "activation"),
    "silu": ("silu",),  # no rule for activations means it: phones are known to have none for SiLU
    "native_batch_norm": ("batch_norm",),
    "_native_batch_norm_legit_no_training": ("batch_norm",),
    "native_layer_norm": ("layer_norm",),
    "constant_pad_nd": ("pad",),
    "pad": ("pad",),
    "clone": ("copy",),
    "contiguous": ("copy",),
}


def kernel_kind(graph: Graph, op: OpRecord) -> KernelKind:
    """What kind of kernel `op` is on its own."""
    kind = op_class(graph, op)
    if kind == "conv":
        weight = graph.tensors[op.inputs[1]].shape
        groups = op.attr("groups", 1)
        if groups == graph.tensors[op.inputs[0]].shape[1] and groups != 1:
            return "depthwise"
        if groups != 1:
            return "grouped"
        return "pointwise" if prod(weight[2:]) == 1 else "conv"
    assert kind not in ("view", "constant"), kind
    return kind


def kind_to_a_layout(op: OpRecord, kind: KernelKind, before: Shape, after: Shape) -> str:
    """The kind of a kernel as a layout asks for it: transposed convolutions, and depthwise ones with several results a
    channel, are not what their kind says."""
    if op.attr("transposed"):
        return "transposed"
    return "grouped" if kind == "depthwise" and len(after) == 4 and after[1] != before[1] else kind


def channels_and_bias(graph: Graph, op: OpRecord, kind: KernelKind) -> tuple[int, bool]:
    """Output channels of a kernel with weights, and whether it has a bias already."""
    if kind in CONVOLUTIONS:
        return graph.tensors[op.outputs[0]].shape[1], len(op.inputs) > 2
    if kind != "linear":
        return 1, False
    shape = graph.tensors[op.outputs[0]].shape
    return shape[-1] if shape else 1, base_name(op) in ("addmm", "baddbmm", "addmv")


def depth_of(graph: Graph, op: OpRecord, kind: KernelKind) -> int:
    if kind in CONVOLUTIONS:
        return graph.tensors[op.inputs[1]].shape[0 if op.attr("transposed") else 1]
    if kind not in ("linear", "matmul"):
        return 1
    shape = graph.tensors[op.inputs[-1]].shape
    return shape[-2] if len(shape) > 1 else prod(shape)


def joins_of(graph: Graph, op: OpRecord, name: str, kind: KernelKind) -> tuple[Fusable, ...]:
    """What `op` may be to a fusion rule."""
    if name in JOINS_BY_NAME:
        return JOINS_BY_NAME[name]
    if kind == "activation":
        return ("activation",)
    if kind == "elementwise":
        operands = [i for i in dict.fromkeys(op.inputs) if i not in graph.constants]
        if len(operands) == 1 and name in ("mul", "div") and op.inputs[0] in operands:
            return ("scale", "elementwise")
        if len(operands) == 1 and name in ("add", "sub") and op.inputs[0] in operands:
            return ("bias", "elementwise")
        if name == "add" and len({graph.tensors[i].shape for i in operands}) == 1:
            return ("sum", "elementwise")
        return ("elementwise",)
    return ()
