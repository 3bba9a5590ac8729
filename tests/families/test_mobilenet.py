"""MobileNetV1 and MobileNetV3-Large: timm's logits with timm's weights, the published counts, block by block."""

from __future__ import annotations

from types import ModuleType

import pytest
from networks import zoo_graph
from proof import breaks_parity, counts, named_sizes, part, same_logits, trains
from torch import nn

from vitscope.blocks.layers import SqueezeExcite
from vitscope.errors import SpecError
from vitscope.spec import load_spec
from vitscope.spec.kinds.convolution import round_channels

# name, which is also timm's; params and MACs at 224 (facts 0.3); sizes (height, width) at which logits are compared
TABLE = [
    ("mobilenetv1_100", 4_231_976, 568_740_352, [(224, 224), (64, 96), (75, 101)]),
    ("mobilenetv3_large_100", 5_483_032, 216_589_760, [(224, 224), (64, 96), (75, 101)]),
]
NAMES = [row[0] for row in TABLE]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    trains(name, (64, 64))


def test_a_separable_unit() -> None:
    found = part(zoo_graph("mobilenetv1_100"), "stages.3.blocks.5.")
    assert found == (9 * 512 + 512 * 512 + 2 * 2 * 512, 14**2 * (9 * 512 + 512 * 512))


# Table 1 of arXiv 1905.02244: kernel, input, expansion size, output, squeezed channels (facts E), side of the output
V3_ROWS = {
    "stages.0.blocks.0": (3, 16, 16, 16, 0, 112),
    "stages.1.blocks.1": (3, 24, 72, 24, 0, 56),
    "stages.2.blocks.1": (5, 40, 120, 40, 32, 28),
    "stages.3.blocks.2": (3, 80, 184, 80, 0, 14),
    "stages.4.blocks.1": (3, 112, 672, 112, 168, 14),
    "stages.5.blocks.2": (5, 160, 960, 160, 240, 7),
}


@pytest.mark.parametrize("block", V3_ROWS)
def test_a_row_of_the_table_of_v3(block: str) -> None:
    k, into, hidden, out, squeezed, side = V3_ROWS[block]
    expand = into * hidden if hidden != into else 0
    weights = expand + k * k * hidden + hidden * out
    norms = 2 * ((hidden if expand else 0) + hidden + out)
    se = 2 * hidden * squeezed
    expected = (weights + norms + se + (squeezed + hidden if squeezed else 0), side**2 * weights + se)
    assert part(zoo_graph("mobilenetv3_large_100"), f"{block}.") == expected


def test_the_layer_after_pooling_sees_one_position() -> None:
    graph = zoo_graph("mobilenetv3_large_100")
    assert part(graph, "head.hidden.") == (960 * 1280 + 1280, 960 * 1280)
    assert part(graph, "head.conv.") == (160 * 960 + 2 * 960, 49 * 160 * 960)


@pytest.mark.parametrize(
    ("channels", "multiple", "rounded"),
    [(18, 8, 24), (30, 8, 32), (120, 8, 120), (3, 8, 8), (12, 8, 16), (10, 1, 10), (0.25, 1, 1)],
)
def test_rounding_of_channels(channels: float, multiple: int, rounded: int) -> None:
    assert round_channels(channels, multiple) == rounded


def relu_everywhere(model: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Hardswish):
                setattr(module, name, nn.ReLU())


def smooth_gate(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, SqueezeExcite):
            module.gate = nn.Sigmoid()


def no_residual(model: nn.Module) -> None:
    model.stages[0].blocks[0].has_residual = False  # type: ignore[index,union-attr]


@pytest.mark.parametrize("mistake", [relu_everywhere, smooth_gate, no_residual], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, "mobilenetv3_large_100", mistake, sized=False)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("stages.5.blocks.0.se_ratio=0", "se_ratio"),
        ("stages.5.se_of=output", "one of: input, hidden"),
        ("stages.5.blocks.0.hidden=0", "hidden"),
        ("stages.5.blocks.0.kernel=4", "kernel of inverted_residual: must be odd, got 4"),
        ("head.hidden_norm=ln", "one of: bn, none"),
    ],
)
def test_what_cannot_be(setting: str, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec("mobilenetv3_large_100", (setting,))
