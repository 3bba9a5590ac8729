"""wanted_orders: how an operation takes its operands in memory and gives its result, where a runtime has a layout of maps."""

from __future__ import annotations

from collections.abc import Mapping

from vitscope.graph.record import Graph, OpRecord
from vitscope.latency.axis_order import ANY, PLAIN, Order
from vitscope.latency.op_kernel import kind_to_a_layout
from vitscope.latency.runtime import KernelKind, Layout


def wanted_orders(
    graph: Graph, layout: Layout | None, lies: Mapping[int, Order], op: OpRecord, name: str, kind: KernelKind
) -> tuple[Order, Order]:
    """The order in which `op` takes its full-sized operands, and the order of its result. `lies`: tensor → how it lies,
    where that is not as the network has it."""
    if not lies and layout is None:
        return PLAIN, PLAIN
    tensors = graph.tensors
    given = [i for i in op.inputs if i not in graph.constants]
    out = tensors[op.outputs[0]].shape
    before = tensors[given[0]].shape
    if layout is not None and len(before) == 4:
        asked = layout.asks(
            name, kind_to_a_layout(op, kind, before, out), before[1], out[1] if len(out) == 4 else 1, op
        )
        if asked is not None:
            return (layout.order if asked else PLAIN), (layout.order if len(out) == 4 else PLAIN)
    size = max(tensors[i].numel for i in given)
    full = [i for i in given if tensors[i].numel == size]
    if name == "cat" and layout is not None and layout.block:  # of whole blocks, or of maps as the network has them
        if any(tensors[i].shape[1:2] == () or tensors[i].shape[1] % layout.block for i in given):
            return PLAIN, PLAIN
        full = given
    orders = {lies.get(i, PLAIN) for i in full}
    if kind in ("elementwise", "activation") or (layout is not None and layout.is_follower(name, kind)):
        broadcasts = len(full) < len(given)
        follows = layout is not None and layout.is_follower(name, kind)
        if layout is not None and layout.order[0] < 0:  # blocks hold whole maps of one shape only, and no constants
            beside = broadcasts or (kind == "elementwise" and len(given) < len(op.inputs))
            follows = follows and not beside and len(orders - {ANY}) < 2
        if layout is not None and len(out) == 4 and follows:
            if layout.order in orders:
                return layout.order, layout.order
            if orders <= {ANY}:
                return ANY, ANY
        if len(orders) == 1 and kind in ("elementwise", "activation") and not broadcasts:
            (order,) = orders
            if layout is None or follows or order not in (layout.order, ANY):
                return order, order
    return PLAIN, PLAIN
