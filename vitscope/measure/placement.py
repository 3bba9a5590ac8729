"""Where Core ML put each block: Neural Engine, GPU or CPU, from the compute plan; and which blocks fell off the Neural Engine.

The plan is the device's own answer, but an estimate: it says where an operation is meant to run and what share of the time
it is thought to take (`vitscope.measure.attribution` tells that by block). Pure functions over the OpTimes that a channel
gives; nothing here imports coremltools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitscope.errors import UsageError
from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import block_of_op
from vitscope.measure.channel import MeasureError
from vitscope.measure.record import OpTime

ENGINE = "ane"
UNIT_TITLES: Mapping[str, str] = {ENGINE: "Neural Engine", "gpu": "GPU", "cpu": "CPU", "": "not told"}
_WITH_ENGINE = ("all", "cpu+ane")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The operations of one block, `path` None for those of no block: how many run on each unit, and which are off the
    Neural Engine, as the plan's kinds and names."""

    path: str | None
    ops: Mapping[str, int]  # unit → operations
    seconds: float
    off_engine: tuple[OpTime, ...]

    @property
    def unit(self) -> str:
        """The unit that most operations run on, in the engine's favour where two are equal."""
        return max(self.ops, key=lambda unit: (self.ops[unit], unit == ENGINE))

    def __str__(self) -> str:
        units = ", ".join(f"{UNIT_TITLES.get(unit, unit)} {n}" for unit, n in sorted(self.ops.items()))
        return f"{self.path or 'of no block'} ({units})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The blocks of a network in order, then what belongs to none."""

    blocks: tuple[Placed, ...]

    @property
    def fell_off(self) -> tuple[Placed, ...]:
        """Blocks with at least one operation whose unit is known and is not the Neural Engine."""
        return tuple(placed for placed in self.blocks if placed.off_engine)

    @property
    def units(self) -> dict[str, int]:
        """Unit → operations of the whole network."""
        total: dict[str, int] = {}
        for placed in self.blocks:
            for unit, count in placed.ops.items():
                total[unit] = total.get(unit, 0) + count
        return total


def place(ops: Sequence[OpTime], artifact: Artifact) -> Placement:
    """Group the operations of a compute plan by the blocks of the network they came from."""
    parts: dict[str | None, list[OpTime]] = {path: [] for path in (*artifact.blocks, None)}
    for op in ops:
        parts[block_of_op(op, artifact)].append(op)
    return Placement(blocks=tuple(_placed(path, part) for path, part in parts.items() if part))


def require_engine(ops: Sequence[OpTime] | None, artifact: Artifact, unit: str) -> Placement:
    """The placement, where all of it is on the Neural Engine; what `--fail-on-fallback` asks for.

    Raises MeasureError (exit code 1) that names every block that fell off, or says that nothing is known, and
    UsageError where `unit` left the Neural Engine out.
    """
    if unit not in _WITH_ENGINE:
        raise UsageError(f"--fail-on-fallback: --compute-units {unit} leaves the Neural Engine out")
    if not ops:
        raise MeasureError(f"{artifact.model}: no compute plan, so that nothing is known of fallbacks")
    placement = place(ops, artifact)
    if not any(op.unit for op in ops):
        raise MeasureError(f"{artifact.model}: the compute plan tells no unit, so that nothing is known of fallbacks")
    if placement.fell_off:
        raise MeasureError(f"{artifact.model}: {fallback_line(placement)}")
    return placement


def fallback_line(placement: Placement, most: int = 4) -> str:
    """The blocks off the Neural Engine in one line, each with the kinds of operation: `stages.3.blocks.0: gelu on CPU`."""
    fell = placement.fell_off
    if not fell:
        return "every block runs on the Neural Engine"
    said = []
    for placed in fell[:most]:
        kinds = dict.fromkeys(f"{op.kind} on {UNIT_TITLES.get(op.unit, op.unit)}" for op in placed.off_engine)
        said.append(f"{placed.path or 'no block'}: {', '.join(kinds)}")
    rest = f"; {len(fell) - most} more" if len(fell) > most else ""
    count = "1 block falls" if len(fell) == 1 else f"{len(fell)} blocks fall"
    return f"{count} off the Neural Engine: {'; '.join(said)}{rest}"


def _placed(path: str | None, ops: Sequence[OpTime]) -> Placed:
    counts: dict[str, int] = {}
    for op in ops:
        counts[op.unit] = counts.get(op.unit, 0) + 1
    return Placed(
        path=path,
        ops=counts,
        seconds=sum(op.seconds for op in ops),
        off_engine=tuple(op for op in ops if op.unit not in ("", ENGINE)),
    )
