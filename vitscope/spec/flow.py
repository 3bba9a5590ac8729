"""Shapes through a spec: what arrives at each block and what leaves it, before any tensor exists."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from vitscope.errors import ShapeError
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.plugins import PLUGIN_BLOCKS
from vitscope.spec.shape import Feature, FeatureShape, features, main_feature
from vitscope.spec.value import Spec
from vitscope.spec.wording import one_line, shown


@dataclass(frozen=True, slots=True)
class Placed:
    """A block at its place. `path` is its qualified module name: `stem`, `stages.2.blocks.3`, `head`.

    `held` are the stage outputs that wait for the head meanwhile; `keeps_input` says that its own input is one of those
    that must outlive it.
    """

    path: str
    block: BlockSpec
    in_shape: Feature
    out_shape: Feature
    held: tuple[FeatureShape, ...] = ()
    keeps_input: bool = False

    @property
    def held_bytes(self) -> int:
        """Bytes of `held` for one image, in float32."""
        return 4 * sum(shape.numel for shape in self.held) if self.held else 0


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
    x: Feature = FeatureShape(*spec.input)
    num_stages = len(spec.stages)
    tapped = {t % num_stages for t in spec.head.taps if -num_stages <= t < num_stages}
    waiting: tuple[FeatureShape, ...] = ()  # stage outputs that the head will take, but for the input of the next block
    keeps_input = False  # whether the input of the next block is one that the head will take

    def step(path: str, block: BlockSpec) -> None:
        nonlocal x, keeps_input, waiting
        try:
            y = _out_shape(block, x)
        except ShapeError as error:
            misfits.append(Misfit(path, str(error)))
            main = replace(main_feature(x), tokens=False, prefix=0)
            x = main.strided(getattr(block, "width", main.channels), getattr(block, "stride", 1))
            return
        placed.append(Placed(path, block, x, y, waiting, keeps_input))
        if keeps_input:
            waiting = (*waiting, main_feature(x))
        x, keeps_input = y, False

    step("stem", spec.stem)
    outputs: list[Feature] = []
    for i, stage in enumerate(spec.stages):
        before = len(misfits)
        if stage.downsample is not None:
            step(f"stages.{i}.downsample", stage.downsample)
        for j, block in enumerate(stage.blocks):
            arrives = main_feature(x).channels
            step(f"stages.{i}.blocks.{j}", block)
            leaves = main_feature(x).channels
            if leaves != stage.width and len(misfits) == before:
                cure = (
                    f"give the stage width {leaves}"
                    if stage.downsample is not None
                    else "give the stage a downsample, or a block that changes the width"
                )
                misfits.append(
                    Misfit(
                        f"stages.{i}.blocks.{j}",
                        f"the stage has width {stage.width}, but {arrives} channels arrive and block {block.kind} "
                        f"leaves {leaves}: {cure}",
                    )
                )
        if len(misfits) > before:
            x = replace(main_feature(x), channels=stage.width)
        outputs.append(x)
        if i in tapped and i < num_stages - 1:
            keeps_input = True
    if spec.head.taps:
        missing = [t for t in spec.head.taps if not -num_stages <= t < num_stages]
        if missing:
            reason = f"{spec.head.kind} takes the output of stage {missing[0]}, but there are {num_stages} stages"
            return tuple(placed), (*misfits, Misfit("head", reason))
        x = tuple(main_feature(outputs[t]) for t in spec.head.taps)
        waiting = ()
    step("head", spec.head)
    return tuple(placed), tuple(misfits)


@lru_cache(maxsize=1 << 16)
def _out_shape(block: BlockSpec, x: Feature) -> Feature:
    """What `block` makes of `x`, after the checks that are the same for every kind."""
    number = len(features(x))
    if not block.taps and number != block.streams:
        raise ShapeError(
            f"{block.kind} takes {'one feature' if block.streams == 1 else f'{block.streams} features'}, "
            f"but {number} arrive from the block before it"
        )
    if main_feature(x).prefix and not block.takes_prefix:
        raise ShapeError(f"{block.kind} cannot take the class token that the block before it puts out")
    return block.out_shape(x) if type(block) not in PLUGIN_BLOCKS else _plugin_out_shape(block, x)


def _plugin_out_shape(block: BlockSpec, x: Feature) -> FeatureShape:
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
