"""Fitting the costs of kernels: known costs are found again from times made of them, and held-out families are held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp, log2
from pathlib import Path
from random import Random

import pytest

from vitscope.calibrate.choose import Choice, hold_out, spread
from vitscope.calibrate.correction import residuals
from vitscope.calibrate.demand import Demand, rough_s
from vitscope.calibrate.fit import fit
from vitscope.calibrate.held_out import leave_families_out, worth_correcting
from vitscope.calibrate.record import Time, Timed
from vitscope.calibrate.refine import Whole, refine
from vitscope.calibrate.refine import leave_families_out as leave_out_wholes
from vitscope.calibrate.times import read_header, read_timed, write_timed
from vitscope.errors import UsageError
from vitscope.latency.class_cost import ClassCost, ClassCosts, Memory, class_of
from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel

FLOOR_S = 3e-6
SWEPT_BYTES = 4_000_000, 32_000_000
TRUTH = ClassCosts(
    floor_s=FLOOR_S,
    memory=Memory(
        near_byte_s=2e-11,
        farther=((1e6, 2e-11), (1e7, 6e-11)),
        cache_bytes=1.2e7,
        cold_call_s=2e-5,
        cold_start_s=5e-7,
        spill_byte_s=1e-11,
        spill_product_byte_s=3e-12,
        arena_byte_s=4e-11,
        window_bytes=4e4,
        window_more=0.5,
    ),
    classes={
        "pointwise": ClassCost(
            start_s=2e-6, work_s=1 / 90e9, few_terms=12, few_rows=3, cold_byte_s=5e-11, channel_tile=8, row_tile=7
        ),
        "depthwise": ClassCost(start_s=1e-6, work_s=1 / 20e9, few_terms=2, few_rows=5),
        "depthwise ragged": ClassCost(start_s=1e-6, work_s=1 / 12e9, few_terms=2, few_rows=5),
        "elementwise": ClassCost(start_s=1e-6, work_s=1 / 1e9),
    },
    corrections={},
)


def convolution(kind: str, before: int, after: int, side: int) -> Kernel:
    positions = side * side
    size = (side, side)
    if kind == "depthwise":
        geometry = Geometry(1, before, before, (3, 3), groups=before, in_size=size, out_size=size)
        return Kernel("depthwise", "", 9 * before * positions, before * positions, 10 * before, before * positions, 1, (),
                      "convolution", (), geometry)  # fmt: skip
    return Kernel("pointwise", "", before * after * positions, before * positions, before * after + after,
                  after * positions, before, (), "convolution", (),
                  Geometry(1, before, after, in_size=size, out_size=size))  # fmt: skip


def add(channels: int, side: int) -> Kernel:
    n = channels * side * side
    size = Geometry(1, channels, channels, in_size=(side, side), out_size=(side, side))
    return Kernel("elementwise", "", 0, 2 * n, 0, n, 1, (), "add", (), size)


def kernels(seed: int, number: int) -> list[Kernel]:
    random = Random(seed)
    made = []
    for i in range(number):
        before, after = random.randrange(8, 512, 4), random.randrange(8, 512, 4)
        side = random.choice((7, 14, 28, 56))
        kind = ("pointwise", "depthwise", "add")[i % 3]
        made.append(add(before, side) if kind == "add" else convolution(kind, before, after, side))
    return made


def timed(kernel: Kernel, factor: Callable[[Kernel], float] = lambda _: 1.0, noise: float = 0.0) -> Timed:
    """Four copies of a kernel and three additions, as long as TRUTH says they take."""
    own = TRUTH.kernel_s(kernel, 4)
    assert own is not None and kernel.geometry is not None
    sums = (add(kernel.geometry.out_channels, kernel.geometry.out_size[0]),) * 3
    copies = (4, 12, 40)[kernel.writes % 3]  # of weights for a small, a middling and a large network
    everything = (*(kernel,) * copies, *sums)
    extra = copies * own * (factor(kernel) - 1)
    times = [Time(swept, (extra + (TRUTH.total_s(everything, 4, swept) or 0)) * exp(noise)) for swept in SWEPT_BYTES]
    return Timed(wanted=kernel, copies=copies, kernels=everything, times=tuple(times))


def test_known_costs_predict_what_they_have_not_seen() -> None:
    found = fit([timed(kernel) for kernel in kernels(0, 240)], FLOOR_S, 4)
    pointwise = found.classes["pointwise"]
    assert pointwise.channel_tile == 8  # sevens fill every size here, so that nothing says of rows
    for kernel in kernels(1, 30):
        assert found.kernel_s(kernel, 4) == pytest.approx(TRUTH.kernel_s(kernel, 4), rel=0.05)


def test_what_a_large_network_waits_for_is_told_by_probes_with_many_weights() -> None:
    found = fit([timed(kernel) for kernel in kernels(0, 240)], FLOOR_S, 4)
    for copies in (1, 20, 200):
        network = [kernel for kernel in kernels(1, 30) for _ in range(copies)]
        assert found.total_s(network, 4) == pytest.approx(TRUTH.total_s(network, 4), rel=0.05)


def test_a_class_of_few_probes_is_taken_to_be_like_what_it_is_a_kind_of() -> None:
    ragged = [k for k in kernels(0, 120) if class_of(k) == "depthwise ragged"]
    seen = [timed(k) for k in kernels(0, 120) if class_of(k) != "depthwise ragged"]
    found = fit(
        [*seen, timed(ragged[0], noise=1.5)], FLOOR_S, 4
    )  # nearly five times too slow, and nothing says that it is
    whole, part = found.classes["depthwise"], found.classes["depthwise ragged"]
    assert part.start_s < 3 * whole.start_s and part.work_s < 5 * whole.work_s


def test_noise_is_averaged_and_a_slowed_probe_moves_little() -> None:
    random = Random(2)
    seen = [timed(kernel, noise=random.gauss(0, 0.03)) for kernel in kernels(0, 150)]
    seen[5] = timed(seen[5].wanted, noise=1.5)
    found = fit(seen, FLOOR_S, 4)
    errors = [abs(found.kernel_s(k, 4) / TRUTH.kernel_s(k, 4) - 1) for k in kernels(1, 60)]  # type: ignore[operator]
    assert sum(errors) / len(errors) < 0.04


def test_times_that_something_was_seen_to_slow_count_for_less() -> None:
    """A quarter of them, by half, and each the more the more was swept: as memory that is shared with others is slow."""
    random = Random(3)

    def fitted(flagged: bool) -> float:
        seen = [timed(kernel, noise=random.gauss(0, 0.02)) for kernel in kernels(0, 150)]
        for i in range(0, len(seen), 4):
            times = tuple(replace(each, seconds=each.seconds * (1.5 + 0.5 * n)) for n, each in enumerate(seen[i].times))
            seen[i] = replace(seen[i], times=times, slowed=flagged)
        found = fit(seen, FLOOR_S, 4)
        network = kernels(1, 60)
        return abs(found.total_s(network, 4) / TRUTH.total_s(network, 4) - 1)  # type: ignore[operator]

    known, unknown = fitted(True), fitted(False)
    assert known < 0.03 < unknown


def slow_in_between(kernel: Kernel) -> float:
    """What no formula here knows: pointwise kernels of about 128 channels take half as long again."""
    if kernel.kind != "pointwise" or kernel.geometry is None:
        return 1.0
    return 1.0 + 0.5 * exp(-2 * log2(kernel.geometry.out_channels / 128) ** 2)


def test_the_correction_learns_what_the_formula_cannot_say() -> None:
    seen = [timed(kernel, slow_in_between) for kernel in kernels(0, 240)]
    found, formula = fit(seen, FLOOR_S, 4), fit(seen, FLOOR_S, 4, corrected=())
    assert "pointwise" in found.corrections and not formula.corrections
    unseen = [k for k in kernels(3, 120) if k.kind == "pointwise"]

    def error(costs: ClassCosts) -> float:
        truth = [(TRUTH.kernel_s(k, 4) or 0) * slow_in_between(k) for k in unseen]
        return sum(abs((costs.kernel_s(k, 4) or 0) / t - 1) for k, t in zip(unseen, truth, strict=True)) / len(unseen)

    assert error(found) < 0.7 * error(formula)


def test_residuals_are_of_the_wanted_kernel_alone() -> None:
    (found,) = residuals([timed(convolution("pointwise", 128, 128, 28), lambda _: 1.2)], TRUTH, 4)["pointwise"]
    assert exp(found[1]) == pytest.approx(1.2)
    small = convolution("depthwise", 8, 8, 7)
    drowned = Timed(wanted=small, copies=1, kernels=(small, *[add(512, 56)] * 9), times=(Time(0, 1e-2),))
    assert residuals([drowned], TRUTH, 4) == {}


def test_a_class_that_was_not_timed_has_no_total() -> None:
    costs = fit([timed(kernel) for kernel in kernels(0, 60) if kernel.kind != "depthwise"], FLOOR_S, 4)
    assert costs.total_s([convolution("pointwise", 64, 64, 14)], 4) is not None
    assert costs.total_s([convolution("depthwise", 64, 64, 14)], 4) is None


def test_a_family_left_out_leaves_no_trace() -> None:
    """The kernels of family B take twice as long; without it nothing says so, with it everything."""
    all_kernels = kernels(0, 90)
    b = set(all_kernels[::5])
    families = {k: frozenset({"B"} if k in b else {"A"} if i % 2 else {"A", "C"}) for i, k in enumerate(all_kernels)}
    seen = [timed(kernel, lambda kernel: 2.0 if kernel in b else 1.0) for kernel in all_kernels]
    held_out = leave_families_out(seen, lambda kernel: families[kernel], FLOOR_S, 4)
    assert len(held_out) == sum(len(families[kernel]) for kernel in all_kernels)
    of_b = [each for each in held_out if each.family == "B" and each.timed.wanted.kind == "pointwise"]
    for each in of_b:
        assert each.formula_s and each.timed.seconds and each.formula_s < 0.75 * each.timed.seconds


def test_a_correction_is_kept_only_where_it_helps_the_unseen() -> None:
    every = kernels(0, 240)
    names = "ABCDEF"
    families = {kernel: frozenset(names[i % 6]) for i, kernel in enumerate(every)}
    seen = [timed(kernel, slow_in_between, Random(i).gauss(0, 0.02)) for i, kernel in enumerate(every)]
    helped = worth_correcting(leave_families_out(seen, lambda kernel: families[kernel], FLOOR_S, 4))
    assert "pointwise" in helped


def test_refused_probes_say_nothing() -> None:
    seen = [timed(kernel) for kernel in kernels(0, 60)]
    refused = Timed(wanted=seen[0].wanted, copies=0, kernels=(), times=(), reason="no room")
    assert fit([*seen, refused], FLOOR_S, 4) == fit(seen, FLOOR_S, 4)


# ---- whole networks


def wholes(number: int, scale: float, more_s: float) -> list[Whole]:
    """Networks of ten to forty kernels that take `scale` of their sum, and `more_s` for each kernel."""
    made = []
    for i in range(number):
        parts = tuple(kernels(100 + i, 10 + 3 * i))
        alone = TRUTH.total_s(parts, 4)
        assert alone is not None
        seconds = FLOOR_S + scale * (alone - FLOOR_S) + more_s * len(parts)
        made.append(Whole(f"n{i}", "ABCD"[i % 4], parts, seconds))
    return made


def test_whole_networks_tell_what_kernels_alone_do_not() -> None:
    every = wholes(12, 1.08, 1e-6)
    refined = refine(TRUTH, every[:10], 4)
    assert refined.scale == pytest.approx(1.08, abs=0.01)
    for each in every[10:]:
        assert refined.total_s(each.kernels, 4) == pytest.approx(each.measured_s, rel=0.01)
    assert refine(TRUTH, [], 4) == TRUTH
    little = refine(TRUTH, wholes(1, 1.5, 0.0), 4)
    assert 1.0 < little.scale < 1.5


def test_a_refinement_is_judged_on_families_it_has_not_seen() -> None:
    every = wholes(8, 1.08, 0.0)
    odd = [replace(each, measured_s=3 * each.measured_s) if each.family == "A" else each for each in every]
    for each in leave_out_wholes(TRUTH, odd, 4):
        if each.network.family == "A":  # nothing of its factor of three is known
            assert each.refined_s < 1.2 * each.alone_s
        assert each.alone_s == pytest.approx(TRUTH.total_s(each.network.kernels, 4))


# ---- which kernels


def demands(number: int = 90) -> list[Demand]:
    return [Demand(kernel, rough_s(kernel), frozenset({"A"})) for kernel in kernels(0, number)]


def test_what_is_chosen_covers_the_classes_by_their_share_of_the_time() -> None:
    chosen = Choice(demands()).next(30, {})
    assert len({each.kernel for each in chosen}) == 30
    by = {name: sum(class_of(each.kernel) == name for each in chosen) for name in ("pointwise", "depthwise")}
    assert by["pointwise"] > by["depthwise"] > 0


def test_a_class_with_larger_errors_is_timed_more() -> None:
    plain = Choice(demands()).next(30, {})
    pushed = Choice(demands()).next(30, {"depthwise": 10.0})
    count = [sum(each.kernel.kind == "depthwise" for each in found) for found in (plain, pushed)]
    assert count[1] > count[0]


def test_a_few_of_every_class_of_products_are_chosen_however_little_they_weigh() -> None:
    rare = [convolution("depthwise", 100, 100, side) for side in (7, 14, 28, 56, 112)]  # fills no vector of 16
    some = [*demands(), *(Demand(kernel, 1e-12, frozenset({"A"})) for kernel in rare)]
    chosen = Choice(
        [each for each in some if class_of(each.kernel) != "depthwise ragged" or each.weight == 1e-12]
    ).next(30, {})
    assert sum(class_of(each.kernel) == "depthwise ragged" for each in chosen) == 4


def test_one_of_every_other_class_is_chosen_and_then_another_however_little_they_weigh() -> None:
    some = [each for each in demands() if class_of(each.kernel) != "elementwise"]
    rare = [Demand(add(64, side), 1e-12, frozenset({"A"})) for side in (7, 14, 28, 56)]
    choice = Choice([*some, *rare])
    for _ in range(2):
        assert sum(class_of(each.kernel) == "elementwise" for each in choice.next(30, {})) == 1


def test_one_of_each_class_comes_before_a_second_of_any() -> None:
    """Where there is time for few, no class goes without."""
    rare = [Demand(add(64, side), 1e-12, frozenset({"A"})) for side in (7, 14, 28, 56)]
    every = [each for each in demands() if class_of(each.kernel) != "elementwise"] + rare
    classes = [class_of(each.kernel) for each in Choice(every).next(30, {})]
    number = len({class_of(each.kernel) for each in every})
    assert number > 2 and len(set(classes[:number])) == number


def test_the_kernels_held_out_are_timed_between_the_others() -> None:
    every = demands(30)
    chosen, tests = every[:20], every[20:24]
    order = spread(chosen, tests)
    assert [each for each in order if each in chosen] == chosen and len(order) == 24
    assert [order.index(each) for each in tests] == [5, 10, 15, 20]


def test_nothing_is_chosen_twice_or_after_it_was_left_out() -> None:
    every = demands(30)
    choice = Choice(every)
    choice.exclude(every[0])
    choice.cover(every[1])
    first, second = choice.next(20, {}), choice.next(20, {})
    assert len(first) == 20 and len(second) == 8
    assert len({each.kernel for each in (*first, *second)} | {every[0].kernel, every[1].kernel}) == 30


def test_held_out_kernels_are_the_same_for_a_seed_and_the_weighty_ones_more_often() -> None:
    every = demands(90)
    assert hold_out(every, 20, 1) == hold_out(every, 20, 1) != hold_out(every, 20, 2)
    assert len({each.kernel for each in hold_out(every, 20, 1)}) == 20
    drawn = [each.weight for seed in range(30) for each in hold_out(every, 5, seed)]
    assert sum(drawn) / len(drawn) > sum(each.weight for each in every) / len(every)


# ---- the file of times


def test_times_come_back_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    every = [timed(kernel) for kernel in kernels(0, 3)]
    every.append(Timed(wanted=every[0].wanted, copies=0, kernels=(), times=(), reason="refused"))
    file.write_text("{}\n" + "".join(write_timed(each) + "\n" for each in every))
    assert read_timed(file) == every
    file.write_text(file.read_text()[:-20])  # cut in the last line
    assert read_timed(file) == every[:-1]


def test_times_of_another_version_are_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"schema_version": 2, "place": {"threads": 1}, "models": null}\n')
    assert read_header(file)["place"] == {"threads": 1}
    file.write_text('{"schema_version": 1, "place": {"threads": 1}}\n')
    with pytest.raises(UsageError, match=r"t\.jsonl: written by another version of vitscope; .* --again"):
        read_header(file)


def test_another_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("{}\nmodel,latency\na,b\n")
    with pytest.raises(UsageError, match=r"t\.jsonl:2: not the times of a calibration"):
        read_timed(file)
    with pytest.raises(UsageError, match="cannot read"):
        read_timed(tmp_path / "none.jsonl")
