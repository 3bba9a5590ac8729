"""contents(path): what a .tflite file says of its input, its weights and its operations, read by LiteRT's own package."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from vitscope.export.opened import Contents, FileOp, Input

# How litert-torch names a module of its own accord: `torch.nn.modules.conv.Conv2d_stem`, class and attribute.
_CLASS = re.compile(r"(?:\w+\.)+[A-Z][A-Za-z0-9]*(?:_(?P<attribute>\w+))?")


def contents(path: Path) -> Contents:
    """Raises ImportError without ai-edge-litert, and what its interpreter raises for bytes that are no model."""
    import numpy
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    content = path.read_bytes()
    interpreter = Interpreter(model_content=content, num_threads=1)  # which also checks that the bytes are whole
    inputs = tuple(
        Input(
            given["name"],
            tuple(int(side) if side >= 0 else None for side in given["shape_signature"]),
            numpy.dtype(given["dtype"]).name,
        )
        for given in interpreter.get_input_details()
    )
    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    kinds = {number: name.lower() for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    weights: Counter[str] = Counter()
    for tensor in graph.tensors:
        buffer = model.buffers[tensor.buffer]
        held = (buffer.data is not None and len(buffer.data) > 0) or buffer.size
        kind = kinds[tensor.type]
        if held and kind.startswith(("float", "bfloat", "int8", "uint8", "int4", "int2")):
            weights[kind] += int(numpy.prod(tensor.shape)) if tensor.shape is not None else 1
    ops = []
    for operation in graph.operators:
        names = tuple(graph.tensors[index].name.decode(errors="replace") for index in operation.outputs)
        ops.append(FileOp(names, module_path(names[0]) if names else None))
    return Contents(inputs=inputs, weights=weights, ops=tuple(ops))


def module_path(name: str) -> str | None:
    """The module path in a value's name, the first of those that were fused into it; None where it holds none.

    `stages.0.conv;1` is of our own exporter, `main.Net/torch.nn.Conv2d_stem;2` of litert-torch, `net/block_1/Relu6;…`
    of Keras, whose last word is the operation.
    """
    first = next((part for part in name.split(";") if part), "")
    words = first.split("/")
    classes = [_CLASS.fullmatch(word) for word in words]
    if any(classes):
        return ".".join(found["attribute"] for found in classes if found and found["attribute"])
    if len(words) > 1:
        return ".".join(word for word in words[:-1] if word) or None
    return first if ";" in name and re.fullmatch(r"\w+(\.\w+)*", first) else None
