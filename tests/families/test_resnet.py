"""ResNet-50: timm's logits with timm's weights, the published counts, the stride on the 3×3 convolution."""

from __future__ import annotations

from types import ModuleType

import pytest
from networks import zoo_graph, zoo_model
from proof import breaks_parity, counts, part, same_logits, trains
from torch import nn

from vitscope.errors import SpecError
from vitscope.spec import load_spec

NAME = "resnet50"


@pytest.mark.parametrize("size", [(224, 224), (64, 96), (75, 101)])
def test_same_logits_as_timm(timm: ModuleType, size: tuple[int, int]) -> None:
    same_logits(timm, NAME, size, sized=False)


def test_counts() -> None:
    counts(NAME, 25_557_032, 4_089_184_256)  # facts 0.3


def test_parts() -> None:
    graph = zoo_graph(NAME)
    assert part(graph, "stem.") == (64 * 3 * 49 + 2 * 64, 112**2 * 64 * 3 * 49)
    weights = 2 * 256 * 1024 + 9 * 256 * 256
    assert part(graph, "stages.2.blocks.3.") == (weights + 2 * (256 + 256 + 1024), 14**2 * weights)
    # The first block of a stage reduces at the side that arrives, as its stride stands on the 3×3 convolution.
    before, after = 512 * 256, 9 * 256 * 256 + 256 * 1024 + 512 * 1024
    norms = 2 * (256 + 256 + 1024 + 1024)
    assert part(graph, "stages.2.blocks.0.") == (before + after + norms, 28**2 * before + 14**2 * after)


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains(NAME, (64, 64))


def test_the_first_stage_widens_without_a_stride() -> None:
    first, second = zoo_model(NAME, (64, 64)).stages[0].blocks[:2]  # type: ignore[index,union-attr]
    assert first.shortcut.conv.stride == (1, 1)
    assert isinstance(second.shortcut, nn.Identity)


def stride_in_front(model: nn.Module) -> None:
    for stage in list(model.stages)[1:]:  # type: ignore[arg-type]
        first = stage.blocks[0]
        first.reduce.conv.stride, first.conv.conv.stride = (2, 2), (1, 1)


def average_pooling(model: nn.Module) -> None:
    model.stem.pool = nn.AvgPool2d(3, 2, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("mistake", [stride_in_front, average_pooling], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, NAME, mistake, sized=False)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("stages.0.reduction=3", "reduction 3 does not divide width 256"),
        ("stages.1.kernel=4", "kernel of bottleneck: must be odd, got 4"),
    ],
)
def test_what_cannot_be(setting: str, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec(NAME, (setting,))
