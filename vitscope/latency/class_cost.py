"""ClassCosts: what a kernel costs by its class and sizes, as a calibration measured it: the formula, and its correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, log2
from typing import TYPE_CHECKING, Any

from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel

if TYPE_CHECKING:
    import numpy as np

# Classes whose work is multiply-accumulates; of all others it is elements.
PRODUCTS = frozenset(
    {"conv", "grouped", "grouped ragged", "depthwise", "depthwise ragged", "depthwise strided", "depthwise wide"}
    | {"pointwise", "linear", "matmul"}
)
FUSED = "fused "  # before the name of an operation that runs while a kernel writes


@dataclass(frozen=True, slots=True)
class ClassCost:
    """The numbers of a class of kernels.

    A kernel starts in `start_s`, and does its work at `work_s` for each MAC (or element, where it has no MACs) as far as
    it is wide: with half as many terms in a sum as `few_terms`, or half as many rows or positions as `few_rows`, each
    costs three times that. Output channels are padded to `channel_tile`, rows (columns, where there is a window) to
    `row_tile`.
    """

    start_s: float
    work_s: float
    few_terms: float = 0.0
    few_rows: float = 0.0
    channel_tile: int = 1
    row_tile: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """Seconds per byte by how much a kernel touches.

    `near_byte_s` is what a byte takes next to the core. Each level of `farther` adds to it for kernels that touch more than
    its bytes: (knee in bytes, seconds per byte beyond it). A byte of weights takes `cold_byte_s` longer: by the time that an
    inference asks for it once more, the rest of the network has driven it from the caches. So does, once, each byte of the
    memory that activations share (`arena_byte_s`), which is as large as what one kernel reads and writes at the most.
    """

    near_byte_s: float
    farther: tuple[tuple[float, float], ...]
    cold_byte_s: float
    arena_byte_s: float

    def byte_s(self, touched_bytes: float) -> float:
        return self.near_byte_s + sum(more_s * beyond(touched_bytes, knee) for knee, more_s in self.farther)

    def far_bytes(self, touched_bytes: float) -> float:
        """How many of the bytes that a kernel touches come from beyond the last level."""
        return touched_bytes * beyond(touched_bytes, self.farther[-1][0]) if self.farther else touched_bytes


def beyond(num_bytes: Any, knee_bytes: float) -> Any:
    """How far `num_bytes`, a number or an array, are beyond a cache: 0 well below its knee, a half there, 1 well above."""
    return num_bytes**2 / (num_bytes**2 + knee_bytes**2)


def arena_elements(kernels: Iterable[Kernel]) -> int:
    """The most that one of `kernels` reads and writes: no network needs less memory for its activations."""
    return max((kernel.reads + kernel.writes for kernel in kernels), default=0)


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
        return touched * self.memory.byte_s(touched) + element_bytes * kernel.weights * self.memory.cold_byte_s

    def kernel_s(self, kernel: Kernel, element_bytes: int) -> float | None:
        """Seconds of `kernel`; None for one of a class that was never timed, or whose sizes are not known."""
        parts = self.parts(kernel, element_bytes)
        if parts is None:
            return None
        start, compute, near, farther = parts
        seconds = start + max(compute, near) + farther
        correction = self.corrections.get(class_of(kernel))
        if correction is not None and kernel.geometry is not None:
            seconds *= exp(correction.log_factor(axes_of(kernel.geometry)))
        return max(0.0, seconds * self.scale + self.more_s)

    def parts(self, kernel: Kernel, element_bytes: int) -> tuple[float, float, float, float] | None:
        """Seconds by the formula alone: starting, computing, moving what lies near, and waiting for what lies farther."""
        cost, size = self.classes.get(class_of(kernel)), kernel.geometry
        if cost is None or size is None:
            return None
        terms, rows = terms_and_rows(kernel, size)
        compute = cost.work_s * work_of(kernel, size, cost.channel_tile, cost.row_tile)
        compute *= (1 + cost.few_terms / terms) * (1 + cost.few_rows / rows)
        for name in kernel.epilogue:
            fused = self.classes.get(FUSED + name)
            if fused is not None:
                compute += fused.work_s * kernel.writes
        touched = element_bytes * (kernel.reads + kernel.writes + kernel.weights)
        near = touched * self.memory.near_byte_s
        return cost.start_s, compute, near, self.moving_s(kernel, element_bytes) - near


# Of elementwise operations and copies, those that cost otherwise than one addition, or one copy, of the same size.
_DEAR = frozenset({"div", "sqrt", "rsqrt", "pow", "exp", "log", "reciprocal"})
_LANES = 16  # floats of the widest vectors, and of ONNX Runtime's blocks of channels
_TAPS = 25  # of the largest window that XNNPACK has a depthwise kernel of its own for
_MOVED = frozenset({"reorder", "permute", "transpose", "roll"})


def class_of(kernel: Kernel) -> str:
    """What is priced together: products by their kind, apart those that runtimes have other code for (depthwise and grouped
    ones whose channels fill no vector, depthwise ones with a stride or a window of over 5×5); activations and norms by their
    operation; and of all else what reads alike: two maps, or one map and little beside it; memory in order, or not."""
    kind, main = kernel.kind, kernel.main.rstrip("_")
    match kind:
        case "grouped" | "depthwise" if kernel.geometry is not None:
            channels = kernel.geometry.out_channels // (kernel.geometry.groups if kind == "grouped" else 1)
            if kind == "depthwise" and kernel.geometry.window[0] * kernel.geometry.window[1] > _TAPS:
                return "depthwise wide"
            strided = kind == "depthwise" and kernel.geometry.stride != (1, 1)
            return f"{kind} ragged" if channels % _LANES else f"{kind} strided" if strided else kind
        case "activation" | "norm" | "pool" | "resize" | "gather" | "unknown":
            return f"{kind} {main}"
        case "elementwise":
            broadcast = " broadcast" if kernel.reads < 1.5 * kernel.writes else ""
            return f"{kind}{f' {main}' if main in _DEAR else ''}{broadcast}"
        case "copy":
            return f"{kind} {main}" if main in _MOVED else kind
        case "reduce":
            return "reduce map" if kernel.geometry is not None and kernel.geometry.window != (1, 1) else "reduce rows"
    return kind


def work_of(kernel: Kernel, size: Geometry, channel_tile: int, row_tile: int) -> float:
    """MACs with output channels and rows padded to tiles, or elements: window by window where there is one."""
    if kernel.kind not in PRODUCTS:
        if kernel.kind == "pool":
            return kernel.writes * size.window[0] * size.window[1]
        return max(kernel.reads, kernel.writes)
    channels = size.out_channels // (size.groups if kernel.kind == "grouped" else 1)
    rows = size.out_size[0] * size.out_size[1] if size.window == (1, 1) else size.out_size[1]
    return kernel.macs * _padding(channels, channel_tile) * _padding(rows, row_tile)


def _padding(number: int, tile: int) -> float:
    """How many times as much there is when `number` is padded to a multiple of `tile`."""
    return ceil(number / tile) * tile / max(number, 1)


def terms_and_rows(kernel: Kernel, size: Geometry) -> tuple[float, float]:
    """Over how many terms one output sums, and how many outputs share a weight."""
    window = size.window[0] * size.window[1]
    rows = max(1, size.out_size[0] * size.out_size[1])
    if kernel.kind in ("softmax", "norm"):
        return max(1, size.in_channels), rows
    if kernel.kind in PRODUCTS:
        return max(1, size.in_channels // size.groups * window), rows
    return max(1, window), rows


# How many octaves of a size are one unit of distance, in the order of axes_of; the last says that channels fill no tile.
_OCTAVES = (1.5, 1.5, 1.5, 1.0, 0.7, 2.0)


def axes_of(size: Geometry) -> tuple[float, ...]:
    """A point for the sizes of a kernel: distances are what makes two of a class run differently."""
    sizes = (
        size.in_channels / size.groups, size.out_channels, size.out_size[0] * size.out_size[1],
        size.window[0] * size.window[1], size.stride[0] * size.stride[1], size.batch,
    )  # fmt: skip
    ragged = sum(0.5 for channels in (size.in_channels, size.out_channels) if channels % 8)
    return (*(round(log2(max(s, 1)) / unit, 4) for s, unit in zip(sizes, _OCTAVES, strict=True)), ragged)
