"""A device with few measurements: the coefficients of a near relative, all times one factor that its few networks tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import exp, hypot, log

from vitscope.errors import UsageError
from vitscope.latency.device import Coefficients, Device
from vitscope.latency.kernels import Kernel
from vitscope.latency.predict import coefficients_cost
from vitscope.latency.score import INTERVAL, HeldOutNetwork, halfwidth
from vitscope.latency.table import NetworkId, Table

PRIOR_SD = 0.25  # of the factor around the ratio of the peaks, in ln: generations of one engine differ by less than 1.3
ANCHOR_SD = 0.15  # of one network around its prediction, in ln: the error of the relative and the laboratory together


@dataclass(frozen=True)
class Transfer:
    """The scaled coefficients, and each network predicted by a factor that its family had no part in.

    `log_halfwidth` is the half width of the interval in ln: what is uncertain of the relative and the largest error of a
    family left out, in quadrature; with a handful of networks nothing finer is known.
    """

    source: str
    factor: float
    coefficients: Coefficients
    held_out: tuple[HeldOutNetwork, ...]
    log_halfwidth: float


def transfer(source: Device, table: Table, device: Device) -> Transfer:
    """Scale `source` to the rows of `table`, which are of `device`. Raises UsageError without a fit or without rows."""
    if source.coefficients is None or source.held_out is None:
        raise UsageError(f"{source.name} is roofline only: nothing can be transferred from it")
    c = source.coefficients
    measured: dict[NetworkId, list[float]] = {}
    lineage = {row.network: row.lineage for row in table.rows if not row.sign}
    for row in table.rows:
        if not row.sign:
            measured.setdefault(row.network, []).append(log(row.latency_s))
    if not measured:
        raise UsageError(f"the table of {device.name} has no network that runs whole: nothing tells its factor")
    expected = {n: network_s(c, source.bytes_per_element, table.kernels[n]) for n in measured}
    ratios = {n: sum(found) / len(found) - log(expected[n]) for n, found in measured.items()}
    peaks = source.fact("peak_macs_per_s"), device.fact("peak_macs_per_s")
    prior = log(peaks[0] / peaks[1]) if peaks[0] and peaks[1] else 0.0

    def factor(networks: Sequence[NetworkId]) -> float:
        weight = len(networks) / ANCHOR_SD**2
        return exp((prior / PRIOR_SD**2 + sum(ratios[n] for n in networks) / ANCHOR_SD**2) / (1 / PRIOR_SD**2 + weight))

    held = tuple(
        HeldOutNetwork(
            n, lineage[n], expected[n] * factor([m for m in ratios if lineage[m] != lineage[n]]),
            exp(log(expected[n]) + ratios[n]), "",
        )
        for n in sorted(ratios)
    )  # fmt: skip
    scale = factor(list(ratios))
    width = hypot(source.held_out.bands[0].log_halfwidth, halfwidth(held, INTERVAL))
    return Transfer(source.name, scale, scaled(c, scale), held, width)


def network_s(c: Coefficients, element_bytes: int, kernels: Sequence[tuple[int, Kernel]]) -> float:
    """Seconds of a network given as kernels with their counts."""
    costs = [(count, coefficients_cost(c, element_bytes, kernel)) for count, kernel in kernels]
    traffic = sum(n * cost.traffic_s for n, cost in costs)
    compute = sum(n * cost.compute_s for n, cost in costs)
    start = c.floor_s + sum(n * cost.start_s for n, cost in costs)
    if c.overlap == "kernel":
        return start + sum(n * max(cost.traffic_s, cost.compute_s) for n, cost in costs)
    return start + (max(traffic, compute) if c.overlap == "network" else traffic + compute)


def scaled(c: Coefficients, factor: float) -> Coefficients:
    """`c` with every cost in seconds times `factor`; what decides between costs stays."""
    times = {f.name: getattr(c, f.name) * factor for f in fields(c) if f.name.endswith("_s")}
    return replace(c, **times)
