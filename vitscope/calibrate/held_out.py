"""fitted(timed): the costs of kernels, and what they are worth on families that a fit has not seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import log

from vitscope.calibrate.demand import Demand
from vitscope.calibrate.fit import fit
from vitscope.calibrate.record import Fitted, HeldOut, Timed
from vitscope.latency.class_cost import class_of
from vitscope.latency.kernels import Kernel


def fitted(
    timed: tuple[Timed, ...],
    networks: Mapping[str, tuple[str, tuple[Kernel, ...]]],
    demands: Iterable[Demand],
    floor_s: float,
    element_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Leave every family out once, keep the corrections that help the unseen, and fit to all. The same for the same times."""
    families = {each.kernel: each.families for each in demands}
    held_out = leave_families_out(
        timed, lambda kernel: families.get(kernel, frozenset()), floor_s, element_bytes, on_progress
    )
    corrected = worth_correcting(held_out)
    return Fitted(
        costs=fit(timed, floor_s, element_bytes, corrected=corrected), timed=timed, networks=networks,
        held_out=tuple(_chosen(held_out, corrected)), corrected=corrected, element_bytes=element_bytes,
    )  # fmt: skip


def leave_families_out(
    timed: Sequence[Timed],
    families: Callable[[Kernel], Collection[str]],
    floor_s: float,
    element_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[HeldOut]:
    """Every probe, for every family that asks for its kernel, predicted without all probes whose kernel that family has."""
    known = [each for each in timed if each.seconds is not None]
    of = [frozenset(families(each.wanted)) for each in known]
    names = sorted(set().union(*of)) if of else []
    found = []
    for number, family in enumerate(names):
        if on_progress is not None:
            on_progress(number, len(names))
        rest = [each for each, whose in zip(known, of, strict=True) if family not in whose]
        if not rest:
            continue
        costs = fit(rest, floor_s, element_bytes)
        formula = replace(costs, corrections={})
        for each, whose in zip(known, of, strict=True):
            if family in whose:
                found.append(
                    HeldOut(
                        each, family, formula.total_s(each.kernels, element_bytes, each.swept_bytes),
                        costs.total_s(each.kernels, element_bytes, each.swept_bytes),
                    )
                )  # fmt: skip
    return found


def worth_correcting(held_out: Iterable[HeldOut]) -> frozenset[str]:
    """The classes whose correction brought kernels of unseen families nearer, in mean absolute ln."""
    plain: dict[str, list[float]] = {}
    better: dict[str, list[float]] = {}
    for each in held_out:
        if each.formula_s and each.corrected_s and each.timed.seconds:
            name = class_of(each.timed.wanted)
            plain.setdefault(name, []).append(abs(log(each.formula_s / each.timed.seconds)))
            better.setdefault(name, []).append(abs(log(each.corrected_s / each.timed.seconds)))
    return frozenset(name for name, errors in plain.items() if sum(better[name]) < sum(errors))


def _chosen(held_out: Iterable[HeldOut], corrected: frozenset[str]) -> Iterable[HeldOut]:
    """As the calibration that is kept would have predicted: with a correction only where it helps."""
    for each in held_out:
        use = class_of(each.timed.wanted) in corrected
        yield each if use else replace(each, corrected_s=each.formula_s)
