"""Build the network of a probe: so many copies of a kernel, from nothing but its kind and its sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import ceil, isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitscope.calibrate.probe_modules import (
    Between,
    Call,
    Chain,
    Elementwise,
    GroupNorm,
    Imaged,
    Joined,
    Numbered,
    Parted,
    Permuted,
    Products,
    Reduced,
    Reshaped,
    Scaled,
    Shifted,
    Sum,
    Summed,
    Tokens,
    Turned,
    Unblocked,
    Unbound,
)
from vitscope.latency.class_cost import is_by_rows
from vitscope.latency.geometry import IMAGE_CHANNELS, Geometry
from vitscope.latency.kernels import Kernel
from vitscope.latency.runtime import FusionRules

Size = tuple[int, int, int]  # (C, H, W) of the input

LEAST_COPIES = 4  # of a kernel: fewer would say as much of what stands at both ends of them
_HEAD = 32  # dimensions of a head of attention

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "hardtanh": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "mish": F.mish,
    "softplus": F.softplus,
}
_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "squared_difference": torch.sub,  # as one kernel they have the time of
}
_REDUCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "mean_squared": torch.mean,  # likewise
    "sum": torch.sum,
    "amax": torch.amax,
}


def from_an_image(module: nn.Module, size: Size) -> tuple[nn.Module, Size]:
    """`module`, on maps (C, H, W) of `size`, as a network of an image; on (C, 1, 1), which nothing lays out, as it is."""
    channels, height, width = size
    if height * width == 1:
        return module, size
    return Imaged(module, channels), (3, height, width)


def build(kernel: Kernel, size: Geometry, copies: int, batch: int, rules: FusionRules) -> tuple[nn.Module, Size] | None:
    """A network of `copies` of `kernel`, of `size`, and what it takes for each image of a batch; None where a kind cannot stand
    alone. Raises what torch does for sizes that it does not take together."""
    match kernel.kind:
        case "conv" | "grouped" | "depthwise" | "pointwise":
            return _convolutions(kernel, size, copies, rules)
        case "linear":
            return _linears(kernel, size, copies)
        case "matmul":
            # Of the narrower of the two: what comes in is copied, and may be as much as a product takes.
            depth, columns = sorted((size.in_channels, size.out_channels))
            heads = size.batch // batch
            return Products(heads, depth, columns, max(1, copies // 2)), (heads, size.out_size[0], depth)
        case "softmax":
            return Chain([Call(partial(F.softmax, dim=-1)) for _ in range(copies)]), _rows(size)
        case "norm":
            return _norms(kernel, size, copies)
        case "activation":
            act = ACTIVATIONS.get(kernel.main.rstrip("_"))
            if act is None:
                return None
            return _on_map(Chain([Between(act) for _ in range(copies)]), size)
        case "elementwise":
            return _elementwise(kernel, size, copies)
        case "pool":
            return _pools(kernel, size, copies)
        case "reduce":
            return _reductions(kernel, size, copies)
        case "resize":
            return _resizes(kernel, size, copies)
        case "copy":
            return _copying(kernel, size, copies, rules)
        case "reshape":  # of no size of its own: it moves nothing
            return Chain([Reshaped() for _ in range(copies)]), (16, 14, 8)
    return None


def _with_activation(layer: nn.Module, kernel: Kernel) -> nn.Module:
    act = next((ACTIVATIONS[name] for op in kernel.epilogue if (name := op.rstrip("_")) in ACTIVATIONS), None)
    return layer if act is None else nn.Sequential(layer, Call(act))


def _convolutions(kernel: Kernel, size: Geometry, copies: int, rules: FusionRules) -> tuple[nn.Module, Size] | None:
    if size.out_size[0] > size.in_size[0] and size.stride != (1, 1):
        return _transposed(size, copies)

    def conv(before: int, after: int) -> nn.Module:
        padding = tuple(ceil(p / 2) for p in size.padding)
        layer = nn.Conv2d(
            before, after, size.window, size.stride, padding, size.dilation, size.groups  # type: ignore[arg-type]
        )  # fmt: skip
        return _with_activation(layer, kernel)

    given = (size.in_channels, *size.in_size)
    keeps = size.stride == (1, 1) and size.in_size == size.out_size
    if keeps and size.in_channels == size.out_channels:
        return from_an_image(Chain([conv(size.in_channels, size.in_channels) for _ in range(copies)]), given)
    if keeps and size.groups == 1:
        pairs = max(1, copies // 2)
        there_and_back = [conv(size.in_channels, size.out_channels), conv(size.out_channels, size.in_channels)]
        for _ in range(pairs - 1):
            there_and_back += [conv(size.in_channels, size.out_channels), conv(size.out_channels, size.in_channels)]
        return from_an_image(Chain(there_and_back), given)
    convs: list[nn.Module] = [conv(size.in_channels, size.out_channels) for _ in range(copies)]
    if rules.padding == "same":
        # each has an input of its own, or all would share what pads it, as nothing does in networks
        convs = [Shifted(each) for each in convs]
    return from_an_image(Sum(convs), given)


def _transposed(size: Geometry, copies: int) -> tuple[nn.Module, Size] | None:
    """Transposed convolutions whose padding is all that their sizes need, without zeros on one side alone."""
    reach = [
        (before - 1) * stride + dilation * (window - 1) + 1 - after
        for before, after, stride, dilation, window in zip(
            size.in_size, size.out_size, size.stride, size.dilation, size.window, strict=True
        )
    ]
    if any(rest < 0 or rest % 2 for rest in reach):
        return None
    convs = [
        nn.ConvTranspose2d(
            size.in_channels, size.out_channels, size.window, size.stride, (reach[0] // 2, reach[1] // 2),  # type: ignore[arg-type]
            groups=size.groups, dilation=size.dilation,  # type: ignore[arg-type]
        )
        for _ in range(min(copies, LEAST_COPIES))
    ]  # fmt: skip
    return from_an_image(Sum(convs), (size.in_channels, *size.in_size))


def _linears(kernel: Kernel, size: Geometry, copies: int) -> tuple[nn.Module, Size]:
    before, after = size.in_channels, size.out_channels
    bias = kernel.weights > before * after
    layers: list[nn.Module] = []
    for _ in range(copies if before == after else max(1, copies // 2)):
        layers.append(_with_activation(nn.Linear(before, after, bias), kernel))
        if before != after:
            layers.append(_with_activation(nn.Linear(after, before, bias), kernel))
    return Tokens(Chain(layers)), (1, size.out_size[0], before)


def _rows(size: Geometry) -> Size:
    return 1, size.out_size[0], size.in_channels


def _on_map(body: nn.Module, size: Geometry) -> tuple[nn.Module, Size]:
    """`body`, which keeps sizes, on an image (C, H, W), or on tokens, whose sizes are (T, 1)."""
    if _is_tokens(size):
        return Tokens(body), (size.batch, size.out_size[0], size.out_channels)
    return from_an_image(body, (size.out_channels, *size.out_size))


def _is_tokens(size: Geometry) -> bool:
    return size.out_size[1] == 1 and (size.out_size[0] > 1 or size.batch > 1)


def _norms(kernel: Kernel, size: Geometry, copies: int) -> tuple[nn.Module, Size] | None:
    rows, length = size.out_size[0], size.in_channels
    if kernel.main == "native_layer_norm":
        norms = [nn.LayerNorm(length) for _ in range(copies)]
        body = Summed(norms) if kernel.reads >= 2 * kernel.writes else Chain(norms)
        return Tokens(body), (1, rows, length)
    if kernel.main == "native_batch_norm":
        parts = Chain(
            [Between(nn.BatchNorm2d(size.out_channels)) for _ in range(copies)]
        )  # two in a row stop ExecuTorch
        return from_an_image(parts, (size.out_channels, *size.out_size))
    if kernel.main == "native_group_norm":
        channels = kernel.weights // 2 or rows
        positions = length * rows // channels
        side = isqrt(positions)
        shape = (channels, side, side) if side * side == positions else (channels, positions, 1)
        return from_an_image(Chain([GroupNorm(rows, channels) for _ in range(copies)]), shape)
    if kernel.main == "instance_norm":  # the sizes do not say how many channels it normalises together
        channels = next(c for c in (64, 32, 16, 8, 4, 2, 1) if length % c == 0)
        shape = (channels * rows, length // channels, 1)
        return from_an_image(Chain([GroupNorm(rows, channels * rows) for _ in range(copies)]), shape)
    if kernel.main == "linalg_vector_norm":
        return Chain([Call(_normalised) for _ in range(copies)]), (size.in_channels, *size.in_size)
    return None


def _normalised(x: Tensor) -> Tensor:
    return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-6)


def _elementwise(kernel: Kernel, size: Geometry, copies: int) -> tuple[nn.Module, Size] | None:
    call = _BINARY.get(kernel.main.rstrip("_"))
    if call is None:
        return None
    if kernel.reads >= 2 * kernel.writes:
        other = "same"
    elif kernel.reads > kernel.writes:
        other = "row" if is_by_rows(kernel) else "channel"
    elif kernel.weights <= 1:
        other = "number"
    else:
        other = "table" if kernel.weights >= kernel.writes else "constant"
    return _on_map(Elementwise(call, copies, size.out_channels, size.out_size, other), size)


def _pools(kernel: Kernel, size: Geometry, copies: int) -> tuple[nn.Module, Size] | None:
    window, stride = size.window, size.stride
    padding = (ceil(size.padding[0] / 2), ceil(size.padding[1] / 2))
    if any(p > w // 2 for p, w in zip(padding, window, strict=True)):
        return None
    if kernel.main.startswith("max_pool"):
        call = partial(F.max_pool2d, kernel_size=window, stride=stride, padding=padding)
    elif "avg_pool" in kernel.main:
        # what is padded is left out of the mean, as networks have it
        call = partial(F.avg_pool2d, kernel_size=window, stride=stride, padding=padding, count_include_pad=False)
    else:
        return None
    parts = [Between(call) for _ in range(copies)]
    keeps = size.in_size == size.out_size
    return from_an_image(Chain(parts) if keeps else Sum(parts), (size.in_channels, *size.in_size))


def _reductions(kernel: Kernel, size: Geometry, copies: int) -> tuple[nn.Module, Size] | None:
    call = _REDUCTIONS.get(kernel.main)
    if call is None:
        return None
    if size.window == (1, 1):
        rows = Chain([Reduced(partial(call, dim=-1, keepdim=True)) for _ in range(copies)])
        return Tokens(rows), (1, kernel.writes, max(1, kernel.reads // kernel.writes))
    over = tuple(axis for axis, length in zip((2, 3), size.window, strict=True) if length > 1)
    parts = Chain([Reduced(partial(call, dim=over, keepdim=True)) for _ in range(copies)])
    return from_an_image(parts, (size.in_channels, *size.in_size))


def _resizes(kernel: Kernel, size: Geometry, copies: int) -> tuple[nn.Module, Size] | None:
    mode = {"upsample_bilinear2d": "bilinear", "upsample_bicubic2d": "bicubic", "upsample_nearest2d": "nearest"}
    if kernel.main not in mode:
        return None
    call = partial(F.interpolate, size=size.out_size, mode=mode[kernel.main])
    resized = Sum([Between(call) for _ in range(min(copies, 4))])
    return from_an_image(resized, (size.in_channels, *size.in_size))


def _copying(kernel: Kernel, size: Geometry, copies: int, rules: FusionRules) -> tuple[nn.Module, Size] | None:
    main = kernel.main.rstrip("_")
    kept_in_blocks = rules.layout is not None and rules.layout.block > 0
    if main in ("clone", "contiguous", "permute", "transpose"):
        return _on_map(Chain([Turned() for _ in range(copies)]), size)
    if main in ("permute_rows", "permute_scattered"):
        return _on_map(Chain([Permuted(main == "permute_rows") for _ in range(copies)]), size)
    if main == "reorder":
        if not kept_in_blocks and size.out_channels <= IMAGE_CHANNELS:
            # of the image itself, which nothing has touched before
            return nn.Conv2d(size.out_channels, 8, 1, stride=4), (size.out_channels, *size.out_size)
        turned = Unblocked if kept_in_blocks else Numbered
        return _on_map(Chain([turned(size.out_channels) for _ in range(copies)]), size)
    if main in ("split", "split_with_sizes", "chunk", "slice", "unbind"):
        # each half is a kernel, or both are one
        written = 2 * kernel.writes if rules.slice == "each" else kernel.writes
        if main == "unbind":  # whole stretches of memory, as queries, keys and values lie
            if written % (2 * _HEAD):
                return None
            return Tokens(Chain([Unbound() for _ in range(copies)])), (1, written // _HEAD, _HEAD)
        positions = size.out_size[0] * size.out_size[1]
        if size.out_size[1] == 1 or written % (2 * positions):
            return None
        return from_an_image(Chain([Parted() for _ in range(copies)]), (written // positions, *size.out_size))
    if main == "cat":
        if size.out_channels % 2 or size.out_size[1] == 1:
            return None
        half = size.out_channels // 2
        # a scale, as what runs it keeps it in blocks
        parts = [nn.Conv2d(half, half, 1, groups=half) if kept_in_blocks else Scaled(half) for _ in range(copies)]
        return from_an_image(Sum([Joined(part) for part in parts]), (half, *size.out_size))
    if main == "constant_pad_nd":
        down, right = (after - before for after, before in zip(size.out_size, size.in_size, strict=True))
        if down < 0 or right < 0 or not down + right:
            return None
        pad = partial(F.pad, pad=(right // 2, right - right // 2, down // 2, down - down // 2))
        return from_an_image(Sum([Shifted(pad) for _ in range(copies)]), (size.in_channels, *size.in_size))
    if main == "roll" and size.out_size[1] > 1:
        rolled = [Shifted(partial(torch.roll, shifts=(-3, -3), dims=(2, 3))) for _ in range(copies)]
        return from_an_image(Chain(rolled), (size.out_channels, *size.out_size))
    return None
