"""Exporter: probes built and exported by processes beside this one, since converting one takes longer than timing it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from vitscope.calibrate.probe import Probe
from vitscope.calibrate.record import Place
from vitscope.errors import UnavailableError, VitscopeError
from vitscope.export.artifact import Artifact, Precision
from vitscope.export.cache import MODULE, written
from vitscope.export.silence import is_shown, shown, silenced
from vitscope.latency.kernels import Kernel
from vitscope.measure.runtimes import RUNTIMES
from vitscope.subject import subject_of

Build = Callable[[], Probe | None]  # of a module, so that another process can call it

_MOST_WORKERS = 4  # a converter holds up to a gigabyte
# Objects between two looks for garbage: converters make millions, and looking takes a fifth of their time.
_YOUNG = 100_000


@dataclass(frozen=True)
class Exported:
    """A probe as a file, without its module; `artifact` is None where the format refused it, for `reason`."""

    wanted: Kernel
    copies: int
    kernels: tuple[Kernel, ...]
    name: str
    artifact: Artifact | None
    reason: str = ""


class _Form(NamedTuple):
    """What a worker is told of every probe."""

    format: str
    precision: Precision
    batch: int
    is_shown: bool  # what the converters say


class Exporter:
    """A pool of converters. They rest while nobody asks, so that what is timed is alone. To be used as a context."""

    def __init__(self, place: Place):
        here = place.target.name == "host" and RUNTIMES[place.runtime].format == "torch"
        self._form = _Form(MODULE if here else RUNTIMES[place.runtime].format, place.precision, place.batch, is_shown())
        self.workers = min(_MOST_WORKERS, _cores())

    def __enter__(self) -> Exporter:
        self._folder = Path(tempfile.mkdtemp(prefix="vitscope-probes-"))
        self._pool = self._new()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def export(self, builds: Sequence[Build]) -> list[Exported | None]:
        """The files of `builds`, in order; None for what cannot be built. Raises UnavailableError where the converter is
        missing."""
        begun = [self._begin(build) for build in builds]
        return [self._end(build, one) for build, one in zip(builds, begun, strict=True)]

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _start)

    def _begin(self, build: Build) -> Future[Exported | None]:
        try:
            return self._pool.submit(_exported, build, self._form, self._folder)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._new()
            return self._pool.submit(_exported, build, self._form, self._folder)

    def _end(self, build: Build, begun: Future[Exported | None]) -> Exported | None:
        """The result; a converter that ended its process, and all others with it, is asked once more and alone."""
        try:
            return begun.result()
        except BrokenProcessPool:
            pass
        try:
            return self._begin(build).result()
        except BrokenProcessPool:
            probe = build()
            return None if probe is None else _without_file(probe, "the converter ended without a word")


def _start() -> None:
    """A worker: a Ctrl-C is its parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    gc.set_threshold(_YOUNG)


def _exported(build: Build, form: _Form, folder: Path) -> Exported | None:
    try:
        with shown() if form.is_shown else silenced():
            return _written(build, form, folder)
    finally:
        gc.collect()
        gc.freeze()  # what is left is the converter's own: not to be gone through again and again


def _written(build: Build, form: _Form, folder: Path) -> Exported | None:
    probe = build()
    if probe is None:
        return None
    own = Path(tempfile.mkdtemp(dir=folder))
    try:
        subject = subject_of(probe.module, probe.size, name="probe", batch=form.batch)
        artifact = written(subject, form.format, form.precision, own)
    except UnavailableError:  # no converter here
        raise
    except VitscopeError as error:
        return _without_file(probe, " ".join(str(error).split()))
    return replace(_without_file(probe), artifact=replace(artifact, scopes={}, notes=()))


def _without_file(probe: Probe, reason: str = "") -> Exported:
    return Exported(probe.wanted, probe.copies, probe.kernels, probe.name, None, reason)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
