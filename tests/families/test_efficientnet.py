"""EfficientNet: timm's logits with timm's weights, the published counts, squeeze-excite of the input's width."""

from __future__ import annotations

from types import ModuleType

import pytest
from networks import zoo_graph
from proof import breaks_parity, counts, named_sizes, part, same_logits, trains, trains_on_meta
from torch import nn

from vitscope.blocks.layers import SqueezeExcite
from vitscope.cost.ops import macs
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.kinds.convolution import MbConv

# name, which is also timm's; params, MACs at its own input (facts 0.3); sizes at which logits are compared
TABLE = [
    ("efficientnet_b0", 5_288_548, 385_814_752, [(224, 224), (64, 96), (75, 101)]),
    ("efficientnet_b3", 12_233_232, 1_827_141_392, [(64, 64)]),
]
NAMES = [row[0] for row in TABLE]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


def test_macs_of_b3_at_224() -> None:
    graph = zoo_graph("efficientnet_b3", (224, 224))
    assert sum(macs(graph, op) or 0 for op in graph.ops) == 962_708_240  # facts 0.3


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    (trains if name == "efficientnet_b0" else trains_on_meta)(name, (64, 64))


def test_squeezed_channels_of_b0() -> None:
    squeezed = [
        place.block.squeezed_of(place.in_shape.channels)
        for place in flow(load_spec("efficientnet_b0"))
        if isinstance(place.block, MbConv)
    ]
    assert squeezed == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]  # a quarter of each block's input


def test_a_unit() -> None:
    weights, se = 2 * 112 * 672 + 25 * 672, 2 * 672 * 28
    found = part(zoo_graph("efficientnet_b0"), "stages.4.blocks.2.")
    assert found == (weights + 2 * (672 + 672 + 112) + se + 28 + 672, 14**2 * weights + se)


def other_norm_eps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # that of the tf_ variants


def relu_in_squeeze(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, SqueezeExcite):
            module.act = nn.ReLU()


@pytest.mark.parametrize("mistake", [other_norm_eps, relu_in_squeeze], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, "efficientnet_b0", mistake, sized=False)
