"""ConvNeXt: timm's logits with timm's weights, the published counts, maps that its strides do not divide."""

from __future__ import annotations

from types import ModuleType

import pytest
from networks import zoo_graph, zoo_model
from proof import breaks_parity, counts, part, same_logits, trains
from torch import nn

from vitscope.blocks.layers import LayerScale
from vitscope.errors import SpecError
from vitscope.model import fuse
from vitscope.spec import load_spec
from vitscope.weights.names import naming_of
from vitscope.weights.naming import our_names

NAME = "convnext_tiny"


@pytest.mark.parametrize("size", [(224, 224), (64, 96), (77, 100)])  # at the last, every stride leaves a rest over
def test_same_logits_as_timm(timm: ModuleType, size: tuple[int, int]) -> None:
    same_logits(timm, NAME, size, sized=False)


def test_counts() -> None:
    counts(NAME, 28_589_128, 4_455_531_264)  # facts 0.3


def test_parts() -> None:
    graph, dim = zoo_graph(NAME), 384
    assert part(graph, "stem.") == (96 * 3 * 4**2 + 96 + 2 * 96, 56**2 * 96 * 3 * 4**2)
    assert part(graph, "stages.2.downsample.") == (2 * 192 + dim * 192 * 4 + dim, 14**2 * dim * 192 * 4)
    block = (49 * dim + dim + 2 * dim + 8 * dim * dim + 5 * dim + dim, 14**2 * (49 * dim + 8 * dim * dim))
    assert part(graph, "stages.2.blocks.8.") == block


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains(NAME, (64, 64))


def test_fuse_leaves_no_layer_scale() -> None:
    model = zoo_model(NAME, (64, 64))
    fused = fuse(model)
    assert not any(isinstance(m, LayerScale) for m in fused.modules())
    saved = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in fused.parameters())
    assert saved == 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768


def tanh_gelu(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def norm_before_pooling(model: nn.Module) -> None:
    model.head.pool_first = False  # type: ignore[union-attr]


@pytest.mark.parametrize("mistake", [tanh_gelu, norm_before_pooling], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, NAME, mistake, sized=False)


def test_the_authors_names_are_read() -> None:
    theirs = {
        "downsample_layers.0.0.weight": "stem.conv.weight",
        "downsample_layers.0.1.bias": "stem.norm.bias",
        "downsample_layers.2.0.weight": "stages.2.downsample.norm.weight",
        "downsample_layers.2.1.weight": "stages.2.downsample.conv.weight",
        "stages.0.0.dwconv.weight": "stages.0.blocks.0.depthwise.weight",
        "stages.0.0.norm.weight": "stages.0.blocks.0.norm.weight",
        "stages.0.0.pwconv1.bias": "stages.0.blocks.0.mlp.fc1.bias",
        "stages.0.0.pwconv2.bias": "stages.0.blocks.0.mlp.fc2.bias",
        "stages.0.0.gamma": "stages.0.blocks.0.ls.gamma",
        "norm.weight": "head.norm.weight",
        "head.weight": "head.head.weight",
    }
    naming = naming_of(theirs)
    assert naming is not None
    assert naming.name == "authors' ConvNeXt"
    assert our_names(naming, theirs) == theirs


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((3, 9), "patch_stem takes patches of 4×4, but a 3×9 map arrives"),
        ((16, 32), "norm_conv takes patches of 2×2, but a 1×2 map arrives"),
    ],
)
def test_what_cannot_be(size: tuple[int, int], text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec(NAME, resolution=size)
