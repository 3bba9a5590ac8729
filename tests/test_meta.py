"""The shortcuts of graph/meta.py give exactly the graphs that torch's own meta kernels give."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from networks import Calls
from torch import Tensor, nn

from vitscope.graph import meta
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.model import build, fuse_in_place
from vitscope.spec import load_spec
from vitscope.spec.zoo import zoo_names

FAMILIES = [
    "convnext_tiny", "swin_tiny_patch4_window7_224", "mobilevit_s", "mobilevitv2_050", "levit_128s", "efficientvit_b0",
    "efficientvit_l1", "edgenext_xx_small", "poolformer_s12", "fastvit_t8", "repvit_m0_9", "resnet50",
    "deit_tiny_patch16_224", "mobilenetv3_large_100", "ghostnet_100", "regnety_002", "mobileone_s0", "starnet_s1",
]  # fmt: skip


def both_ways(module: nn.Module, *inputs: Tensor) -> tuple[Graph, Graph]:
    """The graph by shortcuts, and the one that torch alone gives."""
    by_shortcut = trace(module, *inputs)
    known = dict(meta.SHORTCUTS)
    meta.SHORTCUTS.clear()
    try:
        return by_shortcut, trace(module, *inputs)
    finally:
        meta.SHORTCUTS.update(known)


def on_meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


@pytest.mark.parametrize("form", ["train", "deploy"])
@pytest.mark.parametrize("name", zoo_names())
def test_the_zoo(name: str, form: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        model = build(spec).eval()
        if form == "deploy":
            fuse_in_place(model)
    by_shortcut, by_torch = both_ways(model, on_meta(2, *spec.input))
    assert by_shortcut == by_torch


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families(timm: ModuleType, name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    by_shortcut, by_torch = both_ways(model, on_meta(1, *model.default_cfg["input_size"]))
    assert by_shortcut == by_torch


def test_every_shortcut_is_taken_by_a_network_of_these(timm: ModuleType) -> None:
    taken: set[str] = set()

    def watched(name: str, shortcut):
        def run(*args: object, **kwargs: object) -> object:
            result = shortcut(*args, **kwargs)
            if result is not None:
                taken.add(name)
            return result

        return run

    known = dict(meta.SHORTCUTS)
    meta.SHORTCUTS.update({name: watched(name, shortcut) for name, shortcut in known.items()})
    try:
        for name in FAMILIES:
            with torch.device("meta"):
                trace(timm.create_model(name).eval(), on_meta(1, 3, 224, 224))
        for name in zoo_names():
            with torch.device("meta"):
                trace(build(load_spec(name)), on_meta(1, 3, 224, 224))
        for _, module, inputs in EDGES:
            trace(module.to("meta"), *inputs)
    finally:
        meta.SHORTCUTS.update(known)
    assert taken == meta.SHORTCUTS.keys()


def of(function, *layers: nn.Module) -> nn.Module:
    return Calls(function, *layers)


X = on_meta(2, 8, 9, 11)
LAST = X.to(memory_format=torch.channels_last)
TURNED = X.transpose(2, 3)

# Corners where a shortcut must agree with torch, or leave the answer to it: id, module, inputs
EDGES: list[tuple[str, nn.Module, tuple[Tensor, ...]]] = [
    ("conv, odd sides", nn.Conv2d(8, 4, 3, 2, 1), (X,)),
    ("conv, dilated", nn.Conv2d(8, 4, 3, dilation=3), (X,)),
    ("conv, same padding", nn.Conv2d(8, 4, 3, padding="same"), (X,)),
    ("conv, other sides", nn.Conv2d(8, 4, (1, 5), (1, 2), (0, 2)), (X,)),
    ("conv, transposed", nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), (X,)),
    ("conv, channels last", nn.Conv2d(8, 4, 3), (LAST,)),
    ("conv, turned", nn.Conv2d(8, 4, 3), (TURNED,)),
    ("conv, one image", nn.Conv2d(8, 4, 3), (on_meta(8, 9, 11),)),
    ("conv 1d", nn.Conv1d(8, 4, 3, 2), (on_meta(2, 8, 11),)),
    ("conv 3d", nn.Conv3d(8, 4, 3), (on_meta(2, 8, 5, 6, 7),)),
    ("conv, batch of none", nn.Conv2d(8, 4, 3), (on_meta(0, 8, 9, 11),)),
    ("batch norm, channels last", nn.BatchNorm2d(8), (LAST,)),
    ("batch norm, no statistics", nn.BatchNorm2d(8, track_running_stats=False), (X,)),
    ("batch norm, no gain", nn.BatchNorm2d(8, affine=False), (X,)),
    ("batch norm of rows", nn.BatchNorm1d(8), (on_meta(5, 8),)),
    ("layer norm, turned", of(lambda norm, x: norm(x.transpose(1, 2)), nn.LayerNorm(8)), (on_meta(2, 8, 7),)),
    ("layer norm, two sides", nn.LayerNorm((9, 11)), (X,)),
    ("layer norm, no gain", nn.LayerNorm(11, elementwise_affine=False), (X,)),
    ("group norm", nn.GroupNorm(1, 8), (X,)),
    ("group norm, no gain", nn.GroupNorm(4, 8, affine=False), (X,)),
    ("group norm, turned", nn.GroupNorm(2, 8), (TURNED,)),
    ("group norm, channels last", nn.GroupNorm(2, 8), (LAST,)),
    ("group norm of rows", nn.GroupNorm(2, 8), (on_meta(5, 8),)),
    ("activations, channels last", nn.Sequential(nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ReLU6()), (LAST,)),
    ("activations, turned", nn.Sequential(nn.GELU("tanh"), nn.Sigmoid()), (TURNED,)),
    ("softmax, turned", of(lambda x: x.softmax(1)), (TURNED,)),
    ("softmax to float", of(lambda x: x.softmax(-1, dtype=torch.float32)), (X.half(),)),
    ("add, broadcast", of(lambda x, y: x + y), (X, on_meta(8, 1, 1))),
    ("add, broadcast the other way", of(lambda x, y: y + x), (X, on_meta(8, 1, 1))),
    ("add, both broadcast", of(lambda x, y: x + y), (on_meta(3, 1, 5), on_meta(4, 1))),
    ("add, scalar tensor", of(lambda x, y: x + y), (X, on_meta())),
    ("add, channels last", of(lambda x, y: x + y), (X, LAST)),
    ("add, turned", of(lambda x, y: x + y), (TURNED, TURNED)),
    ("add, other dtype", of(lambda x, y: x + y), (X, X.half())),
    ("add, integers", of(lambda x, y: x + y), (X.long(), X.long())),
    ("add, integer and fraction", of(lambda x: x.long() + 0.5), (X,)),
    ("sub, alpha", of(lambda x, y: torch.sub(x, y, alpha=2)), (X, X)),
    ("mul, heads apart", of(lambda x: x.permute(2, 0, 3, 1, 4).unbind(0)[1] * 0.25), (on_meta(2, 5, 3, 4, 8),)),
    ("mul, heads of one image", of(lambda x: x.permute(2, 0, 3, 1, 4).unbind(0)[1] * 2), (on_meta(1, 5, 3, 4, 8),)),
    ("mul, one head", of(lambda x: x.permute(2, 0, 3, 1, 4).unbind(0)[0] * 0.5), (on_meta(1, 5, 3, 1, 8),)),
    ("mul, stretched", of(lambda x: x.expand(4, -1, -1) * 2.0), (on_meta(1, 5, 3),)),
    ("mul, gaps", of(lambda x: x[:, ::2, :, 1:] / 3), (X,)),
    ("activations, gaps", nn.Sequential(nn.ReLU(), nn.GELU()), (X[:, ::2],)),
    ("activations, stretched", nn.SiLU(), (X[:, :1].expand(-1, 4, -1, -1),)),
    ("layer norm, channels last", of(lambda norm, x: norm(x.permute(0, 2, 3, 1)), nn.LayerNorm(8)), (X,)),
    ("layer norm, one image", of(lambda norm, x: norm(x.permute(0, 2, 3, 1)), nn.LayerNorm(8)), (X[:1],)),
    ("layer norm, gaps", of(lambda norm, x: norm(x[:, ::2]), nn.LayerNorm(11)), (X,)),
    ("layer norm, stretched", of(lambda norm, x: norm(x.expand(-1, 4, -1)), nn.LayerNorm(8)), (on_meta(2, 1, 8),)),
    ("mul, turned by a row", of(lambda x, y: x * y), (TURNED, on_meta(9))),
    ("mul, a row by turned", of(lambda x, y: y * x), (TURNED, on_meta(9))),
    ("add, turned to straight", of(lambda x, y: x + y.transpose(2, 3)), (X, on_meta(2, 8, 11, 9))),
    ("add, straight to turned", of(lambda x, y: y.transpose(2, 3) + x), (X, on_meta(2, 8, 11, 9))),
    ("add, one image turned", of(lambda x, y: x + y.permute(0, 3, 1, 2)), (X[:1], on_meta(1, 9, 11, 8))),
    ("add, one pixel turned", of(lambda x, y: x + y.permute(0, 3, 1, 2)), (on_meta(2, 8, 1, 1), on_meta(2, 1, 1, 8))),
    ("cat, first", of(lambda x, y: torch.cat([x, y])), (on_meta(2, 3), on_meta(4, 3))),
    ("cat, last", of(lambda x, y: torch.cat([x, y, x], -1)), (on_meta(2, 3), on_meta(2, 5))),
    ("cat, turned", of(lambda x: torch.cat([x, x], 1)), (TURNED,)),
    ("cat, channels last", of(lambda x, y: torch.cat([x, y], 1)), (LAST, X)),
    ("cat, nothing", of(lambda x, y: torch.cat([x, y])), (on_meta(0), on_meta(4, 3))),
    ("cat, other dtype", of(lambda x, y: torch.cat([x, y.half()])), (X, X)),
    ("pixel shuffle", nn.PixelShuffle(2), (X,)),
    ("pixel shuffle, channels last", nn.PixelShuffle(2), (LAST,)),
    ("pixel shuffle, no batch", nn.PixelShuffle(2), (on_meta(8, 3, 5),)),
    ("number minus", of(lambda x: 1 - x), (X,)),
    ("div, rounded", of(lambda x: torch.div(x, 2, rounding_mode="floor")), (X,)),
    ("div by integers", of(lambda x: x / x.long()), (X,)),
    ("mul by bool", of(lambda x: x * True), (X,)),
    ("mul by complex", of(lambda x: x * 1j), (X,)),
    ("mean, all", of(lambda x: x.mean()), (X,)),
    ("mean, kept", of(lambda x: x.mean((2, 3), keepdim=True)), (X,)),
    ("mean, negative", of(lambda x: x.mean(-1)), (X,)),
    ("mean, turned", of(lambda x: x.mean(1)), (TURNED,)),
    ("mean, dtype", of(lambda x: x.mean(1, dtype=torch.float64)), (X,)),
    ("mean of rows that are turned", of(lambda x: x.mean(0)), (on_meta(5, 7),)),
    ("sum, all", of(lambda x: x.sum()), (X,)),
    ("sum, kept", of(lambda x: x.sum(-1, keepdim=True)), (X,)),
    ("sum, turned", of(lambda x: x.sum((1, 2))), (TURNED,)),
    ("sum of integers", of(lambda x: x.long().sum(-1)), (X,)),
    ("mm, turned", of(lambda x, y: x.t() @ y.t()), (on_meta(7, 5), on_meta(6, 7))),
    ("addmm, matrix", of(lambda c, x, y: torch.addmm(c, x, y)), (on_meta(5, 6), on_meta(5, 7), on_meta(7, 6))),
    ("addmm, one bias", of(lambda c, x, y: torch.addmm(c, x, y)), (on_meta(1), on_meta(5, 7), on_meta(7, 6))),
    ("addmm, beta", of(lambda c, x, y: torch.addmm(c, x, y, beta=2)), (on_meta(6), on_meta(5, 7), on_meta(7, 6))),
    ("bmm, turned", of(lambda x, y: x @ y.transpose(1, 2)), (on_meta(3, 5, 7), on_meta(3, 6, 7))),
    ("clone, turned", of(lambda x: x.clone()), (TURNED,)),
    ("clone, contiguous", of(lambda x: x.contiguous()), (TURNED,)),
    ("clone, channels last", of(lambda x: x.contiguous(memory_format=torch.channels_last)), (X,)),
    ("clone, channels last kept", of(lambda x: x.clone()), (LAST,)),
    ("index, columns", of(lambda x, i: x[:, i]), (X, on_meta(3, 4, dtype=torch.int64))),
    ("index, rows", of(lambda x, i: x[i]), (X, on_meta(3, 4, dtype=torch.int64))),
    ("index, two", of(lambda x, i: x[i, i]), (X, on_meta(3, dtype=torch.int64))),
    ("index, apart", of(lambda x, i: x[i, :, i]), (X, on_meta(3, dtype=torch.int64))),
    ("index, 32 bits", of(lambda x, i: x[:, i]), (X, on_meta(3, dtype=torch.int32))),
    ("index, turned", of(lambda x, i: x[:, i]), (TURNED, on_meta(3, dtype=torch.int64))),
    ("pool, ceil", nn.AvgPool2d(2, 2, ceil_mode=True), (X,)),
    ("pool, ceil and padding", nn.AvgPool2d(3, 2, 1, ceil_mode=True), (X,)),
    ("pool, wide stride", nn.AvgPool2d(1, 3, ceil_mode=True), (X,)),
    ("pool, no padding counted", nn.AvgPool2d(3, 1, 1, count_include_pad=False), (X,)),
    ("pool, other sides", nn.AvgPool2d((1, 3), (2, 1), (0, 1)), (X,)),
    ("pool, channels last", nn.AvgPool2d(2), (LAST,)),
    ("pool, one image", nn.AvgPool2d(2), (on_meta(8, 9, 11),)),
    ("resize, factor", nn.Upsample(scale_factor=2, mode="bilinear"), (X,)),
    ("resize, fraction", nn.Upsample(scale_factor=1.3, mode="bilinear"), (X,)),
    ("resize, size", nn.Upsample((5, 20), mode="bicubic", align_corners=True), (X,)),
    ("resize, nearest", nn.Upsample(scale_factor=2), (X,)),
    ("resize, channels last", nn.Upsample(scale_factor=2), (LAST,)),
    ("attention", of(F.scaled_dot_product_attention), (on_meta(2, 3, 5, 8),) * 3),
    ("causal", of(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)), (on_meta(2, 3, 5, 8),)),
]


@pytest.mark.parametrize(("module", "inputs"), [e[1:] for e in EDGES], ids=[e[0] for e in EDGES])
def test_corners(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    # The reshape behind it is a view or a copy: that tells strides apart, which a graph does not show.
    wrapped = Calls(lambda inner, *xs: inner(*xs).reshape(-1), module.to("meta"))
    by_shortcut, by_torch = both_ways(wrapped, *inputs)
    assert by_shortcut == by_torch


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x, y: x @ y, [(5, 7), (6, 7)]),
        (lambda x, y: x @ y, [(3, 5, 7), (3, 6, 7)]),
        (lambda x, y: x + y, [(3, 4), (5, 4)]),
        (lambda x, w: F.conv2d(x, w), [(1, 8, 9, 9), (4, 7, 3, 3)]),
        (lambda x, w: F.conv2d(x, w), [(1, 8, 2, 2), (4, 8, 3, 3)]),
        (lambda x: F.layer_norm(x, (5,)), [(3, 4)]),
        (lambda x: F.pixel_shuffle(x, 3), [(1, 8, 2, 2)]),
        (lambda x: x.mean(4), [(3, 4)]),
        (lambda x, y: torch.cat([x, y]), [(3, 4), (3, 5)]),
        (lambda x, y: torch.cat([x, y], 2), [(3, 4), (3, 4)]),
        (lambda x: x.sum((1, -1)), [(3, 4)]),
        (lambda x: F.group_norm(x, 3), [(2, 8, 5)]),
        (lambda x, w: F.group_norm(x, 2, w), [(2, 8, 5), (7,)]),
        (lambda x: x.mean((1, -1)), [(3, 4)]),
        (lambda x: x[:, torch.zeros(2, dtype=torch.int64, device="meta")], [(3,)]),
        (lambda x: F.avg_pool2d(x, 2, 1, 2), [(1, 2, 5, 5)]),
        (lambda x: F.avg_pool2d(x, 5), [(1, 2, 3, 3)]),
        (lambda x, w: F.batch_norm(x, w, w), [(1, 8, 3, 3), (7,)]),
        (lambda c, x, y: torch.addmm(c, x, y), [(5,), (5, 7), (7, 6)]),
    ],
)
def test_what_does_not_fit_is_refused_in_torchs_words(function, shapes: list[tuple[int, ...]]) -> None:
    inputs = [on_meta(*shape) for shape in shapes]
    messages = []
    known = dict(meta.SHORTCUTS)
    for shortcuts in (known, {}):
        meta.SHORTCUTS.clear()
        meta.SHORTCUTS.update(shortcuts)
        try:
            with pytest.raises((RuntimeError, IndexError, ValueError)) as caught:
                trace(Calls(function), *inputs)
            messages.append(str(caught.value))
        finally:
            meta.SHORTCUTS.clear()
            meta.SHORTCUTS.update(known)
    assert messages[0] == messages[1]
