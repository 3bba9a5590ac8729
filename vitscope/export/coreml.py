"""Core ML: an ML Program for iOS 16 and later, through torch.export and coremltools, with the module of each operation.

iOS 16 is the oldest system whose programs take half precision in and out, so that nothing is converted at the edges, and
that holds 8 bit weights (`constexpr_affine_dequantize`). Its operations are also those of macOS 13. Newer targets would
keep attention as one operation (iOS 18), which older phones refuse.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.export import RefusedError, Written
from vitscope.export.coreml_ops import register
from vitscope.export.inspect_coreml import CONSTANT, inspect_spec, operations, quiet
from vitscope.export.program import exported, one_line, scope_of

if TYPE_CHECKING:
    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject

INPUT, OUTPUT = "image", "logits"
MINIMUM_TARGET = "iOS16"


def write(subject: Subject, path: Path, precision: Precision) -> Written:
    """Write `subject` as an .mlpackage: a tensor `image` (B, C, H, W) in, `logits` out, both in the file's precision.

    fp16 is what the Neural Engine computes in; fp32 keeps a program off it. int8 is fp16 with the weights of every
    convolution and linear layer in 8 bits, linear, symmetric and a scale a channel; activations stay in fp16, because
    calibrating them needs predictions, which coremltools makes on macOS only. Raises ImportError, RefusedError.
    """
    with quiet():
        import coremltools as ct
        import numpy as np

        register()
        program, paths = _numbered(subject)
        half = precision != "fp32"
        dtype: Any = np.float16 if half else np.float32
        try:
            model: Any = ct.convert(
                program,
                inputs=[ct.TensorType(name=INPUT, shape=subject.input_shape, dtype=dtype)],
                outputs=[ct.TensorType(name=OUTPUT, dtype=dtype)] if _outputs(program) == 1 else None,
                convert_to="mlprogram",
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                minimum_deployment_target=getattr(ct.target, MINIMUM_TARGET),
                skip_model_load=True,
            )
            scopes = _scopes(model, paths)
            if precision == "int8":
                model = _with_int8_weights(model)
        except Exception as error:
            # coremltools raises whatever its operation converters raise: ValueError, NotImplementedError, RuntimeError …
            raise RefusedError(f"{subject.name}: coremltools cannot convert it: {one_line(error)}") from error
        model.short_description = f"{subject.name}, {subject.form} form, {precision}"
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".coreml-") as folder:
            whole = os.path.join(folder, "model.mlpackage")  # coremltools refuses any other suffix
            model.save(whole)
            os.replace(whole, path)
        spec = model.get_spec()
    names = {output.name for operation in operations(spec) for output in operation.outputs}
    scopes = {name: scope for name, scope in scopes.items() if name in names}
    found = f"{subject.name}: {inspect_spec(spec, scopes).line()}"
    notes = (f"for {MINIMUM_TARGET} and later, macOS 13 and later", found)
    if precision == "int8":
        notes += ("int8 weights only: activations stay in fp16",)
    return Written(tools=f"coremltools {ct.__version__}", scopes=scopes, notes=notes)


def _numbered(subject: Subject) -> tuple[Any, list[str]]:
    """The program with a number on each node, which coremltools carries through its passes, and the path of each."""
    program = exported(subject).run_decompositions({})
    paths: list[str] = []
    for number, node in enumerate(program.graph.nodes):
        node.meta["debug_handle"] = number
        paths.append(scope_of(node))
    return program, paths


def _outputs(program: Any) -> int:
    return len(program.graph_signature.user_outputs)


def _scopes(model: Any, paths: list[str]) -> dict[str, str]:
    """Output name → module path of each operation. What a pass inserted, a cast or a transpose, is its producer's."""
    from coremltools.converters.mil.mil.scope import ScopeSource

    found: dict[str, str] = {}
    for operation in model._mil_program.functions["main"].operations:
        if operation.op_type.startswith(CONSTANT):
            continue
        handle = operation.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE)
        path = paths[handle[0]] if handle and handle[0] is not None else _producer(operation, found)
        if path:
            found.update((output.name, path) for output in operation.outputs)
    return found


def _producer(operation: Any, known: Mapping[str, str]) -> str:
    for given in operation.inputs.values():
        for value in given if isinstance(given, (list, tuple)) else (given,):
            path = known.get(getattr(value, "name", ""))
            if path:
                return path
    return ""


def _with_int8_weights(model: Any) -> Any:
    import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(
        global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    )
    return cto.linear_quantize_weights(model, config)
