"""fold_batch_norm: what goes, what stays, and that torch's own folding leaves as many parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from vitscope.cost.summary import cost_of
from vitscope.graph.fold import fold_batch_norm
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace


def graph_of(module: nn.Module, *shape: int) -> Graph:
    return trace(module.to("meta"), torch.empty(shape, device="meta"))


def names(graph: Graph) -> list[str]:
    return [op.op for op in graph.ops if not op.is_view]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_is_what_torch_makes_of_it(bias, groups):
    conv, norm = nn.Conv2d(4, 8, 3, groups=groups, bias=bias), nn.BatchNorm2d(8)
    graph = fold_batch_norm(graph_of(nn.Sequential(conv, norm, nn.ReLU()), 2, 4, 9, 9))
    fused = graph_of(nn.Sequential(fuse_conv_bn_eval(conv.eval(), norm.eval()), nn.ReLU()), 2, 4, 9, 9)
    assert names(graph) == names(fused) == ["convolution", "relu"]
    assert cost_of(graph) == cost_of(fused)
    assert {p.name for p in graph.params} == {p.name for p in fused.params}


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_too(bias):
    linear, norm = nn.Linear(4, 8, bias=bias), nn.BatchNorm1d(8)
    graph = fold_batch_norm(graph_of(nn.Sequential(linear, norm), 5, 4))
    fused = graph_of(nn.Sequential(fuse_linear_bn_eval(linear.eval(), norm.eval())), 5, 4)
    assert names(graph) == names(fused) == ["addmm"]
    assert cost_of(graph) == cost_of(fused)


class Both(nn.Module):
    """The convolution's output is read beside the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


class Out(Both):
    """The convolution's output is an output of the network."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.conv(x)
        return x, self.norm(x)


class Twice(Both):
    """One convolution runs before two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.conv(self.norm(self.conv(x))))


@pytest.mark.parametrize(
    "module",
    [
        Both(), Out(), Twice(), nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4, affine=True)),
    ],
    ids=["read twice", "an output", "runs twice", "norm first", "after an activation", "instance norm"],
)  # fmt: skip
def test_what_cannot_be_folded_stays(module):
    graph = graph_of(module, 1, 4, 9, 9)
    assert fold_batch_norm(graph) == graph


def test_a_norm_without_gain_folds_as_well():
    graph = fold_batch_norm(graph_of(nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8, affine=False)), 1, 4, 9, 9))
    assert names(graph) == ["convolution"] and cost_of(graph).params == 4 * 8 + 8


def test_a_chain_folds_whole():
    layers = [nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]
    graph = fold_batch_norm(graph_of(nn.Sequential(*layers), 1, 4, 9, 9))
    assert names(graph) == ["convolution", "convolution"]
    assert cost_of(graph).params == 2 * (4 * 4 + 4)
