"""Fit the cost of a kernel to whole-network latencies: candidate forms, their features, and a robust fit with priors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING, Literal

from vitscope.latency.device import Coefficients, Device, Overlap, Spill
from vitscope.latency.least_squares import minimise, soft_l1
from vitscope.latency.predict import is_vector, lane_macs
from vitscope.latency.table import NetworkId, Row, Table

if TYPE_CHECKING:
    import numpy as np

Term = Literal["floor", "weights", "spilled", "resident", "kernels", "macs", "taps", "scores", "vector"]
COMPUTE: frozenset[Term] = frozenset({"macs", "taps"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form of the cost: which terms, what counts as leaving the chip, what overlaps, and what channels are padded to."""

    terms: tuple[Term, ...]
    overlap: Overlap = "none"
    spill: Spill = "kernel"
    knee_bytes: float = 0.0
    lanes: int = 1

    @property
    def label(self) -> str:
        knee = f", {self.spill} over {self.knee_bytes / 1e6:g} MB" if self.knee_bytes else ""
        over = "" if self.overlap == "none" else f", compute and traffic overlap by {self.overlap}"
        lanes = f", channels padded to {self.lanes}" if self.lanes > 1 else ""
        return " + ".join(("floor", *self.terms)) + knee + lanes + over


def priors(device: Device) -> dict[Term, tuple[float, float]]:
    """For each term the seconds per unit that the facts of `device` suggest, and how far, in ln, one may be from it.

    Peaks as their makers state them, P MACs/s and W bytes/s, are not reached: on the A14 products run at a third of P, and
    weights stream at 70 % of W. The same shares are the prior everywhere, wider where a fact is unconfirmed.
    """
    by_key = {fact.key: fact for fact in device.facts}
    peak, memory = by_key["peak_macs_per_s"], by_key["memory_bytes_per_s"]
    p, w = peak.value, memory.value
    macs_sd, bytes_sd = (hypot(sd, 0.0 if f.confirmed else UNCONFIRMED_SD) for f, sd in ((peak, 0.7), (memory, 0.4)))
    return {
        "floor": (0.3e-3, 0.7 if device.batch == 1 else 2.0),  # dispatch; Core ML 0.1 ms on an A16, 0.5 ms on an A14
        "weights": (1 / (0.73 * w), bytes_sd),
        "spilled": (1 / (0.73 * w), bytes_sd),
        "resident": (1 / (7.3 * w), 1.0),  # on the chip an order faster, value unknown
        "kernels": (2e-6, 1.0),  # an optimised BERT runs 606 operations in 3.5 ms on a phone: below 6 µs each
        "macs": (1 / (0.36 * p), macs_sd),
        "taps": (55 / p, 1.0),  # per output and tap, whatever the channels: a lane of 16 to 64 channels used by one
        "scores": (5500 / p, 1.0),  # per element of a softmax: exponentials have no unit of their own
        "vector": (550 / p, 1.0),  # per element of what has no products: a lane where products have some hundreds
    }


UNCONFIRMED_SD = 0.3  # of a fact that nobody looked up at its maker, in ln
OFFSET_SD = 0.1  # of a harness against the reference, in ln: laboratories differ by 10 to 20 %
START_FACTORS = (1.0, 0.4, 2.5)
ROBUST = 0.1  # residuals in ln beyond this weigh less (soft L1): one export in ten left the engine somewhere
LANES = 16  # channels that an accelerator works on together: the Neural Engine has 16 cores, tensor cores take 8 or 16

_SPILLED_FORMS: tuple[tuple[tuple[Term, ...], Overlap, int], ...] = (
    (("weights", "spilled"), "none", 1),
    (("weights", "spilled", "resident"), "none", 1),
    (("weights", "spilled", "resident", "kernels"), "none", 1),
    (("weights", "spilled", "macs", "kernels"), "none", 1),
    (("weights", "spilled", "macs", "taps"), "none", 1),
    (("weights", "spilled", "macs", "taps", "kernels"), "none", 1),
    (("weights", "spilled", "macs", "taps"), "kernel", 1),
    (("weights", "spilled", "macs", "taps", "scores"), "network", LANES),
    (("weights", "spilled", "macs", "taps", "scores", "vector"), "network", LANES),
)

THREE_TERM = Candidate(("weights", "spilled"))  # floor, weight bytes, all activation bytes: the baseline to beat
MANY = 150  # networks beyond which few forms are tried, and none that looks at every kernel: their fit takes minutes


# Rows stand in multiples of 64 bytes on Apple's engine, and 56 halves, the commonest, fill so much of them.
ROW_FILL = 7 / 8


def candidates(device: Device, networks: int) -> tuple[Candidate, ...]:
    """The forms that are tried for `device`, the simpler first.

    What leaves the chip is decided by a sixteenth or an eighth of what it holds: it is shared with others, and operands
    are double buffered. Where nothing is known of a chip, or a batch fills any, everything leaves it. Every form prices
    activations: one of weights alone would answer a change of resolution with no change.
    """
    on_chip = device.fact("on_chip_bytes")
    spills: tuple[tuple[Spill, float], ...] = (("kernel", 0.0),)
    if on_chip and device.batch == 1:
        holds = on_chip * ROW_FILL
        spills = (("kernel", holds / 16), ("kernel", holds / 8), ("operand", holds / 16))
        spills = spills[1:2] if networks > MANY else spills
    forms = [
        Candidate(terms, overlap, spill, knee, lanes)
        for terms, overlap, lanes in _SPILLED_FORMS
        for spill, knee in spills
        if (knee or not {"resident", "vector"} & set(terms))
        and (networks <= MANY or ("kernels" in terms and "macs" in terms) or overlap == "network")
    ]
    return (THREE_TERM, *forms)


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
    sizes: dict[str, np.ndarray]  # macs (padded too), taps, scores, vector elements; bytes of weights, reads and writes
    reference: str  # the harness that a prediction means
    priors: dict[Term, tuple[float, float]]


def design(table: Table, device: Device) -> Design:
    """The arrays of the rows that belong to the fit."""
    import numpy as np

    element_bytes = device.bytes_per_element
    rows: Sequence[Row] = [row for row in table.rows if not row.sign]
    networks = tuple(sorted({row.network for row in rows}))
    index = {network: i for i, network in enumerate(networks)}
    lineage = {row.network: row.lineage for row in rows}
    harnesses = tuple(sorted({row.harness for row in rows} | {device.harness}))
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
            "padded": np.array([float(lane_macs(k, LANES)) for *_, k in flat]),
            "taps": np.array([k.macs / k.depth for *_, k in flat]),
            "vector": np.array([float(k.writes) if is_vector(k.kind) else 0.0 for *_, k in flat]),
            "scores": np.array([float(k.writes) if k.kind == "softmax" else 0.0 for *_, k in flat]),
            "weights": np.array([float(k.weights * element_bytes) for *_, k in flat]),
            "reads": np.array([float(k.reads * element_bytes) for *_, k in flat]),
            "writes": np.array([float(k.writes * element_bytes) for *_, k in flat]),
        },
        reference=device.harness,
        priors=priors(device),
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
        resident = activations - spilled
        of: dict[Term, np.ndarray] = {
            "weights": size["weights"], "spilled": spilled, "resident": resident,
            "macs": size["macs" if candidate.lanes == 1 else "padded"], "taps": size["taps"], "scores": size["scores"],
            "vector": size["vector"] * resident / np.maximum(activations, 1.0), "kernels": np.ones_like(spilled),
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
    prior = np.array([np.log(data.priors[name][0]) for name in features.names])
    prior_sd = np.array([data.priors[name][1] for name in features.names])
    n, h = len(features.names), len(data.harnesses)
    offset_sd = np.full(h, OFFSET_SD)
    offset_sd[data.harnesses.index(data.reference)] = 1e-6

    def problem(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals in units of their spread, and their derivatives."""
        parts = features.parts(np.exp(x[:n]))
        total = parts.sum(1)
        r = (np.log(total[observed]) + x[n + harness] - log_s) * weight / ROBUST
        jacobian = np.zeros((len(r), n + h))
        jacobian[:, :n] = (parts / total[:, None])[observed] * (weight / ROBUST)[:, None]
        jacobian[np.arange(len(r)), n + harness] = weight / ROBUST
        soft, slope = soft_l1(r)
        residual = np.concatenate([soft, (x[:n] - prior) / prior_sd, x[n:] / offset_sd])
        ridge = np.diag(np.concatenate([1.0 / prior_sd, 1.0 / offset_sd]))
        return residual, np.concatenate([jacobian * slope[:, None], ridge])

    # Which of compute and traffic hides is a choice per network, so the bottom depends a little on the start: the priors,
    # and the priors with a slower and a faster engine. Nothing else, least of all a fit that saw the networks left out.
    starts = []
    for factor in START_FACTORS if features.candidate.overlap != "none" else (1.0,):
        starts.append(np.concatenate([prior + np.where(features.is_compute, np.log(factor), 0.0), np.zeros(h)]))
    x = min((minimise(problem, start) for start in starts), key=lambda found: found[0])[1]
    values: dict[Term, float] = {name: float(v) for name, v in zip(features.names, np.exp(x[:n]), strict=True)}
    return Fit(features.candidate, values, dict(zip(data.harnesses, map(float, x[n:]), strict=True)))


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
        lanes=candidate.lanes,
        vector_s=value.get("vector", 0.0),
    )
