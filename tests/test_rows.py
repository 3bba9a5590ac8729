"""The results file: what a row says, two processes at once, foreign tables, a full disk, and rounds that are kept."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_onnx import tiny_onnx

from vitscope.errors import UsageError
from vitscope.measure import rows
from vitscope.measure.channel import Job, MeasureError, Opened
from vitscope.measure.record import (
    Attribution,
    Block,
    BlockTime,
    Condition,
    Measurement,
    Protocol,
    State,
    Summary,
)
from vitscope.measure.saved import measurement_json, read_measurement, read_rounds
from vitscope.measure.session import Round, condition
from vitscope.pareto import front_data
from vitscope.results import read_results

CONDITION = Condition(
    model="net, the first", digest="d1", form="deploy", input_shape=(2, 3, 224, 224), precision="fp32", format="onnx",
    weights="random, seed 0", tools="onnx 1", artifact_bytes=1000, target="ssh:pi", host="pi", processor="A76",
    system="Linux", runtime="onnxruntime", runtime_version="1.31.1", unit="cpu", threads=2, affinity=(0, 3),
    options={"b": "2", "a": "1"},
)  # fmt: skip
BLOCKS = (
    Block(process=0, order=0, started_s=0.5, samples_s=(0.001, 0.0011), before=State(clock_hz=2e9, probe_s=1e-4)),
    Block(process=1, order=1, started_s=2.0, samples_s=(0.0012,), averaged=50, after=State(thermal_status="none")),
)
MEASUREMENT = Measurement(
    condition=CONDITION, protocol=Protocol(processes=2), date="2026-01-02T03:04:05+00:00", load_s=(0.1, 0.2),
    warm_s=(0.5, 0.6), blocks=BLOCKS,
    summary=Summary(
        latency_p50_s=0.0011, latency_p90_s=0.0012, latency_min_s=0.001, low_s=0.00105, high_s=0.00115, samples=3
    ),
    unstable=True, warnings=("few", "load"), notes=("spins",),
    attribution=Attribution(
        how="measured", source="onnxruntime 1.31.1", profiled_s=0.002,
        blocks=(BlockTime(path="stem", seconds=0.001, share=0.9), BlockTime(path=None, seconds=0.0001, share=0.1)),
    ),
)  # fmt: skip


def named(model: str, **changes: object) -> Measurement:
    return replace(MEASUREMENT, condition=replace(CONDITION, model=model, **changes))  # type: ignore[arg-type]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_holds_the_figures_and_the_whole_condition(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    samples = rows.append(path, MEASUREMENT, {"family": "Net", "params": 6_100_000, "macs": None, "top1": 79.0})
    (row,) = table(path)
    assert tuple(row) == rows.COLUMNS
    assert (row["model"], row["family"], row["params"], row["macs"], row["top1"]) == (
        "net, the first", "Net", "6100000", "", "79",
    )  # fmt: skip
    assert (row["latency_p50_s"], row["latency_low_s"], row["unstable"]) == ("0.0011", "0.00105", "yes")
    assert (row["input"], row["batch"], row["affinity"], row["options"]) == ("3x224x224", "2", "0 3", "a=1 b=2")
    assert (row["processes"], row["samples"], row["warnings"]) == ("2", "3", "few; load")
    assert tmp_path / row["samples_file"] == samples == tmp_path / "results.samples" / f"{row['key']}.json"


def test_every_sample_and_all_context_come_back_from_the_file_beside(tmp_path: Path) -> None:
    samples = rows.append(tmp_path / "results.csv", MEASUREMENT)
    assert json.loads(samples.read_text())["schema_version"] == 1
    assert read_measurement(samples) == MEASUREMENT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a measurement"),
        ("[]", "not a measurement"),
        ('{"schema_version": 2, "measurement": {}}', "schema_version 2, expected 1"),
        (measurement_json(MEASUREMENT).replace('"unstable":true', '"unstable":"no"'), "expected bool, got 'no'"),
        (measurement_json(MEASUREMENT).replace('"unstable"', '"steady"'), "unknown key 'steady' of Measurement"),
    ],
)
def test_a_damaged_file_of_samples_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_measurement(path)


def test_pareto_reads_the_table(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    for name, seconds, top1 in (("a", 0.001, 70.0), ("b", 0.002, 75.0), ("c", 0.003, 72.0)):
        measured = named(name)
        rows.append(path, replace(measured, summary=replace(measured.summary, latency_p50_s=seconds)), {"top1": top1})
    data = front_data([read_results(str(path))], x="latency_p50", y="top1")
    assert {point.label for point in data.points if point.dominated_by is None} == {"a", "b"}


# ---- keys


def test_a_job_has_the_key_of_its_measurement(tmp_path: Path) -> None:
    job = Job(
        artifact=tiny_onnx(tmp_path / "x.onnx"), runtime="onnxruntime", threads=2, options=(("b", "1"), ("a", "2"))
    )
    opened = Opened(runtime_version="1", host="x", processor="p", system="s", load_s=0.1)
    made = condition(job, "ssh:pi", opened)
    key = rows.key_of(made, Protocol())
    assert rows.key_of_job(job, Protocol(), target="ssh:pi", runtime_version="1") == key
    assert rows.key_of_job(job, Protocol(timeout_s=5), target="ssh:pi", runtime_version="1") == key
    others = [
        rows.key_of_job(job, Protocol(), target="ssh:pi", runtime_version="2"),
        rows.key_of_job(job, Protocol(), target="adb:X", runtime_version="1"),
        rows.key_of_job(job, Protocol(seed=1), target="ssh:pi", runtime_version="1"),
        rows.key_of_job(replace(job, threads=1), Protocol(), target="ssh:pi", runtime_version="1"),
        rows.key_of(replace(made, precision="fp16"), Protocol()),
        rows.key_of(replace(made, digest="other"), Protocol()),
    ]
    assert len({key, *others}) == 7


def test_host_is_a_place_only_together_with_its_name() -> None:
    here, there = (rows.key_of(replace(CONDITION, target="host", host=name), Protocol()) for name in ("here", "there"))
    assert here != there
    assert rows.key_of(CONDITION, Protocol()) == rows.key_of(replace(CONDITION, host="renamed"), Protocol())


def test_what_is_finished_is_known(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    assert rows.finished(path) == {}
    rows.append(path, MEASUREMENT)
    assert rows.finished(path) == {rows.key_of(CONDITION, MEASUREMENT.protocol): frozenset({CONDITION.artifact_bytes})}


def test_a_repetition_is_a_further_row_with_samples_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    first, second = rows.append(path, MEASUREMENT), rows.append(path, replace(MEASUREMENT, date="later"))
    assert first != second and read_measurement(first) == MEASUREMENT and read_measurement(second).date == "later"
    assert [row["samples_file"] for row in table(path)] == [f"results.samples/{file.name}" for file in (first, second)]


# ---- rounds of an interrupted session

ROUNDS = (
    Round(
        opened=Opened(runtime_version="1", host="h", processor="p", system="s", load_s=0.1), warm_s=0.5, stable=False,
        blocks=BLOCKS[:1],
    ),
)  # fmt: skip


def test_rounds_are_kept_until_the_row_is_there(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    key = rows.key_of(CONDITION, MEASUREMENT.protocol)
    assert rows.kept(path, key) == ()
    rows.keep(path, key, ROUNDS)
    assert rows.kept(path, key) == ROUNDS
    rows.keep(path, key, ROUNDS * 2)
    assert rows.kept(path, key) == ROUNDS * 2
    rows.append(path, MEASUREMENT)
    assert rows.kept(path, key) == ()


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema_version": 9, "rounds": []}', '{"schema_version": 1, "rounds": [{}]}']
)
def test_damaged_rounds_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert read_rounds(path) == ()


# ---- the file


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    code = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from test_rows import named
from vitscope.measure import rows
for number in range(20):
    rows.append(Path(sys.argv[1]), named(f"{sys.argv[2]} {number}"))
"""
    where = Path(__file__).parents[1]
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=where) for name in ("one", "two", "three")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    found = table(path)
    assert sorted(row["model"] for row in found) == sorted(
        f"{w} {n}" for w in ("one", "two", "three") for n in range(20)
    )
    assert all((tmp_path / row["samples_file"]).is_file() for row in found)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".results.csv.") and file.suffix != ".lock"]


def test_a_table_with_columns_of_its_own_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text('key,model,remark,latency_p50_s,samples_file\r\nk1,old,"by, hand",0.5,x.json\r\n', newline="")
    rows.append(path, MEASUREMENT)
    old, new = table(path)
    assert (old["model"], old["remark"], old["latency_p50_s"], old["threads"]) == ("old", "by, hand", "0.5", "")
    assert (new["model"], new["remark"], new["threads"]) == ("net, the first", "", "2")
    assert path.read_bytes().count(b"\r\n") == 3
    assert set(rows.COLUMNS) < set(new)


def test_other_rows_stay_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    rows.append(path, MEASUREMENT)
    edited = path.read_bytes().replace(b"Linux", b"  Linux \xc3\xa9 ")[:-1]  # by hand, without the last newline
    path.write_bytes(edited)
    rows.append(path, MEASUREMENT)
    assert path.read_bytes().startswith(edited + b"\n") and len(table(path)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model,latency_ms\nx,1\n", "is no table of measurements"),
        (b"hello\n", "is no table of measurements"),
        (b"\xff\xfe\x00", "not a CSV file"),
        (b"key,model,latency_p50_s,samples_file\na,b\n", "row 2 has 2 cells"),
    ],
)
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        rows.append(path, MEASUREMENT)
    assert path.read_bytes() == content
    assert not list(tmp_path.glob("results.samples/*"))


def test_what_cannot_be_appended_to_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    rows.check(tmp_path / "new.csv")
    assert not list(tmp_path.iterdir())  # asking leaves nothing
    for path, message in ((tmp_path, "is a directory"), (tmp_path / "no" / "x.csv", "there is no folder")):
        with pytest.raises(UsageError, match=message):
            rows.check(path)
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="no table of measurements"):
        rows.check(foreign)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: writing fails in the same place."""
    path = tmp_path / "results.csv"
    rows.append(path, named("first"))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    code = """
import resource, sys
sys.path.insert(0, "tests")
from pathlib import Path
from test_rows import named
from vitscope.measure import rows
from vitscope.measure.channel import MeasureError
path = Path(sys.argv[1])
room = 100
if sys.argv[2] == "table":  # the samples still fit, the table does not
    rows.append(path, named("filler " + "y" * 4000))
    room = path.stat().st_size + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    rows.append(path, named("second"))
except MeasureError as error:
    print(error)
"""
    for what in ("samples", "table"):
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path), what], capture_output=True, text=True, timeout=60,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        assert "cannot write: File too large" in ran.stdout and len(ran.stdout.splitlines()) == 1, ran.stderr
        assert table(path)[0]["model"] == "first" and "second" not in path.read_text()
        assert all(file.read_bytes() == content for file, content in before.items() if file != path)
    assert len(list(tmp_path.glob("results.samples/*"))) == 2  # of the first and the filler: none without a row
    assert not list(tmp_path.rglob(".*.json.*"))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results.samples").write_text("a file where the folder should be")
    with pytest.raises(MeasureError, match=r"results\.samples: cannot be made"):
        rows.append(tmp_path / "results.csv", MEASUREMENT)
    assert not (tmp_path / "results.csv").exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    rows.append(real, MEASUREMENT)
    link.symlink_to(real)
    rows.append(link, MEASUREMENT)
    assert link.is_symlink() and len(table(real)) == 2


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root writes through every mode of a folder
    with pytest.raises(UsageError, match=f"r.csv: cannot write in the folder {tmp_path}$"):
        rows.check(tmp_path / "r.csv")
    (tmp_path / "r.samples").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: path == tmp_path)
    with pytest.raises(UsageError, match=r"cannot write in the folder .*r\.samples$"):
        rows.check(tmp_path / "r.csv")
