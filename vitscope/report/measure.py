"""Measurements as a table for people, as CSV, and as JSON with every sample for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from vitscope import __version__
from vitscope.measure.plan import Failure
from vitscope.measure.record import Condition, Measurement
from vitscope.report.table import Column, Row, Table
from vitscope.units import UNKNOWN, fixed_milliseconds, milliseconds, percent

SCHEMA_VERSION = 1
_LEFT: Literal["left"] = "left"
_NAMED = 3  # rows that a warning names before it counts the rest


def measure_table(measurements: Sequence[Measurement], failures: Sequence[Failure] = ()) -> Table:
    """One row a measurement, in the order given, then one a failure with its reason; warnings are gathered below."""
    conditions = [m.condition for m in measurements]
    sized = len({c.input_shape for c in conditions}) > 1
    placed = len({(c.target, c.host) for c in conditions}) > 1
    split = bool({*(c.unit for c in conditions), *(f.unit for f in failures)} - {"cpu"})
    columns = [Column("model", _LEFT)]
    columns += [Column("input")] if sized else []
    columns += [Column("target", _LEFT)] if placed else []
    columns += [Column("runtime", _LEFT), Column("precision", _LEFT)]
    columns += [Column("unit", _LEFT)] if split else []
    columns += [
        Column("threads"),
        Column("p50"),
        Column("p90"),
        Column("95% interval of p50", _LEFT),
        Column("samples"),
    ]
    remarked = bool(failures) or any(m.unstable or m.warnings for m in measurements)
    columns += [Column("remarks", _LEFT)] if remarked else []

    def row(
        model: str, shape: str, target: str, runtime: str, precision: str, unit: str, threads: int,
        figures: tuple[str, str, str, str], remark: str, bad: bool,
    ) -> Row:  # fmt: skip
        cells = [model]
        cells += [shape] if sized else []
        cells += [target] if placed else []
        cells += [runtime, precision]
        cells += [unit] if split else []
        cells += [str(threads), *figures]
        cells += [remark] if remarked else []
        return Row(tuple(cells), style="bad" if bad else "")

    rows = [
        row(
            m.condition.model, "×".join(map(str, m.condition.input_shape)), m.condition.target, runtime_text(m.condition),
            m.condition.precision, m.condition.unit, m.condition.threads, _figures(m), _remark(m), False,
        )
        for m in measurements
    ]  # fmt: skip
    unknown = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    rows += [
        row(f.model, UNKNOWN, UNKNOWN, f.runtime, f.precision, f.unit, f.threads, unknown, f.reason, True)
        for f in failures
    ]
    return Table(
        tuple(columns),
        tuple(rows),
        title=_title(conditions),
        notes=(*warning_lines(measurements), *note_lines(measurements)),
    )


def measurement_text(m: Measurement) -> str:
    """One line: a median with its interval, and the conditions it holds under."""
    c, s = m.condition, m.summary
    unit = "" if c.unit == "cpu" else f", {c.unit}"
    threads = f"{c.threads} thread{'s' if c.threads != 1 else ''}"
    return (
        f"{runtime_text(c)} on {c.target} ({c.processor}{unit}, {c.precision}, batch {c.batch}, {threads}): "
        f"{milliseconds(s.latency_p50_s)} measured, {percent(s.confidence)} interval of the median "
        f"{milliseconds(s.low_s)} to {milliseconds(s.high_s)}, p90 {milliseconds(s.latency_p90_s)}, "
        f"{s.samples:,} samples{', unstable' if m.unstable else ''}"
    )


def runtime_text(condition: Condition) -> str:
    """`onnxruntime 1.31.1`."""
    return f"{condition.runtime} {condition.runtime_version}".strip()


def _figures(m: Measurement) -> tuple[str, str, str, str]:
    s = m.summary
    interval = f"{fixed_milliseconds(s.low_s)} to {fixed_milliseconds(s.high_s)}"
    return fixed_milliseconds(s.latency_p50_s), fixed_milliseconds(s.latency_p90_s), interval, f"{s.samples:,}"


def _remark(m: Measurement) -> str:
    count = len(m.warnings)
    warned = f"{count} warning{'s' if count > 1 else ''}" if count else ""
    return ", ".join(word for word in ("unstable" if m.unstable else "", warned) if word)


def _title(conditions: Sequence[Condition]) -> str:
    """Where and of what: everything that all rows share, so that the table can be read on its own."""
    if not conditions:
        return ""
    places = list(dict.fromkeys(f"{c.host} ({c.processor}, {c.system})" for c in conditions))
    forms = " and ".join(dict.fromkeys(c.form for c in conditions))
    batches = ", ".join(dict.fromkeys(str(c.batch) for c in conditions))
    cores = {c.affinity for c in conditions}
    parts = [f"measured on {'; '.join(places)}", f"{forms} form", f"batch {batches}"]
    if len(cores) == 1 and (held := next(iter(cores))):
        parts.append(f"cores {','.join(map(str, held))}")
    return " · ".join(parts)


def warning_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Each warning once, with the rows that it is about."""
    about: dict[str, list[str]] = {}
    for m in measurements:
        c = m.condition
        same = [
            other for other in measurements if (other.condition.model, other.condition.runtime) == (c.model, c.runtime)
        ]
        for warning in m.warnings:
            about.setdefault(warning, []).append(f"{c.model} on {runtime_among(m, same)}")
    lines = []
    for warning, names in about.items():
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        lines.append(f"{', '.join(names[:_NAMED])}{more}: {warning}")
    return lines


def note_lines(measurements: Sequence[Measurement]) -> list[str]:
    """How each runtime did it, in its exporter's and its own words: what is true of all of its rows."""
    lines = []
    for runtime in dict.fromkeys(m.condition.runtime for m in measurements):
        rows = [m.notes for m in measurements if m.condition.runtime == runtime]
        shared = [note for note in dict.fromkeys(rows[0]) if all(note in notes for notes in rows)]
        if shared:
            lines.append(f"{runtime}: {'; '.join(shared)}")
    return lines


def runtime_among(m: Measurement, beside: Sequence[Measurement]) -> str:
    """The runtime of `m`, with what tells it from the others of `beside`: `onnxruntime int8 4 threads`."""
    tells: tuple[Callable[[Condition], str], ...] = (
        lambda x: "×".join(map(str, x.input_shape)),
        lambda x: x.precision,
        lambda x: "" if x.unit == "cpu" else x.unit,
        lambda x: f"{x.threads} thread{'s' if x.threads != 1 else ''}",
    )
    parts = [tell(m.condition) for tell in tells if len({tell(other.condition) for other in beside}) > 1]
    return " ".join([m.condition.runtime, *(part for part in parts if part)])


def measurement_json(m: Measurement) -> dict[str, Any]:
    """Everything that is known of a measurement, every sample included; seconds, bytes and Hz."""
    return asdict(m)


def measurements_json(measurements: Sequence[Measurement], failures: Sequence[Failure] = ()) -> dict[str, Any]:
    """`schema_version` changes when a key changes its meaning or goes."""
    return {
        "schema_version": SCHEMA_VERSION,
        "vitscope_version": __version__,
        "measurements": [measurement_json(m) for m in measurements],
        "failures": [asdict(f) for f in failures],
    }


def measurements_csv(measurements: Sequence[Measurement], failures: Sequence[Failure] = ()) -> str:
    """One line a measurement in seconds, and one a failure whose figures are empty and whose reason is not."""
    text = io.StringIO()
    fields = [
        "model", "form", "input", "batch", "precision", "target", "host", "processor", "system", "runtime",
        "runtime_version", "unit", "threads", "latency_p50_s", "latency_p90_s", "latency_low_s", "latency_high_s",
        "samples", "unstable", "warnings", "error",
    ]  # fmt: skip
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for m in measurements:
        c, s = m.condition, m.summary
        writer.writerow(
            {
                "model": c.model, "form": c.form, "input": "x".join(map(str, c.input_shape[1:])), "batch": c.batch,
                "precision": c.precision, "target": c.target, "host": c.host, "processor": c.processor,
                "system": c.system, "runtime": c.runtime, "runtime_version": c.runtime_version, "unit": c.unit,
                "threads": c.threads, "latency_p50_s": repr(s.latency_p50_s), "latency_p90_s": repr(s.latency_p90_s),
                "latency_low_s": repr(s.low_s), "latency_high_s": repr(s.high_s), "samples": s.samples,
                "unstable": "yes" if m.unstable else "no", "warnings": "; ".join(m.warnings),
            }
        )  # fmt: skip
    for f in failures:
        known = {"model": f.model, "runtime": f.runtime, "precision": f.precision, "unit": f.unit}
        writer.writerow({**known, "threads": f.threads, "error": f.reason})
    return text.getvalue()
