"""The runtimes that vitscope can measure with: which file each executes, on which units, how one gets it, which are here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Whether a runtime is on this host: its version, or (None) `reason`, which ends with how one gets it."""

    runtime: Runtime
    version: str | None
    reason: str = ""


def present() -> list[Presence]:
    """Every runtime in the order of the table, found without importing any: a package's metadata and the files around it.

    A package that is installed and broken counts as here; a target's `runtimes()` imports each and knows better.
    """
    return [_presence(runtime) for runtime in RUNTIMES.values()]


def _presence(runtime: Runtime) -> Presence:
    lacks = _lacks(runtime)
    if lacks:
        return Presence(runtime=runtime, version=None, reason=f"{lacks} ({runtime.cure})")
    return Presence(runtime=runtime, version=_version(runtime.package))


def _lacks(runtime: Runtime) -> str:
    """What `runtime` needs and this host has not, in a few words; empty where it has all."""
    if runtime.name == "coreml" and sys.platform != "darwin":
        return "Core ML predicts on macOS only"
    if util.find_spec(runtime.package) is None:
        return f"{runtime.package} is not installed"
    if runtime.name == "torch.compile" and _compiler() is None:
        return "no C++ compiler"
    if runtime.units == ("cuda",):
        if not _has_cuda():
            return "torch is built without CUDA"
        if not Path("/dev/nvidiactl").exists() and shutil.which("nvidia-smi") is None:
            return "no CUDA GPU"
    return ""


def _compiler() -> str | None:
    """The C++ compiler that torch.compile would find: `$CXX`, else one of the usual names."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))), None)


def _has_cuda() -> bool:
    """Whether the installed torch holds its CUDA library."""
    spec = util.find_spec("torch")
    folders = spec.submodule_search_locations if spec is not None else None
    names = ("libtorch_cuda.so", "torch_cuda.dll")
    return any((Path(folder) / "lib" / name).exists() for folder in folders or () for name in names)


def _version(package: str) -> str:
    """The version of the distribution that brings `package`, which may have another name (onnxruntime-gpu)."""
    for name in (package, *metadata.packages_distributions().get(package, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
