"""The `fit:` part of a device file as text, written from a validation report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from vitscope.latency.device import Band, Coefficients, Device
from vitscope.latency.fit import coefficients
from vitscope.latency.kernels import Kernel
from vitscope.latency.score import INTERVAL, HeldOutNetwork, halfwidth, score
from vitscope.latency.table import NetworkId, Table
from vitscope.latency.transfer import Transfer
from vitscope.latency.validate import Report, in_band


def fitted_section(report: Report, table: Table, device: Device, described: str) -> str:
    """YAML lines from `fit:` on. Numbers have six significant figures: a refit must give them back."""
    return "\n".join([
        *head_lines(f"fit_published {device.name}", described, report.fitted.candidate.label),
        *coefficient_lines(coefficients(report.fitted)),
        *range_lines(quantities(table, device.bytes_per_element)),
        *held_out_lines(report.held_out, report.bands, report.differences.factor),
    ]) + "\n"  # fmt: skip


def transferred_section(found: Transfer, source: Device, device: Device, described: str) -> str:
    """YAML lines from `fit:` on of a device whose coefficients are those of a relative, scaled."""
    s = score(found.held_out)
    edge = max(max(network.network.pixels for network in found.held_out), *(band.pixels for band in held_bands(source)))
    return "\n".join([
        *head_lines(f"fit_published {device.name}", described, f"coefficients of {source.name} times {found.factor:.4f}"),
        f"  transfer_from: {source.name}",
        *coefficient_lines(found.coefficients),
        "  ranges:",
        *(f"    {r.key}: {{low: {r.low:.0f}, high: {r.high:.0f}}}" for r in source.ranges),
        "  held_out:",
        f"    interval: {INTERVAL}",
        f"    difference: {source.held_out.difference if source.held_out else 0.0:.4f}",
        "    bands:",
        f"      - {{pixels: {edge}, networks: {s.networks}, families: {s.families}, "
        f"log_halfwidth: {found.log_halfwidth:.4f}, mape: {s.mape:.4f}, within_10: {s.within_10:.4f}, "
        f"within_20: {s.within_20:.4f}, spearman: {s.spearman:.4f}}}",
    ]) + "\n"  # fmt: skip


def held_bands(device: Device) -> tuple[Band, ...]:
    return device.held_out.bands if device.held_out else ()


def head_lines(command: str, described: str, form: str) -> list[str]:
    return [
        f"fit:  # everything below is written by python -m benchmarks.{command}",
        f"  data: >-\n    {described}",
        f"  form: {form}",
    ]


def coefficient_lines(c: Coefficients) -> list[str]:
    lines = ["  coefficients:", f"    overlap: {c.overlap}", f"    spill: {c.spill}"]
    for field in fields(c):
        value = getattr(c, field.name)
        if isinstance(value, float):
            lines.append(f"    {field.name}: {value:.5e}")
        elif isinstance(value, int):
            lines.append(f"    {field.name}: {value}")
    return lines


def range_lines(seen: dict[str, list[int]]) -> list[str]:
    return ["  ranges:", *(f"    {key}: {{low: {min(of)}, high: {max(of)}}}" for key, of in seen.items())]


def held_out_lines(held_out: Sequence[HeldOutNetwork], bands: Sequence[int], difference: float) -> list[str]:
    lines = ["  held_out:", f"    interval: {INTERVAL}", f"    difference: {difference:.4f}", "    bands:"]
    for i, pixels in enumerate(bands):
        rows = in_band(held_out, bands, i)
        s = score(rows)
        lines.append(
            f"      - {{pixels: {pixels}, networks: {s.networks}, families: {s.families}, "
            f"log_halfwidth: {halfwidth(rows):.4f}, mape: {s.mape:.4f}, within_10: {s.within_10:.4f}, "
            f"within_20: {s.within_20:.4f}, spearman: {s.spearman:.4f}}}"
        )
    return lines


def quantities(table: Table, element_bytes: int) -> dict[str, list[int]]:
    """What `ranges` limits, for every network of the fit."""
    fitted: dict[NetworkId, tuple[tuple[int, Kernel], ...]] = {
        row.network: table.kernels[row.network] for row in table.rows if not row.sign
    }
    of = list(fitted.items())
    return {
        "weight_bytes": [sum(c * k.weights for c, k in ks) * element_bytes for _, ks in of],
        "activation_bytes": [sum(c * (k.reads + k.writes) for c, k in ks) * element_bytes for _, ks in of],
        "macs": [sum(c * k.macs for c, k in ks) for _, ks in of],
        "kernels": [sum(c for c, _ in ks) for _, ks in of],
        "pixels": [n.pixels for n, _ in of],
    }
