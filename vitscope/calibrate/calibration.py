"""calibrate(place): rounds of timing and fitting until the error of kernels held out stops falling, or the budget ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from random import Random
from statistics import median
from typing import Literal

from vitscope.calibrate.block import blocks_of
from vitscope.calibrate.block_probe import block_probe
from vitscope.calibrate.choose import Choice, hold_out, spread
from vitscope.calibrate.demand import Demand, demand, kernels_of
from vitscope.calibrate.fit import fit
from vitscope.calibrate.held_out import fitted
from vitscope.calibrate.probe import probe_of
from vitscope.calibrate.record import Calibration, Learned, Place, Timed
from vitscope.calibrate.timer import Timer
from vitscope.latency.class_cost import ClassCosts, class_of
from vitscope.latency.device import PRECISION_BYTES
from vitscope.latency.kernels import Kernel
from vitscope.latency.runtime import FusionRules
from vitscope.measure.channel import MeasureError

_FIRST, _GROWTH = 96, 1.5  # kernels of the first round, and how many times as many are timed after each further one
_HELD_OUT = 40
_FLAT_ROUNDS = 3  # that must bring the error of kernels held out down
_FLAT = 0.005  # by so much, in its own unit
_UNKNOWN, _DOUBT = 0.3, 4
_SLOW = 0.12  # a kernel that took this much longer than predicted is timed once more
_KERNELS = 0.6  # of the time for probes, for kernels alone; then blocks of networks are timed
_FITTING_S = 70.0  # of the budget, kept for the last fits and the held-out report, or more where fits take longer


@dataclass(frozen=True, slots=True)
class Step:
    """What a calibration waits for. `done` kernels are timed; `error` is that of kernels held out, once known."""

    what: Literal["floor", "time", "fit", "block", "hold out"]
    name: str
    done: int
    total: int
    error: float | None


def calibrate(
    place: Place,
    rules: FusionRules,
    names: Sequence[str],
    *,
    more: Sequence[Demand] = (),
    budget_s: float,
    kept: Sequence[Timed] = (),
    on_timed: Callable[[Timed], None] | None = None,
    on_progress: Callable[[Step], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    seed: int = 0,
) -> Calibration:
    """Time kernels of the networks `names`, and `more`, at `place` and fit their costs. No network is ever timed.

    Probes are exported by processes of their own, which a script has to allow for: it calls this below
    `if __name__ == "__main__":`. `kept` are the kernels that an earlier, interrupted calibration of the same place has
    timed. Raises UnavailableError where the place cannot be reached, MeasureError where nothing could be timed there.
    """
    began = clock()
    pace_s = 0.0  # of the last fit, for each probe
    size = PRECISION_BYTES[{"fp32": "float32", "fp16": "float16", "int8": "int8"}[place.precision]]
    networks = kernels_of(names, rules, place.batch)
    demands = [*demand(networks), *more]
    blocks = blocks_of(names, rules, place.batch)
    wanted = {each.kernel for each in (*demands, *blocks)}
    families = {family for each in (*demands, *blocks) for family in each.families}
    choice = Choice(demands)
    earlier = {each.wanted: each for each in kept if each.wanted in wanted}  # the last: when timed again it was faster
    results: dict[Kernel, Timed] = dict(earlier)
    again = set(earlier)  # timed twice, or as good as: what is slow is timed once more and no oftener
    tests = {each.kernel for each in hold_out(demands, min(_HELD_OUT, len(demands) // 5), seed)}
    curve: list[Learned] = []
    ended = ""

    with Timer(place) as timer:

        def say(what: Literal["floor", "time", "fit", "block", "hold out"], name: str = "", total: int = 0) -> None:
            if on_progress is not None:
                on_progress(Step(what, name, len(results), total, curve[-1].error if curve else None))

        say("floor")
        floor_s = timer.floor_s()

        def end(share: float = 1.0) -> float:
            """When that share of the time for probes is over."""
            fitting_s = max(_FITTING_S, pace_s * len(results) * (1 + len(families)))
            return began + share * max(budget_s - fitting_s, budget_s / 2)

        def fit_all(train: Sequence[Timed]) -> ClassCosts:
            nonlocal pace_s
            start = clock()
            costs = fit(train, floor_s, size)
            pace_s = (clock() - start) / len(train)
            return costs

        def time_all(chosen: Sequence[Demand], total: int) -> bool:
            """Whether there was time for all."""
            left = [each.kernel for each in chosen if each.kernel not in results]
            builds = [partial(probe_of, kernel, rules, place.batch) for kernel in left]
            found = timer.times(builds, lambda name: say("time", name, total))
            for kernel in left:
                if clock() >= end(_KERNELS):
                    return False
                keep(kernel, next(found) or _not_alone(kernel))
            return True

        def time_again(costs: ClassCosts) -> bool:
            """Time once more what took much longer than its likes: nothing makes a kernel faster than it is, and much makes
            it slower, where its memory lies for one. Whether any was faster this time."""
            slow = []
            for kernel, before in results.items():
                predicted = costs.total_s(before.kernels, size, before.swept_bytes) if before.seconds else None
                if before.seconds and predicted and before.seconds > (1 + _SLOW) * predicted and kernel not in again:
                    slow.append(kernel)
            changed = False
            builds = [partial(probe_of, kernel, rules, place.batch) for kernel in slow]
            found = timer.times(builds, lambda name: say("time", f"{name} once more"))
            for kernel in slow:
                if clock() >= end(_KERNELS):
                    break
                again.add(kernel)
                timed, before = next(found), results[kernel].seconds
                if timed is not None and timed.seconds is not None and before is not None and timed.seconds < before:
                    keep(kernel, timed)
                    changed = True
            return changed

        def keep(kernel: Kernel, timed: Timed) -> None:
            results[kernel] = timed
            if on_timed is not None:
                on_timed(timed)

        def timed_kernels() -> int:
            return sum(
                kernel not in tests and each.copies > 0 and not each.is_block for kernel, each in results.items()
            )

        for each in demands:
            if each.kernel in tests:
                choice.exclude(each)
            elif each.kernel in earlier:
                choice.cover(each)
        number, errors = _FIRST, dict[str, float]()
        while not ended:
            done = timed_kernels()
            while number <= done:
                number = int(number * _GROWTH)
            chosen = choice.next(number - done, errors)
            if not chosen:
                ended = "every kernel of these networks is timed"
                break
            if curve:
                Random(seed + number).shuffle(chosen)
            else:  # in the order of choice, which takes each class in turn: there may not be the time for all
                chosen = spread(chosen, [each for each in demands if each.kernel in tests])
            if not time_all(chosen, len(results) + len(chosen)):
                ended = f"the kernels' share of the budget of {budget_s / 60:.3g} minutes is spent"
            train = [each for kernel, each in results.items() if kernel not in tests]
            if not any(each.seconds for each in train):
                raise MeasureError(
                    f"{place.target.name}: no kernel could be timed in {budget_s / 60:.3g} minutes{_why(results.values())}"
                )
            say("fit")
            costs = fit_all(train)
            if time_again(costs):
                train = [each for kernel, each in results.items() if kernel not in tests]
                costs = fit_all(train)
            held = [each for kernel, each in results.items() if kernel in tests]
            found = _errors(costs, held, size)
            if found:
                curve.append(Learned(timed_kernels(), sum(found) / len(found)))
                errors = _class_errors(costs, [*train, *held], size)
            if not ended and _is_flat(curve):
                ended = "the error of kernels held out stopped falling"
            number = int(number * _GROWTH)
        left = [each for each in blocks if each.kernel not in results]
        found = timer.times(
            [partial(block_probe, each, rules, place.batch) for each in left],
            lambda name: say("block", name, sum(each.is_block for each in results.values())),
            ahead=2,  # which take long: what lies ready when the time is over was for nothing
        )
        for each in left:
            if clock() >= end():
                break
            timed = next(found)
            if timed is not None:
                keep(each.kernel, timed)
        opened = timer.opened

    found = fitted(
        tuple(results.values()),
        networks,
        (*demands, *blocks),
        floor_s,
        size,
        lambda done, total: say("hold out", f"{done}/{total}"),
    )
    return Calibration(
        **{field.name: getattr(found, field.name) for field in fields(found)}, demands=tuple(demands), curve=tuple(curve),
        ended=ended, seconds=clock() - began, runtime_version=opened.runtime_version, host=opened.host,
        processor=opened.processor, system=opened.system, batch=place.batch, sweeps=timer.sweeps,
    )  # fmt: skip


def _not_alone(kernel: Kernel) -> Timed:
    return Timed(wanted=kernel, copies=0, kernels=(), times=(), reason="cannot be built alone")


def _why(results: Iterable[Timed]) -> str:
    reason = next((each.reason for each in results if each.reason), "")
    return f": {reason}" if reason else ""


def _errors(costs: ClassCosts, held: Iterable[Timed], size: int) -> list[float]:
    """Relative errors of probes; one of a class that was never timed counts as wholly wrong."""
    found = []
    for each in held:
        if each.seconds is not None:
            predicted = costs.total_s(each.kernels, size, each.swept_bytes)
            found.append(1.0 if predicted is None else abs(predicted / each.seconds - 1))
    return found


def _class_errors(costs: ClassCosts, timed: Iterable[Timed], size: int) -> dict[str, float]:
    """Class → median error of its probes under the formula alone, which says how much there is to learn. Of a class with few
    probes that median says little: it counts as beside `_DOUBT` others whose error is `_UNKNOWN`."""
    formula = replace(costs, corrections={})
    by: dict[str, list[float]] = {}
    for each in timed:
        by.setdefault(class_of(each.wanted), []).extend(_errors(formula, [each], size))
    return {
        name: (len(errors) * median(errors) + _DOUBT * _UNKNOWN) / (len(errors) + _DOUBT)
        for name, errors in by.items()
        if errors
    }


def _is_flat(curve: Sequence[Learned]) -> bool:
    """Whether the last rounds have not brought the error below what it was before them. One round says little: few kernels
    are held out, and the next ones timed may be of a class that none of these has."""
    earlier, last = curve[:-_FLAT_ROUNDS], curve[-_FLAT_ROUNDS:]
    return bool(earlier) and min(each.error for each in last) > min(each.error for each in earlier) - _FLAT
