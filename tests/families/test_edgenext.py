"""EdgeNeXt: timm's logits with timm's weights, the published counts, maps of odd sides, and each part by its formula."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
import torch
from networks import images, zoo_graph, zoo_model
from proof import breaks_parity, counts, named_sizes, pair, part, refused, same_logits, trains, trains_on_meta
from torch import nn

from vitscope.blocks.edgenext import CrossCovariance, FourierPositions, SplitConvs, waves
from vitscope.blocks.layers import LayerScale
from vitscope.cost.conventions import params_and_macs
from vitscope.model import fuse
from vitscope.spec import load_spec
from vitscope.spec.kinds.edgenext import split_channels
from vitscope.weights import load_state

# name, which is also timm's; params, MACs at 256 and at 224 (facts 0.3); MACs in millions as the authors print them;
# input sizes at which logits are compared: of 160×288 the maps are no squares, of 136×104 some sides are odd
TABLE = [
    ("edgenext_xx_small", 1_327_216, 257_905_088, 197_497_958, 261, [(256, 256), (160, 288), (136, 104)]),
    ("edgenext_x_small", 2_336_804, 533_192_192, 408_270_272, 538, [(96, 128)]),
    ("edgenext_small", 5_586_832, 1_253_234_816, 959_579_156, 1_260, [(64, 96)]),
]
NAMES = [row[0] for row in TABLE]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size, sized=False)


def test_the_authors_names_are_read(timm: ModuleType) -> None:
    # As timm's, but for these (timm's own reader of the authors' files tells so).
    renamed = [
        (r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d)\.blocks\.", r"stages.\1."), (r"\.conv_dw\.", ".dwconv."), (r"\.mlp\.fc", ".pwconv"),
        (r"^head\.norm\.", "norm."), (r"^head\.fc\.", "head."),
    ]  # fmt: skip
    theirs, ours = pair(timm, "edgenext_xx_small", (64, 64), sized=False)
    state = theirs.state_dict()
    for pattern, to in renamed:
        state = {re.sub(pattern, to, key): tensor for key, tensor in state.items()}
    again = zoo_model("edgenext_xx_small", (64, 64))
    assert load_state(again, state).naming == "authors' EdgeNeXt"
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize(("name", "params", "core", "at_224"), [row[:4] for row in TABLE], ids=NAMES)
def test_counts(name: str, params: int, core: int, at_224: int) -> None:
    assert load_spec(name).input == (3, 256, 256)
    counts(name, params, core)
    assert part(zoo_graph(name, (224, 224)))[1] == at_224


@pytest.mark.parametrize(("name", "printed"), [(row[0], row[4]) for row in TABLE], ids=NAMES)
def test_the_authors_macs_are_fvcores_without_the_norms_of_maps(name: str, printed: int) -> None:
    # They write the LayerNorms of stem and downsampling out, by operations that fvcore does not count; it takes 5 an element.
    widths = [stage.width for stage in load_spec(name).stages]
    norms = widths[0] * 64**2 + sum(width * (64 >> i) ** 2 for i, width in enumerate(widths[:-1]))
    macs = params_and_macs(zoo_graph(name), "fvcore")[1] - 5 * norms
    assert round(macs / 10**6 if printed < 1_000 else macs / 10**7) == (printed if printed < 1_000 else printed // 10)


def test_parts() -> None:
    # The SDTA block of stage 2 of XXS: 88 channels in splits of 30, 30 and 28; 4 heads of 22 channels; 16² tokens.
    graph, dim, tokens = zoo_graph("edgenext_xx_small"), 88, 16 * 16
    block = "stages.2.blocks.5"
    linear = 3 * dim * dim + dim * dim
    assert part(graph, f"{block}.splits.") == (2 * (30 * 9 + 30), 2 * 30 * 9 * tokens)
    assert part(graph, f"{block}.attn.") == (linear + 4 * dim + 4, linear * tokens + 2 * dim * 22 * tokens)
    assert part(graph, f"{block}.mlp.") == (8 * dim * dim + 5 * dim, 8 * dim * dim * tokens)
    assert part(graph, "stages.1.blocks.1.positions.") == (64 * 48 + 48, 64 * 48 * 32 * 32)
    assert part(graph, "stages.2.blocks.5.positions.") == (0, 0)


def test_one_step_of_training_reaches_every_parameter() -> None:
    trains("edgenext_xx_small", (64, 64))


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_others_train_on_meta(name: str) -> None:
    trains_on_meta(name, (64, 64))


def test_fuse_leaves_no_layer_scale() -> None:
    model = zoo_model("edgenext_xx_small", (64, 64))
    fused = fuse(model)
    assert not any(isinstance(m, LayerScale) for m in fused.modules())
    saved = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in fused.parameters())
    assert saved == 2 * 24 + 3 * 48 + 7 * 88 + 3 * 168  # a gain a block, and a second one in the SDTA blocks


# --- Parts. ---


@pytest.mark.parametrize(
    ("channels", "num_splits", "sizes"),
    [(48, 2, (24, 24)), (88, 3, (30, 30, 28)), (100, 3, (34, 34, 32)), (160, 3, (54, 54, 52)), (168, 4, (42,) * 4)],
)
def test_splits_are_rounded_up_but_for_the_last(channels: int, num_splits: int, sizes: tuple[int, ...]) -> None:
    assert split_channels(channels, num_splits) == sizes
    assert tuple(x.shape[0] for x in torch.zeros(channels).chunk(num_splits)) == sizes


def test_a_cascade_of_convolutions_adds_what_came_before() -> None:
    module = SplitConvs(6, 3)
    for conv in module.convs:
        nn.init.dirac_(conv.weight, groups=2)  # the identity
        nn.init.zeros_(conv.bias)
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert module(x).flatten().tolist() == [0, 1, 0 + 2, 1 + 3, 4, 5]


def test_waves_pass_a_full_turn_and_fall_in_frequency() -> None:
    w = waves(8)
    assert w.shape == (32, 8)
    angle = 2 * torch.pi * torch.arange(1, 9) / 8
    assert torch.allclose(w[0], angle.sin(), atol=1e-5)
    assert torch.allclose(w[1], angle.cos(), atol=1e-5)
    assert torch.allclose(w[30], (angle / 10_000 ** (30 / 32)).sin(), atol=1e-6)


def test_positions_of_rows_come_before_those_of_columns() -> None:
    module = FourierPositions(64, 3, 5)
    nn.init.dirac_(module.proj.weight)
    nn.init.zeros_(module.proj.bias)
    encoding = module(torch.zeros(1, 64, 3, 5))[0]
    assert torch.equal(encoding[:32], waves(3)[:, :, None].expand(-1, -1, 5))
    assert torch.equal(encoding[32:], waves(5)[:, None, :].expand(-1, 3, -1))


def test_a_network_takes_other_sizes_than_the_one_it_was_made_for() -> None:
    small, large = zoo_model("edgenext_xx_small", (64, 96)), zoo_model("edgenext_xx_small", (128, 128))
    large.load_state_dict(small.state_dict())
    x = images(64, 96)
    with torch.no_grad():
        assert torch.equal(large(x), small(x))


def tanh_gelu(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "tanh"


def no_temperature(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, CrossCovariance):
            nn.init.ones_(module.temperature)


def no_positions(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FourierPositions):
            module.rows.zero_()


def norm_before_pooling(model: nn.Module) -> None:
    model.head.pool_first = False  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "mistake", [tanh_gelu, no_temperature, no_positions, norm_before_pooling], ids=lambda m: m.__name__
)
def test_a_mistake_breaks_parity(timm: ModuleType, mistake) -> None:
    breaks_parity(timm, "edgenext_xx_small", mistake, (96, 96), sized=False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("num_heads: 5", "5 heads do not divide 88 channels"),
        ("num_splits: 60", "60 splits of 2 leave none of the 88 channels for the last"),
        ("num_splits: 1", "num_splits of sdta expects a whole number from 2 to 64, got 1"),
    ],
)
def test_what_cannot_be(tmp_path, change: str, text: str) -> None:
    refused(tmp_path, f"extends: edgenext_xx_small\nstages: {{2: {{{change}}}}}\n", text)
