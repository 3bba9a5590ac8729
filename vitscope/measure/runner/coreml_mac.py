"""Core ML on a Mac: coremltools' MLModel on the compute units asked for, and the compute plan as estimated times.

Not yet run on a Mac: written from coremltools 9.0's source and documentation (see docs/iphone.md, what is not proven).
Time includes Python's call of Core ML, which copies the outputs into numpy: an identity network shows how much.
"""

from __future__ import annotations

import platform
import time
from statistics import median
from typing import Any

_UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "cpu+gpu": "CPU_AND_GPU", "cpu+ane": "CPU_AND_NE"}
_DEVICES = {"MLNeuralEngineComputeDevice": "ane", "MLGPUComputeDevice": "gpu", "MLCPUComputeDevice": "cpu"}
_TYPES = {"FLOAT16": "float16", "FLOAT32": "float32", "DOUBLE": "float64", "INT32": "int32"}
_SEED = 1


def version() -> str:
    """The version of coremltools, and of macOS, which Core ML is a part of. Raises ImportError away from a Mac."""
    if platform.system() != "Darwin":
        raise ImportError("Core ML predicts on macOS only")
    import coremltools

    return f"macOS {platform.mac_ver()[0]}, coremltools {coremltools.__version__}"


def load(path: str, options: dict[str, Any]) -> CoreMLModel:
    """The .mlpackage at `path` on `options["unit"]`. Core ML compiles it first, which is part of the time to load."""
    version()
    import coremltools as ct

    units = compute_units(ct, str(options.get("unit", "all")))
    return CoreMLModel(ct.models.MLModel(path, compute_units=units), units)


def compute_units(ct: Any, unit: str) -> Any:
    """coremltools' word for a unit of `vitscope.measure.runtimes`. Raises ValueError."""
    if unit not in _UNITS:
        raise ValueError(f"Core ML runs on {', '.join(_UNITS)}, not on {unit}")
    return ct.ComputeUnit[_UNITS[unit]]


class CoreMLModel:
    """A loaded model with its input prepared."""

    notes: list[str]

    def __init__(self, model: Any, units: Any):
        self.notes = ["each time includes Python's call of Core ML"]
        self._model, self._units = model, units
        self._given = noise(model.get_spec())
        self._outputs: dict[str, Any] = {}

    def run(self) -> None:
        self._outputs = self._model.predict(self._given)

    def outputs(self) -> list[Any]:
        return list(self._outputs.values())

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]]:
        """The plan's share of each operation, times the median of `runs` inferences."""
        from coremltools.models.compute_plan import MLComputePlan

        samples = []
        for _ in range(max(1, runs)):
            start = time.perf_counter()
            self.run()
            samples.append(time.perf_counter() - start)
        plan = MLComputePlan.load_from_path(self._model.get_compiled_model_path(), self._units)
        return "estimated", planned(plan, median(samples))


def noise(spec: Any) -> dict[str, Any]:
    """Seeded noise for each input of a Core ML model, in its own shape and type."""
    import numpy

    given = {}
    for feature in spec.description.input:
        kind = feature.type.multiArrayType
        words = type(kind).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
        dtype = _TYPES[words[kind.dataType].name]
        values = numpy.random.default_rng(_SEED).standard_normal(tuple(kind.shape))
        given[feature.name] = values.astype(dtype)
    return given


def planned(plan: Any, total_s: float) -> list[dict[str, Any]]:
    """The operations of an MLComputePlan as the runner's `profile` gives them: seconds are weight × `total_s`.

    The plan gives constants neither a unit nor a cost: they are left out. An operation that it gives a unit and no cost
    has 0 seconds, so that the shares still say what the plan explains.
    """
    found = []
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        if usage is None and cost is None:
            continue
        names = [output.name for output in operation.outputs]
        found.append({
            "name": names[0] if names else operation.operator_name,
            "kind": operation.operator_name.rpartition(".")[2],
            "seconds": total_s * cost.weight if cost is not None else 0.0,
            "names": names,
            "unit": unit_of(usage),
        })  # fmt: skip
    return found


def unit_of(usage: Any) -> str:
    """`ane`, `gpu` or `cpu`: where the plan prefers to run an operation; empty where it does not say."""
    return "" if usage is None else _DEVICES.get(type(usage.preferred_compute_device).__name__, "")
