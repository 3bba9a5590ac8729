"""What each field of a block kind takes, read from the grammar: the words of error messages and of the reference."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from vitscope.spec.grammar import BlockSpec


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """One field: what it takes in words, its choices if it is one of a few words, its default, and its meaning."""

    name: str
    takes: str
    choices: tuple[str, ...]
    default: Any  # MISSING for a field that must be given
    meaning: str

    @property
    def is_required(self) -> bool:
        """Whether a block cannot be made without it."""
        return self.default is MISSING


@cache
def field_names(kind: type[BlockSpec]) -> tuple[str, ...]:
    """The fields of a kind, in the order of its definition."""
    return tuple(field.name for field in fields(kind))


@cache
def field_docs(kind: type[Any]) -> dict[str, FieldDoc]:
    """Field name → what it takes, for every field of a kind."""
    hints = get_type_hints(kind, include_extras=True)
    docs = {}
    for field in fields(kind):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        takes, choices, meaning = _described(hints[field.name])
        docs[field.name] = FieldDoc(field.name, takes, choices, default, meaning)
    return docs


def _described(hint: Any) -> tuple[str, tuple[str, ...], str]:
    """What a field takes in words, its choices, and its meaning; the outermost description counts."""
    hint, bounds, meaning = _unwrapped(hint)
    parts = []
    for part in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        bare, inner, described = _unwrapped(part)
        parts.append(bare)
        bounds, meaning = inner | bounds, meaning or described
    words = [_words(part, bounds) for part in parts if part is not NoneType]
    choices = tuple(str(c) for part in parts if get_origin(part) is Literal for c in get_args(part))
    return " or ".join(words) + (", or null" if NoneType in parts else ""), choices, meaning


def _unwrapped(hint: Any) -> tuple[Any, dict[str, Any], str]:
    """What an annotation is about, its limits and its description."""
    bounds: dict[str, Any] = {}
    meaning = ""
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, FieldInfo):
                meaning = note.description or meaning
                for limit in note.metadata:
                    bounds.update({k: getattr(limit, k) for k in ("gt", "ge", "lt", "le") if hasattr(limit, k)})
    return hint, bounds, meaning


def _words(hint: Any, bounds: dict[str, Any]) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if hint is bool:
        return "true or false"
    if hint is int:
        return f"a whole number{_range(bounds)}"
    if hint is float:
        return f"a number{_range(bounds)}"
    if hint is str:
        return "a text"
    if get_origin(hint) is tuple:
        return f"a list, each item {_words(get_args(hint)[0], bounds)}"
    return f"a {getattr(hint, '__name__', hint)}"


def _range(bounds: dict[str, Any]) -> str:
    low, above, most, below = (bounds.get(k) for k in ("ge", "gt", "le", "lt"))
    if low is not None and most is not None:
        return f" from {_number(low)} to {_number(most)}"
    lower = f"at least {_number(low)}" if low is not None else f"above {_number(above)}" if above is not None else ""
    upper = f"at most {_number(most)}" if most is not None else f"below {_number(below)}" if below is not None else ""
    return (" " + " and ".join(part for part in (lower, upper) if part)) if lower or upper else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
