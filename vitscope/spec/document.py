"""Which text a spec is made of: the file or zoo name, what it `extends`, and what `--set` overrides, merged into one."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path as FilePath
from typing import Any

from vitscope.errors import SpecError, UsageError, nearest
from vitscope.spec.text import MAX_BYTES, Document, Mark, Path, read_yaml
from vitscope.spec.zoo import zoo_names, zoo_path

_MAX_EXTENDS = 16
# What describes one exact network and would be untrue of a variant of it.
_NOT_INHERITED = ("reported", "note")


def locate(model: str, beside: FilePath | None = None) -> FilePath:
    """The file that `model` names: a path (relative to `beside`), or a network of the zoo. Raises UsageError."""
    path = FilePath(model)
    if beside is not None and not path.is_absolute():
        path = beside / path
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{model}: is a directory, expected a spec file or a name of the zoo")
    known = zoo_path(model)
    if known is not None:
        return known
    if model.endswith((".yaml", ".yml")) or "/" in model:
        raise UsageError(f"{model}: no such file{nearest(FilePath(model).stem, zoo_names())}")
    raise UsageError(
        f"{model}: no such file, and no network of the zoo{nearest(model, zoo_names())} (`vitscope zoo` lists them)"
    )


def read_file(path: FilePath) -> str:
    """The text of a spec file. Raises UsageError for what is no readable, bounded UTF-8 text."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise SpecError([f"{path}: larger than {MAX_BYTES:,} bytes, too large for a spec"])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecError([f"{path}:{line}:1: not UTF-8 text (byte 0x{raw[error.start]:02x}): is this a spec?"]) from None


def read_merged(path: FilePath, overrides: Sequence[str] = ()) -> Document:
    """The document of `path` with everything that it extends under it and `overrides` (`KEY.PATH=VALUE`) over it."""
    document = _read_with_bases(path, ())
    return override(document, overrides) if overrides else document


def merge_text(text: str, source: str, overrides: Sequence[str] = ()) -> Document:
    """As `read_merged`, for a text that is no file; what it extends is looked up from the working directory."""
    document = _extend(read_yaml(text, source), FilePath("."), (), source)
    return override(document, overrides) if overrides else document


def _read_with_bases(path: FilePath, chain: tuple[FilePath, ...]) -> Document:
    return _extend(read_yaml(read_file(path), str(path)), path.parent, (*chain, path.resolve()), str(path))


def _extend(document: Document, folder: FilePath, chain: tuple[FilePath, ...], source: str) -> Document:
    """Resolve `extends` of a document just read. `chain` holds the files on the way here, to find loops."""
    if not isinstance(document.data, dict):
        raise SpecError([f"{document.mark(())}: expected a mapping with name, input, stem, stages and head"])
    base_name = document.data.pop("extends", None)
    if base_name is None:
        _stages_by_index(document)
        return document
    mark = document.mark(("extends",))
    if not isinstance(base_name, str):
        raise SpecError([f"{mark}: extends expects the name of a spec, got {base_name!r}"])
    try:
        base_path = locate(base_name, folder)
    except UsageError as error:
        raise SpecError([f"{mark}: extends {error}"]) from None
    if base_path.resolve() in chain:
        loop = " → ".join(p.name for p in (*chain, base_path))
        raise SpecError([f"{mark}: extends goes in a loop: {loop}"])
    if len(chain) >= _MAX_EXTENDS:
        raise SpecError([f"{mark}: extends goes more than {_MAX_EXTENDS} files deep"])
    base = _read_with_bases(base_path, chain)
    for key in _NOT_INHERITED:
        base.data.pop(key, None)
    plugins = base.data.get("plugins")
    if isinstance(plugins, list):  # file names stay relative to the file that gives them
        base.data["plugins"] = [
            str(base_path.parent / p) if isinstance(p, str) and not FilePath(p).is_absolute() else p for p in plugins
        ]
    base.data.setdefault("name", base_path.stem)
    if "name" not in document.data and source.endswith((".yaml", ".yml")):
        base.data["name"] = FilePath(source).stem
    _merge(base, document, ())
    return base


def _merge(base: Document, over: Document, path: Path) -> None:
    """Lay `over` onto `base` at `path`: mappings key by key, list items by index, all else replaced."""
    below, above = _at(base.data, path), _at(over.data, path)
    for key, value in above.items():
        where: Path = (*path, key)
        here = below.get(key) if isinstance(below, dict) else None
        if isinstance(below, list):
            if not isinstance(key, int) or not 0 <= key < len(below):
                raise SpecError(
                    [f"{over.key_mark(where)}: no item {key!r} to override, there are {len(below)} (0 first)"]
                )
            here = below[key]
        if isinstance(value, dict) and isinstance(here, (dict, list)) and not _replaces(value, here):
            _merge(base, over, where)
            continue
        below[key] = value
        for marks, new in ((base.values, over.values), (base.keys, over.keys)):
            for old in [p for p in marks if p[: len(where)] == where]:
                del marks[old]
            marks.update({p: mark for p, mark in new.items() if p[: len(where)] == where})


def _replaces(value: dict[Any, Any], here: dict[Any, Any] | list[Any]) -> bool:
    """A mapping that names another block kind is a new block, not an edit of the old one's fields."""
    return isinstance(here, dict) and "block" in value and value["block"] != here.get("block") and "depth" not in here


def _stages_by_index(document: Document) -> None:
    """`stages: {0: …, 1: …}` of a spec that extends nothing is a list written with its indices."""
    stages = document.data.get("stages")
    if isinstance(stages, dict) and stages and sorted(map(str, stages)) == sorted(str(i) for i in range(len(stages))):
        document.data["stages"] = [stages[i] for i in range(len(stages))]


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


_SET = re.compile(r"^([A-Za-z0-9_.\[\]]+)=(.*)$", re.DOTALL)


def override(document: Document, settings: Iterable[str]) -> Document:
    """A copy of `document` with each `KEY.PATH=VALUE` set; the value is YAML. Raises SpecError naming the setting."""
    merged = Document(copy.deepcopy(document.data), dict(document.values), dict(document.keys))
    problems = []
    for setting in settings:
        source = f"--set {setting}"
        match = _SET.match(setting)
        if not match:
            problems.append(f"{source}: expected KEY=VALUE, as stages.2.depth=8")
            continue
        path: Path = tuple(
            int(part) if part.isdecimal() else part for part in re.split(r"[.\[]", match[1].replace("]", "")) if part
        )
        try:
            value = read_yaml(match[2], source).data if match[2].strip() else None
            _set(merged, path, value, source)
        except SpecError as error:
            problems += [re.sub(r"^(--set .*?):\d+:\d+: ", r"\1: ", line, flags=re.DOTALL) for line in error.problems]
    if problems:
        raise SpecError(problems)
    for key in _NOT_INHERITED:
        merged.data.pop(key, None)
    return merged


def _set(document: Document, path: Path, value: Any, source: str) -> None:
    target: Any = document.data
    for depth, key in enumerate(path[:-1]):
        walked = ".".join(map(str, path[: depth + 1]))
        if isinstance(target, dict) and isinstance(target.get(key), str) and key in ("stem", "head", "downsample"):
            target[key] = {"block": target[key]}  # the short form `downsample: conv`, about to get a field
        if key in target if isinstance(target, dict) else isinstance(key, int) and key < len(target):
            target = target[key]  # type: ignore[index]
        else:
            names = map(str, target) if isinstance(target, dict) else map(str, range(len(target)))
            raise SpecError([f"{source}: nothing at {walked}{nearest(str(key), names)}"])
        if not isinstance(target, (dict, list)):
            raise SpecError([f"{source}: {walked} is {target!r} and has no parts"])
    last = path[-1]
    if isinstance(target, list):
        if not isinstance(last, int) or last >= len(target):
            raise SpecError([f"{source}: no item {last!r}, there are {len(target)} (0 first)"])
        target[last] = value
    else:
        target[last] = value
    for marks in (document.values, document.keys):
        for old in [p for p in marks if p[: len(path)] == path]:
            del marks[old]
        marks[path] = Mark(source)
