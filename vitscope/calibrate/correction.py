"""The smooth correction of a class: what its timed kernels say beyond the formula, where they say it together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import inf, log
from statistics import mean, median

from vitscope.calibrate.record import Timed
from vitscope.latency.class_cost import ClassCosts, Correction, Point, axes_of, class_of
from vitscope.latency.geometry import Geometry

# How alike two kernels one unit apart are, how much of a factor is theirs, and how noisy one is, in ln.
_LENGTHS, _SPREADS, _NOISES = (0.7, 1.0, 1.5, 2.5), (0.0, 0.05, 0.1, 0.2, 0.4), (0.02, 0.05, 0.1, 0.2)
_FEWEST = 6  # points that a correction is made of at the least
_SHARE = 0.4  # of a probe's time that its kernel must take, for the rest of the time to be told to it
_PART = 0.2  # of its kernel's time that a size must take, to be corrected by it
_LARGEST = 1.0  # of a factor in ln
_STRANGE = 5.0  # times the usual distance from what the other points say


def residuals(
    timed: Iterable[Timed], costs: ClassCosts, element_bytes: int
) -> dict[str, list[tuple[tuple[float, ...], float]]]:
    """Class → (axes of a timed kernel, ln of what it took by what the formula says), after all else in its probe."""
    found: dict[str, list[tuple[tuple[float, ...], float]]] = {}
    formula = replace(costs, corrections={})
    for each in timed:
        if each.seconds is None or each.is_block:
            continue
        name = class_of(each.wanted)
        own = others = 0.0
        sizes: dict[Geometry, float] = {}
        for kernel, count in Counter(each.kernels).items():
            seconds = count * (formula.kernel_s(kernel, element_bytes) or 0.0)
            if class_of(kernel) == name and kernel.geometry is not None:
                own += seconds
                sizes[kernel.geometry] = sizes.get(kernel.geometry, 0.0) + seconds
            else:
                others += seconds
        factors = []
        for time in each.times:
            rest = others + costs.floor_s + costs.cold_s(each.kernels, element_bytes, time.swept_bytes)
            if own > _SHARE * (own + rest) and time.seconds > rest:
                factors.append(max(-_LARGEST, min(_LARGEST, log((time.seconds - rest) / own))))
        if factors:
            main = [size for size, seconds in sizes.items() if seconds >= _PART * own]
            found.setdefault(name, []).extend((axes_of(size), mean(factors)) for size in main)
    return found


def corrections(points: dict[str, list[tuple[tuple[float, ...], float]]]) -> dict[str, Correction]:
    """Of each class that has enough points the length, spread and noise under which each is most likely given the others.

    A point far from what all others say of it was slowed by something else: the rest is fitted again without it.
    """
    made = {}
    for name, found in points.items():
        if len(found) < _FEWEST:
            continue
        _, errors = _smoothest(found)
        far = _STRANGE * max(_NOISES[0], median(map(abs, errors)))
        correction, _ = _smoothest([point for point, error in zip(found, errors, strict=True) if abs(error) <= far])
        if correction is not None:
            made[name] = correction
    return made


def _smoothest(points: list[tuple[tuple[float, ...], float]]) -> tuple[Correction | None, list[float]]:
    """The most likely correction of a class, None where that is none at all, and how far each point is from what the
    others say of it."""
    import numpy as np

    y = np.array([factor for _, factor in points])
    at = np.array([axes for axes, _ in points])
    squared = ((at[:, None] - at[None]) ** 2).sum(-1)
    best, made, errors = -inf, None, y
    for length, spread, noise in product(_LENGTHS, _SPREADS, _NOISES):
        alike = spread**2 * np.exp(-0.5 * squared / length**2)
        inverse = np.linalg.inv(alike + (noise**2 + 1e-6) * np.eye(len(y)))
        alpha, own = inverse @ y, np.diag(inverse)
        error, variance = alpha / own, 1 / own  # of each point, predicted from the others
        likelihood = -float((0.5 * error**2 / variance + 0.5 * np.log(variance)).sum())
        if likelihood > best:
            best, errors = likelihood, error
            weights = spread**2 * alpha
            made = Correction(
                length, tuple(Point(axes, float(w)) for (axes, _), w in zip(points, weights, strict=True))
            ) if spread else None  # fmt: skip
    return made, errors.tolist()
