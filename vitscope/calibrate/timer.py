"""Time probes on a target: many small files, each in a fresh process until its median is known."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from vitscope.calibrate.probe import Probe
from vitscope.calibrate.record import Place, Time, Timed
from vitscope.errors import UnavailableError, VitscopeError
from vitscope.export.artifact import Artifact
from vitscope.export.cache import MODULE, written
from vitscope.export.interrupt import after_the_converter
from vitscope.latency.kernels import Kernel
from vitscope.measure.channel import Channel, Job, MeasureError, Samples
from vitscope.measure.pipe import RunnerChannel
from vitscope.measure.record import Protocol
from vitscope.measure.runtimes import RUNTIMES
from vitscope.measure.speed import Speed
from vitscope.subject import subject_of

_WARM_S, _WARM_RUNS, _WARM_LIMIT_S = 0.02, 4, 1.0
_BLOCK_S, _BLOCK_RUNS = 0.1, 12
_TOLERANCE = 0.05
# What is gone through between inferences: no less than a small network does, and more than the caches of most cores hold.
SWEEPS_BYTES = 4_000_000, 32_000_000
_LIMITS = Protocol()  # its limits of what counts as slowed by something else: the block is measured again
_RETRIES = 4


class _Nothing(nn.Module):
    """As little as a network can do: one addition on 3×8×8."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1.0


_NOTHING = Probe(Kernel("elementwise", "", 0, 192, 0, 192, 1, (), "add"), 1, _Nothing(), (3, 8, 8), ())


class _Block(NamedTuple):
    swept_bytes: int
    samples_s: tuple[float, ...]
    slowed: bool


class Timer:
    """Times one probe after another, each in a process of its own, as networks are: memory that was freed and taken again
    lies so badly that a kernel takes up to twice as long in it. The next process starts, and loads its runtime with a file
    that does next to nothing, while the next probe is exported. To be used as a context.
    """

    def __init__(self, place: Place):
        self.place = place
        self.opened: Any = None
        self._speed = Speed()
        self._keeps_processes = True  # until the first of them shows otherwise
        self.sweeps = True

    def __enter__(self) -> Timer:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vitscope-probes-")))
        self._starter = self._stack.enter_context(ThreadPoolExecutor(1))
        self._started: Future[Channel] | None = None
        self._stack.callback(self._drop)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def floor_s(self) -> float:
        """Seconds of a call that does next to nothing, the least of three processes.

        Raises UnavailableError where the target cannot be reached, MeasureError where it cannot run even that.
        """
        found = [self.time(_NOTHING) for _ in range(3)]
        times = [each.seconds for each in found if each.seconds is not None]
        if not times:
            raise MeasureError(f"{self.place.target.name}: {found[0].reason}")
        return min(times)

    def time(self, probe: Probe) -> Timed:
        """The time of `probe`. One that cannot be exported, loaded or run says why; a target that is gone raises."""
        known: dict[str, Any] = {"wanted": probe.wanted, "copies": probe.copies, "kernels": probe.kernels}
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            self._start()
            channel = self._load(self._job(probe, folder))
            try:
                found = self._measure(channel)
            finally:
                channel.close()
        except UnavailableError:
            raise
        except VitscopeError as error:
            return Timed(**known, times=(), reason=" ".join(str(error).split()))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        low, middle, high = _quartiles(found[0].samples_s)
        times = tuple(Time(block.swept_bytes, median(block.samples_s)) for block in found)
        return Timed(
            **known, times=times, spread=(high - low) / 2 / middle, slowed=any(block.slowed for block in found)
        )

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

    @cached_property
    def _nothing(self) -> Job:
        folder = self._folder / "nothing"
        folder.mkdir()
        return self._job(_NOTHING, folder)

    def _start(self) -> None:
        """Start the process of the next probe beside what follows; where a target starts a program for each file, nothing."""
        if self._started is None and self._keeps_processes:
            self._started = self._starter.submit(self.place.target.open, self._nothing, self.place.timeout_s)

    def _load(self, job: Job) -> Channel:
        if self._started is None:
            channel = self.place.target.open(job, self.place.timeout_s)
        else:
            started, self._started = self._started, None
            channel = started.result()
            self._keeps_processes = isinstance(channel, RunnerChannel)
            if isinstance(channel, RunnerChannel):
                channel.exchange(job)  # which closes it where it fails
            else:
                channel.close()
                channel = self.place.target.open(job, self.place.timeout_s)
        self.opened = channel.opened
        return channel

    def _drop(self) -> None:
        """A process that no probe asks for any more."""
        if self._started is not None:
            with suppress(VitscopeError):
                self._started.result().close()

    def _measure(self, channel: Channel) -> list[_Block]:
        """One block for each of SWEEPS_BYTES; one alone where a target's own program runs, which takes no requests between
        inferences."""
        channel.warm(_WARM_S, _WARM_RUNS, _TOLERANCE, _WARM_LIMIT_S)
        if isinstance(channel, RunnerChannel):
            return [self._block(partial(channel.block, sweep_bytes=size), size) for size in SWEEPS_BYTES]
        self.sweeps = False
        return [self._block(channel.block, 0)]

    def _block(self, block: Callable[[float, int], Samples], swept_bytes: int) -> _Block:
        """The first block that nothing slowed; else the fastest, and that it was slowed."""
        blocks: list[Samples] = []
        for _ in range(_RETRIES):
            blocks.append(block(_BLOCK_S, _BLOCK_RUNS))
            around = (blocks[-1].before, blocks[-1].after)
            self._speed.read(around)
            if not self._speed.is_slowed(around, _LIMITS):
                return _Block(swept_bytes, blocks[-1].samples_s, False)
        return _Block(swept_bytes, min(blocks, key=lambda block: median(block.samples_s)).samples_s, True)


def _without_names(artifact: Artifact) -> Artifact:
    return replace(artifact, scopes={}, notes=())


def _quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(samples)
    return ordered[len(ordered) // 4], median(ordered), ordered[(3 * len(ordered)) // 4]
