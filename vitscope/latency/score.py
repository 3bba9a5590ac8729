"""How good held-out predictions are: errors, shares within a distance with their interval, ranks and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log, sqrt
from typing import TYPE_CHECKING

from vitscope.latency.table import NetworkId

if TYPE_CHECKING:
    import numpy as np

INTERVAL = 0.8  # nominal share of networks inside the shipped interval
DECISION = 0.05  # pairs whose measured latencies differ by less are no decision
RANKED = 3  # networks that a family needs for a rank correlation of its own


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
    """Errors of held-out predictions. Shares are of networks, `decisions` of pairs that differ by more than 5 %.

    `family_spearman` is the mean over families of at least three networks, weighted by networks; None without one.
    """

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
    family_spearman: float | None
    worst_family: str
    worst_mape: float


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
        family_spearman=_family_spearman(rows),
        worst_family=worst,
        worst_mape=by_family[worst],
    )


def halfwidth(rows: Sequence[HeldOutNetwork], level: float = INTERVAL) -> float:
    """Split-conformal half width in ln: the (n + 1)-corrected quantile of the held-out distances."""
    return conformal([abs(row.log_error) for row in rows], level)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of n."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def conformal(values: Sequence[float], level: float) -> float:
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

    one, other = ranks(a), ranks(b)
    if len(a) < 2 or not one.std() or not other.std():
        return 1.0 if len(a) < 2 else 0.0  # a constant ranks nothing
    return float(np.corrcoef(one, other)[0, 1])


def _family_spearman(rows: Sequence[HeldOutNetwork]) -> float | None:
    families: dict[str, list[HeldOutNetwork]] = {}
    for row in rows:
        families.setdefault(row.lineage, []).append(row)
    ranked = [members for members in families.values() if len(members) >= RANKED]
    total = sum(len(members) for members in ranked)
    if not total:
        return None
    return (
        sum(
            len(members) * _spearman([m.predicted_s for m in members], [m.measured_s for m in members])
            for members in ranked
        )
        / total
    )
