"""Measurement: a latency with every sample and all of its context. Frozen records; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What was measured, where and how: two figures of equal condition may be compared, others differ by more than noise.

    `unit` is the compute unit asked for (`cpu`, `gpu`, `ane`, `all`), `affinity` the cores the process was held to
    (empty: not held). `host` names the machine, `system` its operating system with version.
    """

    model: str
    digest: str
    form: str
    input_shape: tuple[int, int, int, int]  # (B, C, H, W)
    precision: str
    format: str
    weights: str
    tools: str
    artifact_bytes: int
    target: str
    host: str
    processor: str
    system: str
    runtime: str
    runtime_version: str
    unit: str
    threads: int
    affinity: tuple[int, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return self.input_shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What could be read of the machine beside a block: None where it cannot be read here. Clocks in Hz, heat in °C."""

    clock_hz: float | None = None
    temperature_c: float | None = None
    thermal_status: str | None = None
    load: float | None = None  # 1 minute load average of the machine
    probe_s: float | None = None  # of a fixed computation: tells a change of speed where no clock can be read
    memory_probe_s: float | None = (
        None  # of a fixed copy: tells who else uses the memory and the caches that cores share
    )


UNREAD = State()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive inferences in one process: seconds each, in order. `order` counts the blocks of the whole session.

    `samples_s` are per inference of the whole batch. A harness that keeps only a mean gives one sample a run, and
    `averaged` says how many inferences each stands for.
    """

    process: int
    order: int
    started_s: float  # since the session began
    samples_s: tuple[float, ...]
    averaged: int = 1
    before: State = UNREAD
    after: State = UNREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long and how often. Defaults follow facts of the field: ≥ 0.5 s and ≥ 20 runs of warm-up, then until two
    windows agree; blocks of ≥ 1 s and ≥ 50 inferences; 5 fresh processes; models interleaved in random order."""

    processes: int = 5
    blocks: int = 1  # a process
    block_s: float = 1.0
    block_runs: int = 50
    warm_s: float = 0.5
    warm_runs: int = 20
    warm_tolerance: float = 0.01
    warm_limit_s: float = 10.0
    seed: int = 0
    slowed: float = 0.10  # a core this much slower than at its best, before or after a block: the process is set aside
    memory_slowed: float = 0.20  # likewise a memory this much slower than it usually was
    retries: int = 5  # processes of a row that are set aside at most, each for another one
    timeout_s: float = 120.0  # for one answer of the runner


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTime:
    """One operation of a runtime's own profile: the runtime's name for it, its kind there, and seconds per inference.

    `names` are the names of the exported file that it covers, several where the runtime fused them. `unit` is where it
    ran, if the runtime tells.
    """

    name: str
    kind: str
    seconds: float
    names: tuple[str, ...]
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """The share of a latency that one block of the network takes. `path` is None for what no block explains."""

    path: str | None
    seconds: float
    share: float
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where the time went: `how` is `measured` (the runtime timed its operations) or `estimated` (a cost model's
    weights times the measured total). The shares, the unexplained one included, sum to 1."""

    how: str
    source: str
    blocks: tuple[BlockTime, ...]
    profiled_s: float  # total of the profiled run, which is slower than the measured one

    @property
    def unexplained(self) -> float:
        return sum(block.share for block in self.blocks if block.path is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The statistics of a measurement. The interval is of the median, from a bootstrap over processes, then blocks."""

    latency_p50_s: float
    latency_p90_s: float
    latency_min_s: float
    low_s: float
    high_s: float
    samples: int
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One model under one condition. `warnings` advise; `unstable` says that a repetition may not agree. `set_aside` are
    blocks of processes that something else slowed, by the probes and not by their own figures: kept, and not counted."""

    condition: Condition
    protocol: Protocol
    date: str  # ISO 8601, UTC
    load_s: tuple[float, ...]
    warm_s: tuple[float, ...]
    blocks: tuple[Block, ...]
    summary: Summary
    unstable: bool
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what the exporter and the runtime said of how they do it
    attribution: Attribution | None = None
    set_aside: tuple[Block, ...] = ()
