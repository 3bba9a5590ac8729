"""Outputs of the commonest operations on the meta device, made from the shapes of their inputs alone.

torch computes these in Python, and its first such call imports its compiler and a computer algebra system, which takes
about as long as importing torch itself. A shortcut answers only the plain case (contiguous tensors, mostly) and leaves
all others, and the wording of errors, to torch; `tests/test_meta.py` holds both ways against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    # (B, C, *X) * (N, C/g, *K) -> (B, N, *Y)
    if transposed or x.dim() != weight.dim() or not (x.is_contiguous() and weight.is_contiguous()):
        return None
    sides = []
    for i, (side, kernel) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True)):
        s, p, d = (values[i if len(values) > 1 else 0] for values in (stride, padding, dilation))
        sides.append((side + 2 * p - d * (kernel - 1) - 1) // s + 1)
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups or min(sides) < 1:
        return None
    return x.new_empty((x.shape[0], weight.shape[0], *sides))


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Tensor | None, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if training or mean is None or mean.shape != x.shape[1:2] or not x.is_contiguous():
        return None
    return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)


def _layer_norm(
    x: Tensor, normalized: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if tuple(x.shape[-len(normalized) :]) != tuple(normalized):
        return None
    return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)


def _group_norm(
    x: Tensor, weight: Any, bias: Any, batch: int, channels: int, positions: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if not x.is_contiguous() or tuple(x.shape[:2]) != (batch, channels) or x.numel() != batch * channels * positions:
        return None
    if channels % groups or any(t is not None and tuple(t.shape) != (channels,) for t in (weight, bias)):
        return None
    return x.new_empty(x.shape), x.new_empty((batch, groups)), x.new_empty((batch, groups))


def _like(x: Tensor) -> Tensor | None:
    """What an elementwise operation makes of `x`: its sides in the order that they have in memory, without gaps."""
    if x.is_contiguous():
        return x.new_empty(x.shape)
    order = sorted(range(x.dim()), key=lambda i: x.stride(i))
    wide = [i for i in order if x.shape[i] != 1]
    if len({x.stride(i) for i in wide}) < len(wide) or any(x.stride(i) == 0 for i in wide):
        return None  # overlapping
    strides, expected = [0] * x.dim(), 1
    for i in order:
        strides[i] = expected
        expected *= x.shape[i]
    return x.new_empty_strided(x.shape, strides)


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor | None:
    return _like(x) if x.is_floating_point() else None


def _softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor | None:
    if half_to_float or not x.is_floating_point() or not -x.dim() <= dim < x.dim():
        return None
    return x.new_empty(x.shape)


def _binary(x: Any, y: Any, **kwargs: Any) -> Tensor | None:
    """Elementwise with broadcasting; a Python number joins any tensor."""
    if not isinstance(x, Tensor) or kwargs or not x.is_floating_point():
        return None
    if isinstance(y, Tensor):
        if y.dtype != x.dtype or y.device != x.device:
            return None
        shape = _broadcast(tuple(x.shape), tuple(y.shape))
        if x.is_contiguous() and y.is_contiguous():
            return None if shape is None else x.new_empty(shape)
        # Where x fills the result, its sides are laid out in x's order.
        return _like(x) if shape == tuple(x.shape) else None
    return _like(x) if isinstance(y, (int, float)) else None


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The common shape, sides of 1 stretched; None when the shapes do not agree."""
    width = max(len(a), len(b))
    a, b = (1,) * (width - len(a)) + a, (1,) * (width - len(b)) + b
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        return None
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


def _mean(x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
    if not dims or not x.dim() or kwargs or not x.is_contiguous() or not x.is_floating_point():
        return None
    if len({d % x.dim() for d in dims}) != len(dims) or any(not -x.dim() <= d < x.dim() for d in dims):
        return None
    reduced = {d % x.dim() for d in dims}
    sides = [1 if i in reduced else side for i, side in enumerate(x.shape) if keepdim or i not in reduced]
    return x.new_empty(sides)


def _mm(x: Tensor, y: Tensor) -> Tensor | None:
    # (M, K) * (K, N) -> (M, N)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[0] or x.dtype != y.dtype:
        return None
    return x.new_empty((x.shape[0], y.shape[1]))


def _addmm(bias: Tensor, x: Tensor, y: Tensor, **kwargs: Any) -> Tensor | None:
    return None if kwargs or y.dim() != 2 or bias.shape != y.shape[1:] else _mm(x, y)


def _bmm(x: Tensor, y: Tensor) -> Tensor | None:
    # (B, M, K) * (B, K, N) -> (B, M, N)
    if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1] or x.dtype != y.dtype:
        return None
    return x.new_empty((x.shape[0], x.shape[1], y.shape[2]))


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = parts[0]
    if not -first.dim() <= dim < first.dim() or any(not part.is_contiguous() for part in parts):
        return None
    dim %= first.dim()
    others = {(part.dtype, tuple(part.shape[:dim]), tuple(part.shape[dim + 1 :])) for part in parts}
    if len(others) > 1 or any(not part.is_meta or part.dim() != first.dim() for part in parts):
        return None
    return first.new_empty((*first.shape[:dim], sum(part.shape[dim] for part in parts), *first.shape[dim + 1 :]))


def _clone(x: Tensor, *, memory_format: Any = None) -> Tensor | None:
    kept = memory_format in (None, torch.preserve_format) and x.is_contiguous()
    return x.new_empty(x.shape) if kept or memory_format is torch.contiguous_format else None


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor | None:
    """One index tensor behind full slices: table[:, offsets]."""
    if not x.is_contiguous() or any(i is not None for i in indices[:-1]) or indices[-1] is None:
        return None
    if indices[-1].dtype != torch.int64 or len(indices) > x.dim():
        return None
    position = len(indices) - 1
    return x.new_empty((*x.shape[:position], *indices[-1].shape, *x.shape[position + 1 :]))


def _avg_pool2d(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor | None:
    if x.dim() != 4 or not x.is_contiguous():
        return None
    sides = []
    for i, side in enumerate(x.shape[2:]):
        k, s, p = (values[i if len(values) > 1 else 0] for values in (kernel, stride or kernel, padding))
        if p > k // 2:
            return None
        span = side + 2 * p - k
        steps = -(-span // s) if ceil_mode else span // s
        if ceil_mode and steps * s >= side + p:
            steps -= 1  # a window may not start in the padding beyond the end
        sides.append(steps + 1)
    return x.new_empty((*x.shape[:2], *sides)) if min(sides) >= 1 else None


def _upsample(x: Tensor, size: Sequence[int], *_: Any) -> Tensor | None:
    return x.new_empty((*x.shape[:2], *size)) if x.dim() == 4 and size and x.is_contiguous() else None


def _pixel_shuffle(x: Tensor, factor: int) -> Tensor | None:
    # (B, C·f², H, W) -> (B, C, H·f, W·f)
    if x.dim() != 4 or factor < 1 or x.shape[1] % factor**2 or not x.is_contiguous():
        return None
    B, channels, H, W = x.shape
    return x.new_empty((B, channels // factor**2, H * factor, W * factor))


SHORTCUTS: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "relu": _same,
    "gelu": _same,
    "silu": _same,
    "hardswish": _same,
    "hardtanh": _same,
    "sigmoid": _same,
    "_softmax": _softmax,
    "_safe_softmax": _softmax,
    "add": _binary,
    "sub": _binary,
    "mul": _binary,
    "div": _binary,
    "mean": _mean,
    "sum": _mean,
    "mm": _mm,
    "addmm": _addmm,
    "bmm": _bmm,
    "cat": _cat,
    "clone": _clone,
    "index": _index,
    "avg_pool2d": _avg_pool2d,
    "upsample_bilinear2d": _upsample,
    "upsample_bicubic2d": _upsample,
    "upsample_nearest2d": _upsample,
    "pixel_shuffle": _pixel_shuffle,
}


def run(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `func` returns for these arguments, by shortcut where one knows them."""
    shortcut = SHORTCUTS.get(name)
    first = args[0][0] if args and isinstance(args[0], (list, tuple)) and args[0] else args[0] if args else None
    if shortcut is not None and isinstance(first, Tensor) and first.is_meta and "out" not in kwargs:
        result = shortcut(*args, **kwargs)
        if result is not None:
            return result
    return func(*args, **kwargs)
