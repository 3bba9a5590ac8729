"""Shapes through a spec: what arrives at each block and what leaves it, before any tensor exists."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vitscope.errors import ShapeError
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.plugins import PLUGIN_BLOCKS
from vitscope.spec.shape import FeatureShape
from vitscope.spec.value import Spec
from vitscope.spec.wording import one_line, shown


@dataclass(frozen=True, slots=True)
class Placed:
    """A block at its place. `path` is its qualified module name: `stem`, `stages.2.blocks.3`, `head`."""

    path: str
    block: BlockSpec
    in_shape: FeatureShape
    out_shape: FeatureShape


@dataclass(frozen=True, slots=True)
class Misfit:
    """A block that cannot take what arrives, with the reason."""

    path: str
    reason: str


def flow(spec: Spec) -> tuple[Placed, ...]:
    """Every block of `spec` in order, with its shapes. Raises ShapeError at the first one that does not fit."""
    placed, misfits = flow_with_misfits(spec)
    if misfits:
        raise ShapeError(f"{misfits[0].path}: {misfits[0].reason}")
    return placed


def flow_with_misfits(spec: Spec) -> tuple[tuple[Placed, ...], tuple[Misfit, ...]]:
    """As `flow`, but goes on after a block that does not fit, with what it was meant to put out, to find them all."""
    global _last
    if _last is None or _last[0] is not spec:
        _last = (spec, _walk(spec))
    return _last[1]


# A spec is checked where it is made and walked again where it is used: the second time it is at hand.
_last: tuple[Spec, tuple[tuple[Placed, ...], tuple[Misfit, ...]]] | None = None


def _walk(spec: Spec) -> tuple[tuple[Placed, ...], tuple[Misfit, ...]]:
    placed: list[Placed] = []
    misfits: list[Misfit] = []
    x = FeatureShape(*spec.input)

    def step(path: str, block: BlockSpec) -> None:
        nonlocal x
        try:
            y = block.out_shape(x) if type(block) not in PLUGIN_BLOCKS else _plugin_out_shape(block, x)
        except ShapeError as error:
            misfits.append(Misfit(path, str(error)))
            x = replace(x, tokens=False).strided(getattr(block, "width", x.channels), getattr(block, "stride", 1))
            return
        placed.append(Placed(path, block, x, y))
        x = y

    step("stem", spec.stem)
    for i, stage in enumerate(spec.stages):
        before = len(misfits)
        if stage.downsample is not None:
            step(f"stages.{i}.downsample", stage.downsample)
        for j, block in enumerate(stage.blocks):
            arrives = x.channels
            step(f"stages.{i}.blocks.{j}", block)
            if x.channels != stage.width and len(misfits) == before:
                cure = (
                    f"give the stage width {x.channels}"
                    if stage.downsample is not None
                    else "give the stage a downsample, or a block that changes the width"
                )
                misfits.append(
                    Misfit(
                        f"stages.{i}.blocks.{j}",
                        f"the stage has width {stage.width}, but {arrives} channels arrive and block {block.kind} "
                        f"leaves {x.channels}: {cure}",
                    )
                )
        if len(misfits) > before:
            x = replace(x, channels=stage.width)
    step("head", spec.head)
    return tuple(placed), tuple(misfits)


def _plugin_out_shape(block: BlockSpec, x: FeatureShape) -> FeatureShape:
    """The `out_shape` of somebody else's code, whose mistakes are problems of the spec that uses it."""
    try:
        y = block.out_shape(x)
    except ShapeError:
        raise
    except (Exception, SystemExit) as error:
        raise ShapeError(f"out_shape of {block.kind} raised {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(y, FeatureShape):
        raise ShapeError(f"out_shape of {block.kind} returned {shown(y)}, expected a FeatureShape")
    sides = (y.channels, y.height, y.width)
    if not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ShapeError(f"out_shape of {block.kind} returned {shown(sides)}, expected whole numbers from 1")
    return y
