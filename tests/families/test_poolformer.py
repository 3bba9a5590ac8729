"""PoolFormer: timm's logits with timm's weights, the published counts, layer scales that fold into norms."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import images, randomise, relative_error, zoo_graph, zoo_model
from proof import TOLERANCE, breaks_parity, counts, named_sizes, part, same_logits, trains, trains_on_meta
from torch import nn

from vitscope.blocks.layers import LayerScale
from vitscope.errors import SpecError
from vitscope.model import fuse
from vitscope.spec import load_spec

# name, which is also timm's; params and MACs at 224 (facts 0.3); sizes (height, width) at which logits are compared
TABLE = [
    ("poolformer_s12", 11_915_176, 1_812_267_008, [(224, 224), (96, 64), (77, 100)]),
    ("poolformer_s24", 21_388_968, 3_392_208_896, [(64, 96)]),
    ("poolformer_s36", 30_862_760, 4_972_150_784, [(64, 64)]),
]
NAMES = [row[0] for row in TABLE]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


def test_parts() -> None:
    graph, dim = zoo_graph("poolformer_s12"), 320
    assert part(graph, "stem.") == (64 * 3 * 7**2 + 64, 56**2 * 64 * 3 * 7**2)
    assert part(graph, "stages.2.downsample.") == (dim * 128 * 9 + dim, 14**2 * dim * 128 * 9)
    assert part(graph, "stages.2.blocks.5.") == (8 * dim * dim + 5 * dim + 6 * dim, 14**2 * 8 * dim * dim)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training(name: str) -> None:
    if name != NAMES[0]:
        trains_on_meta(name, (64, 64))
        return
    # Pooling minus identity takes away the shift of the norm before it: its gradient is no more than rounding.
    trains(name, (64, 64))


def test_fuse_leaves_no_layer_scale_and_keeps_the_outputs() -> None:
    model = zoo_model("poolformer_s12", (64, 64))
    randomise(model)
    fused = fuse(model)
    assert not any(isinstance(m, LayerScale) for m in fused.modules())
    with torch.no_grad():
        assert relative_error(fused(images(64, 64)), model(images(64, 64))) < TOLERANCE


def padded_pooling(model: nn.Module) -> None:
    for block in model.modules():
        if hasattr(block, "token_mixer"):
            block.token_mixer = Padded()  # type: ignore[assignment]


class Padded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 3, 1, 1) - x


def authors_head(model: nn.Module) -> None:
    model.head.pool_first = False  # type: ignore[union-attr]


@pytest.mark.parametrize("mistake", [padded_pooling, authors_head], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, "poolformer_s12", mistake, sized=False)


@pytest.mark.parametrize(
    ("settings", "size", "text"),
    [
        ((), (2, 64), "has a kernel of 7×7 and padding 2, but a 2×64 map arrives"),
        (("stem.padding=7",), None, "padding 7 would make positions of nothing but zeros: kernel is 7"),
        (("stages.0.kernel=4",), None, "kernel of poolformer: must be odd, got 4"),
    ],
)
def test_what_cannot_be(settings: tuple[str, ...], size: tuple[int, int] | None, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec("poolformer_s12", settings, resolution=size)
