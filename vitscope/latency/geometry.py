"""Geometry: the sizes of a kernel, enough to price it and to build it again on its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vitscope.cost.ops import base_name
from vitscope.graph.record import Graph, OpRecord, Shape

Pair = tuple[int, int]
IMAGE_CHANNELS = 4  # of an image, at the most: what has more is a map


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a kernel in elements; heights before widths.

    - convolution, pool, resize, and all else on (B, C, H, W): `batch` B, channels and sizes before and after. A
      transposed convolution is larger after than before.
    - linear: (rows, K) × (K, N): `batch` 1, `in_channels` K, `out_channels` N, `in_size` = `out_size` = (rows, 1).
    - matmul: (B, M, K) × (B, K, N): `batch` B of heads and images, `in_channels` K, `out_channels` N, sizes (M, 1).
    - attention in one kernel: `batch` of heads and images, `in_channels` of a query, `out_channels` of a value,
      `in_size` (keys, 1), `out_size` (queries, 1).
    - softmax, and norms of tokens and of groups: `in_channels` is the length that one value is normed over, sizes
      (rows, 1).
    - reduction: `window` is what it sums over in height and width, (1, 1) where it sums over something else.
    - anything else of another rank, (B, …, C): `batch` B, channels C, sizes (product of the rest, 1).

    `in_size` of a convolution holds the padding where that was an operation of its own.
    """

    batch: int
    in_channels: int
    out_channels: int
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    in_size: Pair = (1, 1)
    out_size: Pair = (1, 1)

    @property
    def padding(self) -> Pair:
        """Rows and columns of zeros, both sides together, that the window needs to reach `out_size` from `in_size`.

        Not of a transposed convolution.
        """
        return self._padding(0), self._padding(1)

    def _padding(self, axis: int) -> int:
        reach = (self.out_size[axis] - 1) * self.stride[axis] + (self.window[axis] - 1) * self.dilation[axis] + 1
        return max(0, reach - self.in_size[axis])


def geometry_of(graph: Graph, op: OpRecord, kind: str) -> Geometry:
    """The sizes of `op`, a kernel of `kind`, in `graph`. Every operation has some: what has no window keeps (1, 1)."""
    before = _first_activation(graph, op)
    after = graph.tensors[op.outputs[0]].shape
    match kind:
        case "linear":
            a, b = (graph.tensors[i].shape for i in op.inputs[-2:])
            depth = a[-1] if a else 1
            return matmul_geometry(1, prod(a[:-1]), depth, prod(b) // max(depth, 1))
        case "matmul":
            a, b = (graph.tensors[i].shape for i in op.inputs[-2:])
            depth = a[-1] if a else 1
            batch = prod(a[:-2])
            return matmul_geometry(batch, prod(a[:-1]) // max(batch, 1), depth, prod(b) // max(batch * depth, 1))
        case "softmax":
            axis = op.attr("dim", -1)
            length = before[axis] if before and isinstance(axis, int) else 1
            return softmax_geometry(prod(before) // max(length, 1), length)
    name = base_name(op)
    if name == "native_layer_norm":
        normed = op.attr("normalized_shape")
        length = prod(int(n) for n in normed) if isinstance(normed, tuple) else 1
        return softmax_geometry(prod(before) // max(length, 1), length)
    if name == "native_group_norm":
        groups = op.attr("group", 1)
        rows = before[0] * groups if before and isinstance(groups, int) else 1
        return softmax_geometry(rows, prod(before) // max(rows, 1))
    batch, in_channels, in_size = _image(before)
    _, out_channels, out_size = _image(after)
    if kind in ("conv", "grouped", "depthwise", "pointwise"):
        window = _pair(graph.tensors[op.inputs[1]].shape[2:])
        groups = op.attr("groups", 1)
        return Geometry(
            batch, in_channels, out_channels, window, _pair(op.attr("stride")), _pair(op.attr("dilation")),
            groups if isinstance(groups, int) else 1, in_size, out_size,
        )  # fmt: skip
    if kind == "pool":
        window = op.attr("kernel_size")
        if window is None:  # an adaptive pool: its windows tile the image, nearly
            window = tuple(-(-i // max(o, 1)) for i, o in zip(in_size, out_size, strict=True))
        stride = _pair(op.attr("stride") or window)
        return Geometry(batch, in_channels, out_channels, _pair(window), stride, _pair(op.attr("dilation")),
                        in_size=in_size, out_size=out_size)  # fmt: skip
    if kind == "reduce":
        return _reduction(op, before, batch, in_channels, in_size, prod(after))
    return Geometry(batch, in_channels, out_channels, in_size=in_size, out_size=out_size)


def padded_before(op: OpRecord, kind: str, sizes: Geometry) -> Pair | None:
    """The size of the map that a convolution or a pool reads once it is padded, where a runtime that knows no padding but
    `same` (which puts the odd zero last) has to write it first; None where it has not."""
    is_mean = base_name(op) == "avg_pool2d"
    if kind not in ("conv", "grouped", "depthwise", "pointwise", "pool") or op.attr("transposed"):
        return None
    before = _pair(op.attr("padding", (0, 0)))
    if is_mean and op.attr("count_include_pad", True) is False:
        return None
    same = all(
        out == -(-size // stride) and pad == total // 2
        for out, size, stride, pad, total in zip(
            sizes.out_size, sizes.in_size, sizes.stride, before, sizes.padding, strict=True
        )
    )
    if before == (0, 0) or (same and not is_mean):
        return None
    return sizes.in_size[0] + 2 * before[0], sizes.in_size[1] + 2 * before[1]


def tensor_geometry(shape: Shape) -> Geometry:
    """The sizes of a copy of a whole tensor: an image (B, C, H, W), or anything else as (B, rows, C)."""
    if len(shape) == 4:
        return Geometry(shape[0], shape[1], shape[1], in_size=shape[2:], out_size=shape[2:])  # type: ignore[arg-type]
    batch, channels = (shape[0], shape[-1]) if len(shape) > 1 else (1, prod(shape))
    size = (prod(shape[1:-1]), 1)
    return Geometry(batch, channels, channels, in_size=size, out_size=size)


def matmul_geometry(batch: int, rows: int, depth: int, columns: int) -> Geometry:
    """(batch, rows, depth) × (batch, depth, columns)."""
    return Geometry(batch, depth, columns, in_size=(rows, 1), out_size=(rows, 1))


def mean_geometry(batch: int, channels: int, size: Pair) -> Geometry:
    """The mean of each channel of maps of `size`."""
    return Geometry(batch, channels, channels, size, size, in_size=size)


def softmax_geometry(rows: int, length: int) -> Geometry:
    """`rows` times a normalisation over `length` elements."""
    return Geometry(1, length, length, in_size=(rows, 1), out_size=(rows, 1))


def attention_geometry(batch: int, queries: int, keys: int, depth: int, columns: int) -> Geometry:
    """(batch, queries, depth) × (batch, depth, keys), softmax, × (batch, keys, columns)."""
    return Geometry(batch, depth, columns, in_size=(keys, 1), out_size=(queries, 1))


def _reduction(op: OpRecord, before: Shape, batch: int, channels: int, in_size: Pair, writes: int) -> Geometry:
    dim = op.attr("dim")
    axes = {d % len(before) for d in ((dim,) if isinstance(dim, int) else dim) if isinstance(d, int)} if (
        isinstance(dim, (int, tuple)) and before
    ) else set(range(len(before)))  # fmt: skip
    if len(before) == 4 and axes <= {2, 3}:
        window = (in_size[0] if 2 in axes else 1, in_size[1] if 3 in axes else 1)
        out_size = (in_size[0] // max(window[0], 1), in_size[1] // max(window[1], 1))
        return Geometry(batch, channels, channels, window, window, in_size=in_size, out_size=out_size)
    return Geometry(batch, channels, max(writes // max(batch, 1), 1), in_size=in_size)


def _first_activation(graph: Graph, op: OpRecord) -> Shape:
    """The shape of the first operand that is not a constant."""
    for i in op.inputs:
        if i not in graph.constants:
            return graph.tensors[i].shape
    return graph.tensors[op.inputs[0]].shape if op.inputs else ()


def _image(shape: Shape) -> tuple[int, int, Pair]:
    """Batch, channels and size of a tensor: (B, C, H, W), or (B, …, C) with the rest as rows."""
    if len(shape) == 4:
        return shape[0], shape[1], (shape[2], shape[3])
    if len(shape) < 2:
        return 1, prod(shape), (1, 1)
    return shape[0], shape[-1], (prod(shape[1:-1]), 1)


def _pair(value: object) -> Pair:
    """Two numbers of an attribute that torch writes as one, as two, or not at all."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple):
        numbers = [v for v in value if isinstance(v, int)]
        if numbers:
            return numbers[0], numbers[-1]
    return 1, 1
