"""The least time that the hardware allows for a network. A figure below it is refused, with the arithmetic, not printed.

    seconds ≥ max( MACs / 4 / peak,  (weight bytes − on-chip bytes) / memory bandwidth )

The peak is what every core's widest multiply-add units can do at the highest clock, which no program reaches. The 4 is
room for algorithms that multiply less: Winograd's F(4×4, 3×3) computes a 3×3 convolution with a quarter of the
multiplications. So a figure that is refused was not the time of this network: an accelerator that had not finished, a
branch cut off by an optimiser, a runtime that failed and returned. What is not known of a machine is not checked.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vitscope import units
from vitscope.export.artifact import Precision
from vitscope.latency.device import Device, load_device
from vitscope.measure.channel import MeasureError
from vitscope.measure.record import Condition, Measurement

FEWER_MULTIPLICATIONS = 4.0
_HIGHEST_CLOCK_HZ = 6.5e9  # above that of any processor sold; where the machine does not tell its own
_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")

# Multiply-adds of one core in one cycle: vector units × lanes of 32 bits. The first whose flags are all there counts.
_FP32: tuple[tuple[str, str, int], ...] = (
    ("avx512f", "AVX-512, two units of 16", 32),
    ("avx2 fma", "AVX2 with FMA, two units of 8", 16),
    ("avx", "AVX, one multiplication and one addition of 8", 8),
    ("sse2", "SSE2, one multiplication and one addition of 4", 4),
    ("asimd", "NEON, four units of 4", 16),  # as on Cortex-X and Apple; a Cortex-A76 has two
)
# How many times the fp32 rate, or the rate of a matrix unit in MACs a cycle.
_FASTER: dict[str, tuple[tuple[str, str, int], ...]] = {
    "fp32": (),
    "fp16": (("avx512_fp16", "twice in fp16", 2), ("asimdhp", "twice in fp16", 2)),
    "int8": (
        ("i8mm", "eight times in int8", 8),
        ("asimddp", "four times in int8", 4),
        ("sse2", "four times in int8", 4),
    ),
}
_MATRIX: dict[str, tuple[str, int]] = {"fp16": ("amx_bf16", 512), "int8": ("amx_int8", 1024)}

# Product types (Apple's own names) of devices that have a file of facts.
_PRODUCTS = {"iPhone13,1": "iphone12", "iPhone13,2": "iphone12", "iPhone13,3": "iphone12", "iPhone13,4": "iphone12"}


class ImplausibleError(MeasureError):
    """A figure below what the hardware allows; its text is the arithmetic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What a place can do at the very most, and in words where that comes from."""

    macs_per_s: float
    macs_from: str
    bytes_per_s: float | None = None
    on_chip_bytes: float = 0.0
    bytes_from: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time of a network, and how it was computed."""

    seconds: float
    arithmetic: str


def lower_bound(macs: int, weight_bytes: int, roof: Roof) -> Bound:
    """The least time of one inference of `macs` multiply-accumulates (all images of the batch) that reads its weights."""
    compute = macs / FEWER_MULTIPLICATIONS / roof.macs_per_s
    bound = Bound(
        compute,
        f"{units.si(macs)} MACs / {FEWER_MULTIPLICATIONS:g} (Winograd) / {units.si(roof.macs_per_s)} MACs/s "
        f"({roof.macs_from}) = {units.seconds(compute)}",
    )
    spilled = weight_bytes - roof.on_chip_bytes
    if roof.bytes_per_s is None or spilled <= 0 or spilled / roof.bytes_per_s <= compute:
        return bound
    memory = spilled / roof.bytes_per_s
    kept = f" − {units.size(round(roof.on_chip_bytes))} on the chip" if roof.on_chip_bytes else ""
    return Bound(
        memory,
        f"({units.size(weight_bytes)} of weights{kept}) / {units.si(roof.bytes_per_s)}B/s ({roof.bytes_from}) = "
        f"{units.seconds(memory)}",
    )


def check(measurement: Measurement, *, macs: int, weight_bytes: int, roof: Roof | None = None) -> Bound | None:
    """The bound that `measurement` respects; None where nothing is known of its place, and so nothing is checked.

    `macs` are of one image. Without `roof` it is `roof_of` the measurement's condition. Raises ImplausibleError.
    """
    condition = measurement.condition
    roof = roof or roof_of(condition)
    if roof is None:
        return None
    bound = lower_bound(macs * condition.batch, weight_bytes, roof)
    measured = measurement.summary.latency_p50_s
    if measured < bound.seconds:
        raise ImplausibleError(
            f"{condition.model} on {condition.runtime}: {units.seconds(measured)} is implausible: {bound.arithmetic} at least"
        )
    return bound


def roof_of(condition: Condition) -> Roof | None:
    """What is known of the place of `condition`: the cores of this host, or the file of a device; else None."""
    if condition.target in ("host", "mac"):
        if condition.unit != "cpu" or condition.host != platform.node():
            return None
        return host_roof(_flags(), condition.precision, threads=condition.threads, clock_hz=_highest_clock())  # type: ignore[arg-type]
    for product, name in _PRODUCTS.items():
        if f"({product})" in condition.host or product == condition.processor:
            return device_roof(load_device(name))
    return None


def host_roof(
    flags: Collection[str], precision: Precision, *, threads: int, clock_hz: float | None, cores: int | None = None
) -> Roof | None:
    """The peak of `threads` cores whose kernel shows `flags`; None for a kind of core that is not in the table.

    `clock_hz` None takes a clock that no processor has. The bandwidth of memory is not known, and caches are faster.
    """
    row = next((row for row in _FP32 if set(row[0].split()) <= set(flags)), None)
    if row is None:
        return None
    words, rate = row[1], row[2]
    factor = next(((text, times) for flag, text, times in _FASTER[precision] if flag in flags), None)
    if factor is not None:
        words, rate = f"{words}, {factor[0]}", rate * factor[1]
    matrix = _MATRIX.get(precision)
    if matrix is not None and matrix[0] in flags:
        words, rate = f"AMX tiles in {precision}", matrix[1]
    busy = min(threads, cores or os.cpu_count() or threads)
    clock = clock_hz or _HIGHEST_CLOCK_HZ
    taken = "" if clock_hz else ", taken because the clock cannot be read"
    return Roof(
        macs_per_s=busy * rate * clock,
        macs_from=f"{busy} core{'s' * (busy > 1)} × {rate} MACs a cycle ({words}) × {clock / 1e9:.2f} GHz{taken}",
    )


def device_roof(device: Device) -> Roof | None:
    """The facts of a device file, None where it does not state the peak."""
    peak = device.fact("peak_macs_per_s")
    if peak is None:
        return None
    source = {fact.key: fact.source for fact in device.facts}
    return Roof(
        macs_per_s=peak, macs_from=source["peak_macs_per_s"], bytes_per_s=device.fact("memory_bytes_per_s"),
        on_chip_bytes=device.fact("on_chip_bytes") or 0.0, bytes_from=source.get("memory_bytes_per_s", ""),
    )  # fmt: skip


def _flags() -> frozenset[str]:
    """What the kernel says that the cores can do (`flags` on x86, `Features` on ARM); empty where there is no such file."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.split(":")[0].strip() in ("flags", "Features"))
    return frozenset(next(found, "").split())


def _highest_clock() -> float | None:
    clocks = []
    for file in _CPUS.glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq"):
        try:
            clocks.append(float(file.read_text()) * 1e3)
        except (OSError, ValueError):
            continue
    return max(clocks) if clocks else None
