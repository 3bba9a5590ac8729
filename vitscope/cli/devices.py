"""`vitscope devices`: what latency is predicted on, what is known of one, its error; and what is here to measure with."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.options import AsJson, Force, Format, FormatChoice, choose_format
from vitscope.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from vitscope.latency.device import Coefficients, Device
    from vitscope.latency.score import HeldOutNetwork

app = typer.Typer(
    help="List the devices that latency is predicted on, and the runtimes and devices here to measure with.",
    rich_markup_mode=None,
)

Start = Annotated[
    bool,
    typer.Option(
        "--start",
        help="Start each runtime in a process of its own, seconds in all, instead of looking for its package: "
        "finds those that are installed and broken.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A device of the list, or a device file.")]


@app.callback(invoke_without_command=True)
def list_all(context: typer.Context, start: Start = False, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is not None:
        if start:
            raise UsageError(f"--start is of the list, not of `devices {context.invoked_subcommand}`")
        return
    from vitscope.cli.output import show as show_table
    from vitscope.cli.progress import Progress
    from vitscope.latency.device import list_devices, load_device
    from vitscope.measure.targets.attached import attached
    from vitscope.report.devices import device_list, devices_json, runtime_list, target_list

    predicted = [load_device(name) for name in list_devices()]
    if not as_json:
        show_table(device_list(predicted))
        print(flush=True)
    progress = Progress()
    if start:
        from vitscope.measure.targets.host import HostTarget

        progress.say("start each runtime in a process of its own")
        found = HostTarget().runtimes()
    else:
        from vitscope.measure.runtimes import present

        found = {p.runtime.name: p.version or UnavailableError(p.reason) for p in present()}
    progress.say("look for attached devices")
    places = attached()
    progress.clear()
    if as_json:
        print(json.dumps(devices_json(predicted, found, places), indent=2, ensure_ascii=False))
        return
    show_table(runtime_list(found, started=start))
    print()
    show_table(target_list(places))


@app.command()
def show(name: Name, form: FormatChoice = None, as_json: AsJson = False) -> None:
    """Print the facts, the fitted coefficients, the limits and the held-out error of a device."""
    from vitscope.cli.output import emit_tables
    from vitscope.latency.device import load_device
    from vitscope.report.devices import device_tables

    device = load_device(name)
    chosen = _format(form, as_json)
    if chosen == Format.json:
        from dataclasses import asdict

        record = asdict(device)
        record["fusion"] = record.pop("rules")["name"]
        print(json.dumps({"schema_version": 1, "device": record}, indent=2))
        return
    emit_tables(device_tables(device), chosen.value)


@app.command()
def check(
    name: Name,
    plot: Annotated[
        list[Path] | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw predicted against measured, held out: .svg, .png or .pdf (repeatable)."
        ),
    ] = None,
    force: Force = False,
    form: FormatChoice = None,
    as_json: AsJson = False,
) -> None:
    """Repeat the fit of a shipped device from its table and print the error held out by family (up to some minutes).

    Of a device file that `vitscope calibrate` wrote: from the times that lie beside it. Exits 1 when the fit does not give
    the shipped coefficients back.
    """
    from dataclasses import asdict

    from vitscope.cli.output import check_writable, emit_tables
    from vitscope.latency.device import load_device
    from vitscope.latency.fit import coefficients
    from vitscope.latency.score import score
    from vitscope.latency.table import load_table
    from vitscope.latency.transfer import transfer
    from vitscope.latency.validate import in_band, validate
    from vitscope.plot.figure import form_of
    from vitscope.report.devices import check_tables, transfer_tables

    device = load_device(name)
    chosen = _format(form, as_json)
    for path in plot or ():
        form_of(path, "--plot")
        check_writable(path, force)
    if device.classes is not None:
        _check_calibrated(Path(name), device, chosen, plot or (), force)
        return
    if device.coefficients is None:
        raise UnavailableError(f"{device.name} is roofline only, there is no fit to repeat: {device.roofline_only}")
    if device.transfer_from:
        found = transfer(load_device(device.transfer_from), load_table(device), device)
        if chosen == Format.json:
            record = {"schema_version": 1, "device": name, "coefficients": asdict(found.coefficients)}
            print(json.dumps({**record, "factor": found.factor, "held_out": asdict(score(found.held_out))}, indent=2))
        else:
            emit_tables(transfer_tables(device, found), chosen.value)
        _draw(device.name, found.held_out, plot or (), force)
        _agree(name, device.coefficients, found.coefficients)
        return
    progress = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else None
    report = validate(load_table(device), device, say=progress)
    refit = coefficients(report.fitted)
    if chosen == Format.json:
        bands = [
            {"pixels": pixels, **asdict(score(in_band(report.held_out, report.bands, i)))}
            for i, pixels in enumerate(report.bands)
        ]
        record = {"schema_version": 1, "device": name, "coefficients": asdict(refit), "bands": bands}
        record |= {"random": asdict(score(report.random)), "noise": asdict(report.noise)}
        record["baselines"] = {label: asdict(value) for label, value in report.baselines}
        print(json.dumps(record, indent=2))
    else:
        emit_tables(check_tables(device, report), chosen.value)
    _draw(device.name, report.held_out, plot or (), force)
    _agree(name, device.coefficients, refit)


def _check_calibrated(path: Path, device: Device, chosen: Format, plot: Sequence[Path], force: bool) -> None:
    """Fit anew to the times that lie beside a calibrated device file. Raises UnavailableError where they are gone."""
    from dataclasses import asdict

    from vitscope.calibrate.block import blocks_of
    from vitscope.calibrate.demand import demand, kernels_of, small_networks
    from vitscope.calibrate.device_file import held_out_rows
    from vitscope.calibrate.held_out import fitted
    from vitscope.calibrate.summed import summed
    from vitscope.calibrate.times import read_header, read_timed
    from vitscope.cli.output import emit_tables
    from vitscope.cli.progress import Progress
    from vitscope.latency.score import score
    from vitscope.report.calibration import fitted_tables

    assert device.classes is not None
    times = path.with_suffix(".times.jsonl")
    if not times.exists():
        raise UnavailableError(
            f"{times}: not here, which holds what the calibration timed; `vitscope devices show` prints the error held out"
        )
    names = read_header(times).get("models") or small_networks()
    networks = kernels_of(names, device.rules, device.batch)
    demands = (*demand(networks), *blocks_of(names, device.rules, device.batch))
    progress = Progress()
    try:
        found = fitted(
            tuple({each.wanted: each for each in read_timed(times)}.values()), networks, demands,
            device.classes.floor_s, device.bytes_per_element,
            lambda done, total: progress.say(f"leave family {done + 1} of {total} out"),
        )  # fmt: skip
    finally:
        progress.clear()
    judged = summed(found)
    rows = held_out_rows(judged)
    if len(rows) < 2:
        raise UnavailableError(f"{times}: too few kernels were timed to tell an error")
    if chosen == Format.json:
        print(json.dumps({"schema_version": 1, "device": device.name, "held_out": asdict(score(rows))}, indent=2))
    else:
        emit_tables(fitted_tables(found, judged, score(rows)), chosen.value)
    _draw(device.name, rows, plot, force)


def _draw(device: str, held_out: Sequence[HeldOutNetwork], paths: Sequence[Path], force: bool) -> None:
    """Write the figures of held-out networks that `--plot` asks for."""
    if not paths:
        return
    from vitscope.cli.output import write_file
    from vitscope.plot.agreement import Pair, agreement, draw_agreement
    from vitscope.plot.figure import form_of

    usual = Counter(row.network.side for row in held_out).most_common(1)[0][0] if held_out else ""
    pairs = [
        Pair(
            row.network.name + (f" {row.network.side}" if row.network.side != usual else ""), row.lineage, row.measured_s,
            row.predicted_s,
        )
        for row in held_out
    ]  # fmt: skip
    data = agreement(device, pairs, "each family held out")
    for path in paths:
        drawing = draw_agreement(data, form_of(path, "--plot"))
        write_file(path, drawing.content, force)
        for note in drawing.notes:
            print(f"{path}: {note}", file=sys.stderr)
        print(f"wrote {path}", file=sys.stderr)


def _agree(name: str, shipped: Coefficients, refit: Coefficients) -> None:
    if not shipped.agrees_with(refit):
        print(f"{name}: the fit does not give the coefficients of the device file back", file=sys.stderr)
        raise typer.Exit(1)


def _format(form: Format | None, as_json: bool) -> Format:
    chosen = choose_format(form, as_json, False, None)
    if chosen == Format.csv:
        raise UsageError("a device is several tables: use --format text, md or json")
    return chosen
