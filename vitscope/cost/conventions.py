"""Other people's counting conventions as views over a train-form graph, so that a printed figure can be reproduced."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Literal

from vitscope.cost.ops import base_name, macs, op_class, weight_of
from vitscope.graph.record import Graph, OpRecord

Convention = Literal["vitscope", "fvcore", "snap"]


def params_and_macs(graph: Graph, convention: Convention) -> tuple[int, int]:
    """Parameters and multiply-accumulates of `graph` as `convention` counts them; sums over the blocks of a network.

    `vitscope`: every learnable scalar; convolution, linear and matmul (DESIGN.md, section 5). `fvcore` and `snap` add
    the terms of their own functions here. An operation that vitscope does not know adds nothing: the tools that are
    imitated pass over it too.
    """
    core = sum(macs(graph, op) or 0 for op in graph.ops)
    if convention == "fvcore":
        return _all_params(graph), core + sum(_fvcore_extra(graph, op) for op in graph.ops)
    if convention == "snap":
        return sum(_snap_params(graph, op) for op in graph.ops), core + sum(_snap_extra(graph, op) for op in graph.ops)
    return _all_params(graph), core


def _all_params(graph: Graph) -> int:
    return sum(p.numel for p in graph.params)


def _elements(graph: Graph, op: OpRecord) -> int:
    return graph.tensors[op.outputs[0]].numel


def _norm(graph: Graph, op: OpRecord) -> int:
    """4 an element, 5 with learned gain: fvcore's estimate of any norm whose statistics come from the image."""
    return _elements(graph, op) * (5 if len(op.inputs) > 1 else 4)


def _batch_norm(graph: Graph, op: OpRecord) -> int:
    """In eval mode one multiplication and, with learned gain, a second one an element."""
    if op.attr("training") is True:  # what InstanceNorm is made of
        return _norm(graph, op)
    return _elements(graph, op) * (2 if len(op.inputs) > 3 else 1)  # beside the map and its two statistics


# fvcore 0.1.5 flop_count.py: what it adds to convolution, linear and matmul.
_FVCORE: dict[str, Callable[[Graph, OpRecord], int]] = {
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _norm,
    "native_group_norm": _norm,
    "upsample_nearest2d": _elements,
    "upsample_bilinear2d": lambda graph, op: 4 * _elements(graph, op),
    "grid_sampler_2d": lambda graph, op: 4 * _elements(graph, op),
    "_adaptive_avg_pool2d": lambda graph, op: graph.tensors[op.inputs[0]].numel,
}


def _fvcore_extra(graph: Graph, op: OpRecord) -> int:
    """What fvcore adds for `op`: norms, resizing and adaptive pooling.

    Two of its blind spots cannot be seen in a graph of aten operations and are not imitated. fvcore passes over
    `scaled_dot_product_attention`, whose matmuls count here: the figure is that of the network with attention written
    out. And pooling to 1×1 is a `mean`, which counts 0, even where the network calls it adaptive pooling, for which
    fvcore adds one an input element.
    """
    formula = _FVCORE.get(base_name(op))
    return formula(graph, op) if formula is not None else 0


def _snap_params(graph: Graph, op: OpRecord) -> int:
    """Parameters that the toolbox of EfficientFormer's authors counts for `op` (snap-research, toolbox.py).

    Convolution: its weight, and `in_channels / groups` once, standing for the bias (whose length is out_channels).
    Linear and LayerNorm: weight and bias. Nothing else: BatchNorm, layer scale and tables of attention bias are left out.
    Two heads count twice.
    """
    kind = op_class(graph, op)
    if kind == "conv":
        weight = graph.tensors[op.inputs[1]]
        return weight.numel + weight.shape[1]
    if kind == "linear":
        index = weight_of(graph, op)
        assert index is not None
        storage = graph.tensors[index].storage
        weight = next((t for t in graph.tensors if t.storage == storage and t.kind == "param"), None)
        if weight is None:
            return 0
        bias = weight.name.removesuffix("weight") + "bias"
        return weight.numel + sum(p.numel for p in graph.params if p.name == bias)
    if base_name(op) == "native_layer_norm":
        return sum(graph.tensors[i].numel for i in op.inputs[1:] if graph.tensors[i].kind == "param")
    return 0


def _snap_extra(graph: Graph, op: OpRecord) -> int:
    """What the same toolbox adds to convolution, linear and matmul, for one image.

    LayerNorm: 2 an element. AvgPool2d: the kernel's area an output element. GELU: the second times the third side of
    its output, which is every element of tokens (B, T, C), but channels × height of a map (B, C, H, W), without the
    width. ReLU, BatchNorm, softmax, resizing and additions: nothing.
    """
    if not op.outputs:
        return 0
    shape = graph.tensors[op.outputs[0]].shape
    match base_name(op):
        case "native_layer_norm":
            return 2 * prod(shape[1:3])
        case "gelu":
            return prod(shape[1:3])
        case "avg_pool2d":
            kernel = op.attr("kernel_size")
            assert isinstance(kernel, tuple)
            return prod(shape[1:]) * prod(kernel[i % len(kernel)] for i in range(2))
        case _:
            return 0
