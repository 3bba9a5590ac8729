"""OpenVINO on the CPU: one stream, latency hint, tensors shared with the request, and its own counters per node."""

from __future__ import annotations

from typing import Any

from vitscope.measure.runner.noise import fitted, noise, pixels, sized
from vitscope.measure.runner.ops import op, typical

_WARM = 5  # inferences before the counters are read


def version() -> str:
    import openvino

    return openvino.__version__.split("-")[0]


class Model:
    """A compiled model with one infer request, whose input is set once and whose outputs are not copied."""

    def __init__(self, path: str, options: dict[str, Any]):
        import numpy
        import openvino

        self._path = path
        self.notes: list[str] = []
        self._core = openvino.Core()
        self._settings = {
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(int(options.get("threads", 1))),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": "NO",  # the process is held to its cores by the runner
            "INFERENCE_PRECISION_HINT": self._precision(options.get("precision", "fp32")),
        }
        compiled = self._core.compile_model(path, "CPU", self._settings)
        given = compiled.input(0)
        declared = [side.get_length() if side.is_static else None for side in given.partial_shape]
        dtype = given.element_type.to_dtype()
        array = pixels(noise(options["input_shape"]), dtype)
        array = fitted(array, sized(declared, options["input_shape"]), dtype)
        self._array = numpy.ascontiguousarray(array)
        self._tensor = openvino.Tensor(self._array, shared_memory=True)
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(self._tensor)
        self._infer = self._request.infer

    def _precision(self, precision: str) -> str:
        """The type it is to compute in: of itself it takes bfloat16 for a file of float32 where a CPU has AMX."""
        if precision != "fp16":
            return "f32"
        if "FP16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "f16"
        self.notes.append("this CPU has no fp16 in OpenVINO: it computes in float32")
        return "f32"

    def run(self) -> None:
        self._infer(share_outputs=True)

    def outputs(self) -> list[Any]:
        self.run()
        return [tensor.data.copy() for tensor in self._request.output_tensors]

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """From a second compilation with counters on; names are the file's, as `originalLayersNames` gives them."""
        compiled = self._core.compile_model(self._path, "CPU", {**self._settings, "PERF_COUNT": "YES"})
        covered: dict[str, list[str]] = {}
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            if "originalLayersNames" in info:
                covered[node.get_friendly_name()] = [
                    name for name in _text(info["originalLayersNames"]).split(",") if name
                ]
        request = compiled.create_infer_request()
        request.set_input_tensor(self._tensor)
        for _ in range(_WARM):
            request.infer(share_outputs=True)
        times: dict[str, list[float]] = {}
        kinds: dict[str, str] = {}
        for _ in range(runs):
            request.infer(share_outputs=True)
            for node in request.get_profiling_info():
                times.setdefault(node.node_name, []).append(node.real_time.total_seconds())
                kinds[node.node_name] = node.node_type
        ops = [
            op(name, kinds[name], typical(taken), covered.get(name, [name]), "cpu")
            for name, taken in times.items()
            if any(taken)
        ]
        return "measured", ops


def load(path: str, options: dict[str, Any]) -> Model:
    """The ONNX file (or OpenVINO's own .xml) at `path`, compiled. `options`: `threads`, `input_shape`, `precision`."""
    return Model(path, options)


def _text(value: Any) -> str:
    """The text of a value of rt_info, which is wrapped (OVAny) in some versions."""
    return value.astype(str) if hasattr(value, "astype") else str(value)
