"""The Pareto front of a table of results: which models nothing beats on all objectives, and what beats the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from vitscope.errors import UsageError
from vitscope.results import (
    MISSING,
    Column,
    Condition,
    ResultTable,
    choose,
    find_column,
    look_up,
    numbers,
)

Duplicates = Literal["keep", "first", "best", "median"]

# What an axis holds when the command line does not say: the first that every file has and some chosen row gives.
DEFAULT_X = ("latency", "latency_p50")
DEFAULT_Y = ("top1", "accuracy", "miou", "map")
DENSE = ("miou", "map")  # accuracies that mean nothing without their dataset
DEFAULT_SIZE = ("params", "macs", "artifact_bytes")
DEFAULT_LABEL = ("model", "name", "label", "architecture")


@dataclass(frozen=True, slots=True)
class Axis:
    """One objective, or the bubbles' size. `key` names it in JSON and CSV, in the base unit; `columns` are the files' own."""

    key: str
    columns: tuple[str, ...]
    title: str
    unit: str
    minimize: bool


@dataclass(frozen=True, slots=True)
class Point:
    """One model of the table. `dominated_by` is an index into the points; None on the front."""

    label: str
    family: str
    x: float
    y: float
    size: float | None
    also: tuple[float, ...]
    source: str
    row: int  # its place among the rows read: the order in which a ladder of steps was written
    dominated_by: int | None = None


@dataclass(frozen=True, slots=True)
class Omitted:
    """A row that could not be placed, and why."""

    label: str
    family: str
    reason: str
    source: str


Verdict = Literal["front", "dominated", "undecided", "no accuracy"]


@dataclass(frozen=True, slots=True)
class Prototype:
    """A candidate among the points, judged against their front and never part of it: a prediction beats no measurement.

    `verdict` holds over the whole interval `low`…`high` of x; a prototype that is on the front at one end and dominated at the
    other is `undecided`. Where `y` is unknown, `to_beat` is the best published point that is no worse on x (None: nothing is),
    at the predicted x and, in `to_beat_low` and `to_beat_high`, at the ends of the interval. `coverage` is the share of its
    work that the predictor knows, `interval` the nominal share of networks whose x lies between `low` and `high`.
    """

    label: str
    device: str
    x: float
    low: float
    high: float
    y: float | None
    size: float | None
    verdict: Verdict
    dominated_by: int | None
    to_beat: int | None
    to_beat_low: int | None
    to_beat_high: int | None
    coverage: float = 1.0
    interval: float | None = None


@dataclass(frozen=True, slots=True)
class FrontData:
    """All that a table or a figure of the front shows. Points are in order of x; nothing in here knows how it is drawn."""

    x: Axis
    y: Axis
    size: Axis | None
    also: tuple[Axis, ...]
    device: str | None  # when all points are of one device
    points: tuple[Point, ...]
    prototypes: tuple[Prototype, ...]
    omitted: tuple[Omitted, ...]
    notes: tuple[str, ...]
    dataset: str | None = None  # when all points are of one dataset

    @property
    def front(self) -> tuple[int, ...]:
        """Indices of the points that nothing dominates."""
        return tuple(i for i, point in enumerate(self.points) if point.dominated_by is None)

    @property
    def families(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Each family and its points in order of x; the largest first. `other` and `other (timm)` hold what has no family."""
        members: dict[str, list[int]] = {}
        for i, point in enumerate(self.points):
            if point.family and point.family.casefold().split()[0] != "other":
                members.setdefault(point.family, []).append(i)
        return tuple(
            sorted(((name, tuple(m)) for name, m in members.items()), key=lambda item: (-len(item[1]), item[0]))
        )


# ---- dominance


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is at least as low as `b` everywhere and lower somewhere. Objectives to maximise come in negated."""
    return all(p <= q for p, q in zip(a, b, strict=True)) and any(p < q for p, q in zip(a, b, strict=True))


def pareto_mask(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Which of `costs` (all to be minimised, any number of objectives) no other dominates; equal ones stay together.

    In lexicographic order a point comes after all that dominate it, and whatever dominates it is itself on the front or
    dominated by one that is: comparing with the front found so far is exact.
    """
    mask = [False] * len(costs)
    front: list[Sequence[float]] = []
    for i in sorted(range(len(costs)), key=lambda i: tuple(costs[i])):
        if not any(dominates(member, costs[i]) for member in front):
            mask[i] = True
            front.append(costs[i])
    return mask


def dominators(costs: Sequence[Sequence[float]]) -> list[int | None]:
    """For each point the front member that stands for all that dominate it: the nearest one; None on the front.

    Nearest by straight distance once every objective is scaled to its range over all points, so that no unit weighs more.
    Of equally near members the first in order of `costs` is named.
    """
    mask = pareto_mask(costs)
    front = [i for i, on_front in enumerate(mask) if on_front]
    spans = [(max(column) - min(column)) or 1.0 for column in zip(*costs, strict=True)]

    def distance(i: int, j: int) -> float:
        return math.hypot(*((p - q) / span for p, q, span in zip(costs[i], costs[j], spans, strict=True)))

    return [
        None if mask[i] else min((j for j in front if dominates(costs[j], costs[i])), key=lambda j, i=i: distance(i, j))
        for i in range(len(costs))
    ]


# ---- from tables to points


def front_data(
    tables: Sequence[ResultTable],
    *,
    x: str | None = None,
    y: str | None = None,
    size: str | None = None,
    label: str | None = None,
    family: str | None = None,
    also: Sequence[str] = (),
    x_minimize: bool | None = None,
    y_minimize: bool | None = None,
    conditions: Iterable[Condition] = (),
    duplicates: Duplicates = "keep",
    fill_size: bool = False,
) -> FrontData:
    """Place every row that meets `conditions` and name the front. Words left None take the defaults of this file.

    `also` holds further objectives, each a column or `COLUMN:min` / `COLUMN:max`. Raises UsageError for a column that is not
    there, a cell that is no number, a direction that nobody can know, and a table in which no row has both x and y.
    """
    chosen, notes = choose(tables, conditions)
    x_axis, x_columns = _axis(tables, _word(chosen, x, DEFAULT_X, "--x"), "--x", x_minimize)
    y_axis, y_columns = _axis(tables, _word(chosen, y, DEFAULT_Y, "--y"), "--y", y_minimize)
    further = [_axis(tables, *_further(word)) for word in also]
    measured = [(x_axis, x_columns), (y_axis, y_columns), *further]
    size_word = size or next((w for w in DEFAULT_SIZE if any(look_up(t, w) for t in tables)), None)
    size_axis, size_columns = _size_axis(tables, size_word, explicit=size is not None)
    label_columns = [find_column(table, _word([table], label, DEFAULT_LABEL, "--label"), "--label") for table in tables]
    known = _sizes_by_label(tables, size_columns, label_columns) if fill_size else {}

    points: list[Point] = []
    omitted: list[Omitted] = []
    devices: list[str] = []
    datasets: list[str] = []
    filled = 0
    for t, table in enumerate(chosen):
        labels = _texts(table, label_columns[t])
        names = [label or row.source for label, row in zip(labels, table.rows, strict=True)]
        families = _texts(table, find_column(table, family, "--family") if family else look_up(table, "family"))
        device_of, dataset_of = (_texts(table, look_up(table, name)) for name in ("device", "dataset"))
        objectives = [(axis, numbers(table, columns[t])) for axis, columns in measured]
        column = size_columns[t]
        sizes = numbers(table, column) if column else [None] * len(table.rows)
        for i, row in enumerate(table.rows):
            reason = _reason([(axis, values[i]) for axis, values in objectives])
            if reason:
                omitted.append(Omitted(names[i], families[i], reason, row.source))
                continue
            xs, ys, *rest = [float(values[i] or 0) for _, values in objectives]
            value = sizes[i] if _drawable(sizes[i]) else None
            if value is None and names[i] in known:
                value, filled = known[names[i]], filled + 1
            points.append(Point(names[i], families[i], xs, ys, value, tuple(rest), row.source, len(points)))
            devices.append(device_of[i])
            datasets.append(dataset_of[i])
    if not points:
        raise UsageError(_nothing(x_axis, y_axis, omitted))
    if filled:
        notes.append(
            f"{filled} points take their {size_axis.key if size_axis else 'size'} from other rows of the same model"
        )
    kinds = sorted(set(devices))
    if len(kinds) > 1 and x_axis.unit == "s":
        notes.append(
            f"these rows are of {len(kinds)} devices, whose latencies do not compare: choose one with --device"
        )
    sets = sorted(set(datasets))
    if len(sets) > 1 and y_axis.key in DENSE:
        notes.append(
            f"these rows are of {len(sets)} datasets, whose {y_axis.title} does not compare: choose one with --where dataset=…"
        )
    points, merged = _merge(points, duplicates, x_axis, y_axis)
    notes += merged
    if omitted:
        notes.append(f"{len(omitted)} of {len(points) + len(omitted)} rows left out, each with its reason")
    data = FrontData(
        x=x_axis,
        y=y_axis,
        size=size_axis,
        also=tuple(axis for axis, _ in further),
        device=kinds[0] if len(kinds) == 1 and kinds[0] else None,
        points=tuple(sorted(points, key=lambda p: (p.x, p.y, p.label))),
        prototypes=(),
        omitted=tuple(omitted),
        notes=tuple(notes),
        dataset=sets[0] if len(sets) == 1 and sets[0] else None,
    )
    found = dominators([costs(data, point) for point in data.points])
    return replace(data, points=tuple(replace(p, dominated_by=d) for p, d in zip(data.points, found, strict=True)))


def _word(tables: Sequence[ResultTable], word: str | None, defaults: Sequence[str], flag: str) -> str:
    if word is not None:
        return word
    present = [default for default in defaults if all(look_up(table, default) for table in tables)]
    if present:
        return next((default for default in present if any(_given(t, default) for t in tables)), present[0])
    columns = ", ".join(dict.fromkeys(name for table in tables for name in table.columns if name))
    where = tables[0].name if len(tables) == 1 else f"{len(tables)} files"
    raise UsageError(
        f"{where}: no column to take for {flag}, of {', '.join(defaults)}: name it with {flag}; columns: {columns}"
    )


def _given(table: ResultTable, word: str) -> bool:
    """Whether some row of `table` has a value for `word`."""
    column = look_up(table, word)
    return column is not None and any(text.casefold() not in MISSING for text in _texts(table, column))


def _further(text: str) -> tuple[str, str, bool | None]:
    word, _, direction = text.rpartition(":")
    if word and direction in ("min", "max"):
        return word, "--also", direction == "min"
    return text, "--also", None


def _axis(
    tables: Sequence[ResultTable], word: str, flag: str, minimize: bool | None, needs_direction: bool = True
) -> tuple[Axis, list[Column]]:
    columns = [find_column(table, word, flag) for table in tables]
    quantity = columns[0].quantity
    for table, column in zip(tables, columns, strict=True):
        if column.quantity != quantity:
            raise UsageError(
                f"{flag} {word!r}: is {columns[0].name} in {tables[0].name} but {column.name} in {table.name}"
            )
    if quantity is not None:
        minimize = quantity.minimize if minimize is None else minimize
    elif minimize is None and needs_direction:
        cure = (
            f"--also {word}:min or --also {word}:max"
            if flag == "--also"
            else f"{flag}-direction min or {flag}-direction max"
        )
        raise UsageError(f"{flag} {word!r}: cannot know whether low or high is better: say {cure}")
    names = tuple(dict.fromkeys(column.name for column in columns))
    if quantity is None:
        return Axis(names[0], names, names[0], "", bool(minimize)), columns
    return Axis(quantity.key, names, quantity.title, quantity.unit, bool(minimize)), columns


def _size_axis(
    tables: Sequence[ResultTable], word: str | None, explicit: bool
) -> tuple[Axis | None, Sequence[Column | None]]:
    if word is None:
        return None, [None] * len(tables)
    holders = list(tables) if explicit else [table for table in tables if look_up(table, word)]
    axis, _ = _axis(holders, word, "--size", None, needs_direction=False)
    return axis, [look_up(table, word) for table in tables]


def _texts(table: ResultTable, column: Column | None) -> list[str]:
    return [row.cells[column.index] if column else "" for row in table.rows]


def _reason(values: Sequence[tuple[Axis, float | None]]) -> str:
    missing = [axis.key for axis, value in values if value is None]
    infinite = [f"{axis.key} is infinite" for axis, value in values if value is not None and math.isinf(value)]
    return ", ".join(([f"no {' and no '.join(missing)}"] if missing else []) + infinite)


def _drawable(size: float | None) -> bool:
    return size is not None and math.isfinite(size) and size > 0


def _nothing(x: Axis, y: Axis, omitted: Sequence[Omitted]) -> str:
    reasons = [o.reason for o in omitted]
    counts = ", ".join(f"{reasons.count(r)} {r}" for r in sorted(set(reasons)))
    return f"no row has both {x.columns[0]} and {y.columns[0]} ({len(omitted)} rows: {counts})"


def _sizes_by_label(
    tables: Sequence[ResultTable], columns: Sequence[Column | None], labels: Sequence[Column]
) -> dict[str, float]:
    """The median size of every label over all rows, those that filters hide included."""
    found: dict[str, list[float]] = {}
    for table, column, label in zip(tables, columns, labels, strict=True):
        if column is None:
            continue
        for name, value in zip(_texts(table, label), numbers(table, column), strict=True):
            if value is not None and _drawable(value):
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}


def _merge(points: list[Point], how: Duplicates, x: Axis, y: Axis) -> tuple[list[Point], list[str]]:
    """One point a label, by the chosen rule, and a note of how many rows went into another."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.label, []).append(point)
    spare = len(points) - len(groups)
    if not spare:
        return points, []
    if how == "keep":
        return points, [
            f"{spare} rows repeat a model that another row has (--duplicates first, best or median merges them)"
        ]

    def rank(point: Point) -> tuple[float, float]:
        return (point.x if x.minimize else -point.x, point.y if y.minimize else -point.y)

    merged = []
    for group in groups.values():
        sizes = [p.size for p in group if p.size is not None]
        size = median(sizes) if sizes else None
        if how == "median":
            also = tuple(median(column) for column in zip(*(p.also for p in group), strict=True))
            middle = replace(group[0], x=median(p.x for p in group), y=median(p.y for p in group), size=size, also=also)
            merged.append(middle if len(group) == 1 else replace(middle, source=f"median of {len(group)} rows"))
        else:
            one = group[0] if how == "first" else min(group, key=rank)
            merged.append(one if one.size is not None else replace(one, size=size))
    return merged, [f"{len(points)} rows merged into {len(merged)}, one a model (--duplicates {how})"]


def costs(data: FrontData, point: Point) -> tuple[float, ...]:
    """The objectives of `point` with every one to be minimised."""
    return signed(data, (point.x, point.y, *point.also))


def signed(data: FrontData, values: Iterable[float]) -> tuple[float, ...]:
    """`values` in the order x, y, also, negated where high is better."""
    axes = (data.x, data.y, *data.also)
    return tuple(value if axis.minimize else -value for value, axis in zip(values, axes, strict=True))
