"""ClassCosts: what a kernel costs by its class and sizes, as a calibration measured it: the formula, and its correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, log2
from typing import TYPE_CHECKING, Any

from vitscope.latency.geometry import IMAGE_CHANNELS, Geometry
from vitscope.latency.kernels import Kernel

if TYPE_CHECKING:
    import numpy as np

# Classes whose work is multiply-accumulates; of all others it is elements.
_DEPTHWISE = ("depthwise", "depthwise ragged", "depthwise strided")
PRODUCTS = frozenset({
    "conv", "conv transposed", "grouped", "grouped ragged", "grouped transposed", *_DEPTHWISE,
    *(f"{name} 5x5" for name in _DEPTHWISE), "depthwise wide", "depthwise multiplied", "depthwise transposed", "pointwise",
    "pointwise row", "pointwise transposed", "linear", "linear row", "matmul",
})  # fmt: skip
IMAGE = "copy reorder image"  # of what enters the network
FUSED = "fused "  # before the name of an operation that runs while a kernel writes


@dataclass(frozen=True, slots=True)
class ClassCost:
    """The numbers of a class of kernels.

    A kernel starts in `start_s`, and does its work at `work_s` for each MAC (or element, where it has no MACs) as far as
    it is wide: with half as many terms in a sum (channels of a depthwise one) as `few_terms`, or half as many rows or
    positions as `few_rows`, each costs three times that. Output channels are padded to `channel_tile`, rows (columns, where
    there is a window) to `row_tile`. A byte of its weights, or of the image that nothing has read before, takes `cold_byte_s`
    longer where the caches have lost it.
    """

    start_s: float
    work_s: float
    few_terms: float = 0.0
    few_rows: float = 0.0
    cold_byte_s: float = 0.0
    channel_tile: int = 1
    row_tile: int = 1


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an inference of a network goes through: weights, and what its kernels write; and the memory that it needs at the
    least, of its input, of what the largest of its kernels reads and writes, and of its output."""

    weight_bytes: int
    written_bytes: int
    input_bytes: int
    largest_bytes: int
    output_bytes: int

    @property
    def arena_bytes(self) -> int:
        return self.input_bytes + self.largest_bytes + self.output_bytes


def footprint(kernels: Sequence[Kernel], element_bytes: int) -> Footprint:
    return Footprint(
        weight_bytes=element_bytes * sum(kernel.weights for kernel in kernels),
        written_bytes=element_bytes * sum(kernel.writes for kernel in kernels),
        input_bytes=element_bytes * next((kernel.reads for kernel in kernels if kernel.reads), 0),
        largest_bytes=element_bytes * max((kernel.reads + kernel.writes for kernel in kernels), default=0),
        output_bytes=element_bytes * next((kernel.writes for kernel in reversed(kernels) if kernel.writes), 0),
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """Seconds per byte by how much a kernel touches, and by how much the network does.

    `near_byte_s` is what a byte takes next to the core. Each level of `farther` adds to it for kernels that touch more than
    its bytes: (knee in bytes, seconds per byte beyond it). A depthwise kernel whose window, over all channels and with its
    weights, has more than `window_bytes` computes `window_more` times longer on top, since each position reads it anew.

    A network that goes through more than `cache_bytes` from one inference to the next, weights and what it writes, finds
    nothing where it left it. As far as it does (`gone`), weights take longer by their class, the call itself takes
    `cold_call_s` longer, each kernel starts `cold_start_s` later, each byte that a kernel writes takes `spill_byte_s`
    longer, `spill_product_byte_s` where it multiplies, which hides some of that; and each byte of the memory for
    activations takes `arena_byte_s` longer, once.
    """

    near_byte_s: float
    farther: tuple[tuple[float, float], ...]
    cache_bytes: float
    cold_call_s: float
    cold_start_s: float
    spill_byte_s: float
    spill_product_byte_s: float
    arena_byte_s: float
    window_bytes: float
    window_more: float

    def byte_s(self, touched_bytes: float) -> float:
        return self.near_byte_s + sum(more_s * beyond(touched_bytes, knee) for knee, more_s in self.farther)

    def gone(self, size: Footprint, swept_bytes: float = 0.0) -> float:
        """The share of what an inference left in the caches that the next does not find again; between the two something
        else goes through `swept_bytes`."""
        return beyond(size.weight_bytes + size.written_bytes + swept_bytes, self.cache_bytes)

    def far_bytes(self, touched_bytes: float) -> float:
        """How many of the bytes that a kernel touches come from beyond the last level."""
        return touched_bytes * beyond(touched_bytes, self.farther[-1][0]) if self.farther else touched_bytes


def spilt(num_bytes: Any, cache_bytes: float) -> Any:
    """Whether what is read again and again does not fit into a cache, with the least of a slope: what does not fit by a little
    is lost by the time that it is asked for."""
    return num_bytes**8 / (num_bytes**8 + cache_bytes**8)


def beyond(num_bytes: Any, knee_bytes: float) -> Any:
    """How far `num_bytes`, a number or an array, are beyond a cache: 0 well below its knee, a half there, 1 well above."""
    return num_bytes**2 / (num_bytes**2 + knee_bytes**2)


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel that was timed, in the axes of `axes_of`, and its weight in the correction of its class."""

    axes: tuple[float, ...]
    weight: float


@dataclass(frozen=True)
class Correction:
    """A smooth factor on the formula, in ln: what the timed kernels of a class near this one had to be corrected by.

    The mean of a Gaussian process with a squared exponential kernel: far from every timed kernel it is 0, and the
    formula stands alone.
    """

    length: float  # in units of axes_of
    points: tuple[Point, ...]

    def log_factor(self, axes: Sequence[float]) -> float:
        import numpy as np

        at, weights = self._arrays
        if not len(at):
            return 0.0
        distance = ((at - np.array(axes)) ** 2).sum(1)
        return float(weights @ np.exp(-0.5 * distance / self.length**2))

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        return np.array([p.axes for p in self.points]), np.array([p.weight for p in self.points])


@dataclass(frozen=True)
class ClassCosts:
    """Costs of every class that was timed.

    `scale` and `more_s` are what whole networks, where some were timed too, said of every kernel: it takes `scale` as long
    among others as alone, and `more_s` longer.
    """

    floor_s: float
    memory: Memory
    classes: Mapping[str, ClassCost]
    corrections: Mapping[str, Correction]
    scale: float = 1.0
    more_s: float = 0.0

    def moving_s(self, kernel: Kernel, element_bytes: int) -> float:
        """Seconds that any kernel takes to read and write what it does, whatever it computes: the least of an unknown one."""
        touched = element_bytes * (kernel.reads + kernel.writes + kernel.weights)
        return touched * self.memory.byte_s(touched)

    def kernel_s(self, kernel: Kernel, element_bytes: int) -> float | None:
        """Seconds of `kernel` in a network that the caches hold; None for one of a class that was never timed, or whose sizes
        are not known."""
        parts = self.parts(kernel, element_bytes)
        if parts is None:
            return None
        start, compute, near, farther = parts
        seconds = start + max(compute, near) + farther
        correction = self.corrections.get(class_of(kernel))
        if correction is not None and kernel.geometry is not None:
            seconds *= exp(correction.log_factor(axes_of(kernel.geometry)))
        return max(0.0, seconds * self.scale + self.more_s)

    def total_s(self, kernels: Sequence[Kernel], element_bytes: int, swept_bytes: float = 0.0) -> float | None:
        """Seconds of a network of `kernels`, between whose inferences something else goes through `swept_bytes`; None where
        one of them is of a class that was never timed."""
        total = self.floor_s + self.cold_s(kernels, element_bytes, swept_bytes)
        for kernel, count in Counter(kernels).items():
            seconds = self.kernel_s(kernel, element_bytes)
            if seconds is None:
                return None
            total += count * seconds
        return total

    def cold_s(self, kernels: Sequence[Kernel], element_bytes: int, swept_bytes: float = 0.0) -> float:
        """Seconds of that which its kernels wait for what the caches have lost since the last inference."""
        size = footprint(kernels, element_bytes)
        waiting_s = sum(self.waiting_s(kernel, element_bytes) for kernel in kernels)
        memory = self.memory
        return memory.gone(size, swept_bytes) * (
            memory.cold_call_s + waiting_s + size.arena_bytes * memory.arena_byte_s
        )

    def waiting_s(self, kernel: Kernel, element_bytes: int) -> float:
        """Seconds that `kernel` waits where the caches have lost all that it had in them."""
        memory, name = self.memory, class_of(kernel)
        cost = self.classes.get(name)
        fetched_s = 0.0 if cost is None else element_bytes * fetched(kernel) * cost.cold_byte_s
        spill_byte_s = memory.spill_product_byte_s if name in PRODUCTS else memory.spill_byte_s
        return memory.cold_start_s + fetched_s + element_bytes * kernel.writes * spill_byte_s

    def parts(self, kernel: Kernel, element_bytes: int) -> tuple[float, float, float, float] | None:
        """Seconds by the formula alone: starting, computing, moving what lies near, and waiting for what lies farther."""
        cost, size = self.classes.get(class_of(kernel)), kernel.geometry
        if cost is None or size is None:
            return None
        terms, rows = terms_and_rows(kernel, size)
        compute = cost.work_s * work_of(kernel, size, cost.channel_tile, cost.row_tile)
        compute *= (1 + cost.few_terms / terms) * (1 + cost.few_rows / rows)
        window_bytes = element_bytes * window_elements(kernel)
        compute *= 1 + self.memory.window_more * spilt(window_bytes, self.memory.window_bytes)
        for name in kernel.epilogue:
            fused = self.classes.get(FUSED + name)
            if fused is not None:
                compute += fused.work_s * kernel.writes
        touched = element_bytes * (kernel.reads + kernel.writes + kernel.weights)
        near = touched * self.memory.near_byte_s
        return cost.start_s, compute, near, self.moving_s(kernel, element_bytes) - near


# Of elementwise operations and copies, those that cost otherwise than one addition, or one copy, of the same size.
_DEAR = frozenset({"div", "sqrt", "rsqrt", "pow", "exp", "log", "reciprocal"})
_MEANS = frozenset({"mean", "mean_squared"})
_LANES = 16  # floats of the widest vectors, and of ONNX Runtime's blocks of channels
_TAPS = 9, 25  # of the windows that XNNPACK has depthwise kernels of their own for
_CUT: dict[str, str] = {**dict.fromkeys(("split", "split_with_sizes", "chunk", "narrow"), "slice"), "select": "unbind"}
_MOVED = frozenset({
    "reorder", "permute", "permute_rows", "permute_scattered", "transpose", "roll", "cat", "slice", "unbind",
    "constant_pad_nd", *_CUT,
})  # fmt: skip


def class_of(kernel: Kernel) -> str:
    """What is priced together: products by their kind, apart those that runtimes have other code for (transposed ones, depthwise
    and grouped ones whose channels fill no vector, depthwise ones with a stride, or a window of over 3×3 or over 5×5);
    softmax, apart where its rows fill no vector; activations and norms by their operation, and what reduces otherwise than to
    means; and of all else what reads alike: two maps, one map and a vector beside it, or one value a row, or a number; memory
    in order, or not."""
    kind, main = kernel.kind, kernel.main.rstrip("_")
    match kind:
        case "conv" | "grouped" | "depthwise" | "pointwise" if _is_transposed(kernel.geometry):
            return f"{kind} transposed"
        case "grouped" if kernel.geometry is not None:
            return f"{kind} ragged" if kernel.geometry.out_channels // kernel.geometry.groups % _LANES else kind
        case "depthwise" if kernel.geometry is not None:
            return _class_of_depthwise(kernel.geometry)
        case "linear" | "pointwise" if kernel.geometry is not None and kernel.geometry.out_size == (1, 1):
            return f"{kind} row"  # a matrix times a vector: nothing shares its weights
        case "norm" if main == "native_layer_norm" and kernel.reads >= 2 * kernel.writes:
            # adds two maps first, by code of its own
            return f"{kind} {main} of a sum"
        case "softmax" if kernel.geometry is not None and kernel.geometry.in_channels % _LANES:
            return "softmax ragged"
        case "activation" | "norm" | "pool" | "resize" | "gather" | "unknown":
            return f"{kind} {main}"
        case "elementwise":
            dear = f"{kind} {main}" if main in _DEAR else kind
            if kernel.reads <= kernel.writes and kernel.weights <= 1:
                return f"{dear} scalar"
            if kernel.reads + kernel.weights >= 1.5 * kernel.writes:
                return dear
            return f"{dear} broadcast rows" if is_by_rows(kernel) else f"{dear} broadcast"
        case "copy":
            if main == "reorder" and kernel.geometry is not None and kernel.geometry.out_channels <= IMAGE_CHANNELS:
                return IMAGE  # pixel by pixel, where others go in rows of channels
            return f"{kind} {_CUT.get(main, main)}" if main in _MOVED else kind
        case "reduce":
            of = "map" if kernel.geometry is not None and kernel.geometry.window != (1, 1) else "rows"
            return f"{kind} {of}" if main in _MEANS else f"{kind} {of} {main}"
    return kind


def _is_transposed(size: Geometry | None) -> bool:
    """Whether a convolution's stride makes the image larger."""
    return size is not None and size.stride != (1, 1) and size.out_size[0] > size.in_size[0]


def _class_of_depthwise(size: Geometry) -> str:
    if size.out_channels != size.in_channels:
        return "depthwise multiplied"  # several results a channel
    taps = size.window[0] * size.window[1]
    if taps > _TAPS[1]:
        return "depthwise wide"
    name = "depthwise"
    if size.out_channels % _LANES:
        name = "depthwise ragged"
    elif size.stride != (1, 1):
        name = "depthwise strided"
    return f"{name} 5x5" if taps > _TAPS[0] else name


def is_by_rows(kernel: Kernel) -> bool:
    """Whether an elementwise kernel reads one value for each row beside the rows, as a norm does that is taken apart."""
    size = kernel.geometry
    if size is None or size.out_size[1] != 1:
        return False
    return kernel.reads - kernel.writes == size.batch * size.out_size[0] > 1


def parent_of(name: str, names: Collection[str]) -> str | None:
    """Which of the classes `names` the class `name` is a kind of, as `depthwise strided` is of `depthwise`; the nearest.
    Transposed convolutions are like nothing: runtimes have the plainest of code for them."""
    words = name.split()
    if words[-1] == "transposed":
        return None
    parents = (" ".join(words[:n]) for n in range(len(words) - 1, 0, -1))
    return next((parent for parent in parents if parent in names), None)


def work_of(kernel: Kernel, size: Geometry, channel_tile: int, row_tile: int) -> float:
    """MACs with output channels and rows padded to tiles, or elements: window by window where there is one."""
    if kernel.kind not in PRODUCTS:
        if kernel.kind == "pool":
            return kernel.writes * size.window[0] * size.window[1]
        return max(kernel.reads, kernel.writes)
    channels = size.out_channels // (size.groups if kernel.kind == "grouped" else 1)
    rows = size.out_size[0] * size.out_size[1] if size.window == (1, 1) else size.out_size[1]
    return kernel.macs * _padding(channels, channel_tile) * _padding(rows, row_tile)


def fetched(kernel: Kernel) -> int:
    """Elements that a kernel reads and that no other has touched: weights that it multiplies by, or those of the image."""
    name = class_of(kernel)
    return kernel.weights if name in PRODUCTS else kernel.reads if name == IMAGE else 0


def window_elements(kernel: Kernel) -> int:
    """Of a depthwise kernel what one position reads: a window of all channels, and its weights. 0 of all others, and of windows
    so wide that runtimes go through them part by part."""
    size = kernel.geometry
    if size is None or kernel.kind != "depthwise" or (taps := size.window[0] * size.window[1]) > _TAPS[1]:
        return 0
    return 2 * taps * size.in_channels


def _padding(number: int, tile: int) -> float:
    """How many times as much there is when `number` is padded to a multiple of `tile`."""
    return ceil(number / tile) * tile / max(number, 1)


def terms_and_rows(kernel: Kernel, size: Geometry) -> tuple[float, float]:
    """Over how many terms one output sums (of a depthwise kernel what it goes through together: its channels, or the several
    results of one), and how many outputs share a weight."""
    window = size.window[0] * size.window[1]
    rows = max(1, size.out_size[0] * size.out_size[1])
    if kernel.kind in ("softmax", "norm"):
        return max(1, size.in_channels), rows
    if kernel.kind == "depthwise":
        together = size.in_channels if size.out_channels == size.in_channels else size.out_channels // size.groups
        return max(1, together), rows
    if kernel.kind in PRODUCTS:
        return max(1, size.in_channels // size.groups * window), rows
    return max(1, window), rows


# How many octaves of a size are one unit of distance, in the order of axes_of; the last says that channels fill no tile.
_OCTAVES = (1.5, 1.5, 1.5, 1.0, 0.7, 2.0)


def axes_of(size: Geometry) -> tuple[float, ...]:
    """A point for the sizes of a kernel: distances are what makes two of a class run differently. Of a depthwise one, whose
    groups have one channel each, also by which power of two its channels divide: lines of a cache that lie such a power
    apart are in each other's way."""
    depth = size.in_channels / size.groups
    if size.groups == size.in_channels > 1:
        depth = size.in_channels & -size.in_channels
    sizes = (
        depth, size.out_channels, size.out_size[0] * size.out_size[1],
        size.window[0] * size.window[1], size.stride[0] * size.stride[1], size.batch,
    )  # fmt: skip
    ragged = sum(0.5 for channels in (size.in_channels, size.out_channels) if channels % 8)
    return (*(round(log2(max(s, 1)) / unit, 4) for s, unit in zip(sizes, _OCTAVES, strict=True)), ragged)
