"""What the commands that measure share: their options, the protocol that these ask for, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitscope.errors import UnavailableError, UsageError, VitscopeError

if TYPE_CHECKING:
    from vitscope.cli.book import Book
    from vitscope.cli.progress import Progress
    from vitscope.measure.channel import Job
    from vitscope.measure.channel import Target as TargetRecord
    from vitscope.measure.plan import Case, Failure, Network
    from vitscope.measure.record import Measurement, Protocol
    from vitscope.parts import Profile

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
