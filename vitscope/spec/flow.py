"""Shapes through a spec: what arrives at each block and what leaves it, before any tensor exists."""

from __future__ import annotations

from dataclasses import dataclass

from vitscope.errors import ShapeError
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.shape import FeatureShape
from vitscope.spec.value import Spec


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
    """As `flow`, but goes on after a block that does not fit, as if it kept the shape, to find them all."""
    placed: list[Placed] = []
    misfits: list[Misfit] = []
    x = FeatureShape(*spec.input)

    def step(path: str, block: BlockSpec) -> None:
        nonlocal x
        try:
            y = block.out_shape(x)
        except ShapeError as error:
            misfits.append(Misfit(path, str(error)))
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
                misfits.append(
                    Misfit(
                        f"stages.{i}.blocks.{j}",
                        f"the stage has width {stage.width}, but {arrives} channels arrive and block {block.kind} "
                        f"leaves {x.channels}: give the stage a downsample, or a block that changes the width",
                    )
                )
                x = FeatureShape(stage.width, x.height, x.width, x.tokens)
    step("head", spec.head)
    return tuple(placed), tuple(misfits)
