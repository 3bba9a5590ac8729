"""ETDump: the trace that an ExecuTorch runner with an event tracer writes, as the operations of the exported file.

The file is read by ExecuTorch's own package. It holds a block an execution, and in it, told apart by the number of the
program's instruction: `DELEGATE_CALL`, with XNNPACK's kernels inside it in their order (`Convolution (NHWC, F32) IGEMM #3`,
without names of the graph), or `OPERATOR_CALL`, with the kernel of ExecuTorch's own inside it (`native_call_mean.out`);
around all of them `Method::execute`. Its times are ticks of a clock that it does not name: how long one is comes from
the seconds that the runner printed for the same executions.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from vitscope.errors import UnavailableError
from vitscope.measure.record import OpTime
from vitscope.measure.runner import executorch_names
from vitscope.measure.runner.executorch_names import CALL, METHOD, Kernel, Step
from vitscope.measure.runner.ops import typical
from vitscope.measure.targets.benchmark_output import GarbageError, Timed

_OPERATOR, _NATIVE = "OPERATOR_CALL", "native_call_"
_IDENTIFIER = b"ED00"
_HEAD = 12  # bytes: the size of what follows, where its root is, the identifier


def ops_of(data: bytes, timed: Timed, runs: int, names: Sequence[str]) -> tuple[OpTime, ...]:
    """The operations of an inference, from the last `runs` executions of the trace; `timed` is what the runner printed of
    all of them, `names` those of the file's operations in order.

    Raises GarbageError for what is no whole trace or one of another program, UnavailableError without executorch.
    """
    executions = [events for events in _blocks(data) if any(event.name == METHOD for event in events)]
    if not executions:
        raise GarbageError(f"a trace without an execution ({METHOD})")
    ticks = [_ticks(event) for events in executions for event in events if event.name == METHOD]
    if sum(ticks) <= 0:
        raise GarbageError(f"a trace in which {METHOD} takes no time")
    tick_s = math.fsum(timed.samples_s) / len(timed.samples_s) / (sum(ticks) / len(ticks))
    rounds = [_steps(events, tick_s) for events in executions[-runs:]]
    wholes = [tick_s * tick for tick in ticks[-runs:]]
    rests = [max(0.0, whole - _seconds(steps)) for whole, steps in zip(wholes, rounds, strict=True)]
    try:
        told = executorch_names.told(executorch_names.typical_of(rounds), typical(rests), names)
    except ValueError as error:
        raise GarbageError(str(error)) from error
    return tuple(OpTime(**{**op, "names": tuple(op["names"])}) for op in told)


def _blocks(data: bytes) -> list[list[Any]]:
    """The profile events of each block of an ETDump, in the order in which they were written: the inner before the outer."""
    if len(data) < _HEAD or data[8:_HEAD] != _IDENTIFIER:
        raise GarbageError(f"{len(data)} bytes that are no ETDump")
    whole = 4 + struct.unpack_from("<I", data)[0]
    if len(data) != whole:
        raise GarbageError(f"an ETDump of {len(data)} bytes that says it has {whole}: it was cut")
    from vitscope.export.silence import silenced

    try:
        with silenced():
            from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc
    except ImportError as error:
        raise UnavailableError(
            'to read an ETDump needs executorch here (pip install "vitscope[executorch]")'
        ) from error
    try:
        with silenced():
            dump = deserialize_from_etdump_flatcc(data)
    except Exception as error:  # flatc of the package may end in any way on bytes that only begin like an ETDump
        raise GarbageError(f"an ETDump that ExecuTorch's own reader refuses ({type(error).__name__})") from error
    return [
        [event.profile_event for event in run.events or () if event.profile_event is not None] for run in dump.run_data
    ]


def _steps(events: Sequence[Any], tick_s: float) -> list[Step]:
    """The instructions of one execution, in order. What is inside one is not counted beside it."""
    instructions: dict[tuple[int, int], list[Any]] = {}
    for event in events:
        if event.name != METHOD:
            instructions.setdefault((event.chain_index, event.instruction_id), []).append(event)
    steps: list[Step] = []
    for inside in instructions.values():
        outer = next((event for event in inside if event.name in (CALL, _OPERATOR)), None)
        if outer is None:
            continue  # something that this runner tells of itself: it stays part of the execution's rest
        whole_s = tick_s * _ticks(outer)
        if outer.name == _OPERATOR:
            steps.append(Step(False, [Kernel(_kind(inside), whole_s)]))
            continue
        kernels = [Kernel(tag, tick_s * _ticks(event)) for event in inside if (tag := event.delegate_debug_id_str)]
        kernels_s = math.fsum(kernel.seconds for kernel in kernels)
        if kernels_s > whole_s:  # counted by a clock of their own: what they tell is their shares of the call
            kernels = [Kernel(kernel.tag, kernel.seconds * whole_s / kernels_s) for kernel in kernels]
        steps.append(Step(True, kernels, max(0.0, whole_s - kernels_s)))
    return steps


def _seconds(steps: Sequence[Step]) -> float:
    return math.fsum(kernel.seconds for step in steps for kernel in step.kernels) + sum(step.rest_s for step in steps)


def _kind(events: Sequence[Any]) -> str:
    """`native_call_mean.out` → `mean`; empty where the build does not tell which kernel an OPERATOR_CALL called."""
    native = next((event.name for event in events if (event.name or "").startswith(_NATIVE)), "")
    return native[len(_NATIVE) :].rpartition("::")[2].partition(".")[0]


def _ticks(event: Any) -> int:
    ticks = event.end_time - event.start_time
    if ticks < 0:
        raise GarbageError(f"an event that ends before it begins ({event.name or event.delegate_debug_id_str})")
    return ticks
