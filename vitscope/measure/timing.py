"""Timing one callable: warm up until it is steady, then a block of samples. Knows no runtime; the clock is injected.

Standard library only, and no younger Python than 3.8 is needed: this file also runs on the targets, inside the runner.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple


class WarmUp(NamedTuple):
    """How many runs and seconds the warm-up took, and whether its last two windows agreed."""

    runs: int
    seconds: float
    stable: bool


def warm_up(
    run: Callable[[], object],
    *,
    min_s: float,
    min_runs: int,
    tolerance: float,
    limit_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> WarmUp:
    """Run for `min_s` and `min_runs`, then on until the medians of two consecutive windows differ by less than
    `tolerance` of the smaller. A window is half of what the minimum took. `limit_s` ends it in any case."""
    began = clock()
    times: list[float] = []

    def run_until(enough: Callable[[], bool]) -> bool:
        """Whether `enough` came before the limit."""
        while not enough():
            start = clock()
            run()
            stop = clock()
            times.append(stop - start)
            if stop - began >= limit_s:
                return enough()
        return True

    in_time = run_until(lambda: len(times) >= min_runs and bool(times) and clock() - began >= min_s)
    window = max(1, len(times) // 2)
    while in_time:
        if _agree(times, window, tolerance):
            return WarmUp(len(times), clock() - began, True)
        goal = len(times) + window
        in_time = run_until(lambda goal=goal: len(times) >= goal)
    return WarmUp(len(times), clock() - began, _agree(times, window, tolerance))


def _agree(times: list[float], window: int, tolerance: float) -> bool:
    if len(times) < 2 * window:
        return False
    now, before = median(times[-window:]), median(times[-2 * window : -window])
    return abs(now - before) <= tolerance * min(now, before)


def sample(
    run: Callable[[], object],
    *,
    min_s: float,
    min_runs: int,
    between: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each of at least `min_runs` consecutive runs that together take at least `min_s`.

    `between` is called before each run and not timed. Between the two readings of the clock stands the call alone; the
    garbage collector rests meanwhile.
    """
    times: list[float] = []
    keep = times.append
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        total = 0.0
        left = max(1, min_runs)
        while left > 0 or total < min_s:
            if between is not None:
                between()
            start = clock()
            run()
            taken = clock() - start
            keep(taken)
            total += taken
            left -= 1
    finally:
        if was_enabled:
            gc.enable()
    return times
