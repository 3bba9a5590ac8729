"""What each aten operation is and costs: one literal table of MAC formulas, one of operations known to be free of MACs.

An operation in neither table is *unknown*: it is reported, never counted as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Literal

from vitscope.graph.record import Graph, OpRecord, Shape

OpClass = Literal[
    "conv", "linear", "matmul", "norm", "activation", "softmax", "pool", "resize", "elementwise", "reduce", "copy",
    "gather", "view", "constant", "unknown",
]  # fmt: skip


def _convolution(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...], op: OpRecord) -> int:
    # (B, C, *X) * (N, C/g, *K) -> (B, N, *Y); transposed: (B, C, *X) * (C, N/g, *K) -> (B, N, *Y)
    x, weight = inputs[0], inputs[1]
    positions = prod(x[2:]) if op.attr("transposed") else prod(outputs[0][2:])
    return x[0] * positions * prod(weight)


def _mm(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...], op: OpRecord) -> int:
    # (M, K) * (K, N) -> (M, N)
    (m, k), (_, n) = inputs[-2:]
    return m * k * n


def _mv(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...], op: OpRecord) -> int:
    # (M, K) * (K) -> (M), and (K) * (K) -> ()
    return prod(inputs[-2])


def _bmm(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...], op: OpRecord) -> int:
    # (B, M, K) * (B, K, N) -> (B, M, N)
    (b, m, k), (_, _, n) = inputs[-2:]
    return b * m * k * n


def _attention(inputs: tuple[Shape, ...], outputs: tuple[Shape, ...], op: OpRecord) -> int:
    # (B, H, T, D) * (B, H, S, D) * (B, H, S, E) -> (B, H, T, E): the two matmuls that fusion hides
    (b, h, t, d), (_, _, s, _), (*_, e) = inputs[:3]
    return b * h * t * s * d + b * h * t * s * e


MacFormula = Callable[[tuple[Shape, ...], tuple[Shape, ...], OpRecord], int]

MACS: dict[str, MacFormula] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "mm": _mm,
    "addmm": _mm,
    "mv": _mv,
    "addmv": _mv,
    "dot": _mv,
    "vdot": _mv,
    "bmm": _bmm,
    "baddbmm": _bmm,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
}

# Known to have no multiply-accumulates; their bytes still count in traffic and in latency. Names without the trailing
# underscore of in-place variants.
FREE: dict[OpClass, frozenset[str]] = {
    "norm": frozenset({
        "native_batch_norm", "_native_batch_norm_legit_no_training", "native_layer_norm", "native_group_norm",
        "linalg_vector_norm", "_fused_rms_norm", "_weight_norm_interface",
    }),
    "activation": frozenset({
        "relu", "hardtanh", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "leaky_relu", "elu", "mish",
        "softplus", "glu", "hardshrink", "softshrink", "threshold", "_prelu_kernel", "relu6", "celu", "erf",
        "log_sigmoid_forward",
    }),
    "softmax": frozenset({"_softmax", "_safe_softmax", "_log_softmax"}),
    "pool": frozenset({
        "avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "max_pool2d",
        "avg_pool1d", "_adaptive_avg_pool3d", "avg_pool3d", "max_pool3d_with_indices", "adaptive_max_pool3d",
    }),
    "resize": frozenset({
        "upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_nearest1d",
        "upsample_nearest3d", "upsample_trilinear3d", "_upsample_bicubic2d_aa",
        "_upsample_bilinear2d_aa", "_upsample_nearest_exact2d", "grid_sampler_2d", "pixel_shuffle", "pixel_unshuffle",
    }),
    "elementwise": frozenset({
        "add", "sub", "mul", "div", "pow", "exp", "log", "sqrt", "rsqrt", "neg", "abs", "clamp", "clamp_min",
        "clamp_max", "maximum", "minimum", "where", "reciprocal", "sin", "cos", "addcmul", "addcdiv", "lerp", "rsub",
        "masked_fill", "eq", "ne", "lt", "gt", "le", "ge", "logical_not", "logical_and", "logical_or", "bitwise_and",
        "bitwise_or", "bitwise_not", "floor", "ceil", "round", "floor_divide", "remainder", "fmod", "sign", "square",
        "log1p", "expm1", "log2", "exp2", "atan2", "isinf", "isnan", "special_expit", "dropout", "native_dropout",
        "bernoulli", "tril", "triu", "bitwise_xor", "sgn", "heaviside", "nan_to_num", "asin", "acos", "atan", "tan",
        "trunc", "complex", "polar", "hypot", "log10", "sinh", "cosh", "erfc", "bitwise_left_shift", "bitwise_right_shift",
        "frac", "signbit", "xlogy", "isfinite",
    }),
    "reduce": frozenset({
        "mean", "sum", "amax", "amin", "max", "min", "var", "var_mean", "std", "std_mean", "argmax", "argmin",
        "cumsum", "prod", "topk", "sort", "any", "all", "norm", "cumprod", "logsumexp", "aminmax", "median", "count_nonzero",
    }),
    "copy": frozenset({
        "clone", "zero", "cat", "stack", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "roll", "_to_copy", "copy",
        "contiguous", "repeat", "flip", "im2col", "col2im", "channel_shuffle", "native_channel_shuffle", "fill",
        "_reshape_copy", "repeat_interleave", "pad", "rot90",
    }),
    "gather": frozenset({
        "index", "gather", "index_select", "embedding", "scatter", "index_put", "scatter_add", "masked_select",
        "_unsafe_index", "slice_scatter", "select_scatter", "_index_put_impl", "take_along_dim",
    }),
    "constant": frozenset({
        "zeros", "ones", "full", "arange", "linspace", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones",
        "new_full", "scalar_tensor", "eye", "rand", "randn", "rand_like", "randn_like", "tril_indices", "triu_indices",
        "randint", "randperm", "normal", "uniform",
    }),
    "view": frozenset({
        "view", "_unsafe_view", "permute", "transpose", "t", "expand", "squeeze", "unsqueeze", "slice", "select",
        "split", "split_with_sizes", "unbind", "as_strided", "unfold", "view_as_complex", "view_as_real", "narrow",
        "chunk", "movedim", "diagonal", "reshape", "flatten", "_conj", "real", "imag",
    }),
}  # fmt: skip

_CLASS_OF: dict[str, OpClass] = {name: kind for kind, names in FREE.items() for name in names}
_COUNTED: dict[str, OpClass] = {"convolution": "conv", "_convolution": "conv"}


def base_name(op: OpRecord) -> str:
    """The operation without the underscore of its in-place variant: `relu` of `relu_`."""
    return op.op.removesuffix("_") or op.op


def op_class(graph: Graph, op: OpRecord) -> OpClass:
    """What kind of work `op` is. A matmul by a learned weight is `linear`; an op that only re-reads memory is `view`."""
    name = base_name(op)
    if op.is_view:
        return "view"
    if name in _COUNTED:
        return "conv"
    if name in MACS:
        return "linear" if weight_of(graph, op) is not None else "matmul"
    return _CLASS_OF.get(name, "unknown")


def macs(graph: Graph, op: OpRecord) -> int | None:
    """Multiply-accumulates of `op` over the whole batch: an exact integer, 0 when known to be free, None when unknown."""
    formula = MACS.get(base_name(op))
    if formula is not None:
        return formula(graph.input_shapes(op), graph.output_shapes(op), op)
    return 0 if op.is_view or base_name(op) in _CLASS_OF else None


def weight_of(graph: Graph, op: OpRecord) -> int | None:
    """The index of the learned matrix or kernel that `op` multiplies by, or None for activation × activation."""
    name = base_name(op)
    if name not in MACS:
        return None
    operands = op.inputs[1:2] if name in _COUNTED else op.inputs[-2:]
    return next((index for index in operands if index in graph.constants), None)
