"""Predictions: parts add up, more work is never faster, and what the fit has not seen is refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.latency.class_cost import ClassCost, ClassCosts, Memory
from vitscope.latency.device import Device, load_device
from vitscope.latency.difference import difference, kernel_counts, unshared_seconds
from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.predict import coefficients_cost, kernel_cost, lane_macs, predict, segment_cost
from vitscope.latency.residency import SIGNS, total_signs

IPHONE12 = load_device("iphone12")
assert IPHONE12.coefficients is not None
FITTED = IPHONE12.coefficients
MEGA = 1_000_000


def graph_of(module: nn.Module, *shape: int) -> Graph:
    return trace(module.to("meta"), torch.empty(shape, device="meta"))


def network(timm: ModuleType, name: str, resolution: int = 224, **options: Any) -> Graph:
    from timm.utils import reparameterize_model  # type: ignore[import-not-found]

    with torch.device("meta"):
        module = reparameterize_model(timm.create_model(name, **options).eval())
    return graph_of(module, 1, 3, resolution, resolution)


def block(width: int, expansion: int = 4) -> nn.Module:
    hidden = width * expansion
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.GELU(),
        nn.Conv2d(hidden, width, 1),
    )  # fmt: skip


def with_coefficients(**changes: Any) -> Device:
    return replace(IPHONE12, name="test", coefficients=replace(FITTED, **changes))


# Arithmetic of one kernel, by hand


def test_kernel_cost_is_bytes_and_macs_times_coefficients():
    c = replace(
        FITTED, spill="kernel", knee_bytes=1000, weight_byte_s=1e-9, spilled_byte_s=1e-10,
        resident_byte_s=1e-11, mac_s=1e-12, tap_s=1e-11, kernel_s=1e-6,
    )  # fmt: skip
    small = Kernel("pointwise", "", macs=6400, reads=100, weights=50, writes=400, depth=16, ops=())
    cost = coefficients_cost(c, 2, small)  # 1,000 bytes of activations: not above the knee
    assert cost.traffic_s == pytest.approx(100 * 1e-9 + 1000 * 1e-11)
    assert cost.compute_s == pytest.approx(6400 * 1e-12 + 6400 / 16 * 1e-11)
    assert cost.start_s == 1e-6
    large = replace(small, reads=101)
    assert coefficients_cost(c, 2, large).traffic_s == pytest.approx(100 * 1e-9 + 1002 * 1e-10)
    # by operand only the 800 bytes that are written are above 700
    by_operand = replace(c, spill="operand", knee_bytes=700)
    assert coefficients_cost(by_operand, 2, small).traffic_s == pytest.approx(100e-9 + 800 * 1e-10 + 200 * 1e-11)


@pytest.mark.parametrize("overlap", ["none", "kernel", "network"])
def test_shares_and_floor_add_up(overlap: str):
    device = with_coefficients(overlap=overlap)
    device = replace(device, ranges=())
    graphs = [graph_of(block(width), 1, width, 28, 28) for width in (32, 48, 64)]
    prediction = predict(device, graphs)
    assert prediction.status == "ok" and prediction.latency_s is not None and prediction.high_s is not None
    assert len(prediction.shares) == len(graphs)
    assert sum(prediction.shares) + prediction.floor_s == pytest.approx(prediction.latency_s, rel=1e-12)
    assert prediction.low_s < prediction.latency_s < prediction.high_s
    assert prediction.coverage == 1.0


@pytest.mark.parametrize("cache_bytes", [1e12, 1e5])
def test_shares_of_a_calibrated_device_add_up_to_what_its_costs_say_of_all_kernels(cache_bytes: float):
    """With caches that hold the network, and without: segments wait for their own weights and kernels."""
    memory = Memory(
        1e-11, ((1e6, 2e-11),), cache_bytes, cold_call_s=3e-5, cold_start_s=1e-6, spill_byte_s=2e-11,
        spill_product_byte_s=1e-11, arena_byte_s=4e-11, window_bytes=4e4, window_more=0.5,
    )  # fmt: skip
    kinds = ("pointwise", "depthwise", "depthwise ragged", "activation gelu")
    classes = ClassCosts(3e-6, memory, {kind: ClassCost(1e-6, 1e-10, cold_byte_s=5e-11) for kind in kinds}, {})
    device = replace(IPHONE12, coefficients=None, classes=classes, ranges=())
    graphs = [graph_of(block(width), 1, width, 28, 28) for width in (32, 48, 64)]
    prediction = predict(device, graphs)
    assert prediction.latency_s is not None and prediction.coverage == 1.0
    assert sum(prediction.shares) + prediction.floor_s == pytest.approx(prediction.latency_s, rel=1e-12)
    kernels = [kernel for graph in graphs for kernel in lower(graph, device.rules)]
    assert prediction.latency_s == pytest.approx(classes.total_s(kernels, device.bytes_per_element), rel=1e-9)


def test_overlap_counts_the_longer_side():
    graph = graph_of(block(64), 1, 64, 28, 28)
    costs = [kernel_cost(IPHONE12, kernel) for kernel in lower(graph, IPHONE12.rules)]
    traffic, compute = sum(c.traffic_s for c in costs), sum(c.compute_s for c in costs)

    def seconds(overlap: str) -> float:
        device = replace(with_coefficients(overlap=overlap, kernel_s=0.0), ranges=())
        return sum(predict(device, [graph]).shares)

    assert seconds("none") == pytest.approx(traffic + compute)
    assert seconds("network") == pytest.approx(max(traffic, compute))
    assert seconds("kernel") == pytest.approx(sum(max(c.traffic_s, c.compute_s) for c in costs))


@pytest.mark.parametrize("side", [7, 14, 28, 56])
@pytest.mark.parametrize("overlap", ["none", "kernel", "network"])
def test_more_work_is_never_faster(side: int, overlap: str):
    device = replace(with_coefficients(overlap=overlap), ranges=())

    def seconds(width: int, expansion: int, side: int) -> float:
        return sum(predict(device, [graph_of(block(width, expansion), 1, width, side, side)]).shares)

    base = seconds(48, 4, side)
    assert seconds(56, 4, side) >= base
    assert seconds(48, 5, side) >= base
    assert seconds(48, 4, side + 1) >= base


def test_the_precision_of_the_device_sets_the_bytes():
    graph = graph_of(block(32), 1, 32, 14, 14)
    half, single = segment_cost(IPHONE12, graph), segment_cost(replace(IPHONE12, precision="float32"), graph)
    assert single.footprint.weight_bytes == 2 * half.footprint.weight_bytes
    assert single.activation_bytes == 2 * half.activation_bytes


# What runs whole, and what does not


@pytest.mark.parametrize(
    ("name", "published_ms"),
    [
        ("efficientformerv2_s0", 0.9), ("efficientformerv2_s1", 1.1), ("efficientformerv2_s2", 1.6),
        ("efficientformerv2_l", 2.7), ("efficientformer_l1", 1.4), ("efficientformer_l3", 2.7),
        ("efficientformer_l7", 6.6), ("mobilenetv2_100", 0.9), ("mobilenetv2_140", 1.2),
    ],
)  # fmt: skip
def test_networks_that_run_whole_are_predicted(timm: ModuleType, name: str, published_ms: float):
    prediction = predict(IPHONE12, [network(timm, name)])
    assert prediction.status == "ok", prediction.reason
    assert prediction.low_s < published_ms * 1e-3 < (prediction.high_s or 0)


@pytest.mark.parametrize(
    ("name", "resolution", "sign"),
    [
        ("deit_tiny_patch16_224", 224, "large_kernel"), ("mobilevit_s", 256, "token_norm_return"),
        ("mobilevitv2_100", 256, "high_rank"), ("swin_tiny_patch4_window7_224", 224, "window"),
        ("convnext_tiny", 224, "token_norm_return"), ("mobilenetv3_large_100", 224, "hard_activation"),
        ("levit_256", 224, "hard_activation"), ("ghostnet_100", 224, "hard_activation"), ("pvt_v2_b0", 224, "token_norm_return"),
    ],
)  # fmt: skip
def test_networks_that_fall_back_are_not_calibrated(timm: ModuleType, name: str, resolution: int, sign: str):
    prediction = predict(IPHONE12, [network(timm, name, resolution)])
    assert prediction.status == "not calibrated"
    assert prediction.reason.startswith(sign.replace("_", " ") + " at ")
    assert prediction.latency_s is None and prediction.high_s is None and prediction.shares == ()
    assert 0 < prediction.low_s < 2e-3  # a roofline: below anything that was measured


def test_every_refused_row_of_the_table_took_longer_than_the_lower_bound(timm: ModuleType):
    from vitscope.latency.table import load_table

    rows = [row for row in load_table(IPHONE12).rows if row.sign and row.network.pixels == 224 * 224]
    fastest = {row.network.name: min(r.latency_s for r in rows if r.network == row.network) for row in rows}
    for name in ("deit_tiny_patch16_224", "mobilenetv3_small_100", "resmlp_24_224", "convnext_tiny"):
        assert predict(IPHONE12, [network(timm, name)]).low_s < fastest[name]


def test_channels_are_padded_to_lanes_in_each_group():
    def laned(kind: str, depth: int, out_channels: int, groups: int) -> float:
        channels = Geometry(1, depth * groups, out_channels, groups=groups)
        return lane_macs(Kernel(kind, "", 6000, 0, 0, 0, depth, (), geometry=channels), 16)  # type: ignore[arg-type]

    assert laned("conv", 3, 24, 1) == pytest.approx(6000 * 16 / 3 * 32 / 24)  # a stem: 3 of 16, 24 of 32
    assert laned("pointwise", 64, 32, 1) == 6000
    assert laned("grouped", 4, 128, 32) == pytest.approx(6000 * (16 / 4) ** 2)  # 32 groups of 4
    assert laned("depthwise", 1, 32, 32) == 6000  # the taps are its price
    assert lane_macs(Kernel("conv", "", 6000, 0, 0, 0, 3, ()), 16) == 6000  # channels not known


def test_elements_without_products_cost_on_the_chip_alone():
    c = replace(FITTED, spill="kernel", knee_bytes=1000, vector_s=1e-9, kernel_s=0.0)
    stays = Kernel("activation", "", 0, 250, 0, 250, 1, ())
    assert coefficients_cost(c, 2, stays).start_s == pytest.approx(250e-9)
    leaves = replace(stays, reads=251)  # 1,002 bytes: now memory is the price
    assert coefficients_cost(c, 2, leaves).start_s == 0.0
    assert coefficients_cost(c, 2, leaves).traffic_s == pytest.approx(1002 * c.spilled_byte_s)
    assert coefficients_cost(c, 2, replace(stays, kind="matmul")).start_s == 0.0


def test_without_a_fit_there_is_a_bound_and_no_latency():
    device = load_device("raspberry_pi5")
    graph = graph_of(block(64), 1, 64, 28, 28)
    found = predict(device, [graph])
    assert (found.status, found.latency_s, found.high_s, found.interval) == ("not calibrated", None, None, None)
    assert "roofline only" in found.reason
    # 64 · 256 + 256 · 64 pointwise and 256 · 9 depthwise MACs a position, all of them faster than their weights
    macs = 28 * 28 * (2 * 64 * 256 + 256 * 9)
    peak, bandwidth = device.fact("peak_macs_per_s"), device.fact("memory_bytes_per_s")
    assert peak and bandwidth and found.low_s == pytest.approx(macs / peak)
    assert difference(device, [graph], [graph]).verdict == "cannot be compared"


def test_signs_continue_over_the_border_of_segments():
    norm = graph_of(nn.LayerNorm(8), 1, 4, 8)
    conv = graph_of(nn.Conv2d(8, 8, 1), 1, 8, 2, 2)
    assert total_signs([norm, conv])["token_norm_return"] == 1
    assert total_signs([conv, norm])["token_norm_return"] == 0
    assert total_signs([norm, graph_of(nn.ReLU(), 1, 8), conv, conv, norm])["token_norm_return"] == 1
    assert tuple(total_signs([])) == SIGNS


class Rolled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.roll(x, 1, 2)


class Dynamic(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, x[:, :, :3, :3].mean(0, keepdim=True).expand(4, -1, -1, -1))


@pytest.mark.parametrize(
    ("module", "sign"),
    [
        (nn.Hardswish(), "hard_activation"), (nn.Hardsigmoid(), "hard_activation"), (Rolled(), "window"),
        (nn.Unfold(3), "window"), (nn.Conv2d(4, 4, 13, padding=6), "large_kernel"), (nn.MaxPool2d(14), "large_pool"),
        (nn.Conv2d(4, 4, 3, dilation=2), "dilated"), (Dynamic(), "dynamic_weight"),
    ],
)  # fmt: skip
def test_each_sign_is_seen(module: nn.Module, sign: str):
    found = total_signs([graph_of(module, 1, 4, 28, 28)])
    assert found[sign] >= 1, found  # type: ignore[index]
    assert predict(IPHONE12, [graph_of(module, 1, 4, 28, 28)]).status == "not calibrated"


def test_an_unknown_operation_lowers_the_coverage_and_forbids_a_number():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(nn.functional.relu(x))

    prediction = predict(IPHONE12, [graph_of(Odd(), 1, 3, 8, 8)])
    assert prediction.status == "not calibrated" and prediction.reason.startswith("unknown op at")
    assert prediction.coverage == pytest.approx(0.5)  # relu and the unknown one move the same bytes


def test_batch_and_range():
    prediction = predict(IPHONE12, [graph_of(block(32), 8, 32, 14, 14)])
    assert (prediction.status, prediction.batch) == ("not calibrated", 8)
    assert prediction.reason == "batch 8: the fit has seen batch 1 only"
    tiny = predict(IPHONE12, [graph_of(block(8), 1, 8, 224, 224)])
    assert tiny.status == "out of range" and tiny.latency_s is None
    assert tiny.reason.startswith("weight bytes ")


# Segments


@pytest.mark.parametrize("name", ["efficientformerv2_s1", "efficientformer_l1", "mobilenetv2_100"])
def test_the_segments_of_a_spec_have_the_kernels_of_the_whole_network(name: str):
    from vitscope.model import build, fuse
    from vitscope.profile import deploy_graphs
    from vitscope.spec import load_spec

    spec = load_spec(name)
    with torch.device("meta"):
        whole = trace(fuse(build(spec)), torch.empty(1, *spec.input))
    segments = deploy_graphs(spec)
    assert kernel_counts(IPHONE12, segments) == kernel_counts(IPHONE12, [whole])
    by_segment, at_once = predict(IPHONE12, segments), predict(IPHONE12, [whole])
    assert by_segment.latency_s == pytest.approx(at_once.latency_s, rel=1e-9)
    assert len(by_segment.shares) == len(segments)


@pytest.mark.parametrize("name", ["efficientformerv2_s1", "efficientformer_l1", "mobilenetv2_100"])
def test_our_networks_cost_what_those_of_timm_cost(timm: ModuleType, name: str):
    from vitscope.profile import deploy_graphs
    from vitscope.spec import load_spec

    ours, theirs = predict(IPHONE12, deploy_graphs(load_spec(name))), predict(IPHONE12, [network(timm, name)])
    # heads of distillation are merged in our deploy form and two in timm's
    assert ours.latency_s == pytest.approx(theirs.latency_s, rel=0.04)


# Differences


def test_segments_that_two_networks_share_change_nothing():
    first, second, third = (graph_of(block(width), 1, width, 28, 28) for width in (32, 48, 64))
    device = replace(IPHONE12, ranges=())
    a, b = [first, first, second], [second, third, first]  # order does not count, numbers do
    found = difference(device, a, b)
    assert found.delta_s is not None and found.high_s is not None and device.held_out is not None
    whole = unshared_seconds(device, kernel_counts(device, a), kernel_counts(device, b))
    assert whole > 0
    assert found.high_s - found.delta_s == pytest.approx(device.held_out.difference * whole)


def test_a_network_does_not_differ_from_itself_and_shared_kernels_cancel(timm: ModuleType):
    s1 = network(timm, "efficientformerv2_s1")
    same = difference(IPHONE12, [s1], [s1])
    assert (same.delta_s, same.low_s, same.high_s) == (0, 0, 0)
    assert same.verdict == "no difference that the predictor can tell"
    s0, s2 = network(timm, "efficientformerv2_s0"), network(timm, "efficientformerv2_s2")
    assert difference(IPHONE12, [s1], [s2]).verdict == "A faster"
    assert difference(IPHONE12, [s1], [s0]).verdict == "B faster"
    extra = graph_of(block(120), 1, 120, 14, 14)
    one = difference(IPHONE12, [s1], [s1, extra])
    assert one.verdict == "A faster"  # only the extra block is uncertain
    assert unshared_seconds(
        IPHONE12, kernel_counts(IPHONE12, [s1]), kernel_counts(IPHONE12, [s1, extra])
    ) == pytest.approx(
        sum(
            c.traffic_s + c.compute_s + c.start_s
            for c in (kernel_cost(IPHONE12, k) for k in lower(extra, IPHONE12.rules))
        )
    )


def test_similar_networks_of_two_families_cannot_be_told_apart(timm: ModuleType):
    a, b = network(timm, "efficientformerv2_s1"), network(timm, "repvit_m1_0")
    assert difference(IPHONE12, [a], [b]).verdict == "no difference that the predictor can tell"


def test_what_is_not_calibrated_cannot_be_compared(timm: ModuleType):
    a, b = network(timm, "efficientformerv2_s1"), network(timm, "deit_tiny_patch16_224")
    assert difference(IPHONE12, [a], [b]).verdict == "cannot be compared"


# The path that a warm command takes


def test_prediction_imports_nothing_heavy():
    code = (
        "import sys; import vitscope.latency.predict, vitscope.latency.difference; "
        "from vitscope.latency.device import load_device; load_device('iphone12'); "
        "print([m for m in ('torch', 'numpy', 'scipy', 'pandas', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
