"""The interval of a latency, and the signs that it is not to be trusted: on samples whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vitscope.measure.record import Block, Protocol, State
from vitscope.measure.statistics import (
    Advice,
    advise,
    bimodality,
    drift,
    interval,
    outlying_blocks,
    process_medians,
    spread,
    summarize,
)


def blocks(processes: Sequence[Sequence[Sequence[float] | np.ndarray]], step_s: float = 1.0) -> list[Block]:
    """processes[p][b] are the samples of block b of process p."""
    made: list[Block] = []
    for process, parts in enumerate(processes):
        for samples in parts:
            order = len(made)
            made.append(Block(process=process, order=order, started_s=order * step_s, samples_s=tuple(samples)))
    return made


def noisy(
    random: np.random.Generator, *, processes: int = 5, parts: int = 1, between: float = 0.02, within: float = 0.01
) -> list[Block]:
    centres = np.exp(random.normal(0, between, processes))
    return blocks([[centre * np.exp(random.normal(0, within, 60)) for _ in range(parts)] for centre in centres])


def advice(made: list[Block], **options: object) -> Advice:
    return advise(made, summarize(made), Protocol(), **options)  # type: ignore[arg-type]


def test_a_process_counts_once_however_many_samples_it_has() -> None:
    made = blocks([[[1.0] * 500], [[2.0] * 3], [[3.0] * 3]])
    assert process_medians(made) == {0: 1.0, 1: 2.0, 2: 3.0}
    summary = summarize(made)
    assert summary.latency_p50_s == 2.0
    assert (summary.latency_min_s, summary.samples) == (1.0, 506)
    assert summary.low_s <= 2.0 <= summary.high_s


def test_p90_is_of_all_samples() -> None:
    made = blocks([[list(range(1, 102))]])
    assert summarize(made).latency_p90_s == 91.0


def test_the_same_samples_give_the_same_interval() -> None:
    made = noisy(np.random.default_rng(0))
    assert interval(made, seed=3) == interval(made, seed=3) != interval(made, seed=4)


def test_equal_processes_leave_no_interval_and_more_of_them_a_narrower_one() -> None:
    assert interval(blocks([[[2.0] * 9]] * 4)) == pytest.approx((2.0, 2.0))
    few, many = (noisy(np.random.default_rng(1), processes=number) for number in (4, 64))
    width = [high - low for low, high in (interval(few), interval(many))]
    assert width[1] < width[0] / 2


def test_two_processes_are_not_enough_for_a_narrow_interval() -> None:
    low, high = spread([np.array([0.0]), np.array([0.1])])
    assert low < -0.3 and high > 0.4  # Student's t of one degree of freedom is 12.7


def test_the_interval_holds_the_truth_and_repetitions_agree_nine_times_in_ten() -> None:
    """200 measurements of a latency of 1 s that varies by 2 % between processes."""
    random = np.random.default_rng(2)
    found = [interval(noisy(random), seed=n) for n in range(200)]
    assert np.mean([low <= 1.0 <= high for low, high in found]) >= 0.9
    assert np.mean([a[0] <= b[1] and b[0] <= a[1] for a, b in pairwise(found)]) >= 0.97
    assert np.median([high - low for low, high in found]) < 0.06  # it says something: ±3 % of 2 % noise


def test_a_single_process_has_an_interval_and_a_doubt() -> None:
    made = noisy(np.random.default_rng(3), processes=1)
    low, high = interval(made)
    assert low < high
    found = advice(made)
    assert found.unstable and found.warnings[0].startswith("1 process: what varies between them is not known")


def test_a_quiet_measurement_has_no_warning() -> None:
    made = noisy(np.random.default_rng(4), parts=2, between=0.005)
    assert advice(made, warmed=[True] * 5, cores=2) == Advice((), False)


def test_processes_that_disagree_make_it_unstable() -> None:
    made = noisy(np.random.default_rng(5), between=0.2)
    found = advice(made)
    assert found.unstable and any("the processes disagree" in text for text in found.warnings)


@pytest.mark.parametrize(("change", "word"), [(0.2, "slower"), (-0.2, "faster")])
def test_drift_has_a_size_and_a_direction(change: float, word: str) -> None:
    random = np.random.default_rng(6)
    made = blocks([[(1 + change * n / 9) * np.exp(random.normal(0, 0.005, 50))] for n in range(10)])
    trend = drift(made)
    assert trend == pytest.approx(change / (1 + change / 2), rel=0.1)
    found = advice(made)
    assert found.unstable and any(word in text for text in found.warnings)


def test_noise_is_no_drift() -> None:
    random = np.random.default_rng(7)
    trends = [drift(noisy(random, processes=8)) for _ in range(200)]
    assert sum(trend is not None for trend in trends) <= 20  # 1 in 20 is what chance may give
    assert drift(blocks([[[1.0]], [[2.0]], [[3.0]], [[4.0]]])) is None  # four in order happen once in twelve


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_two_modes_are_found_with_their_distance(share: float) -> None:
    random = np.random.default_rng(8)
    slow = random.random(400) < share
    made = blocks([[np.where(slow, 1.3, 1.0) * np.exp(random.normal(0, 0.01, 400))]])
    assert bimodality(made) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", ["normal", "uniform", "tail", "few", "close"])
def test_one_mode_of_any_shape_is_one(kind: str) -> None:
    random = np.random.default_rng(9)
    values = {
        "normal": np.exp(random.normal(0, 0.1, 400)),
        "uniform": random.uniform(1, 2, 400),
        "tail": 1 + random.exponential(0.2, 400),
        "few": np.where(np.arange(400) < 12, 3.0, 1.0) * np.exp(random.normal(0, 0.01, 400)),  # outliers, no mode
        "close": np.where(np.arange(400) < 200, 1.02, 1.0),  # 2 % apart: too near to matter
    }[kind]
    assert bimodality(blocks([[values]])) is None


def test_outliers_are_counted_by_block_and_never_dropped() -> None:
    calm = list(1 + np.random.default_rng(10).normal(0, 0.01, 100))
    wild = [*calm[:97], 9.0, 9.0, 9.0]
    one = [*calm[:99], 9.0]  # one in a hundred is not more than 1 %
    made = blocks([[calm], [wild], [one]])
    assert outlying_blocks(made) == 1
    assert summarize(made).samples == 300
    assert any("1 of 3 blocks have outliers" in text for text in advice(made).warnings)


def test_the_state_of_the_machine_advises() -> None:
    made = noisy(np.random.default_rng(11), between=0.005)

    def told(before: State, after: State, **options: object) -> str:
        return "; ".join(advice([replace(block, before=before, after=after) for block in made], **options).warnings)

    calm = State(clock_hz=2e9, load=0.9, probe_s=1e-3)
    assert told(calm, calm) == ""
    assert "the clock moved by 5" in told(calm, replace(calm, clock_hz=1.9e9))
    assert "the speed of the core moved" in told(calm, replace(calm, probe_s=1.05e-3))
    assert "load average 3.0 for 1 thread" in told(calm, replace(calm, load=3.0))
    assert "thermal state severe" in told(calm, replace(calm, thermal_status="severe"))
    assert "4 threads on 2 cores" in told(calm, calm, threads=4, cores=2)
    assert "2 of 3 warm-ups were not stable" in told(calm, calm, warmed=[True, False, False])


def test_means_are_named_as_means() -> None:
    made = [replace(block, averaged=50) for block in noisy(np.random.default_rng(12))]
    assert any("means of up to 50 inferences" in text for text in advice(made).warnings)
