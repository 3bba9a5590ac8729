"""agreement(subject, artifact): the exported file run in its runtime on noise, held against PyTorch on the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.errors import UsageError
from vitscope.export.artifact import Artifact, Precision
from vitscope.export.program import one_line
from vitscope.export.silence import untold

if TYPE_CHECKING:
    import numpy as np

    from vitscope.subject import Subject

# The largest relative error that is still the same network. fp32 differs by the order of its sums. Half has a rounding of
# 5e-4, which some fifty layers add up. In int8 with ranges taken from noise only a file that is wrong lies beyond.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 5e-2, "int8": 0.5}

_SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far a file's outputs lie from PyTorch's: max|a − b| / max|b| over all outputs, in fp32 on the PyTorch side.

    `same_class` is the share of arg-maxima of the first output that are equal. Both are None where nothing was run or
    the run failed; `reason` says why.
    """

    runtime: str
    tolerance: float
    relative_error: float | None = None
    same_class: float | None = None
    failed: bool = False
    reason: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the file computes the network; None where no runtime here can tell."""
        if self.relative_error is not None:
            return self.relative_error <= self.tolerance  # false for NaN
        return False if self.failed else None


def agreement(subject: Subject, artifact: Artifact, runtime: str | None = None) -> Agreement:
    """The file in one runtime: the first of those that execute its format, or `runtime`. Raises UsageError."""
    known = RUNNERS.get(artifact.format, {})
    if runtime is None:
        runtime = next(iter(known), "")
    elif runtime not in known:
        raise UsageError(
            f"{runtime} does not execute {artifact.format} files here; {', '.join(known) or 'nothing does'}"
        )
    tolerance = TOLERANCES[artifact.precision]
    if not runtime:
        return Agreement(runtime="", tolerance=tolerance, reason="no runtime of this format runs on this host")
    expected, given = _reference(subject)
    try:
        found = known[runtime](artifact.path, given)
        error, same = _compared(found, expected)
    except ImportError as problem:
        return Agreement(runtime=runtime, tolerance=tolerance, reason=f"{runtime} is not installed ({problem})")
    except Exception as problem:
        return Agreement(runtime=runtime, tolerance=tolerance, failed=True, reason=one_line(problem))
    return Agreement(runtime=runtime, tolerance=tolerance, relative_error=error, same_class=same)


def agreements(subject: Subject, artifact: Artifact) -> tuple[Agreement, ...]:
    """The file in every runtime that executes its format; at least one, of which nothing is known where there is none."""
    runtimes = tuple(RUNNERS.get(artifact.format, {})) or (None,)
    return tuple(agreement(subject, artifact, runtime) for runtime in runtimes)


def _reference(subject: Subject) -> tuple[list[np.ndarray], np.ndarray]:
    """PyTorch's outputs in float, and the noise that they came of."""
    import torch

    given = subject.example(_SEED)
    with torch.no_grad():
        result = subject.module.eval()(given)
    return _leaves(result), given.numpy()


def _leaves(result: Any) -> list[np.ndarray]:
    from torch.utils._pytree import tree_leaves

    return [leaf.detach().float().numpy() for leaf in tree_leaves(result) if hasattr(leaf, "detach")]


def _compared(found: list[np.ndarray], expected: list[np.ndarray]) -> tuple[float, float]:
    """(relative error, share of equal arg-maxima). Raises ValueError when the outputs are not of the same shapes."""
    import numpy as np

    shapes = [[list(array.shape) for array in arrays] for arrays in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"puts out {shapes[0]}, PyTorch {shapes[1]}")
    largest = max(float(np.abs(array).max()) for array in expected)
    difference = max(float(np.abs(a.astype(np.float32) - b).max()) for a, b in zip(found, expected, strict=True))
    axis = 1 if expected[0].ndim > 1 else 0
    same = float(np.mean(found[0].argmax(axis) == expected[0].argmax(axis)))
    return difference / max(largest, float(np.finfo(np.float32).tiny)), same


def _onnxruntime(path: Path, given: np.ndarray) -> list[np.ndarray]:
    untold()
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return [*session.run(None, {session.get_inputs()[0].name: given})]  # type: ignore[list-item]


def _openvino(path: Path, given: np.ndarray) -> list[np.ndarray]:
    import openvino

    # Of itself it takes bfloat16 for a float32 file where the CPU has it, which is another network.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled([given])
    return [results[output] for output in compiled.outputs]


def _litert(path: Path, given: np.ndarray) -> list[np.ndarray]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    if tuple(entry["shape"]) != given.shape:
        given = given.transpose(0, 2, 3, 1)
    scale, zero = entry["quantization"]
    if scale:
        limits = np.iinfo(entry["dtype"])
        given = np.clip(np.round(given / scale) + zero, limits.min, limits.max)
    interpreter.set_tensor(entry["index"], np.ascontiguousarray(given.astype(entry["dtype"])))
    interpreter.invoke()
    results = []
    for detail in interpreter.get_output_details():
        value = interpreter.get_tensor(detail["index"])
        scale, zero = detail["quantization"]
        results.append((value.astype(np.float32) - zero) * scale if scale else value)
    return results


def _executorch(path: Path, given: np.ndarray) -> list[np.ndarray]:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(str(path)).load_method("forward")
    if method is None:
        raise ValueError("the program has no method forward")
    half = method.metadata.input_tensor_meta(0).dtype() == 5  # ScalarType::Half
    tensor = torch.from_numpy(given)
    return _leaves(method.execute([tensor.half() if half else tensor]))


def _torch(path: Path, given: np.ndarray) -> list[np.ndarray]:
    import torch

    program = torch.export.load(str(path))
    kind = next((value.dtype for value in program.state_dict.values() if value.is_floating_point()), torch.float32)
    with torch.no_grad():
        return _leaves(program.module()(torch.from_numpy(given).to(kind)))


# Format → runtime → the outputs that it computes of a float array (B, C, H, W). Core ML's runs on a Mac alone.
RUNNERS: Mapping[str, Mapping[str, Callable[[Path, Any], list[Any]]]] = {
    "onnx": {"onnxruntime": _onnxruntime, "openvino": _openvino},
    "litert": {"litert": _litert},
    "executorch": {"executorch": _executorch},
    "torch": {"torch": _torch},
}
