"""LiteRT: a network as a `.tflite` file, by litert-torch, quantised by ai-edge-quantizer. What XNNPACK runs on phones.

The image goes in as it does in PyTorch, (B, 3, H, W), so that every format is fed alike; the file turns it to channels
last in its first operation and stays there, but where the network itself reshapes maps to tokens.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.export import RefusedError, Written
from vitscope.export.program import one_line, scope_of
from vitscope.export.silence import silenced

if TYPE_CHECKING:
    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject

_CALIBRATION_SAMPLES = 4
_TOP = "network"  # stands for the module path of what belongs to no submodule


def write(subject: Subject, path: Path, precision: Precision) -> Written:
    """Write `subject` to `path`. Raises RefusedError for what the converter or the quantiser cannot express."""
    import ai_edge_litert  # noqa: F401  (checks the file; a missing package is said before a minute of converting)
    import litert_torch

    torch_module = subject.module.eval()
    try:
        with silenced(), _named_by_path():
            content = litert_torch.convert(torch_module, (subject.example(),)).model_content()
            notes = ["input is (B, 3, H, W); the first operation turns it to channels last"]
            if precision != "fp32":
                content, note = _quantised(content, subject, precision)
                notes.append(note)
    except ImportError:
        raise
    except Exception as error:
        raise RefusedError(f"{subject.name}: LiteRT cannot hold it: {one_line(error)}") from error
    path.write_bytes(content)
    notes.append(delegation(content))
    tools = f"litert-torch {version('litert-torch')}"
    if precision != "fp32":
        tools += f", ai-edge-quantizer {version('ai-edge-quantizer')}"
    return Written(tools=tools, scopes=scopes_of(content, subject), notes=tuple(notes))


@contextlib.contextmanager
def _named_by_path() -> Iterator[None]:
    """Let the converter name values by the module path they come from, where it would by a chain of class names.

    A chain does not tell two lists of a module apart (`down.0` from `up.0`), since a ModuleList is never called.
    """
    from litert_torch.backend import debuginfo

    before = debuginfo.build_mlir_debuginfo

    def path_of(node: Any) -> str | None:
        # A path ends with a semicolon, since the converter appends numbers to names that occur twice.
        return f"{scope_of(node) or _TOP};" if node.meta.get("nn_module_stack") else None

    debuginfo.build_mlir_debuginfo = path_of
    try:
        yield
    finally:
        debuginfo.build_mlir_debuginfo = before


def _quantised(content: bytes, subject: Subject, precision: Precision) -> tuple[bytes, str]:
    """The file with smaller numbers, and what was done, in words. Input and output stay fp32.

    int8 is weights and activations with ranges fixed beforehand, where XNNPACK runs all that it ran in fp32 in that
    form too. It has no int8 GELU, softmax or product of activations, and a file cut there into dozens of parts is
    slower than fp32: such a network gets int8 weights, and activations quantised as they come, in its 1×1
    convolutions, other dense ones and linear layers.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    names = qtyping.TFLOperationName

    def quantiser(plan: list[dict[str, Any]], *untouched: Any) -> Any:
        made = quantizer.Quantizer(bytearray(content))
        made.load_quantization_recipe(plan)
        for name in untouched:
            made.update_quantization_recipe(".*", name, algorithm_key="no_quantize")
        return made

    if precision == "fp16":
        found = quantiser(_half_weights()).quantize()
        return bytes(
            found.quantized_model
        ), "weights in fp16; XNNPACK computes in fp32, or in fp16 where it is forced to"
    static = quantiser(recipe.static_wi8_ai8(), names.INPUT, names.OUTPUT)
    signature, image = _signature(content)
    samples = [{image: subject.example(seed).numpy()} for seed in range(2, 2 + _CALIBRATION_SAMPLES)]
    found = bytes(static.quantize(static.calibrate({signature: samples})).quantized_model)
    if undelegated(found)[0] <= undelegated(content)[0]:
        return found, (
            f"int8 weights per channel and activations per tensor (static_wi8_ai8), calibrated on "
            f"{_CALIBRATION_SAMPLES} batches of noise: for time, not for accuracy; input and output stay fp32"
        )
    dynamic = quantiser(recipe.dynamic_wi8_afp32(), names.DEPTHWISE_CONV_2D)
    return bytes(dynamic.quantize().quantized_model), (
        "int8 weights per channel, activations quantised at run time (dynamic_wi8_afp32); depthwise convolutions and "
        "all that has no weights stay fp32, since XNNPACK lacks the int8 form of some operations of this network"
    )


def _half_weights() -> list[dict[str, Any]]:
    """A recipe of ai-edge-quantizer: every weight to fp16, made float again where it is used."""
    weights = {"num_bits": 16, "symmetric": True, "granularity": "TENSORWISE", "dtype": "FLOAT"}
    return [
        {
            "regex": ".*",
            "operation": "*",
            "algorithm_key": "float_casting",
            "op_config": {
                "weight_tensor_config": weights,
                "compute_precision": "FLOAT",
                "explicit_dequantize": True,
                "skip_checks": False,
                "min_weight_elements": 0,
            },
        }
    ]


def _signature(content: bytes) -> tuple[str, str]:
    """The name of the file's signature, and of its one input."""
    from ai_edge_litert.interpreter import Interpreter

    ((signature, ends),) = Interpreter(model_content=content).get_signature_list().items()
    return signature, ends["inputs"][0]


def scopes_of(content: bytes, subject: Subject) -> dict[str, str]:
    """Name of every operation's output → module path, in the order of the file.

    A name lists the paths of all that the converter fused into the operation; the first that is a module counts. One
    that names none (an operation the quantiser or the converter added) is where its input came from.
    """
    from ai_edge_litert import schema_py_generated as schema

    paths = {path for path, _ in subject.module.named_modules()}
    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    scopes: dict[str, str] = {}
    for operator in graph.operators:
        names = [graph.tensors[index].name.decode() for index in operator.outputs]
        scope = next((part for name in names for part in name.split(";") if part and part in paths), None)
        if scope is None and not any(_TOP in name.split(";") for name in names):
            sources = (graph.tensors[index].name.decode() for index in operator.inputs if index >= 0)
            scope = next((scopes[source] for source in sources if source in scopes), None)
        if scope is not None:
            scopes.update(dict.fromkeys(names, scope))
    return scopes


def delegation(content: bytes) -> str:
    """How much of a file XNNPACK runs, as one sentence: the operations that it leaves to slower kernels are named."""
    left, total, parts = undelegated(content)
    if not left:
        return f"XNNPACK runs all {total} operations"
    named = ", ".join(f"{kind}×{number}" if number > 1 else kind for kind, number in left.items())
    return f"XNNPACK runs {total - sum(left.values())} of {total} operations in {parts} parts; not {named}"


def undelegated(content: bytes) -> tuple[Counter[str], int, int]:
    """(kinds of operations that XNNPACK did not take, number of all operations, parts that it took).

    An operation inside a delegate has no memory of its own for its output, by which the two are told apart.
    """
    from ai_edge_litert.interpreter import Interpreter

    with silenced():
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
    operations: list[dict[str, Any]] = interpreter._get_ops_details()  # type: ignore[attr-defined]
    delegates = [operation for operation in operations if operation["op_name"] == "DELEGATE"]
    own = [operation for operation in operations if operation["op_name"] != "DELEGATE"]
    taken = {int(index) for delegate in delegates for index in delegate["outputs"]}
    left = Counter(
        operation["op_name"]
        for operation in own
        if not taken & set(map(int, operation["outputs"])) and _has_memory(interpreter, int(operation["outputs"][0]))
    )
    return left, len(own), len(delegates)


def _has_memory(interpreter: Any, index: int) -> bool:
    try:
        interpreter.get_tensor(index)
    except ValueError:
        return False
    return True
