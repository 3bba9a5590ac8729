"""ClassCosts: what a kernel costs by its class and sizes, as a calibration measured it: the formula, and its correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, log2
from typing import TYPE_CHECKING

from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel

if TYPE_CHECKING:
    import numpy as np

# Classes whose work is multiply-accumulates; of all others it is elements.
PRODUCTS = frozenset({"conv", "grouped", "depthwise", "pointwise", "linear", "matmul"})
FUSED = "fused "  # before the name of an operation that runs while a kernel writes


@dataclass(frozen=True, slots=True)
class ClassCost:
    """The four numbers of a class of kernels.

    A kernel starts in `start_s`, and does its work at `work_s` for each MAC (or element, where it has no MACs) as far as
    it is wide: with half as many terms in a sum as `few_terms`, or half as many rows or positions as `few_rows`, each
    costs three times that.
    """

    start_s: float
    work_s: float
    few_terms: float = 0.0
    few_rows: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Seconds per byte by how much a kernel touches: `near_byte_s` while that is much less than `knee_bytes`, and
    `far_byte_s` when it is much more. Every inference reads all weights of a network once more: when they are much more
    than `lost_bytes` together the caches hold none of them by then, and each byte takes `cold_byte_s` longer."""

    near_byte_s: float
    far_byte_s: float
    knee_bytes: float
    cold_byte_s: float
    lost_bytes: float

    def byte_s(self, touched_bytes: float) -> float:
        far = touched_bytes / (touched_bytes + self.knee_bytes) if touched_bytes else 0.0
        return self.near_byte_s + (self.far_byte_s - self.near_byte_s) * far

    def weight_byte_s(self, weight_bytes: float) -> float:
        """What a byte of weights takes longer in a network that has `weight_bytes` of them."""
        return self.cold_byte_s * weight_bytes**2 / (weight_bytes**2 + self.lost_bytes**2)


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
    """Costs of every class that was timed. `tile` is what output channels are padded to.

    `scale` and `more_s` are what whole networks, where some were timed too, said of every kernel: it takes `scale` as long
    among others as alone, and `more_s` longer.
    """

    floor_s: float
    tile: int
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
        """Seconds of `kernel` in a network of few weights; None for one of a class that was never timed, or whose sizes
        are not known. What more weights cost is `cold_s` of all together."""
        parts = self.parts(kernel, element_bytes)
        if parts is None:
            return None
        start, compute, traffic = parts
        seconds = start + max(compute, traffic)
        correction = self.corrections.get(class_of(kernel))
        if correction is not None and kernel.geometry is not None:
            seconds *= exp(correction.log_factor(axes_of(kernel.geometry)))
        return max(0.0, seconds * self.scale + self.more_s)

    def cold_s(self, weight_bytes: float) -> float:
        """Seconds that the weights of a network take because the caches do not hold them from the last inference."""
        return weight_bytes * self.memory.weight_byte_s(weight_bytes)

    def parts(self, kernel: Kernel, element_bytes: int) -> tuple[float, float, float] | None:
        """(start, compute, traffic) in seconds by the formula alone."""
        cost, size = self.classes.get(class_of(kernel)), kernel.geometry
        if cost is None or size is None:
            return None
        terms, rows = terms_and_rows(kernel, size)
        compute = cost.work_s * work_of(kernel, size, self.tile)
        compute *= (1 + cost.few_terms / terms) * (1 + cost.few_rows / rows)
        for name in kernel.epilogue:
            fused = self.classes.get(FUSED + name)
            if fused is not None:
                compute += fused.work_s * kernel.writes
        return cost.start_s, compute, self.moving_s(kernel, element_bytes)


# Of elementwise operations and copies, those that cost otherwise than one addition, or one copy, of the same size.
_DEAR = frozenset({"div", "sqrt", "rsqrt", "pow", "exp", "log", "reciprocal"})
_MOVED = frozenset({"reorder", "permute", "transpose", "roll"})


def class_of(kernel: Kernel) -> str:
    """What is priced together: products by their kind, activations and norms by their operation, and of all else what
    reads alike: two maps, or one map and little beside it; memory in order, or not."""
    kind, main = kernel.kind, kernel.main.rstrip("_")
    match kind:
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


def work_of(kernel: Kernel, size: Geometry, tile: int) -> float:
    """MACs with the output channels padded to `tile`, or elements: window by window where there is one."""
    if kernel.kind not in PRODUCTS:
        if kernel.kind == "pool":
            return kernel.writes * size.window[0] * size.window[1]
        return max(kernel.reads, kernel.writes)
    channels = size.out_channels if kernel.kind != "grouped" else size.out_channels / size.groups
    return kernel.macs * ceil(channels / tile) * tile / channels


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
