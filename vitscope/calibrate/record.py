"""What a calibration is made of: kernels with their times, and the costs that were fitted to them. Frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vitscope.calibrate.demand import Demand
from vitscope.export.artifact import Precision
from vitscope.latency.class_cost import ClassCosts
from vitscope.latency.kernels import Kernel
from vitscope.measure.channel import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is calibrated: a runtime on a target, executed with so many threads in a precision."""

    target: Target
    runtime: str
    precision: Precision
    threads: int
    batch: int = 1
    affinity: tuple[int, ...] = ()
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Time:
    """The median inference when something else goes through `swept_bytes` between each two."""

    swept_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A probe with its time: `wanted` stands `copies` times in it, `kernels` are all that the runtime makes of it.

    `times` are of one process, the least swept first, without those beside which something else ran, if any are left; none
    where the format or the runtime refused it, for `reason`. `spread` is half the distance of the first's quartiles as a share
    of its median. `slowed`: something else ran beside all.
    """

    wanted: Kernel
    copies: int
    kernels: tuple[Kernel, ...]
    times: tuple[Time, ...]
    spread: float = 0.0
    slowed: bool = False
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """Where its caches hold it, as far as they do."""
        return self.times[0].seconds if self.times else None

    @property
    def swept_bytes(self) -> int:
        return self.times[0].swept_bytes if self.times else 0

    @property
    def is_block(self) -> bool:
        """Whether it is of a block of networks, for which `wanted` stands in, instead of one kernel's copies."""
        return self.wanted.geometry is None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A probe predicted by a fit that has seen no kernel of one of the families that have it."""

    timed: Timed
    family: str
    formula_s: float | None
    corrected_s: float | None


@dataclass(frozen=True, slots=True)
class Learned:
    """The mean error of the kernels held out, after a fit to `kernels` others."""

    kernels: int
    error: float


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The costs, the times that they were fitted to, and how wrong a fit is about families that it has not seen."""

    costs: ClassCosts
    timed: tuple[Timed, ...]
    networks: Mapping[str, tuple[str, tuple[Kernel, ...]]]
    held_out: tuple[HeldOut, ...]
    corrected: frozenset[str]
    element_bytes: int

    @property
    def refused(self) -> list[Timed]:
        return [each for each in self.timed if each.seconds is None]


@dataclass(frozen=True, kw_only=True)
class Calibration(Fitted):
    """A fit, with how its kernels were chosen and timed, and what the target said of itself. `sweeps`: between
    inferences something else went through the caches, as the rest of a network does."""

    demands: tuple[Demand, ...]
    curve: tuple[Learned, ...]
    ended: str
    seconds: float
    runtime_version: str
    host: str
    processor: str
    system: str
    batch: int
    sweeps: bool
