"""run_program(path, image): a Core ML program evaluated by torch, operation by operation, as Apple's MIL documents them.

This is our reading of the operations' semantics (coremltools' MIL operation reference), not Core ML, which predicts on
macOS only. It proves that the file on disk, its weights included, says what the network computes: a wrong axis, padding,
constant or order of operands shows. How a device rounds, and whether it follows the reference, it cannot say.
An operation that is not in the tables below is an error, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Given = Mapping[str, Any]  # arguments by name: tensors, or what torch's functions take for constants


def run_program(path: Path, image: Tensor) -> dict[str, Tensor]:
    """The outputs of the .mlpackage at `path` by name, for the one input that it takes. Weights are read from its file."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    spec: Any = ct.models.utils.load_spec(str(path))
    weights = path / "Data" / "com.apple.CoreML" / "weights"
    program: Any = load(spec, spec.specificationVersion, file_weights_dir=str(weights))
    (function,) = program.functions.values()
    (name,) = function.inputs
    values: dict[str, Any] = {name: image}
    with torch.no_grad():
        for operation in function.operations:
            _execute(operation, values)
    return {output.name: values[output.name] for output in function.outputs}


def _execute(operation: Any, values: dict[str, Any]) -> None:
    kind = operation.op_type
    if kind == "const":
        values[operation.outputs[0].name] = _constant(operation.outputs[0].val)
        return
    if kind.startswith("constexpr_"):
        values[operation.outputs[0].name] = _constant(operation.materialized_val_inference())
        return
    if kind not in OPERATIONS:
        raise NotImplementedError(f"{kind}: the interpreter of the tests does not know this operation")
    given = {key: _argument(value, values) for key, value in operation.inputs.items() if value is not None}
    made = OPERATIONS[kind](given)
    made = made if isinstance(made, (list, tuple)) else (made,)
    for output, value in zip(operation.outputs, made, strict=True):
        if tuple(value.shape) != tuple(output.shape):
            raise ValueError(f"{kind} {output.name}: gives {tuple(value.shape)}, the file says {tuple(output.shape)}")
        values[output.name] = value


def _argument(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_argument(one, values) for one in value]
    return values[value.name]


def _constant(value: Any) -> Any:
    """A number, a text or a bool as it is; arrays as tensors."""
    if isinstance(value, (str, bool)):
        return value
    found = torch.as_tensor(value)
    return found.item() if found.ndim == 0 else found


def _ints(value: Any) -> list[int]:
    return [int(one) for one in value]


def _padding(given: Given, sizes: list[int]) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis. `same` pads as TensorFlow does, the odd one after; `same_lower` before."""
    kind = given.get("pad_type", "valid")
    rank = len(sizes)
    if kind == "valid":
        return [(0, 0)] * rank
    if kind == "custom":
        pads = _ints(given["pad"])
        return [(pads[2 * axis], pads[2 * axis + 1]) for axis in range(rank)]
    strides = _ints(given.get("strides", [1] * rank))
    dilations = _ints(given.get("dilations", [1] * rank))
    pairs = []
    for size, kernel, stride, dilation in zip(given["x"].shape[2:], sizes, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        pairs.append((less, more) if kind == "same" else (more, less))
    return pairs


def _padded(x: Tensor, pairs: list[tuple[int, int]], value: float = 0.0) -> Tensor:
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=value)


def _conv(given: Given) -> Tensor:
    weight = given["weight"]
    x = _padded(given["x"], _padding(given, list(weight.shape[2:])))
    functions: dict[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d}
    return functions[weight.ndim](
        x, weight, given.get("bias"), stride=_ints(given.get("strides", [1] * (weight.ndim - 2))),
        dilation=_ints(given.get("dilations", [1] * (weight.ndim - 2))), groups=int(given.get("groups", 1)),
    )  # fmt: skip


def _conv_transpose(given: Given) -> Tensor:
    """Padding crops the full result; the weight is (C_in, C_out / groups, *kernel), as in torch."""
    weight = given["weight"]
    full = F.conv_transpose2d(
        given["x"], weight, given.get("bias"), stride=_ints(given.get("strides", [1, 1])),
        groups=int(given.get("groups", 1)), dilation=_ints(given.get("dilations", [1, 1])),
    )  # fmt: skip
    (top, bottom), (left, right) = _padding(given, list(weight.shape[2:]))
    return full[..., top : full.shape[-2] - bottom, left : full.shape[-1] - right]


def _pool(given: Given, largest: bool) -> Tensor:
    sizes, strides = _ints(given["kernel_sizes"]), _ints(given.get("strides", [1, 1]))
    if given.get("ceil_mode", False):
        raise NotImplementedError("pooling with ceil_mode")
    pairs = _padding(given, sizes)
    if largest:
        return F.max_pool2d(_padded(given["x"], pairs, float("-inf")), sizes, strides)
    means = F.avg_pool2d(_padded(given["x"], pairs), sizes, strides)
    if given.get("exclude_padding_from_average", False):
        means = means / F.avg_pool2d(_padded(torch.ones_like(given["x"]), pairs), sizes, strides)
    return means


def _norm_axes(given: Given) -> Tensor:
    axes, x = _ints(given["axes"]), given["x"]
    shape = [x.shape[axis] for axis in axes]
    if [axis % x.ndim for axis in axes] != list(range(x.ndim - len(axes), x.ndim)):
        raise NotImplementedError(f"layer_norm over {axes} of rank {x.ndim}")
    return F.layer_norm(x, shape, given.get("gamma"), given.get("beta"), float(given.get("epsilon", 1e-5)))


def _batch_norm(given: Given) -> Tensor:
    return F.batch_norm(
        given["x"], given["mean"], given["variance"], given.get("gamma"), given.get("beta"),
        eps=float(given.get("epsilon", 1e-5)),
    )  # fmt: skip


def _instance_norm(given: Given) -> Tensor:
    gamma, beta = given.get("gamma"), given.get("beta")
    return F.instance_norm(given["x"], weight=gamma, bias=beta, eps=float(given.get("epsilon", 1e-5)))


def _slice(given: Given) -> Tensor:
    x = given["x"]

    def masked(key: str, axis: int) -> bool:
        mask = given.get(key)
        return mask is not None and bool(mask[axis])

    begin, end = _ints(given["begin"]), _ints(given["end"])
    steps = _ints(given["stride"]) if given.get("stride") is not None else [1] * x.ndim
    squeezed = []
    for axis in range(x.ndim):
        first = None if masked("begin_mask", axis) else begin[axis]
        last = None if masked("end_mask", axis) else end[axis]
        if masked("squeeze_mask", axis):
            first, last = begin[axis], begin[axis] + 1 or None
            squeezed.append(axis)
        chosen = range(x.shape[axis])[slice(first, last, steps[axis])]
        x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.long))
    return x.squeeze(tuple(squeezed)) if squeezed else x


def _split(given: Given) -> tuple[Tensor, ...]:
    axis = int(given["axis"])
    if given.get("split_sizes") is not None:
        return given["x"].split(_ints(given["split_sizes"]), axis)
    return given["x"].split(given["x"].shape[axis] // int(given["num_splits"]), axis)


def _gather(given: Given) -> Tensor:
    indices, axis = torch.as_tensor(given["indices"]).long(), int(given.get("axis", 0))
    x, axis = given["x"], axis % given["x"].ndim
    found = x.index_select(axis, torch.where(indices < 0, indices + x.shape[axis], indices).flatten())
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _reshape(given: Given) -> Tensor:
    """0 keeps the axis of that place, -1 is what is left."""
    x = given["x"]
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(_ints(given["shape"]))])


def _expand(given: Given) -> Tensor:
    x, axes = given["x"], _ints(given["axes"])
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _matmul(given: Given) -> Tensor:
    x, y = given["x"], given["y"]
    x = x.transpose(-1, -2) if given.get("transpose_x", False) else x
    return x @ (y.transpose(-1, -2) if given.get("transpose_y", False) else y)


def _linear(given: Given) -> Tensor:
    return F.linear(given["x"], given["weight"], given.get("bias"))


def _gelu(given: Given) -> Tensor:
    kinds = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}
    return F.gelu(given["x"], approximate=kinds[given.get("mode", "EXACT")])


def _pad(given: Given) -> Tensor:
    x, pads = given["x"], _ints(given["pad"])
    axes = len(pads) // 2
    pairs = [(pads[2 * i], pads[2 * i + 1]) for i in range(axes)]
    flat = [n for pair in reversed(pairs) for n in pair]
    mode = given.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, flat, value=float(given.get("constant_val", 0.0)))
    while len(flat) > 2 and flat[-2:] == [0, 0]:  # torch takes the spatial axes alone here
        flat = flat[:-2]
    return F.pad(x, flat, mode={"reflect": "reflect", "replicate": "replicate"}[mode])


def _bilinear(given: Given) -> Tensor:
    """`align_corners` as in torch; `half_pixel_centers`, where it is given, must be what torch does without it."""
    corners = bool(given.get("align_corners", True))
    if given.get("half_pixel_centers", not corners) == corners:
        raise NotImplementedError("bilinear with neither corners aligned nor half pixels")
    factors = (float(given["scale_factor_height"]), float(given["scale_factor_width"]))
    return F.interpolate(given["x"], scale_factor=factors, mode="bilinear", align_corners=corners)


def _nearest(given: Given) -> Tensor:
    factors = (float(given["scale_factor_height"]), float(given["scale_factor_width"]))
    return F.interpolate(given["x"], scale_factor=factors, mode="nearest")


def _resize_bilinear(given: Given) -> Tensor:
    modes = {"STRICT_ALIGN_CORNERS": True, "ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}
    size = (int(given["target_size_height"]), int(given["target_size_width"]))
    return F.interpolate(given["x"], size=size, mode="bilinear", align_corners=modes[given["sampling_mode"]])


def _hard_sigmoid(given: Given) -> Tensor:
    return (float(given.get("alpha", 0.2)) * given["x"] + float(given.get("beta", 0.5))).clamp(0, 1)


def _cast(given: Given) -> Tensor:
    types = {"fp32": torch.float32, "fp16": torch.float16, "int32": torch.int32, "bool": torch.bool}
    return torch.as_tensor(given["x"]).to(types[given["dtype"]])


def _reduced(function: Callable[..., Tensor]) -> Callable[[Given], Tensor]:
    def reduce(given: Given) -> Tensor:
        axes = _ints(given["axes"]) if given.get("axes") is not None else list(range(given["x"].ndim))
        return function(given["x"], dim=axes, keepdim=bool(given.get("keep_dims", False)))

    return reduce


def _of_one(function: Callable[[Tensor], Tensor]) -> Callable[[Given], Tensor]:
    return lambda given: function(given["x"])


def _of_two(function: Callable[[Any, Any], Tensor]) -> Callable[[Given], Tensor]:
    return lambda given: function(torch.as_tensor(given["x"]), torch.as_tensor(given["y"]))


OPERATIONS: Mapping[str, Callable[[Given], Any]] = {
    "abs": _of_one(torch.abs),
    "add": _of_two(torch.add),
    "avg_pool": lambda given: _pool(given, largest=False),
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": lambda given: given["x"].clamp(float(given["alpha"]), float(given["beta"])),
    "concat": lambda given: torch.cat(list(given["values"]), int(given["axis"])),
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "exp": _of_one(torch.exp),
    "expand_dims": _expand,
    "gather": _gather,
    "gelu": _gelu,
    "instance_norm": _instance_norm,
    "layer_norm": _norm_axes,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": lambda given: _pool(given, largest=True),
    "maximum": _of_two(torch.maximum),
    "minimum": _of_two(torch.minimum),
    "mul": _of_two(torch.mul),
    "pad": _pad,
    "pow": _of_two(torch.pow),
    "real_div": _of_two(torch.true_divide),
    "reduce_l2_norm": _reduced(torch.linalg.vector_norm),
    "reduce_max": _reduced(torch.amax),
    "reduce_mean": _reduced(torch.mean),
    "reduce_sum": _reduced(torch.sum),
    "relu": _of_one(torch.relu),
    "relu6": _of_one(F.relu6),
    "reshape": _reshape,
    "resize_bilinear": _resize_bilinear,
    "rsqrt": lambda given: torch.rsqrt(given["x"] + float(given.get("epsilon", 1e-12))),
    "sigmoid": _of_one(torch.sigmoid),
    "sigmoid_hard": _hard_sigmoid,
    "silu": _of_one(F.silu),
    "slice_by_index": _slice,
    "softmax": lambda given: torch.softmax(given["x"], int(given.get("axis", -1))),
    "split": _split,
    "sqrt": _of_one(torch.sqrt),
    "square": _of_one(torch.square),
    "squeeze": lambda given: given["x"].squeeze(tuple(_ints(given["axes"]))),
    "stack": lambda given: torch.stack(list(given["values"]), int(given["axis"])),
    "sub": _of_two(torch.sub),
    "tanh": _of_one(torch.tanh),
    "thresholded_relu": lambda given: torch.where(given["x"] >= given["alpha"], given["x"], 0),
    "tile": lambda given: given["x"].repeat(*_ints(given["reps"])),
    "transpose": lambda given: given["x"].permute(*_ints(given["perm"])),
    "upsample_bilinear": _bilinear,
    "upsample_nearest_neighbor": _nearest,
}
