"""Seconds of a network on a device that is not here: predict(device, segments), and the difference of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from typing import Literal

from vitscope import units
from vitscope.graph.record import Graph
from vitscope.latency.device import Device
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.residency import SIGNS, total_signs, where

Status = Literal["ok", "not calibrated", "out of range"]

MARGIN = 1.5  # how far beyond the networks of the fit a quantity may lie before the prediction is refused


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network costs on a device, for one batch.

    `latency_s` is None unless `status` is `ok`; `low_s` then is a bound that no run can beat, and `high_s` is None.
    `shares` holds the seconds of each segment: sum(shares) + floor_s == latency_s. `interval` is the nominal share of
    networks whose measured latency lies between `low_s` and `high_s`. `coverage` is the share of MACs and bytes that
    known kernels account for.
    """

    device: str
    runtime: str
    precision: str
    batch: int
    status: Status
    reason: str
    latency_s: float | None
    low_s: float
    high_s: float | None
    interval: float
    coverage: float
    floor_s: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SegmentCost:
    """What one segment adds to a network: seconds by the fit, seconds by the roofline, and the quantities of `ranges`."""

    seconds: float
    bound_s: float
    macs: int
    weight_bytes: int
    activation_bytes: int
    kernels: int
    unknown_bytes: int


def kernel_seconds(device: Device, kernel: Kernel) -> float:
    """The fitted cost of one kernel on `device`, without the floor of the network."""
    c = device.coefficients
    activation_bytes = (kernel.reads + kernel.writes) * device.bytes_per_element
    per_byte = c.spilled_byte_s if activation_bytes > c.knee_bytes else c.resident_byte_s
    traffic = kernel.weights * device.bytes_per_element * c.weight_byte_s + activation_bytes * per_byte
    compute = kernel.macs * device.mac_seconds.get(kernel.kind, 0.0)
    return c.kernel_s + (max(compute, traffic) if c.bounds == "max" else compute + traffic)


def bound_seconds(device: Device, kernel: Kernel) -> float:
    """What the kernel takes at the stated peaks, weights read once and activations for free: no run is faster."""
    peak, bandwidth = device.fact("peak_macs_per_s"), device.fact("memory_bytes_per_s")
    compute = kernel.macs / peak if peak else 0.0
    return max(compute, kernel.weights * device.bytes_per_element / bandwidth if bandwidth else 0.0)


@lru_cache(maxsize=65536)
def segment_cost(device: Device, graph: Graph) -> SegmentCost:
    """Lower `graph` and add up its kernels. Kept: a search asks for the same block again and again."""
    seconds = bound = 0.0
    macs = weights = activations = unknown = 0
    kernels = lower(graph, device.rules)
    for kernel in kernels:
        seconds += kernel_seconds(device, kernel)
        bound += bound_seconds(device, kernel)
        macs += kernel.macs
        weights += kernel.weights
        activations += kernel.reads + kernel.writes
        if kernel.kind == "unknown":
            unknown += kernel.weights + kernel.reads + kernel.writes
    size = device.bytes_per_element
    return SegmentCost(seconds, bound, macs, weights * size, activations * size, len(kernels), unknown * size)


def predict(device: Device, graphs: Sequence[Graph]) -> Prediction:
    """The latency of the network whose consecutive segments are `graphs`, as `device.runtime` runs it.

    Takes some tens of microseconds once the segments are known. Refuses, with a reason and a lower bound instead of a
    latency, what the fit has not seen: see `residency` and `ranges` of the device.
    """
    costs = [segment_cost(device, graph) for graph in graphs]
    shares = tuple(cost.seconds for cost in costs)
    floor = device.coefficients.floor_s
    total = floor + sum(shares)
    bound = sum(cost.bound_s for cost in costs)
    unknown = sum(cost.unknown_bytes for cost in costs)
    coverage = 1.0
    if unknown:
        work = sum(c.macs + c.weight_bytes + c.activation_bytes for c in costs)
        coverage = 1.0 - unknown / work
    status, reason = _status(device, graphs, costs)
    spread = exp(device.held_out.log_halfwidth)
    ok = status == "ok"
    return Prediction(
        device=device.name,
        runtime=device.runtime,
        precision=device.precision,
        batch=_batch(graphs),
        status=status,
        reason=reason,
        latency_s=total if ok else None,
        low_s=total / spread if ok else bound,
        high_s=total * spread if ok else None,
        interval=device.held_out.interval,
        coverage=coverage,
        floor_s=floor,
        shares=shares if ok else (),
    )


def _status(device: Device, graphs: Sequence[Graph], costs: list[SegmentCost]) -> tuple[Status, str]:
    found = total_signs(list(graphs))
    for rule in device.residency:
        if found[rule.sign] > rule.at_most:
            place = next((text for graph in graphs if (text := where(graph, rule.sign))), "")
            return "not calibrated", f"{rule.sign.replace('_', ' ')} at {place or 'a block border'}: {rule.reason}"
    batch = _batch(graphs)
    if batch != device.batch:
        return "not calibrated", f"batch {batch}: the fit has seen batch {device.batch} only"
    seen = {
        "weight_bytes": sum(c.weight_bytes for c in costs),
        "activation_bytes": sum(c.activation_bytes for c in costs),
        "macs": sum(c.macs for c in costs),
        "kernels": sum(c.kernels for c in costs),
        "pixels": _pixels(graphs),
    }
    for limits in device.ranges:
        value = seen[limits.key]
        if not limits.low / MARGIN <= value <= limits.high * MARGIN:
            return "out of range", (
                f"{limits.key.replace('_', ' ')} {units.si(value)}: the fit has seen "
                f"{units.si(limits.low)} to {units.si(limits.high)}"
            )
    return "ok", ""


def _batch(graphs: Sequence[Graph]) -> int:
    shape = graphs[0].tensors[graphs[0].inputs[0]].shape if graphs and graphs[0].inputs else ()
    return shape[0] if shape else 1


def _pixels(graphs: Sequence[Graph]) -> int:
    shape = graphs[0].tensors[graphs[0].inputs[0]].shape if graphs and graphs[0].inputs else ()
    return shape[-1] * shape[-2] if len(shape) >= 3 else 0


@dataclass(frozen=True, slots=True)
class Difference:
    """How much slower B is than A, with the interval of that difference; `verdict` says what may be concluded."""

    delta_s: float | None
    low_s: float | None
    high_s: float | None
    interval: float
    verdict: Literal["A faster", "B faster", "no difference that the predictor can tell", "cannot be compared"]


def difference(device: Device, graphs_a: Sequence[Graph], graphs_b: Sequence[Graph]) -> Difference:
    """Judge B against A on `device`.

    Similar networks err together: the spread of the ratio of two predictions was measured on pairs of held-out networks
    and is interpolated between pairs of one family and pairs of different families by how much of their work is shared.
    """
    a, b = predict(device, graphs_a), predict(device, graphs_b)
    level = device.held_out.interval
    if a.latency_s is None or b.latency_s is None:
        return Difference(None, None, None, level, "cannot be compared")
    spread = _ratio_spread(device, graphs_a, graphs_b) * _two_sided(level)
    ratio = log(b.latency_s / a.latency_s)
    delta, low, high = (a.latency_s * (exp(r) - 1) for r in (ratio, ratio - spread, ratio + spread))
    verdict = "no difference that the predictor can tell"
    if low > 0:
        verdict = "A faster"
    elif high < 0:
        verdict = "B faster"
    return Difference(delta, low, high, level, verdict)


def _ratio_spread(device: Device, graphs_a: Sequence[Graph], graphs_b: Sequence[Graph]) -> float:
    """Standard deviation of the error of ln(b / a)."""
    within, across = device.held_out.pair_log_sd_within, device.held_out.pair_log_sd_across
    share = _shared(device, graphs_a, graphs_b)
    return across + (within - across) * share


def _shared(device: Device, graphs_a: Sequence[Graph], graphs_b: Sequence[Graph]) -> float:
    """How alike two networks are: overlap of their seconds by kernel kind and fused operations, from 0 to 1."""
    from collections import Counter

    def spectrum(graphs: Sequence[Graph]) -> Counter[tuple[str, tuple[str, ...]]]:
        found: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for graph in graphs:
            for kernel in lower(graph, device.rules):
                found[kernel.kind, kernel.ops] += kernel_seconds(device, kernel)  # type: ignore[assignment]
        total = sum(found.values()) or 1.0
        return Counter({key: value / total for key, value in found.items()})  # type: ignore[arg-type]

    a, b = spectrum(graphs_a), spectrum(graphs_b)
    return sum(min(value, b[key]) for key, value in a.items())


def _two_sided(level: float) -> float:
    """The multiple of a standard deviation that holds `level` of a normal distribution: 1.28 for 0.8."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)


__all__ = [
    "SIGNS",
    "Difference",
    "Prediction",
    "SegmentCost",
    "difference",
    "kernel_seconds",
    "predict",
    "segment_cost",
]
