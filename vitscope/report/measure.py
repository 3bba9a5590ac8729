"""Measurements as a table for people, where the time went by block, and JSON with every sample for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from vitscope import __version__
from vitscope.export.artifact import block_of
from vitscope.measure.plan import Case, Failure
from vitscope.measure.record import Attribution, Condition, Measurement, Protocol
from vitscope.report.table import Column, Row, Table
from vitscope.units import UNKNOWN, fixed_milliseconds, milliseconds, percent, seconds

SCHEMA_VERSION = 1
_LEFT: Literal["left"] = "left"
_NAMED = 3  # rows that a warning names before it counts the rest
UNEXPLAINED = "(unexplained)"


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


# ---- where the time went


def stage_of(path: str) -> str:
    """The part of a network that a block stands in: `stages.2` of `stages.2.blocks.3`, `layer1` of `layer1.0`."""
    parts = path.split(".")
    return ".".join(parts[: 2 if len(parts) > 2 else 1])


def part_times(attribution: Attribution, by: str = "block") -> dict[str, tuple[float, str]]:
    """Seconds and unit of each block, or stage, in the order of the network; what no block explains comes last."""
    found: dict[str, tuple[float, str]] = {}
    for block in attribution.blocks:
        name = UNEXPLAINED if block.path is None else stage_of(block.path) if by == "stage" else block.path
        seconds, unit = found.get(name, (0.0, block.unit))
        units = dict.fromkeys(u for u in [*unit.split("+"), *block.unit.split("+")] if u)
        found[name] = (seconds + block.seconds, "+".join(units))
    if UNEXPLAINED in found:
        found[UNEXPLAINED] = found.pop(UNEXPLAINED)
    return found


def row_times(paths: Sequence[str], m: Measurement) -> dict[str, float]:
    """Seconds of each of `paths`, the rows of a profile, and of `UNEXPLAINED`; empty where the runtime tells nothing.

    A block's time goes to the row that it is or lies in, so that the rows add up to the median.
    """
    found: dict[str, float] = {}
    for block in m.attribution.blocks if m.attribution is not None else ():
        row = None if block.path is None else block_of(block.path, tuple(paths))
        found[row or UNEXPLAINED] = found.get(row or UNEXPLAINED, 0.0) + block.seconds
    return found


def breakdown_tables(measurements: Sequence[Measurement], by: str) -> list[Table]:
    """One table a network: rows are its blocks or stages, columns what was measured of it. Columns add up."""
    networks: dict[tuple[str, str, tuple[int, ...]], list[Measurement]] = {}
    for m in measurements:
        c = m.condition
        networks.setdefault((c.model, c.digest, c.input_shape), []).append(m)
    return [_breakdown(group, by) for group in networks.values()]


def _breakdown(group: Sequence[Measurement], by: str) -> Table:
    told = [m for m in group if m.attribution is not None]
    columns, notes = [Column(by, _LEFT)], []
    times: list[dict[str, tuple[float, str]]] = []
    for m in told:
        assert m.attribution is not None
        times.append(part_times(m.attribution, by))
        columns += [Column(column_title(m, group)), Column("share")]
        columns += [Column("unit", _LEFT)] if _tells_units(m, times[-1]) else []
        notes.append(attribution_text(m))
    notes += dict.fromkeys(attribution_text(m) for m in group if m.attribution is None)
    paths = list(dict.fromkeys(path for column in times for path in column if path != UNEXPLAINED))
    paths += [UNEXPLAINED] if any(UNEXPLAINED in column for column in times) else []
    rows = [Row(_part_cells(path, times, told), style="dim" if path == UNEXPLAINED else "") for path in paths]
    total = ["total"]
    for m, column in zip(told, times, strict=True):
        total += [fixed_milliseconds(m.summary.latency_p50_s), "100%"]
        total += [""] if _tells_units(m, column) else []
    c = group[0].condition
    title = f"{c.model} · {'×'.join(map(str, c.input_shape))} · {c.form} form: where the time went"
    return Table(
        tuple(columns), tuple(rows), title=title, footer=(Row(tuple(total)),) if told else (), notes=tuple(notes)
    )


def _part_cells(
    path: str, times: Sequence[dict[str, tuple[float, str]]], told: Sequence[Measurement]
) -> tuple[str, ...]:
    cells = [path]
    for m, column in zip(told, times, strict=True):
        seconds, unit = column.get(path, (None, ""))
        share = None if seconds is None else seconds / m.summary.latency_p50_s
        cells += [fixed_milliseconds(seconds), percent(share)]
        cells += [unit] if _tells_units(m, column) else []
    return tuple(cells)


def _tells_units(m: Measurement, times: Mapping[str, tuple[float, str]]) -> bool:
    """Whether some part ran elsewhere than the row says: Core ML's plan does, a CPU's profile has nothing to add."""
    return any(unit not in ("", m.condition.unit) for _, unit in times.values())


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


def column_title(m: Measurement, beside: Sequence[Measurement]) -> str:
    """What heads the seconds of `m` beside those of others: `onnxruntime int8, measured`."""
    return f"{runtime_among(m, beside)}, {m.attribution.how if m.attribution is not None else 'measured'}"


def attribution_text(m: Measurement) -> str:
    """One line: whose profile the shares are of, how they were had, and what they leave unexplained."""
    a = m.attribution
    if a is None:
        said = next((note for note in m.notes if note.startswith("where the time went")), "")
        return f"{m.condition.runtime}: {said or 'the runtime does not tell the time of its operations'}"
    how = (
        f"each operation timed by {a.source}"
        if a.how == "measured"
        else f"estimated from the cost weights of {a.source}"
    )
    text = f"{m.condition.runtime}: {how}, scaled to the median of the unprofiled runs; {percent(a.unexplained)} unexplained"
    if a.how == "measured" and a.profiled_s:
        text += f" (the profiled run took {milliseconds(a.profiled_s)})"
    return text


# ---- for programs


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
