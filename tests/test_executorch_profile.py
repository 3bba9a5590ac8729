"""ExecuTorch's time by block: from XNNPACK in the wheel on this host, and from an ETDump that a traced runner wrote.

Traces are MADE HERE, with ExecuTorch's own serializer, from times that XNNPACK took on this host; none is from a phone. The
file in recorded/ was written by ExecuTorch 1.4.1's own ETDumpGen, which was driven by hand: its format is real, its times
and its program are not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import require_package
from fake_android import FakeAndroid

from tests.test_target_adb import adb_server, needs_adb, one_line, phone, real_adb  # noqa: F401
from vitscope.export import export
from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import attribute, by_block
from vitscope.measure.channel import Job, MeasureError
from vitscope.measure.record import OpTime, Protocol
from vitscope.measure.runner import executorch_cpu, xnnpack_trace
from vitscope.measure.runner.executorch_names import CALL, METHOD, Kernel, Step, kind_of, kinds_of, told, typical_of
from vitscope.measure.session import Finished, measure
from vitscope.measure.targets.adb import AdbTarget, runners_of
from vitscope.measure.targets.benchmark_output import GarbageError, Timed
from vitscope.measure.targets.etdump import ops_of
from vitscope.subject import load_subject

require_package("executorch.exir")

STANDIN = Path(__file__).with_name("standin_executor_runner.py")
RECORDED = Path(__file__).with_name("recorded") / "etdumpgen_1_4_1.etdump"
TICKS_PER_S = 24_000_000  # a clock that is not nanoseconds, as counters of processors are
EACH_S = 2e-3  # what the stand-in prints of each execution


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """EfficientFormerV2-S0 cut short: convolutions, attention, and two operations that XNNPACK does not take."""
    short = load_subject(
        "efficientformerv2_s0", resolution=(64, 64), overrides=("stages.0.depth=1", "stages.1.depth=1")
    )
    return export(short, "executorch", tmp_path_factory.mktemp("executorch") / "short.pte")


@pytest.fixture(scope="module")
def profiled(artifact: Artifact) -> list[OpTime]:
    """What the runner answers of it on this host."""
    model = executorch_cpu.load(
        str(artifact.path), {"input_shape": artifact.input_shape, "threads": 1, "names": list(artifact.scopes)}
    )
    before = model.outputs()[0]
    found = model.op_times(5)
    assert found is not None and found[0] == "measured"
    assert (model.outputs()[0] == before).all()  # the library calls XNNPACK as it did
    return op_times(found[1])


@pytest.fixture(scope="module")
def steps(artifact: Artifact) -> list[Step]:
    """The program's instructions as XNNPACK timed them here, with ExecuTorch's own operations as a trace tells them."""
    from executorch.extension.pybindings import _portable_lib  # type: ignore[attr-defined]

    options = {"input_shape": artifact.input_shape, "threads": 1}
    with xnnpack_trace.watched(str(_portable_lib.__file__)) as calls:
        model = executorch_cpu.load(str(artifact.path), options)
        rounds = xnnpack_trace.rounds_of(model.run, calls, 3)
    found: list[Step] = []
    own = [kind_of(name) for name in artifact.scopes if "/" not in name]
    for step in typical_of(rounds):
        if step.delegated:
            found.append(step)
        elif found and own:
            found.append(Step(False, [Kernel(own.pop(0), 20e-6)]))
    assert [step.delegated for step in found].count(True) == len(
        {name.rpartition("/")[0] for name in artifact.scopes} - {""}
    )
    return found


def op_times(raw: Sequence[dict[str, Any]]) -> list[OpTime]:
    return [OpTime(**{**op, "names": tuple(op["names"])}) for op in raw]


def trace(executions: Sequence[Sequence[Step]], *, extra_s: float = 0.0) -> bytes:
    """An ETDump of `executions`, as a runner writes it: a first block that loads, the inner events before the outer."""
    from executorch.devtools.etdump.schema_flatcc import ETDumpFlatCC, Event, ProfileEvent, RunData
    from executorch.devtools.etdump.serialize import serialize_to_etdump_flatcc

    def event(name: str | None, start: int, end: int, instruction: int = -1, tag: str | None = None) -> Event:
        place = {"chain_index": -1 if instruction < 0 else 0, "instruction_id": max(0, instruction)}
        return Event(ProfileEvent(name, **place, delegate_debug_id_int=-1, delegate_debug_id_str=tag,
                                  delegate_debug_metadata=None, start_time=start, end_time=end), None, None)  # fmt: skip

    def ticks(seconds: float) -> int:
        return round(seconds * TICKS_PER_S)

    blocks = [RunData("Default", -1, [], [event("Program::load_method", 5, 900_000)])]
    now = 1_000_000
    for steps in executions:
        events, began = [], now
        for number, step in enumerate(steps):
            start = now
            for kernel in step.kernels:
                inner = (None, kernel.tag) if step.delegated else (f"native_call_{kernel.tag}.out", None)
                events.append(event(inner[0], now, now + ticks(kernel.seconds), number, inner[1]))
                now += ticks(kernel.seconds)
            now += ticks(step.rest_s)
            events.append(event(CALL if step.delegated else "OPERATOR_CALL", start, now, number))
        now += ticks(extra_s)
        events.append(event(METHOD, began, now))
        blocks.append(RunData("Execute", -1, [], events))
    data = serialize_to_etdump_flatcc(ETDumpFlatCC(1, blocks))
    return struct.pack("<I", len(data)) + data  # ETDumpGen writes its size first, the serializer does not


def total(steps: Sequence[Step]) -> float:
    return sum(kernel.seconds for step in steps for kernel in step.kernels) + sum(step.rest_s for step in steps)


# ---- on this host


def test_the_kernels_of_this_host_are_told_by_block(artifact: Artifact, profiled: list[OpTime]) -> None:
    answer = attribute("measured", profiled, artifact, 1e-3, "executorch")
    assert {block.path for block in answer.blocks} >= set(artifact.blocks)
    assert sum(block.share for block in answer.blocks) == 1.0
    assert answer.unexplained < 0.5  # a network this small is mostly handing over where the host is busy
    left = by_block(profiled, artifact)[None]
    assert {op.kind for op in left} <= {METHOD, CALL, "Transpose", "Static Reshape", "Copy"}


def test_every_product_of_the_file_has_its_kernel(artifact: Artifact, profiled: list[OpTime]) -> None:
    kernels = [op for op in profiled if op.kind in ("Convolution", "Fully Connected", "Batch Matrix Multiply")]
    in_file = [name for name in artifact.scopes if kind_of(name) in ("convolution", "linear", "addmm", "mm", "bmm")]
    assert [op.names for op in kernels] == [(name,) for name in in_file]


def test_what_xnnpack_does_not_take_is_timed_between_its_calls(artifact: Artifact, profiled: list[OpTime]) -> None:
    outside = [name for name in artifact.scopes if "/" not in name]
    assert [kind_of(name) for name in outside] == ["avg_pool2d", "mean"]
    found = {op.kind: op for op in profiled if op.kind in ("avg_pool2d", "mean")}
    assert [op.names for op in found.values()] == [(name,) for name in outside]
    assert all(op.seconds > 0 for op in found.values())


def test_a_library_that_does_not_call_xnnpack_is_not_watched(tmp_path: Path) -> None:
    import _ctypes

    with pytest.raises(xnnpack_trace.Untraceable), xnnpack_trace.watched(_ctypes.__file__):
        raise AssertionError("watched")
    text = tmp_path / "text"
    text.write_text("no library")
    with pytest.raises(ValueError, match="no ELF file"):
        xnnpack_trace._offsets(text.read_bytes(), ("a",))


# ---- names


def test_kinds_are_read_from_names_and_from_xnnpacks_words() -> None:
    assert kind_of("lowered_module_0/aten_slice_copy_tensor_3") == "slice_copy"
    assert kind_of("aten__softmax_default") == "_softmax"
    assert kind_of("lowered_module_1/dim_order_ops__clone_dim_order_default_12") == "dim_order_ops__clone_dim_order"
    assert "convolution" in kinds_of("Fully Connected (NC, F32) GEMM #12")
    assert kinds_of("Something New (NC)") == ("something_new",)


NAMES = ("m0/aten_convolution_default", "m0/aten_relu_default", "aten_mean_dim", "m1/aten_linear_default")


def test_a_call_gives_the_clocks_loss_back_to_its_kernels_and_tells_the_rest() -> None:
    conv, clamp, linear = "Convolution (NHWC, F32) IGEMM", "Clamp (NC, F32)", "Fully Connected (NC, F32) GEMM"
    steps = [
        Step(True, [Kernel(conv, 10e-6), Kernel(clamp, 2e-6)], rest_s=5e-6),
        Step(False, [Kernel("mean", 3e-6)]),
        Step(True, [Kernel(linear, 4e-6)], rest_s=0.2e-6),
    ]
    found = told(steps, 1e-6, NAMES)
    assert [(op["kind"], op["names"]) for op in found] == [
        ("Convolution", ["m0/aten_convolution_default"]), ("Clamp", ["m0/aten_relu_default"]), (CALL, []),
        ("mean", ["aten_mean_dim"]), ("Fully Connected", ["m1/aten_linear_default"]), (METHOD, []),
    ]  # fmt: skip
    microseconds = [round(op["seconds"] * 1e6, 6) for op in found]
    assert microseconds == [10.5, 2.5, 5 - 2 * 0.5, 3.0, 4.2, 1.0]
    assert sum(microseconds) == pytest.approx(10 + 2 + 5 + 3 + 4 + 0.2 + 1)


def test_a_delegate_without_kernels_is_one_operation_of_all_that_it_holds() -> None:
    found = told([Step(True, [], 7e-6), Step(False, [Kernel("mean", 1e-6)]), Step(True, [], 2e-6)], 0.0, NAMES)
    assert found[0]["names"] == list(NAMES[:2]) and found[0]["seconds"] == 7e-6


def test_steps_of_another_program_and_inferences_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="has 1 calls of a delegate, and the file 2: it is of another program"):
        told([Step(True, [Kernel("Clamp (NC)", 1e-6)])], 0.0, NAMES)
    one, other = [Step(True, [Kernel("a", 1.0)])], [Step(True, [Kernel("b", 1.0)])]
    with pytest.raises(ValueError, match="its inferences ran different kernels"):
        typical_of([one, other])
    assert told(one, 0.0, ())[0]["name"] == "delegate 0: a"  # a file without names keeps XNNPACK's


# ---- a trace of a runner


def test_a_trace_says_what_was_timed_in_a_clock_of_any_unit(artifact: Artifact, steps: list[Step]) -> None:
    slow = [
        step._replace(kernels=[Kernel(kernel.tag, 9 * kernel.seconds) for kernel in step.kernels]) for step in steps
    ]
    data = trace([slow, steps, steps], extra_s=30e-6)
    printed = tuple(total(run) + 30e-6 for run in (slow, steps, steps))
    ops = ops_of(data, Timed(printed), 2, tuple(artifact.scopes))  # the first execution warms up
    # What is left of a call beside its kernels may be less than a tick, and then has no row of its own.
    kernels, expected = (
        [op for op in found if op.kind not in (CALL, METHOD)]
        for found in (ops, op_times(told(steps, 30e-6, tuple(artifact.scopes))))
    )
    assert [(op.kind, op.names) for op in kernels] == [(op.kind, op.names) for op in expected]
    tick_s = 1 / TICKS_PER_S
    assert [op.seconds for op in kernels] == pytest.approx([op.seconds for op in expected], abs=5 * tick_s, rel=1e-3)
    assert sum(op.seconds for op in ops) == pytest.approx(printed[-1], rel=1e-2)  # nothing inside another counts twice
    answer = attribute("measured", ops, artifact, EACH_S, "executorch")
    assert {block.path for block in answer.blocks} >= set(artifact.blocks)


def test_executorchs_own_writer_is_read() -> None:
    """Two delegates, and between them an operation whose kernel is told twice: inside its OPERATOR_CALL, and by it."""
    ops = ops_of(RECORDED.read_bytes(), Timed((3e-4,), 3), 2, ("m0/aten_convolution_default", *NAMES))
    assert [op.kind for op in ops if op.kind not in (CALL, METHOD)] == [
        "Convolution", "Convolution", "mean", "Fully Connected",
    ]  # fmt: skip
    assert [op.names for op in ops if op.kind == "Fully Connected"] == [("m1/aten_linear_default",)]
    assert sum(op.seconds for op in ops) == pytest.approx(
        3e-4, rel=0.2
    )  # two of three executions, beside the mean of all


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "0 bytes that are no ETDump"),
        (lambda data: b"Segmentation fault\n" * 9, "171 bytes that are no ETDump"),
        (lambda data: data[:-1], "it was cut"),
        (lambda data: data[: len(data) // 2], "it was cut"),
        (lambda data: struct.pack("<I", 196) + data[4:200], "that ExecuTorch's own reader refuses"),
    ],
)
def test_a_file_that_is_no_whole_trace_is_refused(spoil: Callable[[bytes], bytes], says: str) -> None:
    with pytest.raises(GarbageError, match=says):
        ops_of(spoil(RECORDED.read_bytes()), Timed((3e-4,)), 2, NAMES)


def test_a_trace_without_an_execution_or_of_another_program_is_refused(artifact: Artifact, steps: list[Step]) -> None:
    with pytest.raises(GarbageError, match="without an execution"):
        ops_of(trace([]), Timed((1e-3,)), 2, NAMES)
    with pytest.raises(GarbageError, match="it is of another program"):
        ops_of(
            trace([[*steps, Step(True, [Kernel("Clamp (NC, F32)", 1e-6)])]]), Timed((1e-3,)), 1, tuple(artifact.scopes)
        )


# ---- over adb


@pytest.fixture
def runner(tmp_path: Path) -> str:
    import sys

    program = tmp_path / "executor_runner"
    program.write_text(f"#!{sys.executable}\n{STANDIN.read_text()}")
    return str(program)


QUICK = Protocol(processes=1, block_s=0.0, block_runs=2, warm_s=0.0, warm_runs=1, warm_limit_s=0.0, timeout_s=60.0)


@needs_adb
def test_a_traced_runner_tells_blocks_and_that_it_traces(
    phone: FakeAndroid,  # noqa: F811
    artifact: Artifact,
    steps: list[Step],
    runner: str,
    tmp_path: Path,
) -> None:
    file = tmp_path / "made.etdump"
    file.write_bytes(trace([steps] * 4))
    phone.behaviour.env["VITSCOPE_TRACE"] = str(file)
    target = AdbTarget(phone.serial, runners=runners_of([runner]))
    (done,) = measure([Job(artifact=artifact, runtime="executorch")], target, QUICK, profile_runs=3)
    target.close()
    assert isinstance(done, Finished)
    answer = done.measurement.attribution
    assert answer is not None, done.measurement.notes
    assert answer.how == "measured" and {block.path for block in answer.blocks} >= set(artifact.blocks)
    assert answer.profiled_s == pytest.approx(EACH_S, rel=1e-2)  # ticks in the seconds that the runner printed
    assert any("traces every inference" in note for note in done.measurement.notes)
    assert sum("--etdump_path=trace.etdump" in command for command in phone.commands) == 1


@needs_adb
@pytest.mark.parametrize(
    ("size", "says"),
    [
        (None, "this executor_runner has no event tracer: build it with EXECUTORCH_BUILD_DEVTOOLS=ON"),
        (1000, "an ETDump of 1000 bytes that says it has 2104: it was cut"),
        (0, "0 bytes that are no ETDump"),
    ],
)
def test_a_runner_without_a_whole_trace_keeps_its_figures(
    phone: FakeAndroid,  # noqa: F811
    artifact: Artifact,
    runner: str,
    tmp_path: Path,
    size: int | None,
    says: str,
) -> None:
    if size is not None:
        (tmp_path / "cut.etdump").write_bytes(RECORDED.read_bytes()[:size])
        phone.behaviour.env["VITSCOPE_TRACE"] = str(tmp_path / "cut.etdump")
    target = AdbTarget(phone.serial, runners=runners_of([runner]))
    (done,) = measure([Job(artifact=replace(artifact, notes=()), runtime="executorch")], target, QUICK, profile_runs=3)
    target.close()
    assert isinstance(done, Finished) and done.measurement.attribution is None
    assert done.measurement.summary.latency_p50_s == pytest.approx(EACH_S)
    (note,) = [note for note in done.measurement.notes if note.startswith("where the time went")]
    assert says in note and "\n" not in note


@needs_adb
def test_a_file_comes_from_a_device_byte_for_byte(phone: FakeAndroid, runner: str) -> None:  # noqa: F811
    target = AdbTarget(phone.serial, runners=runners_of([runner]))
    adb = target._device()
    there = f"{target._folder}/bytes"
    whole = bytes(range(256)) * 999
    (phone.storage / Path(target._folder).name / "bytes").write_bytes(whole)
    assert adb.pull(there) == whole
    with pytest.raises(MeasureError) as error:
        adb.pull(f"{there}_not")
    assert "there is no file" in one_line(error.value)
    target.close()
