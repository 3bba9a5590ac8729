"""The table, the JSON and the CSV of a Pareto front."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from vitscope import units
from vitscope.pareto import Axis, FrontData, Point, Prototype
from vitscope.report.table import Column, Row, Table

SCHEMA_VERSION = 1


def cell(value: float | None, axis: Axis) -> str:
    """A number as a person reads it: latency always in ms, counts in SI steps, the rest with three figures."""
    if value is None:
        return units.UNKNOWN
    if axis.unit == "s":
        return units.milliseconds(value)
    if axis.unit in ("count", "B"):
        return units.si(value, "B" if axis.unit == "B" else "")
    return units.significant(value, 4 if abs(value) >= 100 else 3)


def front_table(data: FrontData) -> Table:
    """Points in order of x with their state, then prototypes, then the rows left out; notes below."""
    axes = [data.x, data.y, *([data.size] if data.size else []), *data.also]
    columns = (
        Column("model", "left"),
        Column("family", "left"),
        *(Column(_heading(axis)) for axis in axes),
        Column("state", "left"),
        Column("dominated by", "left"),
    )
    rows = []
    for point in data.points:
        numbers = [point.x, point.y, *([point.size] if data.size else []), *point.also]
        cells = (point.label, point.family, *map(cell, numbers, axes), _state(point), _label(data, point.dominated_by))
        rows.append(Row(cells, style="good" if point.dominated_by is None else ""))
    for prototype in data.prototypes:
        numbers = [prototype.x, prototype.y, *([prototype.size] if data.size else [])]
        blank = [units.UNKNOWN] * len(data.also)
        cells = tuple(map(cell, numbers, axes))
        name = f"{prototype.label} (predicted)"
        rows.append(
            Row((name, "", *cells, *blank, prototype.verdict, _label(data, prototype.dominated_by)), style="strong")
        )
    for row in data.omitted:
        blank = [units.UNKNOWN] * len(axes)
        rows.append(Row((row.label, row.family, *blank, "left out", f"({row.reason})"), style="dim"))
    notes = (*(prototype_note(data, prototype) for prototype in data.prototypes), *data.notes)
    where = f" on {data.device}" if data.device else ""
    title = f"{data.x.title}{where} against {data.y.title}: {len(data.front)} of {len(data.points)} on the front"
    return Table(columns, tuple(rows), title=title, notes=notes)


def prototype_note(data: FrontData, prototype: Prototype) -> str:
    """One sentence of what the prediction means for a prototype, interval included."""
    level = "" if prototype.interval is None else f"{units.percent(prototype.interval)} interval "
    covers = "" if prototype.coverage >= 1 else f", covers {units.percent(prototype.coverage)} of the work"
    x = f"{level}{cell(prototype.low, data.x)} to {cell(prototype.high, data.x)}{covers}"
    how = "predicted" if data.x.unit == "s" else "computed"
    start = f"{prototype.label}: {how} {cell(prototype.x, data.x)}" + (
        f" ({x})" if prototype.low < prototype.high else ""
    )
    start += f" on {prototype.device}, " if prototype.device else ", "
    if prototype.verdict == "no accuracy":
        better = "below" if data.y.minimize else "above"
        if prototype.to_beat is None:
            return start + f"better on {data.x.title} than every point: on the front whatever its {data.y.title}"
        rival = data.points[prototype.to_beat]
        ends = [_y_of(data, prototype.to_beat_low), _y_of(data, prototype.to_beat_high)]
        over = f"; over the interval {ends[0]} to {ends[1]}" if ends[0] != ends[1] else ""
        return start + f"on the front with {data.y.title} {better} {cell(rival.y, data.y)} ({rival.label}){over}"
    if prototype.verdict == "undecided":
        return start + "on the front at one end of its interval and dominated at the other"
    return start + (
        "on the front over its whole interval" if prototype.verdict == "front" else "dominated over its whole interval"
    )


def front_json(data: FrontData) -> str:
    """Raw numbers in base units under the axes' keys; every axis also names the files' own columns."""
    axes = [data.x, data.y, *([data.size] if data.size else []), *data.also]
    points: list[dict[str, Any]] = []
    for point in data.points:
        numbers = [point.x, point.y, *([point.size] if data.size else []), *point.also]
        points.append(
            {
                "label": point.label,
                "family": point.family or None,
                **{axis.key: _raw(value, axis) for axis, value in zip(axes, numbers, strict=True)},
                "on_front": point.dominated_by is None,
                "dominated_by": _label(data, point.dominated_by) or None,
                "source": point.source,
            }
        )
    document = {
        "schema_version": SCHEMA_VERSION,
        "x": _axis(data.x),
        "y": _axis(data.y),
        "size": _axis(data.size) if data.size else None,
        "also": [_axis(axis) for axis in data.also],
        "device": data.device,
        "points": points,
        "predicted": [_prototype(data, prototype) for prototype in data.prototypes],
        "left_out": [
            {"label": o.label, "family": o.family or None, "reason": o.reason, "source": o.source} for o in data.omitted
        ],
        "notes": list(data.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def front_csv(data: FrontData) -> str:
    """The points, the prototypes and the rows left out, told apart by `state`; an unknown is an empty cell."""
    axes = [data.x, data.y, *([data.size] if data.size else []), *data.also]
    keys = list(dict.fromkeys(axis.key for axis in axes))
    out = io.StringIO()
    fields = ["label", "family", *keys, "low", "high", "state", "dominated_by", "source"]
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for point in data.points:
        numbers = [point.x, point.y, *([point.size] if data.size else []), *point.also]
        writer.writerow(
            {"label": point.label, "family": point.family, "source": point.source}
            | {axis.key: _raw(value, axis) for axis, value in zip(axes, numbers, strict=True)}
            | {"state": _state(point), "dominated_by": _label(data, point.dominated_by)}
        )
    for p in data.prototypes:
        numbers = [p.x, p.y, *([p.size] if data.size else [])]
        writer.writerow(
            {"label": p.label, "low": p.low, "high": p.high, "source": f"predicted {p.device}".strip()}
            | {axis.key: _raw(value, axis) for axis, value in zip(axes, numbers, strict=False)}
            | {"state": f"predicted: {p.verdict}", "dominated_by": _label(data, p.dominated_by)}
        )
    for row in data.omitted:
        state = f"left out: {row.reason}"
        writer.writerow({"label": row.label, "family": row.family, "state": state, "source": row.source})
    return out.getvalue()


def _prototype(data: FrontData, p: Prototype) -> dict[str, Any]:
    numbers = [(data.x, p.x), (data.y, p.y), *([(data.size, p.size)] if data.size else [])]
    rivals = {"at_low": p.to_beat_low, "at_x": p.to_beat, "at_high": p.to_beat_high}
    return {
        "label": p.label,
        "device": p.device or None,
        **{axis.key: _raw(value, axis) for axis, value in numbers},
        "low": p.low,
        "high": p.high,
        "interval": p.interval,
        "coverage": p.coverage,
        "verdict": p.verdict,
        "dominated_by": _label(data, p.dominated_by) or None,
        "to_beat": {end: _rival(data, i) for end, i in rivals.items()} if p.y is None else None,
    }


def _rival(data: FrontData, index: int | None) -> dict[str, Any] | None:
    return (
        None if index is None else {"label": data.points[index].label, data.y.key: _raw(data.points[index].y, data.y)}
    )


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "key": axis.key,
        "columns": list(axis.columns),
        "unit": axis.unit or None,
        "better": "low" if axis.minimize else "high",
    }


def _raw(value: float | None, axis: Axis) -> float | int | None:
    return int(value) if value is not None and axis.unit in ("count", "B") and value == int(value) else value


def _state(point: Point) -> str:
    return "front" if point.dominated_by is None else "dominated"


def _heading(axis: Axis) -> str:
    return axis.key.removesuffix("_s") if axis.unit == "s" else axis.key


def _label(data: FrontData, index: int | None) -> str:
    return "" if index is None else data.points[index].label


def _y_of(data: FrontData, index: int | None) -> str:
    return "any" if index is None else cell(data.points[index].y, data.y)
