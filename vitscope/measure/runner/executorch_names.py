"""An ExecuTorch program as it ran, told by the names that its exporter gave to the operations. Standard library only.

A trace knows the program's instructions in order: calls of a delegate, inside which XNNPACK tells its kernels by kind and
without names, and operations of ExecuTorch's own. They are laid beside the names of the file, which stand in the order of
the program: `lowered_module_0/aten_convolution_default_3` in a delegate, `aten_mean_dim` outside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from vitscope.measure.runner.ops import op, typical
from vitscope.measure.runner.order import FileOp, in_order

HALF_A_MICROSECOND = 0.5e-6  # what XNNPACK's clock, which counts whole ones, cuts off a kernel on average
CALL, METHOD = "DELEGATE_CALL", "Method::execute"  # kinds of what no operation explains, in ExecuTorch's words

# What a kernel of XNNPACK may stand for, where its own words are not the kind's name.
_KINDS = {
    "Convolution": ("convolution", "conv2d"),
    "Fully Connected": ("linear", "addmm", "mm", "convolution", "conv2d"),
    "Dynamic Fully Connected": ("linear", "addmm", "mm", "bmm"),
    "Batch Matrix Multiply": ("bmm", "mm", "matmul"),
    "Deconvolution": ("convolution",),
    "Static Reshape": ("view_copy", "squeeze_copy", "unsqueeze_copy"),
    "Copy": ("cat", "view_copy", "slice_copy", "dim_order_ops__clone_dim_order"),
    "Transpose": ("permute_copy", "t_copy", "dim_order_ops__clone_dim_order", "dim_order_ops__to_dim_order_copy"),
    "Multiply": ("mul",),
    "Subtract": ("sub",),
    "Divide": ("div",),
    "Negate": ("neg",),
    "Square": ("pow",),
    "Square Root": ("sqrt",),
    "Reciprocal Square Root": ("rsqrt",),
    "ApproxGELU": ("gelu",),
    "Softmax": ("_softmax",),
    "Clamp": ("hardtanh", "relu", "clamp"),
    "Slice": ("slice_copy",),
    "Constant Pad": ("constant_pad_nd",),
    "Average Pooling": ("avg_pool2d", "mean"),
    "Global Average Pooling": ("mean", "avg_pool2d"),
    "Max Pooling": ("max_pool2d", "max_pool2d_with_indices"),
    "Resize Bilinear": ("upsample_bilinear2d",),
    "Depth To Space": ("pixel_shuffle",),
    "LeakyReLU": ("leaky_relu",),
    "Convert": (
        "quantized_decomposed_quantize_per_tensor",
        "quantized_decomposed_dequantize_per_tensor",
        "quantized_decomposed_dequantize_per_channel",
        "dim_order_ops__to_dim_order_copy",
    ),
}
_COMPUTES = {"convolution", "conv2d", "linear", "addmm", "mm", "bmm", "matmul"}
_AROUND_KIND = re.compile(r"^aten_|_[^_]+(?:_\d+)?$")  # the dialect; the overload and a number


class Kernel(NamedTuple):
    """XNNPACK's words for a kernel, or the kind of an operation of ExecuTorch's own (empty: not told), and its seconds."""

    tag: str
    seconds: float


class Step(NamedTuple):
    """One instruction of the program: a call of a delegate with its kernels, or an operation as its only kernel.

    `rest_s` is what the instruction takes beside its kernels.
    """

    delegated: bool
    kernels: list[Kernel]
    rest_s: float = 0.0


def typical_of(rounds: Sequence[Sequence[Step]]) -> list[Step]:
    """The steps of several inferences as one, each time the typical. Raises ValueError where inferences ran other steps."""
    shapes = [[(step.delegated, [kernel.tag for kernel in step.kernels]) for step in steps] for steps in rounds]
    if not shapes or not shapes[0] or any(shape != shapes[0] for shape in shapes):
        raise ValueError("the trace is empty, or its inferences ran different kernels")
    return [
        Step(
            step.delegated,
            [
                Kernel(kernel.tag, typical([steps[place].kernels[number].seconds for steps in rounds]))
                for number, kernel in enumerate(step.kernels)
            ],
            typical([steps[place].rest_s for steps in rounds]),
        )
        for place, step in enumerate(rounds[0])
    ]


def told(steps: Sequence[Step], rest_s: float, names: Sequence[str]) -> list[dict[str, Any]]:
    """The operations of an inference with the file's `names`, which are in the order of the program.

    What a call of a delegate takes beside its kernels, and the `rest_s` seconds that the inference takes beside its
    steps, are operations without a name of the file. Where the file has no names, kernels stand under their own words.
    Raises ValueError where the steps are those of another program.
    """
    calls, outside = _parts(names)
    made = sum(step.delegated for step in steps)
    if not names:
        calls, outside = [(f"delegate {number}", []) for number in range(made)], [[] for _ in range(made + 1)]
    if made != len(calls):
        raise ValueError(
            f"the trace has {made} calls of a delegate, and the file {len(calls)}: it is of another program"
        )
    found: list[dict[str, Any]] = []
    between: list[Step] = []
    call = 0
    for step in steps:
        if not step.delegated:
            between.append(step)
            continue
        found += _outside(between, outside[call])
        found += _inside(step, *calls[call])
        between, call = [], call + 1
    found += _outside(between, outside[call])
    if rest_s > 0:
        found.append(op(METHOD, METHOD, rest_s, (), "cpu"))
    return found


def kind_of(name: str) -> str:
    """`lowered_module_0/aten_slice_copy_tensor_3` → `slice_copy`: without place, number and overload."""
    return _AROUND_KIND.sub("", name.rpartition("/")[2])


def kinds_of(tag: str) -> tuple[str, ...]:
    """The kinds of operation that a kernel of XNNPACK may be: `Convolution (NHWC, F32) IGEMM #3` → convolution."""
    words = tag.partition(" (")[0]
    return _KINDS.get(words, (words.lower().replace(" ", "_"),))


def _parts(names: Sequence[str]) -> tuple[list[tuple[str, list[FileOp]]], list[list[FileOp]]]:
    """(title and operations of each delegate, operations before the first, between two, and after the last)."""
    calls: list[tuple[str, list[FileOp]]] = []
    outside: list[list[FileOp]] = [[]]
    for number, name in enumerate(names):
        title = name.rpartition("/")[0]
        if title and (not calls or calls[-1][0] != title):
            calls.append((title, []))
            outside.append([])
        (calls[-1][1] if title else outside[-1]).append(FileOp(number, kind_of(name), [name]))
    return calls, outside


def _outside(steps: Sequence[Step], operations: Sequence[FileOp]) -> list[dict[str, Any]]:
    """Operations of ExecuTorch's own, between two calls: paired by kind, or each with all names where none is told."""
    if all(step.kernels[0].tag for step in steps):
        pairs = in_order([(step.kernels[0].tag,) for step in steps], operations, _COMPUTES)
    else:
        pairs = [[name for operation in operations for name in operation.names] for _ in steps]
    found = []
    for step, names in zip(steps, pairs):  # noqa: B905  (Python 3.8)
        kind = step.kernels[0].tag or "+".join(dict.fromkeys(map(kind_of, names))) or METHOD
        found.append(op(kind, kind, step.kernels[0].seconds + step.rest_s, names, "cpu"))
    return found


def _inside(step: Step, title: str, operations: Sequence[FileOp]) -> list[dict[str, Any]]:
    """The kernels of a call, and what the call takes beside them, of which the clock's own loss is given back first."""
    kernels = step.kernels
    back = min(HALF_A_MICROSECOND, step.rest_s / len(kernels)) if kernels else 0.0
    pairs = in_order([kinds_of(kernel.tag) for kernel in kernels], operations, _COMPUTES)
    found = [
        op(f"{title}: {kernel.tag}", kernel.tag.partition(" (")[0], kernel.seconds + back, names, "cpu")
        for kernel, names in zip(kernels, pairs)  # noqa: B905  (Python 3.8)
    ]
    rest = step.rest_s - back * len(kernels)
    if rest > 0:
        # A delegate that tells no kernels is one operation, of all that the file has in it.
        names = [] if kernels else [name for operation in operations for name in operation.names]
        found.append(op(title, CALL, rest, names, "cpu"))
    return found
