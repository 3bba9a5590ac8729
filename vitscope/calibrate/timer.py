"""Time probes on a target: many small files, each in a fresh process until its median is known."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from vitscope.calibrate.exporter import Build, Exported, Exporter
from vitscope.calibrate.probe import Probe
from vitscope.calibrate.record import Place, Time, Timed
from vitscope.errors import UnavailableError, VitscopeError
from vitscope.export.artifact import Artifact
from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel
from vitscope.measure.channel import Channel, Job, MeasureError, Samples
from vitscope.measure.pipe import RunnerChannel
from vitscope.measure.record import Protocol
from vitscope.measure.runtimes import RUNTIMES
from vitscope.measure.speed import Speed

_WARM_S, _WARM_RUNS, _WARM_LIMIT_S = 0.02, 4, 1.0
_BLOCK_S, _BLOCK_RUNS = 0.07, 12
_ENOUGH_RUNS = 60  # for a median, of what is short: between two runs far more is gone through than in them
_TOLERANCE = 0.05
# What is gone through between inferences: no less than a small network does, and more than the caches of most cores hold.
SWEEPS_BYTES = 4_000_000, 32_000_000
_LIMITS = Protocol()  # its limits of what counts as slowed by something else: the block is measured again
_RETRIES = 3
_AHEAD = 4


class _Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1.0


def nothing() -> Probe:
    """As little as a network can do: one addition on 3×8×8."""
    size = Geometry(1, 3, 3, in_size=(8, 8), out_size=(8, 8))
    kernel = Kernel("elementwise", "", 0, 192, 0, 192, 1, (), "add", geometry=size)
    return Probe(kernel, 1, _Nothing(), (3, 8, 8), ())


class _Block(NamedTuple):
    swept_bytes: int
    samples_s: tuple[float, ...]
    slowed: bool


class Timer:
    """Times one probe after another, each in a process of its own, as networks are: memory that was freed and taken again
    lies so badly that a kernel takes up to twice as long in it. Some probes are exported at a time; then they are timed, and
    nothing else runs. To be used as a context.
    """

    def __init__(self, place: Place):
        self.place = place
        self.opened: Any = None
        self._speed = Speed()
        self._open: Channel | None = None  # that the next file can be exchanged for the last in
        self.sweeps = True

    def __enter__(self) -> Timer:
        self._stack = ExitStack()
        self._exporter = self._stack.enter_context(Exporter(self.place))
        self._stack.callback(self._close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def floor_s(self) -> float:
        """Seconds of a call that does next to nothing, the least of three processes.

        Raises UnavailableError where the target cannot be reached, MeasureError where it cannot run even that.
        """
        (exported,) = self._exporter.export([nothing])
        assert exported is not None
        if exported.artifact is None:
            raise MeasureError(f"{self.place.target.name}: {exported.reason}")
        found = [self._time(exported) for _ in range(3)]
        shutil.rmtree(exported.artifact.path.parent, ignore_errors=True)
        times = [each.seconds for each in found if each.seconds is not None]
        if not times:
            raise MeasureError(f"{self.place.target.name}: {found[0].reason}")
        return min(times)

    def times(
        self, builds: Sequence[Build], on_start: Callable[[str], None], ahead: int = _AHEAD
    ) -> Iterator[Timed | None]:
        """The time of each probe, in order: None for one that cannot be built. One that cannot be exported, loaded or run
        says why; a target that is gone raises. `on_start` hears each name; `ahead` probes for each core lie ready at once."""
        number = ahead * self._exporter.workers
        for first in range(0, len(builds), number):
            part = builds[first : first + number]
            for exported in self._exporter.export(part):
                if exported is None:
                    yield None
                    continue
                on_start(exported.name)
                yield self._time(exported)
                if exported.artifact is not None:
                    shutil.rmtree(exported.artifact.path.parent, ignore_errors=True)

    def _time(self, exported: Exported) -> Timed:
        known: dict[str, Any] = {"wanted": exported.wanted, "copies": exported.copies, "kernels": exported.kernels}
        if exported.artifact is None:
            return Timed(**known, times=(), reason=exported.reason)
        try:
            found = self._measure(self._load(exported.artifact))
        except UnavailableError:
            raise
        except VitscopeError as error:
            self._close()
            return Timed(**known, times=(), reason=" ".join(str(error).split()))
        kept = [block for block in found if not block.slowed] or found
        low, middle, high = _quartiles(kept[0].samples_s)
        times = tuple(Time(block.swept_bytes, median(block.samples_s)) for block in kept)
        return Timed(**known, times=times, spread=(high - low) / 2 / middle, slowed=kept[0].slowed)

    def _load(self, artifact: Artifact) -> Channel:
        place = self.place
        job = Job(
            artifact=artifact, runtime=place.runtime, threads=place.threads, affinity=place.affinity,
            unit=RUNTIMES[place.runtime].units[0], apart=True,
        )  # fmt: skip
        if isinstance(self._open, RunnerChannel) and self._open.opened.apart:
            self._open.exchange(job)  # which closes it where it fails
        else:
            self._close()
            self._open = place.target.open(job, place.timeout_s)
        self.opened = self._open.opened
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _measure(self, channel: Channel) -> list[_Block]:
        """One block for each of SWEEPS_BYTES; one alone where a target's own program runs, which takes no requests between
        inferences."""
        channel.warm(_WARM_S, _WARM_RUNS, _TOLERANCE, _WARM_LIMIT_S)
        if not isinstance(channel, RunnerChannel):
            self.sweeps = False
            return [self._block(channel.block, 0, _BLOCK_S)]
        blocks: list[_Block] = []
        for size in SWEEPS_BYTES:
            least_s = min([_BLOCK_S, *(_ENOUGH_RUNS * median(each.samples_s) for each in blocks)])
            blocks.append(self._block(partial(channel.block, sweep_bytes=size), size, least_s))
        return blocks

    def _block(self, block: Callable[[float, int], Samples], swept_bytes: int, least_s: float) -> _Block:
        """The first block that nothing slowed; else the fastest, and that it was slowed."""
        blocks: list[Samples] = []
        for _ in range(_RETRIES):
            blocks.append(block(least_s, _BLOCK_RUNS))
            around = (blocks[-1].before, blocks[-1].after)
            self._speed.read(around)
            if not self._speed.is_slowed(around, _LIMITS):
                return _Block(swept_bytes, blocks[-1].samples_s, False)
        return _Block(swept_bytes, min(blocks, key=lambda block: median(block.samples_s)).samples_s, True)


def _quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(samples)
    return ordered[len(ordered) // 4], median(ordered), ordered[(3 * len(ordered)) // 4]
