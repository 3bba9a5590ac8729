"""Whether something else ran beside a block, from what the probes of core and memory read."""

from __future__ import annotations

from vitscope.measure.record import UNREAD, Protocol, State
from vitscope.measure.runner.state import memory_probe, state
from vitscope.measure.speed import Speed

LIMITS = Protocol(slowed=0.10, memory_slowed=0.20)
CALM = State(probe_s=1e-3, memory_probe_s=0.7e-3)


def of(core: float = 1.0, memory: float = 1.0) -> State:
    return State(probe_s=core * 1e-3, memory_probe_s=memory * 0.7e-3)


def test_a_core_is_held_against_its_best_and_memory_against_the_usual() -> None:
    speed = Speed([CALM, CALM, of(memory=0.8), of(core=1.05, memory=1.1)])
    assert not speed.is_slowed([CALM, of(core=1.09, memory=1.19)], LIMITS)
    assert speed.is_slowed([CALM, of(core=1.11)], LIMITS)
    assert speed.is_slowed([of(memory=1.21), CALM], LIMITS)
    speed.read([of(memory=2.0)] * 9)  # now this is usual
    assert not speed.is_slowed([of(memory=2.0)], LIMITS)


def test_the_worse_of_both_is_told() -> None:
    speed = Speed([CALM])
    assert speed.told([of(core=1.3, memory=1.3)], LIMITS) == "the core was up to 30%"
    assert speed.told([CALM, of(memory=1.5)], LIMITS) == "the memory was up to 50%"


def test_a_target_without_probes_is_never_slowed() -> None:
    assert not Speed().is_slowed([UNREAD, UNREAD], LIMITS)
    assert not Speed([UNREAD]).is_slowed([State(probe_s=1e-3)], LIMITS)


def test_the_runner_reads_both() -> None:
    first, second = memory_probe(), memory_probe()
    assert first and second and 1e-5 < second < 1.0
    found = state()
    assert found["probe_s"] > 0 and found["memory_probe_s"] > 0
