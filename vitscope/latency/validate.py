"""How wrong the predictor is on families it has not seen: nested leave-one-family-out, baselines, and the noise of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from vitscope.errors import UsageError
from vitscope.latency.device import Device
from vitscope.latency.fit import THREE_TERM, Candidate, Design, Features, Fit, candidates, design, fit, predicted_s
from vitscope.latency.kernels import Kernel
from vitscope.latency.score import INTERVAL, HeldOutNetwork, Score, conformal, score
from vitscope.latency.table import Table

if TYPE_CHECKING:
    import numpy as np

BANDS = (300 * 300, 512 * 512, 1184 * 2368)  # input pixels: what papers classify at, what detectors take, street scenes
BANDED = 10  # networks that a band needs for an error of its own
OWN_FOLDS = 14  # up to so many families each is held out alone; of more, FOLDS groups of families are
FOLDS = 10


@dataclass(frozen=True, slots=True)
class Noise:
    """Disagreement of harnesses about one network, in shares of the latency.

    `raw` is the mean distance of one row from the mean of its network, `corrected` the same with the offset of each
    harness taken out: no predictor of the mean can be nearer to a single row. Both are None where `networks`, those
    that were measured more than once, is 0.
    """

    networks: int
    raw: float | None
    corrected: float | None


@dataclass(frozen=True, slots=True)
class Differences:
    """Judging which of two held-out networks is faster: the shipped factor, and how it does on all pairs.

    `called` is the share of pairs that it calls different, `right` the share of these whose order is as measured.
    """

    factor: float
    pairs: int
    called: float
    right: float


@dataclass(frozen=True)
class Report:
    """All that a validation found, and the fit on everything that it led to.

    `random` are the same networks with a tenth of them left out at a time, whatever their family, in the form of
    `fitted`: what a random split would claim.
    """

    data: Design
    fitted: Fit
    bands: tuple[int, ...]
    folds: int
    held_out: tuple[HeldOutNetwork, ...]
    random: tuple[HeldOutNetwork, ...]
    baselines: tuple[tuple[str, Score], ...]
    noise: Noise
    differences: Differences


def validate(
    table: Table,
    device: Device,
    forms: Sequence[Candidate] = (),
    say: Callable[[str], None] | None = None,
) -> Report:
    """Leave each family out, choose the form among `forms` on the others, predict it; then fit on everything.

    Without `forms` those of `device` are tried. Raises UsageError when the table holds fewer than three families.
    """
    data = design(table, device)
    families = sorted(set(data.lineages))
    if len(families) < 3:
        raise UsageError(f"the table holds {len(families)} families; leave-one-family-out needs at least 3")
    forms = forms or candidates(device, len(data.networks))
    folds = _Folds(data, forms)
    held: list[HeldOutNetwork] = []
    for fold in folds.names:
        chosen = folds.best(fold)
        if say:
            say(f"{folds.members(fold)}: {forms[chosen].label}")
        predicted, fitted = folds.without(chosen, fold)
        held += _held_out(data, predicted, fitted, folds.fold == fold)
    final = folds.without(folds.best(None))[1]
    bands = bands_of(data)
    small = Table(tuple(row for row in table.rows if row.network.pixels <= bands[0]), table.kernels)
    parts = [(f"up to {bands[0]:,} pixels", small), ("all", table)] if len(bands) > 1 else [("all", table)]
    baselines = [
        (f"{name}, {where}", value)
        for where, part in parts
        if len({row.lineage for row in part.rows if not row.sign}) > 1
        for name, value in baseline_scores(part, device)
    ]
    return Report(
        data=data, fitted=final, bands=bands, folds=len(folds.names), held_out=tuple(held),
        random=_random_split(data, final.candidate), baselines=tuple(baselines), noise=_noise(data, final),
        differences=_differences(table, device, final, held, bands),
    )  # fmt: skip


def bands_of(data: Design) -> tuple[int, ...]:
    """The upper ends, in pixels, of the bands of input sizes that have an error of their own: at least BANDED networks."""
    pixels = [network.pixels for network in data.networks]
    edges = [edge for edge in BANDS if edge < max(pixels)]
    edges.append(next((edge for edge in BANDS if edge >= max(pixels)), max(pixels)))
    while len(edges) > 1:
        lows = [0, *edges[:-1]]
        counts = [sum(low < p <= high for p in pixels) for low, high in zip(lows, edges, strict=True)]
        scarce = next((i for i, n in enumerate(counts) if n < BANDED), None)
        if scarce is None:
            break
        del edges[min(scarce, len(edges) - 2)]  # joins the band above, the last the band below
    return tuple(edges)


def in_band(rows: Sequence[HeldOutNetwork], bands: Sequence[int], index: int) -> list[HeldOutNetwork]:
    """The networks of one band of input pixels."""
    low = 0 if index == 0 else bands[index - 1]
    return [row for row in rows if low < row.network.pixels <= bands[index]]


class _Folds:
    """Fits of every form without one fold or two, each done once: without (a, b) serves both as outer fold.

    A fold is a family, or where there are many a group of families. Groups are made by size alone, the largest family
    first into the smallest group, so that nobody's errors have a say.
    """

    def __init__(self, data: Design, forms: Sequence[Candidate]):
        import numpy as np

        self.data = data
        self.features = [Features(data, candidate) for candidate in forms]
        count = Counter(data.lineages)
        self._of = {family: family for family in count}
        if len(count) > OWN_FOLDS:
            sizes = [0] * FOLDS
            for family in sorted(count, key=lambda f: (-count[f], f)):
                smallest = sizes.index(min(sizes))
                self._of[family] = f"fold {smallest}"
                sizes[smallest] += count[family]
        self.fold = np.array([self._of[family] for family in data.lineages])
        self.names = sorted(set(self._of.values()))
        self._known: dict[tuple[int, frozenset[str]], tuple[np.ndarray, Fit]] = {}

    def members(self, fold: str) -> str:
        return ", ".join(sorted(family for family, of in self._of.items() if of == fold))

    def without(self, candidate: int, *folds: str) -> tuple[np.ndarray, Fit]:
        """Predictions for all networks by a fit that has not seen `folds`, and the fit."""
        import numpy as np

        key = (candidate, frozenset(folds))
        if key not in self._known:
            fitted = fit(self.features[candidate], ~np.isin(self.fold, folds))
            self._known[key] = predicted_s(self.features[candidate], fitted), fitted
        return self._known[key]

    def errors(self, candidate: int, outside: str | None) -> np.ndarray:
        """Distances in ln over folds other than `outside`, each predicted without itself and without `outside`."""
        import numpy as np

        errors = []
        for fold in self.names:
            if fold == outside:
                continue
            left_out = (fold,) if outside is None else (fold, outside)
            predicted, fitted = self.without(candidate, *left_out)
            here = self.fold == fold
            errors.append(np.abs(np.log(predicted / _consensus(self.data, fitted)))[here])
        return np.concatenate(errors)

    def best(self, outside: str | None) -> int:
        """The first, and so simplest, form that is not worse than the best by more than the standard error of the difference.

        Knows nothing of `outside`. In a small table the least error among many forms is often luck.
        """
        errors = [self.errors(i, outside) for i in range(len(self.features))]
        least = min(errors, key=lambda e: float(e.mean()))
        excess = [e - least for e in errors]
        return next(i for i, e in enumerate(excess) if e.mean() <= e.std() / len(e) ** 0.5)


def _held_out(data: Design, predicted: np.ndarray, fitted: Fit, mask: np.ndarray) -> list[HeldOutNetwork]:
    import numpy as np

    measured = _consensus(data, fitted)
    return [
        HeldOutNetwork(
            data.networks[i], data.lineages[i], float(predicted[i]), float(measured[i]), fitted.candidate.label
        )
        for i in np.flatnonzero(mask)
    ]


def _random_split(data: Design, form: Candidate) -> tuple[HeldOutNetwork, ...]:
    import numpy as np

    features = Features(data, form)
    part = np.random.default_rng(0).permutation(len(data.networks)) % 10
    held: list[HeldOutNetwork] = []
    for k in range(10):
        fitted = fit(features, part != k)
        held += _held_out(data, predicted_s(features, fitted), fitted, part == k)
    return tuple(held)


def _consensus(data: Design, fitted: Fit) -> np.ndarray:
    """Seconds of every network in the reference harness: the geometric mean of its rows, offsets taken out."""
    import numpy as np

    offset = np.array([fitted.offsets[name] for name in data.harnesses])
    total = np.bincount(data.observed, data.log_s - offset[data.harness], len(data.networks))
    return np.exp(total / np.bincount(data.observed, minlength=len(data.networks)))


def _noise(data: Design, fitted: Fit) -> Noise:
    import numpy as np

    counts = np.bincount(data.observed)
    repeated = counts[data.observed] > 1
    if not repeated.any():
        return Noise(0, None, None)
    offset = np.array([fitted.offsets[name] for name in data.harnesses])

    def spread(values: np.ndarray) -> float:
        mean = np.bincount(data.observed, values) / counts
        # n rows around their own mean look closer than they are by sqrt((n - 1) / n)
        distance = np.abs(values - mean[data.observed])[repeated]
        n = counts[data.observed][repeated]
        return float((distance * np.sqrt(n / (n - 1))).mean())

    return Noise(int((counts > 1).sum()), spread(data.log_s), spread(data.log_s - offset[data.harness]))


def baseline_scores(table: Table, device: Device) -> list[tuple[str, Score]]:
    """What simpler predictors reach on the families of `table`, fitted on them alone; their form is given, not chosen."""
    import numpy as np

    data = design(table, device)
    folds = _Folds(data, (THREE_TERM,))
    totals = Features(data, Candidate(("weights", "macs"))).totals
    weights, macs = totals[:, 1], totals[:, 2]
    # What was measured depends on the offsets of the harnesses, and these only on the families that the fold has seen.
    seen = {fold: _consensus(data, folds.without(0, fold)[1]) for fold in folds.names}
    measured = np.array([seen[fold][i] for i, fold in enumerate(folds.fold)])

    def scored(predicted: np.ndarray) -> Score:
        rows = zip(data.networks, data.lineages, predicted, measured, strict=True)
        return score([HeldOutNetwork(n, family, float(p), float(m), "") for n, family, p, m in rows])

    def linear(*columns: np.ndarray) -> Score:
        matrix = np.stack([np.ones_like(weights), *columns], axis=1)
        predicted = np.zeros(len(measured))
        for fold in folds.names:
            train = folds.fold != fold
            relative = matrix[train] / seen[fold][train][:, None]
            solution = np.linalg.lstsq(relative, np.ones(len(relative)), rcond=None)[0]
            predicted[~train] = (matrix @ solution)[~train]
        return scored(np.maximum(predicted, 1e-6))

    three = np.array([folds.without(0, fold)[0][i] for i, fold in enumerate(folds.fold)])
    peak, bandwidth = device.fact("peak_macs_per_s"), device.fact("memory_bytes_per_s")
    assert peak and bandwidth
    return [
        ("constant", linear()),
        ("MACs linear", linear(macs)),
        ("parameters linear", linear(weights)),
        ("floor + weights + activations", scored(three)),
        ("roofline, not fitted", scored(np.maximum(macs / peak, weights / bandwidth))),
    ]


def _differences(
    table: Table, device: Device, final: Fit, held: Sequence[HeldOutNetwork], bands: Sequence[int]
) -> Differences:
    """How far the difference of two held-out networks is wrong, per second of kernels that they do not share.

    Networks of one band are paired. The factor is the larger of those for pairs of one family and of two.
    """
    from vitscope.latency.fit import coefficients
    from vitscope.latency.predict import coefficients_cost

    c = coefficients(final)

    def seconds(kernel: Kernel) -> float:
        cost = coefficients_cost(c, device.bytes_per_element, kernel)
        return cost.traffic_s + cost.compute_s + cost.start_s

    priced = {kernel: seconds(kernel) for found in table.kernels.values() for _, kernel in found}
    kernels = {network: Counter({k: n for n, k in found}) for network, found in table.kernels.items()}
    pairs: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for band in range(len(bands)):
        for a, b in combinations(in_band(held, bands, band), 2):
            one, other = kernels[a.network], kernels[b.network]
            unshared = sum(n * priced[k] for only in (one - other, other - one) for k, n in only.items())
            if unshared > 0:
                found = b.predicted_s - a.predicted_s, b.measured_s - a.measured_s, unshared
                pairs[a.lineage == b.lineage].append(found)
    factor = max(conformal([abs(p - m) / u for p, m, u in found], INTERVAL) for found in pairs.values() if found)
    together = pairs[True] + pairs[False]
    called = [(p, m) for p, m, u in together if abs(p) > factor * u]
    right = sum((p > 0) == (m > 0) for p, m in called)
    return Differences(factor, len(together), len(called) / max(1, len(together)), right / max(1, len(called)))
