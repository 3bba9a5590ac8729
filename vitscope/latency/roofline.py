"""The roofline of a network on a device: for each block its MACs per byte of main memory, and the MACs per second it attains.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model" (Communications of the ACM, 2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitscope.errors import UsageError
from vitscope.graph.record import Graph
from vitscope.latency.device import Device, Fact
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.predict import Prediction, bound_seconds, kernel_cost, predict

PEAK, BANDWIDTH = "peak_macs_per_s", "memory_bytes_per_s"


@dataclass(frozen=True, slots=True)
class RooflineBlock:
    """One block of a network for a whole batch.

    `memory_bytes` is what it moves between main memory and the chip. `seconds` is what it takes by itself, and `share`
    its part of the network's latency, from 0 to 1: these differ where the device hides a block's traffic behind the
    computing of others. Without a prediction both are of the bound, and `share` of the sum of all bounds.
    """

    path: str
    stage: str
    macs: int
    memory_bytes: float
    seconds: float
    share: float

    @property
    def intensity(self) -> float | None:
        """MACs per byte of main memory; None for a block that moves none, or that multiplies nothing."""
        return self.macs / self.memory_bytes if self.macs and self.memory_bytes else None

    @property
    def macs_per_s(self) -> float | None:
        """What the block attains; None for one that takes no time, or that multiplies nothing."""
        return self.macs / self.seconds if self.macs and self.seconds else None


@dataclass(frozen=True, slots=True)
class Roofline:
    """All that the figure of a network on a device shows. `floor_share` is the part of the latency that no block has."""

    device: str
    peak: Fact
    bandwidth: Fact
    prediction: Prediction
    blocks: tuple[RooflineBlock, ...]
    floor_share: float

    @property
    def ridge(self) -> float:
        """MACs per byte where the two roofs meet: blocks below it wait for memory even when nothing else is lost."""
        return self.peak.value / self.bandwidth.value

    def roof(self, intensity: float) -> float:
        """MACs per second that the stated peaks allow at `intensity` MACs per byte."""
        return min(self.peak.value, self.bandwidth.value * intensity)


def check_facts(device: Device) -> tuple[Fact, Fact]:
    """The peaks of computing and of memory. Raises UsageError for a device that does not state both."""
    facts = {fact.key: fact for fact in device.facts}
    missing = [key for key in (PEAK, BANDWIDTH) if key not in facts]
    if missing:
        raise UsageError(
            f"{device.name}: a roofline needs the facts {PEAK} and {BANDWIDTH}; "
            f"its device file does not state {' and '.join(missing)}"
        )
    return facts[PEAK], facts[BANDWIDTH]


def roofline(device: Device, graphs: Sequence[Graph], path_of: Callable[[int, str], tuple[str, str]]) -> Roofline:
    """The Roofline of the network whose consecutive segments are `graphs`.

    `path_of` gives the block and the stage of a kernel, from the index of its segment and its scope in that. Raises
    UsageError for a device that does not state its peaks.
    """
    peak, bandwidth = check_facts(device)
    prediction = predict(device, graphs)
    is_predicted = bool(prediction.shares)
    blocks: dict[str, _Sum] = {}
    for i, graph in enumerate(graphs):
        kernels = lower(graph, device.rules)
        felt = (
            _felt(device, kernels, prediction.shares[i])
            if is_predicted
            else [bound_seconds(device, k) for k in kernels]
        )
        for kernel, seconds in zip(kernels, felt, strict=True):
            path, stage = path_of(i, kernel.scope)
            blocks.setdefault(path, _Sum(stage)).add(device, kernel, seconds, is_predicted)
    whole = prediction.latency_s if prediction.latency_s is not None else sum(s.felt_s for s in blocks.values())
    found = []
    for path, s in blocks.items():
        share = s.felt_s / whole if whole else 0.0
        found.append(RooflineBlock(path, s.stage, s.macs, s.memory_bytes, s.alone(device, is_predicted), share))
    floor_share = prediction.floor_s / whole if is_predicted and whole else 0.0
    return Roofline(device.name, peak, bandwidth, prediction, tuple(found), floor_share)


@dataclass(slots=True)
class _Sum:
    """The kernels of a block added up."""

    stage: str
    macs: int = 0
    memory_bytes: float = 0.0
    felt_s: float = 0.0
    serial_s: float = 0.0
    traffic_s: float = 0.0
    compute_s: float = 0.0

    def add(self, device: Device, kernel: Kernel, felt_s: float, is_predicted: bool) -> None:
        self.macs += kernel.macs
        self.memory_bytes += memory_bytes(device, kernel, activations=is_predicted)
        self.felt_s += felt_s
        cost = kernel_cost(device, kernel)
        self.serial_s += cost.start_s
        if device.coefficients is not None and device.coefficients.overlap == "kernel":
            self.serial_s += max(cost.traffic_s, cost.compute_s)
        else:
            self.traffic_s += cost.traffic_s
            self.compute_s += cost.compute_s

    def alone(self, device: Device, is_predicted: bool) -> float:
        """Seconds of the block if the network were nothing else, without the floor."""
        if not is_predicted:
            return self.felt_s
        if device.coefficients is not None and device.coefficients.overlap == "network":
            return self.serial_s + max(self.traffic_s, self.compute_s)
        return self.serial_s + self.traffic_s + self.compute_s


def _felt(device: Device, kernels: Sequence[Kernel], share_s: float) -> list[float]:
    """The seconds of a segment spread over its kernels in proportion to their cost alone, as `profile` spreads them."""
    costs = [kernel_cost(device, kernel) for kernel in kernels]
    seconds = [cost.traffic_s + cost.compute_s + cost.start_s for cost in costs]
    whole = sum(seconds)
    return [share_s * each / whole if whole else 0.0 for each in seconds]


def memory_bytes(device: Device, kernel: Kernel, *, activations: bool) -> float:
    """Bytes that `kernel` moves between main memory and the chip, as the fit of `device` has it.

    Weights all come from there. Activations do where the fit says that they leave the chip; without `activations`, and
    on a device without a fit, they are taken to stay, as the lower bound does.
    """
    size = device.bytes_per_element
    weights, reads, writes = kernel.weights * size, kernel.reads * size, kernel.writes * size
    if not activations:
        return weights
    if device.classes is not None:
        return device.classes.memory.far_bytes(weights + reads + writes)
    c = device.coefficients
    if c is None:
        return weights
    parts = (reads + writes,) if c.spill == "kernel" else (reads, writes)
    return weights + sum(part for part in parts if part > c.knee_bytes)
