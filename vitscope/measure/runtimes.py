"""The runtimes that vitscope can measure with: which file each executes, on which units, and how one gets it. No imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A way to execute an exported file. `adapter` is the module of `vitscope.measure.runner` that does it.

    `format` is a key of `vitscope.export.FORMATS`, or `module` for a pickled nn.Module that only this host can load.
    """

    name: str
    title: str
    adapter: str
    format: str
    units: tuple[str, ...]
    package: str
    cure: str


_PIP = 'pip install "vitscope[{}]"'

RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            name="torch", title="PyTorch eager", adapter="torch_eager", format="torch", units=("cpu", "cuda"),
            package="torch", cure="pip install torch",
        ),
        Runtime(
            name="torch.compile", title="PyTorch, torch.compile (Inductor)", adapter="torch_compile", format="torch",
            units=("cpu", "cuda"), package="torch", cure="pip install torch, and a C++ compiler",
        ),
        Runtime(
            name="cudagraphs", title="PyTorch, CUDA graphs", adapter="torch_cudagraphs", format="torch", units=("cuda",),
            package="torch", cure="a CUDA GPU and a CUDA build of torch",
        ),
        Runtime(
            name="onnxruntime", title="ONNX Runtime", adapter="onnxruntime_cpu", format="onnx", units=("cpu",),
            package="onnxruntime", cure=_PIP.format("onnx"),
        ),
        Runtime(
            name="openvino", title="OpenVINO", adapter="openvino_cpu", format="onnx", units=("cpu",),
            package="openvino", cure=_PIP.format("openvino"),
        ),
        Runtime(
            name="litert", title="LiteRT, XNNPACK", adapter="litert_cpu", format="litert", units=("cpu",),
            package="ai_edge_litert", cure=_PIP.format("litert"),
        ),
        Runtime(
            name="executorch", title="ExecuTorch, XNNPACK", adapter="executorch_cpu", format="executorch", units=("cpu",),
            package="executorch", cure=_PIP.format("executorch"),
        ),
        Runtime(
            name="tensorrt", title="TensorRT", adapter="tensorrt_gpu", format="onnx", units=("cuda",),
            package="tensorrt", cure="a CUDA GPU, and pip install tensorrt",
        ),
        Runtime(
            name="coreml", title="Core ML", adapter="coreml_mac", format="coreml",
            units=("all", "cpu", "cpu+gpu", "cpu+ane"), package="coremltools", cure="a Mac, and " + _PIP.format("coreml"),
        ),
    )
}  # fmt: skip
