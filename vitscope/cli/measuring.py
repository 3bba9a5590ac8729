"""What the commands that measure share: the conditions that their flags ask for, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from vitscope.cli.options import Unit
from vitscope.errors import UnavailableError, UsageError, VitscopeError

if TYPE_CHECKING:
    from vitscope.cli.progress import Progress
    from vitscope.cli.results_file import ResultsFile
    from vitscope.measure.channel import Job
    from vitscope.measure.channel import Target as TargetRecord
    from vitscope.measure.plan import Case, Failure, Network
    from vitscope.measure.record import Measurement, Protocol
    from vitscope.parts import Profile

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Where and how to measure: what the flags that these commands share say, as they were given."""

    target: str = "host"
    precision: str | None = None
    threads: str = "1"
    affinity: str | None = None
    compute_units: Unit | None = None
    processes: int | None = None
    block: str | None = None
    cores: str | None = None
    runner: list[str] | None = None
    python: str | None = None
    ssh_option: list[str] | None = None
    option: list[str] | None = None
    team: str | None = None
    bundle: str | None = None
    profile: str | None = None

    @property
    def given(self) -> list[str]:
        """The flags that say something else than their default."""
        usual = Conditions()
        return [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(usual, field.name)
        ]


class Run:
    """Measurements that were asked for. What the flags say is checked when it is made, before anything is started."""

    def __init__(self, conditions: Conditions, runtimes: Sequence[str], *, seed: int = 0, blocks: int = 1):
        """`runtimes` as typed, `blocks` those of a process. Raises UsageError, and what the target raises."""
        from vitscope.measure.plan import parse_numbers, parse_precisions, parse_runtimes

        self.conditions = conditions
        self.names = parse_runtimes(runtimes)
        self.protocol = replace(make_protocol(conditions.processes, conditions.block, seed), blocks=blocks)
        self.precisions = parse_precisions(conditions.precision)
        self.threads = parse_numbers(conditions.threads, "--threads", 1)
        self.affinity = () if conditions.affinity is None else parse_numbers(conditions.affinity, "--affinity", 0)
        self.unit = None if conditions.compute_units is None else conditions.compute_units.value
        self.options = _options(conditions.option or [], conditions.target, self.names)
        self.target = _target(conditions)

    def network(self, model: str, **fields: Any) -> Network:
        """The Network of a name on the command line, with the fields of it that flags gave; an exported file is opened.

        Raises UsageError for a file that cannot be measured so, and for what does not apply to a file.
        """
        from vitscope.export.opened import format_of, opened
        from vitscope.measure.plan import Network

        if format_of(model) is None:
            return Network(model=model, **fields)
        flags = {"overrides": "--set", "kwargs": "--kwargs", "weights": "--weights"}
        if refused := next((flag for name, flag in flags.items() if fields.get(name)), None):
            raise UsageError(f"{refused}: {model} is exported already, and is measured as it is")
        if fields.get("form", "deploy") != "deploy":
            raise UsageError(f"--form {fields['form']}: {model} is exported already, in the form that it has")
        size = {name: fields[name] for name in ("resolution", "batch", "input_size") if name in fields}
        file = opened(model, **size, precisions=self.precisions, target=self.conditions.target)
        return Network(model=model, file=file, **{**size, "batch": file.input_shape[0]})

    def cases(self, networks: Sequence[Network], runtimes: Sequence[str] | None = None) -> list[Case]:
        """Every row of these networks on `runtimes`, where given those that are there when all were asked for.

        Raises UsageError for what no runtime of these can do.
        """
        from vitscope.measure.plan import cases

        return cases(
            networks, self.names if runtimes is None else runtimes, precisions=self.precisions, unit=self.unit,
            threads=self.threads, lenient=runtimes is not None,
        )  # fmt: skip

    def found(self, networks: Sequence[Network], progress: Progress) -> Found:
        """Ask the target for its runtimes. Raises UsageError first for what no runtime could do anywhere."""
        from vitscope.measure.plan import ALL

        is_all = self.names == [ALL]
        if not is_all:
            self.cases(networks)
        progress.say(f"ask {self.target.name} for its runtimes")
        there, missing = present_on(self.target, self.names)
        return Found(tuple(self.cases(networks, list(there) if is_all else None)), there, missing)

    def outcomes(self, found: Found, progress: Progress, **how: Any) -> Iterator[tuple[Case, Measurement | Failure]]:
        """Each case of `found` as it is measured or fails; `how` is handed to `run_cases`."""
        from vitscope.measure.plan import Failure

        for case in found.cases:
            if case.runtime in found.missing:
                yield case, Failure.of(case, found.missing[case.runtime])
        ready = [case for case in found.cases if case.runtime in found.there]
        affinity = self.affinity or getattr(self.target, "affinity", tuple)()
        yield from run_cases(
            ready, self.target, self.protocol, progress=progress, affinity=affinity, options=self.options, **how
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a run will do: its cases, the versions of the runtimes that are there, and why others are not."""

    cases: tuple[Case, ...]
    there: dict[str, str]
    missing: dict[str, VitscopeError]


def _target(conditions: Conditions) -> TargetRecord:
    """The target, with the options of its kind; those of another kind are refused."""
    from vitscope.measure.targets import parse_target

    text, runner = conditions.target, conditions.runner
    named = ("cores", "python", "ssh_option", "team", "bundle", "profile")
    options: dict[str, Any] = {name: getattr(conditions, name) for name in named}
    if runner and text.partition(":")[0] != "adb":
        raise UsageError(f"--runner does not apply to --target {text}")
    if runner:
        from vitscope.measure.targets.adb import runners_of

        options["runners"] = runners_of(runner)
    return parse_target(text, **options)


def _options(texts: Sequence[str], target: str, runtimes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if texts and target.partition(":")[0] != "adb" and list(runtimes) != ["torch.compile"]:
        raise UsageError(f"--option {texts[0]}: only torch.compile and the programs of an Android device take options")
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not name or not equals:
            raise UsageError(f"--option {text}: expected NAME=VALUE, as use_gpu=true")
    return tuple((name, value) for name, _, value in pairs)


def make_protocol(processes: int | None, block: str | None, seed: int = 0) -> Protocol:
    """The Protocol that the flags ask for. A shorter block also needs fewer inferences and a shorter warm-up."""
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

    if network.file is not None and network.file.format != "onnx":
        return {}  # nothing here counts what is in such a file
    try:
        made = _profiled(network)
    except VitscopeError:
        if network.file is None:
            raise
        return {}  # a file that runs and cannot be counted is measured all the same
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
        network.model, network.input_size, form="train" if network.file else network.form,
        resolution=network.resolution, batch=network.batch, overrides=network.overrides,
        allow_plugins=network.allow_plugins, kwargs=dict(network.kwargs) or None,
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
    file: ResultsFile | None = None,
    gate: Callable[[Job], None] | None = None,
) -> Iterator[tuple[Case, Measurement | Failure]]:
    """Export and measure `cases`, `together` at a time: so many take turns in random order, and finish together.

    A case that fails is one Failure, and the others go on. Nothing is exported while something is timed. `gate` may
    refuse a measured job by raising. Raises MeasureError when the results file cannot be written.
    """
    from vitscope.export.interrupt import after_the_converter
    from vitscope.export.silence import silenced
    from vitscope.measure.plan import Exporter, Failure
    from vitscope.measure.session import Failed, measure

    exporter = Exporter(here=target.name == "host")
    facts: dict[Job, dict[str, Any]] = {}
    for start in range(0, len(cases), together):
        jobs: dict[Job, list[Case]] = {}  # several where names differ and the network does not
        for case in cases[start : start + together]:
            if case.network.file is None:
                progress.say(f"export: {case.network.label} to {case.format}, {case.precision}")
            try:
                with after_the_converter(), silenced():  # also what the tools print when they are imported
                    job = exporter.job(case, affinity, options)
                if file is not None and file.done(job):
                    file.kept_rows += 1
                    if (known := file.read(job)) is not None:
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
            kept={job: file.kept(job) for job in jobs} if file else None, on_round=file.keep if file else None,
            on_progress=lambda step, start=start: progress.step(step, start, len(cases)),
        )  # fmt: skip
        for outcome in session:
            sharing = jobs[outcome.job]
            if isinstance(outcome, Failed):
                yield from ((case, Failure.of(case, outcome.error)) for case in sharing)
                continue
            if file is not None:
                file.add(outcome.measurement, facts[outcome.job])
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
