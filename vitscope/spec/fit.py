"""Blocks that cannot take what arrives, said with their place in the text and with input sizes that would work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vitscope.errors import SpecError
from vitscope.spec.flow import Misfit, flow_with_misfits
from vitscope.spec.text import Document, Path
from vitscope.spec.value import Spec

_SEARCH_PIXELS = 128  # how far a working input size is looked for
_SEARCH_BLOCKS = 50_000  # and at the price of how many blocks


def check_shapes(spec: Spec, document: Document, places: Mapping[str, Path]) -> None:
    """Note every block of `spec` that does not fit, at its place in `document`."""
    misfits = _together(flow_with_misfits(spec)[1])
    if not misfits:
        return
    end = _cure(spec)
    for i, (misfit, name) in enumerate(misfits):
        mark = document.mark(places.get(misfit.path) or _text_path(misfit.path))
        document.problem(mark, f"{name}: {misfit.reason}{end if i == len(misfits) - 1 else ''}")


def need_shapes(spec: Spec) -> None:
    """Raise SpecError for every block of a spec without a text that does not fit."""
    misfits = _together(flow_with_misfits(spec)[1])
    if misfits:
        lines = [f"{spec.name}: {name}: {misfit.reason}" for misfit, name in misfits]
        lines[-1] += _cure(spec)
        raise SpecError(lines)


def _together(misfits: tuple[Misfit, ...]) -> list[tuple[Misfit, str]]:
    """Neighbours in a stage with one reason as one, under the name of the first and the last of them."""
    groups: list[list[Misfit]] = []
    for misfit in misfits:
        last = groups[-1][-1] if groups else None
        if last and last.reason == misfit.reason and last.path.split(".")[:3] == misfit.path.split(".")[:3]:
            groups[-1].append(misfit)
        else:
            groups.append([misfit])
    return [
        (group[0], group[0].path + (f" to {group[-1].path.rpartition('.')[2]}" if len(group) > 1 else ""))
        for group in groups
    ]


def _text_path(module: str) -> Path:
    return tuple(int(part) if part.isdecimal() else part for part in module.split("."))


def _cure(spec: Spec) -> str:
    """The nearest input sizes that every block takes, as the end of a line; empty when size is no cure."""
    sizes = _working_sizes(spec)
    if not sizes:
        return ""
    _, height, width = spec.input
    return f"; the input is {height}×{width}, {' and '.join(f'{h}×{w}' for h, w in sizes)} would work"


def _working_sizes(spec: Spec) -> list[tuple[int, int]]:
    """The nearest smaller and larger input that every block takes: both sides changed alike, or each for itself."""
    channels, height, width = spec.input
    reach = min(_SEARCH_PIXELS, _SEARCH_BLOCKS // (2 + sum(len(stage.blocks) + 1 for stage in spec.stages)))

    def works(h: int, w: int) -> bool:
        return min(h, w) >= 1 and not flow_with_misfits(replace(spec, input=(channels, h, w)))[1]

    def nearest(h: int, w: int, direction: int, first: int) -> tuple[int, int] | None:
        sizes = ((h + direction * step, w + direction * step) for step in range(first, reach + 1))
        return next((size for size in sizes if works(*size)), None)

    found = []
    for direction in (-1, 1):
        size = nearest(height, width, direction, 1)
        if size is None:  # the sides need different cures: each takes that of a square
            squares = [nearest(side, side, direction, 0) for side in (height, width)]
            if squares[0] is not None and squares[1] is not None and works(squares[0][0], squares[1][0]):
                size = (squares[0][0], squares[1][0])
        if size is not None:
            found.append(size)
    return found
