"""The zoo and its check as tables for people, as JSON and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vitscope import __version__
from vitscope.catalogue import Check, Entry
from vitscope.report.profile import METRICS, SCHEMA_VERSION
from vitscope.report.table import Column, Row, Table
from vitscope.units import UNKNOWN, count


def entries_table(entries: Sequence[Entry]) -> Table:
    """One row a network."""
    columns = (
        Column("name", "left"), Column("family", "left"), Column("input"), Column("params"), Column("MACs"),
        Column("reported"), Column("paper", "left"),
    )  # fmt: skip
    rows = tuple(
        Row(
            (
                e.name, e.family, "×".join(map(str, e.input)), count(e.params), count(e.macs),
                f"{e.accuracy.text} {METRICS[e.metric]}" if e.accuracy is not None else UNKNOWN, e.paper,
            )
        )
        for e in entries
    )  # fmt: skip
    families = len({e.family for e in entries})
    return Table(columns, rows, notes=(f"{len(entries)} networks of {families} families; counts in train form",))


def checks_table(checks: Sequence[Check]) -> Table:
    """One row a printed figure, and what became of it."""
    columns = (
        Column("network", "left"), Column("figure", "left"), Column("printed"), Column("ours"), Column("exactly"),
        Column("counted as", "left"), Column("agreement", "left"), Column("cause", "left"),
    )  # fmt: skip
    styles = {"unexplained": "bad", "explained": "dim"}
    rows = tuple(
        Row(
            (
                c.name, c.figure, c.printed, c.ours, f"{c.value:,}",
                c.convention if c.form == "train" else f"{c.convention}, {c.form}", c.agreement, c.cause,
            ),
            style=styles.get(c.agreement, ""),  # type: ignore[arg-type]
        )
        for c in checks
    )  # fmt: skip
    totals = Counter(c.agreement for c in checks)
    agree = totals["rounded"] + totals["cut off"]
    note = (
        f"{len(checks)} printed figures: {agree} agree to the printed digit ({totals['cut off']} of them cut off instead of "
        f"rounded), {totals['explained']} differ for a known cause, {totals['unexplained']} differ without one"
    )
    return Table(columns, rows, notes=(note,))


def catalogue_json(entries: Sequence[Entry]) -> dict[str, Any]:
    """Raw integers and the figures as their authors printed them."""
    return _wrapped("networks", [asdict(e) | {"accuracy": e.accuracy.value if e.accuracy else None} for e in entries])


def checks_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Every check with its cause."""
    return _wrapped("checks", [asdict(c) for c in checks])


def _wrapped(key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "vitscope_version": __version__, key: rows}


def rows_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Any of the above as CSV; a list becomes its items joined by x."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    k: "x".join(map(str, v)) if isinstance(v, (list, tuple)) else "" if v is None else v
                    for k, v in row.items()
                }
            )
    return text.getvalue()
