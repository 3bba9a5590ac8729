"""load_spec: a file, a name of the zoo, or a text → Spec."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitscope.errors import SpecError
from vitscope.spec.document import STDIN, locate, merge_text, read_merged, read_stdin
from vitscope.spec.fit import need_shapes
from vitscope.spec.override import override
from vitscope.spec.plugins import kinds_for
from vitscope.spec.resolve import MAX_SIDE, is_side, resolve
from vitscope.spec.text import Document, Mark
from vitscope.spec.value import Spec


def load_spec(
    model: str | Path,
    overrides: Sequence[str] = (),
    *,
    resolution: tuple[int, int] | None = None,
    allow_plugins: bool = False,
) -> Spec:
    """The Spec of a YAML file, of a network of the zoo, or of standard input (`-`).

    `overrides` are `KEY.PATH=VALUE` settings; `resolution` is (height, width) in pixels. Raises SpecError with every
    problem of the file, or UsageError when there is no such file or name.
    """
    name = str(model)
    document = merge_text(read_stdin(), "<stdin>") if name == STDIN else read_merged(locate(name))
    return _spec(document, overrides, resolution, allow_plugins)


def parse_spec(text: str, source: str = "<text>", overrides: Sequence[str] = ()) -> Spec:
    """The Spec of a YAML text; `source` names it in errors. Its plugins run only where VITSCOPE_ALLOW_PLUGINS is set."""
    return _spec(merge_text(text, source), overrides, None, False)


def _spec(
    document: Document, overrides: Sequence[str], resolution: tuple[int, int] | None, allow_plugins: bool
) -> Spec:
    override(document, overrides)
    size = document.data.get("input")
    if resolution is not None and isinstance(size, list) and len(size) == 3 and tuple(size[1:]) != tuple(resolution):
        size[1:] = resolution
        document.data.pop("reported", None)
        mark = Mark(f"resolution {resolution[0]}×{resolution[1]}")
        document.values.update({("input", 1): mark, ("input", 2): mark})
    kinds, plugins = kinds_for(document, allow_plugins)
    return resolve(document, kinds, plugins)


class Variants:
    """Edits of one spec whose text is read once: what a search over thousands of candidates asks for."""

    def __init__(self, model: str | Path, *, allow_plugins: bool = False):
        self._document = read_merged(locate(str(model)))
        self._allow_plugins = allow_plugins

    def spec(self, *overrides: str) -> Spec:
        """The Spec with each `KEY.PATH=VALUE` set; the same as `load_spec(model, overrides)`."""
        base = self._document
        copy = replace(
            base, data=_copied(base.data), options=list(base.options), values=dict(base.values), keys=dict(base.keys),
            problems=dict(base.problems),
        )  # fmt: skip
        return _spec(copy, overrides, None, self._allow_plugins)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def at_resolution(spec: Spec, height: int, width: int) -> Spec:
    """`spec` for another input size, without the figures reported at its own.

    Raises SpecError when a block cannot take what then arrives.
    """
    if (height, width) == spec.input[1:]:
        return spec
    if not is_side(height) or not is_side(width):
        raise SpecError([f"{spec.name}: resolution expects whole numbers from 1 to {MAX_SIDE}, got {height}×{width}"])
    size = (spec.input[0], height, width)
    document = json.loads(spec.document) if spec.document else {}
    document.pop("reported", None)
    moved = replace(
        spec, input=size, reported=None, document=json.dumps(document | {"input": list(size)}, sort_keys=True)
    )
    need_shapes(moved)
    return moved
