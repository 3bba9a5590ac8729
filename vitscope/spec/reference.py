"""`python -m vitscope.spec.reference`: writes the reference part of docs/spec-language.md from the grammar."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitscope.spec.fields import FieldDoc, field_docs
from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.kinds import KINDS
from vitscope.spec.reported import REPORTED_KEYS

BEGIN = "<!-- reference: written by `python -m vitscope.spec.reference`; edit the grammar, not this -->"
END = "<!-- end of reference -->"
_DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "spec-language.md"
_TITLES: tuple[tuple[Role, str, str], ...] = (
    ("stem", "Stems", "The value of `stem`."),
    ("downsample", "Downsamplers", "The value of a stage's `downsample`. `width` and `stride` come from the stage."),
    ("block", "Blocks", "What stages are made of. `width` and `stride`, where a kind has them, come from the stage."),
    ("head", "Heads", "The value of `head`."),
)


def reference() -> str:
    """The keys of `reported`, and every block kind with its fields, as Markdown."""
    rows = "\n".join(f"| `{key}` | {meaning} |" for key, meaning in REPORTED_KEYS.items())
    parts = [f"### Reported figures\n\nThe value of `reported`.\n\n| key | meaning |\n| --- | ------- |\n{rows}\n"]
    for role, title, what in _TITLES:
        parts.append(f"### {title}\n\n{what}\n")
        parts += [_kind(kind) for kind in KINDS if kind.role == role]
    return "\n".join(parts)


def _kind(kind: type[BlockSpec]) -> str:
    source = f"\n\nSource: {kind.source}." if kind.source else ""
    rows = [(f"`{doc.name}`", doc.takes, _default(doc), doc.meaning) for doc in field_docs(kind).values()]
    return f"#### `{kind.kind}`\n\n{inspect.cleandoc(kind.__doc__ or '')}{source}\n\n{_table(rows)}\n"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    head = ("field", "takes", "default", "meaning")
    lines = [head, tuple("-" * len(word) for word in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _default(doc: FieldDoc) -> str:
    return "required" if doc.is_required else f"`{_plain(doc.default)}`"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_reference(text: str) -> str:
    """`text` with what stands between the markers replaced. Raises ValueError when a marker is missing."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    document = Path(sys.argv[1]) if len(sys.argv) > 1 else _DOCUMENT
    document.write_text(with_reference(document.read_text(encoding="utf-8")), encoding="utf-8")
