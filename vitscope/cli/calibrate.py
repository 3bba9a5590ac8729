"""`vitscope calibrate`: time kernels on what is attached and write a device file that predicts networks there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitscope.cli.measuring import Conditions, Run, present_on
from vitscope.cli.options import (
    Affinity,
    Batch,
    Cores,
    Force,
    Precisions,
    Python,
    Runner,
    RuntimeOption,
    SshOption,
    Target,
)
from vitscope.cli.progress import Progress
from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.calibrate.calibration import Step
    from vitscope.calibrate.record import Place, Timed
    from vitscope.calibrate.refine import Whole
    from vitscope.latency.runtime import FusionRules

# Runtime → its fusion rules (vitscope/latency/runtimes).
_FUSION = {name: name for name in ("onnxruntime", "openvino", "litert", "executorch")} | {"torch": "eager"}


def calibrate(
    runtime: Annotated[str, typer.Option("--runtime", metavar="NAME", help="The runtime to calibrate.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.yaml", help="The device file to write.", show_default=False)
    ],
    target: Target = "host",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that the runtime may use.")] = 1,
    budget: Annotated[str, typer.Option("--budget", metavar="TIME", help="Time that it may take.")] = "10min",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="MODEL", help="Specs whose kernels are to be known (repeatable).", show_default="the zoo"
        ),
    ] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option("--refine", metavar="MODEL", help="Time these networks too, afterwards (repeatable)."),
    ] = None,
    precision: Precisions = None,
    batch: Batch = 1,
    affinity: Affinity = None,
    cores: Cores = None,
    runner: Runner = None,
    python: Python = None,
    ssh_option: SshOption = None,
    option: RuntimeOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Time everything anew, and forget an interrupted calibration.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of kernels and their order.")] = 0,
    force: Force = False,
) -> None:
    """Time single kernels on what is attached and write a device file: --device FILE.yaml then predicts networks there.

    The kernels are those of the zoo's networks; no network is timed, unless --refine names some. What is timed lies
    beside the device file, and an interrupted calibration goes on from it.

    \b
    vitscope calibrate --runtime onnxruntime -o my_device.yaml
    vitscope calibrate --runtime litert --target ssh:pi@pi5 --budget 20min -o pi5.yaml
    vitscope profile efficientformerv2_s1 --device my_device.yaml
    """
    from dataclasses import replace
    from datetime import date

    from vitscope.calibrate.calibration import calibrate as run_calibration
    from vitscope.calibrate.demand import beyond_the_zoo, small_networks
    from vitscope.calibrate.device_file import device_text, held_out_rows
    from vitscope.calibrate.record import Place
    from vitscope.calibrate.refine import leave_families_out, refine
    from vitscope.calibrate.summed import summed
    from vitscope.cli.output import check_writable, emit_tables, write_file
    from vitscope.latency.score import score
    from vitscope.report.calibration import calibration_tables, refined_table

    budget_s = _budget(budget)
    if output.suffix not in (".yaml", ".yml"):
        raise UsageError(f"-o {output}: a device file ends in .yaml")
    check_writable(output, force)
    rules = _rules(runtime)
    conditions = Conditions(
        target=target, precision=precision, threads=str(threads), affinity=affinity, cores=cores, runner=runner,
        python=python, ssh_option=ssh_option, option=option,
    )  # fmt: skip
    run = Run(conditions, [runtime])
    if len(run.names) > 1 or run.names == ["all"] or len(run.precisions or ()) > 1:
        raise UsageError("calibrate takes one --runtime and one --precision: a device file is for one of each")
    progress = Progress()
    try:
        progress.say(f"ask {run.target.name} for its runtimes")
        there, missing = present_on(run.target, [runtime])
        if missing:
            raise missing[runtime]
        place = Place(
            target=run.target, runtime=runtime, precision=_precision(run, runtime), threads=threads, batch=batch,
            affinity=run.affinity or getattr(run.target, "affinity", tuple)(),
        )  # fmt: skip
        names = models or small_networks()
        times = _Times(output.with_suffix(".times.jsonl"), _identity(place, there[runtime]), models, again)
        calibration = run_calibration(
            place, rules, names, more=() if models else beyond_the_zoo(batch), budget_s=budget_s, kept=times.kept,
            on_timed=times.add, on_progress=lambda step: progress.say(_said(step)), seed=seed,
        )  # fmt: skip
        whole = _whole_networks(run, networks, runtime, rules, batch, progress) if networks else []
        refined = leave_families_out(calibration.costs, whole, calibration.element_bytes)
        if whole:
            calibration = replace(calibration, costs=refine(calibration.costs, whole, calibration.element_bytes))
        judged = summed(calibration)
        text = device_text(calibration, place, output.stem, rules.name, date.today(), len(whole))
    finally:
        progress.clear()
        run.target.close()
    write_file(output, text, force)
    tables = calibration_tables(calibration, judged, score(held_out_rows(judged)))
    if refined:
        tables.append(refined_table(refined, calibration.costs))
    emit_tables(tables)
    print(f"wrote {output}: vitscope profile MODEL --device {output}", file=sys.stderr)


def _budget(text: str) -> float:
    from vitscope.units import parse_seconds

    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from None
    if not 30 <= seconds <= 86400:
        raise UsageError(f"--budget {text}: expected 30s to 24h")
    return seconds


def _rules(runtime: str) -> FusionRules:
    """The fusion rules of a runtime. Raises UsageError for one that has none."""
    from vitscope.errors import nearest
    from vitscope.latency.runtime import load_runtime

    if runtime not in _FUSION:
        raise UsageError(
            f"no runtime {runtime!r} to calibrate{nearest(runtime, _FUSION)}; one of: {', '.join(_FUSION)}"
        )
    return load_runtime(_FUSION[runtime])


def _precision(run: Run, runtime: str) -> Any:
    from vitscope.export import FORMATS
    from vitscope.measure.runtimes import RUNTIMES

    known = FORMATS[RUNTIMES[runtime].format].precisions
    wanted = (run.precisions or known)[0]
    if wanted not in known:
        raise UsageError(f"--precision {wanted}: {runtime} executes files in {', '.join(known)}")
    return wanted


def _whole_networks(
    run: Run, models: list[str], runtime: str, rules: FusionRules, batch: int, progress: Progress
) -> list[Whole]:
    """Networks timed as `vitscope measure` does. Raises MeasureError for the first that cannot be."""
    from vitscope.calibrate.demand import kernels_of
    from vitscope.calibrate.refine import Whole
    from vitscope.measure.channel import MeasureError
    from vitscope.measure.plan import Failure

    known = kernels_of(models, rules, batch)
    cases = [run.network(model, batch=batch) for model in models]
    found = []
    for case, one in run.outcomes(run.found(cases, progress), progress):
        if isinstance(one, Failure):
            raise MeasureError(f"--refine {case.network.label}: {one.reason}")
        family, kernels = known[case.network.model]
        found.append(Whole(case.network.model, family, kernels, one.summary.latency_p50_s))
    return found


def _identity(place: Place, version: str) -> dict[str, Any]:
    return {
        "target": place.target.name, "runtime": place.runtime, "version": version, "precision": place.precision,
        "threads": place.threads, "batch": place.batch, "affinity": list(place.affinity),
    }  # fmt: skip


class _Times:
    """The file of what was timed, one line a kernel, after a line that says where."""

    def __init__(self, path: Path, identity: dict[str, Any], models: list[str] | None, again: bool):
        from vitscope.calibrate.times import SCHEMA_VERSION, read_header, read_timed

        self.path = path
        self.kept: list[Timed] = []
        header = json.dumps({"schema_version": SCHEMA_VERSION, "place": identity, "models": models})
        try:
            if path.exists() and not again:
                if read_header(path).get("place") != identity:
                    raise UsageError(
                        f"{path}: holds the times of another place or version; remove it, or give --again to time anew"
                    )
                self.kept = read_timed(path)
            else:
                path.write_text(header + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: cannot write: {error.strerror or error}") from error

    def add(self, timed: Timed) -> None:
        """Keep one more; whole lines alone, so that an interruption cuts none that was there."""
        from vitscope.calibrate.times import write_timed

        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(write_timed(timed) + "\n")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot write: {error.strerror or error}") from error


def _said(step: Step) -> str:
    error = "" if step.error is None else f", error on kernels held out {step.error:.1%}"
    match step.what:
        case "floor":
            return "time a call that does nothing"
        case "time":
            return f"{step.done} of {step.total or step.done}: {step.name}{error}"
        case "fit":
            return f"fit {step.done} kernels{error}"
        case "block":
            return f"{step.total + 1} blocks of networks: {step.name}{error}"
        case "hold out":
            return f"leave family {step.name} out{error}"
    raise AssertionError(step.what)
