"""MACs and parameters: exact arithmetic per operation, torch's own counter, and the published figures, as integers."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from networks import FOUNDERS, Calls, zoo_graph
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.cost.ops import FREE, MACS, macs, op_class
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.model import build
from vitscope.spec import load_spec
from vitscope.spec.zoo import zoo_names


def graph_of(module, *shapes: tuple[int, ...], device: str = "meta") -> Graph:
    module = module if isinstance(module, nn.Module) else Calls(module)
    return trace(module.to(device), *(torch.empty(shape, device=device) for shape in shapes))


def total_macs(graph: Graph) -> int:
    counts = [macs(graph, op) for op in graph.ops]
    assert None not in counts
    return sum(count or 0 for count in counts)


def param_count(graph: Graph, prefix: str = "") -> int:
    return sum(p.numel for p in graph.params if f"{p.name}.".startswith(prefix))


def scope_macs(graph: Graph, prefix: str) -> int:
    return sum(macs(graph, op) or 0 for op in graph.ops if f"{op.scope}.".startswith(prefix))


# --- One operation at a time. The expected value is left as arithmetic: output positions × what each one sums. ---

# id, module or function, input shapes, MACs
OPERATIONS = [
    ("conv 3x3", nn.Conv2d(16, 32, 3, padding=1), [(1, 16, 28, 28)], 1 * 32 * 28 * 28 * 16 * 3 * 3),
    ("conv batch", nn.Conv2d(16, 32, 3, padding=1), [(5, 16, 28, 28)], 5 * 32 * 28 * 28 * 16 * 3 * 3),
    ("conv 1x1", nn.Conv2d(48, 192, 1), [(1, 48, 7, 7)], 1 * 192 * 7 * 7 * 48),
    ("conv no bias", nn.Conv2d(48, 192, 1, bias=False), [(1, 48, 7, 7)], 1 * 192 * 7 * 7 * 48),
    ("conv unpadded", nn.Conv2d(3, 8, 5), [(1, 3, 20, 30)], 1 * 8 * 16 * 26 * 3 * 5 * 5),
    ("conv strided", nn.Conv2d(3, 16, 3, stride=2, padding=1), [(1, 3, 224, 224)], 1 * 16 * 112 * 112 * 3 * 3 * 3),
    ("conv odd side", nn.Conv2d(3, 16, 3, stride=2, padding=1), [(1, 3, 7, 9)], 1 * 16 * 4 * 5 * 3 * 3 * 3),
    ("conv grouped", nn.Conv2d(32, 64, 3, padding=1, groups=4), [(1, 32, 14, 14)], 1 * 64 * 14 * 14 * (32 // 4) * 9),
    ("depthwise", nn.Conv2d(192, 192, 3, padding=1, groups=192), [(1, 192, 28, 28)], 1 * 192 * 28 * 28 * 9),
    ("depthwise strided", nn.Conv2d(8, 8, 3, 2, 1, groups=8), [(1, 8, 14, 14)], 1 * 8 * 7 * 7 * 9),
    ("conv dilated", nn.Conv2d(4, 6, 3, padding=2, dilation=2), [(1, 4, 9, 9)], 1 * 6 * 9 * 9 * 4 * 9),
    ("conv not square", nn.Conv2d(4, 4, (1, 7), padding=(0, 3), groups=4), [(1, 4, 9, 11)], 1 * 4 * 9 * 11 * 7),
    ("conv 1d", nn.Conv1d(4, 6, 5, padding=2), [(1, 4, 50)], 1 * 6 * 50 * 4 * 5),
    ("conv 3d", nn.Conv3d(2, 3, 3, padding=1), [(1, 2, 4, 5, 6)], 1 * 3 * 4 * 5 * 6 * 2 * 27),
    # A transposed convolution multiplies each *input* position by the whole kernel.
    ("conv transposed", nn.ConvTranspose2d(16, 8, 4, 2, 1), [(1, 16, 7, 7)], 1 * 7 * 7 * 16 * 8 * 4 * 4),
    ("transposed grouped", nn.ConvTranspose2d(16, 8, 2, 2, groups=4), [(1, 16, 7, 7)], 1 * 7 * 7 * 16 * (8 // 4) * 4),
    ("linear", nn.Linear(64, 10), [(3, 64)], 3 * 64 * 10),
    ("linear on tokens", nn.Linear(64, 256), [(2, 49, 64)], 2 * 49 * 64 * 256),
    ("linear no bias", nn.Linear(64, 256, bias=False), [(2, 49, 64)], 2 * 49 * 64 * 256),
    ("mm", lambda a, b: a @ b, [(5, 7), (7, 11)], 5 * 7 * 11),
    ("addmm", lambda a, b, c: torch.addmm(c, a, b), [(5, 7), (7, 11), (11,)], 5 * 7 * 11),
    ("bmm", lambda a, b: a @ b, [(3, 5, 7), (3, 7, 11)], 3 * 5 * 7 * 11),
    ("baddbmm", lambda a, b, c: torch.baddbmm(c, a, b), [(3, 5, 7), (3, 7, 11), (3, 5, 11)], 3 * 5 * 7 * 11),
    ("matmul of heads", lambda q, k: q @ k.transpose(-2, -1), [(2, 8, 49, 32)] * 2, 2 * 8 * 49 * 49 * 32),
    ("matmul broadcast", lambda a, b: a @ b, [(2, 8, 49, 32), (32, 16)], 2 * 8 * 49 * 32 * 16),
    ("einsum", lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), [(2, 8, 9, 4), (2, 8, 25, 4)], 2 * 8 * 9 * 25 * 4),
    ("einsum values", lambda a, b: torch.einsum("bhqk,bhkd->bhqd", a, b), [(2, 8, 9, 25), (2, 8, 25, 4)],
     2 * 8 * 9 * 25 * 4),
    ("attention", lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
     [(2, 8, 9, 32), (2, 8, 25, 32), (2, 8, 25, 64)], 2 * 8 * 9 * 25 * 32 + 2 * 8 * 9 * 25 * 64),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "shapes", "expected"), [case[1:] for case in OPERATIONS], ids=[c[0] for c in OPERATIONS]
)
def test_macs_of_an_operation(module, shapes: list[tuple[int, ...]], expected: int) -> None:
    graph = graph_of(module, *shapes)
    assert total_macs(graph) == expected
    with FlopCounterMode(display=False) as counter:
        (module if isinstance(module, nn.Module) else Calls(module))(*(torch.empty(s, device="meta") for s in shapes))
    assert counter.get_total_flops() == 2 * expected


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda a, b: a @ b, [(5, 7), (7,)], 5 * 7),
        (lambda a, b, c: torch.addmv(c, a, b), [(5, 7), (7,), (5,)], 5 * 7),
        (lambda a, b: a @ b, [(7,), (7,)], 7),
    ],
    ids=["mv", "addmv", "dot"],
)
def test_products_by_a_vector_count_which_torchs_counter_passes_over(function, shapes, expected: int) -> None:
    assert total_macs(graph_of(function, *shapes)) == expected
    with FlopCounterMode(display=False) as counter:
        function(*(torch.empty(shape, device="meta") for shape in shapes))
    assert counter.get_total_flops() in (0, 2 * expected)


@pytest.mark.parametrize("value_dim", [32, 64])
def test_fused_attention_counts_as_its_two_matmuls(value_dim: int) -> None:
    shapes = [(2, 8, 9, 32), (2, 8, 25, 32), (2, 8, 25, value_dim)]
    fused = graph_of(F.scaled_dot_product_attention, *shapes, device="cpu")
    written_out = graph_of(lambda q, k, v: (q @ k.transpose(-2, -1) * 32**-0.5).softmax(-1) @ v, *shapes)
    assert total_macs(fused) == total_macs(written_out) == 2 * 8 * 9 * 25 * (32 + value_dim)
    # torch fuses on the CPU only where key and value agree: then it is one operation.
    names = [op.op for op in fused.ops if macs(fused, op)]
    assert names == (["_scaled_dot_product_flash_attention_for_cpu"] if value_dim == 32 else ["bmm", "bmm"])


ZERO_MACS = [
    ("norm", nn.BatchNorm2d(8)), ("layer norm", nn.LayerNorm(14)), ("group norm", nn.GroupNorm(2, 8)),
    ("gelu", nn.GELU()), ("relu6", nn.ReLU6()), ("hardswish", nn.Hardswish()), ("softmax", nn.Softmax(-1)),
    ("average", nn.AvgPool2d(3, 1, 1)), ("max", nn.MaxPool2d(2)), ("adaptive", nn.AdaptiveAvgPool2d(1)),
    ("resize", nn.Upsample(scale_factor=2, mode="bilinear")), ("pixel shuffle", nn.PixelShuffle(2)),
    ("residual", lambda x: x + x * 2), ("concatenation", lambda x: torch.cat([x, x], 1)), ("mean", lambda x: x.mean((2, 3))),
]  # fmt: skip


@pytest.mark.parametrize("module", [m for _, m in ZERO_MACS], ids=[name for name, _ in ZERO_MACS])
def test_what_is_known_to_be_free(module) -> None:
    assert total_macs(graph_of(module, (1, 8, 14, 14))) == 0


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.fft.fft(x), "_fft_r2c"),
        (lambda x: torch.cdist(x, x), "_cdist_forward"),
    ],
)
def test_an_unknown_operation_is_reported_and_never_zero(function, name: str) -> None:
    graph = graph_of(function, (1, 5, 5))
    unknown = [op.op for op in graph.ops if macs(graph, op) is None]
    assert unknown == [name]
    assert {op_class(graph, op) for op in graph.ops if op.op == name} == {"unknown"}


def test_no_operation_stands_in_two_tables() -> None:
    free = [name for names in FREE.values() for name in names]
    assert len(free) == len(set(free))
    assert not set(free) & set(MACS)


def test_a_matmul_by_weights_is_linear_and_one_of_activations_is_not() -> None:
    graph = zoo_graph("efficientformer_l1")
    kinds = {op_class(graph, op): 0 for op in graph.ops}
    for op in graph.ops:
        kinds[op_class(graph, op)] += macs(graph, op) or 0
    assert kinds["linear"] == 49 * 448 * (1536 + 4 * 448 * 2) + 49 * 1024 * 448 + 2 * 448 * 1000
    assert kinds["matmul"] == 8 * 49 * 49 * (32 + 128)
    assert kinds["conv"] + kinds["linear"] + kinds["matmul"] == 1_291_284_736


# --- Whole networks. ---

# timm name: resolution, params, MACs (facts 0.3, master table)
PUBLISHED = {
    "efficientformerv2_s0": (224, 3_600_256, 395_892_544),
    "efficientformerv2_s1": (224, 6_185_560, 651_969_640),
    "efficientformerv2_s2": (224, 12_710_112, 1_246_863_952),
    "efficientformerv2_l": (224, 26_322_288, 2_552_546_880),
    "efficientformer_l1": (224, 12_289_928, 1_291_284_736),
    "efficientformer_l3": (224, 31_406_000, 3_906_573_312),
    "efficientformer_l7": (224, 82_229_328, 10_119_325_696),
    "mobilenetv2_100": (224, 3_504_872, 300_774_272),
    "mobilenetv2_140": (224, 6_108_776, 582_195_824),
}

TIMM = {
    "mobilevit_xxs": (256, 1_272_024, 407_364_096),
    "mobilevit_s": (256, 5_578_632, 2_000_831_488),
    "mobilevitv2_050": (256, 1_370_593, 464_594_944),
    "efficientvit_b0": (224, 3_410_008, 100_233_216),
    "efficientvit_b1": (288, 9_102_024, 855_643_648),
    "efficientvit_l1": (224, 52_654_088, 5_258_479_616),
    "deit_tiny_patch16_224": (224, 5_717_416, 1_253_683_200),
    "deit_tiny_distilled_patch16_224": (224, 5_910_800, 1_261_003_776),
    "mobilenetv1_100": (224, 4_231_976, 568_740_352),
    "mobilenetv3_large_100": (224, 5_483_032, 216_589_760),
    "efficientnet_b0": (224, 5_288_548, 385_814_752),
    "efficientnet_b3": (300, 12_233_232, 1_827_141_392),
    "poolformer_s12": (224, 11_915_176, 1_812_267_008),
    "levit_128s": (224, 7_777_058, 304_660_832),
    "levit_256": (224, 18_893_876, 1_127_257_344),
    "edgenext_xx_small": (256, 1_327_216, 257_905_088),
    "resnet50": (224, 25_557_032, 4_089_184_256),
    "swin_tiny_patch4_window7_224": (224, 28_288_354, 4_490_566_656),
    "convnext_tiny": (224, 28_589_128, 4_455_531_264),
    "regnety_160": (224, 83_590_140, 15_911_510_272),
}


@pytest.mark.parametrize("name", zoo_names())
def test_the_zoo_counts_as_torch_and_as_published(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        model, x = build(spec).eval(), torch.empty(1, *spec.input)
    graph = trace(model, x)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == 2 * total_macs(graph)
    if name in PUBLISHED:
        assert ((224, param_count(graph), total_macs(graph))) == PUBLISHED[name]


def test_every_network_of_the_zoo_but_the_ladder_has_published_counts() -> None:
    assert {name for name in FOUNDERS if "ladder" not in name} == PUBLISHED.keys()


@pytest.mark.parametrize("name", TIMM)
def test_timm_models_count_as_torch_and_as_published(timm: ModuleType, name: str) -> None:
    resolution, params, expected = TIMM[name]
    with torch.device("meta"):
        model, x = timm.create_model(name).eval(), torch.empty(1, 3, resolution, resolution)
    graph = trace(model, x)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == 2 * total_macs(graph)
    assert (param_count(graph), total_macs(graph)) == (params, expected)


# module: (params, MACs) at 224, for each network of the row above (facts A.3 and B.1)
V2_NAMES = ("efficientformerv2_s0", "efficientformerv2_s1", "efficientformerv2_s2", "efficientformerv2_l")
V2_PARTS = {
    "stem": ((5_184, 19_869_696), (5_184, 19_869_696), (5_184, 19_869_696), (7_920, 29_352_960)),
    "stages.0": ((20_480, 58_605_568), (30_720, 87_908_352), (40_960, 117_211_136), (76_800, 223_283_200)),
    "stages.1": ((56_976, 42_448_896), (78_480, 58_254_336), (166_080, 124_436_480), (310_640, 234_572_800)),
    "stages.1.downsample": ((13_968, 10_838_016), (13_968, 10_838_016), (18_624, 14_450_688), (29_040, 22_579_200)),
    "stages.2": ((990_832, 148_285_760), (1_688_824, 271_570_544), (3_476_336, 542_863_552), (7_282_704, 1_152_348_288)),
    "stages.2.downsample": ((41_760, 8_128_512), (52_200, 10_160_640), (83_376, 16_257_024), (138_816, 27_095_040)),
    "stages.3": ((2_172_432, 126_330_624), (3_931_904, 213_918_712), (8_442_976, 441_907_088), (17_873_456, 912_221_632)),
    "stages.3.downsample": ((327_936, 30_925_664), (461_328, 39_704_504), (644_480, 50_916_880), (1_021_856, 73_893_568)),
    "head.norm": ((352, 0), (448, 0), (576, 0), (768, 0)),
    "head.head": ((177_000, 176_000), (225_000, 224_000), (289_000, 288_000), (385_000, 384_000)),
    "head.head_dist": ((177_000, 176_000), (225_000, 224_000), (289_000, 288_000), (385_000, 384_000)),
}  # fmt: skip
V1_NAMES = ("efficientformer_l1", "efficientformer_l3", "efficientformer_l7")
V1_PARTS = {
    "stem": ((11_232, 40_642_560), (19_584, 68_640_768), (43_200, 146_313_216)),
    "stages.0": ((57_744, 173_408_256), (135_424, 411_041_792), (452_160, 1_387_266_048)),
    "stages.1": ((192_480, 148_119_552), (607_104, 468_844_544), (1_955_520, 1_517_322_240)),
    "stages.2": ((2_625_504, 509_988_864), (10_265_280, 1_999_011_840), (22_015_872, 4_291_854_336)),
    "stages.3": ((8_504_072, 418_229_504), (19_351_584, 958_010_368), (56_223_040, 2_775_033_856)),
    "head.norm": ((896, 0), (1_024, 0), (1_536, 0)),
    "head.head": ((449_000, 448_000), (513_000, 512_000), (769_000, 768_000)),
    "head.head_dist": ((449_000, 448_000), (513_000, 512_000), (769_000, 768_000)),
}
# Single blocks of S0 (facts A.3): its FFNs by expansion, its MHSA blocks
S0_BLOCKS = {
    "stages.0.blocks.0": 10_240, "stages.1.blocks.0": 21_504, "stages.2.blocks.0": 79_872, "stages.2.blocks.1": 60_000,
    "stages.2.blocks.5": 344_600, "stages.3.blocks.0": 259_072, "stages.3.blocks.1": 194_480,
    "stages.3.blocks.2": 663_176, "stages.3.blocks.3": 727_768,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parts"),
    [(name, {part: row[i] for part, row in V2_PARTS.items()}) for i, name in enumerate(V2_NAMES)]
    + [(name, {part: row[i] for part, row in V1_PARTS.items()}) for i, name in enumerate(V1_NAMES)],
)
def test_parts_count_as_published(name: str, parts: dict[str, tuple[int, int]]) -> None:
    graph = zoo_graph(name)
    found = {part: (param_count(graph, f"{part}."), scope_macs(graph, f"{part}.")) for part in parts}
    assert found == parts
    whole = [part for part in parts if part.count(".") < 2 and not part.endswith("downsample")]
    assert sum(parts[part][0] for part in whole) == param_count(graph)
    assert sum(parts[part][1] for part in whole) == total_macs(graph)


def test_single_blocks_count_as_published() -> None:
    graph = zoo_graph("efficientformerv2_s0")
    assert {block: param_count(graph, f"{block}.") for block in S0_BLOCKS} == S0_BLOCKS
    assert scope_macs(graph, "stages.2.blocks.5.") == 45_495_520


# facts A.5: params of S0, and MACs of all, at other sizes
@pytest.mark.parametrize(
    ("size", "params"),
    [((192, 192), 3_599_424), ((256, 256), 3_601_216), ((320, 320), 3_603_520), ((384, 384), 3_606_336), ((224, 288), 3_601_152)],
)  # fmt: skip
def test_params_grow_with_the_bias_tables_alone(size: tuple[int, int], params: int) -> None:
    assert param_count(zoo_graph("efficientformerv2_s0", size)) == params


@pytest.mark.parametrize(
    ("name", "at_256", "at_512"),
    [
        ("efficientformerv2_s0", 524_840_704, 2_500_960_000),
        ("efficientformerv2_s1", 859_279_360, 3_838_426_624),
        ("efficientformerv2_s2", 1_641_651_712, 7_244_356_096),
        ("efficientformerv2_l", 3_352_381_440, 14_363_523_072),
    ],
)
def test_macs_at_other_sizes(name: str, at_256: int, at_512: int) -> None:
    assert total_macs(zoo_graph(name, (256, 256))) == at_256
    assert total_macs(zoo_graph(name, (512, 512))) == at_512
