"""A table of already formatted cells, and its three renderings: terminal, plain text and Markdown."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and how its cells line up; numbers stand right."""

    title: str
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True)
class Row:
    """Cells in column order. `depth` indents the first cell; `style` is one of the names in `_STYLES`."""

    cells: tuple[str, ...]
    depth: int = 0
    style: Literal["", "strong", "dim", "good", "bad"] = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Title, columns, rows, a footer under a rule, and notes below; every cell is text."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    footer: tuple[Row, ...] = ()
    notes: tuple[str, ...] = field(default=())


_BORDER = 3  # terminal columns that a column of the table takes beside its text
_SENTENCE = 32  # terminal columns; what is wider is prose, which may go on in the next line

_STYLES = {"": "", "strong": "bold", "dim": "dim", "good": "green", "bad": "red"}


def display_width(text: str) -> int:
    """Terminal columns that `text` takes: combining marks none, East Asian wide characters two."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def plain(table: Table) -> str:
    """Uncut text for pipes and files: columns padded with spaces, a rule above the footer, no colour."""
    lines = [table.title, ""] if table.title else []
    body = [_indented(row) for row in table.rows]
    foot = [_indented(row) for row in table.footer]
    head = tuple(column.title for column in table.columns)
    widths = _widths(table)

    def line(cells: tuple[str, ...]) -> str:
        padded = []
        for column, cell, width in zip(table.columns, cells, widths, strict=True):
            gap = " " * (width - display_width(cell))
            padded.append(cell + gap if column.align == "left" else gap + cell)
        return "  ".join(padded).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines += [line(head), rule, *map(line, body)]
    if foot:
        lines += [rule, *map(line, foot)]
    if table.notes:
        lines += ["", *table.notes]
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> str:
    """A GitHub table; the footer follows in bold, notes as a list."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [f"### {table.title}", ""] if table.title else []
    lines.append(line(tuple(column.title for column in table.columns)))
    lines.append("|" + "|".join("---" if column.align == "left" else "---:" for column in table.columns) + "|")
    lines += [line(_indented(row, "&nbsp;&nbsp;")) for row in table.rows]
    lines += [line(tuple(f"**{cell}**" if cell else "" for cell in row.cells)) for row in table.footer]
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def terminal(table: Table) -> None:
    """Print with rich to stdout: colour, and nothing cut. Where the window is too narrow, columns go below the others."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if table.title:
        console.print(Text(table.title, style="bold"))
    for columns in _groups(_widths(table), console.width):
        console.print(_rich(table, columns))
    for note in table.notes:
        console.print(Text(note))


def _rich(table: Table, widths: Mapping[int, int]) -> RichTable:
    """The columns that `widths` names, each no wider than it says: longer text goes on in the next line."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(header_style="bold")
    for i, width in widths.items():
        column = table.columns[i]
        rich.add_column(Text(column.title), justify=column.align, width=width, overflow="fold")
    for number, row in enumerate(table.rows):
        last = bool(table.footer) and number == len(table.rows) - 1
        cells = _indented(row)
        rich.add_row(*(Text(cells[i]) for i in widths), style=_STYLES[row.style], end_section=last)
    for row in table.footer:
        rich.add_row(*(Text(row.cells[i]) for i in widths), style=_STYLES[row.style] or "bold")
    return rich


def _groups(widths: Sequence[int], window: int) -> list[dict[int, int]]:
    """Column → width, of the tables that stand below one another so that each fits `window`; all begin with the first.

    Sentences (over `_SENTENCE` wide) are folded, into what is left of the window; names and numbers are not, unless the
    window has no room for one beside the first column.
    """
    room = window - 1 - _BORDER  # beside the first column
    figure = max((width for width in widths[1:] if width <= _SENTENCE), default=0) + _BORDER
    first = max(1, min(widths[0], max(room - figure, room // 2)))
    room = max(room - first, 1 + _BORDER)
    groups = [{0: first}]
    left = room
    for i, width in enumerate(widths[1:], 1):
        least = min(width, _SENTENCE) + _BORDER
        if least > left and len(groups[-1]) > 1:
            groups.append({0: first})
            left = room
        taken = min(width + _BORDER, left)
        groups[-1][i] = taken - _BORDER
        left -= taken
    return groups


def _widths(table: Table) -> list[int]:
    """The widest cell of each column, its title included."""
    head = tuple(column.title for column in table.columns)
    lines = [head, *map(_indented, table.rows), *map(_indented, table.footer)]
    return [max(display_width(cells[i]) for cells in lines) for i in range(len(head))]


def _indented(row: Row, step: str = "  ") -> tuple[str, ...]:
    return (step * row.depth + row.cells[0], *row.cells[1:])
