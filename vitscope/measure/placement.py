"""The gate on Core ML's fallbacks: which blocks the compute plan puts on the GPU or the CPU instead of the Neural Engine.

The plan is the device's own answer, but an estimate: it says where an operation is meant to run and what share of the time
it is thought to take (`vitscope.measure.attribution` tells that by block). Pure functions over the OpTimes that a channel
gives; nothing here imports coremltools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitscope.errors import UsageError
from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import by_block
from vitscope.measure.channel import MeasureError
from vitscope.measure.record import OpTime

NEURAL_ENGINE = "ane"
UNIT_TITLES: Mapping[str, str] = {NEURAL_ENGINE: "Neural Engine", "gpu": "GPU", "cpu": "CPU"}
_WITH_NEURAL_ENGINE = ("all", "cpu+ane")
_NAMED = 4  # blocks that one line has room for

Fallbacks = dict[str | None, list[OpTime]]  # block (None: of no block) → its operations off the Neural Engine


def fallbacks(ops: Sequence[OpTime], artifact: Artifact) -> Fallbacks:
    """The operations whose unit is known and is not the Neural Engine, by block in the order of the network."""
    return by_block([op for op in ops if op.unit not in ("", NEURAL_ENGINE)], artifact)


def require_engine(ops: Sequence[OpTime] | None, artifact: Artifact, unit: str) -> None:
    """What `--fail-on-fallback` asks for: the compute plan `ops` puts nothing on the GPU or the CPU.

    Raises MeasureError (exit code 1) that names the blocks where it does, or says that it tells of no operation where
    it runs, and UsageError where `unit` left the Neural Engine out.
    """
    if unit not in _WITH_NEURAL_ENGINE:
        raise UsageError(f"--fail-on-fallback: --compute-units {unit} leaves the Neural Engine out")
    if not ops:
        raise MeasureError(f"{artifact.model}: no compute plan, so that nothing is known of fallbacks")
    if not any(op.unit for op in ops):
        raise MeasureError(f"{artifact.model}: the compute plan tells no unit, so that nothing is known of fallbacks")
    fell = fallbacks(ops, artifact)
    if fell:
        raise MeasureError(f"{artifact.model}: {fallback_line(fell)}")


def fallback_line(fell: Fallbacks) -> str:
    """The blocks in one line, each with its kinds of operation: `1 block falls off …: stages.3.blocks.0: gelu on CPU`."""
    said = []
    for path, ops in list(fell.items())[:_NAMED]:
        kinds = dict.fromkeys(f"{op.kind} on {UNIT_TITLES.get(op.unit, op.unit)}" for op in ops)
        said.append(f"{path or 'no block'}: {', '.join(kinds)}")
    rest = f"; {len(fell) - _NAMED} more" if len(fell) > _NAMED else ""
    count = "1 block falls" if len(fell) == 1 else f"{len(fell)} blocks fall"
    return f"{count} off the Neural Engine: {'; '.join(said)}{rest}"
