"""`--set KEY.PATH=VALUE`: single values of a spec changed from outside, as an edit of its text would."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from vitscope.errors import SpecError, nearest
from vitscope.spec.document import NOT_INHERITED, is_block, no_item
from vitscope.spec.text import Document, Mark, Path, read_yaml
from vitscope.spec.wording import printable, shown

_KEY = re.compile(r"\w[\w-]*(?:\.-?\w[\w-]*|\[-?\d+\])*", re.ASCII)
_INDEX = re.compile(r"-?\d{1,9}", re.ASCII)


class _Refused(ValueError):
    """A setting that does not fit the document."""


def override(document: Document, settings: Iterable[str]) -> None:
    """Change `document` by each `KEY.PATH=VALUE`, whose value is YAML; what does not fit is noted as its problem."""
    settings = list(settings)
    if settings:
        for key in NOT_INHERITED:
            document.data.pop(key, None)
    marks: dict[Path, Mark] = {}
    for setting in settings:
        mark = Mark("--set " + (setting if len(setting) <= 100 else setting[:99] + "…"))
        document.options.append(mark.source)
        try:
            path, value = _parsed(setting)
            _put(document.data, path, value)
        except _Refused as error:
            document.problem(mark, str(error))
            continue
        marks = {p: m for p, m in marks.items() if p[: len(path)] != path}
        marks[path] = mark

    for under in marks:
        for places in (document.values, document.keys):
            for path in [path for path in places if path[: len(under)] == under]:
                del places[path]
    document.values.update(marks)
    document.keys.update(marks)


def _parsed(setting: str) -> tuple[Path, Any]:
    """The path and the value of a setting."""
    key, equals, text = setting.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise _Refused("expected KEY=VALUE with keys and item numbers joined by dots, as stages.2.depth=8")
    path = tuple(int(part) if _INDEX.fullmatch(part) else part for part in re.split(r"[.\[]", key.replace("]", "")))
    if path[0] == "extends":
        raise _Refused("extends belongs into a file: write one that extends the other spec, and give its name")
    try:
        read = read_yaml(text, "", "a value (null for none)")
        read.check()
    except SpecError as error:
        raise _Refused("; ".join(re.sub(r"^(:\d+:\d+)?: ", "", line) for line in error.problems)) from None
    return path, read.data


def _put(target: Any, path: Path, value: Any) -> None:
    """Set the value at `path` in `target`; all but the last key of it must exist."""
    for depth, key in enumerate(path[:-1]):
        _need_key(target, key, path[:depth])
        if is_block(path[: depth + 1]) and type(target[key]) is str:
            target[key] = {"block": target[key]}  # the short form `downsample: conv`, about to get a field
        target = target[key]
        if type(target) not in (dict, list):
            raise _Refused(f"{_dotted(path[: depth + 1])} is {shown(target)} and has no parts")
    last = path[-1]
    _need_key(target, last, path[:-1], may_be_new=True)
    if last in ("block", "blocks") and len(path) == 3 and path[0] == "stages":
        target.pop("blocks" if last == "block" else "block", None)  # the two ways to say what a stage is made of
    target[last] = value


def _need_key(target: Any, key: object, path: Path, may_be_new: bool = False) -> None:
    if type(target) is dict and key not in target and not may_be_new:
        raise _Refused(_nothing(key, path, target))
    if type(target) is list and not (isinstance(key, int) and 0 <= key < len(target)):
        raise _Refused(no_item(key, path, len(target)))


def _nothing(key: object, path: Path, target: dict[Any, Any]) -> str:
    where = _dotted(path) or "the spec"
    close = nearest(str(key), map(str, target)) if len(str(key)) <= 64 else ""
    there = ", ".join(printable(str(k))[:64] for k in list(target)[:30])
    return f"{where} has no {printable(str(key))[:64]}{close or ';'} it has {there or 'nothing'}"


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))
