"""The networks that ship with vitscope: one YAML file each, found by name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_PACKAGED = Path(__file__).parent.parent / "zoo"
_CHECKOUT = Path(__file__).parent.parent.parent / "specs"


@lru_cache(maxsize=1)
def zoo_folder() -> Path:
    """`vitscope/zoo` of an installed wheel, `specs/` of a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(zoo_folder().rglob("*.yaml"))}


def zoo_names() -> tuple[str, ...]:
    """Every network's name, sorted."""
    return tuple(sorted(_files()))


def zoo_path(name: str) -> Path | None:
    """The spec file of a network of the zoo, or None."""
    return _files().get(name)
