"""Channel: one process on a target that holds one model ready to run. What every target offers; sessions know only this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vitscope.errors import VitscopeError
from vitscope.export.artifact import Artifact
from vitscope.measure.record import UNREAD, OpTime, State


class MeasureError(VitscopeError):
    """A runner that crashed, hung or printed garbage, a model a runtime refused, a device out of space (exit code 1)."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One exported file on one runtime, with how it is to be executed there."""

    artifact: Artifact
    runtime: str
    unit: str = "cpu"
    threads: int = 1
    affinity: tuple[int, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    apart: bool = False  # where it can be: in a process forked for it from one whose runtime is loaded, for many files


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a channel says once the model is loaded."""

    runtime_version: str
    host: str
    processor: str
    system: str
    load_s: float
    cores: int | None = None  # of the target, where it tells
    apart: bool = False  # as the job asked: another can be exchanged for it
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One block as the target returns it."""

    samples_s: tuple[float, ...]
    averaged: int = 1
    before: State = UNREAD
    after: State = UNREAD


class Channel(Protocol):
    """A fresh process on the target with the model loaded. Each method raises MeasureError when the process fails."""

    opened: Opened

    def warm(self, min_s: float, min_runs: int, tolerance: float, limit_s: float) -> tuple[float, bool]:
        """Run until the median is stable. Returns the seconds it took, and whether it became stable."""
        ...

    def block(self, min_s: float, min_runs: int) -> Samples:
        """One block of timed inferences."""
        ...

    def op_times(self, runs: int) -> tuple[str, tuple[OpTime, ...]] | None:
        """The runtime's own profile as (`measured` or `estimated`, operations); None when it has none."""
        ...

    def close(self) -> None:
        """End the process and free what it holds on the target. Never raises."""
        ...


class Target(Protocol):
    """A place where runtimes execute. `name` is what the user wrote: `host`, `ssh:pi@pi5`, `adb:R58M…`."""

    name: str

    def runtimes(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Runtime name → version string, or the UnavailableError that says what is missing and how to get it.

        `names` are the only ones that matter, where given: asking for one may load it. Others may be in the answer.
        """
        ...

    def open(self, job: Job, timeout_s: float) -> Channel:
        """Bring the file there and load it in a fresh process. Raises MeasureError, or UnavailableError (exit 3)."""
        ...

    def close(self) -> None:
        """Remove what was brought there. Never raises."""
        ...
