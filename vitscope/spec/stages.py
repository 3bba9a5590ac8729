"""`stages:` → Stage values: kinds and repeats expanded to one row a block, per-block lists dealt out, blocks made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitscope.spec.construct import Context, Fields, find_kind, make_block, role_block
from vitscope.spec.fields import field_names
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.text import Path
from vitscope.spec.value import Stage
from vitscope.spec.wording import choices, shown

STAGE_KEYS = ("depth", "width", "block", "blocks", "downsample", "stride")
MAX_STAGES = 64
MAX_DEPTH = 512
MAX_WIDTH = 65536
MAX_STRIDE = 16
_DEPTH = f"a whole number from 1 to {MAX_DEPTH}"
_EXAMPLE = "as [{depth: 2, width: 32, block: ffn}]"


@dataclass(frozen=True, slots=True)
class _Entry:
    """`kind*repeat`, as it stands in `blocks`; `repeat` None takes what the depth leaves."""

    kind: type[BlockSpec]
    given: Fields
    place: Path
    repeat: int | None


def stages_of(context: Context) -> tuple[Stage, ...] | None:
    """Every stage of the document; None after reporting what is wrong with any of them."""
    value = context.document.data.get("stages")
    if value is None:
        return None
    if isinstance(value, dict):
        text = f"stages expects a list of stages, {_EXAMPLE}; only a spec that extends another names stages by number"
        context.problem(("stages",), text)
        return None
    if not isinstance(value, list) or not value:
        context.problem(("stages",), f"stages expects a list of stages, {_EXAMPLE}; got {shown(value)}")
        return None
    if len(value) > MAX_STAGES:
        context.problem(("stages",), f"{len(value)} stages, a spec has at most {MAX_STAGES}")
        return None
    stages = [_known_stage(context, item, ("stages", i)) for i, item in enumerate(value)]
    return tuple(stage for stage in stages if stage is not None) if all(stages) else None


def _known_stage(context: Context, raw: Any, path: Path) -> Stage | None:
    """As `_stage`, remembering the stages that had no problem: an edit of one stage leaves the others as they were."""
    defaults = tuple((key, repr(value)) for key, (value, _) in context.defaults.items())
    key = (path, repr(raw), defaults, tuple(context.kinds.values()))
    known = _KNOWN.get(key)
    if known is not None:
        context.places.update(known[1])
        return known[0]
    stage = _stage(context, raw, path)
    if stage is not None:
        prefix = f"{path[0]}.{path[1]}."
        places = {name: place for name, place in context.places.items() if name.startswith(prefix)}
        if len(_KNOWN) >= _MAX_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = (stage, places)
    return stage


_KNOWN: dict[Any, tuple[Stage, dict[str, Path]]] = {}
_MAX_KNOWN = 1 << 14


def _stage(context: Context, raw: Any, path: Path) -> Stage | None:
    if not isinstance(raw, dict):
        context.problem(path, f"a stage expects a mapping with depth, width and block, got {shown(raw)}")
        return None
    num_problems = len(context.document.problems)
    width = _whole(context, raw, "width", path, MAX_WIDTH)
    stride = _whole(context, raw, "stride", path, MAX_STRIDE) if "stride" in raw else None
    entries = _entries(context, raw, path)
    if "width" not in raw:
        context.problem(path, f"a stage needs width, a whole number from 1 to {MAX_WIDTH}")
    assumed = frozenset({"width"} if width is None else ())
    rows = _rows(context, raw, entries, path)
    is_complete = rows is not None
    if rows is None:  # nothing to deal lists out to, but what is given once can still be checked
        rows = [_Entry(entry.kind, dict(entry.given), entry.place, 1) for entry in entries if entry is not None]
    if None not in entries:
        _deal(context, raw, rows, path, is_complete)
    elif isinstance(raw.get("blocks"), list):
        assumed |= frozenset(raw)  # some kind is unknown: the stage's keys may be meant for it
    shared: Fields = {} if width is None else {"width": (width, (*path, "width"))}
    downsample = _downsample(context, raw, shared, stride, rows, path, assumed)
    blocks = []
    for j, row in enumerate(rows):
        fields = dict(row.given)
        if "width" in field_names(row.kind):
            fields.update({key: value for key, value in shared.items() if key not in fields})
        unread = assumed & set(field_names(row.kind)) - set(fields)
        blocks.append(make_block(context, row.kind, fields, row.place, unread))
        context.places[f"{path[0]}.{path[1]}.blocks.{j}"] = row.place
    if len(context.document.problems) > num_problems or not is_complete or width is None:
        return None
    return Stage(width=width, blocks=tuple(b for b in blocks if b is not None), downsample=downsample)


def _downsample(
    context: Context, raw: dict[Any, Any], shared: Fields, stride: int | None, rows: list[_Entry], path: Path,
    assumed: frozenset[str],
) -> BlockSpec | None:  # fmt: skip
    """The block that opens the stage, if it has one; a `stride` of the stage goes to it, or to the first block."""
    value = raw.get("downsample")
    where = (*path, "stride")
    if value is not None:
        given = dict(shared)
        if stride is not None:
            given["stride"] = (stride, where)
            if isinstance(value, dict) and "stride" in value:
                context.problem(
                    (*path, "downsample", "stride"), "stride is given for the stage and for its downsample: keep one"
                )
        return role_block(context, "downsample", value, (*path, "downsample"), given, assumed & {"width"})
    if stride is not None and rows:
        first = rows[0]
        if "stride" not in field_names(first.kind):
            context.problem(where, f"the first block, {first.kind.kind}, has no stride: give the stage a downsample")
        elif "stride" in first.given:
            context.problem(first.given["stride"][1], "stride is given for the stage and for its first block: keep one")
        else:
            first.given["stride"] = (stride, where)
    return None


def _whole(context: Context, raw: dict[Any, Any], key: str, path: Path, most: int) -> int | None:
    value = raw.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    if key in raw:
        context.problem((*path, key), f"{key} of a stage expects a whole number from 1 to {most}, got {shown(value)}")
    return None


def _entries(context: Context, raw: dict[Any, Any], path: Path) -> list[_Entry | None]:
    """What the stage is made of, in the order of the text; None for what is wrong, and reported."""
    if ("block" in raw) == ("blocks" in raw):
        how = (
            "both block and blocks: keep one"
            if "block" in raw
            else "neither block: one kind, nor blocks: a list of kinds"
        )
        context.problem(path, f"a stage has {how}")
        return [None]
    if "blocks" in raw:
        value = raw["blocks"]
        if not isinstance(value, list) or not value:
            context.problem((*path, "blocks"), f"blocks expects a list, as [ffn*7, attention*2]; got {shown(value)}")
            return [None]
        return [_entry(context, item, (*path, "blocks", i)) for i, item in enumerate(value)]
    where, name = (*path, "block"), raw["block"]
    if isinstance(name, str) and "*" in name:
        context.problem(
            where, f"block names one kind, the depth says how often; a list of kinds is blocks: [{name[:60]}]"
        )
        return [None]
    if not isinstance(name, str):
        context.problem(where, f"block expects the name of a kind, got {shown(name)}; a list of kinds is blocks: […]")
        return [None]
    kind = find_kind(context, "block", name, where)
    return [_Entry(kind, {}, where, None) if kind is not None else None]


def _entry(context: Context, item: Any, path: Path) -> _Entry | None:
    """An item of `blocks`: `kind`, `kind*3`, `kind*` (what the depth leaves), or a mapping with that as `block`."""
    name, where, given = item, path, {}
    if isinstance(item, dict) and "block" in item:
        name, where = item["block"], (*path, "block")
        given = {key: (value, (*path, key)) for key, value in item.items() if key != "block"}
    if not isinstance(name, str):
        context.problem(where, f"expected a kind, kind*3, or a mapping with block: kind; got {shown(name)}")
        return None
    name, star, number = (part.strip() for part in name.partition("*"))
    repeat = None if star else 1
    if number:
        repeat = int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0
        if not 1 <= repeat <= MAX_DEPTH:
            context.problem(where, f"expected {_DEPTH} after *, got {shown(number)}")
            return None
    kind = find_kind(context, "block", name, where)
    return _Entry(kind, given, path, repeat) if kind is not None else None


def _rows(context: Context, raw: dict[Any, Any], entries: list[_Entry | None], path: Path) -> list[_Entry] | None:
    """One row a block, repeats written out; None when the depth is wrong or does not agree with the entries."""
    depth = _whole(context, raw, "depth", path, MAX_DEPTH)
    known = [entry for entry in entries if entry is not None]
    fixed = sum(entry.repeat or 0 for entry in known)
    elastic = [entry for entry in known if entry.repeat is None]
    if "depth" in raw and depth is None:
        return None
    if depth is None and (elastic or "block" in raw):
        context.problem(path, f"a stage needs depth, {_DEPTH}" + ("" if "block" in raw else ", for `kind*` to fill up"))
        return None
    if len(known) < len(entries):
        return None
    where = (*path, "blocks")
    if len(elastic) > 1:
        context.problem(where, "two entries without a number after *: only one can take what the depth leaves")
        return None
    total = fixed if depth is None else depth
    if total > MAX_DEPTH:
        context.problem(where, f"blocks lists {fixed} blocks, a stage has at most {MAX_DEPTH}")
        return None
    if fixed > total or (fixed < total and not elastic):
        _disagree(context, where, (*path, "depth"), f"blocks lists {_counted(fixed, 'block')}, but the stage has depth {total}",
                  "" if elastic else f"; {known[0].kind.kind}* would take what the depth leaves")  # fmt: skip
        return None
    return [
        _Entry(entry.kind, dict(entry.given), entry.place, 1)
        for entry in known
        for _ in range(total - fixed if entry.repeat is None else entry.repeat)
    ]


def _disagree(context: Context, where: Path, other: Path, text: str, cure: str = "") -> None:
    """Two values that do not fit together: at the one that was given last, naming the place of the other."""
    document = context.document
    mark, mate = document.mark(where), document.mark(other)
    rank = {source: i for i, source in enumerate(document.sources)}
    if other in document.values and rank.get(mate.source, -1) < rank.get(mark.source, -1):
        document.problem(mate, f"{text}, {where[-1]} at {mark}{cure}")
    elif other in document.values and mate.source != mark.source:
        document.problem(mark, f"{text}, {other[-1]} at {mate}{cure}")
    else:
        context.problem(where, text + cure)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _deal(context: Context, raw: dict[Any, Any], rows: list[_Entry], path: Path, is_complete: bool) -> None:
    """Give each block its value of the stage's keys: one value for all, or a list with one value a block."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    known = dict.fromkeys(name for kind in kinds for name in field_names(kind) if name not in ("width", "stride"))
    for key, value in raw.items():
        where = (*path, key)
        if key in STAGE_KEYS:
            continue
        if key not in known:
            of = " and ".join(dict.fromkeys(kind.kind for kind in kinds))
            end = choices(key, [*known, *STAGE_KEYS], "keys")
            context.key_problem(where, f"unknown key {shown(key)} of a stage of {of}{end}")
        elif not isinstance(value, list):
            for row in rows:
                if key in field_names(row.kind):
                    row.given.setdefault(key, (value, where))
        elif is_complete and len(value) != len(rows):
            _disagree(context, where, (*path, "depth"),
                      f"{key} lists {_counted(len(value), 'value')}, but the stage has depth {len(rows)}")  # fmt: skip
        elif is_complete:
            for j, (row, item) in enumerate(zip(rows, value, strict=True)):
                if key in field_names(row.kind):
                    row.given.setdefault(key, (item, (*where, j)))
                elif item is not None:
                    context.problem((*where, j), f"block {j} is {row.kind.kind}, which has no {key}: write null for it")
