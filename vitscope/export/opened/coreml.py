"""contents(path): what a Core ML package says of its input, its weights and its operations, read by coremltools."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from vitscope.errors import UsageError
from vitscope.export.inspect_coreml import operations
from vitscope.export.opened import Contents, FileOp, Input


def contents(path: Path) -> Contents:
    """Raises ImportError without coremltools, UsageError for what is no ML Program, and what coremltools raises."""
    import coremltools as ct

    spec: Any = ct.utils.load_spec(str(path))
    if spec.WhichOneof("Type") != "mlProgram":
        raise UsageError(f"{path}: holds a {spec.WhichOneof('Type')}, not an ML Program")
    main = spec.mlProgram.functions["main"]
    weights: Counter[str] = Counter()
    for operation in main.block_specializations[main.opset].operations:
        if operation.type == "const" or operation.type.startswith("constexpr_"):
            # Of a constant that is kept smaller than it is used, what is kept: an attribute or an input of its own.
            held = [
                value.type.tensorType for value in operation.attributes.values() if value.type.HasField("tensorType")
            ]
            largest = max(held, key=_elements, default=None)
            if largest is not None and (dtype := _dtype(largest)).startswith(
                ("float", "int8", "uint8", "int4", "uint4")
            ):
                weights[dtype] += _elements(largest)
    ops = tuple(FileOp(tuple(value.name for value in operation.outputs), None) for operation in operations(spec))
    return Contents(inputs=tuple(map(_input, spec.description.input)), weights=weights, ops=ops)


def _input(feature: Any) -> Input:
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        return Input(feature.name, (), f"Core ML's own {kind.removesuffix('Type')} type")
    array = feature.type.multiArrayType
    names = type(array).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    word = names[array.dataType].name
    open_sides = array.WhichOneof("ShapeFlexibility") is not None
    shape = tuple(None if open_sides else int(side) for side in array.shape)
    return Input(feature.name, shape, word.lower() if word != "DOUBLE" else "float64")


def _elements(tensor: Any) -> int:
    return prod(side.constant.size for side in tensor.dimensions)


def _dtype(tensor: Any) -> str:
    names = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    return names[tensor.dataType].name.lower()
