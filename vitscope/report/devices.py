"""Devices as tables: what is known of one, its fit, its error on families it has not seen; and what is here to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import expm1
from typing import TYPE_CHECKING, Any, Literal

from vitscope import units
from vitscope.export import FORMATS
from vitscope.latency.device import Coefficients, Device
from vitscope.measure.runtimes import RUNTIMES
from vitscope.measure.targets.attached import Place
from vitscope.report.class_costs import class_cost_tables
from vitscope.report.table import Column, Row, Table

if TYPE_CHECKING:
    from vitscope.latency.score import Score
    from vitscope.latency.transfer import Transfer
    from vitscope.latency.validate import Report

_LEFT: Literal["left"] = "left"


def device_list(devices: list[Device]) -> Table:
    """One row a device: what it is and how far its predictions are off."""
    rows = []
    for device in devices:
        rows.append(Row((device.name, device.runtime, device.precision, _error(device), device.about)))
    columns = (
        Column("device", _LEFT), Column("runtime", _LEFT), Column("precision", _LEFT), Column("mean error held out", _LEFT),
        Column("about", _LEFT),
    )  # fmt: skip
    return Table(columns, tuple(rows), notes=("vitscope devices show NAME prints one whole",))


def _error(device: Device) -> str:
    """What a prediction is off, or that there is none."""
    if device.held_out is None:
        return "roofline only"
    band = device.held_out.bands[0]
    how = " by transfer" if device.transfer_from else ""
    return f"{units.percent(band.mape)} of {band.networks} networks{how}"


def runtime_list(found: Mapping[str, str | Exception], *, started: bool) -> Table:
    """What can execute a network on this host, with versions; for the rest what is missing and how one gets it.

    `started` says that each was, and not its package alone looked for.
    """
    notes = ["vitscope measure MODEL --runtime NAME measures with one, profile and compare --measure NAME too"]
    if not started:
        notes.append("found by their packages; --start starts each, which takes seconds and finds one that is broken")
    rows = []
    for name, runtime in RUNTIMES.items():
        answer = found.get(name)
        there = isinstance(answer, str)
        executes = f"{FORMATS[runtime.format].title}, on {' or '.join(runtime.units)}"
        said = str(answer) if there else units.UNKNOWN
        missing = "" if there else _without_place(answer)
        rows.append(Row((name, runtime.title, said, executes, missing), style="" if there else "dim"))
    columns = (
        Column("runtime", _LEFT), Column("", _LEFT), Column("version here", _LEFT), Column("executes", _LEFT),
        Column("missing", _LEFT),
    )  # fmt: skip
    return Table(
        columns, tuple(rows), title="runtimes on this host", notes=tuple(notes),
    )  # fmt: skip


def _without_place(error: object) -> str:
    """The reason, without the host and the title that stand in the row already."""
    text = str(error or "not known")
    return text.partition(" is not here: ")[2] or text


def target_list(places: Sequence[Place]) -> Table:
    """Where one can measure now."""
    rows = tuple(
        Row((p.target, p.about, "ready" if not p.trouble else p.trouble), style="dim" if p.trouble else "")
        for p in places
    )
    columns = (Column("target", _LEFT), Column("", _LEFT), Column("state", _LEFT))
    note = "ssh:USER@HOST measures on any machine that ssh reaches without a password and that has Python 3.8 and a runtime"
    return Table(columns, rows, title="targets", notes=(note,))


def devices_json(
    devices: Sequence[Device], found: Mapping[str, str | Exception], places: Sequence[Place]
) -> dict[str, Any]:
    """The three lists; a runtime or target that cannot be used says why."""
    return {
        "schema_version": 1,
        "devices": [
            {"name": d.name, "runtime": d.runtime, "precision": d.precision, "about": d.about} for d in devices
        ],
        "runtimes": [
            {
                "name": name,
                "title": runtime.title,
                "version": answer if isinstance(answer := found.get(name), str) else None,
                "missing": None if isinstance(answer, str) else str(answer),
                "format": runtime.format,
                "units": list(runtime.units),
            }
            for name, runtime in RUNTIMES.items()
        ],
        "targets": [{"target": p.target, "about": p.about, "trouble": p.trouble or None} for p in places],
    }


def device_tables(device: Device) -> list[Table]:
    """Facts, coefficients, rules, ranges and held-out error of one device; facts alone where nothing was fitted."""
    facts = tuple(
        Row((
            fact.key.replace("_", " "), units.si(fact.value), fact.source if fact.confirmed else f"unconfirmed: {fact.source}",
        ))
        for fact in sorted(device.facts, key=lambda f: f.key)
    )  # fmt: skip
    identity = f"{device.name}: {device.about}; {device.runtime}, {device.precision}, batch {device.batch}"
    known = Table((Column("fact", _LEFT), Column("value"), Column("source", _LEFT)), facts, title=identity)
    if device.held_out is None:
        return [replace(known, notes=(f"roofline only, no latency but a lower bound: {device.roofline_only}",))]
    rules = tuple(Row((rule.sign.replace("_", " "), str(rule.at_most), rule.reason)) for rule in device.residency)
    ranges = tuple(Row((r.key.replace("_", " "), units.si(r.low), units.si(r.high))) for r in device.ranges)
    bands = tuple(
        Row((
            f"up to {units.si(band.pixels)} pixels", str(band.networks), str(band.families), units.percent(band.mape),
            units.percent(band.within_10), units.percent(band.within_20), f"{band.spearman:.3f}",
            f"-{units.percent(-expm1(-band.log_halfwidth))} +{units.percent(expm1(band.log_halfwidth))}",
        ))
        for band in device.held_out.bands
    )  # fmt: skip
    level = units.percent(device.held_out.interval)
    limits = Table(
        (Column("sign in the graph", _LEFT), Column("at most"), Column("why", _LEFT)),
        rules,
        title="runs whole: beyond these limits a prediction is `not calibrated`",
    )
    return [
        known,
        *_fit_tables(device),
        *([limits] if rules else []),
        Table(
            (Column("quantity", _LEFT), Column("from"), Column("to")),
            ranges,
            title="seen by the fit: a prediction far outside is `out of range`",
        ),
        Table(
            (
                Column("input", _LEFT), Column("networks"), Column("families"), Column("mean error"), Column("within 10%"),
                Column("within 20%"), Column("Spearman"), Column(f"{level} interval"),
            ),
            bands,
            title="held out, each family predicted by a fit that has not seen it",
        ),
    ]  # fmt: skip


def _fit_tables(device: Device) -> list[Table]:
    """What was fitted: the coefficients of a device from a published table, or the costs of one that was calibrated."""
    moved = f"; coefficients of {device.transfer_from}, scaled" if device.transfer_from else ""
    title = f"fit: {device.form}{moved}"
    notes = (f"fitted on {device.fitted_on}", *((f"means {device.harness}",) if device.harness else ()))
    if device.classes is not None:
        memory, classes = class_cost_tables(device.classes)
        return [replace(memory, title=title, notes=notes), classes]
    assert device.coefficients is not None
    columns = (Column("coefficient", _LEFT), Column("value"), Column("meaning", _LEFT))
    return [Table(columns, coefficient_rows(device.coefficients), title=title, notes=notes)]


def coefficient_rows(c: Coefficients) -> tuple[Row, ...]:
    """The coefficients in the units people think in."""

    def rate(seconds_each: float, unit: str) -> str:
        return units.si(1 / seconds_each, unit) if seconds_each else "free"

    spilled = "a kernel reads and writes" if c.spill == "kernel" else "a kernel reads, or writes,"
    overlap = {
        "none": "computing and moving bytes follow one another",
        "kernel": "within a kernel the longer of computing and moving bytes counts",
        "network": "over the network the longer of computing and moving bytes counts",
    }[c.overlap]
    products = "convolutions and products"
    if c.lanes > 1:
        products += f", channels of each group padded to {c.lanes}"
    return (
        Row(("floor", units.seconds(c.floor_s), "every inference")),
        Row(("start", units.seconds(c.kernel_s), "every kernel")),
        Row(("weights", rate(c.weight_byte_s, "B/s"), "read once from main memory")),
        Row(
            (
                "activations off the chip",
                rate(c.spilled_byte_s, "B/s"),
                f"where {spilled} over {units.size(int(c.knee_bytes))}",
            )
        ),
        Row(("activations on the chip", rate(c.resident_byte_s, "B/s"), "all others")),
        Row(("MACs", rate(c.mac_s, "MAC/s"), products)),
        Row(("taps", rate(c.tap_s, "/s"), "output elements times kernel positions, whatever the channels")),
        Row(("scores", rate(c.score_s, "/s"), "elements of softmax, hidden by nothing")),
        Row(
            (
                "vector",
                rate(c.vector_s, "/s"),
                "elements of kernels without products that stay on the chip, hidden by nothing",
            )
        ),
        Row(("overlap", c.overlap, overlap)),
    )


def check_tables(device: Device, report: Report) -> list[Table]:
    """The held-out report of a refit: bands, baselines, families, and every network."""
    from vitscope.latency.score import score, wilson
    from vitscope.latency.validate import in_band

    columns = (
        Column("predictor", _LEFT), Column("networks"), Column("mean"), Column("median"), Column("bias"), Column("within 5%"),
        Column("within 10%"), Column("within 20%"), Column("Spearman"), Column("in family"), Column("decisions"),
        Column("in family"), Column("worst family", _LEFT),
    )  # fmt: skip
    bands = [(f"up to {units.si(pixels)} pixels", in_band(report.held_out, report.bands, i)) for i, pixels in
             enumerate(report.bands)]  # fmt: skip
    rows = [Row(_score_cells(label, score(members)), style="strong") for label, members in bands]
    if len(bands) > 1:
        rows.append(Row(_score_cells("all", score(report.held_out)), style="strong"))
    rows.append(Row(_score_cells("all, random split, form given", score(report.random)), style="dim"))
    rows += [Row(_score_cells(label, value), style="dim") for label, value in report.baselines]
    first = score(bands[0][1])
    shares = ", ".join(
        f"{units.percent(share)} within {limit} ({units.percent(low)} to {units.percent(high)})"
        for limit, share in (("5%", first.within_5), ("10%", first.within_10), ("20%", first.within_20))
        for low, high in (wilson(share, first.networks),)
    )
    noise, differences = report.noise, report.differences
    said = (
        f"noise of the table: {noise.networks} networks measured more than once, a row is {units.percent(noise.raw)} from "
        f"the mean of its network, {units.percent(noise.corrected)} with the offsets of the harnesses taken out"
        if noise.networks
        else "noise of the table: unknown, no network was measured more than once"
    )
    folds = f"{report.folds} folds, {first.families if len(bands) == 1 else score(report.held_out).families} families"
    families = []
    for family in sorted({row.lineage for row in report.held_out}):
        for label, band in bands:
            members = [row for row in band if row.lineage == family]
            if members:
                value = score(members)
                cells = (family, label, str(value.networks), units.percent(value.mape), units.ratio(value.bias))
                families.append(Row((*cells, members[0].candidate)))
    networks = tuple(
        Row((
            row.network.name, row.network.side, row.lineage, units.milliseconds(row.measured_s),
            units.milliseconds(row.predicted_s), units.ratio(row.predicted_s / row.measured_s - 1),
        ))
        for row in sorted(report.held_out, key=lambda row: (row.lineage, row.network))
    )  # fmt: skip
    return [
        Table(columns, tuple(rows), title=f"{device.name}: families left out, form chosen inside the loop ({folds})", notes=(
            f"up to {units.si(report.bands[0])} pixels, with 95% Wilson intervals: {shares}",
            said,
            f"differences: of {differences.pairs} pairs {units.percent(differences.called)} are called different, "
            f"{units.percent(differences.right)} of these rightly",
        )),
        Table(
            (Column("family", _LEFT), Column("input", _LEFT), Column("networks"), Column("mean"), Column("bias"),
             Column("form chosen without it", _LEFT)),
            tuple(families), title="by family",
        ),
        Table(
            (Column("network", _LEFT), Column("input"), Column("family", _LEFT), Column("measured"), Column("predicted"),
             Column("error")),
            networks, title="by network",
        ),
        Table(
            (Column("coefficient", _LEFT), Column("value"), Column("meaning", _LEFT)),
            coefficient_rows(_refitted(report)), title=f"refit on everything: {report.fitted.candidate.label}",
        ),
    ]  # fmt: skip


def transfer_tables(device: Device, found: Transfer) -> list[Table]:
    """What the few networks of a device say of the factor on its relative's coefficients."""
    from vitscope.latency.score import score

    s = score(found.held_out)
    networks = tuple(
        Row((
            row.network.name, row.network.side, row.lineage, units.milliseconds(row.measured_s),
            units.milliseconds(row.predicted_s), units.ratio(row.predicted_s / row.measured_s - 1),
        ))
        for row in found.held_out
    )  # fmt: skip
    return [
        Table(
            (Column("network", _LEFT), Column("input"), Column("family", _LEFT), Column("measured"), Column("predicted"),
             Column("error")),
            networks,
            title=f"{device.name}: the coefficients of {found.source} times {found.factor:.3f}, each family left out",
            notes=(
                f"{s.networks} networks of {s.families} families: mean error {units.percent(s.mape)}, "
                f"bias {units.ratio(s.bias)}, Spearman {s.spearman:.3f}; too few to say more, so the interval is wide: "
                f"-{units.percent(-expm1(-found.log_halfwidth))} +{units.percent(expm1(found.log_halfwidth))}",
            ),
        ),
    ]  # fmt: skip


def _refitted(report: Report) -> Coefficients:
    from vitscope.latency.fit import coefficients

    return coefficients(report.fitted)


def _score_cells(label: str, s: Score) -> tuple[str, ...]:
    return (
        label, str(s.networks), units.percent(s.mape), units.percent(s.median), units.ratio(s.bias), units.percent(s.within_5),
        units.percent(s.within_10), units.percent(s.within_20), f"{s.spearman:.3f}",
        units.UNKNOWN if s.family_spearman is None else f"{s.family_spearman:.3f}", units.percent(s.decisions),
        units.percent(s.family_decisions), f"{s.worst_family} {units.percent(s.worst_mape)}",
    )  # fmt: skip
