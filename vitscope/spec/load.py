"""load_spec: a file, a name of the zoo, or a text → Spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitscope.spec.document import locate, merge_text, read_merged
from vitscope.spec.plugins import kinds_for
from vitscope.spec.resolve import check_shapes, resolve
from vitscope.spec.text import Document
from vitscope.spec.value import Spec


def load_spec(
    model: str | Path,
    overrides: Sequence[str] = (),
    *,
    resolution: tuple[int, int] | None = None,
    allow_plugins: bool = False,
) -> Spec:
    """The Spec of a YAML file or of a network of the zoo.

    `overrides` are `KEY.PATH=VALUE` settings; `resolution` is (height, width) in pixels. Raises SpecError with every
    problem of the file, or UsageError when there is no such file or name.
    """
    document = read_merged(locate(str(model)), overrides)
    return _spec(document, resolution, allow_plugins)


def parse_spec(text: str, source: str = "<text>", overrides: Sequence[str] = ()) -> Spec:
    """The Spec of a YAML text; `source` names it in errors. Plugins are never run."""
    return _spec(merge_text(text, source, overrides), None, False)


def _spec(document: Document, resolution: tuple[int, int] | None, allow_plugins: bool) -> Spec:
    if resolution is not None and isinstance(document.data.get("input"), list) and len(document.data["input"]) == 3:
        document.data["input"][1:] = resolution
    kinds, plugins = kinds_for(document, allow_plugins)
    return resolve(document, kinds, plugins)


def at_resolution(spec: Spec, height: int, width: int) -> Spec:
    """`spec` for another input size. Raises SpecError when a block cannot take what then arrives."""
    moved = replace(spec, input=(spec.input[0], height, width))
    check_shapes(moved)
    return moved
