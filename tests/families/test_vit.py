"""ViT and DeiT, plain and distilled: timm's logits with timm's weights, the published counts, tokens in front."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import images, randomise, zoo_graph, zoo_model
from proof import breaks_parity, counts, named_sizes, part, same_logits, trains, trains_on_meta
from torch import nn

from vitscope.errors import SpecError
from vitscope.model import fuse
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.weights import WeightsError, load_state

# name, which is also timm's; params and MACs at 224 (facts 0.3); sizes (height, width) at which logits are compared
TABLE = [
    ("vit_tiny_patch16_224", 5_717_416, 1_253_683_200, [(224, 224), (192, 192), (160, 256)]),
    ("vit_small_patch16_224", 22_050_664, 4_598_882_304, [(64, 96)]),
    ("deit_tiny_patch16_224", 5_717_416, 1_253_683_200, [(64, 96)]),
    ("deit_small_patch16_224", 22_050_664, 4_598_882_304, [(64, 64)]),
    ("deit_tiny_distilled_patch16_224", 5_910_800, 1_261_003_776, [(224, 224), (64, 96), (75, 70)]),
    ("deit_small_distilled_patch16_224", 22_436_432, 4_624_140_288, [(64, 64)]),
]
NAMES = [row[0] for row in TABLE]
SMALLEST = ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size)


@pytest.mark.parametrize(("name", "params", "core"), [row[:3] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int) -> None:
    counts(name, params, core)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    (trains if name in SMALLEST else trains_on_meta)(name, (64, 64))


def test_parts_of_the_tiny_one() -> None:
    graph, dim, tokens = zoo_graph("vit_tiny_patch16_224"), 192, 197
    assert part(graph, "stem.") == (dim * 3 * 16**2 + dim + dim + tokens * dim, 196 * dim * 3 * 16**2)
    block = (
        4 * dim + 4 * dim * dim + 4 * dim + 8 * dim * dim + 5 * dim,
        tokens * 12 * dim * dim + 2 * 3 * tokens**2 * 64,
    )
    assert part(graph, "stages.0.blocks.7.") == block
    assert part(graph, "head.") == (2 * dim + 1000 * dim + 1000, 1000 * dim)


def test_class_tokens_flow_in_front_of_the_grid() -> None:
    for name, prefix in zip(SMALLEST, (1, 2), strict=True):
        placed = flow(load_spec(name, resolution=(64, 96)))
        assert placed[0].out_shape.tensor() == (1, prefix + 4 * 6, 192)
        assert {place.out_shape.prefix for place in placed[:-1]} == {prefix}
        model = zoo_model(name, (64, 96))
        with torch.no_grad():
            assert model.stem(images(64, 96)).shape == (2, prefix + 4 * 6, 192)


def test_a_distilled_head_reads_a_token_of_its_own_for_each_linear_layer() -> None:
    model = zoo_model("deit_tiny_distilled_patch16_224", (64, 64))
    randomise(model)
    x = torch.randn(2, 18, 192, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        average = model.head(x)
        label, teacher = model.head.train()(x)
        y = model.head.norm(x)
        assert torch.equal(label, model.head.head(y[:, 0]))
        assert torch.equal(teacher, model.head.head_dist(y[:, 1]))
        assert torch.equal(average, (label + teacher) / 2)


def swapped_tokens(model: nn.Module) -> None:
    model.stem.cls_token, model.stem.dist_token = model.stem.dist_token, model.stem.cls_token  # type: ignore[union-attr]


def tanh_gelu(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def other_norm_eps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3


@pytest.mark.parametrize("mistake", [swapped_tokens, tanh_gelu, other_norm_eps], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, "deit_tiny_distilled_patch16_224", mistake)


def test_weights_of_another_resolution_say_so(timm: ModuleType) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64)
    text = r"stem\.pos_embed has its size from that of the image: another resolution, this network is for 96×64"
    with pytest.raises(WeightsError, match=text) as caught:
        load_state(zoo_model("vit_tiny_patch16_224", (96, 64)), theirs.state_dict())
    assert "widths" not in str(caught.value)


def test_fuse_leaves_what_has_nothing_to_fold() -> None:
    model = zoo_model("deit_tiny_distilled_patch16_224", (64, 64))
    assert fuse(model).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "settings", "size", "text"),
    [
        ("vit_tiny_patch16_224", (), (8, 224), "patch_embed takes patches of 16×16, but a 8×224 map arrives"),
        ("vit_tiny_patch16_224", ("stages.0.num_heads=5",), None, "5 heads do not divide 192 channels"),
        ("vit_tiny_patch16_224", ("head.pool=mean",), None, "would average the class token with the grid's"),
        ("vit_tiny_patch16_224", ("stem.class_tokens=0",), None, "needs one class token, but 0 prefix tokens arrive"),
        ("vit_tiny_patch16_224", ("head.block=distilled_classifier",), None, "needs a class and a distillation token"),
        ("vit_tiny_patch16_224", ("stages.0.block=mb3d",), None, "mb3d cannot take the class token"),
    ],
)
def test_what_cannot_be(name: str, settings: tuple[str, ...], size: tuple[int, int] | None, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec(name, settings, resolution=size)


def test_without_class_tokens_the_grid_is_averaged() -> None:
    with torch.no_grad():
        model = zoo_model("vit_tiny_patch16_224", (64, 64), ("stem.class_tokens=0", "head.pool=mean"))
        assert model.stem(images(64, 64)).shape == (2, 16, 192)
        assert model(images(64, 64)).shape == (2, 1000)
