"""What the commands that measure share: options, target and protocol from them, progress on stderr, and the run itself."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from vitscope.errors import UnavailableError, UsageError, VitscopeError

if TYPE_CHECKING:
    from vitscope.measure.channel import Job
    from vitscope.measure.channel import Target as TargetRecord
    from vitscope.measure.plan import Case, Failure, Network
    from vitscope.measure.record import Measurement, Protocol
    from vitscope.measure.session import Round, Step
    from vitscope.parts import Profile

Measure = Annotated[
    str | None,
    typer.Option(
        "--measure", metavar="RUNTIME,…", help="Run the deploy form on these runtimes now, and show what they took."
    ),
]
Target = Annotated[
    str, typer.Option("--target", metavar="WHERE", help="host, mac, ssh:USER@HOST, adb:SERIAL or iphone.")
]
Precisions = Annotated[
    str | None,
    typer.Option("--precision", metavar="P,…", help="fp32, fp16 or int8.", show_default="fp32, for Core ML fp16"),
]
Threads = Annotated[str, typer.Option("--threads", metavar="N,…", help="Threads that the runtime may use.")]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, max=1000, help="Fresh processes a row.", show_default="5")
]
BlockTime = Annotated[
    str | None, typer.Option("--block", metavar="TIME", help="Time of a process's block of samples.", show_default="1s")
]

_QUIET_S = 5.0  # between two lines of progress where stderr is no terminal
PROFILE_RUNS = 20


@dataclass(frozen=True, slots=True)
class Results:
    """What a run gave, in the order of its cases, and the exit code that this makes."""

    measurements: tuple[Measurement, ...]
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """3 where a runtime or device was missing, 1 where something else failed."""
        codes = {failure.exit_code for failure in self.failures}
        return 3 if 3 in codes else 1 if codes else 0


def make_protocol(processes: int | None, block: str | None, seed: int = 0) -> Protocol:
    """The Protocol that the flags ask for. A shorter block also needs fewer inferences and a shorter warm-up."""
    from dataclasses import replace

    from vitscope.measure.record import Protocol
    from vitscope.units import parse_seconds

    made = Protocol(seed=seed)
    if processes is not None:
        made = replace(made, processes=processes)
    if block is None:
        return made
    try:
        block_s = parse_seconds(block)
    except ValueError as error:
        raise UsageError(f"--block: {error}") from None
    if not 1e-3 <= block_s <= 3600:
        raise UsageError(f"--block {block}: expected 1ms to 3600s")
    short = min(1.0, block_s / made.block_s)
    return replace(
        made, block_s=block_s, block_runs=max(5, round(made.block_runs * short)), warm_s=made.warm_s * short,
        warm_runs=max(3, round(made.warm_runs * short)), warm_limit_s=max(1.0, made.warm_limit_s * short),
    )  # fmt: skip


def present_on(target: TargetRecord, names: Sequence[str]) -> tuple[dict[str, str], dict[str, VitscopeError]]:
    """The versions of the runtimes of `names` (`all`: of every one) that the target has, and why it lacks the others.

    Raises UnavailableError where `all` finds none.
    """
    from vitscope.measure.plan import ALL
    from vitscope.measure.runtimes import RUNTIMES

    found = target.runtimes(() if list(names) == [ALL] else names)
    there = {name: version for name in RUNTIMES if isinstance(version := found.get(name), str)}
    if list(names) == [ALL]:
        if not there:
            reasons = [str(reason) for reason in found.values() if isinstance(reason, VitscopeError)]
            raise UnavailableError(f"{target.name}: no runtime is there: {reasons[0] if reasons else 'none is known'}")
        return there, {}
    missing: dict[str, VitscopeError] = {}
    for name in names:
        if name not in there:
            title = RUNTIMES[name].title
            missing[name] = found.get(name) or UnavailableError(f"{target.name}: {title} is not executed there")
    return {name: there[name] for name in names if name in there}, missing


class Progress:
    """What is being waited for, on stderr: one line that rewrites itself on a terminal, else a plain line now and then."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.out = out or sys.stderr
        self.clock = clock
        self.live = self.out.isatty()
        self.began = self.said = clock()
        self.width = 0
        self.session = (-1, 0.0, 0)  # the rows before it, when it began, and the processes that were done then

    def say(self, text: str) -> None:
        """The state now. A terminal sees every one, a log only one every few seconds."""
        now = self.clock()
        if self.live:
            import shutil

            text = text[: shutil.get_terminal_size().columns - 1]
            self.out.write("\r" + text.ljust(self.width) + "\r")
            self.out.flush()
            self.width = len(text)
        elif now - self.said >= _QUIET_S:
            print(text, file=self.out, flush=True)
            self.said = now

    def line(self, text: str) -> None:
        """Something that stays."""
        self.clear()
        print(text, file=self.out, flush=True)

    def clear(self) -> None:
        if self.live and self.width:
            self.out.write("\r" + " " * self.width + "\r")
            self.out.flush()
            self.width = 0

    def step(self, step: Step, before: int, total: int) -> None:
        """A step of a session whose rows stand after `before` others of `total`; a row's share of the time is told too."""
        name = f"{step.job.artifact.model} on {step.job.runtime}"
        now = self.clock()
        if self.session[0] != before:
            self.session = (before, now, step.done)
        _, since, kept = self.session
        last = before + step.total // step.processes
        rows = f"row {last} of {total}" if last == before + 1 else f"rows {before + 1} to {last} of {total}"
        at = f"{step.what}: {name}, process {step.process} of {step.processes}"
        made = step.done - kept
        left = f", about {_span((now - since) / made * (step.total - step.done))} left for these" if made else ""
        self.say(f"[{_span(now - self.began)}] {rows}: {at}{left}")


def _span(seconds: float) -> str:
    """Whole seconds and minutes, for a line that is read while waiting."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"


class Book:
    """A results file: what it holds is not measured again, what was interrupted goes on, what is finished is added."""

    def __init__(
        self, path: Path, protocol: Protocol, target: TargetRecord, versions: Mapping[str, str], again: bool = False
    ):
        from vitscope.measure import rows

        self.path, self.protocol, self.target, self.versions = path, protocol, target, versions
        self.finished = dict[str, frozenset[int]]() if again else rows.finished(path)
        self.kept_rows = self.added = self.resumed = 0

    def key(self, job: Job) -> str:
        from vitscope.measure.rows import key_of_job

        version = self.versions.get(job.runtime, "")
        return key_of_job(job, self.protocol, target=self.target.name, runtime_version=version)

    def done(self, job: Job) -> bool:
        sizes = self.finished.get(self.key(job))
        return sizes is not None and (not sizes or job.artifact.num_bytes in sizes)

    def read(self, job: Job) -> Measurement | None:
        """The newest measurement of `job`'s file that stands beside the rows; None where its samples are gone or damaged."""
        from vitscope.measure.rows import samples_of
        from vitscope.measure.saved import read_measurement

        for file in samples_of(self.path, self.key(job)):
            with contextlib.suppress(UsageError):
                found = read_measurement(file)
                if found.condition.artifact_bytes == job.artifact.num_bytes:
                    return found
        return None

    def kept(self, job: Job) -> tuple[Round, ...]:
        from vitscope.measure.rows import kept, rounds_key

        rounds = kept(self.path, rounds_key(self.key(job), job.artifact.num_bytes))
        self.resumed += bool(rounds)
        return rounds

    def keep(self, job: Job, rounds: Sequence[Round]) -> None:
        from vitscope.measure.rows import keep, rounds_key

        keep(self.path, rounds_key(self.key(job), job.artifact.num_bytes), rounds)

    def add(self, measurement: Measurement, facts: Mapping[str, Any]) -> None:
        from vitscope.measure.rows import append

        append(self.path, measurement, facts)
        self.added += 1


def facts_of(network: Network) -> dict[str, Any]:
    """Family, params, MACs and reported top-1 of a network, for the columns that `pareto` reads; unknown ones absent."""
    import json

    made = _profiled(network)
    found: dict[str, Any] = {"params": made.totals.params}
    if not made.is_partial:
        found["macs"] = made.totals.macs
    if made.document and (family := json.loads(made.document).get("family")):
        found["family"] = family
    if made.reported is not None and made.reported.top1 is not None:
        found["top1"] = made.reported.top1.text
    return found


def _profiled(network: Network) -> Profile:
    from vitscope.profile import profile, profile_spec

    if network.document:
        from vitscope.spec import parse_spec

        return profile_spec(parse_spec(network.document, network.model), form=network.form, batch=network.batch)
    return profile(
        network.model, network.input_size, form=network.form, resolution=network.resolution, batch=network.batch,
        overrides=network.overrides, allow_plugins=network.allow_plugins, kwargs=dict(network.kwargs) or None,
    )  # fmt: skip


def _accept(facts: Mapping[Job, Mapping[str, Any]]) -> Callable[[Job, Measurement], None]:
    """What refuses a figure that the hardware cannot reach. Raises ImplausibleError with the arithmetic."""
    from vitscope.measure.plausible import check

    bytes_each = {"fp32": 4, "fp16": 2, "int8": 1}

    def accept(job: Job, measurement: Measurement) -> None:
        known = facts.get(job, {})
        if "macs" in known:
            check(measurement, macs=known["macs"], weight_bytes=known["params"] * bytes_each[job.artifact.precision])

    return accept


def run_cases(
    cases: Sequence[Case],
    target: TargetRecord,
    protocol: Protocol,
    *,
    progress: Progress,
    affinity: tuple[int, ...] = (),
    options: tuple[tuple[str, str], ...] = (),
    together: int = 8,
    profile_runs: int = 0,
    book: Book | None = None,
    gate: Callable[[Job], None] | None = None,
) -> Iterator[tuple[Case, Measurement | Failure]]:
    """Export and measure `cases`, `together` at a time: so many take turns in random order, and finish together.

    A case that fails is one Failure, and the others go on. Nothing is exported while something is timed. `gate` may
    refuse a measured job by raising. Raises MeasureError when the results file cannot be written.
    """
    from vitscope.export.silence import silenced
    from vitscope.measure.plan import Exporter, Failure
    from vitscope.measure.session import Failed, measure

    exporter = Exporter(here=target.name == "host")
    facts: dict[Job, dict[str, Any]] = {}
    for start in range(0, len(cases), together):
        jobs: dict[Job, list[Case]] = {}  # several where names differ and the network does not
        for case in cases[start : start + together]:
            progress.say(f"export: {case.network.label} to {case.format}, {case.precision}")
            try:
                with silenced():  # also what the tools print when they are imported
                    job = exporter.job(case, affinity, options)
                if book is not None and book.done(job):
                    book.kept_rows += 1
                    if (known := book.read(job)) is not None:
                        yield case, known
                    continue
                facts[job] = facts_of(case.network)
                jobs.setdefault(job, []).append(case)
            except VitscopeError as error:
                yield case, Failure.of(case, error)
        if not jobs:
            continue
        session = measure(
            list(jobs), target, protocol, profile_runs=profile_runs, accept=_accept(facts),
            kept={job: book.kept(job) for job in jobs} if book else None, on_round=book.keep if book else None,
            on_progress=lambda step, start=start: progress.step(step, start, len(cases)),
        )  # fmt: skip
        for outcome in session:
            sharing = jobs[outcome.job]
            if isinstance(outcome, Failed):
                yield from ((case, Failure.of(case, outcome.error)) for case in sharing)
                continue
            if book is not None:
                book.add(outcome.measurement, facts[outcome.job])
            yield from ((case, outcome.measurement) for case in sharing)
            if gate is not None:
                try:
                    gate(outcome.job)
                except VitscopeError as error:
                    yield sharing[0], Failure.of(sharing[0], error)


def in_order(cases: Sequence[Case], found: Iterator[tuple[Case, Measurement | Failure]]) -> Results:
    """Everything that `found` gives, put back into the order of `cases`."""
    from vitscope.measure.plan import Failure

    place = {case: i for i, case in enumerate(cases)}
    all_found = sorted(found, key=lambda pair: place[pair[0]])
    return Results(
        tuple(one for _, one in all_found if not isinstance(one, Failure)),
        tuple(one for _, one in all_found if isinstance(one, Failure)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What `--measure` of `profile` and `compare` asks for, as their flags give it."""

    runtimes: str | None
    target: str
    precision: str | None
    threads: str
    processes: int | None
    block: str | None

    def check(self) -> None:
        """Raises UsageError for what names no runtime, and for a flag that means nothing without --measure."""
        from vitscope.measure.plan import parse_runtimes

        if self.runtimes is not None:
            parse_runtimes([self.runtimes])
            kind = self.target.partition(":")[0]
            if kind in ("adb", "iphone"):
                needs = "a program (--runner)" if kind == "adb" else "a signing team (--team)"
                raise UsageError(
                    f"--target {self.target}: needs {needs}, which is given to 'vitscope measure'; use that"
                )
            return
        given = {
            "--target": self.target != "host", "--precision": self.precision is not None,
            "--threads": self.threads != "1", "--processes": self.processes is not None, "--block": self.block is not None,
        }  # fmt: skip
        if flag := next((flag for flag, is_given in given.items() if is_given), None):
            raise UsageError(f"{flag}: belongs to --measure RUNTIME, which is not given")

    def run(
        self, networks: Sequence[Network], *, profile_runs: int = 0, blocks: int = 1
    ) -> tuple[dict[Case, Measurement], Results]:
        """Measure the networks, all of them taking turns, `blocks` a process: by case, and as Results with what failed."""
        from dataclasses import replace

        from vitscope.measure.plan import ALL, Failure, cases, parse_numbers, parse_precisions, parse_runtimes
        from vitscope.measure.targets import parse_target

        names = parse_runtimes([self.runtimes or ALL])
        counts, precisions = parse_numbers(self.threads, "--threads", 1), parse_precisions(self.precision)
        protocol = replace(make_protocol(self.processes, self.block), blocks=blocks)
        if names != [ALL]:
            cases(networks, names, precisions=precisions, threads=counts)
        target, progress = parse_target(self.target), Progress()
        try:
            progress.say(f"ask {target.name} for its runtimes")
            there, missing = present_on(target, names)
            planned = cases(
                networks, list(there) if names == [ALL] else names, precisions=precisions, threads=counts,
                lenient=names == [ALL],
            )  # fmt: skip
            ready = [case for case in planned if case.runtime in there]
            found: list[tuple[Case, Measurement | Failure]] = [
                (case, Failure.of(case, missing[case.runtime])) for case in planned if case.runtime in missing
            ]
            found += run_cases(
                ready, target, protocol, progress=progress, together=max(1, len(ready)), profile_runs=profile_runs
            )
        finally:
            progress.clear()
            target.close()
        results = in_order(planned, iter(found))
        for failure in results.failures:
            progress.line(f"{failure.model} on {failure.runtime}: {failure.reason}")
        return {case: one for case, one in found if not isinstance(one, Failure)}, results
