"""Write the tables of shipped devices, errors and coefficients, into docs/latency.md: python -m benchmarks.published_table"""

from __future__ import annotations

from math import expm1
from pathlib import Path

from vitscope import units
from vitscope.latency.device import Device, list_devices, load_device
from vitscope.report.devices import coefficient_rows

DOCS = Path(__file__).parent.parent / "docs" / "latency.md"
BEGIN, END = "<!-- devices: begin -->", "<!-- devices: end -->"


def main() -> None:
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    DOCS.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")


def tables() -> str:
    """Markdown of what every shipped device was fitted to, how wrong it is held out, and what its coefficients are."""
    devices = [load_device(name) for name in list_devices()]
    return "\n".join([*_errors(devices), "", *_coefficients([d for d in devices if d.coefficients])])


def _errors(devices: list[Device]) -> list[str]:
    lines = [
        "| device | runtime, precision, batch | inputs | networks | mean error | within 10 % | within 20 % | Spearman "
        "| 80 % interval |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for device in devices:
        identity = f"{device.runtime}, {device.precision}, {device.batch}"
        if device.held_out is None:
            lines.append(f"| `{device.name}` | {identity} | roofline only | – | – | – | – | – | – |")
        for band in device.held_out.bands if device.held_out else ():
            name = f"`{device.name}`" + (f" (from {device.transfer_from})" if device.transfer_from else "")
            low, high = expm1(-band.log_halfwidth), expm1(band.log_halfwidth)
            lines.append(
                f"| {name} | {identity} | up to {units.si(band.pixels)} px | {band.networks} of {band.families} families "
                f"| {units.percent(band.mape)} | {units.percent(band.within_10)} | {units.percent(band.within_20)} "
                f"| {band.spearman:.3f} | {units.ratio(low)} {units.ratio(high)} |"
            )
    return lines


def _coefficients(devices: list[Device]) -> list[str]:
    columns = [
        [row.cells for row in coefficient_rows(device.coefficients)] for device in devices if device.coefficients
    ]
    lines = [
        "| | " + " | ".join(f"`{device.name}`" for device in devices) + " |",
        "|---|" + "---:|" * len(devices),
    ]
    for cells in zip(*columns, strict=True):
        lines.append(f"| {cells[0][0]} | " + " | ".join(cell[1] for cell in cells) + " |")
    knees = [d.coefficients.knee_bytes for d in devices if d.coefficients]
    lines.append("| leaves the chip over | " + " | ".join(units.size(int(k)) if k else "always" for k in knees) + " |")
    lanes = [d.coefficients.lanes for d in devices if d.coefficients]
    lines.append("| channels padded to | " + " | ".join(str(n) if n > 1 else "–" for n in lanes) + " |")
    return lines


if __name__ == "__main__":
    main()
