"""Fit ClassCosts to timed probes: the formula of every class at once, then a smooth correction where it is seen to help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import median
from typing import TYPE_CHECKING

from vitscope.calibrate.record import HeldOut, Timed
from vitscope.latency.class_cost import (
    FUSED,
    PRODUCTS,
    ClassCost,
    ClassCosts,
    Correction,
    Memory,
    Point,
    axes_of,
    class_of,
    terms_and_rows,
    work_of,
)  # fmt: skip
from vitscope.latency.kernels import Kernel
from vitscope.latency.least_squares import minimise, soft_l1

if TYPE_CHECKING:
    import numpy as np

TILES = (1, 4, 8, 16)  # what output channels may be padded to; the one that fits best is taken
_ROBUST = 0.1  # residuals in ln beyond this weigh less: a probe that something slowed, an algorithm of its own

# Priors as (value, how far in ln one may be from it). Wide: the probes decide, and these only what no probe says.
_PRIORS = {
    "start": (2e-6, 1.0),
    "product": (1 / 60e9, 1.0),
    "depthwise": (1 / 30e9, 1.0),
    "element": (1 / 2e9, 1.5),
    "fused": (1 / 8e9, 1.5),
    "few_terms": (8.0, 1.5),
    "few_rows": (8.0, 1.5),
    "near": (1 / 40e9, 0.7),
    "far": (1 / 10e9, 0.7),
    "knee": (1e6, 1.0),
    "cold": (1 / 20e9, 0.7),
    "lost": (10e6, 1.0),
}
_MEMORY = ("near", "far", "knee", "cold", "lost")  # in the order of Memory's fields
_FLOOR_SD = 0.05

# Of the correction: how alike two kernels one unit apart are, how much of a factor is theirs, and how noisy one is, in ln.
_LENGTHS, _SPREADS, _NOISES = (0.7, 1.0, 1.5, 2.5), (0.08, 0.15, 0.3), (0.02, 0.05, 0.1)
_FEWEST = 6  # points that a correction is made of at the least
_SHARE = 0.4  # of a probe's time that its kernel must take, for the rest of the time to be told to it
_LARGEST = 1.0  # of a factor in ln
_STRANGE = 5.0  # times the usual distance from what the other points say


@dataclass(frozen=True)
class _Rows:
    """The kernels of all probes as arrays: one row for each distinct kernel of each probe."""

    probe: np.ndarray
    count: np.ndarray
    kind: np.ndarray  # index of its class
    work: np.ndarray
    terms: np.ndarray
    rows: np.ndarray
    touched: np.ndarray
    weights: np.ndarray  # bytes
    fused: np.ndarray  # elements written × which fused operations, as a matrix (rows, fused classes)


def fit(
    timed: Sequence[Timed], floor_s: float, element_bytes: int, *, corrected: Collection[str] | None = None
) -> ClassCosts:
    """The costs that explain `timed`, in relative error. `corrected` are the classes that get a correction (all: None).

    Probes that were refused say nothing. `floor_s` is what an empty network takes.
    """
    known = [each for each in timed if each.seconds is not None]
    classes = sorted({class_of(kernel) for each in known for kernel in each.kernels if kernel.geometry is not None})
    fused = sorted({name for each in known for kernel in each.kernels for name in kernel.epilogue})
    best = None
    for tile in TILES:
        rows = _rows(known, classes, fused, tile, element_bytes)
        squares, costs = _fit_formula(known, rows, classes, fused, tile, floor_s)
        if best is None or squares < best[0]:
            best = squares, costs
    assert best is not None
    costs = best[1]
    wanted = {class_of(each.wanted) for each in known} if corrected is None else set(corrected)
    points = {name: found for name, found in residuals(known, costs, element_bytes).items() if name in wanted}
    return replace(costs, corrections=_corrections(points))


def _rows(timed: Sequence[Timed], classes: Sequence[str], fused: Sequence[str], tile: int, element_bytes: int) -> _Rows:
    import numpy as np

    flat: list[tuple[int, int, Kernel]] = []
    for index, each in enumerate(timed):
        flat += [(index, count, kernel) for kernel, count in Counter(each.kernels).items() if kernel.geometry]
    number = {name: index for index, name in enumerate(classes)}
    both = [terms_and_rows(k, k.geometry) for *_, k in flat if k.geometry]
    ends = np.zeros((len(flat), len(fused)))
    for row, (*_, kernel) in enumerate(flat):
        for name in kernel.epilogue:
            ends[row, fused.index(name)] += kernel.writes
    return _Rows(
        probe=np.array([index for index, *_ in flat]),
        count=np.array([float(count) for _, count, _ in flat]),
        kind=np.array([number[class_of(k)] for *_, k in flat]),
        work=np.array([float(work_of(k, k.geometry, tile)) for *_, k in flat if k.geometry]),
        terms=np.array([float(terms) for terms, _ in both]),
        rows=np.array([float(rows) for _, rows in both]),
        touched=np.array([float(element_bytes * (k.reads + k.writes + k.weights)) for *_, k in flat]),
        weights=np.array([float(element_bytes * k.weights) for *_, k in flat]),
        fused=ends,
    )


def _fit_formula(
    timed: Sequence[Timed], rows: _Rows, classes: Sequence[str], fused: Sequence[str], tile: int, floor_s: float
) -> tuple[float, ClassCosts]:
    """The sum of squares, and the costs without a correction. All parameters are fitted in ln, so that none is negative."""
    import numpy as np

    n, f = len(classes), len(fused)
    product = np.array([name in PRODUCTS for name in classes])
    rowed = np.array([name in PRODUCTS or name.startswith(("softmax", "norm")) for name in classes])
    work = [
        _PRIORS["depthwise" if name == "depthwise" else "product" if name in PRODUCTS else "element"]
        for name in classes
    ]
    prior = np.log([
        *[_PRIORS["start"][0]] * n, *[value for value, _ in work], *[_PRIORS["few_terms"][0]] * n,
        *[_PRIORS["few_rows"][0]] * n, *[_PRIORS["fused"][0]] * f, *(_PRIORS[name][0] for name in _MEMORY), floor_s,
    ])  # fmt: skip
    sd = np.array([
        *[_PRIORS["start"][1]] * n, *[sd for _, sd in work], *[_PRIORS["few_terms"][1]] * n,
        *[_PRIORS["few_rows"][1]] * n, *[_PRIORS["fused"][1]] * f, *(_PRIORS[name][1] for name in _MEMORY), _FLOOR_SD,
    ])  # fmt: skip
    log_s = np.log([each.seconds for each in timed if each.seconds is not None])
    index = np.arange(len(rows.probe))
    weights = np.bincount(rows.probe, rows.count * rows.weights, minlength=len(timed))
    has_terms, has_rows = rowed[rows.kind].astype(float), product[rows.kind].astype(float)

    def problem(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = np.exp(x)
        start, per, terms, few = value[:n], value[n : 2 * n], value[2 * n : 3 * n], value[3 * n : 4 * n]
        ends, (near, far, knee, cold, lost, floor) = value[4 * n : 4 * n + f], value[4 * n + f :]
        by_terms = has_terms * terms[rows.kind] / rows.terms
        by_rows = has_rows * few[rows.kind] / rows.rows
        main = per[rows.kind] * rows.work
        compute = main * (1 + by_terms) * (1 + by_rows)
        epilogue = rows.fused * ends
        whole = compute + epilogue.sum(1)
        far_share = rows.touched / (rows.touched + knee)
        traffic = rows.touched * (near + (far - near) * far_share)
        bound = whole >= traffic
        seconds = rows.count * (start[rows.kind] + np.maximum(whole, traffic))
        is_lost = weights**2 / (weights**2 + lost**2)
        missed = weights * cold * is_lost
        total = floor + np.bincount(rows.probe, seconds, minlength=len(timed)) + missed
        slopes = np.zeros((len(index), len(x)))
        slopes[index, rows.kind] = start[rows.kind]
        slopes[index, n + rows.kind] = np.where(bound, compute, 0)
        slopes[index, 2 * n + rows.kind] = np.where(bound, main * by_terms * (1 + by_rows), 0)
        slopes[index, 3 * n + rows.kind] = np.where(bound, main * (1 + by_terms) * by_rows, 0)
        slopes[:, 4 * n : 4 * n + f] = np.where(bound[:, None], epilogue, 0)
        slopes[:, -6] = np.where(bound, 0, rows.touched * near * (1 - far_share))
        slopes[:, -5] = np.where(bound, 0, rows.touched * far * far_share)
        slopes[:, -4] = np.where(bound, 0, -rows.touched * (far - near) * far_share * (1 - far_share))
        slopes *= rows.count[:, None]
        jacobian = np.zeros((len(timed), len(x)))
        np.add.at(jacobian, rows.probe, slopes)
        jacobian[:, -3] = missed
        jacobian[:, -2] = -2 * missed * (1 - is_lost)
        jacobian[:, -1] = floor
        residual, slope = soft_l1((np.log(total) - log_s) / _ROBUST)
        jacobian *= (slope / total / _ROBUST)[:, None]
        return np.concatenate([residual, (x - prior) / sd]), np.concatenate([jacobian, np.diag(1 / sd)])

    squares, x = minimise(problem, prior)
    value = [float(v) for v in np.exp(x)]
    made = {
        name: ClassCost(
            start_s=value[i], work_s=value[n + i], few_terms=value[2 * n + i] if rowed[i] else 0.0,
            few_rows=value[3 * n + i] if product[i] else 0.0,
        )
        for i, name in enumerate(classes)
    }  # fmt: skip
    made |= {FUSED + name: ClassCost(start_s=0.0, work_s=value[4 * n + i]) for i, name in enumerate(fused)}
    *memory, floor = value[4 * n + f :]
    return squares, ClassCosts(floor, tile, Memory(*memory), made, {})


def total_s(costs: ClassCosts, kernels: Sequence[Kernel], element_bytes: int) -> float | None:
    """Seconds of a network of `kernels`; None where one of them is of a class that was never timed."""
    total = costs.floor_s
    for kernel, count in Counter(kernels).items():
        seconds = costs.kernel_s(kernel, element_bytes)
        if seconds is None:
            return None
        total += count * seconds
    return total + costs.cold_s(_weight_bytes(kernels, element_bytes))


def _weight_bytes(kernels: Iterable[Kernel], element_bytes: int) -> int:
    return element_bytes * sum(kernel.weights for kernel in kernels)


def residuals(
    timed: Iterable[Timed], costs: ClassCosts, element_bytes: int
) -> dict[str, list[tuple[tuple[float, ...], float]]]:
    """Class → (axes of a timed kernel, ln of what it took by what the formula says), after all else in its probe."""
    found: dict[str, list[tuple[tuple[float, ...], float]]] = {}
    formula = replace(costs, corrections={})
    for each in timed:
        if each.seconds is None:
            continue
        name = class_of(each.wanted)
        own = others = 0.0
        sizes = set()
        for kernel, count in Counter(each.kernels).items():
            seconds = count * (formula.kernel_s(kernel, element_bytes) or 0.0)
            if class_of(kernel) == name and kernel.geometry is not None:
                own += seconds
                sizes.add(kernel.geometry)
            else:
                others += seconds
        others += costs.floor_s + costs.cold_s(_weight_bytes(each.kernels, element_bytes))
        left = each.seconds - others
        if own > _SHARE * (own + others) and left > 0:
            factor = max(-_LARGEST, min(_LARGEST, log(left / own)))
            found.setdefault(name, []).extend((axes_of(size), factor) for size in sizes)
    return found


def _corrections(points: dict[str, list[tuple[tuple[float, ...], float]]]) -> dict[str, Correction]:
    """One length, spread and noise for all classes, those under which each point is most likely given the others.

    A point far from what all others say of it was slowed by something else: the rest is fitted again without it.
    """
    usable = {name: found for name, found in points.items() if len(found) >= _FEWEST}
    if not usable:
        return {}
    _, errors = _smoothest(usable)
    rest = {}
    for name, found in usable.items():
        far = _STRANGE * max(_NOISES[0], median(abs(error) for error in errors[name]))
        rest[name] = [point for point, error in zip(found, errors[name], strict=True) if abs(error) <= far]
    return _smoothest(rest)[0]


def _smoothest(
    points: dict[str, list[tuple[tuple[float, ...], float]]],
) -> tuple[dict[str, Correction], dict[str, list[float]]]:
    """The most likely correction of each class, and how far each point is from what the others say of it."""
    import numpy as np

    values = {name: np.array([factor for _, factor in found]) for name, found in points.items()}
    squared = {}
    for name, found in points.items():
        at = np.array([axes for axes, _ in found])
        squared[name] = ((at[:, None] - at[None]) ** 2).sum(-1)
    best = None
    for length in _LENGTHS:
        for spread in _SPREADS:
            for noise in _NOISES:
                likelihood, weights, errors = 0.0, {}, {}
                for name, y in values.items():
                    alike = spread**2 * np.exp(-0.5 * squared[name] / length**2)
                    inverse = np.linalg.inv(alike + (noise**2 + 1e-6) * np.eye(len(y)))
                    alpha, own = inverse @ y, np.diag(inverse)
                    error, variance = alpha / own, 1 / own  # of each point, predicted from the others
                    likelihood -= float((0.5 * error**2 / variance + 0.5 * np.log(variance)).sum())
                    weights[name], errors[name] = spread**2 * alpha, error.tolist()
                if best is None or likelihood > best[0]:
                    best = likelihood, length, weights, errors
    assert best is not None
    _, length, weights, errors = best
    made = {
        name: Correction(
            length, tuple(Point(axes, float(w)) for (axes, _), w in zip(found, weights[name], strict=True))
        )
        for name, found in points.items()
    }
    return made, errors


def leave_families_out(
    timed: Sequence[Timed],
    families: Callable[[Kernel], Collection[str]],
    floor_s: float,
    element_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[HeldOut]:
    """Every probe, for every family that asks for its kernel, predicted without all probes whose kernel that family has."""
    known = [each for each in timed if each.seconds is not None]
    of = [frozenset(families(each.wanted)) for each in known]
    names = sorted(set().union(*of)) if of else []
    found = []
    for number, family in enumerate(names):
        if on_progress is not None:
            on_progress(number, len(names))
        rest = [each for each, whose in zip(known, of, strict=True) if family not in whose]
        if not rest:
            continue
        costs = fit(rest, floor_s, element_bytes)
        formula = replace(costs, corrections={})
        for each, whose in zip(known, of, strict=True):
            if family in whose:
                found.append(
                    HeldOut(
                        each, family, total_s(formula, each.kernels, element_bytes),
                        total_s(costs, each.kernels, element_bytes),
                    )
                )  # fmt: skip
    return found


def worth_correcting(held_out: Iterable[HeldOut]) -> frozenset[str]:
    """The classes whose correction brought kernels of unseen families nearer, in mean absolute ln."""
    plain: dict[str, list[float]] = {}
    better: dict[str, list[float]] = {}
    for each in held_out:
        if each.formula_s and each.corrected_s and each.timed.seconds:
            name = class_of(each.timed.wanted)
            plain.setdefault(name, []).append(abs(log(each.formula_s / each.timed.seconds)))
            better.setdefault(name, []).append(abs(log(each.corrected_s / each.timed.seconds)))
    return frozenset(name for name, errors in plain.items() if sum(better[name]) < sum(errors))


def factor_of(costs: ClassCosts, kernel: Kernel) -> float:
    """What the correction multiplies the formula by."""
    correction = costs.corrections.get(class_of(kernel))
    if correction is None or kernel.geometry is None:
        return 1.0
    return exp(correction.log_factor(axes_of(kernel.geometry)))
