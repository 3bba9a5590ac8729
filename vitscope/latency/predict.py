"""Seconds of a network on a device that is not here: predict(device, segments)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from operator import add
from typing import Literal

from vitscope import units
from vitscope.graph.record import Graph
from vitscope.latency.class_cost import Footprint, Memory, class_of, footprint
from vitscope.latency.device import Coefficients, Device
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.residency import first_broken, where

Status = Literal["ok", "not calibrated", "out of range"]

COVERED = 0.95  # the least share of MACs and bytes that must be of known kernels
MARGIN = 1.5  # how far beyond the networks of the fit a quantity may lie before the prediction is refused


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network costs on a device, for one batch.

    `latency_s` is None unless `status` is `ok`; `low_s` then is a bound that no run can beat, and `high_s` is None.
    `shares` holds the seconds of each segment: sum(shares) + floor_s == latency_s. `interval` is the nominal share of
    networks whose measured latency lies between `low_s` and `high_s`. `coverage` is the share of MACs and bytes that
    known kernels account for; `interval` is None for a device that has no fit.
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
    interval: float | None
    coverage: float
    floor_s: float
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class KernelCost:
    """Seconds of one kernel: moving bytes, computing, and starting, which a softmax does score by score."""

    traffic_s: float
    compute_s: float
    start_s: float


@dataclass(frozen=True, slots=True)
class SegmentCost:
    """What one segment adds to a network.

    `serial_s` nothing hides; `traffic_s` and `compute_s` hide behind one another over the whole network, where the device
    says so, and are 0 elsewhere. `waiting_s` its kernels wait on a calibrated device whose caches have lost everything.
    `bound_s` is the roofline at the stated peaks. The rest are the quantities of `ranges`.
    """

    serial_s: float
    traffic_s: float
    compute_s: float
    bound_s: float
    macs: int
    activation_bytes: int
    unknown_bytes: int
    kernels: int
    footprint: Footprint
    waiting_s: float


def kernel_cost(device: Device, kernel: Kernel) -> KernelCost:
    """The fitted cost of one kernel on `device`, without the floor of the network; nothing where there is no fit."""
    if device.classes is not None:
        seconds = device.classes.kernel_s(kernel, device.bytes_per_element)
        if seconds is None:  # of a class that was never timed: no less than it moves, and not covered
            return KernelCost(device.classes.moving_s(kernel, device.bytes_per_element), 0.0, 0.0)
        return KernelCost(0.0, seconds, 0.0)
    if device.coefficients is None:
        return KernelCost(0.0, 0.0, 0.0)
    return coefficients_cost(device.coefficients, device.bytes_per_element, kernel)


def is_known(device: Device, kernel: Kernel) -> bool:
    """Whether the fit of `device` prices `kernel`: one of a class that it has seen."""
    if device.classes is not None:
        return kernel.geometry is not None and class_of(kernel) in device.classes.classes
    return kernel.kind != "unknown"


def coefficients_cost(c: Coefficients, element_bytes: int, kernel: Kernel) -> KernelCost:
    """The cost of one kernel by the coefficients `c`, its elements taking `element_bytes` each."""
    reads, writes = kernel.reads * element_bytes, kernel.writes * element_bytes
    if c.spill == "kernel":
        spilled = reads + writes if reads + writes > c.knee_bytes else 0
    else:
        spilled = (reads if reads > c.knee_bytes else 0) + (writes if writes > c.knee_bytes else 0)
    resident = reads + writes - spilled
    weights = kernel.weights * element_bytes
    traffic = weights * c.weight_byte_s + spilled * c.spilled_byte_s + resident * c.resident_byte_s
    compute = lane_macs(kernel, c.lanes) * c.mac_s + kernel.macs / kernel.depth * c.tap_s
    scores = kernel.writes if kernel.kind == "softmax" else 0
    vector = kernel.writes if is_vector(kernel.kind) and resident else 0
    stays = resident / (reads + writes) if vector else 0.0
    return KernelCost(traffic, compute, c.kernel_s + scores * c.score_s + vector * stays * c.vector_s)


_LANED = frozenset({"conv", "grouped", "pointwise", "linear"})
_VECTOR = frozenset({"activation", "elementwise", "norm", "pool", "copy", "reduce", "resize"})


def is_vector(kind: str) -> bool:
    """Whether kernels of `kind` work element by element, without products and without weights to wait for."""
    return kind in _VECTOR


def lane_macs(kernel: Kernel, lanes: int) -> float:
    """MACs of a kernel whose channels, summed and written, are padded to a multiple of `lanes` in each group."""
    if lanes == 1 or kernel.kind not in _LANED or kernel.geometry is None:
        return kernel.macs
    written = kernel.geometry.out_channels // kernel.geometry.groups
    return kernel.macs * _padded(kernel.depth, lanes) / kernel.depth * _padded(written, lanes) / written


def _padded(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes


def bound_seconds(device: Device, kernel: Kernel) -> float:
    """What the kernel takes at the stated peaks, weights read once and activations for free: no run is faster."""
    peak, bandwidth = device.fact("peak_macs_per_s"), device.fact("memory_bytes_per_s")
    compute = kernel.macs / peak if peak else 0.0
    return max(compute, kernel.weights * device.bytes_per_element / bandwidth if bandwidth else 0.0)


@lru_cache(maxsize=65536)
def segment_cost(device: Device, graph: Graph) -> SegmentCost:
    """Lower `graph` and add up its kernels. Kept: a search asks for the same block again and again."""
    serial = traffic = compute = bound = 0.0
    macs = activations = unknown = 0
    overlap = device.coefficients.overlap if device.coefficients else "none"
    size = device.bytes_per_element
    kernels = lower(graph, device.rules)
    for kernel in kernels:
        cost = kernel_cost(device, kernel)
        serial += cost.start_s
        if overlap == "network":
            traffic += cost.traffic_s
            compute += cost.compute_s
        elif overlap == "kernel":
            serial += max(cost.traffic_s, cost.compute_s)
        else:
            serial += cost.traffic_s + cost.compute_s
        bound += bound_seconds(device, kernel)
        macs += kernel.macs
        activations += kernel.reads + kernel.writes
        if not is_known(device, kernel):
            unknown += kernel.weights + kernel.reads + kernel.writes
    waiting = sum(device.classes.waiting_s(kernel, size) for kernel in kernels) if device.classes is not None else 0.0
    return SegmentCost(
        serial, traffic, compute, bound, macs, activations * size, unknown * size, len(kernels), footprint(kernels, size),
        waiting,
    )  # fmt: skip


def predict(device: Device, graphs: Sequence[Graph]) -> Prediction:
    """The latency of the network whose consecutive segments are `graphs`, as `device.runtime` runs it.

    Takes some tens of microseconds once the segments are known. Refuses, with a reason and a lower bound instead of a
    latency, what the fit has not seen: see `residency` and `ranges` of the device.
    """
    costs = [segment_cost(device, graph) for graph in graphs]
    floor, shares = device.floor_s, _shares(costs)
    if device.classes is not None and costs:
        more, cold = _cold(device.classes.memory, costs)
        floor, shares = floor + more, tuple(map(add, shares, cold))
    total = floor + sum(shares)
    unknown = sum(cost.unknown_bytes for cost in costs)
    coverage = 1.0
    if unknown:
        coverage = 1.0 - unknown / sum(c.macs + c.footprint.weight_bytes + c.activation_bytes for c in costs)
    status, reason = _status(device, graphs, costs)
    if status == "ok" and coverage < COVERED:
        status, reason = (
            "not calibrated",
            f"kernels that were never timed make {1 - coverage:.0%} of its MACs and bytes",
        )
    ok = status == "ok"
    spread = exp(device.held_out.band(_pixels(graphs)).log_halfwidth) if device.held_out else 1.0
    return Prediction(
        device=device.name,
        runtime=device.runtime,
        precision=device.precision,
        batch=_batch(graphs),
        status=status,
        reason=reason,
        latency_s=total if ok else None,
        low_s=total / spread if ok else sum(cost.bound_s for cost in costs),
        high_s=total * spread if ok else None,
        interval=device.held_out.interval if device.held_out else None,
        coverage=coverage,
        floor_s=floor,
        shares=shares if ok else (),
    )


def _shares(costs: list[SegmentCost]) -> tuple[float, ...]:
    """Seconds of each segment. Where compute and traffic overlap over the network, the one that takes longer is felt."""
    if sum(cost.compute_s for cost in costs) > sum(cost.traffic_s for cost in costs):
        return tuple(cost.serial_s + cost.compute_s for cost in costs)
    return tuple(cost.serial_s + cost.traffic_s for cost in costs)


def _cold(memory: Memory, costs: list[SegmentCost]) -> tuple[float, tuple[float, ...]]:
    """Seconds that the call, and each segment, waits for what the caches have lost; for activations,
    the first, the last, and the one whose kernel has most of them."""
    parts = [cost.footprint for cost in costs]
    largest = max(range(len(parts)), key=lambda i: parts[i].largest_bytes)
    whole = Footprint(
        sum(part.weight_bytes for part in parts), sum(part.written_bytes for part in parts),
        parts[0].input_bytes, parts[largest].largest_bytes, parts[-1].output_bytes,
    )  # fmt: skip
    own = [cost.waiting_s for cost in costs]
    for index, num_bytes in ((0, whole.input_bytes), (largest, whole.largest_bytes), (-1, whole.output_bytes)):
        own[index] += num_bytes * memory.arena_byte_s
    share = memory.gone(whole)
    return share * memory.cold_call_s, tuple(share * seconds for seconds in own)


def _status(device: Device, graphs: Sequence[Graph], costs: list[SegmentCost]) -> tuple[Status, str]:
    if device.roofline_only:
        return "not calibrated", f"roofline only: {device.roofline_only}"
    rule = first_broken(device.residency, graphs)
    if rule is not None:
        place = next((text for graph in graphs if (text := where(graph, rule.sign))), "a block border")
        return "not calibrated", f"{rule.sign.replace('_', ' ')} at {place}: {rule.reason}"
    batch = _batch(graphs)
    if batch != device.batch:
        return "not calibrated", f"batch {batch}: the fit has seen batch {device.batch} only"
    seen = {
        "weight_bytes": sum(c.footprint.weight_bytes for c in costs),
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
