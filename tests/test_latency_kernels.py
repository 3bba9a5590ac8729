"""Fusion rules, one by one: tiny modules whose kernels can be written down."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import load_runtime

COREML = load_runtime("coreml")


def graph_of(module: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    with torch.device("meta"):
        inputs = [torch.empty(shape) for shape in shapes]
    return trace(module.to("meta"), *inputs)


def kernels_of(module: nn.Module, *shapes: tuple[int, ...]) -> tuple[Kernel, ...]:
    return lower(graph_of(module, *shapes), COREML)


def kinds(kernels: tuple[Kernel, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(kernel.kind, kernel.ops) for kernel in kernels]


class Function(nn.Module):
    """A module around a function and the parameters that it uses."""

    def __init__(self, function, **parameters: tuple[int, ...]):
        super().__init__()
        self.function = function
        for name, shape in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(self, *inputs)


def test_batch_norm_folds_into_the_convolution_and_leaves_a_bias():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
    (kernel,) = kernels_of(net, (1, 3, 4, 4))
    assert kernel.kind == "conv"
    assert kernel.ops == ("convolution", "native_batch_norm")
    assert kernel.weights == 8 * 3 * 3 * 3 + 8
    assert (kernel.reads, kernel.writes, kernel.macs) == (3 * 4 * 4, 8 * 4 * 4, 8 * 4 * 4 * 3 * 3 * 3)


@pytest.mark.parametrize("bias", [True, False])
def test_train_and_deploy_form_give_the_same_kernel(bias: bool):
    train = nn.Sequential(nn.Conv2d(4, 8, 1, bias=bias), nn.BatchNorm2d(8), nn.GELU())
    deploy = nn.Sequential(nn.Conv2d(4, 8, 1), nn.GELU())
    (a,), (b,) = kernels_of(train, (1, 4, 5, 5)), kernels_of(deploy, (1, 4, 5, 5))
    assert (a.kind, a.macs, a.reads, a.weights, a.writes) == (b.kind, b.macs, b.reads, b.weights, b.writes)
    assert a.weights == 8 * 4 + 8


def test_activation_joins_its_convolution_also_in_place():
    for activation in (nn.ReLU(inplace=True), nn.ReLU(), nn.GELU(), nn.ReLU6(inplace=True)):
        (kernel,) = kernels_of(nn.Sequential(nn.Conv2d(4, 4, 1), activation), (1, 4, 2, 2))
        assert kernel.kind == "pointwise" and len(kernel.ops) == 2
        assert (kernel.reads, kernel.writes) == (16, 16)


def test_silu_stays_a_kernel_of_its_own():
    conv, silu = kernels_of(nn.Sequential(nn.Conv2d(4, 4, 1), nn.SiLU()), (1, 4, 2, 2))
    assert (silu.kind, silu.reads, silu.writes, silu.macs) == ("activation", 16, 16, 0)
    assert conv.ops == ("convolution",)


def test_activation_with_a_second_reader_of_the_convolution_stays_apart():
    class Swish(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            y = super().forward(input)
            return y * torch.sigmoid(y)

    assert kinds(kernels_of(Swish(4, 4, 1), (1, 4, 2, 2))) == [
        ("pointwise", ("convolution",)),
        ("activation", ("sigmoid",)),
        ("elementwise", ("mul",)),
    ]


def test_residual_addition_joins_the_convolution_that_comes_last_and_is_read_by_it():
    class Residual(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input + super().forward(input)

    (kernel,) = kernels_of(Residual(6, 6, 1), (1, 6, 2, 2))
    assert kernel.ops == ("convolution", "add")
    assert kernel.reads == 6 * 4  # the input of the convolution is the other operand: one value, read once

    net = Function(lambda m, x, y: y + F.conv2d(x, m.weight), weight=(6, 3, 1, 1))
    (kernel,) = kernels_of(net, (1, 3, 2, 2), (1, 6, 2, 2))
    assert (kernel.reads, kernel.writes) == (3 * 4 + 6 * 4, 6 * 4)


def test_addition_of_two_convolutions_joins_the_later_one():
    net = Function(lambda m, x: F.conv2d(x, m.a) + F.conv2d(x, m.b), a=(5, 3, 1, 1), b=(5, 3, 1, 1))
    first, second = kernels_of(net, (1, 3, 2, 2))
    assert first.ops == ("convolution",)
    assert second.ops == ("convolution", "add")
    assert second.reads == 3 * 4 + 5 * 4


def test_a_value_that_leaves_the_graph_is_not_absorbed():
    class Two(nn.Conv2d):
        def forward(self, input: torch.Tensor):  # type: ignore[override]
            y = super().forward(input)
            return y, torch.relu(y)

    assert [kernel.ops for kernel in kernels_of(Two(3, 3, 1), (1, 3, 2, 2))] == [("convolution",), ("relu",)]


def test_layer_scale_folds_away_and_the_residual_follows():
    net = Function(lambda m, x: x + m.gamma.view(1, -1, 1, 1) * 1.0 + x, gamma=(4,))  # no kernel before: stays
    assert [k.kind for k in kernels_of(net, (1, 4, 2, 2))] == ["elementwise"]

    net = Function(lambda m, x: x + F.conv2d(x, m.w) * m.gamma.view(1, -1, 1, 1), w=(4, 4, 1, 1), gamma=(4,))
    (kernel,) = kernels_of(net, (1, 4, 2, 2))
    assert kernel.ops == ("convolution", "mul", "add")
    assert kernel.weights == 4 * 4  # the scale went into the weights


def test_a_constant_per_position_is_read_at_run_time():
    net = Function(lambda m, x: F.conv2d(x, m.w) + m.table, w=(4, 4, 1, 1), table=(1, 4, 2, 2))
    (kernel,) = kernels_of(net, (1, 4, 2, 2))
    assert kernel.ops == ("convolution", "add")
    assert kernel.weights == 4 * 4 + 4 * 2 * 2


def test_linear_is_one_kernel_with_bias_and_activation_through_views():
    (kernel,) = kernels_of(nn.Sequential(nn.Linear(8, 16), nn.GELU()), (1, 5, 8))
    assert kernel.kind == "linear" and kernel.ops == ("addmm", "gelu")
    assert (kernel.macs, kernel.weights, kernel.depth) == (5 * 8 * 16, 8 * 16 + 16, 8)


def test_constants_are_evaluated_once():
    net = Function(lambda m, x: x @ torch.relu(m.w * 2.0).t(), w=(3, 4))
    assert [k.ops for k in kernels_of(net, (2, 4))] == [("mm",)]


def test_padding_joins_the_convolution():
    net = Function(lambda m, x: F.conv2d(F.pad(x, (0, 1, 0, 1)), m.w, stride=2), w=(4, 3, 3, 3))
    (kernel,) = kernels_of(net, (1, 3, 4, 4))
    assert kernel.ops == ("convolution",) and kernel.reads == 3 * 4 * 4


def attention(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    q, k, v = x.reshape(1, 9, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (q * 0.5) @ k.transpose(-2, -1) + m.table
    return scores.softmax(-1) @ v


def test_attention_is_two_products_and_a_softmax():
    first, softmax, second = kernels_of(Function(attention, table=(2, 9, 9)), (1, 9, 24))
    assert (first.kind, first.macs, first.depth) == ("matmul", 2 * 9 * 9 * 4, 4)
    assert first.weights == 2 * 9 * 9  # the table of biases
    assert (softmax.kind, softmax.reads, softmax.writes) == ("softmax", 2 * 9 * 9, 2 * 9 * 9)
    assert (second.kind, second.macs, second.depth) == ("matmul", 2 * 9 * 9 * 4, 9)


def test_fused_attention_is_the_same_work():
    from vitscope.graph.record import OpRecord, Tensor

    shapes = [(1, 2, 9, 4), (1, 2, 9, 4), (1, 2, 9, 4)]
    tensors = tuple(Tensor(shape, "float32", "input", i) for i, shape in enumerate(shapes))
    tensors = (*tensors, Tensor((1, 2, 9, 4), "float32", "activation", 3))
    op = OpRecord("_scaled_dot_product_flash_attention_for_cpu", "attn", (0, 1, 2), (3,))
    first, softmax, second = lower(Graph(tensors, (op,), (), (0, 1, 2), (3,)), COREML)
    assert (first.macs, softmax.reads, second.macs) == (2 * 9 * 9 * 4, 2 * 9 * 9, 2 * 9 * 9 * 4)
    assert first.macs + second.macs == 2 * (2 * 9 * 9 * 4)


@pytest.mark.parametrize(
    ("conv", "kind", "depth"),
    [
        (nn.Conv2d(8, 8, 3, groups=8), "depthwise", 1),
        (nn.Conv2d(8, 8, 3, groups=2), "grouped", 4),
        (nn.Conv2d(8, 4, 1), "pointwise", 8),
        (nn.Conv2d(8, 4, (1, 3)), "conv", 8),
        (nn.ConvTranspose2d(8, 4, 2, 2), "conv", 8),
    ],
)
def test_kind_and_depth_of_convolutions(conv: nn.Module, kind: str, depth: int):
    (kernel,) = kernels_of(conv, (1, 8, 4, 4))
    assert (kernel.kind, kernel.depth) == (kind, depth)


def test_squeeze_excite_multiplication_is_a_kernel_that_reads_both():
    net = Function(lambda m, x: x * torch.sigmoid(F.conv2d(x.mean((2, 3), keepdim=True), m.w)), w=(4, 4, 1, 1))
    reduce, gate, multiply = kernels_of(net, (1, 4, 8, 8))
    assert (reduce.kind, gate.kind, multiply.kind) == ("reduce", "pointwise", "elementwise")
    assert multiply.reads == 4 * 8 * 8 + 4


def test_a_slice_reads_what_it_takes():
    net = Function(lambda m, x: torch.cat([torch.relu(x[:, :1]), x[:, 1:]], 1))
    relu, cat = kernels_of(net, (1, 4, 2, 2))
    assert (relu.reads, relu.writes) == (4, 4)
    assert (cat.kind, cat.reads, cat.writes) == ("copy", 4 + 12, 16)


def test_no_macs_are_lost():
    from vitscope.cost.ops import macs

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    graph = graph_of(net, (1, 3, 16, 16))
    assert sum(k.macs for k in lower(graph, COREML)) == sum(macs(graph, op) or 0 for op in graph.ops)
