"""Bytes read and written by each operation, the elements that conv, linear and matmul put out, and peak memory."""

from __future__ import annotations

from vitscope.cost.ops import MACS, base_name, op_class
from vitscope.graph.record import Graph, OpRecord


def activations(graph: Graph, op: OpRecord) -> int:
    """Output elements when `op` is a convolution, linear or matmul, else 0: the sense of fvcore's activation count."""
    return sum(graph.tensors[i].numel for i in op.outputs) if base_name(op) in MACS else 0


def read_bytes(graph: Graph, op: OpRecord) -> int:
    """Bytes that `op` reads, each distinct tensor once; a view reads nothing."""
    if op_class(graph, op) in ("view", "constant"):
        return 0
    return sum(graph.tensors[i].num_bytes for i in dict.fromkeys(op.inputs))


def write_bytes(graph: Graph, op: OpRecord) -> int:
    """Bytes that `op` writes; a view writes nothing."""
    if op_class(graph, op) == "view":
        return 0
    return sum(graph.tensors[i].num_bytes for i in op.outputs)


def peak_activation_bytes(graph: Graph, keeps_input: bool = False) -> int:
    """The most memory that activations hold at one moment when the ops run in order, eagerly: see `held_bytes`."""
    return max(held_bytes(graph, keeps_input), default=0)


def held_bytes(graph: Graph, keeps_input: bool = False) -> list[int]:
    """The memory that activations hold while each operation runs.

    Liveness on storages: an activation exists from the op that writes it to the last op that reads it or a view of it;
    the graph's input lives until its last use, or to the end with `keeps_input`; its outputs live to the end.
    Parameters, buffers and what is computed from them alone are weights, not activations. An op's inputs and outputs
    exist together.
    """
    constant_storages = {graph.tensors[i].storage for i in graph.constants}
    bytes_of: dict[int, int] = {}
    for tensor in graph.tensors:  # a storage is as large as the largest tensor on it
        if tensor.storage not in constant_storages:
            bytes_of[tensor.storage] = max(bytes_of.get(tensor.storage, 0), tensor.num_bytes)
    last_use: dict[int, int] = {}
    for step, op in enumerate(graph.ops):
        for i in (*op.inputs, *op.outputs):
            last_use[graph.tensors[i].storage] = step
    for i in (*graph.outputs, *(graph.inputs if keeps_input else ())):
        last_use[graph.tensors[i].storage] = len(graph.ops)
    live = {graph.tensors[i].storage for i in graph.inputs} & bytes_of.keys()
    held = sum(bytes_of[s] for s in live)
    result = []
    for step, op in enumerate(graph.ops):
        touched = {graph.tensors[i].storage for i in (*op.inputs, *op.outputs)} & bytes_of.keys()
        for storage in touched - live:
            live.add(storage)
            held += bytes_of[storage]
        result.append(held)
        for storage in touched:
            if last_use[storage] == step and storage in live:
                live.remove(storage)
                held -= bytes_of[storage]
    return result
