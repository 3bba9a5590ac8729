"""A calibration as tables: how it learned, what each class of kernels costs, and how wrong it is on what it has not seen."""

from __future__ import annotations

from math import expm1
from typing import Literal

from vitscope import units
from vitscope.calibrate.record import Calibration, Fitted
from vitscope.calibrate.refine import Refined
from vitscope.calibrate.summed import Summed, halfwidth
from vitscope.latency.class_cost import PRODUCTS, ClassCosts, class_of
from vitscope.latency.score import INTERVAL, Score
from vitscope.report.table import Column, Row, Table

_LEFT: Literal["left"] = "left"


def calibration_tables(calibration: Calibration, networks: list[Summed], score: Score) -> list[Table]:
    """Learning curve, classes, and networks as sums of their kernels, each by a fit that has not seen its family."""
    return [_curve(calibration), *fitted_tables(calibration, networks, score)]


def fitted_tables(fit: Fitted, networks: list[Summed], score: Score) -> list[Table]:
    """Classes, and networks as sums of their kernels, each by a fit that has not seen its family."""
    return [_classes(fit), _networks(networks, score)]


def _curve(calibration: Calibration) -> Table:
    rows = tuple(Row((str(each.kernels), units.percent(each.error))) for each in calibration.curve)
    timed = [each for each in calibration.timed if each.seconds is not None]
    notes = [f"stopped after {calibration.seconds / 60:.1f} minutes: {calibration.ended}"]
    if slowed := sum(each.slowed for each in timed):
        notes.append(f"{slowed} of {len(timed)} kernels were timed while something else slowed the core")
    if not calibration.sweeps:
        notes.append(
            "this target runs a program in which nothing goes through the caches between inferences: networks will take longer "
            "than predicted, --refine tells how much"
        )
    if calibration.refused:
        said = next((each.reason for each in calibration.refused if each.copies), "their sizes do not say all of them")
        notes.append(f"{len(calibration.refused)} kernels could not be timed alone: {said}")
    return Table(
        (Column("kernels timed"), Column("mean error, kernels held out")), rows, title="learning", notes=tuple(notes)
    )


def _classes(fit: Fitted) -> Table:
    errors: dict[str, list[tuple[float, float]]] = {}
    for each in fit.held_out:
        if each.formula_s and each.corrected_s and each.timed.seconds and not each.timed.is_block:
            pair = (abs(each.formula_s / each.timed.seconds - 1), abs(each.corrected_s / each.timed.seconds - 1))
            errors.setdefault(class_of(each.timed.wanted), []).append(pair)
    numbers: dict[str, int] = {}
    for each in fit.timed:
        if each.seconds is not None and not each.is_block:
            numbers[class_of(each.wanted)] = numbers.get(class_of(each.wanted), 0) + 1
    rows = []
    for name, cost in sorted(fit.costs.classes.items(), key=lambda item: -numbers.get(item[0], 0)):
        rate = units.si(1 / cost.work_s, "MAC/s" if name in PRODUCTS else "/s")
        found = errors.get(name, [])
        formula = units.percent(sum(a for a, _ in found) / len(found)) if found else units.UNKNOWN
        shipped = units.percent(sum(b for _, b in found) / len(found)) if found else units.UNKNOWN
        points = fit.costs.corrections.get(name)
        rows.append(
            Row((
                name, str(numbers.get(name, 0)), rate, units.seconds(cost.start_s), formula, shipped,
                str(len(points.points)) if points else "no",
            ))
        )  # fmt: skip
    columns = (
        Column("class", _LEFT), Column("timed"), Column("at best"), Column("start"), Column("formula, held out"),
        Column("shipped, held out"), Column("correction"),
    )  # fmt: skip
    notes = [
        "a class is corrected near kernels that were timed only where that brought kernels of unseen families nearer"
    ]
    blocks = [
        abs(each.corrected_s / each.timed.seconds - 1)
        for each in fit.held_out
        if each.timed.is_block and each.corrected_s and each.timed.seconds
    ]
    if blocks:
        notes.append(
            f"{len({each.timed.wanted for each in fit.held_out if each.timed.is_block})} blocks of networks, without their "
            f"family: mean error {units.percent(sum(blocks) / len(blocks))}, within 10% "
            f"{units.percent(sum(error <= 0.1 for error in blocks) / len(blocks))}"
        )
    return Table(columns, tuple(rows), title="classes of kernels", notes=tuple(notes))


def _networks(networks: list[Summed], s: Score) -> Table:
    rows = [
        Row((
            each.name, each.family, units.milliseconds(each.timed_s), units.milliseconds(each.predicted_s),
            units.ratio(each.predicted_s / each.timed_s - 1), units.percent(each.share),
        ))
        for each in networks
    ]  # fmt: skip
    half = halfwidth(networks)
    columns = (
        Column("network", _LEFT), Column("family", _LEFT), Column("as timed"), Column("predicted"), Column("error"),
        Column("of its time"),
    )  # fmt: skip
    return Table(
        columns,
        tuple(rows),
        title="networks as sums of their timed kernels, and blocks, predicted by a fit that has not seen their family",
        notes=(
            f"{s.networks} sums of {s.families} families: mean error {units.percent(s.mape)}, within 5% "
            f"{units.percent(s.within_5)}, within 10% {units.percent(s.within_10)}, worst family {s.worst_family} "
            f"{units.percent(s.worst_mape)}",
            f"{units.percent(INTERVAL)} interval: -{units.percent(-expm1(-half))} +{units.percent(expm1(half))}; "
            "whole networks may be further off, since none was timed: vitscope measure tells",
        ),
    )


def refined_table(networks: list[Refined], costs: ClassCosts) -> Table:
    """Networks that were timed to refine: as kernels alone predict them, and refined on other families."""
    rows = tuple(
        Row((
            each.network.name, each.network.family, units.milliseconds(each.network.measured_s),
            units.milliseconds(each.alone_s), units.ratio(each.alone_s / each.network.measured_s - 1),
            units.milliseconds(each.refined_s), units.ratio(each.refined_s / each.network.measured_s - 1),
        ))
        for each in networks
    )  # fmt: skip
    columns = (
        Column("network", _LEFT), Column("family", _LEFT), Column("measured"), Column("kernels alone"), Column("error"),
        Column("refined without its family"), Column("error"),
    )  # fmt: skip
    note = f"refined: every kernel takes {costs.scale:.3f} of its time alone, and {costs.more_s * 1e6:+.2f} µs"
    return Table(columns, rows, title="whole networks", notes=(note,))
