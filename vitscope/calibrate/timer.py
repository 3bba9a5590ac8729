"""Time probes on a target: many small files, one after another in few processes, each until its median is known."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from vitscope.calibrate.probe import Probe
from vitscope.calibrate.record import Place, Timed
from vitscope.errors import UnavailableError, VitscopeError
from vitscope.export.artifact import Artifact
from vitscope.export.cache import MODULE, written
from vitscope.export.interrupt import after_the_converter
from vitscope.measure.channel import Channel, Job, Samples
from vitscope.measure.pipe import RunnerChannel
from vitscope.measure.record import Protocol
from vitscope.measure.runtimes import RUNTIMES
from vitscope.measure.speed import Speed
from vitscope.subject import subject_of

_WARM_S, _WARM_RUNS, _WARM_LIMIT_S = 0.02, 4, 1.0
_BLOCK_S, _BLOCK_RUNS = 0.1, 12
_TOLERANCE = 0.05
_LIMITS = Protocol()  # its limits of what counts as slowed by something else: the block is measured again
_RETRIES = 4
_PROBES_A_PROCESS = 40  # then a fresh one, since memory that lies badly stays so for the life of a process


class Timer:
    """Times one probe after another; holds the process they run in. To be closed."""

    def __init__(self, place: Place):
        self.place = place
        self.version = ""
        self.opened: Any = None
        self._channel: Channel | None = None
        self._number = 0
        self._speed = Speed()

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def time(self, probe: Probe) -> Timed:
        """The time of `probe`. One that cannot be exported, loaded or run says why; a target that is gone raises."""
        known: dict[str, Any] = {"wanted": probe.wanted, "copies": probe.copies, "kernels": probe.kernels}
        with tempfile.TemporaryDirectory(prefix="vitscope-probe-") as folder:
            try:
                job = self._job(probe, Path(folder))
                channel = self._load(job)
                samples, slowed = self._measure(channel)
            except UnavailableError:
                self._close()
                raise
            except VitscopeError as error:
                self._close()
                return Timed(**known, seconds=None, reason=" ".join(str(error).split()))
        low, middle, high = _quartiles(samples)
        return Timed(**known, seconds=middle, spread=(high - low) / 2 / middle, slowed=slowed)

    def _job(self, probe: Probe, folder: Path) -> Job:
        place = self.place
        runtime = RUNTIMES[place.runtime]
        here = place.target.name == "host" and runtime.format == "torch"
        subject = subject_of(probe.module, probe.size, name="probe", batch=place.batch)
        with after_the_converter():
            artifact = written(subject, MODULE if here else runtime.format, place.precision, folder)
        return Job(
            artifact=_without_names(artifact), runtime=place.runtime, threads=place.threads, affinity=place.affinity,
            unit=runtime.units[0],
        )  # fmt: skip

    def _load(self, job: Job) -> Channel:
        if self._number >= _PROBES_A_PROCESS:
            self._close()
        self._number += 1
        if isinstance(self._channel, RunnerChannel):
            self._channel.exchange(job)
        else:
            self._close()
            self._number = 1
            self._channel = self.place.target.open(job, self.place.timeout_s)
        self.opened = self._channel.opened
        return self._channel

    def _measure(self, channel: Channel) -> tuple[tuple[float, ...], bool]:
        """The samples of the first block that nothing slowed; else of the fastest, and that it was slowed."""
        channel.warm(_WARM_S, _WARM_RUNS, _TOLERANCE, _WARM_LIMIT_S)
        blocks: list[Samples] = []
        for _ in range(_RETRIES):
            blocks.append(channel.block(_BLOCK_S, _BLOCK_RUNS))
            around = (blocks[-1].before, blocks[-1].after)
            self._speed.read(around)
            if not self._speed.is_slowed(around, _LIMITS):
                return blocks[-1].samples_s, False
        return min(blocks, key=lambda block: median(block.samples_s)).samples_s, True

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel, self._number = None, 0


def _without_names(artifact: Artifact) -> Artifact:
    return replace(artifact, scopes={}, notes=())


def _quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(samples)
    return ordered[len(ordered) // 4], median(ordered), ordered[(3 * len(ordered)) // 4]
