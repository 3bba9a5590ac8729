"""Swin: timm's logits with timm's weights, the published counts, windows that do not divide the map."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from networks import images, zoo_graph, zoo_model
from proof import breaks_parity, counts, part, same_logits, trains
from torch import nn

from vitscope.blocks.windows import WindowAttention, from_windows, relative_offsets, shift_mask, to_windows
from vitscope.errors import SpecError
from vitscope.spec import load_spec
from vitscope.weights.names import naming_of
from vitscope.weights.naming import our_names

NAME = "swin_tiny_patch4_window7_224"

# At 256×192 the window divides no map; at 100×132 every merging fills up; at 28×224 one side is a window and no more; at 65×99
# pixels are left over.
SIZES = [(224, 224), (256, 192), (100, 132), (28, 224), (65, 99)]


@pytest.mark.parametrize("size", SIZES)
def test_same_logits_as_timm(timm: ModuleType, size: tuple[int, int]) -> None:
    same_logits(timm, NAME, size)


def test_counts() -> None:
    counts(NAME, 28_288_354, 4_490_566_656)  # facts 0.3


def test_parts() -> None:
    graph, dim, heads = zoo_graph(NAME), 384, 12
    assert part(graph, "stem.") == (96 * 3 * 4**2 + 96 + 2 * 96, 56**2 * 96 * 3 * 4**2)
    assert part(graph, "stages.2.downsample.") == (2 * 4 * 192 + dim * 4 * 192, 14**2 * dim * 4 * 192)
    block = (
        12 * dim * dim + 9 * dim + 4 * dim + 169 * heads,
        14**2 * 12 * dim * dim + 4 * heads * 2 * 49**2 * (dim // heads),
    )
    assert part(graph, "stages.2.blocks.4.") == part(graph, "stages.2.blocks.5.") == block


def test_filled_up_positions_are_counted_as_they_run() -> None:
    # 256 pixels: a grid of 64 becomes one of 70, and the linear layers of the attention see all of it.
    attention = part(zoo_graph(NAME, (256, 256)), "stages.0.blocks.0.attn.")[1]
    assert attention == 70**2 * 4 * 96 * 96 + 10**2 * 3 * 2 * 49**2 * 32


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains(NAME, (64, 96))


# --- Windows. ---


def test_windows_are_cut_by_rows_and_put_together_again() -> None:
    x = torch.arange(4 * 6).reshape(1, 4, 6, 1).float()
    windows = to_windows(x, (2, 3))
    assert windows[..., 0].tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]
    assert torch.equal(from_windows(windows, (4, 6), (2, 3)), x)


def test_offsets_are_signed_distances() -> None:
    offsets = relative_offsets((2, 3))
    for query in range(6):
        for key in range(6):
            dy, dx = query // 3 - key // 3, query % 3 - key % 3
            assert offsets[query, key] == (dy + 1) * 5 + dx + 2


def test_a_shift_keeps_apart_what_was_not_together() -> None:
    # 4×4 in windows of 2, shifted by 1: of the last window, rows and columns came from opposite borders.
    mask = shift_mask((4, 4), (2, 2), (1, 1))[:, 0]
    assert mask[0].eq(0).all()
    assert mask[3].eq(0).sum() == 4  # each position sees itself alone
    assert mask[1].eq(0).tolist() == [[i % 2 == j % 2 for j in range(4)] for i in range(4)]  # left column, right column
    assert set(mask.unique().tolist()) == {0.0, -100.0}


def test_a_window_of_the_whole_map_is_plain_attention() -> None:
    attention = WindowAttention(8, 2, grid=(3, 5), window=7, shift=3)
    assert (attention.window, attention.shift, attention.padded) == ((3, 5), (0, 0), (3, 5))
    x = torch.randn(2, 15, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = super(WindowAttention, attention).forward(x)  # the table is zero
        assert torch.allclose(attention(x), plain, atol=1e-6)


def no_mask(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, WindowAttention) and module.mask is not None:
            module.mask = torch.zeros_like(module.mask)


def no_bias(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, WindowAttention):
            nn.init.zeros_(module.relative_bias.table)


def other_norm_eps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3


@pytest.mark.parametrize("mistake", [no_mask, no_bias, other_norm_eps], ids=lambda m: m.__name__)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, NAME, mistake, (64, 96))


def test_the_authors_names_are_read() -> None:
    theirs = {
        "patch_embed.proj.weight": "stem.proj.weight",
        "patch_embed.norm.bias": "stem.norm.bias",
        "layers.0.blocks.1.attn.qkv.weight": "stages.0.blocks.1.attn.qkv.weight",
        "layers.0.blocks.1.attn.relative_position_bias_table": "stages.0.blocks.1.attn.relative_bias.table",
        "layers.0.downsample.reduction.weight": "stages.1.downsample.reduction.weight",
        "layers.1.downsample.norm.weight": "stages.2.downsample.norm.weight",
        "layers.2.downsample.norm.bias": "stages.3.downsample.norm.bias",
        "norm.weight": "head.norm.weight",
        "head.weight": "head.head.weight",
    }
    computed = ["layers.0.blocks.1.attn.relative_position_index", "layers.0.blocks.1.attn_mask"]
    naming = naming_of([*theirs, *computed])
    assert naming is not None
    assert naming.name == "authors' Swin"
    assert our_names(naming, [*theirs, *computed]) == theirs


@pytest.mark.parametrize(
    ("settings", "size", "text"),
    [
        ((), (3, 224), "patch_embed takes patches of 4×4, but a 3×224 map arrives"),
        (("stages.0.shift=7",), None, "shift 7 is not smaller than the window of 7"),
        (("stages.1.num_heads=7",), None, "7 heads do not divide 192 channels"),
        (("stem={block: patch_stem, width: 96}",), None, "swin needs tokens, but the block before it puts out a"),
        (("stem.class_tokens=1",), None, "swin cannot take the class token"),
    ],
)
def test_what_cannot_be(settings: tuple[str, ...], size: tuple[int, int] | None, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        load_spec(NAME, settings, resolution=size)


def test_other_windows() -> None:
    model = zoo_model(NAME, (64, 64), ("stages.0.window=4", "stages.0.shift=[0, 2]"))
    with torch.no_grad():
        assert model(images(64, 64)).shape == (2, 1000)
