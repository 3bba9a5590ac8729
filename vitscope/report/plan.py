"""What `vitscope measure --dry-run` would do: a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from vitscope import __version__
from vitscope.measure.plan import Case
from vitscope.measure.record import Protocol
from vitscope.report.measure import SCHEMA_VERSION
from vitscope.report.table import Column, Row, Table
from vitscope.units import seconds

_LEFT: Literal["left"] = "left"


def plan_table(
    cases: Sequence[Case], there: Mapping[str, str], missing: Mapping[str, Exception], target: str, protocol: Protocol
) -> Table:
    """What would be measured, what is missing for the rest, and the least time that it takes."""
    columns = [Column("model", _LEFT), Column("runtime", _LEFT), Column("precision", _LEFT), Column("unit", _LEFT)]
    columns += [Column("threads"), Column("file", _LEFT), Column("", _LEFT)]
    rows = []
    for case in cases:
        version = there.get(case.runtime)
        runtime = case.runtime if version is None else f"{case.runtime} {version}"
        state = "would be measured" if version is not None else str(missing[case.runtime])
        cells = (case.network.label, runtime, case.precision, case.unit, str(case.threads), case.format, state)
        rows.append(Row(cells, style="" if version is not None else "bad"))
    least = least_s(cases, there, protocol)
    note = (
        f"{sum(case.runtime in there for case in cases)} rows of {protocol.processes} processes: at least "
        f"{seconds(least)} of warm-up and samples, beside exporting and loading"
    )
    return Table(tuple(columns), tuple(rows), title=f"to be measured on {target}", notes=(note,))


def least_s(cases: Sequence[Case], there: Mapping[str, str], protocol: Protocol) -> float:
    """Seconds that the warm-ups and blocks of a plan take when every network is quick."""
    rows = sum(case.runtime in there for case in cases)
    return rows * protocol.processes * (protocol.warm_s + protocol.blocks * protocol.block_s)


def plan_json(
    cases: Sequence[Case], there: Mapping[str, str], missing: Mapping[str, Exception], target: str, protocol: Protocol
) -> dict[str, Any]:
    """The plan with its protocol; `missing` is null where the runtime is there."""
    return {
        "schema_version": SCHEMA_VERSION,
        "vitscope_version": __version__,
        "target": target,
        "protocol": asdict(protocol),
        "least_s": least_s(cases, there, protocol),
        "cases": list(_plan_rows(cases, there, missing)),
    }


def plan_csv(cases: Sequence[Case], there: Mapping[str, str], missing: Mapping[str, Exception]) -> str:
    """One line a case."""
    text = io.StringIO()
    rows = list(_plan_rows(cases, there, missing))
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _plan_rows(
    cases: Sequence[Case], there: Mapping[str, str], missing: Mapping[str, Exception]
) -> Iterator[dict[str, Any]]:
    for case in cases:
        yield {
            "model": case.network.label, "form": case.network.form, "batch": case.network.batch,
            "runtime": case.runtime, "runtime_version": there.get(case.runtime), "precision": case.precision,
            "unit": case.unit, "threads": case.threads, "format": case.format,
            "missing": str(missing[case.runtime]) if case.runtime in missing else None,
        }  # fmt: skip
