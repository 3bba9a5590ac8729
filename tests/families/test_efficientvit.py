"""EfficientViT (MIT) B0–B3 and L1–L3: timm's logits with timm's weights, the published counts, fusing, training."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomise, relative_error, zoo_graph, zoo_model
from proof import TOLERANCE, named_sizes, pair, part, refused
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.blocks.efficientvit import linear_attention
from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec
from vitscope.weights import load_state
from vitscope.weights.efficientvit import TIMM
from vitscope.weights.naming import our_names

# name, which is also timm's; params, params of the deploy form, MACs at 224, MACs at other sides (facts 0.3, D.2, D.3);
# input sizes at which logits are compared
TABLE = [
    ("efficientvit_b0", 3_410_008, 3_407_328, 100_233_216, {}, [(224, 224), (192, 256), (100, 132)]),
    ("efficientvit_b1", 9_102_024, 9_095_320, 519_214_592, {256: 676_915_712, 288: 855_643_648}, [(224, 224), (64, 96)]),
    ("efficientvit_b2", 24_330_712, 24_317_440, 1_584_937_984, {256: 2_067_533_824, 288: 2_614_475_776}, [(64, 96)]),
    ("efficientvit_b3", 48_646_056, 48_622_152, 3_953_822_208, {256: 5_161_586_688, 288: 6_530_386_432}, [(64, 64)]),
    ("efficientvit_l1", 52_654_088, 52_639_784, 5_258_479_616, {}, [(128, 160)]),
    ("efficientvit_l2", 63_707_016, 63_689_192, 6_949_862_400,
     {256: 9_073_382_400, 288: 11_480_038_400, 384: 20_398_822_400}, [(64, 96)]),
    ("efficientvit_l3", 246_037_288, 246_001_640, 27_586_525_184, {384: 80_981_960_704}, [(64, 64)]),
]  # fmt: skip
NAMES = [row[0] for row in TABLE]

# module: (params, MACs) at 224, for each network (facts D.2 and D.3); the stem is ours and the blocks at its resolution
B_PARTS = {
    "stem": ((400, 4_415_488), (928, 10_436_608), (1_584, 18_063_360), (2_368, 27_295_744)),
    "stages.1": ((4_128, 13_948_928), (13_888, 50_376_704), (50_304, 172_505_088), (122_752, 410_640_384)),
    "stages.2": ((13_888, 12_594_176), (86_528, 75_163_648), (267_072, 226_243_584), (742_656, 610_742_272)),
    "stages.3": ((142_208, 31_610_880), (756_864, 162_043_392), (2_200_320, 470_776_320), (5_650_944, 1_181_945_856)),
    "stages.4": ((521_984, 28_650_496), (3_785_728, 197_869_056), (12_457_728, 645_539_328), (32_478_720, 1_656_936_960)),
    "head": ((2_727_400, 9_013_248), (4_458_088, 23_325_184), (9_353_704, 51_810_304), (9_648_616, 66_260_992)),
}  # fmt: skip
L_PARTS = {
    "stem": ((19_488, 242_049_024), (19_488, 242_049_024), (75_840, 946_520_064)),
    "stages.1": ((345_856, 1_078_984_704), (510_336, 1_592_786_944), (2_036_480, 6_371_147_776)),
    "stages.2": ((1_379_840, 1_078_984_704), (2_036_480, 1_592_786_944), (8_136_192, 6_371_147_776)),
    "stages.3": ((4_025_856, 939_294_720), (5_097_984, 1_148_428_288), (20_157_440, 4_557_586_432)),
    "stages.4": ((32_266_240, 1_829_065_728), (41_425_920, 2_283_710_464), (163_592_192, 8_986_120_192)),
    "head": ((14_616_808, 90_100_736), (14_616_808, 90_100_736), (52_039_144, 354_002_944)),
}
PARTS = [{part: row[i] for part, row in B_PARTS.items()} for i in range(4)]
PARTS += [{part: row[i] for part, row in L_PARTS.items()} for i in range(3)]


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    theirs, ours = pair(timm, name, size, sized=False)
    x = images(*size)
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) < TOLERANCE


def test_the_largest_takes_timms_keys_and_shapes(timm: ModuleType) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("efficientvit_l3").state_dict()
        ours = build(load_spec("efficientvit_l3")).state_dict()
    names = our_names(TIMM, theirs)
    assert {names[key]: tensor.shape for key, tensor in theirs.items()} == {k: t.shape for k, t in ours.items()}


@pytest.mark.parametrize(("name", "params", "deploy_params", "core", "others", "_"), TABLE, ids=NAMES)
def test_counts(
    name: str, params: int, deploy_params: int, core: int, others: dict[int, int], _: list[tuple[int, int]]
) -> None:
    spec = load_spec(name)
    assert spec.input == (3, 224, 224)
    with torch.device("meta"):
        model, x = build(spec).eval(), torch.empty(1, *spec.input)
        with FlopCounterMode(display=False) as counter:
            model(x)
        fuse_in_place(model)
    assert part(zoo_graph(name)) == (params, core)
    assert counter.get_total_flops() == 2 * core
    assert sum(p.numel() for p in model.parameters()) == deploy_params
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert {side: part(zoo_graph(name, (side, side)))[1] for side in others} == others


@pytest.mark.parametrize(("name", "parts"), list(zip(NAMES, PARTS, strict=True)), ids=NAMES)
def test_parts_count_as_published(name: str, parts: dict[str, tuple[int, int]]) -> None:
    graph = zoo_graph(name)
    found = {p: part(graph, f"{p}.", *(["stages.0."] if p == "stem" else [])) for p in parts}
    assert found == parts
    assert tuple(map(sum, zip(*parts.values(), strict=True))) == part(graph)


def test_params_and_macs_of_a_block_by_their_formulas() -> None:
    # Facts D.1 with C = 128, d = 16, s = 5, e = 4 on a map of 14×14: 5C²+75C+3Cd+2C and N(5C²+3Cs²+3Cd) + 4NC(d+1)
    graph = zoo_graph("efficientvit_b1")
    C, d, s, N = 128, 16, 5, 14 * 14
    assert part(graph, "stages.3.blocks.1.attn.") == (
        5 * C**2 + 75 * C + 3 * C * d + 2 * C,
        N * (5 * C**2 + 3 * C * s**2 + 3 * C * d) + 4 * N * C * (d + 1),
    )
    assert part(graph, "stages.3.blocks.1.local.")[0] == 2 * C * 4 * C + 11 * 4 * C + 2 * C


def theirs_in_the_authors_names(state: dict[str, Tensor], large: bool) -> dict[str, Tensor]:
    """timm's tensors under the names of the authors' files (facts D.3)."""
    names = {}
    for key, tensor in state.items():
        rest = key.split(".")
        if rest[0] == "stem":
            place = 0 if rest[1] == "in_conv" else int(rest[1][3:]) + 1
            stem = "backbone.stages.0" if large else "backbone.input_stem"
            name = ".".join([stem, "op_list", str(place), *rest[2:]])
        elif rest[0] == "stages":
            name = ".".join(["backbone.stages", str(int(rest[1]) + large), "op_list", *rest[3:]])
        elif rest[1] == "in_conv":
            name = ".".join(["head.op_list.0", *rest[2:]])
        else:
            name = {"0": "head.op_list.2.linear.", "1": "head.op_list.2.norm.", "4": "head.op_list.3.linear."}[
                rest[2]
            ] + rest[3]
        names[name] = tensor
    return names


@pytest.mark.parametrize("name", ["efficientvit_b0", "efficientvit_l1"])
def test_the_authors_names(timm: ModuleType, name: str) -> None:
    theirs = timm.create_model(name).eval().state_dict()
    ours = zoo_model(name)
    report = load_state(ours, theirs_in_the_authors_names(theirs, large="_l" in name))
    assert report.naming.startswith("the authors' EfficientViT")
    names = our_names(TIMM, theirs)
    state = ours.state_dict()
    assert all(torch.equal(state[names[key]], tensor) for key, tensor in theirs.items())


@pytest.mark.parametrize("size", [(224, 224), (160, 96), (100, 132)])
def test_fuse_keeps_the_outputs(size: tuple[int, int]) -> None:
    model = zoo_model("efficientvit_b0", size)
    randomise(model)
    x = images(*size)
    with torch.no_grad():
        expected = model(x)
        assert expected.shape == (2, 1000)
        assert relative_error(fuse(model)(x), expected) < TOLERANCE


def test_fuse_keeps_the_outputs_of_the_large_series() -> None:
    model = zoo_model("efficientvit_l1", (64, 96))
    randomise(model)
    x = images(64, 96)
    with torch.no_grad():
        assert relative_error(fuse(model)(x), model(x)) < TOLERANCE


def test_one_step_of_training_reaches_every_parameter() -> None:
    model = zoo_model("efficientvit_b0", (64, 64)).train()
    F.cross_entropy(model(images(64, 64)), torch.tensor([3, 7])).backward()
    for key, tensor in model.named_parameters():
        assert tensor.grad is not None, key
        assert tensor.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_others_train_on_meta(name: str) -> None:
    with torch.device("meta"):
        model = build(load_spec(name, resolution=(64, 64))).train()
        model(torch.empty(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


# --- Linear attention. ---


def test_linear_attention_is_the_quadratic_one_in_another_order() -> None:
    q, k, v = torch.randn(3, 2, 4, 8, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind(0)
    weights = F.relu(q).transpose(2, 3) @ F.relu(k)  # (B, N, T, T)
    expected = (weights @ v.transpose(2, 3) / (weights.sum(-1, keepdim=True) + 1e-5)).transpose(2, 3)
    torch.testing.assert_close(linear_attention(q, k, v, 1e-5), expected)


def test_linear_attention_in_half_precision_is_computed_in_single() -> None:
    q, k, v = (torch.full((1, 1, 32, 256), 40.0, dtype=torch.float16) for _ in range(3))  # Σ q·k is 13 107 200
    found = linear_attention(q, k, v, 1e-5)
    assert found.dtype == torch.float16
    assert torch.equal(found, v)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_macs_of_attention_grow_with_the_positions_also_on_small_maps(side: int) -> None:
    # The authors' code turns to the quadratic order where there are fewer positions than channels of a head.
    C, d, N = 256, 16, (side // 32) ** 2
    graph = zoo_graph("efficientvit_b1", (side, side))
    assert part(graph, "stages.4.blocks.1.attn.")[1] == N * (5 * C**2 + 75 * C + 3 * C * d) + 4 * N * C * (d + 1)


def all_heads_together(x: Tensor, number: int, dim: int) -> list[Tensor]:
    """q, k and v as thirds of the channels, where every head should keep its own three together."""
    B, N, channels, T = x.shape
    return [third.reshape(B, N, channels // number, T) for third in x.flatten(1, 2).split(N * channels // number, 1)]


@pytest.mark.parametrize("mistake", ["q‖k‖v of all heads", "no second scale", "erf gelu", "norm eps"])
def test_a_mistake_breaks_parity(timm: ModuleType, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    theirs, ours = pair(timm, "efficientvit_l1" if mistake == "erf gelu" else "efficientvit_b0", (64, 64), sized=False)
    x = images(64, 64)
    with torch.no_grad():
        expected = theirs(x)
        for module in ours.modules():
            if mistake == "erf gelu" and isinstance(module, nn.GELU):
                module.approximate = "none"
            if mistake == "norm eps" and isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3
        if mistake == "q‖k‖v of all heads":
            monkeypatch.setattr(Tensor, "chunk", all_heads_together)
        if mistake == "no second scale":
            monkeypatch.setattr(torch, "cat", lambda tensors, dim: tensors[0].repeat(1, 2, 1, 1))
        assert relative_error(ours(x), expected) > TOLERANCE


def test_what_cannot_be(tmp_path) -> None:
    refused(
        tmp_path,
        "extends: efficientvit_b1\nstages: {3: {head_dim: 48}}\n",
        "heads of head_dim 48 do not divide 128 channels",
    )
