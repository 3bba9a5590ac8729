"""TensorRT on a CUDA GPU: an engine built from the ONNX file when it is loaded, buffers in torch's GPU memory.

Nothing here could be tried where it was written, for there was no GPU: it follows the documentation of TensorRT 10.
"""

from __future__ import annotations

import json
import re
from typing import Any

from vitscope.measure.runner.noise import fitted, noise
from vitscope.measure.runner.ops import op, typical

_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_WARM = 5  # inferences before the profile


def version() -> str:
    """TensorRT's version. Raises ImportError where it, torch's CUDA build or a GPU is missing."""
    import tensorrt  # type: ignore[import-not-found]
    import torch

    if not torch.cuda.is_available():
        raise ImportError(f"TensorRT {tensorrt.__version__} needs a GPU, and torch {torch.__version__} sees none here")
    return tensorrt.__version__


class Model:
    """An engine with its execution context and its tensors, on a stream of its own."""

    def __init__(self, path: str, options: dict[str, Any]):
        import numpy
        import tensorrt as trt  # type: ignore[import-not-found]
        import torch

        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)  # of itself from TensorRT 10 on
        network = builder.create_network(0 if explicit is None else 1 << int(explicit))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(path):
            raise ValueError(f"TensorRT cannot read the file: {parser.get_error(0).desc()}")
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        precision = options.get("precision", "fp32")
        if precision == "fp16":
            config.set_flag(trt.BuilderFlag.FP16)
        elif precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
        else:
            config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is what was asked for
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ValueError("TensorRT built no engine of the file")
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()
        self._tensors: dict[str, Any] = {}
        self._results: list[str] = []
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            dtype = numpy.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            shape = tuple(self._engine.get_tensor_shape(name))
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                value = fitted(noise(options["input_shape"]), shape, dtype)
            else:
                value = numpy.zeros(shape, dtype)
                self._results.append(name)
            self._tensors[name] = torch.from_numpy(value).cuda()
            self._context.set_tensor_address(name, self._tensors[name].data_ptr())
        torch.cuda.synchronize()
        self.notes = [f"engine built here, {precision}" + (", TF32 off" if precision == "fp32" else "")]

    def run(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT could not enqueue the inference")
        self._stream.synchronize()

    def outputs(self) -> list[Any]:
        self.run()
        return [self._tensors[name].float().cpu().numpy() for name in self._results]

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """Each layer of the engine by TensorRT's profiler; the file's names are in its metadata, where it keeps them."""
        import tensorrt as trt  # type: ignore[import-not-found]

        times: dict[str, list[float]] = {}

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times.setdefault(layer_name, []).append(ms * 1e-3)

        profiler = Profiler()
        self._context.profiler = profiler
        for _ in range(_WARM + runs):
            self.run()
        inspector = self._engine.create_engine_inspector()
        layers = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON)).get("Layers", [])
        covered = {
            layer["Name"]: _LAYER.findall(layer.get("Metadata", "")) for layer in layers if isinstance(layer, dict)
        }
        return "measured", [
            op(name, "layer", typical(taken[_WARM:]), covered.get(name) or [name], "cuda")
            for name, taken in times.items()
        ]


def load(path: str, options: dict[str, Any]) -> Model:
    """An engine of the ONNX file at `path`. `options`: `precision`, `input_shape`."""
    return Model(path, options)
