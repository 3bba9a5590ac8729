"""Costs by class of kernel: the formula, the correction near timed kernels, and their place in a device file."""

from __future__ import annotations

from dataclasses import replace
from math import exp

import pytest
import yaml

from vitscope.errors import UsageError
from vitscope.latency.class_cost import (
    FUSED,
    PRODUCTS,
    ClassCost,
    ClassCosts,
    Correction,
    Memory,
    Point,
    axes_of,
    class_of,
    parent_of,
    terms_and_rows,
    work_of,
)
from vitscope.latency.class_cost_file import class_lines, parse_classes
from vitscope.latency.fields import Fields
from vitscope.latency.geometry import Geometry, matmul_geometry, softmax_geometry
from vitscope.latency.kernels import Kernel

MEMORY = Memory(
    near_byte_s=1e-11, farther=((1e6, 2e-11), (1e7, 1e-10)), cache_bytes=1e7, cold_call_s=3e-5, cold_start_s=1e-6,
    spill_byte_s=2e-11, spill_product_byte_s=1e-11, arena_byte_s=4e-11, window_bytes=4e4, window_more=0.5,
)  # fmt: skip


def pointwise(before: int, after: int, side: int, epilogue: tuple[str, ...] = ()) -> Kernel:
    positions = side * side
    return Kernel(
        "pointwise", "", before * after * positions, before * positions, before * after + after, after * positions,
        before, (), "convolution", epilogue, Geometry(1, before, after, in_size=(side, side), out_size=(side, side)),
    )  # fmt: skip


COSTS = ClassCosts(
    floor_s=2e-6,
    memory=MEMORY,
    classes={
        "pointwise": ClassCost(start_s=1e-6, work_s=1e-11, few_terms=4, few_rows=2, cold_byte_s=5e-11, channel_tile=8),
        "softmax": ClassCost(start_s=1e-6, work_s=1e-9, few_terms=16),
        FUSED + "silu": ClassCost(start_s=0, work_s=1e-10),
    },
    corrections={},
)


def test_a_kernel_takes_its_start_and_the_longer_of_computing_and_moving() -> None:
    kernel = pointwise(64, 128, 14)
    start, compute, near, farther = COSTS.parts(kernel, 4)  # type: ignore[misc]
    assert start == 1e-6
    assert compute == pytest.approx(1e-11 * kernel.macs * (1 + 4 / 64) * (1 + 2 / 196))
    touched = 4 * (kernel.reads + kernel.writes + kernel.weights)
    assert near == pytest.approx(1e-11 * touched)
    beyond = {knee: touched**2 / (touched**2 + knee**2) for knee in (1e6, 1e7)}
    assert farther == pytest.approx(touched * (2e-11 * beyond[1e6] + 1e-10 * beyond[1e7]))
    assert COSTS.kernel_s(kernel, 4) == pytest.approx(start + max(compute, near) + farther)


def test_a_network_that_the_caches_do_not_hold_waits_for_what_they_have_lost() -> None:
    kernel = pointwise(64, 128, 14)
    own = COSTS.kernel_s(kernel, 4)
    assert own
    few, many = [kernel] * 2, [kernel] * 2000  # 66 kB and 66 MB of weights, and three times as much written
    arena, through = 8 * (kernel.reads + kernel.writes), 4 * (kernel.weights + kernel.writes)
    assert COSTS.total_s(few, 4) == pytest.approx(2e-6 + 2 * own, rel=1e-2)
    each = 1e-6 + 4 * kernel.weights * 5e-11 + 4 * kernel.writes * 1e-11
    waiting = 3e-5 + 2000 * each + arena * 4e-11
    assert COSTS.total_s(many, 4) == pytest.approx(2e-6 + 2000 * own + waiting, rel=1e-2)
    half = COSTS.cold_s(few, 4, swept_bytes=1e7 - 2 * through)
    assert half == pytest.approx((3e-5 + 2 * each + arena * 4e-11) / 2)
    softmax = replace(kernel, kind="softmax", weights=0)
    assert COSTS.waiting_s(softmax, 4) == pytest.approx(1e-6 + 4 * kernel.writes * 2e-11)


@pytest.mark.parametrize(("channels", "window", "longer"), [(64, 5, 1.0), (1024, 5, 1.5), (1024, 7, 1.0)])
def test_a_window_that_the_nearest_cache_does_not_hold_is_fetched_anew(
    channels: int, window: int, longer: float
) -> None:
    """Of 40 kB, with its weights; a window of over 5×5 is gone through part by part."""
    size = Geometry(1, channels, channels, (window, window), groups=channels, in_size=(14, 14), out_size=(14, 14))
    macs, n = window * window * channels * 196, channels * 196
    kernel = Kernel("depthwise", "", macs, n, (window * window + 1) * channels, n, 1, (), "convolution", (), size)
    costs = replace(COSTS, classes={class_of(kernel): ClassCost(start_s=0.0, work_s=1e-11)})
    parts = costs.parts(kernel, 4)
    assert parts and parts[1] == pytest.approx(longer * 1e-11 * macs, rel=1e-2)


def test_the_image_is_fetched_by_what_turns_it() -> None:
    size = Geometry(1, 3, 3, in_size=(224, 224), out_size=(224, 224))
    n = 3 * 224 * 224
    turned = Kernel("copy", "", 0, n, 0, n, 1, (), "reorder", (), size)
    costs = replace(COSTS, classes={"copy reorder image": ClassCost(start_s=0.0, work_s=1e-10, cold_byte_s=5e-11)})
    assert costs.waiting_s(turned, 4) == pytest.approx(1e-6 + 4 * n * 5e-11 + 4 * n * 2e-11)


def test_channels_are_padded_to_the_tile() -> None:
    size = pointwise(64, 12, 14).geometry
    assert size is not None
    assert work_of(pointwise(64, 12, 14), size, 8, 1) == pytest.approx(pointwise(64, 16, 14).macs)
    assert work_of(pointwise(64, 12, 14), size, 1, 1) == pointwise(64, 12, 14).macs
    assert work_of(pointwise(64, 12, 14), size, 1, 100) == pytest.approx(64 * 12 * 200)


def test_what_runs_while_a_kernel_writes_costs_by_element() -> None:
    plain, fused = (COSTS.parts(pointwise(64, 128, 14, ops), 4) for ops in ((), ("silu",)))
    assert plain and fused and fused[1] - plain[1] == pytest.approx(1e-10 * 128 * 196)


def test_a_softmax_of_short_rows_costs_more_for_each_element() -> None:
    def softmax(rows: int, length: int) -> Kernel:
        n = rows * length
        return Kernel("softmax", "", 0, n, 0, n, 1, (), "_softmax", (), softmax_geometry(rows, length))

    short, long = COSTS.parts(softmax(784, 16), 4), COSTS.parts(softmax(16, 784), 4)
    assert short and long and short[1] / long[1] == pytest.approx(2 / (1 + 16 / 784))


@pytest.mark.parametrize(
    "kernel",
    [
        replace(pointwise(64, 64, 7), kind="depthwise"),  # a class that was not timed
        replace(pointwise(64, 64, 7), geometry=None),  # of a table of counts
    ],
)
def test_an_unknown_kernel_has_no_time(kernel: Kernel) -> None:
    assert COSTS.kernel_s(kernel, 4) is None


def test_products_are_priced_by_kind_and_the_rest_by_operation() -> None:
    assert class_of(pointwise(8, 8, 7)) == "pointwise" and class_of(pointwise(8, 8, 1)) == "pointwise row"
    size = matmul_geometry(4, 49, 32, 49)
    assert class_of(Kernel("matmul", "", 1, 1, 0, 1, 32, (), "bmm", (), size)) == "matmul"
    assert class_of(Kernel("activation", "", 0, 1, 0, 1, 1, (), "gelu_tanh", (), size)) == "activation gelu_tanh"
    assert class_of(Kernel("elementwise", "", 0, 2, 0, 1, 1, (), "add_", (), size)) == "elementwise"
    assert class_of(Kernel("elementwise", "", 0, 8, 2, 8, 1, (), "div", (), size)) == "elementwise div broadcast"
    assert class_of(Kernel("elementwise", "", 0, 4, 1, 4, 1, (), "add", (), size)) == "elementwise scalar"
    assert class_of(Kernel("elementwise", "", 0, 8, 2, 8, 1, (), "add", (), size)) == "elementwise broadcast"
    assert class_of(Kernel("copy", "", 0, 1, 0, 1, 1, (), "clone", (), size)) == "copy"
    assert class_of(Kernel("copy", "", 0, 1, 0, 1, 1, (), "split", (), size)) == "copy slice"
    assert class_of(Kernel("copy", "", 0, 1, 0, 1, 1, (), "select", (), size)) == "copy unbind"
    assert class_of(Kernel("copy", "", 0, 1, 0, 1, 1, (), "permute", (), size)) == "copy permute"
    assert class_of(Kernel("copy", "", 0, 1, 0, 1, 1, (), "permute_rows", (), size)) == "copy permute_rows"


@pytest.mark.parametrize(("length", "name"), [(64, "softmax"), (16, "softmax"), (49, "softmax ragged")])
def test_a_softmax_whose_rows_fill_no_vector_is_apart(length: int, name: str) -> None:
    assert class_of(Kernel("softmax", "", 0, 1, 0, 1, 1, (), "_softmax", (), softmax_geometry(8, length))) == name


def test_what_reduces_otherwise_than_to_means_is_apart() -> None:
    """ExecuTorch has means of XNNPACK's, and sums of its own."""

    def reduced(main: str, window: tuple[int, int]) -> str:
        size = Geometry(1, 8, 8, window, window, in_size=(4, 6), out_size=(4 // window[0], 6 // window[1]))
        return class_of(Kernel("reduce", "", 0, 192, 0, 8, 1, (), main, (), size))

    assert reduced("mean", (4, 6)) == reduced("mean_squared", (4, 6)) == "reduce map"
    assert reduced("sum", (1, 6)) == "reduce map sum" and reduced("amax", (1, 1)) == "reduce rows amax"
    assert parent_of("reduce map sum", {"reduce map", "reduce rows"}) == "reduce map"


def test_a_depthwise_kernel_goes_through_its_channels_together_or_through_the_results_of_one() -> None:
    def terms(after: int) -> float:
        size = Geometry(1, 32, after, (3, 3), groups=32, in_size=(8, 8), out_size=(8, 8))
        return terms_and_rows(Kernel("depthwise", "", 1, 1, 1, 1, 1, (), "convolution", (), size), size)[0]

    assert terms(32) == 32 and terms(128) == 4


@pytest.mark.parametrize(
    ("kind", "geometry", "name"),
    [
        ("depthwise", Geometry(1, 32, 32, (3, 3), groups=32, in_size=(8, 8), out_size=(8, 8)), "depthwise"),
        ("depthwise", Geometry(1, 30, 30, (5, 5), groups=30, in_size=(8, 8), out_size=(8, 8)), "depthwise ragged 5x5"),
        ("depthwise", Geometry(1, 32, 32, (5, 5), (2, 2), groups=32, in_size=(8, 8), out_size=(4, 4)),
         "depthwise strided 5x5"),
        ("depthwise", Geometry(1, 32, 32, (7, 7), groups=32, in_size=(8, 8), out_size=(8, 8)), "depthwise wide"),
        ("depthwise", Geometry(1, 32, 64, (5, 5), groups=32, in_size=(8, 8), out_size=(8, 8)), "depthwise multiplied"),
        ("depthwise", Geometry(1, 32, 32, (4, 4), (2, 2), groups=32, in_size=(8, 8), out_size=(16, 16)),
         "depthwise transposed"),
        ("conv", Geometry(1, 32, 32, (3, 3), in_size=(8, 8), out_size=(8, 8)), "conv"),
        ("conv", Geometry(1, 32, 32, (4, 4), (2, 2), in_size=(8, 8), out_size=(16, 16)), "conv transposed"),
        ("grouped", Geometry(1, 32, 32, (3, 3), groups=4, in_size=(8, 8), out_size=(8, 8)), "grouped ragged"),
        ("grouped", Geometry(1, 64, 64, (3, 3), groups=4, in_size=(8, 8), out_size=(8, 8)), "grouped"),
    ],
)  # fmt: skip
def test_convolutions_are_told_apart_by_what_runtimes_have_other_code_for(
    kind: str, geometry: Geometry, name: str
) -> None:
    found = class_of(Kernel(kind, "", 1, 1, 1, 1, 1, (), "convolution", (), geometry))  # type: ignore[arg-type]
    assert found == name and name in PRODUCTS


def test_one_value_a_row_is_not_one_a_channel() -> None:
    """A mean and its rows, as a layer norm that is taken apart has them; and an image is not rows."""
    rows = Geometry(1, 64, 64, in_size=(49, 1), out_size=(49, 1))
    image = Geometry(1, 64, 64, in_size=(7, 7), out_size=(7, 7))
    n = 64 * 49

    def sub(reads: int, size: Geometry) -> str:
        return class_of(Kernel("elementwise", "", 0, reads, 0, n, 1, (), "sub", (), size))

    assert sub(n + 49, rows) == "elementwise broadcast rows"
    assert sub(n + 64, rows) == sub(n + 64, image) == "elementwise broadcast"
    table = Kernel("elementwise", "", 0, n, n, n, 1, (), "add", (), rows)
    assert class_of(table) == "elementwise"  # one constant an element is as much to read as another map


def test_a_class_may_be_a_kind_of_another() -> None:
    names = {"depthwise", "depthwise strided", "elementwise", "elementwise div", "activation relu"}
    assert parent_of("depthwise strided", names) == parent_of("depthwise wide", names) == "depthwise"
    assert parent_of("elementwise div scalar", names) == "elementwise div"
    assert parent_of("depthwise transposed", names) is None
    assert parent_of("depthwise", names) is parent_of("activation gelu", names) is None


def test_depthwise_kernels_lie_apart_also_by_the_power_of_two_in_their_channels() -> None:
    def at(channels: int) -> tuple[float, ...]:
        return axes_of(Geometry(1, channels, channels, (7, 7), groups=channels, in_size=(16, 16), out_size=(16, 16)))

    assert at(192)[0] == at(320)[0] < at(256)[0]
    assert at(192)[1:] < at(256)[1:]
    pointwise = Geometry(1, 256, 192, in_size=(16, 16), out_size=(16, 16))
    assert axes_of(pointwise)[0] == at(256)[0]  # there it is how many channels are summed


def test_a_correction_holds_near_its_points_and_nowhere_else() -> None:
    near, far = pointwise(64, 128, 14), pointwise(512, 2048, 112)
    assert near.geometry and far.geometry
    corrected = replace(COSTS, corrections={"pointwise": Correction(1.0, (Point(axes_of(near.geometry), 0.25),))})
    assert corrected.kernel_s(near, 4) == pytest.approx(exp(0.25) * (COSTS.kernel_s(near, 4) or 0))
    assert corrected.kernel_s(far, 4) == pytest.approx(COSTS.kernel_s(far, 4), rel=1e-4)


def test_a_refinement_is_of_every_kernel() -> None:
    kernel = pointwise(64, 128, 14)
    alone = COSTS.kernel_s(kernel, 4)
    assert alone and replace(COSTS, scale=1.1, more_s=1e-6).kernel_s(kernel, 4) == pytest.approx(1.1 * alone + 1e-6)


# ---- in a device file


def written(costs: ClassCosts) -> Fields:
    document = yaml.safe_load("fit:\n  classes:\n" + "\n".join(class_lines(costs)))
    return Fields("my.yaml", document["fit"]["classes"])


def test_costs_come_back_from_a_file() -> None:
    point = Point((1.0, 2.5, -0.125, 0.0, 0.0, 0.0, 0.5), -0.25)
    costs = replace(COSTS, corrections={"pointwise": Correction(1.5, (point, point))}, scale=1.05, more_s=-2e-7)
    assert parse_classes(written(costs)) == costs


PLAIN = {"start_s": 0, "work_s": 1, "few_terms": 0, "few_rows": 0, "cold_byte_s": 0, "channel_tile": 1, "row_tile": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"costs": {"pointwise": {**PLAIN, "channel_tile": 0}}}, "channel_tile must be a whole number of at least 1"),
        ({"floor_s": -1e-6}, "floor_s must be a number above 0"),
        ({"costs": {"pointwise": {**PLAIN, "work_s": -1}}}, "pointwise.work_s"),
        ({"costs": {"pointwise": {"start_s": 0}}}, "pointwise.work_s is missing"),
        ({"memory": {"near_byte_s": 1}}, "farther is missing"),
        ({"memory": {"near_byte_s": 1, "farther": [[0, 1]]}}, "pairs of positive numbers"),
        ({"corrections": {"pointwise": {"length": 1, "points": [[1, 2], [1]]}}}, "rows of numbers"),
        ({"corrections": {"pointwise": {"length": 1, "points": [["x", 2]]}}}, "rows of numbers"),
        ({"corrections": {"pointwise": {"length": 1, "points": 3}}}, "rows of numbers"),
        ({"more": 1}, "unknown key more"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_one_line(change: dict[str, object], said: str) -> None:
    fields = yaml.safe_load("\n".join(line[4:] for line in class_lines(COSTS)))
    with pytest.raises(UsageError, match=said) as error:
        parse_classes(Fields("my.yaml", {**fields, **change}))
    assert str(error.value).startswith("my.yaml: ") and "\n" not in str(error.value)
