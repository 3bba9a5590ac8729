"""contents(path): what an ONNX file says of its input, its weights and its operations, read by the package onnx."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vitscope.errors import UsageError
from vitscope.export.opened import Contents, FileOp, Input
from vitscope.sources.onnx import node_scopes

_NAMES: dict[str, str] = {"float": "float32", "double": "float64"}
_OF_WEIGHTS = ("float", "bfloat", "double", "int8", "uint8", "int4", "uint4")


def contents(path: Path) -> Contents:
    """Raises ImportError without onnx, UsageError for a file whose weights are gone, and what onnx raises."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    if not graph.node:
        raise UsageError(f"{path}: holds no operation; is it an ONNX model?")
    weights: Counter[str] = Counter()
    for tensor in graph.initializer:
        dtype = _dtype(onnx, tensor.data_type)
        if dtype.startswith(_OF_WEIGHTS):
            count = 1
            for side in tensor.dims:
                count *= side
            weights[dtype] += count
    names = {tensor.name for tensor in graph.initializer}
    inputs = tuple(
        Input(
            value.name,
            tuple(side.dim_value if side.dim_value > 0 else None for side in value.type.tensor_type.shape.dim),
            _dtype(onnx, value.type.tensor_type.elem_type),
        )
        for value in graph.input
        if value.name not in names
    )
    scopes: list[str | None] = [*node_scopes(graph, names)]
    if scopes == [node.name or node.op_type for node in graph.node]:
        scopes = [None] * len(scopes)  # names of operations, not of modules
    ops = tuple(
        FileOp(tuple(filter(None, (node.name, *node.output))), scope)
        for node, scope in zip(graph.node, scopes, strict=True)
        if node.op_type != "Constant"
    )
    return Contents(
        inputs=inputs, weights=weights, ops=ops, tools=f"{model.producer_name} {model.producer_version}".strip(),
        beside=_beside(path, graph),
    )  # fmt: skip


def _dtype(onnx: Any, elem_type: int) -> str:
    name: str = onnx.TensorProto.DataType.Name(elem_type).lower()
    return _NAMES.get(name, name)


def _beside(path: Path, graph: Any) -> tuple[Path, ...]:
    """The files that hold weights of `path`. Raises UsageError where one is not there."""
    from onnx import TensorProto

    places = {
        entry.value
        for tensor in graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = tuple(path.parent / place for place in sorted(places))
    for file in files:
        if not file.is_file():
            raise UsageError(f"{path}: its weights are in {file.name}, which is not beside it")
    return files
