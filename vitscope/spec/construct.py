"""One block from its text: kind, fields and the spec's defaults → BlockSpec, or a problem for each thing wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vitscope.spec.fields import field_docs, field_names
from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.plugins import PLUGIN_BLOCKS
from vitscope.spec.text import Document, Mark, Path
from vitscope.spec.wording import choices, one_line, shown

Kinds = Mapping[tuple[Role, str], type[BlockSpec]]
Fields = dict[str, tuple[Any, Path]]  # field name → value and where it was written


@dataclass(slots=True)
class Context:
    """What resolving needs at hand: the text with its positions, the known kinds, and the defaults of all blocks."""

    document: Document
    kinds: Kinds
    defaults: Fields = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)  # module name → where the text speaks of it
    misread: frozenset[Mark] = frozenset()  # values that the reader of the text complained of already

    def __post_init__(self) -> None:
        self.misread = frozenset(mark for mark, _ in self.document.problems)

    def problem(self, path: Path, text: str) -> None:
        """Note what is wrong with the value at `path`, unless the reader of the text already did."""
        mark = self.document.mark(path)
        if path not in self.document.values or mark not in self.misread:
            self.document.problem(mark, text)

    def key_problem(self, path: Path, text: str) -> None:
        """Note what is wrong with the key at `path`."""
        self.document.problem(self.document.key_mark(path), text)


@cache
def adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """The validator of a kind, built when the kind is first used."""
    return TypeAdapter(kind)


@lru_cache(maxsize=1 << 16)
def _make(kind: type[BlockSpec], items: tuple[tuple[str, Any], ...], types: tuple[Any, ...]) -> BlockSpec:
    # `types` keeps True apart from 1, which are equal as keys
    block = adapter(kind).validate_python(dict(items))
    hash(block)
    return block


def role_block(
    context: Context, role: Role, value: Any, path: Path, given: Fields | None = None,
    assumed: frozenset[str] = frozenset(),
) -> BlockSpec | None:  # fmt: skip
    """A stem, head or downsample: `kind` alone, or a mapping with `block: kind` and its fields."""
    name = value.get("block") if isinstance(value, dict) else value
    if not isinstance(name, str):
        what = "names no kind" if isinstance(value, dict) and "block" not in value else f"got {shown(value)}"
        context.problem(
            path, f"{role} expects a kind, or a mapping with block: kind; {what}; kinds: {kind_names(context, role)}"
        )
        return None
    kind = find_kind(context, role, name, (*path, "block") if isinstance(value, dict) else path)
    if kind is None:
        return None
    fields = dict(given or {})
    if isinstance(value, dict):
        fields.update({key: (item, (*path, key)) for key, item in value.items() if key != "block"})
    return make_block(context, kind, fields, path, assumed & set(field_names(kind)) - set(fields))


def find_kind(context: Context, role: Role, name: str, path: Path) -> type[BlockSpec] | None:
    """The grammar class that `name` names in a role; None after reporting the nearest that there is."""
    kind = context.kinds.get((role, name))
    if kind is None:
        elsewhere = next((r for r, n in context.kinds if n == name), None)
        names = [n for r, n in context.kinds if r == role]
        end = f": that is a {elsewhere}; kinds: {', '.join(names)}" if elsewhere else choices(name, names, "kinds")
        context.problem(path, f"unknown {role} {shown(name)}{end}")
    return kind


def kind_names(context: Context, role: Role) -> str:
    """The kinds that a role knows, for a message."""
    return ", ".join(name for r, name in context.kinds if r == role)


def make_block(
    context: Context, kind: type[BlockSpec], given: Fields, path: Path, assumed: frozenset[str] = frozenset()
) -> BlockSpec | None:
    """One block of `kind` from the given fields and the spec's defaults; None after reporting what is wrong.

    `assumed` names fields that are missing only because their own text was wrong, and reported.
    """
    names = field_names(kind)
    good = not assumed
    for key, (_, where) in given.items():
        if key not in names:
            good = False
            context.key_problem(
                where, f"unknown key {shown(key)} of {kind.role} {kind.kind}{choices(key, names, 'keys')}"
            )
    merged = {key: given.get(key) or context.defaults[key] for key in names if key in given or key in context.defaults}
    for key, (value, where) in list(merged.items()):
        if _holds_mapping(value):
            good = False
            takes = field_docs(kind)[key].takes
            context.problem(where, f"{key} of {kind.kind} expects {takes}, got {shown(value)}")
            assumed |= {key}
            del merged[key]
    items = tuple((key, _frozen(value)) for key, (value, _) in merged.items())
    try:
        block = _make(kind, items, tuple(_types(value) for _, value in items))
        return block if good else None
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            _report(context, kind, merged, path, dict(problem), assumed)
    except (Exception, SystemExit) as error:
        if kind not in PLUGIN_BLOCKS:
            raise
        context.problem(path, f"{kind.role} {kind.kind} of a plugin raised {type(error).__name__}: {one_line(error)}")
    return None


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_mapping, value)))


def _frozen(value: Any) -> Any:
    """A list as a tuple, for kinds whose field is one, and because keys of a cache are hashable."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _types(value: Any) -> Any:
    return tuple(_types(item) for item in value) if isinstance(value, tuple) else type(value)


def _report(
    context: Context,
    kind: type[BlockSpec],
    merged: Fields,
    path: Path,
    problem: dict[str, Any],
    assumed: frozenset[str],
) -> None:
    """pydantic's finding in the words of a spec, at the place of the value."""
    key = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "missing":
        if key not in assumed:
            takes = field_docs(kind)[key].takes
            context.problem(path, f"{kind.role} {kind.kind} needs {key}, {takes}")
        return
    if (
        problem["type"] in ("value_error", "assertion_error") and not key
    ):  # of the kind itself, led by the field it is about
        text = one_line(problem["ctx"]["error"])
        value = merged.get(text.partition(" ")[0])
        context.problem(value[1] if value else path, f"{text} ({kind.role} {kind.kind})")
        return
    value, where = merged.get(key, (problem.get("input"), path))
    doc = field_docs(kind)[key]
    if where == (key,):  # a default of all blocks, good in itself (see `resolve`), but not for this kind
        context.problem(
            where,
            f"{key} {shown(value)} is not for {kind.role} {kind.kind}, which takes {doc.takes}: "
            f"give that {kind.role} {_article(key)} {key} of its own",
        )
    elif isinstance(value, list) and "list" not in doc.takes:
        context.problem(
            where,
            f"{key} of {kind.kind} expects {doc.takes}, got {shown(value)}: "
            "only a key of a stage takes a list, one value a block",
        )
    elif doc.choices and isinstance(value, str):
        context.problem(where, f"unknown {key} {shown(value)}{choices(value, doc.choices, 'one of')}")
    elif problem["type"] in ("value_error", "assertion_error"):
        context.problem(where, f"{key} of {kind.kind}: {one_line(problem['ctx']['error'])}")
    else:
        context.problem(where, f"{key} of {kind.kind} expects {doc.takes}, got {shown(value)}")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
