"""The `fit:` part of a device file as text, written from a validation report."""

from __future__ import annotations

from dataclasses import fields

from vitscope.latency.fit import coefficients
from vitscope.latency.kernels import Kernel
from vitscope.latency.table import NetworkId, Table
from vitscope.latency.validate import BANDS, INTERVAL, Report, halfwidth, in_band, score


def fitted_section(report: Report, table: Table, described: str) -> str:
    """YAML lines from `fit:` on. Numbers have six significant figures: a refit must give them back."""
    c = coefficients(report.fitted)
    lines = [
        "fit:  # everything below is written by python -m benchmarks.fit_iphone12",
        f"  data: >-\n    {described}",
        f"  form: {report.fitted.candidate.label}",
        "  coefficients:",
        f"    overlap: {c.overlap}",
        f"    spill: {c.spill}",
    ]
    for field in fields(c):
        if isinstance(value := getattr(c, field.name), float):
            lines.append(f"    {field.name}: {value:.5e}")
    lines.append("  ranges:")
    for key, values in quantities(table).items():
        lines.append(f"    {key}: {{low: {min(values)}, high: {max(values)}}}")
    lines += [
        "  held_out:",
        f"    interval: {INTERVAL}",
        f"    difference: {report.differences.factor:.4f}",
        "    bands:",
    ]
    for i, pixels in enumerate(BANDS):
        rows = in_band(report.held_out, i)
        s = score(rows)
        lines.append(
            f"      - {{pixels: {pixels}, networks: {s.networks}, families: {s.families}, "
            f"log_halfwidth: {halfwidth(rows):.4f}, mape: {s.mape:.4f}, within_10: {s.within_10:.4f}, "
            f"within_20: {s.within_20:.4f}, spearman: {s.spearman:.4f}}}"
        )
    return "\n".join(lines) + "\n"


def quantities(table: Table, element_bytes: int = 2) -> dict[str, list[int]]:
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
        "pixels": [n.resolution**2 for n, _ in of],
    }
