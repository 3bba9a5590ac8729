"""MobileViT and MobileViTv2: timm's logits with timm's weights, the published counts, fusing, training, odd sizes."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomise, relative_error, zoo_graph, zoo_model
from proof import TOLERANCE, counts, named_sizes, pair, part, refused, same_logits, trains, trains_on_meta
from torch import nn

from vitscope.blocks.mobilevit import fold, unfold
from vitscope.cost.conventions import params_and_macs
from vitscope.model import fuse
from vitscope.spec import load_spec
from vitscope.weights.names import naming_of
from vitscope.weights.naming import our_names

# name, which is also timm's; params, MACs, MACs under fvcore's convention and params of the deploy form, all at 256
# (facts 0.3 and C.1; None where they print none); input sizes at which logits are compared. Sides of 224 make a last map
# of 7×7, which is resized to even sides; 160×288 is no square, and its maps are 5×9.
TABLE = [
    ("mobilevit_xxs", 1_272_024, 407_364_096, 418_204_160, 1_269_968, [(256, 256), (224, 224), (160, 288)]),
    ("mobilevit_xs", 2_317_848, 1_025_911_808, 1_052_192_768, 2_313_624, [(96, 160)]),
    ("mobilevit_s", 5_578_632, 2_000_831_488, 2_033_424_384, 5_572_504, [(96, 96)]),
    ("mobilevitv2_050", 1_370_593, 464_594_944, 480_471_040, None, [(256, 256), (224, 224), (160, 288)]),
    ("mobilevitv2_075", 2_866_009, 1_027_980_288, 1_051_794_432, None, [(96, 160)]),
    ("mobilevitv2_100", 4_901_841, 1_812_090_880, 1_843_843_072, None, [(96, 96)]),
    ("mobilevitv2_125", 7_478_089, 2_816_926_720, None, None, [(64, 96)]),
    ("mobilevitv2_150", 10_594_753, 4_042_487_808, None, None, [(64, 64)]),
    ("mobilevitv2_175", 14_251_833, 5_488_774_144, None, None, [(64, 64)]),
    ("mobilevitv2_200", 18_449_329, 7_155_785_728, None, None, [(64, 64)]),
]
NAMES = [row[0] for row in TABLE]
SMALLEST = ["mobilevit_xxs", "mobilevitv2_050"]
AT_224 = {"mobilevit_xxs": 301_495_296, "mobilevit_xs": 772_340_288, "mobilevit_s": 1_521_507_328}  # facts C.1

# module: (params, MACs) at 256 of XXS, XS and S (facts C.1)
V1_PARTS = {
    "stem": ((464, 7_077_888), (464, 7_077_888), (464, 7_077_888)),
    "stages.0": ((1_472, 21_495_808), (3_968, 59_768_832), (3_968, 59_768_832)),
    "stages.1": ((7_696, 35_127_296), (54_048, 262_144_000), (86_528, 392_691_712)),
    "stages.2": ((4_176 + 135_712, 211_730_432), (24_128 + 273_024, 429_588_480), (44_480 + 612_288, 868_483_072)),
    "stages.3": ((12_128 + 329_696, 100_360_192), (40_352 + 658_800, 205_455_360), (91_264 + 1_680_768, 504_201_216)),
    "stages.4": ((20_256 + 413_184, 29_614_080), (60_672 + 779_760, 59_133_952), (154_432 + 2_159_760, 161_415_168)),
    "head.conv": ((26_240, 320 * 80 * 64), (37_632, 384 * 96 * 64), (103_680, 640 * 160 * 64)),
    "head.head": ((321_000, 320_000), (385_000, 384_000), (641_000, 640_000)),
}


@pytest.mark.parametrize(("name", "size"), named_sizes(TABLE))
def test_same_logits_as_timm(timm: ModuleType, name: str, size: tuple[int, int]) -> None:
    same_logits(timm, name, size, sized=False)


@pytest.mark.parametrize(("name", "params", "core", "by_fvcore", "deploy_params", "_"), TABLE, ids=NAMES)
def test_counts(
    name: str, params: int, core: int, by_fvcore: int | None, deploy_params: int | None, _: list[tuple[int, int]]
) -> None:
    assert load_spec(name).input == (3, 256, 256)
    counts(name, params, core)
    if by_fvcore is not None:  # counted on timm's network, whose global average is a pooling: fvcore takes its elements
        last = part(zoo_graph(name), "head.head.")[1] // 1000
        assert params_and_macs(zoo_graph(name), "fvcore")[1] == by_fvcore - last * 8 * 8
    if deploy_params is not None:
        assert sum(p.numel() for p in fuse(zoo_model(name)).parameters()) == deploy_params


@pytest.mark.parametrize("i", range(3), ids=NAMES[:3])
def test_parts_count_as_published(i: int) -> None:
    graph = zoo_graph(NAMES[i])
    parts = {name: row[i] for name, row in V1_PARTS.items()}
    assert {name: part(graph, f"{name}.") for name in parts} == parts
    assert tuple(map(sum, zip(*parts.values(), strict=True))) == part(graph)
    assert part(zoo_graph(NAMES[i], (224, 224)))[1] == AT_224[NAMES[i]]


def test_params_of_a_block_by_their_formula() -> None:
    # 27C² + 2Cd + 6C + 2d + L(8d² + 11d), with C = 96, d = 144, L = 2 (facts C.1)
    expected = 27 * 96**2 + 2 * 96 * 144 + 6 * 96 + 2 * 144 + 2 * (8 * 144**2 + 11 * 144)
    assert part(zoo_graph("mobilevit_s"), "stages.2.blocks.1.")[0] == expected == 612_288


@pytest.mark.parametrize("size", [(256, 256), (192, 160), (224, 96)])
@pytest.mark.parametrize("name", SMALLEST)
def test_fuse_keeps_the_outputs(name: str, size: tuple[int, int]) -> None:
    model = zoo_model(name, size)
    randomise(model)
    x = images(*size)
    with torch.no_grad():
        expected = model(x)
        assert expected.shape == (2, 1000)
        assert relative_error(fuse(model)(x), expected) < TOLERANCE


@pytest.mark.parametrize("name", SMALLEST)
def test_one_step_of_training_reaches_every_parameter(name: str) -> None:
    trains(name, (64, 96))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SMALLEST])
def test_the_others_train_on_meta(name: str) -> None:
    trains_on_meta(name, (64, 64))


# --- The authors' names. ---


def cvnets_keys(version: int) -> set[str]:
    """The keys of the smallest network of ml-cvnets (facts C.1; its module of the block for version 2)."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys: set[str] = set()

    def add(prefix: str, *names: str) -> None:
        keys.update(f"{prefix}.{name}" for name in names)

    def unit(prefix: str) -> None:  # convolution and BatchNorm
        add(prefix, "block.conv.weight", *(f"block.norm.{name}" for name in norm))

    unit("conv_1")
    for layer, depth in ((1, 1), (2, 3 if version == 1 else 2), (3, 1), (4, 1), (5, 1)):
        for j in range(depth):
            for name in ("exp_1x1", "conv_3x3", "red_1x1"):
                unit(f"layer_{layer}.{j}.block.{name}")
    for layer, depth in ((3, 2), (4, 4), (5, 3)):
        block = f"layer_{layer}.1"
        unit(f"{block}.local_rep.{'conv_3x3' if version == 1 else 0}")
        add(f"{block}.local_rep.{'conv_1x1' if version == 1 else 1}.block.conv", "weight")
        for i in range(depth):
            attention = f"{block}.global_rep.{i}.pre_norm_{'mha' if version == 1 else 'attn'}"
            ffn, inner = f"{block}.global_rep.{i}.pre_norm_ffn", "" if version == 1 else ".block.conv"
            last = 4 if version == 1 else 3
            for prefix in (f"{attention}.0", f"{attention}.1.qkv_proj{inner}", f"{attention}.1.out_proj{inner}",
                           f"{ffn}.0", f"{ffn}.1{inner}", f"{ffn}.{last}{inner}"):  # fmt: skip
                add(prefix, "weight", "bias")
        add(f"{block}.global_rep.{depth}", "weight", "bias")
        unit(f"{block}.conv_proj")
        if version == 1:
            unit(f"{block}.fusion")
    if version == 1:
        unit("conv_1x1_exp")
    add("classifier.fc" if version == 1 else "classifier.1", "weight", "bias")
    return keys


@pytest.mark.parametrize(("version", "naming"), [(1, "authors' MobileViT"), (2, "authors' MobileViTv2")])
def test_the_authors_names_are_read(version: int, naming: str) -> None:
    keys = cvnets_keys(version)
    found = naming_of(keys)
    assert found is not None
    assert found.name == naming
    names = our_names(found, keys)
    assert len(set(names.values())) == len(keys)
    assert set(names.values()) == zoo_model(SMALLEST[version - 1], (64, 64)).state_dict().keys()


# --- Patches. ---


def test_unfold_puts_the_same_place_of_all_patches_side_by_side() -> None:
    x = torch.arange(4 * 6).reshape(1, 1, 4, 6).float()
    taken = unfold(x, 2)
    assert taken.shape == (1, 1, 4, 6)
    assert taken[0, 0].tolist() == [  # place in the patch by rows, then patch by rows
        [0, 2, 4, 12, 14, 16],
        [1, 3, 5, 13, 15, 17],
        [6, 8, 10, 18, 20, 22],
        [7, 9, 11, 19, 21, 23],
    ]
    assert torch.equal(fold(taken, 2, 4, 6), x)


def test_odd_maps_come_back_in_v1_and_stay_even_in_v2() -> None:
    # 224 pixels make a last map of 7×7.
    for name, side in (("mobilevit_xxs", 7), ("mobilevitv2_050", 8)):
        block = load_spec(name).stages[4].blocks[1]
        model = zoo_model(name, (224, 224))
        with torch.no_grad():
            out = model.stages(model.stem(images(224, 224, batch=1)))
        assert out.shape[2:] == (side, side), block.kind


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("mistake", ["aligned corners", "gelu", "order of the patches"])
def test_a_mistake_breaks_parity(timm: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, mistake: str) -> None:
    theirs, ours = pair(timm, name, (96, 96), sized=False)  # a last map of 3×3
    x = images(96, 96)
    with torch.no_grad():
        expected = theirs(x)
        if mistake == "aligned corners":
            right, wrong = ("False", "True") if name == "mobilevit_xxs" else ("True", "False")
            interpolate = F.interpolate

            def resize(x: torch.Tensor, size: tuple[int, int], mode: str, align_corners: bool) -> torch.Tensor:
                assert str(align_corners) == right
                return interpolate(x, size=size, mode=mode, align_corners=wrong == "True")

            monkeypatch.setattr(F, "interpolate", resize)
        elif mistake == "gelu":
            for module in ours.modules():
                if isinstance(getattr(module, "act", None), nn.SiLU) and hasattr(module, "fc1"):
                    module.act = nn.GELU()  # type: ignore[assignment]
        else:
            from vitscope.blocks import mobilevit

            taken = mobilevit.unfold
            monkeypatch.setattr(mobilevit, "unfold", lambda x, patch: taken(x.transpose(2, 3), patch))
        assert relative_error(ours(x), expected) > TOLERANCE


def test_what_cannot_be(tmp_path) -> None:
    refused(
        tmp_path, "extends: mobilevit_xxs\nstages: {2: {dim: 66}}\n", "4 heads do not divide the 66 channels of dim"
    )
    refused(
        tmp_path,
        "extends: mobilevitv2_050\nstages: {2: {dim_ratio: 0.001}}\n",
        r"dim_ratio 0\.001 of 128 channels leaves no width for the tokens",
    )
