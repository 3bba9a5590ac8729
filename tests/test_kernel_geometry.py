"""Sizes of kernels: what a micro-benchmark rebuilds from a kernel has the same counts as the kernel."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitscope.graph.trace import trace
from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import load_runtime
from vitscope.profile import deploy_graphs
from vitscope.spec.load import load_spec

COREML = load_runtime("coreml")


class Function(nn.Module):
    """A module around a function of its inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def kernels_of(module, *shapes: tuple[int, ...]) -> tuple[Kernel, ...]:
    module = module if isinstance(module, nn.Module) else Function(module)
    with torch.device("meta"):
        inputs = [torch.empty(shape) for shape in shapes]
    return lower(trace(module.to("meta"), *inputs), COREML)


def geometry(module, *shapes: tuple[int, ...]) -> Geometry | None:
    (kernel,) = kernels_of(module, *shapes)
    return kernel.geometry


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 12, 3, 2, 1),
        nn.Conv2d(8, 8, (1, 7), (1, 2), (0, 3), groups=8),
        nn.Conv2d(8, 4, 3, 1, 2, dilation=2, groups=2),
        nn.Conv2d(8, 16, 1),
    ],
)
def test_a_convolution_is_rebuilt_from_its_kernel(conv: nn.Conv2d):
    (kernel,) = kernels_of(conv, (2, 8, 9, 11))
    g = kernel.geometry
    assert g is not None
    with torch.device("meta"):
        # Zeros may stand on one side only: what counts is how many there are.
        x = F.pad(torch.empty(g.batch, g.in_channels, *g.in_size), (g.padding[1], 0, g.padding[0], 0))
        again = nn.Conv2d(g.in_channels, g.out_channels, g.window, g.stride, dilation=g.dilation, groups=g.groups)
        y = again(x)
    assert tuple(y.shape) == (g.batch, g.out_channels, *g.out_size)
    assert y.numel() == kernel.writes
    assert sum(p.numel() for p in again.parameters()) == kernel.weights
    assert g.batch * g.out_channels * prod(g.out_size) * prod(g.window) * g.in_channels // g.groups == kernel.macs


def test_a_transposed_convolution_grows():
    g = geometry(nn.ConvTranspose2d(8, 4, 2, 2), (1, 8, 5, 6))
    assert g == Geometry(1, 8, 4, (2, 2), (2, 2), in_size=(5, 6), out_size=(10, 12))


def test_products():
    assert geometry(nn.Linear(8, 16), (2, 5, 8)) == Geometry(1, 8, 16, in_size=(10, 1), out_size=(10, 1))
    product = geometry(lambda q, k: q @ k.transpose(-2, -1), (2, 3, 9, 4), (2, 3, 7, 4))
    assert product == Geometry(6, 4, 7, in_size=(9, 1), out_size=(9, 1))


def test_fused_attention_has_the_sizes_of_its_products():
    first, softmax, second = kernels_of(F.scaled_dot_product_attention, (2, 3, 9, 4), (2, 3, 7, 4), (2, 3, 7, 5))
    assert first.geometry == Geometry(6, 4, 7, in_size=(9, 1), out_size=(9, 1))
    assert softmax.geometry == Geometry(1, 7, 7, in_size=(54, 1), out_size=(54, 1))
    assert second.geometry == Geometry(6, 7, 5, in_size=(9, 1), out_size=(9, 1))


def test_what_one_value_is_normed_over():
    assert geometry(nn.LayerNorm(8), (2, 5, 8)) == Geometry(1, 8, 8, in_size=(10, 1), out_size=(10, 1))
    assert geometry(nn.GroupNorm(1, 8), (2, 8, 3, 3)) == Geometry(1, 72, 72, in_size=(2, 1), out_size=(2, 1))
    assert geometry(lambda x: x.softmax(1), (2, 8, 3, 3)) == Geometry(1, 8, 8, in_size=(18, 1), out_size=(18, 1))


def test_pools_and_reductions_have_windows():
    pool = geometry(nn.AvgPool2d(3, 1, 1), (1, 8, 6, 6))
    assert pool == Geometry(1, 8, 8, (3, 3), (1, 1), in_size=(6, 6), out_size=(6, 6))
    assert pool is not None and pool.padding == (2, 2)
    assert geometry(nn.MaxPool2d(2), (1, 8, 6, 6)) == Geometry(1, 8, 8, (2, 2), (2, 2), in_size=(6, 6), out_size=(3, 3))
    mean = geometry(lambda x: x.mean((2, 3)), (1, 8, 6, 4))
    assert mean == Geometry(1, 8, 8, (6, 4), (6, 4), in_size=(6, 4), out_size=(1, 1))
    assert geometry(lambda x: x.mean(1), (2, 6, 8)) == Geometry(2, 8, 8, in_size=(6, 1))


def test_resize_and_copies_have_sizes_before_and_after():
    up = geometry(lambda x: F.interpolate(x, scale_factor=2), (1, 8, 3, 4))
    assert up == Geometry(1, 8, 8, in_size=(3, 4), out_size=(6, 8))
    cat = geometry(lambda x, y: torch.cat([x, y], 1), (1, 8, 3, 4), (1, 2, 3, 4))
    assert cat == Geometry(1, 8, 10, in_size=(3, 4), out_size=(3, 4))


def test_the_work_and_what_runs_with_it_have_names():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GELU(approximate="tanh"))
    (kernel,) = kernels_of(net, (1, 3, 4, 4))
    assert (kernel.main, kernel.epilogue) == ("convolution", ("gelu_tanh",))
    assert kernel.ops == ("convolution", "native_batch_norm", "gelu_tanh")  # the norm is in the weights


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "mobilevit_xxs", "mobilenetv2_100", "mobileone_s0"])
def test_macs_follow_from_the_sizes(name: str):
    """Over whole networks: what the geometry says a kernel computes is what the operation computes."""
    checked = 0
    for graph in deploy_graphs(load_spec(name)):
        for kernel in lower(graph, COREML):
            g = kernel.geometry
            assert g is not None
            if kernel.macs:
                window = prod(g.window) * g.in_channels // g.groups
                assert g.batch * prod(g.out_size) * g.out_channels * window == kernel.macs, kernel
                checked += 1
    assert checked > 20
