"""What `export` wrote as a table and as JSON: file, size, values, and how far it lies from PyTorch. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitscope import __version__
from vitscope.export.agreement import Agreement
from vitscope.export.artifact import Artifact
from vitscope.report.table import Column, Row, Table
from vitscope.units import size

_COLUMNS = (
    Column("model", "left"),
    Column("format", "left"),
    Column("precision", "left"),
    Column("file", "left"),
    Column("size"),
    Column("weights", "left"),
    Column("agreement with PyTorch", "left"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One model in one format: the file with its agreements, or the line that says why there is none."""

    model: str
    format: str
    precision: str
    artifact: Artifact | None = None
    agreements: tuple[Agreement, ...] = ()
    error: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether a runtime computed something else, or could not run the file."""
        return any(agreement.holds is False for agreement in self.agreements)


def exports_table(rows: Sequence[Exported]) -> Table:
    """A row a file; what could not be written is a row too, with its reason."""
    body, notes = [], {}
    for row in rows:
        head = (row.model, row.format, row.precision)
        if row.artifact is None:
            body.append(Row((*head, "—", "—", "—", row.error), style="bad"))
            continue
        cells = (*head, str(row.artifact.path), size(row.artifact.num_bytes), row.artifact.weights)
        body.append(Row((*cells, _told(row.agreements)), style="bad" if row.is_wrong else ""))
        for note in row.artifact.notes:
            notes[f"{row.format}, {row.precision}: {note}"] = None
    return Table(_COLUMNS, tuple(body), notes=tuple(notes))


def _told(agreements: Sequence[Agreement]) -> str:
    return "; ".join(map(_one, agreements)) or "not checked"


def _one(agreement: Agreement) -> str:
    if agreement.failed:
        return f"{agreement.runtime} FAILS: {agreement.reason}"
    if agreement.relative_error is None:
        return f"not checked: {agreement.reason}"
    text = f"{agreement.relative_error:.1e} {agreement.runtime}"
    return text if agreement.holds else f"{text}, ABOVE {agreement.tolerance:.0e}"


def exports_json(rows: Sequence[Exported]) -> dict[str, Any]:
    """Sizes in bytes, shapes as (B, C, H, W); null for what is unknown."""
    return {"schema_version": 1, "vitscope_version": __version__, "exports": [_json(row) for row in rows]}


def _json(row: Exported) -> dict[str, Any]:
    made = row.artifact
    return {
        "model": row.model,
        "format": row.format,
        "precision": row.precision,
        "file": str(made.path) if made else None,
        "bytes": made.num_bytes if made else None,
        "digest": made.digest if made else None,
        "form": made.form if made else None,
        "input_shape": list(made.input_shape) if made else None,
        "weights": made.weights if made else None,
        "tools": made.tools if made else None,
        "notes": list(made.notes) if made else [],
        "agreements": [
            {
                "runtime": agreement.runtime or None,
                "relative_error": agreement.relative_error,
                "tolerance": agreement.tolerance,
                "same_class": agreement.same_class,
                "holds": agreement.holds,
                "reason": agreement.reason,
            }
            for agreement in row.agreements
        ],
        "error": row.error or None,
    }
