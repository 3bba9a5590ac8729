"""A Comparison as tables for people, as JSON and as CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from vitscope import __version__
from vitscope.compare import Change, Comparison, StageChange
from vitscope.report.measure import measurement_json, warning_lines
from vitscope.report.profile import SCHEMA_VERSION, predicted_cell, prediction_text, profile_title
from vitscope.report.table import Column, Row, Table
from vitscope.units import UNKNOWN, count, fixed_milliseconds, percent, ratio, significant, size


def compare_tables(comparison: Comparison) -> tuple[Table, ...]:
    """Three tables: keys of the spec, totals with the verdict, stages."""
    return tuple(t for t in (_fields(comparison), _totals(comparison), _stages(comparison)) if t.rows or t.notes)


def _names(c: Comparison) -> tuple[str, str]:
    """What the columns are headed: the names, or for a name that carries its settings its first word and a star."""
    short = [name if len(name) <= _NAME else f"{name.split()[0]}*" for name in (c.a.name, c.b.name)]
    return short[0], short[1] if short[1] != short[0] else f"{short[1]}*"


_NAME = 30  # characters of a heading; titles carry the whole name


def _fields(c: Comparison) -> Table:
    rows = tuple(Row((f.path, _value(f.a), _value(f.b))) for f in c.fields)
    a, b = _names(c)
    columns = (Column("spec", "left"), Column(a, "left"), Column(b, "left"))
    title = f"{profile_title(c.a)}\nagainst\n{profile_title(c.b)}"
    return Table(columns, rows, title=title, notes=() if rows else (_no_fields(c),))


def _no_fields(c: Comparison) -> str:
    without = [p.name for p in (c.a, c.b) if not p.document]
    return (
        f"no spec to compare key by key: {', '.join(dict.fromkeys(without))}" if without else "the specs do not differ"
    )


def _value(value: Any) -> str:
    return UNKNOWN if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _totals(c: Comparison) -> Table:
    rows = [_change_row(change, _format_of(change.metric)) for change in c.totals]
    for i, latency in enumerate(c.latencies):
        row = _change_row(latency.change, fixed_milliseconds)
        both = predicted_cell(c.a.predictions[i]), predicted_cell(c.b.predictions[i])
        rows.append(replace(row, cells=(row.cells[0], *both, *row.cells[3:])))
    rows += [_change_row(measured.change, fixed_milliseconds) for measured in c.measured]
    rows += [_change_row(change, significant) for change in c.mes]
    a, b = _names(c)
    columns = (Column("total", "left"), Column(a), Column(b), Column("change"), Column("relative"))
    notes = []
    for i, latency in enumerate(c.latencies):
        d = latency.difference
        notes += [f"{who} on {prediction_text(x.predictions[i])}" for who, x in ((a, c.a), (b, c.b))]
        if d.delta_s is None or d.low_s is None or d.high_s is None:
            notes.append(f"{latency.device}: {d.verdict}")
            continue
        winner = {"A faster": f"{a} is faster", "B faster": f"{b} is faster"}.get(d.verdict, d.verdict)
        notes.append(
            f"{latency.device}: {winner} (difference {_signed(d.delta_s)}, {percent(d.interval)} interval "
            f"{_signed(d.low_s)} to {_signed(d.high_s)})"
        )
    for measured in c.measured:
        found = replace(measured.contrast, a=a, b=b)
        notes.append(f"{measured.change.metric}: {found.verdict}")
    notes += warning_lines([m for measured in c.measured for m in (measured.a, measured.b)])
    verdict = c.verdict.replace(c.b.name, b) if c.b.name != c.a.name else c.verdict
    return Table(columns, tuple(rows), notes=(*dict.fromkeys(notes), verdict))


def _format_of(metric: str) -> Callable[[float], str]:
    return (lambda v: size(int(v))) if metric in ("peak memory", "bytes moved") else (lambda v: count(int(v)))


def _change_row(change: Change, form: Callable[[float], str]) -> Row:
    def cell(value: float | None) -> str:
        return UNKNOWN if value is None else form(value)

    if change.delta is None:
        delta = UNKNOWN
    else:
        delta = "0" if change.delta == 0 else ("+" if change.delta > 0 else "-") + form(abs(change.delta))
    good = change.delta is not None and change.delta != 0 and (change.delta < 0) == (change.better == "low")
    style = "" if not change.delta else "good" if good else "bad"
    return Row((change.metric, cell(change.a), cell(change.b), delta, ratio(change.relative)), style=style)


def _signed(seconds: float) -> str:
    return ("+" if seconds >= 0 else "-") + fixed_milliseconds(abs(seconds))


def _stages(c: Comparison) -> Table:
    columns = [Column("stage", "left")]
    for change in c.stages[0].changes:
        columns += [Column(change.metric), Column("change"), Column("relative")]
    a, b = _names(c)
    note = f"values are those of {b}, changes against {a}"
    return Table(tuple(columns), tuple(_stage_row(stage, c) for stage in c.stages), notes=(note,))


def _stage_row(stage: StageChange, c: Comparison) -> Row:
    a, b = _names(c)
    owner = {"": "", "a": f" (only {a})", "b": f" (only {b})"}[stage.only]
    cells = [stage.path + owner]
    moved = False
    for change in stage.changes:
        timed = change.metric not in ("params", "MACs")
        form: Callable[[float], str] = fixed_milliseconds if timed else (lambda v: count(int(v)))
        row = _change_row(change, form)
        cells += [row.cells[2], row.cells[3], row.cells[4]]
        moved = moved or bool(change.delta)
    return Row(tuple(cells), style="" if moved else "dim")


def comparisons_json(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Raw numbers: totals in scalars, bytes and seconds; `relative` is (b − a) / a."""

    def change(c: Change) -> dict[str, Any]:
        return asdict(c) | {"delta": c.delta, "relative": c.relative}

    return {
        "schema_version": SCHEMA_VERSION,
        "vitscope_version": __version__,
        "comparisons": [
            {
                "a": c.a.name,
                "b": c.b.name,
                "form": [c.a.form, c.b.form],
                "input": [list(c.a.input), list(c.b.input)],
                "fields": [asdict(f) for f in c.fields],
                "totals": [change(t) for t in c.totals],
                "latency": [
                    {"device": lat.device, **change(lat.change), "difference": asdict(lat.difference)}
                    for lat in c.latencies
                ],
                "measured": [
                    {
                        "runtime": m.a.condition.runtime,
                        **change(m.change),
                        "contrast": asdict(m.contrast) | {"verdict": m.contrast.verdict},
                        "measurements": [measurement_json(m.a), measurement_json(m.b)],
                    }
                    for m in c.measured
                ],
                "mes": [change(m) for m in c.mes],
                "stages": [
                    {"path": s.path, "only": s.only, "changes": [change(x) for x in s.changes]} for s in c.stages
                ],
                "verdict": c.verdict,
            }
            for c in comparisons
        ],
    }


def _timed(c: Comparison) -> list[Change]:
    return [*(latency.change for latency in c.latencies), *(measured.change for measured in c.measured)]


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """One line a quantity: totals, latencies, scores, then each stage's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["a", "b", "part", "metric", "value_a", "value_b", "delta", "relative"])
    for c in comparisons:
        changes = [("total", change) for change in (*c.totals, *_timed(c), *c.mes)]
        changes += [(stage.path, change) for stage in c.stages for change in stage.changes]
        for part, x in changes:
            numbers = ["" if v is None else repr(v) for v in (x.a, x.b, x.delta, x.relative)]
            writer.writerow([c.a.name, c.b.name, part, x.metric, *numbers])
    return text.getvalue()
