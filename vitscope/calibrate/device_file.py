"""A calibration as a device file: what `--device my_device.yaml` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

from vitscope.calibrate.record import Calibration, Place
from vitscope.calibrate.summed import Summed, difference_factor, halfwidth, summed
from vitscope.errors import UsageError
from vitscope.latency.class_cost import class_of
from vitscope.latency.class_cost_file import class_lines
from vitscope.latency.score import INTERVAL, HeldOutNetwork, score
from vitscope.latency.table import NetworkId
from vitscope.measure.runtimes import RUNTIMES
from vitscope.units import percent

_PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def device_text(calibration: Calibration, place: Place, name: str, fusion: str, today: date, wholes: int = 0) -> str:
    """The whole file; `wholes` networks were timed to refine it.

    Raises UsageError where too few kernels were timed to tell an error.
    """
    networks = summed(calibration)
    timed = [each for each in calibration.timed if each.seconds is not None]
    if len(networks) < 2:
        raise UsageError(
            f"{len(timed)} kernels are too few to tell how wrong a prediction is: give it a larger --budget, or fewer --models"
        )
    s = score(held_out_rows(networks))
    runtime = f"{RUNTIMES[place.runtime].title} {calibration.runtime_version}"
    threads = f"{place.threads} thread" + "s" * (place.threads > 1)
    about = f"{calibration.processor} ({calibration.host}, {calibration.system}), {threads}"
    how = f"measured by vitscope calibrate, {today.isoformat()}"
    peak, bandwidth = facts(calibration)
    lines = [
        f"# {runtime} on {calibration.host}, {threads}: written by vitscope calibrate from kernels and blocks"
        + (f", refined on {wholes} networks." if wholes else "; no network was timed for it."),
        f"name: {json.dumps(name)}",
        f"about: {json.dumps(about)}",
        f"runtime: {json.dumps(runtime + ', ' + threads)}",
        f"fusion: {fusion}",
        f"precision: {_PRECISIONS[place.precision]}",
        f"batch: {place.batch}",
        "facts:",
        f"  peak_macs_per_s: {{value: {peak:.4g}, source: {json.dumps(how + ': the fastest product')}}}",
        f"  memory_bytes_per_s: {{value: {bandwidth:.4g}, source: {json.dumps(how + ': the largest elementwise kernel')}}}",
        "residency: []",
        "fit:",
        f"  data: {json.dumps(_data(calibration, len(timed)))}",
        "  form: floor + what the caches have lost + sum over kernels of (start + max(compute, near traffic) + farther "
        "traffic) of their class, with a correction near timed ones",
        "  classes:",
        *class_lines(calibration.costs),
        "  ranges:",
    ]
    for key, values in _quantities(calibration).items():
        lines.append(f"    {key}: {{low: {min(values)}, high: {max(values)}}}")
    lines += [
        "  held_out:  # kernels of each network, summed, as a fit without its family predicts them",
        f"    interval: {INTERVAL}",
        f"    difference: {max(difference_factor(networks, calibration), 1e-4):.4f}",
        "    bands:",
        f"      - {{pixels: {max(_quantities(calibration)['pixels'])}, networks: {s.networks}, families: {s.families}, "
        f"log_halfwidth: {max(halfwidth(networks), 1e-4):.4f}, mape: {s.mape:.4f}, within_10: {s.within_10:.4f}, "
        f"within_20: {s.within_20:.4f}, spearman: {s.spearman:.4f}}}",
    ]
    return "\n".join(lines) + "\n"


def held_out_rows(networks: Sequence[Summed]) -> list[HeldOutNetwork]:
    """As the networks of a published table are judged."""
    return [HeldOutNetwork(NetworkId(n.name, 0), n.family, n.predicted_s, n.timed_s, "") for n in networks]


def facts(calibration: Calibration) -> tuple[float, float]:
    """(MACs per second of the fastest product, bytes per second of the elementwise kernel that moves most), as timed."""
    peak = bandwidth = moved = 0.0
    for each in calibration.timed:
        if each.seconds is None:
            continue
        peak = max(peak, sum(kernel.macs for kernel in each.kernels) / each.seconds)
        touched = calibration.element_bytes * sum(k.reads + k.writes for k in each.kernels)
        if each.wanted.kind == "elementwise" and touched > moved:
            bandwidth, moved = touched / each.seconds, touched
    return peak, bandwidth or 1 / calibration.costs.memory.byte_s(1e12)


def _data(calibration: Calibration, timed: int) -> str:
    classes = len(
        {class_of(each.wanted) for each in calibration.timed if each.seconds is not None and not each.is_block}
    )
    blocks = sum(each.is_block and each.seconds is not None for each in calibration.timed)
    last = f"; {percent(calibration.curve[-1].error)} mean error on kernels held out" if calibration.curve else ""
    return f"{timed - blocks} kernels of {classes} classes and {blocks} blocks, from {len(calibration.networks)} networks{last}"


def _quantities(calibration: Calibration) -> dict[str, list[int]]:
    size = calibration.element_bytes
    of = [kernels for _, kernels in calibration.networks.values()]
    pixels = [
        k.geometry.in_size[0] * k.geometry.in_size[1] for kernels in of for k in kernels[:3] if k.geometry is not None
    ]
    return {
        "weight_bytes": [sum(k.weights for k in kernels) * size for kernels in of],
        "activation_bytes": [sum(k.reads + k.writes for k in kernels) * size for kernels in of],
        "macs": [sum(k.macs for k in kernels) for kernels in of],
        "kernels": [len(kernels) for kernels in of],
        "pixels": pixels or [1],
    }
