"""Whether one network is faster than another on a device, judged against what the predictor can tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from vitscope.graph.record import Graph
from vitscope.latency.device import Device
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.predict import kernel_cost, predict
from vitscope.latency.runtime import FusionRules

Verdict = Literal["A faster", "B faster", "no difference that the predictor can tell", "cannot be compared"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How much slower B is than A in seconds, with the interval of that difference, and what may be concluded."""

    delta_s: float | None
    low_s: float | None
    high_s: float | None
    interval: float | None
    verdict: Verdict


def difference(device: Device, graphs_a: Sequence[Graph], graphs_b: Sequence[Graph]) -> Difference:
    """Judge B against A on `device`.

    Kernels that both have err together and cancel. The error of the difference is proportional to the seconds of the
    kernels that only one of them has; the factor was measured on pairs of held-out networks.
    """
    a, b = predict(device, graphs_a), predict(device, graphs_b)
    held_out = device.held_out
    if held_out is None or a.latency_s is None or b.latency_s is None:
        return Difference(None, None, None, held_out.interval if held_out else None, "cannot be compared")
    delta = b.latency_s - a.latency_s
    # Segments that both have hold kernels that both have: only the others need to be looked into.
    in_a, in_b = Counter(graphs_a), Counter(graphs_b)
    only_a, only_b = tuple((in_a - in_b).elements()), tuple((in_b - in_a).elements())
    spread = held_out.difference * unshared_seconds(
        device, kernel_counts(device, only_a), kernel_counts(device, only_b)
    )
    return Difference(delta, delta - spread, delta + spread, held_out.interval, verdict(delta, spread))


def verdict(delta_s: float, spread_s: float) -> Verdict:
    """What a difference with that half width allows to say."""
    if abs(delta_s) <= spread_s or delta_s == 0:
        return "no difference that the predictor can tell"
    return "A faster" if delta_s > 0 else "B faster"


def kernel_counts(device: Device, graphs: Sequence[Graph]) -> Counter[Kernel]:
    """The kernels of a network, equal ones counted, wherever in it they stand."""
    return Counter(kernel for graph in graphs for kernel in _placeless(device.rules, graph))


@lru_cache(maxsize=65536)
def _placeless(rules: FusionRules, graph: Graph) -> tuple[Kernel, ...]:
    """The kernels of a graph without where they stand. Kept: variants of one network are compared over and over."""
    return tuple(replace(kernel, scope="", ops=(), scopes=()) for kernel in lower(graph, rules))


def unshared_seconds(device: Device, a: Counter[Kernel], b: Counter[Kernel]) -> float:
    """Seconds of the kernels that one of two networks has and the other has not, summed over both."""
    return sum(
        count * (cost.traffic_s + cost.compute_s + cost.start_s)
        for only in (a - b, b - a)
        for kernel, count in only.items()
        for cost in (kernel_cost(device, kernel),)
    )
