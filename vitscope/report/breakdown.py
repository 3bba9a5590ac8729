"""Where the time of a measured network went, by block or stage: a table, and what stands beside the rows of a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from vitscope.export.artifact import block_of
from vitscope.measure.record import Attribution, Measurement
from vitscope.report.measure import runtime_among
from vitscope.report.table import Column, Row, Table
from vitscope.units import fixed_milliseconds, milliseconds, percent

_LEFT: Literal["left"] = "left"
UNEXPLAINED = "(unexplained)"


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
