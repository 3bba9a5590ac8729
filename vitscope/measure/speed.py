"""Speed: how fast a machine's core and memory were all along, by the runner's probes, and whether something slowed them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from vitscope.measure.record import Protocol, State
from vitscope.units import percent


class Speed:
    """What the probes have told so far. A core has a best; the memory, which a copy fills unevenly, has what is usual.

    A target without probes, which a phone is, is never slowed.
    """

    def __init__(self, states: Iterable[State] = ()):
        self._core: list[float] = []
        self._memory: list[float] = []
        self.read(states)

    def read(self, states: Iterable[State]) -> None:
        """Learn from `states`."""
        for state in states:
            if state.probe_s:
                self._core.append(state.probe_s)
            if state.memory_probe_s:
                self._memory.append(state.memory_probe_s)

    def excess(self, state: State) -> tuple[float, float]:
        """By what share of its time the core, and the memory, was slower in `state` than it can be: 0 where not known."""
        core = state.probe_s / min(self._core) - 1 if state.probe_s and self._core else 0.0
        memory = state.memory_probe_s / median(self._memory) - 1 if state.memory_probe_s and self._memory else 0.0
        return core, memory

    def is_slowed(self, states: Iterable[State], protocol: Protocol) -> bool:
        """Whether something else ran in one of `states`."""
        found = [self.excess(state) for state in states]
        return any(core > protocol.slowed or memory > protocol.memory_slowed for core, memory in found)

    def told(self, states: Iterable[State], protocol: Protocol) -> str:
        """`the core was up to 30%` or `the memory was up to 40%`: whichever is further above its limit."""
        found = [self.excess(state) for state in states]
        core = max((core for core, _ in found), default=-math.inf)
        memory = max((memory for _, memory in found), default=-math.inf)
        if core / protocol.slowed >= memory / protocol.memory_slowed:
            return f"the core was up to {percent(core)}"
        return f"the memory was up to {percent(memory)}"
