"""`vitscope profile`: params, MACs, memory and predicted latency of models, part by part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.measure_flag import asked, measure_beside
from vitscope.cli.measuring import PROFILE_RUNS, Conditions
from vitscope.cli.options import (
    Affinity,
    AllowPlugins,
    AsCsv,
    AsJson,
    Batch,
    BlockTime,
    Bundle,
    ComputeUnit,
    Convention,
    Cores,
    Device,
    Force,
    Form,
    Format,
    FormatChoice,
    Input,
    Kwargs,
    Level,
    Measure,
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
    choose_format,
    parse_resolution,
    parse_resolutions,
)
from vitscope.cli.roofline import asked as roofline_asked
from vitscope.cli.roofline import blocks_of
from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.profile import Profile


def profile(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Spec files, names of the zoo, timm:NAME, torchvision:NAME, package.module:callable (runs code), .onnx files.",
        ),
    ],
    device: Device = None,
    by: Annotated[Level, typer.Option("--by", help="What a row stands for.")] = Level.block,
    form: Annotated[Form, typer.Option("--form", help="As trained, or fused for deployment.")] = Form.train,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", metavar="N|HxW,…", help="Input sizes in pixels instead of the spec's own."),
    ] = None,
    input_size: Input = None,
    batch: Batch = 1,
    settings: Set = None,
    kwargs: Kwargs = None,
    convention: Annotated[
        Convention, typer.Option("--convention", help="Count params and MACs as another tool does.")
    ] = Convention.vitscope,
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="FILE", help="Check that this timm or authors' checkpoint fits.")
    ] = None,
    measured: Annotated[
        list[str] | None,
        typer.Option(
            "--measured",
            metavar="NAME=TIME",
            help="Score a latency you bring, as iphone12=1.1ms; runs nothing (repeatable).",
        ),
    ] = None,
    measure: Measure = None,
    target: Target = "host",
    precision: Precisions = None,
    threads: Threads = "1",
    affinity: Affinity = None,
    cores: Cores = None,
    unit: ComputeUnit = None,
    processes: Processes = None,
    block: BlockTime = None,
    runner: Runner = None,
    python: Python = None,
    ssh_option: SshOption = None,
    option: RuntimeOption = None,
    team: Team = None,
    bundle: Bundle = None,
    signing: Signing = None,
    max_params: Annotated[str | None, typer.Option(metavar="N", help="Exit 1 above this, as 6M.")] = None,
    max_macs: Annotated[str | None, typer.Option(metavar="N", help="Exit 1 above this, as 1G.")] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Exit 1 above this on any --device, as 1.2ms.")
    ] = None,
    roofline: Annotated[
        Path | None,
        typer.Option(
            "--roofline", metavar="FILE", help="Draw the blocks under the roof of --device: .svg, .png or .pdf."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 when an operation cannot be counted or a latency not predicted.")
    ] = False,
    allow_plugins: AllowPlugins = False,
    form_out: FormatChoice = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """Show what models cost.

    Params, MACs, memory, and predicted latency with its interval, part by part.

    vitscope profile efficientformerv2_s1 --device iphone12 --by stage

    vitscope profile timm:repvit_m1_0 torchvision:resnet50 model.onnx
    """
    import sys
    from dataclasses import replace

    from vitscope.cli.output import check_writable, emit, emit_tables
    from vitscope.profile import profile as make
    from vitscope.report.profile import profile_table, profiles_csv, profiles_json, summary_table
    from vitscope.sources import parse_input, parse_kwargs

    chosen = choose_format(form_out, as_json, as_csv, output)
    if output is not None:
        check_writable(output, force)
    sizes = parse_resolutions(resolution)
    figure = roofline_asked(roofline, device or (), len(models) * len(sizes), force)
    gates = _gates(max_params, max_macs, max_latency, device or [], strict)
    shape, arguments = parse_input(input_size), parse_kwargs(kwargs)
    times = _measured(measured or [])
    conditions = Conditions(
        target=target, precision=precision, threads=threads, affinity=affinity, compute_units=unit,
        processes=processes, block=block, cores=cores, runner=runner, python=python, ssh_option=ssh_option,
        option=option, team=team, bundle=bundle, profile=signing,
    )  # fmt: skip
    run = asked(measure, conditions)
    if times and len(models) * len(sizes) > 1:
        raise UsageError("--measured: a latency belongs to one model; give one MODEL and one --resolution")
    if weights is not None and len(models) * len(sizes) > 1:
        raise UsageError("--weights: one checkpoint fits one model; give one MODEL and one --resolution")
    profiles = [
        make(
            model, shape, devices=device or (), by=by.value, form=form.value, resolution=size,
            batch=batch, convention=convention.value, overrides=settings or (), measured=times,
            allow_plugins=allow_plugins, kwargs=arguments,
        )
        for model in models
        for size in sizes
    ]  # fmt: skip
    if weights is not None:
        print(_check_weights(models[0], weights, settings or [], resolution, allow_plugins), file=sys.stderr)
    if figure is not None:
        graphs, path_of = blocks_of(
            models[0], overrides=settings or (), resolution=sizes[0], batch=batch, allow_plugins=allow_plugins,
            input_shape=shape, kwargs=arguments,
        )  # fmt: skip
        figure.write(graphs, path_of, profiles[0].name)
    code = 0
    if run is not None:
        networks = [
            run.network(
                model, overrides=tuple(settings or ()), resolution=size, batch=batch, weights=weights,
                input_size=shape, kwargs=tuple(arguments.items()), allow_plugins=allow_plugins,
            )
            for model in models
            for size in sizes
        ]  # fmt: skip
        ran, results = measure_beside(run, list(dict.fromkeys(networks)), profile_runs=PROFILE_RUNS)
        code = results.exit_code
        profiles = [
            replace(made, measurements=tuple(one for case, one in ran.items() if case.network == network))
            for made, network in zip(profiles, networks, strict=True)
        ]
    if chosen is Format.json:
        import json

        emit(json.dumps(profiles_json(profiles), indent=2, ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(profiles_csv(profiles), output, force)
    else:
        tables = [profile_table(p) for p in profiles]
        if len(profiles) > 1:
            tables.append(summary_table(profiles))
        emit_tables(tables, chosen.value, output, force)
    failed = [f"{p.name}: {text}" for p in profiles for gate in gates if (text := gate(p))]
    for line in failed:
        print(line, file=sys.stderr)
    return code or (1 if failed else 0)


def _measured(texts: list[str]) -> dict[str, float]:
    """`NAME=TIME` → seconds by device."""
    from vitscope.units import parse_seconds

    found = {}
    for text in texts:
        name, equals, time = text.partition("=")
        try:
            found[name] = parse_seconds(time)
        except ValueError as error:
            raise UsageError(
                f"--measured {text}: {error if equals else 'expected NAME=TIME, as iphone12=1.1ms'}"
            ) from None
        if not name or not found[name]:
            raise UsageError(f"--measured {text}: expected NAME=TIME with a time above zero, as iphone12=1.1ms")
    return found


def _gates(
    max_params: str | None, max_macs: str | None, max_latency: str | None, devices: list[str], strict: bool
) -> list[Callable[[Profile], str]]:
    """The budgets as functions that give the line to print, empty when the budget holds."""
    from vitscope.units import count, milliseconds, parse_count, parse_seconds

    def number(flag: str, text: str | None, parse: Callable[[str], float]) -> float | None:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise UsageError(f"{flag}: {error}") from None

    params = number("--max-params", max_params, parse_count)
    macs = number("--max-macs", max_macs, parse_count)
    latency = number("--max-latency", max_latency, parse_seconds)
    if latency is not None and not devices:
        raise UsageError("--max-latency: latency on which device? Add --device NAME")

    def check_params(p: Profile) -> str:
        too_many = params is not None and p.totals.params > params
        return f"{p.totals.params:,} params exceed --max-params {max_params}" if too_many else ""

    def check_macs(p: Profile) -> str:
        if macs is not None and p.is_partial:
            return f"{len(p.totals.unknown)} operations could not be counted, so --max-macs {max_macs} cannot be shown to hold"
        too_many = macs is not None and p.totals.macs > macs
        return f"{count(p.totals.macs)} MACs exceed --max-macs {max_macs}" if too_many else ""

    def check_latency(p: Profile) -> str:
        if latency is None:
            return ""
        for prediction in p.predictions:
            if prediction.latency_s is None:
                return (
                    f"no latency on {prediction.device} ({prediction.status}), so --max-latency cannot be shown to hold"
                )
            if prediction.latency_s > latency:
                return f"{milliseconds(prediction.latency_s)} on {prediction.device} exceed --max-latency {max_latency}"
        return ""

    def check_strict(p: Profile) -> str:
        if strict and p.is_partial:
            return (
                f"--strict: {len(p.totals.unknown)} operations could not be counted: {', '.join(p.totals.unknown[:3])}"
            )
        missing = [q.device for q in p.predictions if q.latency_s is None]
        return f"--strict: no latency predicted on {', '.join(missing)}" if strict and missing else ""

    return [check_params, check_macs, check_latency, check_strict]


def _check_weights(model: str, weights: str, settings: list[str], resolution: str | None, allow_plugins: bool) -> str:
    """Load `weights` into the network; the line that says what was loaded. Raises WeightsError when they do not fit."""
    from vitscope.model import build
    from vitscope.sources import source_of
    from vitscope.spec import load_spec
    from vitscope.weights import load_weights

    if source_of(model) is not None:
        raise UsageError(f"--weights: {model} is no spec, and its own code loads its weights")
    spec = load_spec(model, settings, resolution=parse_resolution(resolution), allow_plugins=allow_plugins)
    return str(load_weights(build(spec), weights))
