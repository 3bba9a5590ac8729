"""The fusion rules of each runtime, one by one: tiny modules whose kernels can be written down."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from vitscope.errors import UnavailableError, UsageError
from vitscope.graph.record import Graph, OpRecord, Tensor
from vitscope.graph.trace import trace
from vitscope.latency.fields import Fields
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import RUNTIMES, load_runtime, read_rules

ONNX, OPENVINO, LITERT, EXECUTORCH = "onnxruntime", "openvino", "litert", "executorch"
CPU = (ONNX, OPENVINO, LITERT, EXECUTORCH)


class Function(nn.Module):
    """A module around a function of its inputs and the parts that it uses."""

    def __init__(self, function, **parts: nn.Module):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def kernels(runtime: str, module: nn.Module, *shapes: tuple[int, ...]) -> tuple[Kernel, ...]:
    with torch.device("meta"):
        inputs = [torch.empty(shape) for shape in shapes]
    return lower(trace(module.to("meta"), *inputs), load_runtime(runtime))


def told(runtime: str, module: nn.Module, *shapes: tuple[int, ...]) -> list[str]:
    """`convolution+relu` for each kernel: its work, and what runs with it."""
    return ["+".join((kernel.main, *kernel.epilogue)) for kernel in kernels(runtime, module, *shapes)]


def conv(*, act: nn.Module | None = None, channels: int = 16, **how: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 1, **how), *([act] if act is not None else []))


class Scale(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))


MAP = (1, 16, 4, 4)
STEPS = ["mean", "squared_difference", "mean", "add", "rsqrt", "mul", "sub", "mul", "add"]  # of a layer norm in LiteRT


# ---- activations ----


@pytest.mark.parametrize(
    ("act", "with_onnx", "with_openvino", "with_xnnpack"),
    [
        (nn.ReLU(), ["convolution+relu"], ["convolution+relu"], ["convolution+relu"]),
        (nn.ReLU6(), ["convolution+hardtanh"], ["convolution+hardtanh"], ["convolution+hardtanh"]),
        (nn.GELU(), ["convolution", "gelu"], ["convolution+gelu"], ["convolution", "gelu"]),
        (nn.SiLU(), ["convolution", "silu"], ["convolution+silu"], ["convolution", "sigmoid", "mul"]),
        (nn.Hardswish(), ["convolution+hardswish"], ["convolution+hardswish"], ["convolution", "hardswish"]),
        (nn.Sigmoid(), ["convolution+sigmoid"], ["convolution+sigmoid"], ["convolution", "sigmoid"]),
    ],
)
def test_which_activations_a_convolution_takes(act, with_onnx, with_openvino, with_xnnpack):
    net = conv(act=act)
    assert told(ONNX, net, MAP) == with_onnx
    assert told(OPENVINO, net, MAP) == with_openvino
    assert told(LITERT, net, MAP) == with_xnnpack
    assert told(EXECUTORCH, net, MAP) == with_xnnpack
    assert told("eager", net, MAP) == ["convolution", act_name(act)]


def act_name(act: nn.Module) -> str:
    return {"ReLU6": "hardtanh"}.get(type(act).__name__, type(act).__name__.lower())


def test_hardsigmoid_after_a_convolution():
    net = conv(act=nn.Hardsigmoid())
    assert told(ONNX, net, MAP) == ["convolution+hardsigmoid"]
    assert told(OPENVINO, net, MAP) == ["convolution", "hardsigmoid"]
    assert told(EXECUTORCH, net, MAP) == ["convolution", "add", "hardtanh", "div"]
    assert told(LITERT, net, MAP) == ["convolution+hardtanh", "mul"]  # relu6(x + 3) / 6, the 3 in the bias


def test_onnx_runtime_takes_hardswish_apart_where_no_convolution_takes_it():
    linear = ["reshape", "addmm", "reshape"]
    assert told(ONNX, nn.Sequential(nn.Linear(8, 8), nn.Hardswish()), (1, 5, 8)) == [*linear, "hardsigmoid", "mul"]
    sigmoid, product = kernels(ONNX, nn.Hardswish(), MAP)
    assert (sigmoid.reads, sigmoid.writes) == (256, 256)
    assert (product.reads, product.writes) == (512, 256)  # the input once more, and the gate


# ---- sums ----


def residual(*, act: nn.Module | None = None) -> nn.Module:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.body(x) + x
        return m.act(y) if act is not None else y

    return Function(forward, body=nn.Conv2d(16, 16, 1), **({"act": act} if act is not None else {}))


def test_which_convolutions_take_the_residual_sum():
    assert told(ONNX, residual(), MAP) == ["convolution+add"]
    assert told(OPENVINO, residual(), MAP) == ["convolution+add"]
    assert told(LITERT, residual(), MAP) == ["convolution", "add"]
    assert told(EXECUTORCH, residual(), MAP) == ["convolution", "add"]
    (fused,) = kernels(ONNX, residual(), MAP)
    assert fused.reads == 256  # the input of the convolution is the other operand: one value


def test_a_sum_comes_before_the_activation_in_onnx_runtime_only():
    assert told(ONNX, residual(act=nn.ReLU()), MAP) == ["convolution+add+relu"]
    after = Function(lambda m, x: m.body(x) + x, body=conv(act=nn.ReLU()))
    assert told(ONNX, after, MAP) == ["convolution+relu", "add"]
    assert told(OPENVINO, after, MAP) == ["convolution+relu+add"]


def test_a_clamp_joins_a_sum_in_litert_and_stands_alone_in_executorch():
    assert told(LITERT, residual(act=nn.ReLU()), MAP) == ["convolution", "add+relu"]
    assert told(EXECUTORCH, residual(act=nn.ReLU()), MAP) == ["convolution", "add", "relu"]


def test_onnx_runtime_adds_and_normalises_in_one_kernel():
    net = Function(lambda m, x, y: m.norm(x + y), norm=nn.LayerNorm(8))
    (kernel,) = kernels(ONNX, net, (1, 5, 8), (1, 5, 8))
    assert (kernel.kind, kernel.main, kernel.reads) == ("norm", "native_layer_norm", 80)
    both = Function(lambda m, x, y: (m.norm(x + y), x + y), norm=nn.LayerNorm(8))
    assert told(ONNX, both, (1, 5, 8), (1, 5, 8)) == ["native_layer_norm", "add"]


# ---- layouts ----


def test_the_image_is_turned_first_where_maps_are_channels_last():
    net = nn.Conv2d(3, 16, 3)
    for runtime in (OPENVINO, LITERT, EXECUTORCH):
        reorder, _ = kernels(runtime, net, (1, 3, 8, 8))
        assert (reorder.kind, reorder.main, reorder.reads, reorder.writes) == ("copy", "reorder", 192, 192)
    assert told(ONNX, net, (1, 3, 8, 8)) == ["convolution"]  # reads fewer channels than a block as they come


def test_onnx_runtime_leaves_blocks_for_what_it_runs_outside_and_comes_back():
    def gated(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.last(x * torch.sigmoid(m.gate(x.mean((2, 3), keepdim=True))))

    parts = {"gate": nn.Conv2d(16, 16, 1), "last": nn.Conv2d(16, 16, 1)}
    net = Function(lambda m, x: gated(m, m.first(x)), first=nn.Conv2d(16, 16, 1), **parts)
    assert told(ONNX, net, MAP) == [
        "convolution", "reorder", "mean", "reorder", "convolution+sigmoid", "reorder", "mul", "reorder", "convolution",
    ]  # fmt: skip
    assert told(OPENVINO, net, MAP) == ["convolution", "mean", "convolution+sigmoid", "mul", "convolution"]
    reorder = kernels(ONNX, net, MAP)[1]
    assert reorder.scopes == ("", "first")  # between the module that reads it and the one that wrote it


def test_activations_run_in_blocks():
    net = nn.Sequential(nn.Conv2d(16, 16, 1), nn.GELU(), nn.Conv2d(16, 16, 1))
    assert told(ONNX, net, MAP) == ["convolution", "gelu", "convolution"]


def test_grouped_convolutions_fill_blocks_or_run_outside():
    def framed(middle: nn.Conv2d) -> nn.Module:
        return nn.Sequential(nn.Conv2d(32, 32, 1), middle, nn.Conv2d(middle.out_channels, 32, 1))

    assert told(ONNX, framed(nn.Conv2d(32, 32, 3, groups=2)), (1, 32, 4, 4)) == ["convolution"] * 3
    outside = ["convolution", "reorder", "convolution", "reorder", "convolution"]
    assert told(ONNX, framed(nn.Conv2d(32, 32, 3, groups=8)), (1, 32, 4, 4)) == outside
    assert told(ONNX, framed(nn.Conv2d(32, 64, 3, groups=32)), (1, 32, 4, 4)) == outside  # two results a channel
    assert told(ONNX, framed(nn.Conv2d(32, 32, 3, groups=32)), (1, 32, 4, 4)) == ["convolution"] * 3
    assert told(OPENVINO, framed(nn.Conv2d(32, 32, 3, groups=8)), (1, 32, 4, 4)) == ["convolution"] * 3


@pytest.mark.parametrize(("channels", "between"), [(32, []), (24, ["reorder"])])
def test_maps_are_joined_in_blocks_where_each_fills_them(channels: int, between: list[str]):
    """32 + 32 channels join as they lie; of 24 each second block is half of one map and half of another."""

    def joined(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.first(x)
        return m.last(torch.cat([y, m.second(y)], 1))

    net = Function(
        joined, first=nn.Conv2d(16, channels, 1), second=nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        last=nn.Conv2d(2 * channels, 16, 1),
    )  # fmt: skip
    assert told(ONNX, net, MAP) == ["convolution", "convolution", *(2 * between), "cat", *between, "convolution"]


def test_a_map_that_lies_channels_last_becomes_tokens_for_free_in_litert():
    net = Function(lambda m, x: m.norm(m.conv(x).permute(0, 2, 3, 1)), conv=nn.Conv2d(16, 16, 1), norm=nn.LayerNorm(16))
    assert "permute" not in told(LITERT, net, MAP) and "reorder" not in told(LITERT, net, MAP)
    assert told(OPENVINO, net, MAP)[:2] == ["convolution", "permute"]
    assert told(ONNX, net, MAP) == ["convolution", "reorder", "native_layer_norm"]  # ReorderOutput turns it too


def test_a_map_that_is_numbered_by_channel_is_turned_twice_to_become_tokens():
    net = Function(
        lambda m, x: m.fc(m.conv(x).flatten(2).transpose(1, 2)), conv=nn.Conv2d(16, 16, 1), fc=nn.Linear(16, 4)
    )
    for runtime in CPU:
        found = [name for name in told(runtime, net, MAP) if name != "reshape"]
        assert found[:3] == ["convolution", "reorder", "permute"]
        assert len(found) == 4


def test_a_value_is_turned_once_for_all_its_readers():
    def two(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = m.conv(x)
        return y.mean((2, 3)) + y.sum((2, 3))

    net = Function(two, conv=nn.Conv2d(16, 16, 1))
    assert told(ONNX, net, MAP) == ["convolution", "reorder", "mean", "sum", "add"]


def test_onnx_runtime_runs_reshapes_but_not_those_of_a_product():
    """A linear layer with a bias is Gemm between two reshapes, without one MatMul; torch's own views of a product are none."""
    assert told(ONNX, nn.Linear(8, 8), (1, 9, 8)) == ["reshape", "addmm", "reshape"]
    assert told(ONNX, nn.Linear(8, 8, bias=False), (1, 9, 8)) == ["mm"]
    assert told(ONNX, Function(lambda m, x: x @ x.transpose(-2, -1)), (1, 2, 9, 8)) == ["bmm"]
    assert told(ONNX, Function(lambda m, x: torch.relu(x.flatten(2))), (1, 2, 9, 8)) == ["reshape", "relu"]
    for runtime in (OPENVINO, LITERT, EXECUTORCH):
        assert told(runtime, Function(lambda m, x: torch.relu(x.flatten(2))), (1, 2, 9, 8)) == ["relu"]


def test_a_reshape_moves_nothing():
    (reshape, _) = kernels(ONNX, Function(lambda m, x: torch.relu(x.flatten(2))), (1, 2, 9, 8))
    assert (reshape.kind, reshape.macs, reshape.reads, reshape.weights, reshape.writes) == ("reshape", 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("axes", "main"),
    [
        ((0, 2, 1, 3), "permute_rows"),  # heads before tokens
        ((0, 1, 3, 2), "permute"),  # a matrix transposed
        ((0, 3, 1, 2), "permute"),
        ((0, 3, 2, 1), "permute_scattered"),
    ],
)
def test_what_a_permutation_does_to_memory(axes: tuple[int, ...], main: str):
    assert told(ONNX, Function(lambda m, x: torch.relu(x.permute(axes).flatten(2))), (1, 2, 9, 8))[0] == main


def test_a_part_is_permuted_with_the_axis_that_it_was_cut_by():
    """Channels of queries, keys and values before tokens: ONNX Runtime is given each part with the axis of the three."""

    def parts(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = x.reshape(1, 9, 3, 2, 4).permute(2, 0, 3, 4, 1).unbind(0)
        return torch.relu(q.flatten(2)) + torch.relu(k.flatten(2)) + torch.relu(v.flatten(2))

    mains = [kernel.main for kernel in kernels(ONNX, Function(parts), (1, 9, 24))]
    assert mains.count("permute_scattered") == 3 and "permute" not in mains


def test_a_reshape_that_the_next_undoes_is_one_with_it():
    """Two linear layers in a row: back to tokens and to rows again between them, of which ONNX Runtime keeps one."""
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    assert told(ONNX, net, (1, 9, 8)) == ["reshape", "addmm", "reshape", "addmm", "reshape"]


# ---- padding ----


STRIDED = {"kernel_size": 3, "stride": 2, "padding": 1}


def test_what_pads_a_convolution_joins_it_where_nothing_else_reads_it():
    """LiteRT knows SAME alone, which puts the odd zero last: else there is a Pad, which XNNPACK takes into its only reader."""
    assert told(LITERT, nn.Conv2d(16, 16, **STRIDED), (1, 16, 8, 8)) == ["convolution"]
    two = Function(lambda m, x: m.a(x) * m.b(x), a=nn.Conv2d(16, 16, **STRIDED), b=nn.Conv2d(16, 16, **STRIDED))
    assert told(LITERT, two, (1, 16, 8, 8)) == ["constant_pad_nd", "convolution", "convolution", "mul"]
    (pad, first, *_) = kernels(LITERT, two, (1, 16, 8, 8))
    assert (pad.reads, pad.writes, first.reads) == (16 * 64, 16 * 100, 16 * 100)
    for runtime in (ONNX, OPENVINO, EXECUTORCH):
        assert "constant_pad_nd" not in told(runtime, two, (1, 16, 8, 8))


@pytest.mark.parametrize(
    ("how", "side"),
    [
        ({"kernel_size": 3, "padding": 1}, 8),  # SAME
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 7),  # SAME too: as many zeros before as after
        ({"kernel_size": 3, "stride": 2}, 8),  # none
    ],
)
def test_same_and_no_padding_are_the_convolutions_own(how: dict[str, int], side: int):
    two = Function(lambda m, x: m.a(x) * m.b(x), a=nn.Conv2d(16, 16, **how), b=nn.Conv2d(16, 16, **how))
    assert "constant_pad_nd" not in told(LITERT, two, (1, 16, side, side))


def test_weights_that_are_computed_are_read_beside_the_padded_map():
    net = Function(lambda m, x, w: torch.nn.functional.conv2d(x, w, stride=2, padding=1))
    (only,) = kernels(LITERT, net, (1, 16, 8, 8), (16, 16, 3, 3))
    assert (only.main, only.reads) == ("convolution", 16 * 64 + 16 * 16 * 9)


def test_what_pads_a_pool_stays_a_kernel():
    assert told(LITERT, nn.MaxPool2d(3, 2, 1), (1, 16, 8, 8)) == ["constant_pad_nd", "max_pool2d_with_indices"]
    assert told(LITERT, nn.AvgPool2d(3, 1, 1), MAP) == ["constant_pad_nd", "avg_pool2d"]
    assert told(LITERT, nn.AvgPool2d(3, 1, 1, count_include_pad=False), MAP) == ["avg_pool2d"]
    assert told(ONNX, nn.MaxPool2d(3, 2, 1), (1, 16, 8, 8)) == ["max_pool2d_with_indices"]


# ---- constants ----


def test_a_scale_after_an_activation_is_none_of_the_convolutions_weights():
    net = Function(lambda m, x: torch.relu(m.conv(x)) * m.scale.weight, conv=conv(), scale=Scale(16))
    assert told(LITERT, net, MAP) == ["convolution+relu", "mul"]
    folded = Function(lambda m, x: m.conv(x) * m.scale.weight, conv=conv(), scale=Scale(16))
    assert told(LITERT, folded, MAP) == ["convolution"]


def test_a_constant_takes_a_map_out_of_blocks():
    """The NCHWc transformer knows sums of two maps in blocks alone."""
    net = Function(
        lambda m, x: m.b(torch.relu(m.a(x)) + m.scale.weight),
        a=nn.Conv2d(16, 16, 1), b=nn.Conv2d(16, 16, 1), scale=Scale(16),
    )  # fmt: skip
    assert told(ONNX, net, MAP) == ["convolution+relu", "reorder", "add", "reorder", "convolution"]


def test_a_number_is_multiplied_in_whatever_order_a_tensor_lies():
    """It needs no copy of its own: the permuted tensor is written out once, by whoever asks for it straight."""
    net = Function(lambda m, x: (x.permute(0, 2, 1) * 0.5).flatten(1))
    plain = Function(lambda m, x: (x.permute(0, 2, 1) * m.scale.weight[0, :1, 0, 0]).flatten(1), scale=Scale(1))
    for runtime in (ONNX, LITERT):
        assert sum("permute" in kernel for kernel in told(runtime, net, (1, 8, 9))) <= 1
        assert told(runtime, plain, (1, 8, 9)) == told(runtime, net, (1, 8, 9))


def test_a_batch_norm_that_no_convolution_takes_in():
    net = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.BatchNorm2d(16)).eval()
    assert told(LITERT, net, MAP) == ["convolution+relu", "mul", "add"]
    assert told(ONNX, net, MAP) == ["convolution+relu", "reorder", "native_batch_norm"]


# ---- attention ----


def attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    q, k, v = x.reshape(1, 9, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    out = ((q * 0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
    return m.proj(out.transpose(1, 2).reshape(1, 9, 8))


TOKENS = (1, 9, 24)


def test_attention_of_each_runtime():
    net = Function(attention, proj=nn.Linear(8, 8))
    assert [name for name in told(ONNX, net, TOKENS) if name != "reshape"] == [
        "unbind", "permute_rows", "permute", "bmm", "_softmax", "permute_rows", "bmm", "permute_rows", "addmm",
    ]  # fmt: skip
    assert told(OPENVINO, net, TOKENS) == ["permute_rows", "mul", "attention+permute_rows", "addmm"]
    parts = [
        "permute_rows", "unbind", "unbind", "unbind", "mul", "permute", "bmm", "_softmax", "bmm", "permute_rows", "addmm",
    ]  # fmt: skip
    assert told(LITERT, net, TOKENS) == parts
    assert told(EXECUTORCH, net, TOKENS) == parts
    assert "_softmax" in told("eager", net, TOKENS) and "permute" not in told("eager", net, TOKENS)


def test_one_kernel_of_attention_has_the_work_of_its_parts():
    net = Function(attention, proj=nn.Linear(8, 8))
    (fused,) = [kernel for kernel in kernels(OPENVINO, net, TOKENS) if kernel.kind == "attention"]
    parts = [kernel for kernel in kernels(LITERT, net, TOKENS) if kernel.kind == "matmul"]
    assert fused.macs == sum(kernel.macs for kernel in parts) == 2 * (2 * 9 * 9 * 4)
    assert fused.reads == 3 * 2 * 9 * 4 and fused.writes == 2 * 9 * 4  # no scores leave it
    g = fused.geometry
    assert g is not None and (g.batch, g.in_channels, g.out_channels) == (2, 4, 4)
    assert (g.in_size, g.out_size) == ((9, 1), (9, 1))


def test_talking_heads_keep_attention_apart():
    net = Function(lambda m, q, k, v: m.heads((q @ k).softmax(-1)) @ v, heads=nn.Conv2d(2, 2, 1))
    found = told(OPENVINO, net, (1, 2, 9, 4), (1, 2, 4, 9), (1, 2, 9, 4))
    assert [name for name in found if name not in ("reorder", "permute")] == ["bmm", "_softmax", "convolution", "bmm"]


def test_fused_attention_of_pytorch_is_one_kernel_where_a_runtime_has_it():
    tensors = tuple(Tensor((1, 2, 9, 4), "float32", "activation" if i == 3 else "input", i) for i in range(4))
    op = OpRecord("_scaled_dot_product_flash_attention_for_cpu", "attn", (0, 1, 2), (3,))
    graph = Graph(tensors, (op,), (), (0, 1, 2), (3,))
    (one,) = lower(graph, load_runtime("eager"))
    assert (one.kind, one.macs, one.reads, one.writes) == ("attention", 2 * 2 * 9 * 9 * 4, 3 * 72, 72)
    assert [kernel.kind for kernel in lower(graph, load_runtime(ONNX))] == ["matmul", "softmax", "matmul"]


# ---- norms and others ----


def test_layer_norm_of_each_runtime():
    net, tokens = nn.Sequential(nn.LayerNorm(8), nn.GELU()), (1, 5, 8)
    assert told(ONNX, net, tokens) == ["native_layer_norm", "gelu"]
    assert told(EXECUTORCH, net, tokens) == ["native_layer_norm", "gelu"]
    assert told(OPENVINO, net, tokens) == ["mvn", "mul+gelu"]
    assert told(LITERT, net, tokens) == [*STEPS, "mul", "add", "gelu"]
    mean, *_ = kernels(LITERT, net, tokens)
    assert (mean.kind, mean.reads, mean.writes) == ("reduce", 40, 5)


def test_the_affine_part_of_a_norm_goes_into_the_linear_layer_after_it_in_litert():
    net = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))
    assert told(LITERT, net, (1, 5, 8)) == [
        "mean",
        "squared_difference",
        "mean",
        "add",
        "rsqrt",
        "mul",
        "sub",
        "mul",
        "add",
        "addmm",
    ]
    (linear,) = kernels(LITERT, net, (1, 5, 8))[-1:]
    assert linear.reads == 40


def test_group_norm_of_each_runtime():
    net = nn.GroupNorm(1, 16)
    assert told(ONNX, net, MAP) == ["reshape", "instance_norm", "reshape", "mul", "add"]
    assert told(OPENVINO, net, MAP) == ["mvn", "mul"]
    assert len(told(LITERT, net, MAP)) == 11


def test_executorchs_group_norm_is_of_means_of_channels_and_then_of_groups():
    """As the exporter writes it out: a mean of each of 16 channels, then one for each of 2 groups of 8 such means."""
    _, C, H, W = MAP
    means = [k for k in kernels(EXECUTORCH, nn.GroupNorm(2, C), MAP) if k.kind == "reduce"]
    assert [(k.main, k.writes) for k in means] == [("mean", C), ("mean", 2), ("mean_squared", C), ("mean", 2)]
    assert [k.geometry.window for k in means] == [(H, W), (C // 2, 1), (H, W), (C // 2, 1)]


def test_rolling_is_two_splits_and_two_concatenations_in_onnx_runtime():
    net = Function(lambda m, x: torch.roll(x, (1, 1), (1, 2)))
    assert told(ONNX, net, (1, 4, 4, 16)) == ["split", "cat", "split", "cat"]


def test_parts_of_a_tensor():
    net = Function(lambda m, x: torch.cat([torch.relu(part) for part in x.chunk(2, dim=-1)], -1))
    assert told(ONNX, net, (1, 5, 8)) == ["split", "relu", "relu", "cat"]
    assert told(LITERT, net, (1, 5, 8)) == ["split", "split", "relu", "relu", "cat"]
    outer = Function(lambda m, x: [torch.relu(part) for part in x.chunk(2, dim=1)])
    assert told(OPENVINO, outer, (1, 4, 8)) == ["relu", "relu"]  # each part is one stretch of memory
    assert told(OPENVINO, net, (1, 5, 8))[0] == "split"


# ---- TensorRT, from its documentation alone ----


def test_tensorrt_as_documented():
    assert told("tensorrt", conv(act=nn.SiLU()), MAP) == ["convolution+silu"]
    assert told("tensorrt", residual(act=nn.ReLU()), MAP) == ["convolution+add+relu"]
    assert "[D] unconfirmed" in load_runtime("tensorrt").source


# ---- what holds for all ----


@pytest.mark.parametrize("runtime", sorted(path.stem for path in RUNTIMES.glob("*.yaml")))
def test_no_rules_lose_work(runtime: str):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.SiLU(),
        nn.GroupNorm(1, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 5),
    )  # fmt: skip
    found = kernels(runtime, net, (1, 3, 16, 16))
    assert sum(k.macs for k in found) == 8 * 8 * 16 * 27 + 8 * 8 * 16 * 9 + 16 * 5
    learned = sum(prod(p.shape) for p in net.parameters())
    assert learned - 100 < sum(k.weights for k in found) <= learned + 32  # norms fold, or stay as mean and variance
    rules = load_runtime(runtime)
    assert rules.name == runtime and len(rules.source) > 40 and rules.about


# ---- rule files ----


def document(**more: Any) -> dict[str, Any]:
    return {"name": "x", "about": "a", "source": "s", "epilogues": [], "prologues": [], **more}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"permute": "copies"},
            "x.yaml: permute must be one of free, copy, early, got 'copies' — did you mean 'copy'?",
        ),
        (
            {"layout": {"order": "nhwc", "native": [], "followers": []}},
            "layout.order must be one of channels_last, blocked",
        ),
        ({"layout": {"order": "blocked", "native": ["conb"], "followers": []}}, "did you mean 'conv'?"),
        (
            {"epilogues": [{"op": "relu", "into": ["conv"], "how": "fuse", "first": "yes"}]},
            "epilogues.0.first must be true",
        ),
        ({"epilogues": [{"op": "relo", "into": ["conv"], "how": "fuse"}]}, "did you mean 'relu'?"),
        (
            {"decompositions": [{"op": "silu", "steps": []}]},
            "decompositions.0.steps must be a list of one step or more",
        ),
        (
            {"decompositions": [{"op": "silu", "steps": [{"op": "a", "kind": "norm", "reads": [0]}]}]},
            "steps.0.reads must be a list of input and of the numbers below 0",
        ),
        (
            {"decompositions": [{"op": "silu", "steps": [{"op": "mean", "kind": "reduce", "writes": "channels"}]}]},
            "decompositions.0.rank must be 4, where a step writes channels, which maps have, got 0",
        ),
        ({"slices": "free"}, "unknown key slices"),
    ],
)
def test_a_mistake_in_a_rule_file_is_one_clear_line(more: dict[str, Any], says: str):
    with pytest.raises(UsageError) as error:
        read_rules(Fields("x.yaml", document(**more)))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_runtime_names_those_that_are_known():
    with pytest.raises(UnavailableError, match=r"known are coreml, eager, executorch, .*litert, onnxruntime, openvino"):
        load_runtime("ncnn")
