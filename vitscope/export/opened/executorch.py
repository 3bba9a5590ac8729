"""contents(path): what an ExecuTorch program says of its input and its weights, read by the package's own deserialiser.

It holds no names of its operations. Weights that XNNPACK was given are read in XNNPACK's part of the file; those of other
delegates are their own secret.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from vitscope.errors import UsageError
from vitscope.export.opened import UNKNOWN, Contents, Input

_METHOD = "forward"  # the one that is executed
_TYPES = {
    "BYTE": "uint8", "CHAR": "int8", "HALF": "float16", "FLOAT": "float32", "DOUBLE": "float64", "BFLOAT16": "bfloat16",
}  # fmt: skip
_XNNPACK = "XnnpackBackend"
_XNNPACK_TYPES = {
    "fp32": "float32", "fp16": "float16", "qint8": "int8", "quint8": "uint8", "qcint8": "int8", "qdint8": "int8",
    "qcint4": "int4", "qbint4": "int4",
}  # fmt: skip


def contents(path: Path) -> Contents:
    """Raises ImportError without executorch, UsageError for a program without `forward`, and what its tools raise."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    content = path.read_bytes()
    if content[4:6] != b"ET":
        raise UsageError(f"{path}: is no ExecuTorch program (its bytes 4 to 7 are not ET12)")
    program: Any = deserialize_pte_binary(content).program
    plan = next((plan for plan in program.execution_plan if plan.name == _METHOD), None)
    if plan is None:
        names = ", ".join(plan.name for plan in program.execution_plan) or "none"
        raise UsageError(f"{path}: has no method {_METHOD}, which is what is measured; methods: {names}")
    given = [plan.values[index].val for index in plan.inputs]
    weights: Counter[str] = Counter()
    for value in plan.values:
        if _is_tensor(tensor := value.val) and tensor.data_buffer_idx > 0:
            dtype = _TYPES.get(tensor.scalar_type.name)
            weights.update({dtype: prod(tensor.sizes)} if dtype else {})
    for delegate in plan.delegates:
        blob = program.backend_delegate_data[delegate.processed.index].data
        weights.update(_weights_inside(delegate.id, blob))
    kinds = dict.fromkeys(delegate.id for delegate in plan.delegates)
    notes = (f"delegates: {', '.join(kinds)}" if kinds else "no delegate: ExecuTorch's portable kernels",)
    if any(_is_tensor(value) and value.shape_dynamism.name != "STATIC" for value in given):
        notes += ("leaves sizes open, and runs at their upper bounds",)
    inputs = tuple(_input(number, value) for number, value in enumerate(given))
    return Contents(inputs=inputs, weights=weights, notes=notes)


def _is_tensor(value: Any) -> bool:
    return type(value).__name__ == "Tensor"


def _input(number: int, value: Any) -> Input:
    """A program names no input. Of sizes that it leaves open it holds the upper bounds alone."""
    if not _is_tensor(value):
        return Input(f"input {number}", (), type(value).__name__.lower())
    kind: str = value.scalar_type.name
    return Input(f"input {number}", tuple(map(int, value.sizes)), _TYPES.get(kind, kind.lower()))


def _weights_inside(delegate: str, blob: bytes) -> Mapping[str, int]:
    """Elements by type of what a delegate was given; of a type unknown where only the delegate can read it."""
    if delegate == _XNNPACK:
        with contextlib.suppress(Exception):  # its format is private, and other versions may write another
            return _xnnpack_weights(blob)
    return {UNKNOWN: max(1, len(blob))}


def _xnnpack_weights(blob: bytes) -> Counter[str]:
    """Elements by type of the constants in a part that XNNPACK executes, from its flatbuffer by its own schema."""
    import importlib.resources

    import executorch.backends.xnnpack.serialization as serialization
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(blob[: XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory() as folder:
        schema, data = Path(folder, "schema.fbs"), Path(folder, "graph.bin")
        schema.write_bytes(importlib.resources.files(serialization).joinpath("schema.fbs").read_bytes())
        data.write_bytes(blob[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(data), ["--raw-binary"])
        text = Path(folder, "graph.json").read_text(encoding="utf-8")
    graph = json.loads(re.sub(r"(?<=: )-?(inf|nan)\b", "null", text))  # bounds that flatc writes as JSON does not
    found: Counter[str] = Counter()
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"]
        tensor = tensor.get("tensor_value", tensor)  # a quantised one holds the plain one
        if tensor.get("constant_buffer_idx"):
            kind = tensor["datatype"].removeprefix("xnn_datatype_")
            if kind in _XNNPACK_TYPES:
                found[_XNNPACK_TYPES[kind]] += prod(tensor["dims"])
    return found
