"""`vitscope compare`: what differs between networks, in their specs, their costs and their predicted latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.measure_flag import asked, measure_beside
from vitscope.cli.measuring import Conditions
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
    Device,
    Force,
    Form,
    Format,
    FormatChoice,
    Input,
    Kwargs,
    Measure,
    Output,
    Precisions,
    Processes,
    Python,
    Resolution,
    Runner,
    RuntimeOption,
    Signing,
    SshOption,
    Target,
    Team,
    Threads,
    choose_format,
    parse_resolution,
)
from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.compare import Measured, Subject
    from vitscope.latency.device import Device as DeviceRecord
    from vitscope.measure.plan import Case, Network
    from vitscope.measure.record import Measurement
    from vitscope.spec import Spec

_BLOCKS = 2  # of a process, when models are measured: those of A and B alternate


def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="A B…", help="As in profile, or profiles saved as .json; A is the baseline."),
    ],
    device: Device = None,
    form: Annotated[Form, typer.Option("--form", help="As trained, or fused for deployment.")] = Form.train,
    resolution: Resolution = None,
    input_size: Input = None,
    batch: Batch = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change every model but A. With A alone: A against A changed."),
    ] = None,
    kwargs: Kwargs = None,
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
    allow_plugins: AllowPlugins = False,
    form_out: FormatChoice = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """Compare models with the first.

    Spec keys, totals, stages, predicted latency, and which of the two dominates.

    vitscope compare efficientformer_l1 efficientformerv2_s2 --device iphone12

    vitscope compare efficientformerv2_s1 --set stages.1.depth=2 --device iphone12

    With --measure the models take turns on a runtime that is here, and each B is said to be faster, slower or neither.
    """
    from vitscope.cli.output import check_writable, emit, emit_tables
    from vitscope.compare import Subject, with_measured
    from vitscope.compare import compare as judge
    from vitscope.foreign import load_network, profile_network
    from vitscope.latency.device import load_device
    from vitscope.measure.plan import Network
    from vitscope.report.compare import compare_tables, comparisons_csv, comparisons_json
    from vitscope.sources import parse_input, parse_kwargs, source_of

    chosen = choose_format(form_out, as_json, as_csv, output)
    if output is not None:
        check_writable(output, force)
    conditions = Conditions(
        target=target, precision=precision, threads=threads, affinity=affinity, compute_units=unit,
        processes=processes, block=block, cores=cores, runner=runner, python=python, ssh_option=ssh_option,
        option=option, team=team, bundle=bundle, profile=signing,
    )  # fmt: skip
    run = asked(measure, conditions, blocks=_BLOCKS)
    if run is not None and run.protocol.processes < 2:
        raise UsageError("--processes 1: a comparison needs two processes of each model or more")
    if len(models) == 1 and settings:
        models = [models[0], models[0]]
    devices = [load_device(name) for name in device or ()]
    sizes = parse_resolution(resolution)
    shape, arguments = parse_input(input_size), parse_kwargs(kwargs)
    subjects: list[Subject] = []
    networks: list[Network] = []
    for i, model in enumerate(models):
        changes = settings or [] if i else []
        if source_of(model) is not None:
            network = load_network(
                model, input_shape=shape, resolution=sizes, batch=batch, kwargs=arguments, overrides=changes
            )
            made = profile_network(network, devices, by="stage", form="deploy" if form is Form.deploy else "train")
            subjects.append(Subject(made, "", (network.deploy.batched,)))
            if run is not None:
                named = tuple(arguments.items())
                networks.append(run.network(model, resolution=sizes, batch=batch, input_size=shape, kwargs=named))
        else:
            specs = _specs(model, changes, sizes, allow_plugins)
            subjects += [_subject(name, spec, devices, form.value, batch) for name, spec in specs]
            fields = {"resolution": sizes, "batch": batch, "allow_plugins": allow_plugins}
            networks += [
                Network(model=name, document=spec.document, batch=batch)
                if model.endswith(".json")
                else Network(model=model, overrides=tuple(changes), **fields)
                for name, spec in specs
            ]
    if len(subjects) < 2:
        raise UsageError("compare needs two models or more, or one and --set KEY=VALUE")
    comparisons = [judge(subjects[0], other, devices) for other in subjects[1:]]
    code = 0
    if run is not None:
        if len(set(networks)) < len(networks):
            raise UsageError("--measure: two of the models are the same network: there is nothing to tell apart")
        ran, results = measure_beside(run, networks)
        code = results.exit_code
        comparisons = [
            with_measured(comparison, _measured(networks[0], other, ran))
            for comparison, other in zip(comparisons, networks[1:], strict=True)
        ]
    if chosen is Format.json:
        import json

        emit(json.dumps(comparisons_json(comparisons), indent=2, ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(comparisons_csv(comparisons), output, force)
    else:
        tables = [table for comparison in comparisons for table in compare_tables(comparison)]
        emit_tables(tables, chosen.value, output, force)
    return code


def _measured(a: Network, b: Network, ran: dict[Case, Measurement]) -> tuple[Measured, ...]:
    """The pairs of one condition, wherever both have a figure. A file's precision is a part of what it is."""
    from vitscope.compare import Measured
    from vitscope.measure.contrast import contrast

    is_file = a.file is not None or b.file is not None

    def condition(case: Case) -> tuple[object, ...]:
        return case.runtime, case.unit, case.threads, None if is_file else case.precision

    pairs = [
        (ran[case], ran[other])
        for case in ran
        for other in ran
        if (case.network, other.network) == (a, b) and condition(case) == condition(other)
    ]
    return tuple(Measured(x, y, contrast(x, y)) for x, y in pairs)


def _specs(
    model: str, settings: list[str], resolution: tuple[int, int] | None, allow_plugins: bool
) -> list[tuple[str, Spec]]:
    """The spec that `model` names, or those of a profile saved as JSON, each under the name it is shown by."""
    from vitscope.spec import load_spec

    if not model.endswith(".json"):
        spec = load_spec(model, settings, resolution=resolution, allow_plugins=allow_plugins)
        return [(spec.name + "".join(f" {setting}" for setting in settings), spec)]
    from vitscope.report.saved import saved_specs

    return saved_specs(model, settings, resolution)


def _subject(name: str, spec: Spec, devices: list[DeviceRecord], form: str, batch: int) -> Subject:
    from dataclasses import replace

    from vitscope.compare import Subject
    from vitscope.profile import deploy_graphs, profile_spec

    made = profile_spec(spec, devices, by="stage", form="deploy" if form == "deploy" else "train", batch=batch)
    return Subject(replace(made, name=name), spec.document, deploy_graphs(spec, batch))
