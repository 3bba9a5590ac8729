"""reshapes(graph): how many reshapes a runtime runs for each view of a traced graph, where it runs them at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from vitscope.cost.ops import base_name
from vitscope.graph.record import Graph, OpRecord

_RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten"})
_COPIES = frozenset({"clone", "contiguous"})
_PRODUCTS = frozenset({"mm", "bmm"})


def reshapes(graph: Graph) -> Mapping[int, int]:
    """Index of an operation → reshapes that an exported graph has in its place.

    PyTorch runs a product of more than two axes as one of two or three, between views: those are its own doing, and no
    exported product has them, but for a linear layer with a bias. What `unbind` cuts loses an axis part by part.
    """
    maker: dict[int, OpRecord] = {}
    readers: dict[int, list[OpRecord]] = {}
    for op in graph.ops:
        for tensor in op.inputs:
            readers.setdefault(tensor, []).append(op)
        for tensor in op.outputs:
            maker[tensor] = op
    found = Counter[int]()
    for index, op in enumerate(graph.ops):
        name = base_name(op)
        if graph.is_constant(op):
            continue
        if name == "unbind":
            found[index] = sum(bool(readers.get(out)) for out in op.outputs)
        elif name in _RESHAPES and graph.tensors[op.inputs[0]].shape != graph.tensors[op.outputs[0]].shape:
            before = maker.get(op.inputs[0])
            while before is not None and base_name(before) in _COPIES:
                before = maker.get(before.inputs[0])
            after = readers.get(op.outputs[0], [])
            of_product = before is not None and base_name(before) in {"expand", *_PRODUCTS}
            into_product = bool(after) and all(base_name(reader) in _PRODUCTS for reader in after)
            if not of_product and not into_product and not _undone(graph, op, after):
                found[index] = 1
    return found


def _undone(graph: Graph, op: OpRecord, readers: list[OpRecord]) -> bool:
    """Whether all that reads the result brings it to the shape that it had before: of the two, one is left."""
    if len(readers) != 1 or base_name(readers[0]) not in _RESHAPES:
        return False
    return graph.tensors[readers[0].outputs[0]].shape == graph.tensors[op.inputs[0]].shape
