"""What each runtime makes of a network, as its own tools tell it: one record for every kernel, with the modules it works for.

ONNX Runtime, OpenVINO, LiteRT and ExecuTorch are asked through the profiles that `vitscope measure` reads; Core ML, which
runs on Apple's machines only, is read as the program that coremltools wrote; PyTorch by its own profiler.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitscope.export.artifact import Artifact
    from vitscope.subject import Subject

CONVOLUTION = ("conv", "grouped", "depthwise", "pointwise")
PRODUCT = ("linear", "matmul")
_ELEMENT = ("elementwise",)
_COPY = ("copy",)

# What a runtime's word for a kernel may be among vitscope's kinds, the likelier first. Words for nothing but another
# way to read memory are FREE.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "onnxruntime": {
        **dict.fromkeys(("Conv", "FusedConv", "ConvTranspose"), CONVOLUTION),
        **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul"), PRODUCT),
        **dict.fromkeys(("ReorderInput", "ReorderOutput", "Transpose", "Split", "Slice", "Concat", "Pad", "Expand"), _COPY),
        **dict.fromkeys(("Add", "Mul", "Sub", "Div", "Max", "Min", "Sqrt", "Pow", "Where", "Exp", "Reciprocal"), _ELEMENT),
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), ("reduce",)),
        **dict.fromkeys(("Gelu", "QuickGelu", "FastGelu", "Relu", "Sigmoid", "HardSigmoid", "Tanh", "HardSwish", "Erf"),
                        ("activation",)),
        **dict.fromkeys(("LayerNormalization", "SkipLayerNormalization", "InstanceNormalization", "BatchNormalization"),
                        ("norm",)),
        **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), ("reshape",)),
        "Gather": ("copy", "gather"), "ReduceL2": ("norm", "reduce"), "GlobalAveragePool": ("reduce", "pool"),
        "AveragePool": ("pool",), "MaxPool": ("pool",), "Resize": ("resize",), "DepthToSpace": ("resize",),
        "Softmax": ("softmax",), "Clip": ("elementwise", "activation"), "Neg": _ELEMENT,
    },
    "openvino": {
        **dict.fromkeys(("Convolution", "GroupConvolution", "Deconvolution", "GroupConvolutionBackpropData",
                         "ConvolutionBackpropData"), CONVOLUTION),
        **dict.fromkeys(("FullyConnected", "MatMul"), PRODUCT),
        **dict.fromkeys(("Reorder", "Transpose", "Concat", "VariadicSplit", "Split", "Slice", "StridedSlice", "Pad",
                         "Broadcast"), _COPY),
        **dict.fromkeys(("Add", "MulAdd", "Multiply", "Subtract", "Divide", "Maximum", "Power", "Eltwise"), _ELEMENT),
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax"), ("reduce",)),
        **dict.fromkeys(("MVN", "RMS"), ("norm",)),
        "Subgraph": ("attention", "elementwise", "activation", "norm"), "HardSigmoid": ("activation",),
        "Relu": ("activation",), "Softmax": ("softmax",), "Interpolate": ("resize",), "AvgPool": ("pool",),
        "MaxPool": ("pool",), "ReduceL2": ("norm", "reduce"), "Gather": ("gather", "copy"), "DepthToSpace": ("resize",),
        "Roll": _COPY,
    },
    "litert": {
        **dict.fromkeys(("Convolution", "Deconvolution"), CONVOLUTION),
        **dict.fromkeys(("Transpose", "Slice", "Copy", "Constant Pad", "Even Split", "STRIDED_SLICE", "BROADCAST_TO",
                         "Concatenate"), _COPY),
        **dict.fromkeys(("Add", "Multiply", "Subtract", "Divide", "Squared Difference", "Reciprocal Square Root",
                         "Square Root", "Square", "Abs", "Exp", "Maximum", "Minimum"), _ELEMENT),
        **dict.fromkeys(("Mean", "Sum", "Mean Squared", "Reduce Max"), ("reduce",)),
        **dict.fromkeys(("GELU", "ApproxGELU", "HardSwish", "Sigmoid", "Tanh"), ("activation",)),
        **dict.fromkeys(("Average Pooling", "Max Pooling", "AVERAGE_POOL_2D"), ("pool",)),
        "Fully Connected": (*PRODUCT, *CONVOLUTION), "Batch Matrix Multiply": PRODUCT, "Normalize": ("norm", "reduce"),
        "Softmax": ("softmax",), "Resize Bilinear": ("resize",), "Clamp": ("activation", "elementwise"),
        "Depth To Space": ("resize",), "GATHER": ("gather",), "GATHER_ND": ("gather",),
    },
    "coreml": {
        **dict.fromkeys(("conv", "conv_transpose"), CONVOLUTION),
        **dict.fromkeys(("linear", "matmul", "einsum"), PRODUCT),
        **dict.fromkeys(("add", "mul", "sub", "real_div", "pow", "sqrt", "rsqrt", "exp", "maximum", "minimum",
                         "inverse", "square", "abs"), _ELEMENT),
        **dict.fromkeys(("relu", "relu6", "gelu", "silu", "sigmoid", "tanh", "sigmoid_hard", "erf", "thresholded_relu"),
                        ("activation",)),
        **dict.fromkeys(("layer_norm", "instance_norm", "batch_norm", "l2_norm"), ("norm",)),
        **dict.fromkeys(("reduce_mean", "reduce_sum", "reduce_max"), ("reduce",)),
        **dict.fromkeys(("avg_pool", "max_pool"), ("pool",)),
        **dict.fromkeys(("upsample_bilinear", "upsample_nearest_neighbor", "resize_bilinear", "pixel_shuffle",
                         "resize"), ("resize",)),
        **dict.fromkeys(("concat", "stack", "pad", "tile", "reflection_pad"), _COPY),
        "clip": ("activation", "elementwise"),
        "reduce_l2_norm": ("norm", "reduce"), "softmax": ("softmax",), "gather": ("gather",), "gather_nd": ("gather",),
    },
}  # fmt: skip
KINDS["executorch"] = KINDS["litert"] | {
    "native_layer_norm": ("norm",), "native_group_norm": ("norm",), "mean": ("reduce",), "avg_pool2d": ("pool",),
    "linalg_vector_norm": ("norm",), "pow_tensor+sum_dim_int": ("norm",), "mean+native_layer_norm": ("norm",),
    "sum": ("reduce",), "sum_dim_int": ("reduce",), "amax": ("reduce",), "bmm": PRODUCT, "mm": PRODUCT,
    "addmm": PRODUCT, "constant_pad_nd": _COPY, "cat": _COPY, "clone": _COPY, "hardsigmoid": ("activation",),
    "sigmoid": ("activation",), "clamp": ("elementwise",), "roll": _COPY, "gelu": ("activation",),
    "upsample_nearest2d": ("resize",), "upsample_bilinear2d": ("resize",), "index": ("gather",), "div": _ELEMENT,
    "mul": _ELEMENT, "add": _ELEMENT, "sub": _ELEMENT, "expand": _COPY, "convolution": CONVOLUTION,
    "pixel_shuffle": ("resize",), "slice": _COPY, "permute": _COPY, "silu": ("activation",),
}  # fmt: skip
FREE: dict[str, frozenset[str]] = {
    "onnxruntime": frozenset({"Cast", "Identity"}),
    "openvino": frozenset({"Reshape", "Squeeze", "Unsqueeze", "Parameter", "Result", "Input", "Output"}),
    "litert": frozenset({"Static Reshape", "RESHAPE", "Static Expand Dims"}),
    "executorch": frozenset({
        "DELEGATE_CALL", "Method::execute", "Static Reshape", "Static Expand Dims", "view_copy", "squeeze_copy",
        "unsqueeze_copy",
    }),
    # Views are taken as free in the rules, which no program can show: what becomes of them is decided on the device.
    "coreml": frozenset({
        "reshape", "expand_dims", "squeeze", "transpose", "split", "slice_by_index", "slice_by_size", "cast", "identity",
        "fill", "shape",
    }),
    "eager": frozenset(),
}  # fmt: skip
FORMATS = {
    "onnxruntime": "onnx",
    "openvino": "onnx",
    "litert": "litert",
    "executorch": "executorch",
    "coreml": "coreml",
}
_NAMED = re.compile(r"_?(?P<path>[\w.]+)/[A-Z]")
_LAYOUTS = re.compile(r"_(?:a[A-Z]?[a-z0-9]{2,6}|fake|_)(?=_)|^input")


@dataclass(frozen=True, slots=True)
class Ran:
    """A kernel as its runtime tells it: the runtime's word, the modules its names lead to, and its name."""

    kind: str
    scopes: tuple[str, ...]
    name: str


def ran(subject: Subject, runtime: str) -> list[Ran]:
    """What `runtime` makes of `subject`, in the order in which it runs; free views are left out.

    What has no name of the file takes the module of what runs after it, for which the runtime put it in. Raises
    RefusedError where the format refuses the network, UnavailableError where a tool is missing.
    """
    if runtime == "eager":
        return list(_eager(subject))
    from vitscope.export.cache import cached

    artifact = cached(subject, FORMATS[runtime], "fp16" if runtime == "coreml" else "fp32")
    found = list(_program(artifact) if runtime == "coreml" else _profiled(artifact, runtime))
    for i in range(len(found) - 2, -1, -1):
        if not found[i].scopes:
            found[i] = Ran(found[i].kind, found[i + 1].scopes, found[i].name)
    return [each for each in found if each.kind not in FREE[runtime]]


def _profiled(artifact: Artifact, runtime: str) -> Iterator[Ran]:
    from vitscope.export.silence import silenced

    adapter = importlib.import_module(f"vitscope.measure.runner.{runtime}_cpu")
    options = {
        "threads": 1,
        "input_shape": list(artifact.input_shape),
        "precision": "fp32",
        "names": [*artifact.scopes],
    }
    with silenced():
        told = adapter.load(str(artifact.path), options).op_times(20)  # of several, or OpenVINO leaves out the shortest
    assert told is not None, f"{runtime} has no profile here"
    for op in told[1]:
        scopes = [scope for name in op["names"] for scope in _scopes_in(name, artifact.scopes)]
        yield Ran(op["kind"], tuple(dict.fromkeys(scopes or _scopes_in(op["name"], artifact.scopes))), op["name"])


def _scopes_in(name: str, scopes: dict[str, str]) -> list[str]:
    """The modules of a name of the file, or of those that a runtime made a name of: `a/Conv_1_abcd_acdb_b/Conv_2`."""
    if name in scopes:
        return [scopes[name]]
    found = [m["path"] for part in _LAYOUTS.split(name) if (m := _NAMED.match(part))]
    return ["" if path == "top" else path for path in found]


def _program(artifact: Artifact) -> Iterator[Ran]:
    from vitscope.export.inspect_coreml import operations, quiet

    with quiet():
        import coremltools as ct

        spec: Any = ct.utils.load_spec(str(artifact.path))
    for operation in operations(spec):
        name = operation.outputs[0].name
        scope = artifact.scopes.get(name)
        yield Ran(operation.type, () if scope is None else (scope,), name)


def _eager(subject: Subject) -> Iterator[Ran]:
    """The outermost of PyTorch's operations that do work, by its profiler, with the module in whose call each stands."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    mark = "module:"
    handles, open_marks = [], []

    def begin(path: str) -> Any:
        def hook(*_: Any) -> None:
            context = record_function(mark + path)
            context.__enter__()
            open_marks.append(context)

        return hook

    def end(*_: Any) -> None:
        open_marks.pop().__exit__(None, None, None)

    for path, module in subject.module.named_modules():
        handles += [module.register_forward_pre_hook(begin(path)), module.register_forward_hook(end)]
    try:
        with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as profiled:
            subject.module(subject.example())
    finally:
        for handle in handles:
            handle.remove()
    for event in profiled.events() or ():
        name = event.name.removeprefix("aten::").removesuffix("_")
        if not event.name.startswith("aten::") or kind_of_aten(name) is None:
            continue
        parent, scope, inner = event.cpu_parent, "", False
        while parent is not None and not parent.name.startswith(mark):
            inner |= kind_of_aten(parent.name.removeprefix("aten::").removesuffix("_")) is not None
            parent = parent.cpu_parent
        if parent is not None:
            scope = parent.name.removeprefix(mark)
        if not inner:
            yield Ran(name, (scope,), event.name)


def kind_of_aten(name: str) -> tuple[str, ...] | None:
    """The kinds that an operation of PyTorch may be, None for one that does no work of its own."""
    from vitscope.cost.ops import FREE as CLASSES
    from vitscope.cost.ops import MACS

    if name in MACS:
        return CONVOLUTION if "conv" in name else ("attention",) if "attention" in name else PRODUCT
    if name in ("contiguous", "_to_copy", "native_dropout", "dropout"):  # calls another that works, or does nothing
        return None
    found = next((kind for kind, names in CLASSES.items() if name in names), None)
    return None if found in (None, "view", "constant") else (found,)
