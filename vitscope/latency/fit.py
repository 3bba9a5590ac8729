"""Fit the cost of a kernel to whole-network latencies: candidate forms, their features, and a robust fit with priors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vitscope.latency.device import Coefficients, Overlap, Spill
from vitscope.latency.table import NetworkId, Row, Table

if TYPE_CHECKING:
    import numpy as np

Term = Literal["floor", "weights", "spilled", "resident", "kernels", "macs", "taps", "scores"]
COMPUTE: frozenset[Term] = frozenset({"macs", "taps"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form of the cost: which terms, what counts as leaving the chip, and what overlaps."""

    terms: tuple[Term, ...]
    overlap: Overlap = "none"
    spill: Spill = "kernel"
    knee_bytes: float = 0.0

    @property
    def label(self) -> str:
        knee = f", {self.spill} over {self.knee_bytes / 1e6:g} MB" if self.knee_bytes else ""
        over = "" if self.overlap == "none" else f", compute and traffic overlap by {self.overlap}"
        return " + ".join(("floor", *self.terms)) + knee + over


# A prior is the value that the facts suggest and how far, in ln, one may be from it. Seconds per unit.
PRIORS: dict[Term, tuple[float, float]] = {
    "floor": (0.3e-3, 0.7),  # dispatch through Core ML, 0.1 ms on an A16 and 0.5 ms in an earlier fit of the A14
    "weights": (1 / 25e9, 0.4),  # per byte: main memory at 34 GB/s, 70 % of which is reached
    "spilled": (1 / 25e9, 0.4),
    "resident": (1 / 250e9, 1.0),  # per byte: on the chip an order faster, value unknown
    "kernels": (2e-6, 1.0),  # per kernel: an optimised BERT runs 606 operations in 3.5 ms, so below 6 µs
    "macs": (1 / 2e12, 0.7),  # per MAC: 11 TOPS peak, 2.7 to 4.6 TFLOP/s reached by products on an M1
    "taps": (1 / 100e9, 1.0),  # per output and tap, whatever the channels: a lane of 16 to 32 channels used by one
    "scores": (1e-9, 1.0),  # per attention score: rung 6 of V2's Table 1 adds 2 ms for attention over 196 positions
}
OFFSET_SD = 0.1  # of a harness against the reference, in ln: laboratories differ by 10 to 20 %
START_FACTORS = (1.0, 0.4, 2.5)
ROBUST = 0.1  # residuals in ln beyond this weigh less (soft L1): one export in ten left the engine somewhere
REFERENCE_HARNESS = "snap-xcode14-ios16"  # what a prediction means: EfficientFormerV2's own protocol, the unit of MES

_SPILLS: tuple[tuple[Spill, float], ...] = (("kernel", 1e6), ("kernel", 2e6), ("operand", 1e6))
_SPILLED_FORMS: tuple[tuple[tuple[Term, ...], Overlap], ...] = (
    (("weights", "spilled"), "none"),
    (("weights", "spilled", "resident"), "none"),
    (("weights", "spilled", "resident", "kernels"), "none"),
    (("weights", "spilled", "resident", "macs"), "kernel"),
    (("weights", "spilled", "macs", "taps"), "none"),
    (("weights", "spilled", "macs", "taps"), "kernel"),
    (("weights", "spilled", "macs", "taps"), "network"),
    (("weights", "spilled", "resident", "macs", "taps"), "network"),
    (("weights", "spilled", "resident", "scores"), "none"),
    (("weights", "spilled", "macs", "taps", "scores"), "network"),
    (("weights", "spilled", "resident", "macs", "taps", "scores"), "network"),
)

THREE_TERM = Candidate(("weights", "spilled"))  # floor, weight bytes, all activation bytes: the baseline to beat
CANDIDATES: tuple[Candidate, ...] = (
    Candidate(("weights",)),
    THREE_TERM,
    *(Candidate(terms, overlap, spill, knee) for terms, overlap in _SPILLED_FORMS for spill, knee in _SPILLS),
)


@dataclass(frozen=True)
class Design:
    """The numbers of a table as arrays: networks, their observations, and their kernels weighted by count."""

    networks: tuple[NetworkId, ...]
    lineages: tuple[str, ...]
    harnesses: tuple[str, ...]
    observed: np.ndarray  # per observation: index of its network,
    harness: np.ndarray  # index of its harness,
    log_s: np.ndarray  # and ln of its seconds
    kernel_of: np.ndarray  # per distinct kernel: index of its network,
    count: np.ndarray  # how often it occurs,
    sizes: dict[str, np.ndarray]  # macs, taps, scores, and bytes of weights, reads and writes


def design(table: Table, element_bytes: int = 2) -> Design:
    """The arrays of the rows that belong to the fit."""
    import numpy as np

    rows: Sequence[Row] = [row for row in table.rows if not row.sign]
    networks = tuple(sorted({row.network for row in rows}))
    index = {network: i for i, network in enumerate(networks)}
    lineage = {row.network: row.lineage for row in rows}
    harnesses = tuple(sorted({row.harness for row in rows} | {REFERENCE_HARNESS}))
    flat = [(index[n], count, k) for n in networks for count, k in table.kernels[n]]
    return Design(
        networks=networks,
        lineages=tuple(lineage[n] for n in networks),
        harnesses=harnesses,
        observed=np.array([index[row.network] for row in rows]),
        harness=np.array([harnesses.index(row.harness) for row in rows]),
        log_s=np.log([row.latency_s for row in rows]),
        kernel_of=np.array([i for i, _, _ in flat]),
        count=np.array([float(c) for _, c, _ in flat]),
        sizes={
            "macs": np.array([float(k.macs) for *_, k in flat]),
            "taps": np.array([k.macs / k.depth for *_, k in flat]),
            "scores": np.array([float(k.writes) if k.kind == "softmax" else 0.0 for *_, k in flat]),
            "weights": np.array([float(k.weights * element_bytes) for *_, k in flat]),
            "reads": np.array([float(k.reads * element_bytes) for *_, k in flat]),
            "writes": np.array([float(k.writes * element_bytes) for *_, k in flat]),
        },
    )


class Features:
    """The quantities that one candidate multiplies by its coefficients, per kernel, or per network where they add up."""

    def __init__(self, data: Design, candidate: Candidate):
        import numpy as np

        self.data, self.candidate = data, candidate
        self.names: tuple[Term, ...] = ("floor", *candidate.terms)
        size, knee = data.sizes, candidate.knee_bytes
        activations = size["reads"] + size["writes"]
        if candidate.spill == "kernel":
            spilled = np.where(activations > knee, activations, 0.0)
        else:
            reads, writes = size["reads"], size["writes"]
            spilled = np.where(reads > knee, reads, 0.0) + np.where(writes > knee, writes, 0.0)
        of: dict[Term, np.ndarray] = {
            "weights": size["weights"], "spilled": spilled, "resident": activations - spilled, "macs": size["macs"],
            "taps": size["taps"], "scores": size["scores"], "kernels": np.ones_like(spilled),
        }  # fmt: skip
        columns = np.stack([np.zeros_like(spilled), *(of[term] for term in candidate.terms)], axis=1)
        self.is_compute = np.array([name in COMPUTE for name in self.names])
        self.is_traffic = np.array([name in ("weights", "spilled", "resident") for name in self.names])
        self.kernels = columns
        self.starts = np.searchsorted(data.kernel_of, np.arange(len(data.networks)))  # kernels stand by network
        self.totals = np.add.reduceat(columns * data.count[:, None], self.starts)
        self.totals[:, 0] = 1.0

    def parts(self, coefficients: np.ndarray) -> np.ndarray:
        """Seconds that each coefficient adds to each network; their sum over a row is the prediction."""
        import numpy as np

        if self.candidate.overlap == "kernel":
            parts = self._dominant(self.kernels * coefficients) * self.data.count[:, None]
            total = np.add.reduceat(parts, self.starts)
            total[:, 0] = coefficients[0]
            return total
        parts = self.totals * coefficients
        return self._dominant(parts) if self.candidate.overlap == "network" else parts

    def _dominant(self, parts: np.ndarray) -> np.ndarray:
        """Drop whichever of compute and traffic takes less: it hides behind the other."""
        import numpy as np

        compute_bound = parts[:, self.is_compute].sum(1) > parts[:, self.is_traffic].sum(1)
        hidden = np.where(compute_bound[:, None], self.is_traffic, self.is_compute)
        return np.where(hidden, 0.0, parts)


@dataclass(frozen=True)
class Fit:
    """Coefficients in seconds per unit, and ln offsets of the harnesses against the reference."""

    candidate: Candidate
    values: dict[Term, float]
    offsets: dict[str, float]


def fit(features: Features, mask: np.ndarray) -> Fit:
    """The most plausible coefficients for the networks in `mask`.

    Minimises over ln of the coefficients and offsets of harnesses: soft-L1 of ln(predicted / measured), every network
    weighing the same however often it was measured, plus the priors. Levenberg-Marquardt, deterministic.
    """
    import numpy as np

    data = features.data
    use = mask[data.observed]
    observed, harness, log_s = data.observed[use], data.harness[use], data.log_s[use]
    weight = 1.0 / np.sqrt(np.bincount(observed, minlength=len(data.networks))[observed])
    prior = np.array([np.log(PRIORS[name][0]) for name in features.names])
    prior_sd = np.array([PRIORS[name][1] for name in features.names])
    n, h = len(features.names), len(data.harnesses)
    offset_sd = np.full(h, OFFSET_SD)
    offset_sd[data.harnesses.index(REFERENCE_HARNESS)] = 1e-6

    def problem(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals in units of their spread, and their derivatives."""
        parts = features.parts(np.exp(x[:n]))
        total = parts.sum(1)
        r = (np.log(total[observed]) + x[n + harness] - log_s) * weight / ROBUST
        jacobian = np.zeros((len(r), n + h))
        jacobian[:, :n] = (parts / total[:, None])[observed] * (weight / ROBUST)[:, None]
        jacobian[np.arange(len(r)), n + harness] = weight / ROBUST
        soft = np.sqrt(np.sqrt(1.0 + r * r) + 1.0)  # sign(r)·sqrt(2(sqrt(1+r²)-1)) = sqrt(2)·r / soft
        slope = np.where(r == 0, 1.0, np.sqrt(2.0) / soft - np.sqrt(2.0) * r * r / (2 * soft**3 * np.sqrt(1.0 + r * r)))
        residual = np.concatenate([np.sqrt(2.0) * r / soft, (x[:n] - prior) / prior_sd, x[n:] / offset_sd])
        ridge = np.diag(np.concatenate([1.0 / prior_sd, 1.0 / offset_sd]))
        return residual, np.concatenate([jacobian * slope[:, None], ridge])

    # Which of compute and traffic hides is a choice per network, so the bottom depends a little on the start: the priors,
    # and the priors with a slower and a faster engine. Nothing else, least of all a fit that saw the networks left out.
    starts = []
    for factor in START_FACTORS if features.candidate.overlap != "none" else (1.0,):
        starts.append(np.concatenate([prior + np.where(features.is_compute, np.log(factor), 0.0), np.zeros(h)]))
    x = min((_levenberg_marquardt(problem, start) for start in starts), key=lambda found: found[0])[1]
    values: dict[Term, float] = {name: float(v) for name, v in zip(features.names, np.exp(x[:n]), strict=True)}
    return Fit(features.candidate, values, dict(zip(data.harnesses, map(float, x[n:]), strict=True)))


def _levenberg_marquardt(
    problem: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], x: np.ndarray
) -> tuple[float, np.ndarray]:
    """The sum of squares at a bottom near `x`, and where it is."""
    import numpy as np

    damping = 1e-3
    residual, jacobian = problem(x)
    for _ in range(200):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residual)
        tried, tried_jacobian = problem(x + step)
        gain = float(residual @ residual - tried @ tried)
        if gain > 0:
            x, residual, jacobian, damping = x + step, tried, tried_jacobian, damping / 5
            if gain < 1e-7:  # of some hundred: far below what six printed figures show
                break
        else:
            damping *= 5
            if damping > 1e9:
                break
    return float(residual @ residual), x


def predicted_s(features: Features, fitted: Fit) -> np.ndarray:
    """Seconds of every network of the design in the reference harness."""
    import numpy as np

    return features.parts(np.array([fitted.values[name] for name in features.names])).sum(1)


def coefficients(fitted: Fit) -> Coefficients:
    """A fit as a device file holds it."""
    value, candidate = fitted.values, fitted.candidate
    return Coefficients(
        overlap=candidate.overlap,
        spill=candidate.spill,
        knee_bytes=candidate.knee_bytes,
        floor_s=value["floor"],
        kernel_s=value.get("kernels", 0.0),
        weight_byte_s=value.get("weights", 0.0),
        spilled_byte_s=value.get("spilled", 0.0),
        resident_byte_s=value.get("resident", 0.0),
        mac_s=value.get("macs", 0.0),
        tap_s=value.get("taps", 0.0),
        score_s=value.get("scores", 0.0),
    )
