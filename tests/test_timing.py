"""Warm-up and blocks on a scripted clock: nothing here sleeps, and every duration is written down."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import pytest

from vitscope.measure.timing import sample, warm_up


class Script:
    """A clock and a run that takes the next of `durations`; the last one repeats."""

    def __init__(self, durations: Iterable[float]):
        self.now = 100.0
        self._durations: Iterator[float] = iter(durations)
        self._last = 0.0
        self.runs = 0

    def clock(self) -> float:
        return self.now

    def run(self) -> None:
        self._last = next(self._durations, self._last)
        self.now += self._last
        self.runs += 1


def test_a_steady_model_is_warm_after_the_minimum() -> None:
    script = Script([0.01])
    done = warm_up(script.run, min_s=0.5, min_runs=20, tolerance=0.01, limit_s=10, clock=script.clock)
    assert done.stable and 50 <= done.runs <= 51 and done.seconds == pytest.approx(0.01 * done.runs)


def test_slow_models_still_run_the_least_number_of_times() -> None:
    script = Script([0.2])
    done = warm_up(script.run, min_s=0.5, min_runs=20, tolerance=0.01, limit_s=10, clock=script.clock)
    assert (done.runs, done.stable) == (20, True)


def test_it_goes_on_until_two_windows_agree() -> None:
    script = Script([0.04] * 10 + [0.03] * 10 + [0.02] * 10 + [0.01])
    done = warm_up(script.run, min_s=0.1, min_runs=20, tolerance=0.01, limit_s=10, clock=script.clock)
    assert done.stable
    assert done.runs == 50  # windows of ten: 40, 30, 20, 10 and again 10 ms


def test_a_model_that_never_settles_is_stopped_and_told_so() -> None:
    script = Script(0.01 * 1.01**n for n in range(10_000))
    done = warm_up(script.run, min_s=0.5, min_runs=20, tolerance=0.01, limit_s=2, clock=script.clock)
    assert not done.stable
    assert 2 <= done.seconds < 2.1


def test_the_limit_ends_a_warm_up_before_its_least_runs() -> None:
    script = Script([3.0])
    done = warm_up(script.run, min_s=0.5, min_runs=20, tolerance=0.01, limit_s=10, clock=script.clock)
    assert (done.runs, done.stable) == (4, True)  # two windows of two, which agree


def test_one_run_cannot_be_called_stable() -> None:
    script = Script([30.0])
    done = warm_up(script.run, min_s=0.5, min_runs=20, tolerance=0.01, limit_s=10, clock=script.clock)
    assert (done.runs, done.stable) == (1, False)


@pytest.mark.parametrize(
    ("each_s", "min_s", "min_runs", "runs"),
    [(0.25, 1.0, 50, 50), (0.25, 16.0, 50, 64), (0.25, 0.0, 0, 1), (2.0, 1.0, 3, 3)],
)
def test_a_block_is_long_enough_and_has_enough_runs(each_s: float, min_s: float, min_runs: int, runs: int) -> None:
    script = Script([each_s])
    assert sample(script.run, min_s=min_s, min_runs=min_runs, clock=script.clock) == [each_s] * runs
    assert script.runs == runs


def test_what_is_done_between_runs_is_not_timed() -> None:
    script = Script([0.01])
    done = []

    def between() -> None:
        done.append(script.runs)
        script.now += 5.0

    assert sample(script.run, min_s=0.03, min_runs=3, between=between, clock=script.clock) == pytest.approx([0.01] * 3)
    assert done == [0, 1, 2]


def test_samples_come_in_order_and_one_by_one() -> None:
    script = Script([1.0, 4.0, 2.0])
    assert sample(script.run, min_s=0, min_runs=3, clock=script.clock) == [1.0, 4.0, 2.0]


def test_the_collector_rests_during_a_block_and_comes_back_even_after_a_failure() -> None:
    seen = []

    def run() -> None:
        seen.append(gc.isenabled())
        if len(seen) == 4:
            raise RuntimeError

    assert gc.isenabled()
    sample(run, min_s=0, min_runs=3)
    assert seen == [False] * 3 and gc.isenabled()
    with pytest.raises(RuntimeError):
        sample(run, min_s=0, min_runs=3)
    assert gc.isenabled()
