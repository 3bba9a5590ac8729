"""From numbers to axes: the unit an axis is read in, limits that hold whole bubbles, ticks and legend sizes that are round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vitscope.pareto import DENSE, Axis

_NEAR_ZERO = 0.25  # an axis begins at zero when its lowest value is within this share of its highest


@dataclass(frozen=True, slots=True)
class Scale:
    """What one step of the axis is in base units, and its name."""

    scale: float
    unit: str


def axis_unit(axis: Axis, values: Sequence[float]) -> Scale:
    """Seconds are read in ms up to ten seconds; counts and bytes in the SI step of their largest value."""
    largest = max((abs(value) for value in values), default=0.0)
    if axis.unit == "s":
        return Scale(1.0, "s") if largest >= 10 else Scale(1e-3, "ms")
    if axis.unit in ("count", "B"):
        base = "" if axis.unit == "count" else "B"
        for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if largest >= scale:
                return Scale(scale, prefix + base)
        return Scale(1.0, base)
    return Scale(1.0, axis.unit)


def axis_title(axis: Axis, scale: Scale, device: str | None, log: bool = False, *, dataset: str | None = None) -> str:
    """`Latency on iPhone 12 (ms, log scale)`: what, where when that is one device (or one dataset), and the unit."""
    place = device if axis.unit in ("s", "img/s") else dataset if axis.key in DENSE else None
    where = f" on {place}" if place else ""
    kind = ", ".join(filter(None, (scale.unit, "log scale" if log else "")))
    return f"{axis.title}{where}" + (f" ({kind})" if kind else "")


def limits(spans: Sequence[tuple[float, float]], length: float, log: bool) -> tuple[float, float]:
    """Ends of an axis of `length` points that keep every (value, margin in points) inside.

    A margin is a length on paper, and the value it covers depends on the ends: a few rounds settle that.
    """
    placed = [(math.log10(value) if log else value, margin) for value, margin in spans]
    low, high = min(v for v, _ in placed), max(v for v, _ in placed)
    if low == high:
        pad = 0.5 if log else max(abs(low) * 0.1, 1e-12)
        low, high = low - pad, high + pad
    for _ in range(30):
        step = (high - low) / length
        low, high = min(v - margin * step for v, margin in placed), max(v + margin * step for v, margin in placed)
        if high <= low:
            break
    if log:
        return 10**low, 10**high
    nearest = min(v for v, _ in placed)
    if low >= 0 and nearest < _NEAR_ZERO * high:
        # Nothing is lost by beginning at zero, lengths compare, and the fastest models get room for their names.
        return 0.0, max(v / (1 - margin / length) for v, margin in placed)
    return low, high


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between `low` and `high`: more of each decade the fewer decades there are."""
    decades = math.log10(high / low)
    steps: tuple[float, ...] = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8)
    if decades > 0.6:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 7, 8) if decades < 1.2 else (1, 2, 5) if decades < 3 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**e for e in exponents for step in steps if low <= step * 10.0**e <= high]


def legend_sizes(smallest: float, largest: float) -> list[float]:
    """Up to three round sizes for a legend, largest first, about a factor of four apart."""
    sizes: list[float] = []
    for wanted in (largest, largest / 4, largest / 16):
        size = _round_down(wanted)
        if size not in sizes and (not sizes or wanted >= smallest / 2):
            sizes.append(size)
    return sizes


def _round_down(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return max(step * decade for step in (1, 2, 5) if step * decade <= value * (1 + 1e-9))
