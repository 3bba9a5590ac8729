"""Where the time went: a runtime's own profile, told by the blocks of the network, with what no block explains."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from vitscope.export.artifact import Artifact, block_of
from vitscope.measure.channel import MeasureError
from vitscope.measure.record import Attribution, BlockTime, OpTime

# The last part of a name that its exporter gave to an operation with multiply-accumulates.
_COMPUTES = re.compile(r"conv|linear|gemm|matmul|addmm|bmm|einsum|attention|fully_connected", re.IGNORECASE)
_EDGES_OF_KIND = re.compile("/|::")
_EDGE = re.compile(r"[_/:;,+ ()]")  # what runtimes put between a name of the file and what they add to it


def attribute(how: str, ops: Sequence[OpTime], artifact: Artifact, total_s: float, source: str) -> Attribution:
    """The share of each block in `ops`, times the measured `total_s` (seconds per inference).

    An operation that covers several blocks belongs to the one whose multiply-accumulates it does; where that is none
    or more than one, to no block, as does one whose names the file does not know. `how` is `measured` or `estimated`.
    Blocks stand in the order of the network, then what none explains (path None), where there is such. A block without
    an operation of its own (folded into another's, or free) is left out. Raises MeasureError for a profile of no time.
    """
    profiled = math.fsum(op.seconds for op in ops)
    if not profiled > 0:
        raise MeasureError(f"{artifact.model}: the profile of {source} holds no time")
    parts = by_block(ops, artifact)
    shares = _to_one([math.fsum(op.seconds for op in part) / profiled for part in parts.values()])
    return Attribution(
        how=how,
        source=source,
        blocks=tuple(
            BlockTime(path=path, seconds=share * total_s, share=share, unit=_unit(part))
            for (path, part), share in zip(parts.items(), shares, strict=True)
        ),
        profiled_s=profiled,
    )


def by_block(ops: Sequence[OpTime], artifact: Artifact) -> dict[str | None, list[OpTime]]:
    """The operations of each block that has any, in the order of the network; last, under None, those of no block."""
    parts: dict[str | None, list[OpTime]] = {path: [] for path in (*artifact.blocks, None)}
    for op in ops:
        parts[block_of_op(op, artifact)].append(op)
    return {path: part for path, part in parts.items() if part}


def block_of_op(op: OpTime, artifact: Artifact) -> str | None:
    """The block that the time of `op` belongs to, by the rule of `attribute`; None where it belongs to none."""
    keys = [key for name in dict.fromkeys((*op.names, op.name)) for key in _keys_in(name, artifact)]
    for candidates in (keys, [key for key in keys if _COMPUTES.search(_EDGES_OF_KIND.split(key)[-1])]):
        blocks = {block_of(_scope(key, artifact), artifact.blocks) for key in candidates} - {None}
        if len(blocks) == 1:
            return blocks.pop()
    return None


def _scope(key: str, artifact: Artifact) -> str:
    """A name that the file does not have may be a module path, as torch's own profile has it, or `path::kind`."""
    return artifact.scopes.get(key, key.partition("::")[0])


def _keys_in(name: str, artifact: Artifact) -> Iterator[str]:
    """The names of the file that `name` is or is made of: `stem/Conv_0_nchwc`, `stem/Conv_0_abcd_acdb_head/MatMul_9`."""
    if name in artifact.scopes or ("/" not in name and block_of(name.partition("::")[0], artifact.blocks) is not None):
        yield name
        return
    # Only names with a slash, as ours have in ONNX, are long enough to be looked for inside others.
    edges = [-1, *(found.start() for found in _EDGE.finditer(name)), len(name)]
    first = 0
    while first < len(edges) - 1:
        for last in range(len(edges) - 1, first, -1):
            part = name[edges[first] + 1 : edges[last]]
            if "/" in part and part in artifact.scopes:
                yield part
                first = last - 1
                break
        first += 1


def _unit(ops: Sequence[OpTime]) -> str:
    """The unit that most of the time was spent on; empty where the runtime does not tell."""
    seconds: dict[str, float] = {}
    for op in ops:
        seconds[op.unit] = seconds.get(op.unit, 0.0) + op.seconds
    return max(seconds, key=lambda unit: seconds[unit])


def _to_one(shares: list[float]) -> list[float]:
    """`shares` with the last bit of rounding given to the last, so that they add up to 1 as they stand."""
    return [*shares[:-1], max(0.0, 1.0 - sum(shares[:-1]))]
