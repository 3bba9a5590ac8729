"""What three benchmark programs print, as numbers: LiteRT's benchmark_model, ExecuTorch's runner, ONNX Runtime's perf_test.

Where each format is from:
benchmark_model      tensorflow/lite/tools/benchmark/benchmark_model.cc, tensorflow/core/util/stats_calculator.cc and
                     lite/profiling/profile_summary_formatter.cc, read; printed logs of builds of 2017, 2021 and 2024 agree.
executor_runner      executorch/examples/portable/executor_runner/executor_runner.cpp, read: a line an execution (2026),
                     before that the total only.
onnxruntime_perf_test  onnxruntime/test/perftest/performance_runner.{h,cc}, read: result file with a row a run;
                     profile as ORT's own trace.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vitscope.measure.record import OpTime

_NUMBER = r"([-+0-9.eE]+)"
_STAT = re.compile(
    rf"count={_NUMBER} (?:first={_NUMBER} )?curr={_NUMBER}(?: min={_NUMBER} max={_NUMBER} avg={_NUMBER} std={_NUMBER})?"
)
_NEW_TOTAL = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, .*Inference \(avg\): {_NUMBER}"
)
_OLD_TOTAL = re.compile(
    rf"Average inference timings in us: Warmup: {_NUMBER}, Init: {_NUMBER}, (?:Inference|no stats): {_NUMBER}"
)
_ITERATION = re.compile(rf"Iteration \d+ of \d+: {_NUMBER} ms")
_EXECUTED = re.compile(rf"Model executed successfully (\d+) time\(s\) in {_NUMBER} ms")
_LOADED = re.compile(rf"Model loaded in {_NUMBER} ms")
_SESSION = re.compile(rf"Session creation time cost: {_NUMBER} s")
_DELEGATE_NODE = re.compile(r"delegate", re.IGNORECASE)


class GarbageError(ValueError):
    """Output that is not what the program is known to print; the text says what was looked for."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds per inference: every sample where the program tells them, or its mean over `averaged` inferences.

    `min_s` and `max_s` are of single inferences; None where the program does not say.
    """

    samples_s: tuple[float, ...]
    averaged: int = 1
    load_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None


def parse_benchmark_model(text: str) -> Timed:
    """The regular runs of LiteRT's benchmark_model, whose last `count=` line that has an average is theirs.

    Old builds print `Average inference timings in us: …`, new ones `Inference timings in us: …`; a build that prints
    neither ended early. Raises GarbageError.
    """
    new, old = _NEW_TOTAL.search(text), _OLD_TOTAL.search(text)
    if new is None and old is None:
        raise GarbageError("no line 'Inference timings in us: …'")
    load_us, mean_us = (new.group(1), new.group(3)) if new else (old.group(2), old.group(3))  # type: ignore[union-attr]
    stats = list(_STAT.finditer(text.partition("Operator-wise Profiling")[0]))
    if not stats:
        raise GarbageError("no line 'count=… avg=…'")
    last = stats[-1]
    count, average = int(_finite(last.group(1))), last.group(6) or last.group(3)  # one run has no average, only curr=
    exact = _positive(average) * 1e-6
    total = _positive(mean_us) * 1e-6
    if not math.isclose(exact, total, rel_tol=0.01, abs_tol=2e-6):
        raise GarbageError(f"avg={average} beside Inference: {mean_us}")
    low, high = last.group(4) or average, last.group(5) or average
    return Timed((exact,), count, _finite(load_us) * 1e-6, _finite(low) * 1e-6, _finite(high) * 1e-6)


def parse_executor_runner(text: str) -> Timed:
    """ExecuTorch's executor_runner: each execution where the build prints it, or else the mean. Raises GarbageError."""
    executed = _EXECUTED.search(text)
    if executed is None:
        raise GarbageError("no line 'Model executed successfully … time(s) in … ms'")
    count, total_s = int(executed.group(1)), _positive(executed.group(2)) * 1e-3
    loaded = _LOADED.search(text)
    load_s = _finite(loaded.group(1)) * 1e-3 if loaded else None
    samples = tuple(_positive(match.group(1)) * 1e-3 for match in _ITERATION.finditer(text))
    if samples:
        if len(samples) != count:
            raise GarbageError(f"{len(samples)} lines 'Iteration …' of {count} executions")
        return Timed(samples, 1, load_s, min(samples), max(samples))
    if count < 1:
        raise GarbageError("0 executions")
    return Timed((total_s / count,), count, load_s)


def parse_perf_test(text: str, results: str) -> Timed:
    """onnxruntime_perf_test: `results` is its result file, rows `model,seconds,peak bytes,CPU %,run`. Raises GarbageError."""
    samples = []
    for line in results.splitlines():
        cells = line.rsplit(",", 4)
        if len(cells) == 5:
            samples.append(_positive(cells[1]))
    if not samples:
        raise GarbageError("a result file without a row 'model,seconds,…'")
    session = _SESSION.search(text)
    return Timed(tuple(samples), 1, _finite(session.group(1)) if session else None, min(samples), max(samples))


def parse_litert_profile(text: str) -> tuple[OpTime, ...]:
    """The operations of benchmark_model's profile in run order, csv or table, of the regular runs.

    A delegate that profiles itself (XNNPACK) lists its operations in a section of its own; they then stand for the
    node of the interpreter that calls the delegate. That section's names are the delegate's, not the file's.
    Raises GarbageError.
    """
    _, found, regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs")
    if not found:
        raise GarbageError("no section 'Operator-wise Profiling Info for Regular Benchmark Runs'")
    primary, _, delegate = regular.partition("Delegate internal:")
    ops = _run_order(primary)
    inside = _run_order(delegate) if delegate else ()
    if inside:
        ops = (*(op for op in ops if not _DELEGATE_NODE.search(op.kind)), *inside)
    if not ops:
        raise GarbageError("no row in the section 'Run Order'")
    return ops


def parse_ort_profile(text: str, runs: int) -> tuple[OpTime, ...]:
    """ORT's trace (`-p`): kernel time of each node, averaged over `runs`; the first run is warm-up. Raises GarbageError."""
    try:
        events = json.loads(text)
    except ValueError as error:
        raise GarbageError("a profile that is no JSON") from error
    if not isinstance(events, list):
        raise GarbageError("a profile that is no list of events")
    seen: dict[str, tuple[str, list[float]]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            kind = str(event.get("args", {}).get("op_name", ""))
            seen.setdefault(name.removesuffix("_kernel_time"), (kind, []))[1].append(float(event.get("dur", 0)) * 1e-6)
    ops = tuple(
        OpTime(name=name, kind=kind, seconds=sum(kept) / len(kept), names=(name,), unit="cpu")
        for name, (kind, times) in seen.items()
        if (kept := times[-runs:])
    )
    if not ops:
        raise GarbageError("a profile without node events")
    return ops


def _run_order(text: str) -> tuple[OpTime, ...]:
    """Rows of the table `Run Order`; its header says which columns there are, for they changed over the years."""
    lines = text.partition("Run Order")[2].splitlines()[1:]
    if not lines:
        return ()
    csv = "node type," in lines[0]
    split = _csv_cells if csv else _table_cells
    header = [cell.strip(" []") for cell in (lines[0].split(",") if csv else lines[0].split("\t")) if cell.strip()]
    try:
        place = header.index("avg_ms" if csv else "avg ms")
    except ValueError as error:
        raise GarbageError(f"the columns {', '.join(header) or 'none'} instead of node type, …, avg ms, …") from error
    ops = []
    for line in lines[1:]:
        if not line.strip() or line.startswith("="):
            break
        cells = split(line, len(header))
        if len(cells) != len(header):
            raise GarbageError(f"a row of {len(cells)} columns under {len(header)}: {line.strip()[:80]}")
        name = cells[-1].strip()
        seconds = _finite(cells[place]) * 1e-3
        ops.append(OpTime(name=name, kind=cells[0].strip(), seconds=seconds, names=_tensor_names(name), unit=""))
    return tuple(ops)


def _csv_cells(line: str, columns: int) -> Sequence[str]:
    """From the right: a type such as `Convolution (NHWC, F32)` holds commas, a name has them replaced by tabs."""
    return line.rsplit(", ", columns - 1)


def _table_cells(line: str, columns: int) -> Sequence[str]:
    return [cell for cell in line.split("\t", columns) if cell.strip()]


def _tensor_names(name: str) -> tuple[str, ...]:
    """`[a;b]:12` names the output tensors a and b of node 12. What has no brackets is the delegate's own name."""
    match = re.fullmatch(r"\[(.*)\](?::\d+)?", name)
    if match is None:
        return (name,) if name else ()
    return tuple(part.strip() for part in re.split(r"[,\t]", match.group(1)) if part.strip())


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise GarbageError(f"{text!r} where a number belongs") from error
    if not math.isfinite(value):
        raise GarbageError(f"{text!r} where a number belongs")
    return value


def _positive(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise GarbageError(f"{text!r} where a time above 0 belongs")
    return value
