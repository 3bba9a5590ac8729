"""What is said of measurements: which row a warning is about, units where they tell something, what is waited for."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from vitscope.cli.progress import Progress
from vitscope.export.artifact import Artifact
from vitscope.measure.channel import Job
from vitscope.measure.record import Attribution, BlockTime, Condition, Measurement, Protocol, Summary
from vitscope.measure.session import Step
from vitscope.report.breakdown import breakdown_tables
from vitscope.report.measure import warning_lines

CONDITION = Condition(
    model="net", digest="d", form="deploy", input_shape=(1, 3, 8, 8), precision="fp32", format="onnx", weights="random",
    tools="", artifact_bytes=1, target="host", host="h", processor="p", system="s", runtime="onnxruntime",
    runtime_version="1", unit="cpu", threads=1, affinity=(), options={},
)  # fmt: skip


def measured(*warnings: str, units: tuple[str, ...] = ("cpu",), **condition: object) -> Measurement:
    share = 1 / len(units)
    blocks = tuple(BlockTime(path=f"b{i}", seconds=share, share=share, unit=unit) for i, unit in enumerate(units))
    return Measurement(
        condition=replace(CONDITION, **condition), protocol=Protocol(), date="", load_s=(), warm_s=(), blocks=(),
        summary=Summary(latency_p50_s=1, latency_p90_s=1, latency_min_s=1, low_s=1, high_s=1, samples=1),
        unstable=False, warnings=warnings,
        attribution=Attribution(how="measured", source="", blocks=blocks, profiled_s=1.0),
    )  # fmt: skip


def test_a_warning_names_what_tells_its_rows_apart() -> None:
    rows = [measured("hot"), measured("cold", precision="int8"), measured("hot", runtime="litert", threads=4)]
    assert warning_lines(rows) == ["net on onnxruntime fp32, net on litert: hot", "net on onnxruntime int8: cold"]
    sizes = [measured("hot"), measured(input_shape=(1, 3, 16, 16))]
    assert warning_lines(sizes) == ["net on onnxruntime 1×3×8×8: hot"]
    assert warning_lines([measured("hot")] * 2) == ["net on onnxruntime: hot"]


def test_units_stand_in_the_breakdown_where_they_are_not_the_rows_own() -> None:
    for m, titles in (
        (measured(units=("cpu", "")), ["block", "onnxruntime, measured", "share"]),
        (measured(units=("ane", "cpu"), unit="all"), ["block", "onnxruntime, measured", "share", "unit"]),
    ):
        (table,) = breakdown_tables([m], "block")
        assert [column.title for column in table.columns] == titles
        assert {len(row.cells) for row in (*table.rows, *table.footer)} == {len(titles)}


def test_profiling_is_no_process_of_the_row(tmp_path: Path) -> None:
    artifact = Artifact(
        path=tmp_path, format="onnx", model="net", digest="", form="deploy", precision="fp32", input_shape=(1, 3, 8, 8),
        blocks=(), weights="", tools="",
    )  # fmt: skip
    job, out, now = Job(artifact=artifact, runtime="litert"), io.StringIO(), [0.0]
    progress = Progress(out, clock=lambda: now[0])
    for now[0], what, done in ((10.0, "load", 1), (20.0, "load", 2), (30.0, "profile", 2)):
        progress.step(Step(what, job, 2, 2, done, 2), 0, 1)  # type: ignore[arg-type]
    assert out.getvalue().splitlines() == [
        "[10 s] row 1 of 1: load: net on litert, process 2 of 2",
        "[20 s] row 1 of 1: load: net on litert, process 2 of 2, about 0 s left for these",
        "[30 s] row 1 of 1: where the time of net on litert went",
    ]
