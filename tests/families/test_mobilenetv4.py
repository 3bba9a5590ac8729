"""MobileNetV4: timm's logits with timm's weights, timm's counts, and the four forms of its block."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import zoo_graph, zoo_model
from proof import breaks_parity, counts, named_sizes, part, same_logits, trains, trains_on_meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.errors import SpecError
from vitscope.spec import load_spec

# name, which is also timm's; params, MACs at its own input; sizes (height, width) at which logits are compared
TABLE = [
    ("mobilenetv4_conv_small", 3_774_024, 186_005_568, [(224, 224), (64, 96), (75, 101)]),
    ("mobilenetv4_conv_medium", 9_715_512, 1_080_244_224, [(64, 96)]),
]
NAMES = [row[0] for row in TABLE]
SMALL, MEDIUM = NAMES


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(timm: ModuleType, name: str, params: int, core: int) -> None:
    counts(name, params, core)
    with torch.device("meta"):
        theirs, x = timm.create_model(name).eval(), torch.empty(1, *load_spec(name).input)
        with FlopCounterMode(display=False) as counter:
            theirs(x)
    assert (sum(p.numel() for p in theirs.parameters()), counter.get_total_flops()) == (params, 2 * core)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    (trains if name == SMALL else trains_on_meta)(name, (64, 64))


# The block's four forms, at 1/16 of 256: kernel in front, kernel in the middle, channels, hidden
FORMS = {
    "stages.2.blocks.3": (3, 5, 160, 640),  # ExtraDW
    "stages.2.blocks.5": (3, 0, 160, 640),  # like ConvNeXt
    "stages.2.blocks.6": (0, 0, 160, 320),  # FFN
}


@pytest.mark.parametrize("block", FORMS)
def test_a_form_of_the_block(block: str) -> None:
    start, middle, channels, hidden = FORMS[block]
    weights = start**2 * channels + middle**2 * hidden + 2 * channels * hidden
    norms = 2 * ((channels if start else 0) + hidden + (hidden if middle else 0) + channels)
    assert part(zoo_graph(MEDIUM), f"{block}.") == (weights + norms, 16**2 * weights)


def test_an_inverted_bottleneck_has_its_depthwise_in_the_middle_alone() -> None:
    weights = 2 * 96 * 192 + 9 * 192
    expected = (weights + 2 * (192 + 192 + 96), 14**2 * weights)
    assert part(zoo_graph(SMALL), "stages.2.blocks.1.") == expected


def test_the_stride_stands_in_the_middle_or_else_in_front() -> None:
    middle = zoo_model(SMALL, (64, 64)).stages[3].blocks[0]  # type: ignore[index,union-attr]
    assert (middle.start.conv.stride, middle.depthwise.conv.stride) == ((1, 1), (2, 2))
    front = zoo_model(SMALL, (64, 64), ("stages.3.blocks.0.kernel=null",)).stages[3].blocks[0]  # type: ignore[index,union-attr]
    assert front.start.conv.stride == (2, 2)
    with torch.no_grad():
        assert front(torch.randn(2, 96, 5, 7)).shape == (2, 128, 3, 4)


def act_in_front(model: nn.Module) -> None:
    model.stages[2].blocks[0].start.act = nn.ReLU()  # type: ignore[index,union-attr]


def linear_projection(model: nn.Module) -> None:
    model.stages[1].blocks[0].project.act = nn.Identity()  # type: ignore[index,union-attr]


def no_act_after_pooling(model: nn.Module) -> None:
    model.head.hidden.act = nn.Identity()  # type: ignore[union-attr]


@pytest.mark.parametrize("mistake", [act_in_front, linear_projection, no_act_after_pooling], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, SMALL, mistake, sized=False)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (("stages.3.blocks.0.start_kernel=4",), "start_kernel of uib: must be odd, got 4"),
        (
            ("stages.3.blocks.0.start_kernel=null", "stages.3.blocks.0.kernel=null"),
            "stride 2 needs a depthwise convolution",
        ),
    ],
)
def test_what_cannot_be(settings: tuple[str, ...], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec(SMALL, settings)
