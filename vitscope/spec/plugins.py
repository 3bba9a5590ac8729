"""Block kinds that users bring: a Python file named by a spec, run only when allowed, or an installed entry point.

A plugin is a Python file with a literal table `BLOCKS: dict[type[BlockSpec], type[nn.Module]]`, just as vitscope's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

from vitscope.errors import VitscopeError
from vitscope.spec.fields import field_docs
from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.kinds import KINDS, ROLES
from vitscope.spec.text import Document
from vitscope.spec.wording import one_line, printable, shown

ENTRY_POINTS = "vitscope.blocks"
_ENVIRONMENT = "VITSCOPE_ALLOW_PLUGINS"
_KIND_NAME = re.compile(r"[a-z][a-z0-9_]*")
_STAGE_WORDS = frozenset({"depth", "block", "blocks", "downsample"})  # of a stage, so never fields of its blocks

# Modules of the kinds that plugins brought: grammar class → module class. Filled by `kinds_for`, read by the model.
PLUGIN_BLOCKS: dict[type[BlockSpec], Any] = {}

KindTable = dict[tuple[Role, str], type[BlockSpec]]


def builtin_kinds() -> KindTable:
    """Role and name → grammar class, of every kind that vitscope has."""
    return {(kind.role, kind.kind): kind for kind in KINDS}


def kinds_for(document: Document, allow_plugins: bool) -> tuple[KindTable, tuple[str, ...]]:
    """Every kind that `document` may name: vitscope's, those of its plugins, and those of installed packages."""
    kinds = builtin_kinds()
    paths = _add_files(document, kinds, allow_plugins) if document.data.get("plugins") else ()
    if not isinstance(document.data.get("plugins", []), (list, NoneType)):
        document.problem(
            document.mark(("plugins",)),
            f"plugins expects a list of Python files, as [my_blocks.py]; got {shown(document.data['plugins'])}",
        )
    if _names_unknown_kind(document.data, kinds):
        for name, table in _entry_points():
            try:
                _add(kinds, _table(table))
            except VitscopeError as error:
                document.problem(document.mark(()), f"installed plugin {name} {error}")
    return kinds, paths


def _add_files(document: Document, kinds: KindTable, allow_plugins: bool) -> tuple[str, ...]:
    """Run the plugin files of a document, if that is allowed, and add their kinds; returns their paths."""
    names = document.data["plugins"]
    mark = document.mark(("plugins",))
    if not isinstance(names, list):
        return ()
    if not all(isinstance(name, str) and name for name in names):
        document.fail(mark, f"plugins expects a list of Python files, as [my_blocks.py]; got {shown(names)}")
    if not (allow_plugins or os.environ.get(_ENVIRONMENT, "") not in ("", "0")):
        files = printable(", ".join(names))[:200]
        document.fail(
            mark,
            f"this spec runs Python code from {files}: read it, then give --allow-plugins (or set {_ENVIRONMENT}=1)",
        )
    paths = []
    for i, name in enumerate(names):
        where = document.mark(("plugins", i))
        path = (Path(where.source).parent if where.line else Path(".")) / name  # beside the file that names it
        with contextlib.suppress(OSError, ValueError):
            path = path.resolve()
        if not _is_file(path):
            document.fail(where, f"plugin {printable(name)[:200]}: no such file")
        try:
            _add(kinds, load_plugin(path))
        except VitscopeError as error:
            document.fail(where, f"plugin {printable(name)[:200]} {error}")
        paths.append(str(path))
    return tuple(paths)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that the file system cannot have
        return False


@lru_cache(maxsize=64)
def load_plugin(path: Path) -> Mapping[type[BlockSpec], Any]:
    """Run a plugin file once and return its BLOCKS table. Raises VitscopeError with what it did wrong."""
    digest = hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()
    name = f"vitscope_plugin_{path.stem}_{digest}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise VitscopeError("is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints is no result
            module_spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() too: a file that gives up is no reason for us to
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f" in line {line}" if line else ""
        what = error.msg if isinstance(error, SyntaxError) else one_line(error)
        raise VitscopeError(f"raised {type(error).__name__}{where}: {what}") from error
    return _table(getattr(module, "BLOCKS", None))


def _table(table: Any) -> Mapping[type[BlockSpec], Any]:
    if isinstance(table, VitscopeError):
        raise table
    if not isinstance(table, Mapping) or not table:
        raise VitscopeError("has no BLOCKS, a dict of grammar class → module class")
    return table


def _add(kinds: KindTable, table: Mapping[type[BlockSpec], Any]) -> None:
    for kind, module in table.items():
        _check(kind, module)
        if kinds.get((kind.role, kind.kind), kind) is not kind:
            raise VitscopeError(f"defines {kind.role} {kind.kind}, which exists already: choose another name")
        kinds[kind.role, kind.kind] = kind
        PLUGIN_BLOCKS[kind] = module


def _check(kind: type[BlockSpec], module: Any) -> None:
    """Raise VitscopeError for what no spec could use: each would else fail later and further away."""
    from pydantic import TypeAdapter

    name = getattr(kind, "__name__", shown(kind))
    if not (isinstance(kind, type) and issubclass(kind, BlockSpec)):
        raise VitscopeError(f"has {name} in BLOCKS, which is no subclass of BlockSpec")
    word, role = getattr(kind, "kind", None), getattr(kind, "role", None)
    if not isinstance(word, str) or not _KIND_NAME.fullmatch(word):
        raise VitscopeError(f"has a class {name} whose kind is {shown(word)}, expected a word of a-z, 0-9 and _")
    if role not in ROLES:
        raise VitscopeError(f"has a class {name} whose role is {shown(role)}, expected one of {', '.join(ROLES)}")
    if "__dataclass_fields__" not in vars(kind) or not vars(kind)["__dataclass_params__"].frozen:
        raise VitscopeError(
            f"has a class {name} that is no frozen dataclass: decorate it with @dataclass(frozen=True, kw_only=True)"
        )
    reserved = _STAGE_WORDS if role == "block" else {"block"}
    if taken := [field.name for field in fields(kind) if field.name in reserved]:
        raise VitscopeError(f"has a class {name} with a field {taken[0]}, a word of the spec language: rename it")
    if not callable(module):
        raise VitscopeError(f"gives {name} no module class but {shown(module)}")
    try:
        field_docs(kind)  # raises for a type that does not exist
        TypeAdapter(kind)
    except Exception as error:
        raise VitscopeError(f"has a class {name} whose fields cannot be read: {one_line(error)}") from error


def _names_unknown_kind(data: Any, kinds: Mapping[tuple[Role, str], Any]) -> bool:
    """Whether some block name is none of ours, so that installed plugins are worth a (slow) look."""
    known = {name for _, name in kinds}
    names: list[Any] = []
    stages = data.get("stages") if isinstance(data.get("stages"), list) else []
    for part in [data.get("stem"), data.get("head"), *stages]:
        if isinstance(part, dict):
            entries = part.get("blocks")
            names += [part.get("block"), part.get("downsample"), *(entries if isinstance(entries, list) else [])]
        else:
            names.append(part)
    names = [n.get("block") if isinstance(n, dict) else n for n in names]
    return any(isinstance(n, str) and n.partition("*")[0].strip() not in known for n in names)


@lru_cache(maxsize=1)
def _entry_points() -> tuple[tuple[str, Any], ...]:
    """Name of each installed plugin, and its BLOCKS table or the error that says why there is none."""
    from importlib.metadata import entry_points

    found: list[tuple[str, Any]] = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found.append((point.name, point.load()))
        except Exception as error:
            found.append((point.name, VitscopeError(f"raised {type(error).__name__}: {one_line(error)}")))
    return tuple(found)
