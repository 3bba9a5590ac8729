"""Node: one operation that a runtime works for, before fusion; and what stands for an operation that it has no kernel for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from vitscope.graph.record import Shape
from vitscope.latency.geometry import Geometry, mean_geometry
from vitscope.latency.op_kernel import JOINS_BY_NAME
from vitscope.latency.runtime import Fusable, KernelKind, Step


@dataclass(slots=True, eq=False)
class Node:
    """One operation that does work, on values in single assignment: views resolved, in-place updates renamed."""

    op: str
    scope: str
    kind: KernelKind
    joins: tuple[Fusable, ...]  # what it may be to a fusion rule, the better case first
    macs: int
    reads: dict[int, int]  # value -> elements read
    weights: int
    write: int
    writes: int
    geometry: Geometry
    depth: int = 1
    channels: int = 1  # constants of at most this many elements fold into its weights
    has_bias: bool = False
    maker: str = ""  # of a change of layout: the module whose result it turns
    parts: tuple[Node, ...] = ()  # what runs in its place where it joins no kernel


def reshape(scope: str, write: int) -> Node:
    """A reshape that is run: it moves nothing, and nothing waits for its result `write`."""
    return Node("reshape", scope, "reshape", (), 0, {}, 0, write, 0, Geometry(1, 1, 1))


def expanded(node: Node, steps: tuple[Step, ...], fresh: Callable[[], int], shape: Shape) -> tuple[Node, ...]:
    """`node`, whose result has `shape`, as the kernels that a runtime without one for it runs; the last writes the result, the
    others `fresh` values."""
    rows = max(prod(node.geometry.out_size) * node.geometry.batch, 1)
    if node.kind in ("norm", "softmax"):
        rows = max(node.writes // max(node.geometry.in_channels, 1), 1)
    made: list[Node] = []
    for n, step in enumerate(steps):
        if step.kind == "reshape":
            made.append(reshape(node.scope, fresh()))
            continue
        last = n == len(steps) - 1
        writes = node.writes if last else {"full": node.writes, "rows": rows, "channels": prod(shape[:2])}[step.writes]
        reads: dict[int, int] = {}
        for source in step.reads or (("input",) if not made else (len(made) - 1,)):
            if source == "input":
                reads |= node.reads
            else:
                reads[made[int(source)].write] = made[int(source)].writes
        weights = node.weights // step.weights if step.weights else 0
        joins: tuple[Fusable, ...] = JOINS_BY_NAME.get(step.op, ())
        if step.apart:
            joins = ()
        elif step.kind == "elementwise":
            constant = len(reads) == 1 and weights > 0
            first: Fusable = "scale" if step.op == "mul" else "bias"
            joins = (first, "elementwise") if constant else ("elementwise",)
        write = node.write if last else fresh()
        size = _size(node, step, steps, shape, rows)
        made.append(Node(step.op, node.scope, step.kind, joins, 0, reads, weights, write, writes, size))
    return tuple(made)


def _size(node: Node, step: Step, steps: tuple[Step, ...], shape: Shape, rows: int) -> Geometry:
    """That of the operation; of a mean of each channel, and of one of such means for each row, that of its map."""
    if step.writes == "channels":
        return mean_geometry(shape[0], shape[1], (shape[2], shape[3]))
    if step.kind == "reduce" and any(isinstance(n, int) and steps[n].writes == "channels" for n in step.reads):
        return mean_geometry(1, rows, (prod(shape[:2]) // rows, 1))
    return node.geometry
