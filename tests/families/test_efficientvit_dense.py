"""EfficientViT (MIT) for dense prediction: the counts of its segmentation networks and SAM encoders, and their heads.

No installable reference has these heads. Their sums are held against figures counted on the authors' networks, and what
they compute against a second forward pass, written here from the published description; the backbones are those that
`test_efficientvit.py` holds against timm.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomise, relative_error, zoo_graph, zoo_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.cost.ops import macs
from vitscope.graph.record import Graph
from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.load import at_resolution
from vitscope.weights.names import naming_of
from vitscope.weights.naming import our_names

TOLERANCE = 1e-5
CITY, ADE = (1024, 2048), (512, 512)

# name: input; params of backbone, of the head's inputs, residual blocks and output, of all; MACs (facts D.4)
SEGMENTATION = {
    "efficientvit_b0_cityscapes": (CITY, 682_608, 7_360, 9_920, 6_803, 706_691, 4_391_436_288),
    "efficientvit_b1_cityscapes": (CITY, 4_643_936, 29_056, 108_672, 21_779, 4_803_443, 25_105_006_592),
    "efficientvit_b2_cityscapes": (CITY, 14_977_008, 65_088, 236_736, 44_947, 15_323_779, 73_641_492_480),
    "efficientvit_b3_cityscapes": (CITY, 38_997_440, 115_456, 413_952, 76_307, 39_603_155, 179_227_852_800),
    "efficientvit_l1_cityscapes": (CITY, 38_037_280, 230_912, 1_969_152, 4_883, 40_242_227, 282_480_082_944),
    "efficientvit_l2_cityscapes": (CITY, 49_090_208, 230_912, 3_281_920, 4_883, 52_607_923, 396_122_652_672),
    "efficientvit_b1_ade20k": (ADE, 4_643_936, 29_056, 108_672, 9_750, 4_791_414, 3_090_415_616),
    "efficientvit_b2_ade20k": (ADE, 14_977_008, 65_088, 236_736, 14_550, 15_293_382, 9_083_289_600),
    "efficientvit_b3_ade20k": (ADE, 38_997_440, 115_456, 413_952, 19_350, 39_546_198, 22_173_843_456),
    "efficientvit_l1_ade20k": (ADE, 38_037_280, 115_456, 1_969_920, 286_870, 40_409_526, 36_338_663_424),
    "efficientvit_l2_ade20k": (ADE, 49_090_208, 115_456, 1_969_920, 286_870, 51_462_454, 45_175_275_520),
}
# name: side of the input; params of the neck without its LayerNorm, of all; MACs (facts D.5). The backbone of L0 is
# printed (27,805,472), the others are what is left.
SAM = {
    "efficientvit_sam_l0": (512, 2_922_240, 30_728_224, 34_774_974_464),
    "efficientvit_sam_l1": (512, 5_547_776, 43_585_568, 48_980_295_680),
    "efficientvit_sam_l2": (512, 8_173_312, 57_264_032, 68_554_326_016),
    "efficientvit_sam_xl0": (1024, 16_270_080, 112_893_344, 184_804_442_112),
    "efficientvit_sam_xl1": (1024, 32_014_080, 199_281_568, 321_870_364_672),
}
ALL = [*SEGMENTATION, *SAM, "efficientvit_b1_sr"]
# Small networks with everything that the others have: name, settings, input size
SMALL = [
    ("efficientvit_b0_cityscapes", (), (64, 128)),
    ("efficientvit_b1_ade20k", (), (64, 96)),
    ("efficientvit_l1_ade20k", ("head.depth=1",), (64, 64)),
    ("efficientvit_l1_cityscapes", ("head.depth=1",), (64, 32)),
    ("efficientvit_sam_l0", ("head.side=8",), (64, 96)),
    ("efficientvit_sam_xl0", ("head.side=8", "head.depth=1", "stages.3.width=64", "stages.4.width=96"), (128, 64)),
    ("efficientvit_b1_sr", (), (64, 96)),
]


def part(graph: Graph, *prefixes: str) -> tuple[int, int]:
    """Params and MACs of the modules under any of `prefixes`."""
    found = [macs(graph, op) for op in graph.ops if f"{op.scope}.".startswith(prefixes)]
    assert None not in found
    return sum(p.numel for p in graph.params if p.name.startswith(prefixes)), sum(count or 0 for count in found)


def small(name: str, overrides: tuple[str, ...], size: tuple[int, int]) -> nn.Module:
    """A network with random values in eval mode."""
    model = zoo_model(name, size, overrides)
    randomise(model)
    return model


@pytest.mark.parametrize("name", SEGMENTATION)
def test_segmentation_counts(name: str) -> None:
    size, backbone, inputs, blocks, output, params, core = SEGMENTATION[name]
    graph = zoo_graph(name)
    assert load_spec(name).input == (3, *size)
    assert part(graph, "stem.", "stages.")[0] == backbone
    assert part(graph, "head.inputs.")[0] == inputs
    assert part(graph, "head.blocks.")[0] == blocks
    assert part(graph, "head.expand.", "head.head.")[0] == output
    assert backbone + inputs + blocks + output == params
    assert part(graph, "") == (params, core)


@pytest.mark.parametrize("name", SEGMENTATION)
def test_the_backbone_is_that_of_the_classifier(name: str) -> None:
    base = load_spec(name.rpartition("_")[0])
    spec = load_spec(name)
    assert (spec.stem, spec.stages) == (base.stem, base.stages)


@pytest.mark.parametrize("name", SAM)
def test_sam_counts(name: str) -> None:
    side, neck, params, core = SAM[name]
    graph = zoo_graph(name)
    assert load_spec(name).input == (3, side, side)
    assert part(graph, "head.inputs.", "head.blocks.", "head.head.")[0] == neck
    assert part(graph, "head.norm.")[0] == 512
    assert part(graph, "") == (params, core)
    if name == "efficientvit_sam_l0":
        assert part(graph, "stem.", "stages.")[0] == 27_805_472


@pytest.mark.parametrize("name", ALL)
def test_macs_are_those_of_torch_and_shapes_those_of_the_grammar(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        model = build(spec).eval()
        with FlopCounterMode(display=False) as counter:
            y = model(torch.empty(1, *spec.input))
        fused = sum(p.numel() for p in model.parameters())
        fuse_in_place(model)
    assert counter.get_total_flops() == 2 * part(zoo_graph(name), "")[1]
    assert tuple(y.shape) == flow(spec)[-1].out_shape.tensor(1)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert sum(p.numel() for p in model.parameters()) < fused


@pytest.mark.parametrize("name", ALL)
def test_other_sizes(name: str) -> None:
    for size in ((256, 320), (128, 64), (100, 132)):
        spec = at_resolution(load_spec(name), *size)
        with torch.device("meta"):
            y = build(spec).eval()(torch.empty(2, *spec.input))
        assert tuple(y.shape) == flow(spec)[-1].out_shape.tensor(2)
        if name in SEGMENTATION:
            assert y.shape[1:] == ({"s": 19, "k": 150}[name[-1]], -(-size[0] // 8), -(-size[1] // 8))
        else:
            assert y.shape[1:] == ((256, 64, 64) if name in SAM else (3, -(-size[0] // 8) * 16, -(-size[1] // 8) * 16))


# --- The heads, once more from their description. ---


def expected_head(state: dict[str, Tensor], stages: list[Tensor], act, eps: float, side: int | None) -> Tensor:
    """Three stages, the last first: 1×1 and norm, bicubic to one grid, sum, residual blocks, output."""

    def layer(x: Tensor, at: str, groups: int = 1) -> Tensor:
        weight = state[f"{at}.conv.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)
        stats = (state[f"{at}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *stats, eps=eps)

    grid = (side, side) if side is not None else stages[2].shape[2:]
    x = torch.zeros(())
    for i, stage in enumerate(stages):
        factors = [g / s for g, s in zip(grid, stage.shape[2:], strict=True)]
        x = x + F.interpolate(layer(stage, f"head.inputs.{i}"), scale_factor=factors, mode="bicubic")
    for k in range(len({key.split(".")[2] for key in state if key.startswith("head.blocks.")})):
        y = act(layer(x, f"head.blocks.{k}.expand"))
        if f"head.blocks.{k}.depthwise.conv.weight" in state:
            y = act(layer(y, f"head.blocks.{k}.depthwise", groups=y.shape[1]))
        x = x + layer(y, f"head.blocks.{k}.project")
    if "head.expand.conv.weight" in state:
        x = act(layer(x, "head.expand"))
    x = F.conv2d(x, state["head.head.weight"], state["head.head.bias"])
    if "head.norm.weight" in state:
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + eps).sqrt()
        x = x * state["head.norm.weight"].view(-1, 1, 1) + state["head.norm.bias"].view(-1, 1, 1)
    return x


def expected_image(x: Tensor, factor: int) -> Tensor:
    """(B, 3·f², H, W) → (B, 3, H·f, W·f): each position becomes an f×f patch."""
    B, _, H, W = x.shape
    return x.reshape(B, 3, factor, factor, H, W).permute(0, 1, 4, 2, 5, 3).reshape(B, 3, H * factor, W * factor)


@pytest.mark.parametrize(("name", "overrides", "size"), SMALL, ids=[row[0] for row in SMALL])
def test_heads_compute_what_is_described(name: str, overrides: tuple[str, ...], size: tuple[int, int]) -> None:
    model = small(name, overrides, size)
    act, eps = F.hardswish, 1e-5
    if "_l" in name or "sam" in name:
        act, eps = (lambda x: F.gelu(x, approximate="tanh")), 1e-6 if "sam" in name else 1e-7
    x = images(*size)
    with torch.no_grad():
        y, stages = model.stem(x), []
        for stage in model.stages:  # type: ignore[union-attr]
            y = stage(y)
            stages.insert(0, y)
        side = 8 if "sam" in name else None
        expected = expected_head(model.state_dict(), stages[:3], act, eps, side)
        if name == "efficientvit_b1_sr":
            expected = expected_image(expected, 16)
            assert expected.shape[2:] == (2 * size[0], 2 * size[1])
        assert relative_error(model(x), expected) < TOLERANCE


@pytest.mark.parametrize(("name", "overrides", "size"), SMALL, ids=[row[0] for row in SMALL])
def test_fuse_keeps_the_outputs(name: str, overrides: tuple[str, ...], size: tuple[int, int]) -> None:
    model = small(name, overrides, size)
    x = images(*size)
    with torch.no_grad():
        assert relative_error(fuse(model)(x), model(x)) < TOLERANCE


@pytest.mark.parametrize(("name", "size"), [("efficientvit_b0_cityscapes", (64, 96)), ("efficientvit_b1_sr", (32, 64))])
def test_one_step_of_training_reaches_every_parameter(name: str, size: tuple[int, int]) -> None:
    model = zoo_model(name, size).train()
    model(images(*size)).square().mean().backward()
    for key, tensor in model.named_parameters():
        assert tensor.grad is not None, key
        assert tensor.grad.isfinite().all(), key


@pytest.mark.parametrize("name", ALL)
def test_all_train_on_meta(name: str) -> None:
    with torch.device("meta"):
        model = build(load_spec(name, resolution=(64, 64))).train()
        model(torch.empty(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


# --- Names of the authors' files. ---


def authors_name(key: str, name: str, has_expand: bool) -> str:
    """What the authors' file calls our `key`: layers of a graph in the heads, lists of layers everywhere."""
    place = key.split(".")
    large, is_sam = "_l" in name or "_sam" in name, "_sam" in name
    inner = {"expand": "inverted_conv", "depthwise": "depth_conv", "project": "point_conv"}
    if place[0] == "head":
        neck = "neck" if is_sam else "head"
        if place[1] == "inputs":
            listed = ["op_list", "0"] if is_sam or place[2] != "2" else []
            new = [neck, "input_ops", place[2], *listed, *place[3:]]
        elif place[1] == "blocks":
            expand = "spatial_conv" if large else "inverted_conv"
            new = [neck, "middle.op_list", place[2], "main", {**inner, "expand": expand}[place[3]], *place[4:]]
        elif place[1] == "norm":
            new = place[1:]
        else:
            position = "1" if has_expand and place[1] == "head" else "0"
            new = [neck, "output_ops.0.op_list", position, *(["conv"] if place[1] == "head" else []), *place[2:]]
    elif place[0] == "stem":
        new = ["backbone", "stages.0" if large else "input_stem", "op_list.0", *place[2:]]
    else:
        stage, block = int(place[1]) + (name.endswith("xl0")), int(place[3])
        if stage == 0:
            both = {"expand": "conv1", "project": "conv2"} if large else inner
            root = "stages.0" if large else "input_stem"
            new = ["backbone", root, "op_list", str(block + 1), "main", both[place[4]], *place[5:]]
        else:
            new = ["backbone.stages", str(stage - (not large)), "op_list", str(block)]
            if place[4] == "attn":
                layer = {"qkv": ["qkv", "conv"], "gather": ["aggreg", "0"], "proj": ["proj"]}[place[5]]
                new += ["context_module.main", *layer, *place[6:]]
            elif place[4] == "local":
                new += ["local_module.main", inner[place[5]], *place[6:]]
            else:
                is_fused = large and stage <= (3 if "_xl" in name else 2)
                new += ["main", "spatial_conv" if is_fused and place[4] == "expand" else inner[place[4]], *place[5:]]
    return ("image_encoder." if is_sam else "") + ".".join(new)


@pytest.mark.parametrize("name", [*SEGMENTATION, *SAM])
def test_the_authors_names(name: str) -> None:
    with torch.device("meta"):
        ours = list(build(load_spec(name)).state_dict())
    theirs = {authors_name(key, name, "head.expand.conv.weight" in ours): key for key in ours}
    files = [*theirs, *(["prompt_encoder.x.weight", "mask_decoder.y.weight"] if name in SAM else [])]
    naming = naming_of(files)
    assert naming is not None
    assert naming.name.startswith("the authors' EfficientViT")
    assert our_names(naming, files) == theirs
