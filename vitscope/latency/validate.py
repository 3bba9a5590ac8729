"""How wrong the predictor is on families it has not seen: nested leave-one-family-out, baselines, and the noise of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log, sqrt
from typing import TYPE_CHECKING

from vitscope.latency.fit import (
    CANDIDATES,
    THREE_TERM,
    Candidate,
    Design,
    Features,
    Fit,
    design,
    fit,
    predicted_s,
)
from vitscope.latency.kernels import Kernel
from vitscope.latency.table import NetworkId, Table

if TYPE_CHECKING:
    import numpy as np

INTERVAL = 0.8  # nominal share of networks inside the shipped interval
BANDS = (300 * 300, 512 * 512)  # input pixels: what papers classify at, and what detectors take
UNFITTED = (5.5e12, 34.1e9)  # MACs and bytes per second of the roofline baseline: the facts of devices/iphone12.yaml
DECISION = 0.05  # pairs whose measured latencies differ by less are no decision


@dataclass(frozen=True, slots=True)
class HeldOutNetwork:
    """A network whose family the fit has not seen: `measured_s` has the offset of its harnesses taken out."""

    network: NetworkId
    lineage: str
    predicted_s: float
    measured_s: float
    candidate: str

    @property
    def log_error(self) -> float:
        return log(self.predicted_s / self.measured_s)


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of held-out predictions. Shares are of networks, `decisions` of pairs that differ by more than 5 %."""

    networks: int
    families: int
    mape: float
    median: float
    bias: float
    within_5: float
    within_10: float
    within_20: float
    spearman: float
    decisions: float
    family_decisions: float
    worst_family: str
    worst_mape: float


@dataclass(frozen=True, slots=True)
class Noise:
    """Disagreement of harnesses about one network, in shares of the latency.

    `raw` is the mean distance of one row from the mean of its network, `corrected` the same with the offset of each
    harness taken out: no predictor of the mean can be nearer to a single row.
    """

    networks: int
    raw: float
    corrected: float


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
    """All that a validation found, and the fit on everything that it led to."""

    data: Design
    fitted: Fit
    held_out: tuple[HeldOutNetwork, ...]
    baselines: tuple[tuple[str, Score], ...]
    noise: Noise
    differences: Differences


def validate(
    table: Table, candidates: Sequence[Candidate] = CANDIDATES, say: Callable[[str], None] | None = None
) -> Report:
    """Leave each family out, choose the form among `candidates` on the others, predict it; then fit on everything.

    Raises UsageError when the table holds fewer than three families.
    """
    import numpy as np

    from vitscope.errors import UsageError

    data = design(table)
    families = sorted(set(data.lineages))
    if len(families) < 3:
        raise UsageError(f"the table holds {len(families)} families; leave-one-family-out needs at least 3")
    lineage = np.array(data.lineages)
    folds = _Folds(data, candidates)
    held: list[HeldOutNetwork] = []
    for family in families:
        chosen = folds.best(family)
        if say:
            say(f"{family}: {candidates[chosen].label}")
        predicted, fitted = folds.without(chosen, family)
        measured = _consensus(data, fitted)
        held += [
            HeldOutNetwork(data.networks[i], family, float(predicted[i]), float(measured[i]), candidates[chosen].label)
            for i in np.flatnonzero(lineage == family)
        ]
    final = folds.without(folds.best(None))[1]
    small = Table(tuple(row for row in table.rows if row.network.resolution**2 <= BANDS[0]), table.kernels)
    baselines = [
        (f"{name}, {where}", value)
        for where, part in (("small inputs", small), ("all", table))
        for name, value in baseline_scores(part)
    ]
    return Report(data, final, tuple(held), tuple(baselines), _noise(data, final), _differences(table, final, held))


class _Folds:
    """Fits of every candidate without one family or two, each done once: without (a, b) serves both as outer fold."""

    def __init__(self, data: Design, candidates: Sequence[Candidate]):
        import numpy as np

        self.data = data
        self.features = [Features(data, candidate) for candidate in candidates]
        self.lineage = np.array(data.lineages)
        self.families = sorted(set(data.lineages))
        self._known: dict[tuple[int, frozenset[str]], tuple[np.ndarray, Fit]] = {}

    def without(self, candidate: int, *families: str) -> tuple[np.ndarray, Fit]:
        """Predictions for all networks by a fit that has not seen `families`, and the fit."""
        import numpy as np

        key = (candidate, frozenset(families))
        if key not in self._known:
            fitted = fit(self.features[candidate], ~np.isin(self.lineage, families))
            self._known[key] = predicted_s(self.features[candidate], fitted), fitted
        return self._known[key]

    def error(self, candidate: int, outside: str | None) -> float:
        """Mean distance in ln over families other than `outside`, each predicted without itself and without `outside`."""
        import numpy as np

        errors = []
        for family in self.families:
            if family == outside:
                continue
            left_out = (family,) if outside is None else (family, outside)
            predicted, fitted = self.without(candidate, *left_out)
            here = self.lineage == family
            errors.append(np.abs(np.log(predicted / _consensus(self.data, fitted)))[here])
        return float(np.concatenate(errors).mean())

    def best(self, outside: str | None) -> int:
        """The candidate of least error that knows nothing of `outside`; the earlier, simpler one on a tie."""
        errors = [self.error(i, outside) for i in range(len(self.features))]
        return errors.index(min(errors))


def _consensus(data: Design, fitted: Fit) -> np.ndarray:
    """Seconds of every network in the reference harness: the geometric mean of its rows, offsets taken out."""
    import numpy as np

    offset = np.array([fitted.offsets[name] for name in data.harnesses])
    total = np.bincount(data.observed, data.log_s - offset[data.harness], len(data.networks))
    return np.exp(total / np.bincount(data.observed, minlength=len(data.networks)))


def score(rows: Sequence[HeldOutNetwork]) -> Score:
    """The errors of held-out predictions."""
    import numpy as np

    ratio = np.array([row.predicted_s / row.measured_s for row in rows])
    error = np.abs(ratio - 1)
    families = sorted({row.lineage for row in rows})
    by_family = {
        f: float(np.mean([e for e, row in zip(error, rows, strict=True) if row.lineage == f])) for f in families
    }
    worst = max(families, key=lambda f: by_family[f])
    return Score(
        networks=len(rows),
        families=len(families),
        mape=float(error.mean()),
        median=float(np.median(error)),
        bias=float(np.exp(np.log(ratio).mean()) - 1),
        within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.10).mean()),
        within_20=float((error <= 0.20).mean()),
        spearman=_spearman([row.predicted_s for row in rows], [row.measured_s for row in rows]),
        decisions=_decisions(list(combinations(rows, 2))),
        family_decisions=_decisions([(a, b) for a, b in combinations(rows, 2) if a.lineage == b.lineage]),
        worst_family=worst,
        worst_mape=by_family[worst],
    )


def in_band(rows: Sequence[HeldOutNetwork], index: int) -> list[HeldOutNetwork]:
    """The networks of one band of input pixels."""
    low = 0 if index == 0 else BANDS[index - 1]
    return [row for row in rows if low < row.network.resolution**2 <= BANDS[index]]


def halfwidth(rows: Sequence[HeldOutNetwork], level: float = INTERVAL) -> float:
    """Split-conformal half width in ln: the (n + 1)-corrected quantile of the held-out distances."""
    return _conformal([abs(row.log_error) for row in rows], level)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of n."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _conformal(values: Sequence[float], level: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered), ceil((len(ordered) + 1) * level)) - 1]


def _decisions(pairs: Sequence[tuple[HeldOutNetwork, HeldOutNetwork]]) -> float:
    """The share of pairs whose faster network is predicted to be the faster one."""
    clear = [(a, b) for a, b in pairs if abs(log(a.measured_s / b.measured_s)) > log(1 + DECISION)]
    right = sum((a.predicted_s < b.predicted_s) == (a.measured_s < b.measured_s) for a, b in clear)
    return right / len(clear) if clear else 1.0


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    import numpy as np

    def ranks(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values)
        return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in array])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1]) if len(a) > 1 else 1.0


def _noise(data: Design, fitted: Fit) -> Noise:
    import numpy as np

    counts = np.bincount(data.observed)
    repeated = counts[data.observed] > 1
    offset = np.array([fitted.offsets[name] for name in data.harnesses])

    def spread(values: np.ndarray) -> float:
        mean = np.bincount(data.observed, values) / counts
        # n rows around their own mean look closer than they are by sqrt((n - 1) / n)
        distance = np.abs(values - mean[data.observed])[repeated]
        n = counts[data.observed][repeated]
        return float((distance * np.sqrt(n / (n - 1))).mean())

    return Noise(int((counts > 1).sum()), spread(data.log_s), spread(data.log_s - offset[data.harness]))


def baseline_scores(table: Table) -> list[tuple[str, Score]]:
    """What simpler predictors reach on the families of `table`, fitted on them alone; their form is given, not chosen."""
    import numpy as np

    data = design(table)
    folds = _Folds(data, (THREE_TERM,))
    lineage = np.array(data.lineages)
    totals = Features(data, Candidate(("weights", "macs"))).totals
    weights, macs = totals[:, 1], totals[:, 2]
    # What was measured depends on the offsets of the harnesses, and these only on the families that the fold has seen.
    seen = {family: _consensus(data, folds.without(0, family)[1]) for family in folds.families}
    measured = np.array([seen[family][i] for i, family in enumerate(data.lineages)])

    def scored(predicted: np.ndarray) -> Score:
        rows = zip(data.networks, data.lineages, predicted, measured, strict=True)
        return score([HeldOutNetwork(n, family, float(p), float(m), "") for n, family, p, m in rows])

    def linear(*columns: np.ndarray) -> Score:
        matrix = np.stack([np.ones_like(weights), *columns], axis=1)
        predicted = np.zeros(len(measured))
        for family in folds.families:
            train = lineage != family
            relative = matrix[train] / seen[family][train][:, None]
            solution = np.linalg.lstsq(relative, np.ones(len(relative)), rcond=None)[0]
            predicted[~train] = (matrix @ solution)[~train]
        return scored(np.maximum(predicted, 1e-6))

    three = np.array([folds.without(0, family)[0][i] for i, family in enumerate(data.lineages)])
    peak, bandwidth = UNFITTED
    return [
        ("constant", linear()),
        ("MACs linear", linear(macs)),
        ("parameters linear", linear(weights)),
        ("floor + weights + activations", scored(three)),
        ("roofline, not fitted", scored(np.maximum(macs / peak, weights / bandwidth))),
    ]


def _differences(table: Table, final: Fit, held: Sequence[HeldOutNetwork]) -> Differences:
    """How far the difference of two held-out networks is wrong, per second of kernels that they do not share.

    Networks of one band are paired. The factor is the larger of those for pairs of one family and of two.
    """
    from vitscope.latency.fit import coefficients
    from vitscope.latency.predict import coefficients_cost

    c = coefficients(final)

    def seconds(kernel: Kernel) -> float:
        cost = coefficients_cost(c, 2, kernel)
        return cost.traffic_s + cost.compute_s + cost.start_s

    kernels = {network: Counter({k: n for n, k in found}) for network, found in table.kernels.items()}
    pairs: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for band in range(len(BANDS)):
        for a, b in combinations(in_band(held, band), 2):
            one, other = kernels[a.network], kernels[b.network]
            unshared = sum(n * seconds(k) for only in (one - other, other - one) for k, n in only.items())
            if unshared > 0:
                found = b.predicted_s - a.predicted_s, b.measured_s - a.measured_s, unshared
                pairs[a.lineage == b.lineage].append(found)
    factor = max(_conformal([abs(p - m) / u for p, m, u in found], INTERVAL) for found in pairs.values() if found)
    together = pairs[True] + pairs[False]
    called = [(p, m) for p, m, u in together if abs(p) > factor * u]
    right = sum((p > 0) == (m > 0) for p, m in called)
    return Differences(factor, len(together), len(called) / max(1, len(together)), right / max(1, len(called)))
