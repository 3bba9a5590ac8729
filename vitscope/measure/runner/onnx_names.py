"""What an optimised ONNX graph calls its nodes, read without the package onnx, and the file's names behind those.

A board that only executes models has no onnx. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_GRAPH, _NODE = 7, 1  # of ModelProto, of GraphProto
_INPUT, _OUTPUT, _NAME, _KIND = 1, 2, 3, 4  # of NodeProto


class OnnxNode(NamedTuple):
    """A node: its name (may be empty), its operator, and the names of the values that it reads and writes."""

    name: str
    kind: str
    inputs: list[str]
    outputs: list[str]


def nodes_of(path: str) -> list[OnnxNode]:
    """Every node of the ONNX file at `path`, in its order."""
    with open(path, "rb") as file:
        data = memoryview(file.read())
    found = []
    for field, graph in _fields(data):
        for inner, node in _fields(graph) if field == _GRAPH else ():
            if inner == _NODE:
                parts: dict[int, list[str]] = {_INPUT: [], _OUTPUT: [], _NAME: [], _KIND: []}
                for number, part in _fields(node):
                    if number in parts:
                        parts[number].append(bytes(part).decode())
                found.append(OnnxNode("".join(parts[_NAME]), "".join(parts[_KIND]), parts[_INPUT], parts[_OUTPUT]))
    return found


def names_behind(optimised: list[OnnxNode], exported: list[OnnxNode]) -> list[list[str]]:
    """For each node of the optimised graph, its own names, and for one that the runtime put in those of its readers.

    A node that the runtime replaced is called after it, with something appended: the name of the file is told as well.
    A change of layout, say, is made for the node that reads it, and has no name of the file. The change back bears the
    name of the file's value that it gives, and belongs to that.
    """
    own = {name for node in exported for name in (node.name, *node.outputs) if name}
    readers: dict[str, list[OnnxNode]] = {}
    for node in optimised:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)

    def names(node: OnnxNode, depth: int = 4) -> list[str]:
        found = [name for name in (node.name, *node.outputs) if name]
        before = _beginning(node.name, own)
        if before and before not in found:
            found.append(before)
        if not before and not any(value in own for value in node.outputs) and depth:
            for value in node.outputs:
                for reader in readers.get(value, []):
                    found += names(reader, depth - 1)
        return found

    return [names(node) for node in optimised]


def _beginning(name: str, own: set[str]) -> str:
    """The longest name of the file that `name` is, or is made of by something appended, as `stem/Conv_0_nchwc` is."""
    ends = (at for at in range(len(name), 0, -1) if at == len(name) or not name[at].isalnum())
    return next((name[:at] for at in ends if name[:at] in own), "")


def _fields(data: memoryview) -> Any:
    """(number, bytes) of every length-delimited field of a protobuf message; others are stepped over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"protobuf: wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
