"""estimate: the totals of a spec as fast as they can be had, for searches that ask about thousands of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitscope.cost.summary import cost_in_place
from vitscope.graph.store import Form, block_graph
from vitscope.latency.device import Device
from vitscope.latency.predict import predict
from vitscope.spec.flow import flow
from vitscope.spec.value import Spec


@dataclass(frozen=True, slots=True)
class Estimate:
    """Totals of one network, for one image. `macs` is a part while `unknown` counts any operation.

    `latency_s` has a value a device, None where the device's predictor refuses the network.
    """

    params: int
    macs: int
    peak_activation_bytes: int
    unknown: int
    latency_s: tuple[float | None, ...] = ()


def estimate(spec: Spec, devices: Sequence[Device] = (), form: Form = "deploy") -> Estimate:
    """The Estimate of `spec`: a sum over blocks, each traced once in the life of the store.

    The same numbers as `profile_spec`, without its rows: some tens of microseconds once the blocks are known.
    """
    placed = flow(spec)
    graphs = [block_graph(place.block, place.in_shape, form) for place in placed]
    deployed = graphs if form == "deploy" else [block_graph(p.block, p.in_shape, "deploy") for p in placed]
    params = macs = peak = unknown = 0
    for place, graph in zip(placed, graphs, strict=True):
        cost = cost_in_place(graph, place.keeps_input, place.held_bytes)
        params += cost.params
        macs += cost.macs
        unknown += len(cost.unknown)
        peak = max(peak, cost.peak_activation_bytes)
    return Estimate(params, macs, peak, unknown, tuple(predict(device, deployed).latency_s for device in devices))
