"""Fit ClassCosts to timed probes: the formula of every class at once, then a smooth correction where it is seen to help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from vitscope.calibrate.correction import corrections, residuals
from vitscope.calibrate.record import Timed
from vitscope.latency.class_cost import (
    FUSED,
    IMAGE,
    PRODUCTS,
    ClassCost,
    ClassCosts,
    Memory,
    beyond,
    class_of,
    fetched,
    footprint,
    parent_of,
    spilt,
    terms_and_rows,
    window_elements,
    work_of,
)  # fmt: skip
from vitscope.latency.kernels import Kernel
from vitscope.latency.least_squares import minimise, soft_l1

if TYPE_CHECKING:
    import numpy as np

TILES = (1, 4, 8, 16, 32)  # what output channels of a class may be padded to; the one that fits best is taken
ROW_TILES = (1, 4, 5, 6, 7, 8, 12, 14, 16)  # likewise rows, or columns of what has a window
_FEWEST_TILED = 12  # probes of a class, below which nothing is said of its tiles
_LIKE_POINTWISE = frozenset({"conv", "linear"})
_ROBUST = 0.1  # residuals in ln beyond this weigh less: an algorithm of its own, or what something slowed unseen
_SLOWED = 4.0  # times as far may a time be off beside which something else was seen to run

# Priors as (value, how far in ln one may be from it). Wide: the probes decide, and these only what no probe says.
_PRIORS = {
    "start": (2e-6, 1.0),
    "product": (1 / 60e9, 1.0),
    "depthwise": (1 / 30e9, 1.0),
    "transposed": (1 / 1e9, 2.0),
    "element": (1 / 2e9, 1.5),
    "fused": (1 / 40e9, 0.7),
    "few_terms": (8.0, 1.5),
    "few_rows": (8.0, 1.5),
    "near": (1 / 40e9, 0.7),
    "knee 1": (1e6, 0.7),
    "more 1": (1 / 40e9, 1.0),
    "knee 2": (1e7, 0.7),
    "more 2": (1 / 10e9, 1.0),
    "window": (4e4, 0.5),
    "window more": (0.3, 1.0),
    "cache": (1.5e7, 0.7),
    "cold call": (2e-5, 1.0),
    "cold start": (1e-6, 1.0),
    "cold": (1 / 20e9, 0.7),
    "spill": (1 / 100e9, 1.0),
    "spill product": (1 / 300e9, 1.0),
    "arena": (1 / 20e9, 0.7),
}
_WAITING = ("cold call", "cold start", "spill", "spill product", "arena")
_MEMORY = ("near", "knee 1", "more 1", "knee 2", "more 2", "window", "window more", "cache", *_WAITING)
_FLOOR_SD = 0.05
_START_SD = 0.4  # how far in ln the start of a class is from that of all: large kernels say little of it
_KIND_SD = 0.5  # how far in ln a class is from the one that it is a kind of, before its own probes say so


@dataclass(frozen=True)
class _Runs:
    """The times of all probes as arrays, one or more of each probe: of which, and what went through the caches."""

    probe: np.ndarray
    log_s: np.ndarray
    through: np.ndarray  # bytes from one inference to the next
    weights: np.ndarray  # bytes × of which class, as a matrix (runs, classes)
    waiting: np.ndarray  # what each of _WAITING is of: calls, kernels, bytes that they write, and bytes for activations
    unsure: np.ndarray  # how far in ln each may be off before it weighs less


@dataclass(frozen=True)
class _Rows:
    """The kernels of all probes as arrays: one row for each distinct kernel of each probe, probes in order."""

    kernels: tuple[Kernel, ...]
    probe: np.ndarray
    count: np.ndarray
    kind: np.ndarray  # index of its class
    work: np.ndarray
    terms: np.ndarray
    rows: np.ndarray
    touched: np.ndarray
    window: np.ndarray  # bytes that a position of a depthwise kernel reads
    runs: _Runs
    fused: np.ndarray  # elements written × which fused operations, as a matrix (rows, fused classes)


Tiles = Mapping[str, tuple[int, int]]


def fit(
    timed: Sequence[Timed], floor_s: float, element_bytes: int, *, corrected: Collection[str] | None = None
) -> ClassCosts:
    """The costs that explain `timed`, in relative error. `corrected` are the classes that get a correction (all: None).

    Probes that were refused say nothing, those that something slowed little, and of a correction nothing. `floor_s` is what an
    empty network takes.
    """
    known = [each for each in timed if each.seconds is not None and any(kernel.geometry for kernel in each.kernels)]
    problem = _Problem(known, floor_s, element_bytes)
    x, tiles = problem.solve(problem.start), dict[str, tuple[int, int]]()
    for _ in range(2):  # what the others cost shows once the tiles are about right
        tiles = problem.all_tiles(x)
        x = problem.solve(x, tiles)
    costs = problem.costs(x, tiles)
    wanted = {class_of(each.wanted) for each in known} if corrected is None else set(corrected)
    quiet = [each for each in known if not each.slowed]
    points = {name: found for name, found in residuals(quiet, costs, element_bytes).items() if name in wanted}
    return replace(costs, corrections=corrections(points))


class _Problem:
    """Least squares over the parameters of all classes, in ln, so that none is negative.

    In order: start, work, few_terms, few_rows and cold bytes of every class; each fused operation; the start that those of
    all classes are near; memory; floor.
    """

    def __init__(self, timed: Sequence[Timed], floor_s: float, element_bytes: int):
        import numpy as np

        kernels = [kernel for each in timed for kernel in each.kernels]
        self.classes = sorted({class_of(kernel) for kernel in kernels if kernel.geometry is not None})
        self.fused = sorted({name for kernel in kernels for name in kernel.epilogue})
        self.rows = _rows(timed, self.classes, self.fused, element_bytes)
        numbers = {name: index for index, name in enumerate(self.classes)}
        self.wanted = np.array([-1 if each.is_block else numbers[class_of(each.wanted)] for each in timed])
        self.is_product = np.array([name in PRODUCTS for name in self.classes])
        self.is_summed = np.array([name in PRODUCTS or name.startswith(("softmax", "norm")) for name in self.classes])
        work = [_work_prior(name) for name in self.classes]
        n = len(self.classes)
        names = ["start"] * n + work + ["few_terms"] * n + ["few_rows"] * n + ["cold"] * n
        names += ["fused"] * len(self.fused) + ["start", *_MEMORY]
        self.prior = np.log([*(_PRIORS[name][0] for name in names), floor_s])
        self.sd = np.array([*(_PRIORS[name][1] for name in names), _FLOOR_SD])
        # Rows whose product with the parameters lies near `prior`, as near as `sd`.
        self.links = np.eye(len(self.prior))
        for index, name in enumerate(self.classes):
            parent = parent_of(name, numbers)
            if parent is None:
                self.links[index, 5 * n + len(self.fused)] = -1
                self.prior[index], self.sd[index] = 0.0, _START_SD
            else:
                for i in range(5):
                    self.links[i * n + index, i * n + numbers[parent]] = -1
                    self.prior[i * n + index], self.sd[i * n + index] = 0.0, _KIND_SD
        self.start = np.linalg.solve(self.links, self.prior)
        self.links /= self.sd[:, None]
        self.prior /= self.sd

    def solve(self, start: np.ndarray, tiles: Tiles | None = None) -> np.ndarray:
        """The parameters that fit best, from `start`."""
        rows = self.rows if tiles is None else self._tiled(self.rows, tiles)
        return minimise(lambda x: self.residuals(x, rows), start)[1]

    def all_tiles(self, x: np.ndarray) -> dict[str, tuple[int, int]]:
        """What channels and rows of every class of products are padded to. What multiplies matrices like pointwise convolutions
        do has their channels' tile where too few of its own probes would say."""
        found = {name: self.best_tiles(name, x) for name in self.classes if name in PRODUCTS}
        for name in _LIKE_POINTWISE & found.keys():
            if self.is_little(name):
                found[name] = (found.get("pointwise", (1, 1))[0], 1)
        return found

    def is_little(self, name: str) -> bool:
        return int((self.wanted == self.classes.index(name)).sum()) < _FEWEST_TILED

    def best_tiles(self, name: str, x: np.ndarray) -> tuple[int, int]:
        """What channels and rows of a class are padded to, by its own probes, when all other parameters are those of `x`."""
        import numpy as np

        index, n = self.classes.index(name), len(self.classes)
        probes = np.flatnonzero(self.wanted == index)
        if self.is_little(name):
            return 1, 1
        own = self._of(probes)
        free = np.array([index, n + index, 2 * n + index, 3 * n + index])

        def squares(tiles: tuple[int, int]) -> float:
            rows = self._tiled(own, {name: tiles})

            def part(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                y = x.copy()
                y[free] = z
                residual, jacobian = self.residuals(y, rows)
                return residual, jacobian[:, free]

            return minimise(part, x[free], steps=30)[0]

        return min(product(TILES, ROW_TILES), key=squares)

    def _of(self, probes: np.ndarray) -> _Rows:
        """The rows of some probes, numbered anew."""
        import numpy as np

        rows, runs = self.rows, self.rows.runs
        chosen = np.flatnonzero(np.isin(rows.probe, probes))
        own = np.flatnonzero(np.isin(runs.probe, probes))
        runs = _Runs(
            np.searchsorted(probes, runs.probe[own]), runs.log_s[own], runs.through[own], runs.weights[own],
            runs.waiting[own], runs.unsure[own],
        )  # fmt: skip
        return _Rows(
            tuple(rows.kernels[i] for i in chosen), np.searchsorted(probes, rows.probe[chosen]), rows.count[chosen],
            rows.kind[chosen], rows.work[chosen], rows.terms[chosen], rows.rows[chosen], rows.touched[chosen],
            rows.window[chosen], runs, rows.fused[chosen],
        )  # fmt: skip

    def _tiled(self, rows: _Rows, tiles: Tiles) -> _Rows:
        """`rows` with the work of classes padded to their tiles."""
        import numpy as np

        work = [
            work_of(kernel, kernel.geometry, *tiles.get(class_of(kernel), (1, 1))) if kernel.geometry else 0.0
            for kernel in rows.kernels
        ]
        return replace(rows, work=np.array(work))

    def residuals(self, x: np.ndarray, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
        """Residuals of the times of `rows` and of the priors, and their derivatives by `x`."""
        import numpy as np

        n, f, runs, probes = len(self.classes), len(self.fused), rows.runs, rows.probe[-1] + 1
        value = np.exp(x)
        start, per, terms, few, cold = (value[i * n : (i + 1) * n] for i in range(5))
        at, last = 5 * n + f + 1, len(x) - 1
        waits_at = last - len(_WAITING)
        ends, waiting_s, floor = value[5 * n : 5 * n + f], value[waits_at:last], value[last]
        near, *farther, window, window_more, cache = value[at:waits_at]
        kind, index = rows.kind, np.arange(len(rows.probe))
        by_terms = self.is_summed[kind] * terms[kind] / rows.terms
        by_rows = self.is_product[kind] * few[kind] / rows.rows
        windows = spilt(rows.window, window)
        main = per[kind] * rows.work * (1 + window_more * windows)
        compute = main * (1 + by_terms) * (1 + by_rows)
        epilogue = rows.fused * ends
        whole = compute + epilogue.sum(1)
        shares = [beyond(rows.touched, knee) for knee in farther[::2]]
        levels = [rows.touched * more * share for more, share in zip(farther[1::2], shares, strict=True)]
        traffic = rows.touched * near
        bound = whole >= traffic
        seconds = rows.count * (start[kind] + np.maximum(whole, traffic) + sum(levels))
        lost = beyond(runs.through, cache)
        fetched = runs.weights * cold * lost[:, None]
        waits = runs.waiting * waiting_s * lost[:, None]
        waiting = fetched.sum(1) + waits.sum(1)
        total = floor + np.bincount(rows.probe, seconds, minlength=probes)[runs.probe] + waiting
        slopes = np.zeros((len(index), len(x)))
        slopes[index, kind] = start[kind]
        slopes[index, n + kind] = np.where(bound, compute, 0)
        slopes[index, 2 * n + kind] = np.where(bound, main * by_terms * (1 + by_rows), 0)
        slopes[index, 3 * n + kind] = np.where(bound, main * (1 + by_terms) * by_rows, 0)
        slopes[:, 5 * n : 5 * n + f] = np.where(bound[:, None], epilogue, 0)
        slopes[:, at] = np.where(bound, 0, traffic)
        for i, (level, share) in enumerate(zip(levels, shares, strict=True)):
            slopes[:, at + 1 + 2 * i] = -2 * level * (1 - share)
            slopes[:, at + 2 + 2 * i] = level
        more = compute * window_more * windows / (1 + window_more * windows)
        slopes[:, at + 6] = np.where(bound, more, 0)
        slopes[:, at + 5] = -8 * (1 - windows) * slopes[:, at + 6]
        slopes *= rows.count[:, None]
        jacobian = np.add.reduceat(slopes, np.searchsorted(rows.probe, np.arange(probes)))[runs.probe]
        jacobian[:, 4 * n : 5 * n] = fetched
        jacobian[:, waits_at - 1] = -2 * (1 - lost) * waiting
        jacobian[:, waits_at:last] = waits
        jacobian[:, last] = floor
        residual, slope = soft_l1((np.log(total) - runs.log_s) / runs.unsure)
        jacobian *= (slope / total / runs.unsure)[:, None]
        return (
            np.concatenate([residual, self.links @ x - self.prior]),
            np.concatenate([jacobian, self.links]),
        )

    def costs(self, x: np.ndarray, tiles: Tiles) -> ClassCosts:
        """The parameters as costs, without a correction."""
        import numpy as np

        n = len(self.classes)
        value = [float(v) for v in np.exp(x)]
        made = {}
        for i, name in enumerate(self.classes):
            channels, rows = tiles.get(name, (1, 1))
            made[name] = ClassCost(
                start_s=value[i], work_s=value[n + i], few_terms=value[2 * n + i] if self.is_summed[i] else 0.0,
                few_rows=value[3 * n + i] if self.is_product[i] else 0.0,
                cold_byte_s=value[4 * n + i] if self.is_product[i] or name == IMAGE else 0.0,
                channel_tile=channels, row_tile=rows,
            )  # fmt: skip
        made |= {FUSED + name: ClassCost(start_s=0.0, work_s=value[5 * n + i]) for i, name in enumerate(self.fused)}
        near, knee_1, more_1, knee_2, more_2, window, more, *beyond_caches, floor = value[5 * n + len(self.fused) + 1 :]
        memory = Memory(
            near, ((knee_1, more_1), (knee_2, more_2)), *beyond_caches, window_bytes=window, window_more=more
        )
        return ClassCosts(floor, memory, made, {})


def _work_prior(name: str) -> str:
    """Which of _PRIORS the seconds of each MAC or element of a class have."""
    if name.endswith("transposed"):
        return "transposed"
    return "depthwise" if name.startswith("depthwise") else "product" if name in PRODUCTS else "element"


def _runs(timed: Sequence[Timed], classes: Sequence[str], element_bytes: int) -> _Runs:
    import numpy as np

    weights = np.zeros((len(timed), len(classes)))
    for index, each in enumerate(timed):
        for kernel, count in Counter(each.kernels).items():
            if kernel.geometry and fetched(kernel):
                weights[index, classes.index(class_of(kernel))] += element_bytes * count * fetched(kernel)
    sizes = [footprint(each.kernels, element_bytes) for each in timed]
    by_products = [
        element_bytes * sum(kernel.writes for kernel in each.kernels if class_of(kernel) in PRODUCTS) for each in timed
    ]
    flat = [(index, time) for index, each in enumerate(timed) for time in each.times]
    return _Runs(
        probe=np.array([index for index, _ in flat]),
        log_s=np.log([time.seconds for _, time in flat]),
        through=np.array([
            float(sizes[i].weight_bytes + sizes[i].written_bytes + time.swept_bytes) for i, time in flat
        ]),
        weights=weights[[index for index, _ in flat]],
        waiting=np.array([
            (1.0, float(len(timed[i].kernels)), float(sizes[i].written_bytes - by_products[i]), float(by_products[i]),
             float(sizes[i].arena_bytes))
            for i, _ in flat
        ]),
        unsure=np.array([_ROBUST * (_SLOWED if timed[i].slowed else 1.0) for i, _ in flat]),
    )  # fmt: skip


def _rows(timed: Sequence[Timed], classes: Sequence[str], fused: Sequence[str], element_bytes: int) -> _Rows:
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
        kernels=tuple(kernel for *_, kernel in flat),
        probe=np.array([index for index, *_ in flat]),
        count=np.array([float(count) for _, count, _ in flat]),
        kind=np.array([number[class_of(k)] for *_, k in flat]),
        work=np.array([float(work_of(k, k.geometry, 1, 1)) for *_, k in flat if k.geometry]),
        terms=np.array([float(terms) for terms, _ in both]),
        rows=np.array([float(rows) for _, rows in both]),
        touched=np.array([float(element_bytes * (k.reads + k.writes + k.weights)) for *_, k in flat]),
        window=np.array([float(element_bytes * window_elements(k)) for *_, k in flat]),
        runs=_runs(timed, classes, element_bytes),
        fused=ends,
    )
