"""fvcore's figures, explained operation by operation, and those that the papers print, to their last digit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal
from types import ModuleType
from typing import get_args

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from networks import FOUNDERS, zoo_graph, zoo_model
from torch import nn

from vitscope.cost.conventions import Convention, params_and_macs
from vitscope.cost.ops import macs, op_class
from vitscope.cost.traffic import activations
from vitscope.graph.record import Graph
from vitscope.graph.store import block_graph
from vitscope.graph.trace import trace
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.zoo import zoo_names


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """fvcore logs every operation that it passes over; here they are asserted instead."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def fvcore_counts(model: nn.Module, side: int = 224) -> Counter[str]:
    return FlopCountAnalysis(model, torch.zeros(1, 3, side, side)).by_operator()


# What fvcore adds to convolution, linear and matmul, by its own names. Norms: times the elements that they put out.
EXTRAS = {
    "efficientformerv2_s0": {
        "batch_norm": 2 * 4_769_072,
        "upsample_bilinear2d": 4 * 2 * (1024 * 14 * 14),  # two stride attentions
    },
    "efficientformerv2_s1": {
        "batch_norm": 2 * 7_125_776,
        "upsample_bilinear2d": 4 * 2 * (1024 * 14 * 14),
    },
    "efficientformer_l1": {
        "batch_norm": 2 * 5_249_664,  # every convolution of V1 has one
        "layer_norm": 5 * 3 * (49 * 448),  # two of MB3D and the head's
    },
    "mobilenetv2_100": {
        "batch_norm": 2 * 6_678_112,
    },
    "efficientformerv2_ladder_8": {
        "batch_norm": 2 * 11_117_120,
        "upsample_bilinear2d": 4 * 2 * (1024 * 14 * 14),
        "layer_norm": 5 * (49 * 320),
    },
}

# fvcore's total (facts 0.3), where it is known
TOTALS = {
    "efficientformerv2_s0": 407_036_320,
    "efficientformerv2_s1": 667_826_824,
    "efficientformer_l1": 1_302_113_344,
    "mobilenetv2_100": 314_193_216 - 1280 * 7 * 7,  # timm pools by a module that fvcore counts; ours is a mean
}


@pytest.mark.parametrize("name", EXTRAS)
def test_fvcore_differs_by_norms_and_resizing_alone(name: str) -> None:
    graph = zoo_graph(name)
    model = zoo_model(name)
    ours: Counter[str] = Counter()
    for op in graph.ops:
        ours[op_class(graph, op)] += macs(graph, op) or 0
    expected = {kind: count for kind, count in ours.items() if count} | EXTRAS[name]
    found = fvcore_counts(model)
    assert dict(found) == expected
    assert params_and_macs(graph, "fvcore") == (sum(p.numel() for p in model.parameters()), sum(found.values()))
    assert sum(found.values()) == TOTALS.get(name, sum(found.values()))
    elements = sum(graph.tensors[op.outputs[0]].numel for op in graph.ops if op.op == "native_batch_norm")
    assert EXTRAS[name]["batch_norm"] == 2 * elements


def test_what_fvcore_passes_over_is_free_here_too() -> None:
    analysis = FlopCountAnalysis(zoo_model("efficientformerv2_s1"), torch.zeros(1, 3, 224, 224))
    assert analysis.total() == TOTALS["efficientformerv2_s1"]
    assert dict(analysis.unsupported_ops()) == {
        "aten::gelu": 2 + 2 * 21 + 4 + 1,  # stem, two an FFN, one an attention, one in the dual path
        "aten::mul": 21 + 4 + 5 + 13,  # layer scales of FFNs and attentions, logits' scale; 13 compute sizes
        "aten::add": 21 + 4 + 5 + 5 + 2 + 1,  # residuals, biases of logits, local values, dual path, heads
        "aten::softmax": 5,
        "aten::avg_pool2d": 1,
        "aten::mean": 1,
        "aten::div": 1,
    }


@pytest.mark.parametrize("name", EXTRAS)
def test_activations_equal_fvcores(name: str) -> None:
    graph = zoo_graph(name)
    found = ActivationCountAnalysis(zoo_model(name), torch.zeros(1, 3, 224, 224)).total()
    assert sum(activations(graph, op) for op in graph.ops) == found


@contextmanager
def fused_attention(timm: ModuleType, enable: bool) -> Iterator[None]:
    """Whether timm's attention is one call or written out; a switch of the whole process."""
    timm.layers.set_fused_attn(enable)
    try:
        yield
    finally:
        timm.layers.set_fused_attn(True)


def timm_graph(timm: ModuleType, name: str, side: int = 224) -> Graph:
    with torch.device("meta"):
        return trace(timm.create_model(name).eval(), torch.empty(1, 3, side, side))


def test_fvcore_misses_fused_attention_and_its_view_does_not(timm: ModuleType) -> None:
    name = "deit_tiny_patch16_224"
    attention = 12 * 3 * 197 * 197 * (64 + 64)
    with fused_attention(timm, False):
        written_out = sum(fvcore_counts(timm.create_model(name).eval()).values())
        assert params_and_macs(timm_graph(timm, name), "fvcore") == (5_717_416, written_out)
    assert written_out == 1_258_411_200
    with fused_attention(timm, True):
        assert sum(fvcore_counts(timm.create_model(name).eval()).values()) == written_out - attention
        assert params_and_macs(timm_graph(timm, name), "fvcore") == (5_717_416, written_out)


def test_fvcore_counts_adaptive_pooling_that_a_graph_shows_as_a_mean(timm: ModuleType) -> None:
    found = fvcore_counts(timm.create_model("mobilenetv2_100").eval())
    assert sum(found.values()) == 314_193_216
    assert found["adaptive_avg_pool2d"] == 1280 * 7 * 7
    assert params_and_macs(timm_graph(timm, "mobilenetv2_100"), "fvcore")[1] == 314_193_216 - 1280 * 7 * 7


@pytest.mark.parametrize("name", ["convnext_tiny", "resnet50"])
def test_the_fvcore_view_of_other_families(timm: ModuleType, name: str) -> None:
    found = fvcore_counts(timm.create_model(name).eval())
    pooled = found["adaptive_avg_pool2d"]
    assert params_and_macs(timm_graph(timm, name), "fvcore")[1] == sum(found.values()) - pooled


# --- The authors' toolbox: what the V1 and V2 papers print (facts A.6 and B.1). ---

PRINTED = {  # params in M, MACs in G
    "efficientformerv2_s0": ("3.5346", "0.3961"),
    "efficientformerv2_s1": ("6.0925", "0.6523"),
    "efficientformerv2_s2": ("12.5514", "1.2474"),
    "efficientformerv2_l": ("26.0687", "2.5534"),
    "efficientformer_l1": ("12.2502", "1.3001"),
    "efficientformer_l3": ("31.3301", "3.9258"),
    "efficientformer_l7": ("82.1065", "10.1590"),
    # The ladder as it is reconstructed (facts G)
    "efficientformerv2_ladder_0": ("12.2502", "1.3001"),
    "efficientformerv2_ladder_1": ("12.2775", "1.3001"),
    "efficientformerv2_ladder_2": ("12.3743", "1.3261"),
    "efficientformerv2_ladder_3": ("12.2479", "1.2082"),
    "efficientformerv2_ladder_5": ("12.2567", "1.2089"),
    "efficientformerv2_ladder_6": ("13.0976", "1.4813"),
    "efficientformerv2_ladder_7": ("13.1005", "1.3050"),
    "efficientformerv2_ladder_8": ("13.3943", "1.3406"),
}

# Table 1 of arXiv 2212.08059: params in M, MACs in G. Row 8 is printed as 12.40 in the copies read, see its note.
LADDER = {
    0: (12.25, 1.30), 1: (12.27, 1.30), 2: (12.37, 1.33), 3: (12.24, 1.20), 5: (12.25, 1.21), 6: (13.10, 1.48),
    7: (13.10, 1.31), 8: (13.40, 1.35),
}  # fmt: skip


def printed(value: int, unit: int) -> str:
    """Four decimals, a half rounded up."""
    return str((Decimal(value) / unit).quantize(Decimal("0.0001"), ROUND_HALF_UP))


@pytest.mark.parametrize("name", PRINTED)
def test_snap_reproduces_the_papers(name: str) -> None:
    params, count = params_and_macs(zoo_graph(name), "snap")
    assert (printed(params, 10**6), printed(count, 10**9)) == PRINTED[name]


@pytest.mark.parametrize("row", LADDER)
def test_the_ladder_is_within_a_hundredth_of_the_published_rows(row: int) -> None:
    params, count = params_and_macs(zoo_graph(f"efficientformerv2_ladder_{row}"), "snap")
    assert (params / 1e6, count / 1e9) == (
        pytest.approx(LADDER[row][0], abs=0.01),
        pytest.approx(LADDER[row][1], abs=0.01),
    )


def test_every_reported_figure_of_the_papers_is_what_snap_counts() -> None:
    # The papers round, or cut off: either way the figure lies within one unit of its last printed digit.
    for name in PRINTED:
        reported = load_spec(name).reported
        assert reported is not None
        for figure, found in zip(
            (reported.params, reported.macs), params_and_macs(zoo_graph(name), "snap"), strict=True
        ):
            if figure is not None:
                digits = figure.text.rstrip("MG")
                unit = figure.value / float(digits) * 10.0 ** -len(digits.partition(".")[2])
                assert abs(figure.value - found) < unit, f"{name}: {figure.text} printed, {found} counted"


# module, input shape, params and MACs of the toolbox
SNAP_TERMS = [
    (
        "conv, in/groups for the bias",
        nn.Conv2d(16, 32, 3, padding=1),
        (1, 16, 8, 8),
        32 * 16 * 9 + 16,
        32 * 64 * 16 * 9,
    ),
    ("conv without bias all the same", nn.Conv2d(16, 32, 1, bias=False), (1, 16, 8, 8), 32 * 16 + 16, 32 * 64 * 16),
    ("depthwise", nn.Conv2d(16, 16, 3, padding=1, groups=16), (1, 16, 8, 8), 16 * 9 + 1, 16 * 64 * 9),
    ("linear with bias", nn.Linear(8, 5), (1, 8), 8 * 5 + 5, 8 * 5),
    ("linear on tokens", nn.Linear(8, 5), (1, 49, 8), 8 * 5 + 5, 49 * 8 * 5),
    (
        "linear on strided tokens",
        nn.Sequential(nn.Unflatten(1, (8, 1)), nn.Flatten(2), nn.Linear(1, 5)),
        (1, 8),
        10,
        8 * 5,
    ),
    ("layer norm", nn.LayerNorm(8), (1, 49, 8), 2 * 8, 2 * 49 * 8),
    ("batch norm is no term", nn.BatchNorm2d(8), (1, 8, 4, 4), 0, 0),
    ("gelu of tokens", nn.GELU(), (1, 49, 8), 0, 49 * 8),
    ("gelu of a map, without its width", nn.GELU(), (1, 8, 5, 7), 0, 8 * 5),
    ("relu is no term", nn.ReLU(), (1, 8, 5, 7), 0, 0),
    ("pooling", nn.AvgPool2d(3, 1, 1), (1, 8, 5, 7), 0, 8 * 5 * 7 * 9),
    ("strided pooling", nn.AvgPool2d(2, 2), (1, 8, 6, 6), 0, 8 * 3 * 3 * 4),
]


@pytest.mark.parametrize(
    ("module", "shape", "params", "count"), [c[1:] for c in SNAP_TERMS], ids=[c[0] for c in SNAP_TERMS]
)
def test_terms_of_the_toolbox(module: nn.Module, shape: tuple[int, ...], params: int, count: int) -> None:
    graph = trace(module.to("meta"), torch.empty(shape, device="meta"))
    assert params_and_macs(graph, "snap") == (params, count)


# module, input shape, what fvcore counts
FVCORE_TERMS = [
    ("batch norm", nn.BatchNorm2d(8), (1, 8, 4, 4)),
    ("batch norm without gain", nn.BatchNorm2d(8, affine=False), (1, 8, 4, 4)),
    ("layer norm", nn.LayerNorm(8), (1, 49, 8)),
    ("layer norm without gain", nn.LayerNorm(8, elementwise_affine=False), (1, 49, 8)),
    ("group norm", nn.GroupNorm(2, 8), (1, 8, 4, 4)),
    ("instance norm", nn.InstanceNorm2d(8, affine=True), (1, 8, 4, 4)),
    ("instance norm without gain", nn.InstanceNorm2d(8), (1, 8, 4, 4)),
    ("nearest", nn.Upsample(scale_factor=2), (1, 8, 4, 4)),
    ("bilinear", nn.Upsample(scale_factor=2, mode="bilinear"), (1, 8, 4, 4)),
    ("adaptive pooling", nn.AdaptiveAvgPool2d(3), (1, 8, 7, 7)),
    ("average pooling", nn.AvgPool2d(2), (1, 8, 4, 4)),
    ("transposed", nn.ConvTranspose2d(8, 4, 2, 2), (1, 8, 4, 4)),
    ("gelu", nn.GELU(), (1, 8, 4, 4)),
]


@pytest.mark.parametrize(("module", "shape"), [c[1:] for c in FVCORE_TERMS], ids=[c[0] for c in FVCORE_TERMS])
def test_terms_of_fvcore(module: nn.Module, shape: tuple[int, ...]) -> None:
    expected = FlopCountAnalysis(module.eval(), torch.zeros(shape)).total()
    assert params_and_macs(trace(module.to("meta"), torch.empty(shape, device="meta")), "fvcore")[1] == expected


@pytest.mark.parametrize(
    ("name", "convention"),
    # snap is the counter of the EfficientFormer authors, for their networks
    [(name, c) for c in get_args(Convention) for name in (FOUNDERS if c == "snap" else zoo_names())],
)
def test_blocks_sum_to_the_whole_in_every_convention(name: str, convention: Convention) -> None:
    parts = [params_and_macs(block_graph(p.block, p.in_shape), convention) for p in flow(load_spec(name))]
    assert tuple(map(sum, zip(*parts, strict=True))) == params_and_macs(zoo_graph(name), convention)
