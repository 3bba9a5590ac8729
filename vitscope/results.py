"""Tables of results: CSV text into rows that know their file and line, columns found by name, rows chosen by filters."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from vitscope.errors import UsageError, nearest

PUBLISHED = "published"  # the name of the table that ships with vitscope
STDIN = "-"
_PUBLISHED_CSV = Path(__file__).parent / "data" / "published.csv"
_DELIMITERS = (",", ";", "\t")
MISSING = frozenset({"", "-", "–", "—", "?", "na", "n/a", "nan", "none", "null"})
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?inf(?:inity)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that columns of several spellings hold: its base unit, and whether low or high is better."""

    name: str  # the word for it on the command line
    key: str  # its name in JSON and CSV, where it is always in the base unit
    title: str
    unit: str
    minimize: bool
    columns: tuple[tuple[str, int], ...]  # spelling, and the power of ten from its unit to the base unit


# A prediction or a printed figure (`latency`) and a measurement's percentile are different things: they never merge.
QUANTITIES: tuple[Quantity, ...] = (
    Quantity("latency", "latency_s", "Latency", "s", True, (("latency_s", 0), ("latency_ms", -3), ("latency_us", -6))),
    Quantity(
        "latency_p50", "latency_p50_s", "Median latency", "s", True, (("latency_p50_s", 0), ("latency_p50_ms", -3))
    ),
    Quantity("latency_p90", "latency_p90_s", "p90 latency", "s", True, (("latency_p90_s", 0), ("latency_p90_ms", -3))),
    Quantity("top1", "top1", "ImageNet top-1 accuracy", "%", False, (("top1", 0), ("top-1", 0), ("top1_acc", 0))),
    Quantity("top5", "top5", "ImageNet top-5 accuracy", "%", False, (("top5", 0), ("top-5", 0))),
    Quantity("accuracy", "accuracy", "Accuracy", "", False, (("accuracy", 0), ("acc", 0))),
    Quantity("miou", "miou", "mIoU", "%", False, (("miou", 0),)),
    Quantity("map", "map", "mAP", "%", False, (("map", 0), ("ap", 0))),
    Quantity("mes", "mes", "Mobile Efficiency Score", "", False, (("mes", 0),)),
    Quantity(
        "throughput", "throughput_img_s", "Throughput", "img/s", False, (("throughput_img_s", 0), ("throughput", 0))
    ),
    Quantity("params", "params", "Parameters", "count", True, (("params", 0), ("params_m", 6))),
    Quantity("macs", "macs", "MACs", "count", True, (("macs", 0), ("macs_m", 6), ("macs_g", 9), ("gmacs", 9))),
    Quantity("flops", "flops", "FLOPs", "count", True, (("flops", 0), ("flops_m", 6), ("flops_g", 9), ("gflops", 9))),
    Quantity("activations", "activations", "Activations", "count", True, (("activations", 0), ("activations_m", 6))),
    Quantity("param_bytes", "param_bytes", "Weights", "B", True, (("param_bytes", 0),)),
    Quantity("artifact_bytes", "artifact_bytes", "File size", "B", True, (("artifact_bytes", 0),)),
    Quantity(
        "peak_memory", "peak_activation_bytes", "Peak activation memory", "B", True, (("peak_activation_bytes", 0),)
    ),
)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One line of a table. `source` is `file:line`, for messages and for whoever checks a number."""

    source: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """A results file as text: nothing is a number yet, because only the columns in use have to be numbers."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """Where a table keeps what was asked for, and the power of ten that brings its numbers to the base unit."""

    index: int
    name: str
    quantity: Quantity | None
    exponent: int


def read_results(name: str) -> ResultTable:
    """Read a CSV file, `-` for standard input, or `published` for the table that ships with vitscope."""
    if name == STDIN:
        return parse_results("<stdin>", sys.stdin.buffer.read())
    path = _PUBLISHED_CSV if name == PUBLISHED else Path(name)
    if path.is_dir():
        raise UsageError(f"{name}: is a directory, expected a CSV file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{name}: no such file (the table that ships with vitscope is called {PUBLISHED!r})") from None
    except OSError as error:
        raise UsageError(f"{name}: cannot read: {error.strerror or error}") from error
    return parse_results(name, content)


def parse_results(name: str, content: bytes) -> ResultTable:
    """CSV text with a heading line, separated by commas, semicolons or tabs. Every row has a cell for every heading."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 text (byte {error.start}), expected a CSV file") from None
    if "\0" in text:
        raise UsageError(f"{name}: a binary file, expected a CSV file")
    if not text.strip():
        raise UsageError(f"{name}: is empty, expected a CSV file with a heading line")
    heading = next(line for line in text.splitlines() if line.strip())
    delimiter = max(_DELIMITERS, key=heading.count)  # the first of them when the file has one column
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] = ()
    rows: list[ResultRow] = []
    line = 1
    try:
        for record in reader:
            first, line = line, reader.line_num + 1  # a quoted cell may span lines: name the line it starts on
            if not any(cell.strip() for cell in record):
                continue
            cells = tuple(cell.strip() for cell in record)
            if not columns:
                columns = cells
                _check_heading(name, columns)
            elif len(cells) != len(columns):
                raise UsageError(f"{name}:{first}: {len(cells)} cells, but the heading names {len(columns)} columns")
            else:
                rows.append(ResultRow(f"{name}:{first}", cells))
    except csv.Error as error:
        raise UsageError(f"{name}:{line}: not CSV: {error}") from error
    if not rows:
        raise UsageError(f"{name}: has a heading line and no rows")
    return ResultTable(name, columns, tuple(rows))


def _check_heading(name: str, columns: Sequence[str]) -> None:
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise UsageError(f"{name}:1: the heading names column {twice[0]!r} twice")


def find_column(table: ResultTable, word: str, flag: str) -> Column:
    """The column called `word`, or the one that holds the quantity `word`. Raises UsageError with the nearest name."""
    column = look_up(table, word)
    if column is None:
        known = [name for name in table.columns if name]
        raise UsageError(
            f"{table.name}: {flag} {word!r}: no such column{nearest(word, known)}; columns: {', '.join(known)}"
        )
    return column


def look_up(table: ResultTable, word: str) -> Column | None:
    """As `find_column`, with None where the table has nothing of that name."""
    folded = [name.casefold() for name in table.columns]
    if word.casefold() in folded:
        index = table.columns.index(word) if word in table.columns else folded.index(word.casefold())
        return _column(table, index)
    quantity = quantity_of(word)
    spellings = [name for name, _ in quantity.columns] if quantity else []
    return next((_column(table, folded.index(name)) for name in spellings if name in folded), None)


def quantity_of(word: str) -> Quantity | None:
    """The quantity that `word` names, by its own name or by the spelling of a column."""
    word = word.casefold()
    return next((q for q in QUANTITIES if word == q.name or any(word == name for name, _ in q.columns)), None)


def _column(table: ResultTable, index: int) -> Column:
    name = table.columns[index]
    quantity = quantity_of(name)
    exponent = dict(quantity.columns).get(name.casefold(), 0) if quantity else 0
    return Column(index, name, quantity, exponent)


def parse_number(text: str, exponent: int = 0) -> float | None:
    """A cell as a number times ten to `exponent`; None when it is empty or says so (`n/a`, `nan`, `–`).

    Scaled as a decimal, so that 1.1 ms is the same float as 0.0011 s. Raises ValueError for anything else.
    """
    if text.casefold() in MISSING:
        return None
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"expected a number, got {text!r}")
    value = float(text)
    return value if exponent == 0 or not math.isfinite(value) else float(Decimal(text).scaleb(exponent))


def numbers(table: ResultTable, column: Column) -> list[float | None]:
    """A whole column as numbers. Raises UsageError with the file, line and text of the first cell that is none."""
    values: list[float | None] = []
    bad: list[ResultRow] = []
    for row in table.rows:
        try:
            values.append(parse_number(row.cells[column.index], column.exponent))
        except ValueError:
            bad.append(row)
    if bad:
        more = f" (and {len(bad) - 1} more such cells)" if len(bad) > 1 else ""
        text = bad[0].cells[column.index]
        raise UsageError(f"{bad[0].source}: {column.name} is {_short(text)}, expected a number{more}")
    return values


# ---- filters


@dataclass(frozen=True, slots=True)
class Condition:
    """One `--where`: a column, an operator, and what to compare with; `|` separates alternatives of `=` and `~`."""

    text: str
    column: str
    operator: str
    values: tuple[str, ...]
    loose: bool = False  # as `--device` compares: letters and digits only, so that iphone12 finds "iPhone 12"


_CONDITION = re.compile(r"\s*(?P<column>[^<>=~!]+?)\s*(?P<operator><=|>=|!=|=|~|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)


def parse_condition(text: str) -> Condition:
    """`family=ResNet|RegNet`, `source~Fig. 1`, `latency_ms<5`, `variant!=ReLU` → a Condition."""
    match = _CONDITION.fullmatch(text)
    if not match:
        raise UsageError(
            f"--where {text!r}: expected COLUMN=VALUE, COLUMN!=VALUE, COLUMN~TEXT or COLUMN<NUMBER (<= > >=)"
        )
    operator, value = match["operator"], match["value"]
    if operator in ("<", "<=", ">", ">="):
        try:
            bound = parse_number(value)
        except ValueError:
            bound = None
        if bound is None:
            raise UsageError(f"--where {text!r}: expected a number after {operator}, got {value!r}")
        return Condition(f"--where {text!r}", match["column"], operator, (value,))
    return Condition(f"--where {text!r}", match["column"], operator, tuple(v.strip() for v in value.split("|")))


def device_condition(name: str) -> Condition:
    """`--device iphone12` as a condition on the column `device`."""
    return Condition(f"--device {name!r}", "device", "=", (name,), loose=True)


def choose(tables: Sequence[ResultTable], conditions: Iterable[Condition]) -> tuple[list[ResultTable], list[str]]:
    """The rows that meet all conditions, and notes on files that lack a condition's column (left whole, and said so).

    Raises UsageError when no file has the column, or when a value is met by no row at all.
    """
    conditions = list(conditions)
    chosen, notes = list(tables), []
    for condition in conditions:
        holders = [t for t in tables if look_up_exactly(t, condition.column) is not None]
        if not holders:
            known = list(dict.fromkeys(name for t in tables for name in t.columns if name))
            raise UsageError(
                f"{condition.text}: no such column{nearest(condition.column, known)}; columns: {', '.join(known)}"
            )
        _check_values(condition, holders)
        notes += [
            f"{t.name} has no column {condition.column!r}: {condition.text} does not apply to it"
            for t in tables
            if t not in holders
        ]
        chosen = [_kept(t, condition) for t in chosen]
    if not any(t.rows for t in chosen):
        raise UsageError("no row meets all of: " + ", ".join(condition.text for condition in conditions))
    return chosen, notes


def look_up_exactly(table: ResultTable, name: str) -> int | None:
    """The index of a column by its own name in any case. No quantities: a bound's unit is that of its own column."""
    folded = [column.casefold() for column in table.columns]
    return folded.index(name.casefold()) if name.casefold() in folded else None


def _kept(table: ResultTable, condition: Condition) -> ResultTable:
    index = look_up_exactly(table, condition.column)
    if index is None:
        return table
    return ResultTable(table.name, table.columns, tuple(row for row in table.rows if _meets(row, index, condition)))


def _meets(row: ResultRow, index: int, condition: Condition) -> bool:
    cell = row.cells[index]
    if condition.operator in ("=", "!=", "~"):
        equal = any(_same(cell, value, condition) for value in condition.values)
        return equal if condition.operator != "!=" else not equal
    try:
        value, bound = parse_number(cell), float(condition.values[0])
    except ValueError:
        raise UsageError(
            f"{row.source}: {condition.column} is {_short(cell)}, expected a number for {condition.text}"
        ) from None
    if value is None:
        return False  # nobody can say that an unknown is below the bound
    return {"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}[condition.operator]


def _same(cell: str, value: str, condition: Condition) -> bool:
    if condition.operator == "~":
        return value.casefold() in cell.casefold()
    if condition.loose:
        return _letters(cell) == _letters(value)
    if _NUMBER.fullmatch(cell) and _NUMBER.fullmatch(value):
        return float(cell) == float(value)
    return cell.casefold() == value.casefold()


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _check_values(condition: Condition, tables: Sequence[ResultTable]) -> None:
    if condition.operator not in ("=", "~"):
        return
    cells = [row.cells[i] for t in tables if (i := look_up_exactly(t, condition.column)) is not None for row in t.rows]
    values = list(dict.fromkeys(cell for cell in cells if cell))
    for value in condition.values:
        if not any(_same(cell, value, condition) for cell in dict.fromkeys(cells)):
            listed = ", ".join(values[:12]) + (f", … ({len(values)} in all)" if len(values) > 12 else "")
            hint = nearest(value, values) if condition.operator == "=" else ""
            does = "contains" if condition.operator == "~" else "is"
            raise UsageError(f"{condition.text}: no {condition.column} {does} {value!r}{hint}; there is: {listed}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
