"""Output of the three benchmark programs, as their sources write it and as logs of real devices show it, read into seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitscope.measure.targets.benchmark_output import (
    GarbageError,
    parse_benchmark_model,
    parse_executor_runner,
    parse_litert_profile,
    parse_ort_profile,
    parse_perf_test,
)

# The lines that count, of a build of 2021, one of 2024 (which tells percentiles as well), and one of 2018.
OF_2021 = """STARTING!
Log parameter values verbosely: [0]
Graph: [/data/local/tmp/yolo.tflite]
count=2 first=360262 curr=248911 min=248911 max=360262 avg=304586 std=55676

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442

Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, Inference (avg): 249684
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE
"""
OF_2024 = """INFO: STARTING!
INFO: count=1 curr=1357602
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
"""
OF_2018 = """Running benchmark for 50 iterations
count=50 first=51000 curr=49000 min=48000 max=53000 avg=50000.5 std=900
Average inference timings in us: Warmup: 61000, Init: 9000, Inference: 50000.5
"""


@pytest.mark.parametrize(
    ("text", "mean_us", "count", "load_us", "least_us", "most_us"),
    [
        (OF_2021, 249684, 50, 16242, 247067, 254474),
        (OF_2024, 1.24027e6, 50, 5579, 1238588, 1252566),
        (OF_2018, 50000.5, 50, 9000, 48000, 53000),
    ],
)
def test_benchmark_model_of_three_ages(
    text: str, mean_us: float, count: int, load_us: float, least_us: float, most_us: float
) -> None:
    timed = parse_benchmark_model(text)
    assert timed.samples_s == pytest.approx((mean_us * 1e-6,))
    assert timed.averaged == count
    assert timed.load_s == pytest.approx(load_us * 1e-6)
    assert (timed.min_s, timed.max_s) == pytest.approx((least_us * 1e-6, most_us * 1e-6))


def test_a_single_run_has_no_average_line() -> None:
    timed = parse_benchmark_model(
        "count=1 curr=900\ncount=1 curr=700\n\n"
        "Inference timings in us: Init: 10, First inference: 900, Warmup (avg): 900, Inference (avg): 700\n"
    )
    assert timed.samples_s == pytest.approx((700e-6,)) and timed.averaged == 1


def test_the_profile_of_a_run_is_not_taken_for_its_time() -> None:
    profile = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        "Timings (microseconds): count=50 first=1 curr=1 min=1 max=1 avg=1 std=0\n"
    )
    timed = parse_benchmark_model(OF_2021 + profile)
    assert timed.samples_s == pytest.approx((0.249684,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Segmentation fault",
        OF_2021.partition("Inference timings")[0],
        "Inference timings in us: Init: 1, First inference: 1, Warmup (avg): 1, Inference (avg): 5\n",
        OF_2021.replace("Inference (avg): 249684", "Inference (avg): 24968"),
        OF_2021.replace("avg=249684", "avg=2e"),
        OF_2021.replace("249684", "0"),
    ],
)
def test_output_that_was_cut_or_does_not_agree_is_refused(text: str) -> None:
    with pytest.raises(GarbageError):
        parse_benchmark_model(text)


def test_executor_runner_tells_each_execution_or_the_total() -> None:
    old = "I 00:00:00.003 executorch:executor_runner.cpp:280] Model executed successfully 4 time(s) in 10.000000 ms.\n"
    timed = parse_executor_runner(old)
    assert timed.samples_s == pytest.approx((2.5e-3,)) and timed.averaged == 4 and timed.load_s is None
    new = (
        "I 00:00:00.002 executorch:executor_runner.cpp:500] Model loaded in 12.500000 ms.\n"
        + "".join(f"I executorch:executor_runner.cpp:700] Iteration {n} of 4: {n}.000000 ms\n" for n in (1, 2, 3, 4))
        + old
    )
    timed = parse_executor_runner(new)
    assert timed.samples_s == pytest.approx((1e-3, 2e-3, 3e-3, 4e-3)) and timed.averaged == 1
    assert timed.load_s == pytest.approx(12.5e-3)
    for broken in ("", new.replace("Iteration 2 of 4: 2.000000 ms", ""), old.replace("10.000000", "0.0")):
        with pytest.raises(GarbageError):
            parse_executor_runner(broken)


def test_perf_test_keeps_every_run_in_its_result_file() -> None:
    results = "tiny,0.010,91336704,62,0\ntiny,0.008,91336704,62,1\n\nMin Latency is 0.008sec\n"
    timed = parse_perf_test("Session creation time cost: 0.169475 s\n", results)
    assert timed.samples_s == (0.010, 0.008) and timed.averaged == 1
    assert timed.load_s == pytest.approx(0.169475)
    assert parse_perf_test("", results).load_s is None
    for broken in ("", "tiny,fast,1,2,0\n", "tiny,-1,1,2,0\n"):
        with pytest.raises(GarbageError):
            parse_perf_test("", broken)


CSV = """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
ModifyGraphWithDelegate, 7.5, 7.5, 90%, 90%, 1000, 1, ModifyGraphWithDelegate/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
CONV_2D, 0.2, 0.1, 25%, 25%, 0, 1, [stem/conv;stem/act]:0
SPLIT, 0.2, 0.05, 12.5%, 37.5%, 0, 1, [left\t right]:1
TfLiteXNNPackDelegate, 0.3, 0.25, 62.5%, 100%, 0, 1, [out]:64

============================== Top by Computation Time ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
TfLiteXNNPackDelegate, 0.3, 0.25, 62.5%, 62.5%, 0, 1, [out]:64
"""
INTERNAL = """Delegate internal:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
Convolution (NHWC, F32) IGEMM, 0.2, 0.15, 60%, 60%, 0, 1, Delegate/Convolution (NHWC\t F32) IGEMM:0
Fully Connected (NC, F32) GEMM, 0.1, 0.09, 40%, 100%, 0, 1, Delegate/Fully Connected (NC\t F32) GEMM:1

"""


def test_the_profile_is_that_of_the_regular_runs_in_their_order() -> None:
    ops = parse_litert_profile(CSV)
    assert [op.kind for op in ops] == ["CONV_2D", "SPLIT", "TfLiteXNNPackDelegate"]
    assert [op.seconds for op in ops] == pytest.approx([0.1e-3, 0.05e-3, 0.25e-3])
    assert ops[0].names == ("stem/conv;stem/act",) and ops[1].names == ("left", "right")


def test_operations_inside_a_delegate_stand_for_it() -> None:
    ops = parse_litert_profile(CSV + INTERNAL)
    assert [op.kind for op in ops] == [
        "CONV_2D", "SPLIT", "Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM",
    ]  # fmt: skip
    assert sum(op.seconds for op in ops) == pytest.approx((0.1 + 0.05 + 0.15 + 0.09) * 1e-3)


@pytest.mark.parametrize("start", [True, False])
def test_the_table_of_builds_without_csv(start: bool) -> None:
    """Before 2021 a column tells when an operation began."""
    head = ["[node type]", *(["[start]"] if start else []), "[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]",
            "[times called]", "[Name]"]  # fmt: skip
    row = ["CONV_2D", *(["62.774"] if start else []), "14.666", "13.5", "0.195%", "0.195%", "0.000", "1", "[a/Relu6]:7"]
    table = "\n".join("".join(f"\t{cell:>10}" for cell in cells) for cells in (head, row))
    text = f"Operator-wise Profiling Info for Regular Benchmark Runs:\n==== Run Order ====\n{table}\n\n==== Top\n"
    (op,) = parse_litert_profile(text)
    assert (op.kind, op.names, op.seconds) == ("CONV_2D", ("a/Relu6",), pytest.approx(13.5e-3))


@pytest.mark.parametrize(
    "text",
    ["", CSV.partition("Operator-wise")[0], CSV.replace("avg_ms", "mean"), CSV.replace("0.1, 25%, 25%", "x, 25%, 25%")],
)
def test_a_profile_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(GarbageError):
        parse_litert_profile(text)


def test_the_trace_of_onnx_runtime_leaves_the_first_run_out() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 9},
        *(
            {"cat": "Node", "name": "stem/Conv_kernel_time", "dur": dur, "args": {"op_name": "Conv"}}
            for dur in (1000, 20, 40)
        ),
        {"cat": "Node", "name": "stem/Conv_fence_before", "dur": 1, "args": {"op_name": "Conv"}},
    ]
    (op,) = parse_ort_profile(json.dumps(events), 2)
    assert (op.name, op.kind, op.seconds) == ("stem/Conv", "Conv", pytest.approx(30e-6))
    for broken in ("", "{}", "[]", "[1"):
        with pytest.raises(GarbageError):
            parse_ort_profile(broken, 2)


def test_a_trace_that_onnx_runtime_wrote_is_read(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    shape = (1, 64, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"], name="stage/matmul")], "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "tiny.onnx")
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(tmp_path / "tiny.onnx", options, providers=["CPUExecutionProvider"])
    for _ in range(5):
        session.run(None, {"x": np.ones(shape, np.float32)})
    (op,) = parse_ort_profile(Path(session.end_profiling()).read_text(), 4)
    assert (op.name, op.kind) == ("stage/matmul", "MatMul") and 0 < op.seconds < 1
