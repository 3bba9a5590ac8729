"""Document → Spec: checks every key and value, fills in defaults, and reports all problems of a file at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache, lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vitscope.errors import SpecError, nearest
from vitscope.spec.flow import flow_with_misfits
from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.reported import reported_of
from vitscope.spec.text import Document, Path
from vitscope.spec.value import Spec, Stage

TOP_KEYS = (
    "name", "extends", "family", "paper", "note", "input", "act", "norm", "norm_eps", "layer_scale_init",
    "drop_path_rate", "plugins", "stem", "stages", "head", "reported",
)  # fmt: skip
DEFAULT_KEYS = ("act", "norm", "norm_eps", "layer_scale_init")  # given once, for every block that has the field
STAGE_KEYS = ("depth", "width", "block", "blocks", "downsample", "stride")
MAX_DEPTH = 512
MAX_SIDE = 16384

Kinds = Mapping[tuple[Role, str], type[BlockSpec]]
Fields = dict[str, tuple[Any, Path]]  # field name → value and where it was written


@dataclass(slots=True)
class _Context:
    """What resolving needs at hand: the text with its positions, the known kinds, and the problems found so far."""

    document: Document
    kinds: Kinds
    problems: list[str]
    defaults: Fields

    def problem(self, path: Path, text: str) -> None:
        self.problems.append(f"{self.document.mark(path)}: {text}")

    def key_problem(self, path: Path, text: str) -> None:
        self.problems.append(f"{self.document.key_mark(path)}: {text}")


def resolve(document: Document, kinds: Kinds, plugins: tuple[str, ...] = ()) -> Spec:
    """The Spec that `document` says. Raises SpecError with every problem, each with its place."""
    data = document.data
    context = _Context(document, kinds, [], {})
    for key in data:
        if key not in TOP_KEYS:
            context.key_problem((key,), f"unknown key {key!r}{nearest(key, TOP_KEYS)}; keys: {', '.join(TOP_KEYS)}")
    context.defaults = {key: (data[key], (key,)) for key in DEFAULT_KEYS if key in data}
    for key in ("input", "stem", "stages", "head"):
        if data.get(key) is None:
            context.problem((), f"missing key {key!r}, expected " + _EXPECTED[key])
    name = _text(context, "name") or "unnamed"
    size = _input(context)
    stem = _role(context, "stem", data.get("stem"), ("stem",))
    stages = _stages(context)
    head = _role(context, "head", data.get("head"), ("head",))
    rate = _drop_path_rate(context)
    reported = reported_of(data["reported"], context.problem) if data.get("reported") is not None else None
    texts = {key: _text(context, key) for key in ("family", "paper", "note")}
    if context.problems or size is None or stem is None or stages is None or head is None:
        raise SpecError(_in_order(context.problems))
    spec = Spec(
        name=name, input=size, stem=stem, stages=stages, head=head, drop_path_rate=rate, reported=reported,
        document=json.dumps(data, sort_keys=True, default=str), plugins=plugins, **texts,
    )  # fmt: skip
    check_shapes(spec, document)
    return spec


_EXPECTED = {
    "input": "[channels, height, width], as [3, 224, 224]",
    "stem": "a stem, as {block: conv_stem, width: 32}",
    "stages": "a list of stages, as [{depth: 2, width: 32, block: ffn}]",
    "head": "a head, as {block: classifier, classes: 1000}",
}


def _in_order(problems: list[str]) -> list[str]:
    """By file, line and column, each once: the order in which a person mends them."""

    def place(line: str) -> tuple[str, int, int]:
        match = re.match(r"(.*?):(\d+):(\d+): ", line)
        return (match[1], int(match[2]), int(match[3])) if match else ("", 0, 0)

    return sorted(dict.fromkeys(problems), key=place)


def check_shapes(spec: Spec, document: Document | None = None) -> None:
    """Raise SpecError for every block that cannot take what arrives, with the nearest input size that would work."""
    _, misfits = flow_with_misfits(spec)
    if not misfits:
        return
    _, height, width = spec.input
    lines = []
    for misfit in misfits:
        where = misfit.path
        if document is not None:
            where = f"{document.mark(_text_path(document, misfit.path))}: {misfit.path}"
        lines.append(f"{where}: {misfit.reason} (input {height}×{width})")
    sizes = _working_sizes(spec)
    if sizes:
        lines[-1] += f"; {' and '.join(f'{h}×{w}' for h, w in sizes)} would work"
    raise SpecError(lines)


def _text_path(document: Document, module: str) -> Path:
    """Where the text speaks of a module: `stages.2.blocks.3` stands in its stage."""
    parts = tuple(int(p) if p.isdecimal() else p for p in module.split("."))
    if len(parts) > 2 and parts[2] == "blocks":
        return next(
            ((*parts[:2], key) for key in ("blocks", "block") if (*parts[:2], key) in document.values), parts[:2]
        )
    return parts


def _working_sizes(spec: Spec) -> list[tuple[int, int]]:
    """The nearest smaller and larger input, of the same margins, that every block takes; empty when size is no cure."""
    from dataclasses import replace

    channels, height, width = spec.input
    found = []
    for direction in (-1, 1):
        for step in range(1, 129):
            h, w = height + direction * step, width + direction * step
            if h < 1 or w < 1:
                break
            if not flow_with_misfits(replace(spec, input=(channels, h, w)))[1]:
                found.append((h, w))
                break
    return found


def _text(context: _Context, key: str) -> str:
    value = context.document.data.get(key, "")
    if not isinstance(value, str) or ("\n" in value.strip() and key == "name"):
        context.problem((key,), f"{key} expects a text, got {value!r}")
        return ""
    return " ".join(value.split())


def _input(context: _Context) -> tuple[int, int, int] | None:
    value = context.document.data.get("input")
    if value is None:
        return None
    good = isinstance(value, list) and len(value) == 3 and all(_is_int(v) and 1 <= v <= MAX_SIDE for v in value)
    if not good:
        context.problem(
            ("input",), f"input expects [channels, height, width] of whole numbers from 1 to {MAX_SIDE}, got {value!r}"
        )
        return None
    return (value[0], value[1], value[2])


def _drop_path_rate(context: _Context) -> float:
    value = context.document.data.get("drop_path_rate", 0.0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        context.problem(("drop_path_rate",), f"drop_path_rate expects a number from 0 up to 1, got {value!r}")
        return 0.0
    return float(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _role(context: _Context, role: Role, value: Any, path: Path, given: Fields | None = None) -> BlockSpec | None:
    """A stem, head or downsample: `kind` alone, or a mapping with `block: kind` and its fields."""
    if value is None:
        return None
    if isinstance(value, str):
        value = {"block": value}
    if not isinstance(value, dict) or not isinstance(value.get("block"), str):
        context.problem(path, f"{role} expects a kind, or a mapping with block: kind; kinds: {_names(context, role)}")
        return None
    kind = _kind(
        context, role, value["block"], (*path, "block") if (*path, "block") in context.document.values else path
    )
    if kind is None:
        return None
    given_fields = dict(given or {})
    given_fields.update({key: (item, (*path, key)) for key, item in value.items() if key != "block"})
    return _block(context, kind, given_fields, path)


def _kind(context: _Context, role: Role, name: str, path: Path) -> type[BlockSpec] | None:
    kind = context.kinds.get((role, name))
    if kind is None:
        elsewhere = next((r for r, n in context.kinds if n == name), None)
        names = [n for r, n in context.kinds if r == role]
        hint = f" ({name} is a {elsewhere})" if elsewhere else nearest(name, names)
        context.problem(path, f"unknown {role} {name!r}{hint}; kinds: {_names(context, role)}")
    return kind


def _names(context: _Context, role: Role) -> str:
    return ", ".join(name for r, name in context.kinds if r == role)


@cache
def field_names(kind: type[BlockSpec]) -> tuple[str, ...]:
    """The fields of a kind, in the order of its definition."""
    return tuple(field.name for field in fields(kind))


@cache
def _required(kind: type[BlockSpec]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)


@cache
def adapter(kind: type[BlockSpec]) -> TypeAdapter[BlockSpec]:
    """The validator of a kind, built when the kind is first used."""
    return TypeAdapter(kind)


@lru_cache(maxsize=1 << 16)
def _make(kind: type[BlockSpec], items: tuple[tuple[str, Any], ...], types: tuple[type, ...]) -> BlockSpec:
    # `types` keeps True apart from 1, which are equal as keys
    return adapter(kind).validate_python(dict(items))


def _block(context: _Context, kind: type[BlockSpec], given: Fields, path: Path) -> BlockSpec | None:
    """One block of `kind` from the given fields and the spec's defaults; None after reporting what is wrong."""
    names = field_names(kind)
    good = True
    for key, (_, where) in given.items():
        if key not in names:
            good = False
            context.key_problem(
                where, f"unknown key {key!r} of {kind.role} {kind.kind}{nearest(key, names)}; keys: {', '.join(names)}"
            )
    for key in _required(kind):
        if key not in given and key not in context.defaults:
            good = False
            context.problem(path, f"{kind.role} {kind.kind} needs {key}")
    if not good:
        return None
    merged = {key: given.get(key) or context.defaults[key] for key in names if key in given or key in context.defaults}
    items = tuple((key, value) for key, (value, _) in merged.items())
    try:
        return _make(kind, items, tuple(type(value) for _, value in items))
    except TypeError:  # an unhashable value: a list or mapping where a scalar belongs
        for key, (value, where) in merged.items():
            if isinstance(value, (list, dict)):
                what = "one value here, a list only as a key of a stage" if isinstance(value, list) else "a value"
                context.problem(where, f"{key} expects {what}, got {value!r}")
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            key = str(problem["loc"][0]) if problem["loc"] else ""
            where = merged[key][1] if key in merged else path
            context.problem(where, _explain(kind, key, dict(problem)))
    return None


def _explain(kind: type[BlockSpec], key: str, problem: dict[str, Any]) -> str:
    """pydantic's finding in the words of a spec."""
    got = repr(problem["input"])
    context = problem.get("ctx", {})
    match problem["type"]:
        case "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            return f"unknown {key} {got}{nearest(str(problem['input']), choices)}; one of: {', '.join(choices)}"
        case "int_type" | "int_from_float":
            return f"{key} of {kind.kind} expects a whole number, got {got}"
        case "float_type":
            return f"{key} of {kind.kind} expects a number, got {got}"
        case "bool_type":
            return f"{key} of {kind.kind} expects true or false, got {got}"
        case "value_error":
            return f"{kind.kind}: {context['error']}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            sign, bound = next(
                (s, context[k]) for k, s in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")) if k in context
            )
            return f"{key} of {kind.kind} expects a number {sign} {bound:g}, got {got}"
        case _:
            return f"{key} of {kind.kind}: {problem['msg']}, got {got}"


def _stages(context: _Context) -> tuple[Stage, ...] | None:
    value = context.document.data.get("stages")
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        context.problem(("stages",), "stages expects a list of stages, as [{depth: 2, width: 32, block: ffn}]")
        return None
    if len(value) > 64:
        context.problem(("stages",), f"{len(value)} stages, a spec has at most 64")
        return None
    stages = [_stage(context, item, ("stages", i)) for i, item in enumerate(value)]
    return tuple(stage for stage in stages if stage is not None) if all(stages) else None


def _stage(context: _Context, raw: Any, path: Path) -> Stage | None:
    if not isinstance(raw, dict):
        context.problem(path, f"a stage expects a mapping with depth, width and block, got {raw!r}")
        return None
    num_problems = len(context.problems)
    width = _whole(context, raw, "width", path, 65536)
    stride = _whole(context, raw, "stride", path, 16) if "stride" in raw else None
    rows = _rows(context, raw, path)
    if rows is None or width is None:
        return None
    depth = len(rows)
    _spread(context, raw, rows, path)
    downsample = None
    flow_fields: Fields = {"width": (width, (*path, "width"))}
    if raw.get("downsample") is not None:
        given = dict(flow_fields)
        if stride is not None:
            given["stride"] = (stride, (*path, "stride"))
        downsample = _role(context, "downsample", raw["downsample"], (*path, "downsample"), given)
    elif stride is not None:
        kind, given, _ = rows[0]
        if "stride" in field_names(kind):
            given.setdefault("stride", (stride, (*path, "stride")))
        else:
            context.problem((*path, "stride"), f"block {kind.kind} has no stride: give the stage a downsample")
    blocks = []
    for kind, given, where in rows:
        if "width" in field_names(kind):
            given.setdefault("width", flow_fields["width"])
        blocks.append(_block(context, kind, given, where))
    if len(context.problems) > num_problems or len(blocks) != depth:
        return None
    return Stage(width=width, blocks=tuple(b for b in blocks if b is not None), downsample=downsample)


def _whole(context: _Context, raw: dict[Any, Any], key: str, path: Path, most: int) -> int | None:
    value = raw.get(key)
    if value is None:
        context.problem((*path, key), f"missing key {key!r} of a stage, a whole number from 1 to {most}")
    elif not _is_int(value) or not 1 <= value <= most:
        context.problem((*path, key), f"{key} of a stage expects a whole number from 1 to {most}, got {value!r}")
    else:
        return value
    return None


Rows = list[tuple[type[BlockSpec], Fields, Path]]  # one block each: kind, its own fields, and its place in the text


def _rows(context: _Context, raw: dict[Any, Any], path: Path) -> Rows | None:
    """The kinds of a stage's blocks: `block: kind` `depth` times, or `blocks:` entries with their repeats."""
    has_depth = raw.get("depth") is not None
    depth = _whole(context, raw, "depth", path, MAX_DEPTH) if has_depth else None
    if ("block" in raw) == ("blocks" in raw):
        context.problem(path, "a stage needs either block: one kind, or blocks: a list of kinds")
        return None
    if "block" in raw:
        if not has_depth:
            context.problem(path, f"missing key 'depth' of a stage, a whole number from 1 to {MAX_DEPTH}")
        if not isinstance(raw["block"], str):
            context.problem((*path, "block"), f"block expects the name of a kind, got {raw['block']!r}")
            return None
        kind = _kind(context, "block", raw["block"], (*path, "block"))
        return [(kind, {}, path) for _ in range(depth)] if kind is not None and depth is not None else None
    if not isinstance(raw["blocks"], list) or not raw["blocks"]:
        context.problem((*path, "blocks"), "blocks expects a list, as [ffn*7, attention*2]")
        return None
    if has_depth and depth is None:
        return None
    entries = [_entry(context, item, (*path, "blocks", i)) for i, item in enumerate(raw["blocks"])]
    if not all(entries):
        return None
    known = [entry for entry in entries if entry is not None]
    elastic = [entry for entry in known if entry[3] is None]
    fixed = sum(entry[3] or 0 for entry in known)
    if elastic and (len(elastic) > 1 or depth is None):
        context.problem(
            (*path, "blocks"), "one entry may repeat without a number (`ffn*`), in a stage that has a depth"
        )
        return None
    total = depth if depth is not None else fixed
    rest = total - fixed
    if rest < 0 or (rest and not elastic) or total > MAX_DEPTH:
        context.problem((*path, "blocks"), f"blocks lists {fixed} blocks, but the stage has depth {total}")
        return None
    return [
        (kind, dict(given), where)
        for kind, given, where, repeat in known
        for _ in range(rest if repeat is None else repeat)
    ]


def _entry(context: _Context, item: Any, path: Path) -> tuple[type[BlockSpec], Fields, Path, int | None] | None:
    """An item of `blocks`: `kind`, `kind*3`, `kind*` (what the depth leaves), or a mapping with `repeat`."""
    given: Fields = {}
    repeat: int | None = 1
    if isinstance(item, dict) and isinstance(item.get("block"), str):
        name = item["block"]
        given = {key: (value, (*path, key)) for key, value in item.items() if key not in ("block", "repeat")}
        repeat = item.get("repeat", 1)
        if not _is_int(repeat) or not 1 <= item.get("repeat", 1) <= MAX_DEPTH:
            context.problem((*path, "repeat"), f"repeat expects a whole number from 1 to {MAX_DEPTH}, got {repeat!r}")
            return None
    elif isinstance(item, str):
        name, star, number = (part.strip() for part in item.partition("*"))
        if star:
            repeat = int(number) if number.isdecimal() and len(number) < 6 else None
            if number and not (repeat and 1 <= repeat <= MAX_DEPTH):
                context.problem(path, f"{item!r}: expected a number from 1 to {MAX_DEPTH} after *")
                return None
    else:
        context.problem(path, f"expected a kind, kind*3, or a mapping with block: kind; got {item!r}")
        return None
    kind = _kind(context, "block", name, path)
    return (kind, given, path, repeat) if kind is not None else None


def _spread(context: _Context, raw: dict[Any, Any], rows: Rows, path: Path) -> None:
    """Give each block its value of the stage's keys: one value for all, or a list with one value a block."""
    depth = len(rows)
    kinds = list(dict.fromkeys(kind for kind, _, _ in rows))
    known = dict.fromkeys(name for kind in kinds for name in field_names(kind) if name not in ("width", "stride"))
    for key, value in raw.items():
        where = (*path, key)
        if key in STAGE_KEYS:
            continue
        if key not in known:
            of = " and ".join(dict.fromkeys(kind.kind for kind in kinds))
            names = [*STAGE_KEYS, *known]
            context.key_problem(
                where, f"unknown key {key!r} of block {of}{nearest(key, names)}; keys: {', '.join(known)} "
                f"and those of a stage: {', '.join(STAGE_KEYS)}"
            )  # fmt: skip
        elif isinstance(value, list):
            if len(value) != depth:
                context.problem(where, f"{key} lists {len(value)} values, but the stage has depth {depth}")
                continue
            for i, ((kind, given, _), item) in enumerate(zip(rows, value, strict=True)):
                if key in field_names(kind):
                    given.setdefault(key, (item, (*where, i)))
                elif item is not None:
                    context.problem((*where, i), f"block {i} is {kind.kind}, which has no {key}: write null for it")
        else:
            for kind, given, _ in rows:
                if key in field_names(kind):
                    given.setdefault(key, (value, where))
