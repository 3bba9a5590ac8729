"""Block kinds that users bring: a Python file named by a spec, run only when allowed, or an installed entry point.

A plugin is a Python file with a literal table `BLOCKS: dict[type[BlockSpec], type[nn.Module]]`, just as vitscope's own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from vitscope.errors import SpecError, VitscopeError
from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.kinds import KINDS, ROLES
from vitscope.spec.text import Document

ENTRY_POINTS = "vitscope.blocks"
_ENVIRONMENT = "VITSCOPE_ALLOW_PLUGINS"

# Modules of the kinds that plugins brought: grammar class → module class. Filled by `load_plugin`, read by the model.
PLUGIN_BLOCKS: dict[type[BlockSpec], Any] = {}


def builtin_kinds() -> dict[tuple[Role, str], type[BlockSpec]]:
    """Role and name → grammar class, of every kind that vitscope has."""
    return {(kind.role, kind.kind): kind for kind in KINDS}


def kinds_for(
    document: Document, allow_plugins: bool
) -> tuple[Mapping[tuple[Role, str], type[BlockSpec]], tuple[str, ...]]:
    """Every kind that `document` may name: vitscope's, those of its plugins, and those of installed packages."""
    kinds = builtin_kinds()
    names = document.data.get("plugins")
    if names is None:
        if _names_unknown_kind(document.data, kinds):
            for table in _entry_point_tables():
                _add(kinds, table, "an installed plugin")
        return kinds, ()
    mark = document.mark(("plugins",))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SpecError([f"{mark}: plugins expects a list of Python files, as [my_blocks.py]; got {names!r}"])
    if not (allow_plugins or os.environ.get(_ENVIRONMENT, "") not in ("", "0")):
        raise SpecError(
            [f"{mark}: this spec runs Python code from {', '.join(names)}: read it, then give --allow-plugins "
             f"(or set {_ENVIRONMENT}=1)"]
        )  # fmt: skip
    folder = Path(mark.source).parent
    paths = []
    for i, name in enumerate(names):
        where = document.mark(("plugins", i))
        path = Path(name) if Path(name).is_absolute() or not mark.line else folder / name
        path = path if path.is_file() else Path(name)
        if not path.is_file():
            raise SpecError([f"{where}: plugin {name}: no such file"])
        try:
            table = load_plugin(path.resolve())
            _add(kinds, table, name)
        except VitscopeError as error:
            raise SpecError([f"{where}: {error}"]) from error
        paths.append(str(path.resolve()))
    return kinds, tuple(paths)


@lru_cache(maxsize=64)
def load_plugin(path: Path) -> Mapping[type[BlockSpec], Any]:
    """Run a plugin file once and return its BLOCKS table. Raises VitscopeError with what it did wrong."""
    digest = hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()
    name = f"vitscope_plugin_{path.stem}_{digest}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise VitscopeError(f"plugin {path.name}: not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise VitscopeError(f"plugin {path.name} raised {type(error).__name__}: {error}") from error
    table = getattr(module, "BLOCKS", None)
    if not isinstance(table, dict) or not table:
        raise VitscopeError(f"plugin {path.name} has no BLOCKS table of grammar class → module class")
    return table


def _add(kinds: dict[tuple[Role, str], type[BlockSpec]], table: Mapping[type[BlockSpec], Any], origin: str) -> None:
    for kind, module in table.items():
        if not (
            isinstance(kind, type) and issubclass(kind, BlockSpec) and hasattr(kind, "kind") and kind.role in ROLES
        ):
            raise VitscopeError(f"plugin {origin}: {kind!r} is not a BlockSpec with a kind and a role")
        if kinds.get((kind.role, kind.kind), kind) is not kind:
            raise VitscopeError(f"plugin {origin}: {kind.role} {kind.kind!r} exists already, choose another name")
        kinds[kind.role, kind.kind] = kind
        PLUGIN_BLOCKS[kind] = module


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
def _entry_point_tables() -> tuple[Mapping[type[BlockSpec], Any], ...]:
    from importlib.metadata import entry_points

    tables = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            tables.append(point.load())
        except Exception as error:
            raise VitscopeError(f"installed plugin {point.name} raised {type(error).__name__}: {error}") from error
    return tuple(tables)
