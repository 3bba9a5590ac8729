"""`vitscope measure`: how long networks take on a device that is here, with every sample and all of its context kept."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.measuring import PROFILE_RUNS, Conditions, Found, Results, Run, in_order
from vitscope.cli.options import (
    Affinity,
    AllowPlugins,
    AsCsv,
    AsJson,
    Batch,
    BlockTime,
    Bundle,
    ComputeUnit,
    Cores,
    Force,
    Form,
    Format,
    FormatChoice,
    Input,
    Kwargs,
    Output,
    Precisions,
    Processes,
    Python,
    Runner,
    RuntimeOption,
    Set,
    Signing,
    SshOption,
    Target,
    Team,
    Threads,
    Unit,
    choose_format,
    parse_resolutions,
)
from vitscope.cli.progress import Progress
from vitscope.cli.results_file import ResultsFile
from vitscope.errors import UsageError

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


def measure(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…", help="As in profile, files .onnx .tflite .pte .pt2 .mlpackage, or 'zoo' for all of it."
        ),
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
    affinity: Affinity = None,
    cores: Cores = None,
    unit: ComputeUnit = None,
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
    runner: Runner = None,
    python: Python = None,
    ssh_option: SshOption = None,
    option: RuntimeOption = None,
    team: Team = None,
    bundle: Bundle = None,
    signing: Signing = None,
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
    from vitscope.measure.plan import ALL

    chosen = choose_format(form_out, as_json, as_csv, output)
    if output is not None:
        check_writable(output, force)
    if again and append is None:
        raise UsageError("--again: repeats what a results file holds; name one with --append FILE.csv")
    if append is not None:
        rows.check(append)
    conditions = Conditions(
        target=target, precision=precision, threads=threads, affinity=affinity, compute_units=unit,
        processes=processes, block=block, cores=cores, runner=runner, python=python, ssh_option=ssh_option,
        option=option, team=team, bundle=bundle, profile=signing,
    )  # fmt: skip
    run = Run(conditions, runtime or [ALL], seed=seed)
    if fail_on_fallback and run.names != ["coreml"]:
        raise UsageError("--fail-on-fallback: only Core ML leaves the Neural Engine; use --runtime coreml")
    if fail_on_fallback and unit is not None and unit in (Unit.cpu, Unit.cpu_gpu):
        raise UsageError(f"--fail-on-fallback: --compute-units {unit.value} leaves the Neural Engine out")
    networks = _networks(
        run, models, form, resolution, input_size, batch, settings or [], kwargs, weights, allow_plugins
    )
    progress = Progress()
    finished: list[tuple[Case, Measurement | Failure]] = []
    try:
        found = run.found(networks, progress)
        if dry_run:
            progress.clear()
            _emit_plan(found, run, chosen, output, force)
            return 3 if found.missing else 0
        file = None if append is None else ResultsFile(append, run.protocol, run.target, found.there, again)
        outcomes = run.outcomes(
            found, progress, together=together, file=file, profile_runs=PROFILE_RUNS if by is not None else 0,
            gate=_gate(run.target, run.protocol) if fail_on_fallback else None,
        )  # fmt: skip
        for case, one in outcomes:
            finished.append((case, one))
            if case.runtime in found.there:
                progress.line(f"{_row_of(case, found.cases)}: {_said(one)}")
    except BaseException as error:
        progress.clear()
        _say_what_is_kept(finished, append, error)
        raise
    finally:
        progress.clear()
        run.target.close()
    results = in_order(found.cases, iter(finished))
    if file is not None:
        _say_of_file(file)
    _emit(results, by, chosen, output, force)
    return results.exit_code


def _networks(
    run: Run,
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
    from vitscope.sources import parse_input, parse_kwargs, source_of
    from vitscope.spec import load_spec
    from vitscope.spec.zoo import zoo_names

    named = [name for model in models for name in (zoo_names() if model == _ZOO else (model,))]
    shape, arguments = parse_input(input_size), parse_kwargs(kwargs)
    made = [
        run.network(
            model, form="deploy" if form is Form.deploy else "train", overrides=tuple(settings),
            resolution=size, batch=batch, weights=weights, input_size=shape, kwargs=tuple(arguments.items()),
            allow_plugins=allow_plugins,
        )
        for model in dict.fromkeys(named)
        for size in parse_resolutions(resolution)
    ]  # fmt: skip
    if weights is not None and len({network.model for network in made}) > 1:
        raise UsageError("--weights: one checkpoint fits one model; give one MODEL")
    for network in made:
        if network.file is None and source_of(network.model) is None:
            load_spec(network.model, settings, resolution=network.resolution, allow_plugins=allow_plugins)
    return made


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


def _row_of(case: Case, among: Sequence[Case]) -> str:
    """What tells a row from the others: network and runtime, precision and threads where these differ."""
    words = [case.network.label, "on", case.runtime]
    words += [case.precision] if len({other.precision for other in among}) > 1 else []
    words += [f"{case.threads} threads"] if len({other.threads for other in among}) > 1 else []
    return " ".join(words)


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
            f"{_rows(len(finished))} finished: kept in {append}, and the processes of unfinished ones beside it; "
            "the same command goes on from there",
            file=sys.stderr,
        )
    elif finished:
        show(measure_table(finished))


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _say_of_file(file: ResultsFile) -> None:
    lines = []
    if file.kept_rows:
        lines.append(f"{file.path}: measured already, {_rows(file.kept_rows)} kept; --again repeats")
    if file.added:
        lines.append(f"{file.path}: {_rows(file.added)} added, samples in {file.path.stem}.samples")
    for line in lines:
        print(line, file=sys.stderr)


def _emit(results: Results, by: Part | None, chosen: Format, output: Path | None, force: bool) -> None:
    from vitscope.cli.output import emit, emit_tables
    from vitscope.report.breakdown import breakdown_tables
    from vitscope.report.measure import measure_table, measurements_csv, measurements_json

    measured, failures = results.measurements, results.failures
    if chosen is Format.json:
        emit(json.dumps(measurements_json(measured, failures), ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(measurements_csv(measured, failures), output, force)
    else:
        tables = [measure_table(measured, failures)]
        tables += breakdown_tables(measured, by.value) if by is not None else []
        emit_tables(tables, chosen.value, output, force)


def _emit_plan(found: Found, run: Run, chosen: Format, output: Path | None, force: bool) -> None:
    """What a run would do, and the least that it would take."""
    from vitscope.cli.output import emit, emit_tables
    from vitscope.report.plan import plan_csv, plan_json, plan_table

    what = found.cases, found.there, found.missing
    if chosen is Format.json:
        data = plan_json(*what, run.target.name, run.protocol)
        emit(json.dumps(data, indent=2, ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(plan_csv(*what), output, force)
    else:
        emit_tables([plan_table(*what, run.target.name, run.protocol)], chosen.value, output, force)
