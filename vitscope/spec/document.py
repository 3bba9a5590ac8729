"""Which text a spec is made of: the file or zoo name, with everything that it `extends` laid under it."""

from __future__ import annotations

import sys
from pathlib import Path as FilePath
from typing import Any

from vitscope.errors import SpecError, UsageError, nearest
from vitscope.spec.text import MAX_BYTES, MAX_NODES, Document, Mark, Path, read_yaml
from vitscope.spec.wording import printable, shown
from vitscope.spec.zoo import zoo_names, zoo_path

STDIN = "-"
_MAX_EXTENDS = 16
# What describes one exact network and would be untrue of a variant of it.
NOT_INHERITED = ("reported", "note")


def locate(model: str, beside: FilePath | None = None) -> FilePath:
    """The file that `model` names: a path (relative to `beside`), or a network of the zoo. Raises UsageError."""
    name = printable(model) if len(model) <= 200 else printable(model[:199]) + "…"
    if not model.strip():
        raise UsageError("an empty name, expected a spec file or a name of the zoo")
    path = FilePath(model)
    if beside is not None and not path.is_absolute():
        path = beside / path
    try:
        if path.is_file():
            return path
        if path.is_dir():
            raise UsageError(f"{name}: is a directory, expected a spec file or a name of the zoo")
        if path.exists():
            raise UsageError(f"{name}: is no regular file (a spec from a pipe is read with the name {STDIN})")
    except (OSError, ValueError) as error:  # a name too long for the file system, or one that it cannot encode
        raise UsageError(f"{name}: cannot read: {getattr(error, 'strerror', None) or error}") from None
    known = zoo_path(model)
    if known is not None:
        return known
    if model.endswith((".yaml", ".yml")) or "/" in model:
        raise UsageError(f"{name}: no such file{nearest(path.stem, zoo_names()) if len(model) < 200 else ''}")
    hint = nearest(model, zoo_names()) if len(model) < 200 else ""
    raise UsageError(f"{name}: no such file, and no network of the zoo{hint} (`vitscope zoo` lists them)")


def read_file(path: FilePath) -> str:
    """The text of a spec file. Raises UsageError for what cannot be read, SpecError for what is no bounded UTF-8 text."""
    try:
        with open(path, "rb") as file:
            return _decoded(file.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot read: {error.strerror}") from error


def read_stdin() -> str:
    """The text of standard input, as `read_file`."""
    return _decoded(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>")


def _decoded(raw: bytes, source: str) -> str:
    if len(raw) > MAX_BYTES:
        raise SpecError([f"{Mark(source)}: larger than {MAX_BYTES:,} bytes, too large for a spec"])
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SpecError([f"{Mark(source, 1, 1)}: UTF-16 text, expected UTF-8: save the file as UTF-8"])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise SpecError(
            [f"{Mark(source, line, column)}: not UTF-8 text (byte 0x{raw[error.start]:02x}): is this a spec?"]
        ) from None


def read_merged(path: FilePath) -> Document:
    """The document of `path` with everything that it extends under it."""
    return _read_with_bases(path, ())


def merge_text(text: str, source: str) -> Document:
    """As `read_merged`, for a text that is no file; what it extends is looked up from the working directory."""
    return _extend(read_yaml(text, source), FilePath("."), ())


def _read_with_bases(path: FilePath, chain: tuple[FilePath, ...]) -> Document:
    document = read_yaml(read_file(path), str(path))
    if isinstance(document.data, dict):
        document.data.setdefault("name", path.stem)
    return _extend(document, path.parent, (*chain, path.resolve()))


def _extend(document: Document, folder: FilePath, chain: tuple[FilePath, ...]) -> Document:
    """Resolve `extends` of a document just read. `chain` holds the files on the way here, to find loops."""
    if not isinstance(document.data, dict):
        document.fail(document.mark(()), "expected a mapping with name, input, stem, stages and head")
    if "extends" not in document.data:
        return document
    base_name = document.data.pop("extends")
    mark = document.mark(("extends",))
    if not isinstance(base_name, str):
        document.fail(mark, f"extends expects the name of a spec, got {shown(base_name)}")
    try:
        base_path = locate(base_name, folder)
    except UsageError as error:
        document.fail(mark, f"extends {error}")
    if base_path.resolve() in chain:
        loop = " → ".join(printable(p.name) for p in (*chain, base_path))
        document.fail(mark, f"extends goes in a loop: {loop}")
    if len(chain) > _MAX_EXTENDS:
        document.fail(mark, f"extends goes more than {_MAX_EXTENDS} files deep")
    try:
        base = _read_with_bases(base_path, chain)
    except UsageError as error:
        document.fail(mark, f"extends {error}")
    for key in NOT_INHERITED:
        base.data.pop(key, None)
    return _laid_over(base, document)


def _laid_over(base: Document, over: Document) -> Document:
    """`over` on `base`: mappings key by key, list items by index, all else replaced."""
    replaced: set[Path] = set()
    merged = Document(base.data, [*over.sources, *base.sources], problems=base.problems | over.problems)

    def lay(below: Any, above: dict[Any, Any], path: Path) -> None:
        for key, value in above.items():
            where: Path = (*path, key)
            if isinstance(below, list):
                if not isinstance(key, int) or not 0 <= key < len(below):
                    merged.problem(over.key_mark(where), no_item(key, path, len(below)))
                    continue
                here = below[key]
            else:
                here = below.get(key)
                for rival in {"block": ("blocks",), "blocks": ("block",)}.get(key, ()):
                    if len(path) == 2 and path[0] == "stages" and rival not in above:
                        below.pop(rival, None)
                        replaced.add((*path, rival))
            if isinstance(value, dict) and isinstance(here, str) and is_block(where) and "block" not in value:
                here = below[key] = {"block": here}  # the short form `downsample: conv` gets a field
            if isinstance(value, dict) and isinstance(here, (dict, list)) and not _is_other_kind(where, value, here):
                lay(here, value, where)
            else:
                below[key] = value
                replaced.add(where)

    lay(base.data, over.data, ())

    def is_replaced(path: Path) -> bool:
        return any(path[:n] in replaced for n in range(1, len(path) + 1))

    for ours, below, above in (
        (merged.values, base.values, over.values),
        (merged.keys, base.keys, over.keys),
    ):
        ours.update({path: mark for path, mark in below.items() if not is_replaced(path)})
        ours.update({path: mark for path, mark in above.items() if is_replaced(path)})
    merged.values[()] = over.values[()]
    if len(merged.values) > MAX_NODES:
        merged.fail(merged.mark(()), f"more than {MAX_NODES:,} values with what it extends, too large for a spec")
    return merged


def is_block(path: Path) -> bool:
    """Whether a block stands at `path`, as a kind alone or as a mapping with `block: kind`."""
    if len(path) == 1:
        return path[0] in ("stem", "head")
    return path[0] == "stages" and (*path[2:3], len(path)) in (("downsample", 3), ("blocks", 4))


def no_item(key: object, path: Path, length: int) -> str:
    """What is wrong with `key` as an index into the list of `length` at `path`."""
    place = ".".join(map(str, path))
    there = f"it has 0 to {length - 1}" if length > 1 else f"it has {length}"
    return f"no item {shown(key)} in {place}: {there}, and grows only by writing the whole list"


def _is_other_kind(path: Path, value: dict[Any, Any], here: dict[Any, Any] | list[Any]) -> bool:
    """A mapping that names another block kind is a new block, not an edit of the old one's fields."""
    return is_block(path) and isinstance(here, dict) and "block" in value and value["block"] != here.get("block")
