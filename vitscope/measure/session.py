"""measure(jobs, target): rounds of fresh processes in which every model has its turn in random order, as samples arrive.

A round is one process a job. One whose core or memory was slowed by something else, as a fixed computation and a fixed
copy before and after its blocks tell, is set aside for another: never for what it measured. Where a process runs several
blocks, as many processes as `hold` live side by side and their blocks alternate, so that what slows the machine for some
seconds slows all of them. A job that fails ends alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from random import Random
from typing import Literal

from vitscope.errors import UsageError, VitscopeError
from vitscope.measure.channel import Channel, Job, MeasureError, Opened, Target
from vitscope.measure.record import Attribution, Block, Condition, Measurement, Protocol, State
from vitscope.measure.speed import Speed
from vitscope.measure.statistics import advise, summarize

HOLD = 4  # processes alive at once: as many models fit the memory of a small board
_AGAIN_RUNS = 5  # before a further block of a process, whose caches the others have used meanwhile
_FOREVER = 1e9  # a tolerance that any two windows meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One fresh process of one job: what a measurement is made of, and what an interrupted one keeps."""

    opened: Opened
    warm_s: float
    stable: bool
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that was measured."""

    job: Job
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Failed:
    """A job that was not: it has one line of reason, and the exit code that goes with it. The others went on."""

    job: Job
    error: VitscopeError


@dataclass(frozen=True, slots=True)
class Step:
    """What the session is about to wait for: `process` counts from 1; `done` of `total` processes are over."""

    what: Literal["load", "warm up", "measure", "profile"]
    job: Job
    process: int
    processes: int
    done: int
    total: int


def measure(
    jobs: Sequence[Job],
    target: Target,
    protocol: Protocol,
    *,
    kept: Mapping[Job, Sequence[Round]] | None = None,
    on_round: Callable[[Job, tuple[Round, ...]], None] | None = None,
    on_progress: Callable[[Step], None] | None = None,
    accept: Callable[[Job, Measurement], None] | None = None,
    profile_runs: int = 0,
    hold: int = HOLD,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Finished | Failed]:
    """Measure `jobs` on `target`, each yielded once it is finished or has failed.

    `kept` are rounds of an earlier session, which are not repeated unless the target's runtime or system changed
    since. `on_round` gets all rounds of a job after each, to keep them. `accept` may refuse a measurement by raising.
    With `profile_runs`, a last process that is not timed says where the time went.

    Whatever ends the iteration early, Ctrl-C included, ends the processes first. The target stays open.
    """
    if len(set(jobs)) < len(jobs):
        raise UsageError("the same model is to be measured twice under one condition")
    session = _Session(target, protocol, on_progress, clock, jobs, kept or {})
    failed: set[Job] = set()
    while True:
        for job in jobs:
            if job not in failed and job not in session.over and len(session.rounds[job]) >= protocol.processes:
                session.over.add(job)
                yield _finish(session, job, accept, profile_runs)
        waiting = [job for job in jobs if job not in failed and job not in session.over]
        if not waiting:
            return
        number = min(len(session.rounds[job]) for job in waiting)
        turn = [job for job in waiting if len(session.rounds[job]) == number]
        Random(f"{protocol.seed} {number}").shuffle(turn)
        size = max(1, hold) if protocol.blocks > 1 else 1
        for start in range(0, len(turn), size):
            group = turn[start : start + size]
            for job, error in session.run_round(group, Random(f"{protocol.seed} {number} {start}")).items():
                failed.add(job)
                yield Failed(job, error)
            for job in group:
                if job not in failed and on_round is not None and session.rounds[job]:  # none where all were set aside
                    on_round(job, tuple(session.rounds[job]))


class _Session:
    """The rounds so far, and the clock that runs through all of them."""

    def __init__(
        self,
        target: Target,
        protocol: Protocol,
        on_progress: Callable[[Step], None] | None,
        clock: Callable[[], float],
        jobs: Sequence[Job],
        kept: Mapping[Job, Sequence[Round]],
    ):
        self.target, self.protocol, self.clock = target, protocol, clock
        self.on_progress = on_progress
        self.rounds = {job: list(kept.get(job, ()))[: protocol.processes] for job in jobs}
        self.aside: dict[Job, list[Round]] = {job: [] for job in jobs}
        self.over: set[Job] = set()
        blocks = [block for rounds in self.rounds.values() for past in rounds for block in past.blocks]
        self.speed = Speed(_states(blocks))
        self.order = max((block.order for block in blocks), default=-1) + 1
        self.began = clock() - max((block.started_s for block in blocks), default=0.0)

    def tell(self, what: Literal["load", "warm up", "measure", "profile"], job: Job) -> None:
        if self.on_progress is not None:
            of = self.protocol.processes
            process = min(len(self.rounds[job]) + 1, of)
            done = sum(map(len, self.rounds.values()))
            self.on_progress(Step(what, job, process, of, done, of * len(self.rounds)))

    def run_round(self, group: Sequence[Job], random: Random) -> dict[Job, VitscopeError]:
        """One process of each of `group`, side by side. The rounds are added to; the errors of those that failed."""
        errors: dict[Job, VitscopeError] = {}
        channels: dict[Job, Channel] = {}
        warm: dict[Job, tuple[float, bool]] = {}
        blocks: dict[Job, list[Block]] = {job: [] for job in group}
        try:
            for job in group:
                self.tell("load", job)
                try:
                    channels[job] = self.target.open(job, self.protocol.timeout_s)
                except VitscopeError as error:
                    errors[job] = error
                    continue
                self._forget_if_changed(job, channels[job].opened)
            for _ in range(self.protocol.blocks):
                turn = list(channels)
                random.shuffle(turn)
                for job in turn:
                    try:
                        self._warm(job, channels[job], warm)
                        blocks[job].append(self._block(job, channels[job]))
                    except VitscopeError as error:
                        errors[job] = error
                        channels.pop(job).close()
            made: dict[Job, Round] = {}
            for job, channel in channels.items():
                seconds, stable = warm[job]
                made[job] = Round(opened=channel.opened, warm_s=seconds, stable=stable, blocks=tuple(blocks[job]))
            self._keep_or_set_aside(made)
        finally:
            for channel in channels.values():
                channel.close()
        return errors

    def _keep_or_set_aside(self, made: Mapping[Job, Round]) -> None:
        """Those that ran side by side are compared with one another: they stay or go together."""
        states = [state for past in made.values() for state in _states(past.blocks)]
        self.speed.read(states)
        again = self.speed.is_slowed(states, self.protocol) and all(
            len(self.aside[job]) < self.protocol.retries for job in made
        )
        for job, past in made.items():
            (self.aside if again else self.rounds)[job].append(past)

    def attribute(self, job: Job, total_s: float, runs: int) -> tuple[Attribution | None, str]:
        """Where the time of `job` went, from a process of its own; or None and a note that says why it is not known."""
        from vitscope.measure.attribution import attribute

        self.tell("profile", job)
        rule = self.protocol
        try:
            channel = self.target.open(job, rule.timeout_s)
            try:
                channel.warm(rule.warm_s, rule.warm_runs, rule.warm_tolerance, rule.warm_limit_s)
                found = channel.op_times(runs)
            finally:
                channel.close()
            if found is None:
                return None, f"where the time went is not known: {job.runtime} has no profile of its operations"
            how, ops = found
            return attribute(how, ops, job.artifact, total_s, f"{job.runtime} {channel.opened.runtime_version}"), ""
        except VitscopeError as error:
            return None, f"where the time went is not known: {error}"

    def _forget_if_changed(self, job: Job, opened: Opened) -> None:
        """Rounds of another version, machine or system are those of another condition."""
        past = self.rounds[job]
        if past and _place(past[0].opened) != _place(opened):
            past.clear()

    def _warm(self, job: Job, channel: Channel, warm: dict[Job, tuple[float, bool]]) -> None:
        rule = self.protocol
        if job in warm:
            channel.warm(0.0, _AGAIN_RUNS, _FOREVER, rule.warm_limit_s)
            return
        self.tell("warm up", job)
        warm[job] = channel.warm(rule.warm_s, rule.warm_runs, rule.warm_tolerance, rule.warm_limit_s)

    def _block(self, job: Job, channel: Channel) -> Block:
        self.tell("measure", job)
        started = self.clock() - self.began
        samples = channel.block(self.protocol.block_s, self.protocol.block_runs)
        if not samples.samples_s:
            raise MeasureError(f"{self.target.name}: a block of {job.artifact.model} came back without a sample")
        block = Block(
            process=len(self.rounds[job]), order=self.order, started_s=started, samples_s=samples.samples_s,
            averaged=samples.averaged, before=samples.before, after=samples.after,
        )  # fmt: skip
        self.order += 1
        return block


def _finish(
    session: _Session, job: Job, accept: Callable[[Job, Measurement], None] | None, profile_runs: int
) -> Finished | Failed:
    """The measurement that the rounds of `job` make."""
    protocol, rounds = session.protocol, session.rounds[job]
    blocks = tuple(block for past in rounds for block in past.blocks)
    opened = rounds[0].opened
    summary = summarize(blocks, seed=protocol.seed)
    cores = opened.cores
    if job.affinity:
        cores = len(job.affinity) if cores is None else min(cores, len(job.affinity))
    advice = advise(
        blocks, summary, protocol, threads=job.threads, cores=cores, warmed=[past.stable for past in rounds]
    )
    notes = (*job.artifact.notes, *opened.notes)
    aside = tuple(block for past in session.aside[job] for block in past.blocks)
    warnings = advice.warnings
    if aside:
        again = len(session.aside[job])
        warnings += (
            f"{again} process{'es' * (again > 1)} set aside and measured again: "
            f"{session.speed.told(_states(aside), protocol)} slower around them, so something else ran",
        )

    def made(attribution: Attribution | None, note: str) -> Measurement:
        return Measurement(
            condition=condition(job, session.target.name, opened), protocol=protocol,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            load_s=tuple(past.opened.load_s for past in rounds), warm_s=tuple(past.warm_s for past in rounds),
            blocks=blocks, summary=summary, unstable=advice.unstable, warnings=warnings,
            notes=(*notes, note) if note else notes, attribution=attribution, set_aside=aside,
        )  # fmt: skip

    measurement = made(None, "")
    try:
        if accept is not None:
            accept(job, measurement)
    except VitscopeError as error:
        return Failed(job, error)
    if profile_runs > 0:
        measurement = made(*session.attribute(job, summary.latency_p50_s, profile_runs))
    return Finished(job, measurement)


def condition(job: Job, target: str, opened: Opened) -> Condition:
    """What `job` is measured under, once a process on the target has said what it is."""
    artifact = job.artifact
    return Condition(
        model=artifact.model, digest=artifact.digest, form=artifact.form, input_shape=artifact.input_shape,
        precision=artifact.precision, format=artifact.format, weights=artifact.weights, tools=artifact.tools,
        artifact_bytes=artifact.num_bytes, target=target, host=opened.host, processor=opened.processor,
        system=opened.system, runtime=job.runtime, runtime_version=opened.runtime_version, unit=job.unit,
        threads=job.threads, affinity=job.affinity, options=dict(job.options),
    )  # fmt: skip


def _states(blocks: Sequence[Block]) -> list[State]:
    return [state for block in blocks for state in (block.before, block.after)]


def _place(opened: Opened) -> tuple[str, str, str, str]:
    return opened.runtime_version, opened.host, opened.processor, opened.system
