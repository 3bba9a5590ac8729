"""Cost: what one graph costs in all, summed over its operations, and the sum of the costs of consecutive graphs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from vitscope.cost.ops import macs, op_class
from vitscope.cost.traffic import activations, held_bytes, peak_activation_bytes, read_bytes, write_bytes
from vitscope.graph.record import DTYPE_BYTES, Graph, OpRecord


@dataclass(frozen=True, slots=True)
class Cost:
    """Raw totals. `macs` and the rest are over the whole batch that was traced; bytes are those of the traced dtype.

    `unknown` lists each operation that could not be counted, as `scope: op`: while it is not empty, `macs` is a part.
    """

    params: int
    macs: int
    activations: int
    read_bytes: int
    write_bytes: int
    peak_activation_bytes: int
    param_bytes: int
    unknown: tuple[str, ...] = ()


@lru_cache(maxsize=1 << 16)
def cost_of(graph: Graph) -> Cost:
    """The Cost of `graph`; remembered, since a block's graph is met in many networks."""
    counted = [macs(graph, op) for op in graph.ops]
    return Cost(
        params=sum(p.numel for p in graph.params),
        macs=sum(count or 0 for count in counted),
        activations=sum(activations(graph, op) for op in graph.ops),
        read_bytes=sum(read_bytes(graph, op) for op in graph.ops),
        write_bytes=sum(write_bytes(graph, op) for op in graph.ops),
        peak_activation_bytes=peak_activation_bytes(graph),
        param_bytes=sum(p.numel * DTYPE_BYTES.get(p.dtype, 4) for p in graph.params),
        unknown=tuple(_place(op) for op, count in zip(graph.ops, counted, strict=True) if count is None),
    )


@lru_cache(maxsize=1 << 14)
def cost_in_place(graph: Graph, keeps_input: bool, waiting_bytes: int) -> Cost:
    """As `cost_of`, in a network that holds `waiting_bytes` of other features, and perhaps this graph's input, for later."""
    cost = cost_of(graph)
    if not keeps_input and not waiting_bytes:
        return cost
    return replace(cost, peak_activation_bytes=peak_activation_bytes(graph, keeps_input) + waiting_bytes)


def op_costs(graph: Graph, keeps_input: bool = False, waiting_bytes: int = 0) -> list[Cost]:
    """The Cost of each operation of `graph`, views included. A parameter counts where it is first read."""
    owner = {t.storage: t for t in graph.tensors if t.kind == "param"}
    costs = []
    for op, held in zip(graph.ops, held_bytes(graph, keeps_input), strict=True):
        first: list[int] = []
        if op_class(graph, op) != "view":
            storages = {graph.tensors[i].storage for i in op.inputs}
            params = [owner.pop(storage) for storage in storages & owner.keys()]
            first = [sum(p.numel for p in params), sum(p.num_bytes for p in params)]
        num_params, param_bytes = first or (0, 0)
        count = macs(graph, op)
        costs.append(
            Cost(
                num_params, count or 0, activations(graph, op), read_bytes(graph, op), write_bytes(graph, op),
                held + waiting_bytes, param_bytes, (_place(op),) if count is None else (),
            )
        )  # fmt: skip
    return costs


def _place(op: OpRecord) -> str:
    return f"{op.scope}: {op.op}" if op.scope else op.op


def total(costs: Iterable[Cost]) -> Cost:
    """The cost of graphs that run one after the other: sums, and the highest of their peaks."""
    costs = list(costs)
    return Cost(
        params=sum(c.params for c in costs),
        macs=sum(c.macs for c in costs),
        activations=sum(c.activations for c in costs),
        read_bytes=sum(c.read_bytes for c in costs),
        write_bytes=sum(c.write_bytes for c in costs),
        peak_activation_bytes=max((c.peak_activation_bytes for c in costs), default=0),
        param_bytes=sum(c.param_bytes for c in costs),
        unknown=tuple(place for c in costs for place in c.unknown),
    )
