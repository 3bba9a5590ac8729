"""`vitscope measure`: how long networks take on a device that is here, with every sample and all of its context kept."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.book import Book
from vitscope.cli.measuring import (
    PROFILE_RUNS,
    BlockTime,
    Precisions,
    Processes,
    Results,
    Target,
    Threads,
    in_order,
    make_protocol,
    present_on,
    run_cases,
)
from vitscope.cli.options import (
    AllowPlugins,
    AsCsv,
    AsJson,
    Batch,
    Force,
    Form,
    Format,
    FormatChoice,
    Input,
    Kwargs,
    Output,
    Set,
    choose_format,
    parse_resolutions,
)
from vitscope.cli.progress import Progress
from vitscope.errors import UsageError, VitscopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vitscope.measure.channel import Job
    from vitscope.measure.channel import Target as TargetRecord
    from vitscope.measure.plan import Case, Failure, Network
    from vitscope.measure.record import Measurement, Protocol

_ZOO = "zoo"


class Part(str, Enum):
    """What a row of the breakdown stands for."""

    stage = "stage"
    block = "block"


class Unit(str, Enum):
    """Where a runtime that can choose executes."""

    all = "all"
    cpu = "cpu"
    cpu_gpu = "cpu+gpu"
    cpu_ane = "cpu+ane"
    cuda = "cuda"


def measure(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="As in profile, without .onnx files; 'zoo' is every network of it."),
    ],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            metavar="NAME,…",
            help="Runtimes to execute on (repeatable); all: every one that is there.",
            show_default="all",
        ),
    ] = None,
    target: Target = "host",
    precision: Precisions = None,
    threads: Threads = "1",
    affinity: Annotated[
        str | None, typer.Option("--affinity", metavar="N,N-M", help="Hold the process to these cores.")
    ] = None,
    cores: Annotated[
        str | None, typer.Option("--cores", metavar="big|mid|little|all|MASK", help="Cores of an Android device.")
    ] = None,
    unit: Annotated[
        Unit | None, typer.Option("--compute-units", help="Where Core ML, or PyTorch, may execute.")
    ] = None,
    form: Annotated[Form, typer.Option("--form", help="Fused for deployment, or as trained.")] = Form.deploy,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", metavar="N|HxW,…", help="Input sizes in pixels instead of the spec's own."),
    ] = None,
    input_size: Input = None,
    batch: Batch = 1,
    settings: Set = None,
    kwargs: Kwargs = None,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="FILE", help="Values from a timm or authors' checkpoint.")
    ] = None,
    processes: Processes = None,
    block: BlockTime = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random order in which models take turns.")] = 0,
    together: Annotated[
        int, typer.Option("--together", min=1, max=64, help="Rows that take turns; they finish together.")
    ] = 8,
    by: Annotated[
        Part | None, typer.Option("--by", help="Also say where the time went, from the runtime's own profile.")
    ] = None,
    fail_on_fallback: Annotated[
        bool, typer.Option("--fail-on-fallback", help="Exit 1 and name the blocks that left the Neural Engine.")
    ] = False,
    append: Annotated[
        Path | None,
        typer.Option("--append", metavar="FILE.csv", help="Add rows to a results file, and skip those that it holds."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="With --append: measure what it holds once more.")] = False,
    runner: Annotated[
        list[str] | None,
        typer.Option("--runner", metavar="[NAME=]PATH", help="Benchmark program for an Android device (repeatable)."),
    ] = None,
    python: Annotated[str | None, typer.Option("--python", metavar="PATH", help="Python of an ssh target.")] = None,
    ssh_option: Annotated[
        list[str] | None, typer.Option("--ssh-option", metavar="K=V", help="Passed to ssh as -o (repeatable).")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Option of torch.compile, or flag of a program on Android (repeatable).",
        ),
    ] = None,
    team: Annotated[
        str | None, typer.Option("--team", metavar="ID", help="Development team that signs for an iPhone.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", metavar="ID", help="Bundle identifier for an iPhone.")
    ] = None,
    signing: Annotated[
        str | None, typer.Option("--profile", metavar="UUID", help="Provisioning profile for an iPhone.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured and what is missing; measure nothing.")
    ] = False,
    allow_plugins: AllowPlugins = False,
    form_out: FormatChoice = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """Measure latency on this host, over ssh, on an Android device or an iPhone.

    Median, p90 and 95 % interval from several fresh processes; with --append the rows go to a file that pareto reads.

    \b
    vitscope measure efficientformerv2_s0 mobilenetv2_100 --runtime onnxruntime,openvino
    vitscope measure zoo --runtime litert --append results.csv
    vitscope measure my_net.yaml --runtime onnxruntime --by block
    """
    from vitscope.cli.output import check_writable
    from vitscope.measure import rows
    from vitscope.measure.plan import ALL, Failure, cases, parse_numbers, parse_precisions, parse_runtimes

    chosen = choose_format(form_out, as_json, as_csv, output)
    if output is not None:
        check_writable(output, force)
    if again and append is None:
        raise UsageError("--again: repeats what a results file holds; name one with --append FILE.csv")
    if append is not None:
        rows.check(append)
    names = parse_runtimes(runtime or [ALL])
    if fail_on_fallback and names != ["coreml"]:
        raise UsageError("--fail-on-fallback: only Core ML leaves the Neural Engine; use --runtime coreml")
    if fail_on_fallback and unit is not None and unit in (Unit.cpu, Unit.cpu_gpu):
        raise UsageError(f"--fail-on-fallback: --compute-units {unit.value} leaves the Neural Engine out")
    protocol = make_protocol(processes, block, seed)
    precisions, counts = parse_precisions(precision), parse_numbers(threads, "--threads", 1)
    held = () if affinity is None else parse_numbers(affinity, "--affinity", 0)
    networks = _networks(models, form, resolution, input_size, batch, settings or [], kwargs, weights, allow_plugins)
    place = _target(
        target, runner, cores=cores, python=python, ssh_option=ssh_option, team=team, bundle=bundle, profile=signing
    )
    options = _options(option or [], target, names)
    chosen_unit = None if unit is None else unit.value
    if names != [ALL]:  # what no runtime of these can do is said before anything is started
        cases(networks, names, precisions=precisions, unit=chosen_unit, threads=counts)
    progress = Progress()
    found: list[tuple[Case, Measurement | Failure]] = []
    try:
        progress.say(f"ask {place.name} for its runtimes")
        there, missing = present_on(place, names)
        planned = cases(
            networks, list(there) if names == [ALL] else names, precisions=precisions, unit=chosen_unit,
            threads=counts, lenient=names == [ALL],
        )  # fmt: skip
        ready = [case for case in planned if case.runtime in there]
        if dry_run:
            progress.clear()
            _emit_plan(planned, there, missing, place, protocol, chosen, output, force)
            return 3 if missing else 0
        book = None if append is None else Book(append, protocol, place, there, again)
        found += [(case, Failure.of(case, missing[case.runtime])) for case in planned if case.runtime in missing]
        run = run_cases(
            ready, place, protocol, progress=progress, together=together, options=options, book=book,
            affinity=held or getattr(place, "affinity", tuple)(), profile_runs=PROFILE_RUNS if by is not None else 0,
            gate=_gate(place, protocol) if fail_on_fallback else None,
        )  # fmt: skip
        for case, one in run:
            found.append((case, one))
            progress.line(f"{case.network.label} on {case.runtime}: {_said(one)}")
    except BaseException as error:
        progress.clear()
        _say_what_is_kept(found, append, error)
        raise
    finally:
        progress.clear()
        place.close()
    results = in_order(planned, iter(found))
    if book is not None:
        _say_of_book(book)
    _emit(results, by, chosen, output, force)
    return results.exit_code


def _networks(
    models: Sequence[str],
    form: Form,
    resolution: str | None,
    input_size: str | None,
    batch: int,
    settings: Sequence[str],
    kwargs: str | None,
    weights: str | None,
    allow_plugins: bool,
) -> list[Network]:
    """Every model at every size, each once. What names no network, or is wrong, is said here: before minutes of work."""
    from vitscope.measure.plan import Network
    from vitscope.sources import parse_input, parse_kwargs, source_of
    from vitscope.spec import load_spec
    from vitscope.spec.zoo import zoo_names

    named = [name for model in models for name in (zoo_names() if model == _ZOO else (model,))]
    shape, arguments = parse_input(input_size), parse_kwargs(kwargs)
    made = [
        Network(
            model=model, form="deploy" if form is Form.deploy else "train", overrides=tuple(settings),
            resolution=size, batch=batch, weights=weights, input_size=shape, kwargs=tuple(arguments.items()),
            allow_plugins=allow_plugins,
        )
        for model in dict.fromkeys(named)
        for size in parse_resolutions(resolution)
    ]  # fmt: skip
    if weights is not None and len({network.model for network in made}) > 1:
        raise UsageError("--weights: one checkpoint fits one model; give one MODEL")
    for network in made:
        if source_of(network.model) is None:
            load_spec(network.model, settings, resolution=network.resolution, allow_plugins=allow_plugins)
    return made


def _target(text: str, runner: list[str] | None, **options: str | list[str] | None) -> TargetRecord:
    """The target, with the options of its kind; those of another kind are refused."""
    from vitscope.measure.targets import parse_target

    if not runner:
        return parse_target(text, **options)
    if text.partition(":")[0] != "adb":
        raise UsageError(f"--runner does not apply to --target {text}")
    from vitscope.measure.targets.adb import runners_of

    return parse_target(text, runners=runners_of(runner), **options)


def _options(texts: Sequence[str], target: str, runtimes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if texts and target.partition(":")[0] != "adb" and list(runtimes) != ["torch.compile"]:
        raise UsageError(f"--option {texts[0]}: only torch.compile and the programs of an Android device take options")
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not name or not equals:
            raise UsageError(f"--option {text}: expected NAME=VALUE, as use_gpu=true")
    return tuple((name, value) for name, _, value in pairs)


def _gate(target: TargetRecord, protocol: Protocol) -> Callable[[Job], None]:
    """What refuses a job whose compute plan leaves the Neural Engine."""
    from vitscope.measure.placement import require_engine

    def check(job: Job) -> None:
        channel = target.open(job, protocol.timeout_s)
        try:
            plan = channel.op_times(1)
        finally:
            channel.close()
        require_engine(plan[1] if plan else None, job.artifact, job.unit)

    return check


def _said(one: Measurement | Failure) -> str:
    """What a finished row is worth saying at once."""
    from vitscope.measure.plan import Failure
    from vitscope.units import milliseconds

    if isinstance(one, Failure):
        return one.reason
    s = one.summary
    doubt = ", unstable" if one.unstable else ""
    return f"{milliseconds(s.latency_p50_s)} ({milliseconds(s.low_s)} to {milliseconds(s.high_s)}{doubt})"


def _say_what_is_kept(
    found: Sequence[tuple[Case, Measurement | Failure]], append: Path | None, error: BaseException
) -> None:
    """An end before the end loses nothing that was finished: a file holds it, or it is shown now."""
    from vitscope.cli.output import show
    from vitscope.measure.plan import Failure
    from vitscope.report.measure import measure_table

    finished = [one for _, one in found if not isinstance(one, Failure)]
    if append is not None and (finished or isinstance(error, KeyboardInterrupt)):
        print(
            f"{len(finished)} finished rows, and the processes of unfinished ones, are kept in {append}; "
            "the same command goes on from there",
            file=sys.stderr,
        )
    elif finished:
        show(measure_table(finished))


def _say_of_book(book: Book) -> None:
    lines = []
    if book.kept_rows:
        lines.append(f"{book.path}: measured already, {book.kept_rows} rows kept; --again repeats")
    if book.added:
        lines.append(f"{book.path}: {book.added} rows added, samples in {book.path.stem}.samples")
    for line in lines:
        print(line, file=sys.stderr)


def _emit(results: Results, by: Part | None, chosen: Format, output: Path | None, force: bool) -> None:
    from vitscope.cli.output import emit, emit_tables
    from vitscope.report.measure import breakdown_tables, measure_table, measurements_csv, measurements_json

    measured, failures = results.measurements, results.failures
    if chosen is Format.json:
        emit(json.dumps(measurements_json(measured, failures), ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(measurements_csv(measured, failures), output, force)
    else:
        tables = [measure_table(measured, failures)]
        tables += breakdown_tables(measured, by.value) if by is not None else []
        emit_tables(tables, chosen.value, output, force)


def _emit_plan(
    planned: Sequence[Case],
    there: dict[str, str],
    missing: dict[str, VitscopeError],
    target: TargetRecord,
    protocol: Protocol,
    chosen: Format,
    output: Path | None,
    force: bool,
) -> None:
    """What a run would do, and the least that it would take."""
    from vitscope.cli.output import emit, emit_tables
    from vitscope.report.measure import plan_csv, plan_json, plan_table

    if chosen is Format.json:
        data = plan_json(planned, there, missing, target.name, protocol)
        emit(json.dumps(data, indent=2, ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(plan_csv(planned, there, missing), output, force)
    else:
        emit_tables([plan_table(planned, there, missing, target.name, protocol)], chosen.value, output, force)
