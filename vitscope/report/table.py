"""A table of already formatted cells, and its three renderings: terminal, plain text and Markdown."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Literal


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
    widths = [max(display_width(cells[i]) for cells in [head, *body, *foot]) for i in range(len(head))]

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
    """Print with rich to stdout: colour, and a table that fits the window."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(title=table.title or None, title_justify="left", title_style="bold", header_style="bold")
    for column in table.columns:
        rich.add_column(column.title, justify=column.align, no_wrap=column.align == "right")
    for i, row in enumerate(table.rows):
        last = bool(table.footer) and i == len(table.rows) - 1
        rich.add_row(*map(Text, _indented(row)), style=_STYLES[row.style], end_section=last)
    for row in table.footer:
        rich.add_row(*map(Text, row.cells), style=_STYLES[row.style] or "bold")
    console = Console()
    console.print(rich)
    for note in table.notes:
        console.print(Text(note))


def _indented(row: Row, step: str = "  ") -> tuple[str, ...]:
    return (step * row.depth + row.cells[0], *row.cells[1:])
