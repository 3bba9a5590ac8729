"""ONNX: torch.export's program translated by torch's own exporter, every node and value named after its module.

fp32 as it is. fp16: weights and activations are half, input and output stay float behind one Cast each, so that a
caller feeds the same array to either file. int8: static QDQ by ONNX Runtime's own quantiser, signed weights of one
scale a channel, unsigned activations, ranges taken from seeded noise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.export import RefusedError, Written
from vitscope.export.program import exported, one_line
from vitscope.export.silence import silenced, untold

if TYPE_CHECKING:
    import numpy as np

    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject

INPUT, OUTPUT = "input", "output"
TOP = "top"  # the first part of the name of a node that stands in no module

# ONNX defines these as functions, and ONNX Runtime has no half kernel of them on a CPU: it would run them step by step,
# ten times as slow as their own kernel in float, between two casts that it removes.
_NOT_HALF = frozenset(
    {"Gelu", "HardSwish", "Softmax", "LogSoftmax", "Mish", "LayerNormalization", "GroupNormalization"}
)
_ONE_FILE_BYTES = 1_500_000_000  # protobuf ends at 2 GiB; above this the weights go beside the file
_CALIBRATION = 4  # batches of noise
_CALL = re.compile(r"@\d+")
_SCOPES = "pkg.torch.onnx.name_scopes"
_SCOPED = re.compile(r"^/?(?P<path>[^/]+)/[A-Za-z]+_\d+")


def write(subject: Subject, path: Path, precision: Precision) -> Written:
    """Write `subject` to `path` as one ONNX file (above 1.5 GB with its weights in `<path>.data`).

    Raises ImportError when onnx or onnxscript are missing (for int8 also onnxruntime), RefusedError.
    """
    import onnx
    import onnxscript
    import torch

    tools = f"torch {torch.__version__}, onnx {onnx.__version__}, onnxscript {onnxscript.__version__}"
    program = exported(subject, "fp16" if precision == "fp16" else "fp32")
    try:
        with silenced():
            translated = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False)
            model = translated.model  # type: ignore[union-attr]
            if precision == "fp16":
                _float_islands(model)
                _float_ends(model)
            _name_after_modules(model)
    except Exception as error:
        raise RefusedError(f"{subject.name}: has no ONNX form: {one_line(error)}") from error
    notes: tuple[str, ...] = ()
    if precision == "fp16":
        notes = ("input, output and activation functions stay float32",)
    if precision == "int8":
        untold()
        from onnxruntime import __version__ as version

        tools += f", onnxruntime {version}"
        notes = (f"static QDQ; activation ranges from {_CALIBRATION} batches of noise, not from images",)
        _quantise(subject, model, path)
    else:
        _save(model, path)
    return Written(tools=tools, scopes=scopes_in(path), notes=notes)


def scopes_in(path: Path) -> dict[str, str]:
    """Names of nodes, values and weights of the file → module paths.

    What a quantiser put in takes its neighbour's module.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = [weight.name for weight in graph.initializer if "." in weight.name and "/" not in weight.name]
    scopes = {name: name.rpartition(".")[0] for name in weights}
    unnamed = []
    for node in graph.node:
        scope = _scope_of_name(node.name) or next(filter(None, map(_scope_of_name, (*node.output, *node.input))), None)
        if scope is None:
            unnamed.append(node)
            continue
        scopes |= dict.fromkeys(filter(None, (node.name, *node.output)), scope)
    readers = {value: node for node in reversed(graph.node) for value in node.input}
    for node in unnamed:
        near = [scopes[value] for value in node.input if value in scopes]
        near += [
            scopes[reader.name] for value in node.output if (reader := readers.get(value)) and reader.name in scopes
        ]
        if near:
            scopes |= dict.fromkeys(filter(None, (node.name, *node.output)), near[0])
    return scopes


def _scope_of_name(name: str) -> str | None:
    """The module path in a name that `_name_after_modules` gave, also where a quantiser has lengthened it."""
    found = _SCOPED.match(name)
    return None if found is None else "" if found["path"] == TOP else found["path"]


def _name_after_modules(model: Any) -> None:
    """Name each node `<module path>/<Op>_<n>` and its first output alike; drop what else the exporter says of it.

    ONNX Runtime names a fused or rearranged node after an output of it and OpenVINO after either, so both lead back.
    The exporter's own remarks hold stack traces with the paths of this machine.
    """
    ends = set(model.graph.outputs)
    for n, node in enumerate(model.graph):
        scope = _innermost(node.metadata_props.get(_SCOPES, "")) or TOP
        node.name = f"{scope}/{node.op_type}_{n}"
        node.metadata_props.clear()
        node.doc_string = None
        for k, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if value not in ends:
                value.name = node.name + (f"_{k}" if k else "")
    for name, value in tuple(model.graph.initializers.items()):
        reader = next(iter(value.uses()), None)
        if (
            "." not in name and reader is not None and reader.node.name
        ):  # a table or a number that the exporter computed
            value.name = f"{reader.node.name}_{name}"
    model.graph.inputs[0].name = INPUT
    for k, value in enumerate(model.graph.outputs):
        value.name = OUTPUT if len(model.graph.outputs) == 1 else f"{OUTPUT}_{k}"
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.name = "vitscope"


def _innermost(scopes: str) -> str:
    """`"['', 'stem', 'stem.conv1', 'conv2d']"` → `stem.conv1`: the last is the node, the one before it its module."""
    parts = re.findall(r"'([^']*)'", scopes)
    return _CALL.sub("", parts[-2]) if len(parts) > 1 else ""


def _float_ends(model: Any) -> None:
    """Give a model of half precision a float input and float outputs, each through one Cast."""
    import onnx_ir as ir

    graph = model.graph
    (given,) = graph.inputs
    outer = ir.Value(name=f"{INPUT}_float", shape=given.shape, type=ir.TensorType(ir.DataType.FLOAT))
    cast = _cast(outer, ir.DataType.FLOAT16)
    for node, index in tuple(given.uses()):
        node.replace_input_with(index, cast.outputs[0])
    graph.inputs[0] = outer
    graph.insert_before(graph[0], cast)
    for k, value in enumerate(tuple(graph.outputs)):
        if value.dtype != ir.DataType.FLOAT16:
            continue
        last = _cast(value, ir.DataType.FLOAT)
        graph.append(last)
        graph.outputs[k] = last.outputs[0]


def _float_islands(model: Any) -> None:
    """Compute what has no half kernel in float: a Cast before each of its inputs and one after its output."""
    import onnx_ir as ir

    graph = model.graph
    for node in [node for node in graph if node.op_type in _NOT_HALF]:
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT16:
                before = _cast(value, ir.DataType.FLOAT, node)
                graph.insert_before(node, before)
                node.replace_input_with(index, before.outputs[0])
        inner = node.outputs[0]
        uses, is_end = tuple(inner.uses()), inner in graph.outputs
        after = _cast(inner, ir.DataType.FLOAT16, node)
        inner.type = ir.TensorType(ir.DataType.FLOAT)
        for user, index in uses:
            user.replace_input_with(index, after.outputs[0])
        if is_end:
            graph.outputs[graph.outputs.index(inner)] = after.outputs[0]
        graph.insert_after(node, after)


def _cast(value: Any, to: Any, beside: Any = None) -> Any:
    """A Cast of `value`, of the same module as the node `beside`."""
    import onnx_ir as ir

    node = ir.node("Cast", [value], attributes={"to": to})
    node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(to)
    if beside is not None:
        node.metadata_props[_SCOPES] = beside.metadata_props.get(_SCOPES, "")
    return node


def _save(model: Any, path: Path) -> None:
    import onnx_ir as ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, str(path), external_data=f"{path.name}.data" if size > _ONE_FILE_BYTES else None)


def _quantise(subject: Subject, model: Any, path: Path) -> None:
    """Write `model` to `path` in int8. The calibrator takes the fp32 model as a file, beside `path` for a while."""
    import tempfile

    untold()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".int8-") as folder:
        full = Path(folder) / "fp32.onnx"
        _save(model, full)
        try:
            with silenced():
                quantize_static(
                    str(full), str(path), _noise(subject), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                )  # fmt: skip
        except OSError:
            raise
        except Exception as error:
            raise RefusedError(f"{subject.name}: ONNX Runtime cannot quantise it: {one_line(error)}") from error


def _noise(subject: Subject) -> Any:
    """The batches that ranges are taken from: seeds that no check and no measurement uses."""
    from onnxruntime.quantization import CalibrationDataReader

    class Noise(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(range(100, 100 + _CALIBRATION))

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            seed = next(self.batches, None)
            return None if seed is None else {INPUT: subject.example(seed).numpy()}

    return Noise()
