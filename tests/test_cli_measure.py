"""vitscope measure, profile --measure, compare --measure and devices: real runtimes, a very short protocol, every way to fail."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_package

from vitscope.cli import main
from vitscope.cli.measuring import make_protocol
from vitscope.cli.progress import Progress
from vitscope.measure import rows
from vitscope.measure.channel import Opened
from vitscope.measure.plan import Failure, Network, cases, parse_numbers, parse_runtimes
from vitscope.measure.record import Attribution, BlockTime, Condition, Measurement, Protocol, Summary
from vitscope.measure.saved import read_measurement
from vitscope.measure.session import Round
from vitscope.report.breakdown import breakdown_tables, part_times, row_times
from vitscope.report.measure import measure_table

SHORT = ("--processes", "2", "--block", "10ms")
TINY = """
name: {name}
input: [3, 32, 32]
act: relu
stem: {{block: conv_stem, width: {width}}}
stages:
  - {{depth: 2, width: {width}, block: inverted_residual, expansion: 2}}
head: {{block: classifier, classes: 10}}
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """Two networks of some thousand parameters, and a cache of their exported files that this module shares."""
    folder = tmp_path_factory.mktemp("nets")
    for name, width in (("tiny", 8), ("wide", 64)):
        (folder / f"{name}.yaml").write_text(TINY.format(name=name, width=width))
    before = os.environ.get("VITSCOPE_CACHE")
    os.environ["VITSCOPE_CACHE"] = str(folder / "cache")
    yield folder
    os.environ.pop("VITSCOPE_CACHE")
    if before is not None:
        os.environ["VITSCOPE_CACHE"] = before


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "vitscope", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **options,
    )  # fmt: skip


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# What is measured


def test_two_runtimes_with_every_sample(nets, capsys):
    code, out, err = call(capsys, "measure", nets / "tiny.yaml", "--runtime", "onnxruntime,torch", *SHORT, "--json")
    assert code == 0, err
    data = json.loads(out)
    assert set(data) == {"schema_version", "vitscope_version", "measurements", "failures"} and not data["failures"]
    assert [m["condition"]["runtime"] for m in data["measurements"]] == ["onnxruntime", "torch"]
    for m in data["measurements"]:
        samples = [s for block in m["blocks"] for s in block["samples_s"]]
        assert len(samples) == m["summary"]["samples"] >= 10 and min(samples) > 0
        medians = [statistics.median(block["samples_s"]) for block in m["blocks"]]
        assert m["summary"]["latency_p50_s"] == pytest.approx(statistics.median(medians))
        assert m["summary"]["low_s"] <= m["summary"]["latency_p50_s"] <= m["summary"]["high_s"]
        assert {block["process"] for block in m["blocks"]} == {0, 1}
        assert m["condition"]["form"] == "deploy" and m["condition"]["input_shape"] == [1, 3, 32, 32]
        assert m["condition"]["runtime_version"].startswith(importlib.metadata.version(m["condition"]["runtime"])[:4])


def test_where_the_time_went_adds_up(nets, capsys):
    code, out, err = call(
        capsys, "measure", nets / "tiny.yaml", "--runtime", "onnxruntime", *SHORT, "--by", "block", "--json"
    )
    assert code == 0, err
    (m,) = json.loads(out)["measurements"]
    parts = m["attribution"]["blocks"]
    assert sum(part["seconds"] for part in parts) == pytest.approx(m["summary"]["latency_p50_s"])
    assert {"stem", "head"} <= {part["path"] for part in parts} and m["attribution"]["how"] == "measured"
    assert sum(part["share"] for part in parts if part["path"] is None) < 0.5


def test_sizes_threads_and_batches_are_rows_of_their_own(nets, capsys):
    code, out, err = call(
        capsys, "measure", nets / "tiny.yaml", "--runtime", "onnxruntime", "--resolution", "32,64", "--threads", "1,2",
        "--batch", "2", *SHORT, "--csv",
    )  # fmt: skip
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0, err
    assert [(r["input"], r["threads"], r["batch"]) for r in rows] == [
        ("3x32x32", "1", "2"), ("3x32x32", "2", "2"), ("3x64x64", "1", "2"), ("3x64x64", "2", "2"),
    ]  # fmt: skip


def test_a_dry_run_says_what_is_missing_and_measures_nothing(nets, capsys, tmp_path):
    file = tmp_path / "r.csv"
    code, out, _ = call(
        capsys, "measure", nets / "tiny.yaml", "--runtime", "onnxruntime,tensorrt", "--dry-run", "--append", file,
        "--json",
    )  # fmt: skip
    assert code == 3 and not file.exists()
    first, second = json.loads(out)["cases"]
    assert first["runtime_version"] == importlib.metadata.version("onnxruntime") and first["missing"] is None
    assert second["runtime_version"] is None and "pip install tensorrt" in second["missing"]


# The results file


def test_rows_are_kept_and_not_repeated_unless_asked(nets, capsys, tmp_path):
    file = tmp_path / "r.csv"
    command = ("measure", nets / "tiny.yaml", "--runtime", "onnxruntime", *SHORT, "--append", file)
    code, _, err = call(capsys, *command)
    assert code == 0 and "1 row added" in err
    (row,) = read(file)
    assert (
        row["model"] == "tiny" and float(row["latency_p50_s"]) > 0 and int(row["params"]) > 0 and int(row["macs"]) > 0
    )
    saved = read_measurement(tmp_path / row["samples_file"])
    assert saved.summary.latency_p50_s == pytest.approx(float(row["latency_p50_s"]))
    content = file.read_bytes()
    code, out, err = call(capsys, *command)
    assert code == 0 and "measured already, 1 row kept; --again repeats" in err and file.read_bytes() == content
    assert "tiny" in out  # the row is shown from the file
    assert call(capsys, *command, "--again")[0] == 0 and len(read(file)) == 2
    code, out, err = call(capsys, "pareto", file, "--x", "latency_p50", "--y", "params", "--json")
    assert code == 0, err


def test_other_values_or_another_exported_file_are_measured_again(nets, capsys, tmp_path):
    from vitscope.model import build
    from vitscope.spec import load_spec

    file, weights = tmp_path / "r.csv", tmp_path / "w.pt"
    command = ["measure", nets / "tiny.yaml", "--runtime", "onnxruntime", *SHORT, "--append", file]
    command += ["--weights", weights]
    for seed in (1, 2):  # one name, two contents
        torch.manual_seed(seed)
        torch.save(build(load_spec(str(nets / "tiny.yaml"))).state_dict(), weights)
        code, _, err = call(capsys, *command)
        assert code == 0 and "1 row added" in err, err
    assert "measured already, 1 row kept" in call(capsys, *command)[2]
    assert len({row["weights"] for row in read(file)}) == 2

    last = read(file)[-1]["artifact_bytes"]  # as if an earlier exporter had written a larger file
    file.write_text(file.read_text().replace(f",{last},", ",999999,"))
    assert "1 row added" in call(capsys, *command)[2]


def test_rounds_of_another_exported_file_are_not_gone_on_with(nets, capsys, tmp_path):
    file = tmp_path / "r.csv"
    command = ("measure", nets / "tiny.yaml", "--runtime", "onnxruntime", *SHORT, "--append", file)
    assert call(capsys, *command)[0] == 0
    (row,) = read(file)
    saved = read_measurement(tmp_path / row["samples_file"])
    first = saved.blocks[0]
    opened = Opened(
        runtime_version=saved.condition.runtime_version, host=saved.condition.host, load_s=0.1,
        processor=saved.condition.processor, system=saved.condition.system,
    )  # fmt: skip
    past = (Round(opened=opened, warm_s=0.1, stable=True, blocks=(replace(first, samples_s=(123.0,) * 9),)),)
    for size, kept in ((saved.condition.artifact_bytes + 1, False), (saved.condition.artifact_bytes, True)):
        rows.keep(file, rows.rounds_key(row["key"], size), past)
        assert call(capsys, *command, "--again")[0] == 0
        newest = read_measurement(tmp_path / read(file)[-1]["samples_file"])
        assert (123.0 in newest.blocks[0].samples_s) is kept
        assert not list((tmp_path / "r.samples").glob("*.rounds.json"))


def test_ctrl_c_keeps_the_processes_that_are_done_and_the_next_run_goes_on(nets, tmp_path):
    file = tmp_path / "r.csv"
    command = ("measure", nets / "tiny.yaml", nets / "wide.yaml", "--runtime", "onnxruntime", "--processes", "4",
               "--block", "400ms", "--append", file)  # fmt: skip
    process = start(*command, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("r.samples/*.rounds.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    assert "goes on from there" in err
    left = subprocess.run(["pgrep", "-s", str(process.pid), "-f", "measure.runner"], capture_output=True, text=True)
    assert not left.stdout.strip()
    before = {}
    for kept in tmp_path.glob("r.samples/*.rounds.json"):
        first = json.loads(kept.read_text())["rounds"][0]
        before[kept.name.split(".")[0]] = tuple(first["blocks"][0]["samples_s"])
    assert before
    again = start(*command)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert {row["model"] for row in read(file)} == {"tiny", "wide"}
    for key, samples in before.items():
        assert read_measurement(tmp_path / "r.samples" / f"{key.partition('-')[0]}.json").blocks[0].samples_s == samples
    assert not list(tmp_path.glob("r.samples/*.rounds.json"))


def test_two_processes_append_to_one_file(nets, tmp_path):
    file = tmp_path / "r.csv"
    both = [
        start("measure", nets / f"{name}.yaml", "--runtime", "onnxruntime", *SHORT, "--append", file)
        for name in ("tiny", "wide")
    ]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    rows = read(file)
    assert {row["model"] for row in rows} == {"tiny", "wide"}
    assert all((tmp_path / row["samples_file"]).is_file() for row in rows)


def test_a_full_disk_is_one_line(nets, capsys, tmp_path):
    command = ("measure", nets / "tiny.yaml", "--runtime", "onnxruntime", *SHORT)
    assert call(capsys, *command)[0] == 0  # exported, so that only the results remain to be written
    process = start(
        *command, "--append", tmp_path / "r.csv",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256)),
    )  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "cannot write: File too large" in err and "Traceback" not in err
    assert not (tmp_path / "r.csv").exists()


# Failures


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_behind_stdout_is_one_line_and_the_row_is_kept(nets, tmp_path):
    file = tmp_path / "r.csv"
    command = ["measure", nets / "tiny.yaml", "--runtime", "onnxruntime", *SHORT, "--json", "--append", file]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vitscope", *map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and len(read(file)) == 1
    assert done.stderr.splitlines()[-1] == "cannot write the output: No space left on device"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_missing_runtime_is_a_row_and_the_others_go_on(nets, capsys, tmp_path):
    file = tmp_path / "r.csv"
    code, out, _ = call(
        capsys, "measure", nets / "tiny.yaml", "--runtime", "tensorrt,onnxruntime", *SHORT, "--append", file
    )
    assert code == 3 and "pip install tensorrt" in out and [r["runtime"] for r in read(file)] == ["onnxruntime"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runtime", "onnxrutime"], "did you mean 'onnxruntime'"),
        (["--runtime", "torch", "--precision", "int8"], "torch executes"),
        (["--runtime", "torch", "--precision", "fp23"], "did you mean 'fp32'"),
        (["--runtime", "onnxruntime", "--compute-units", "cpu+ane"], "onnxruntime runs on cpu"),
        (["--target", "hots"], "did you mean 'host'"),
        (["--target", "ssh:"], "ssh:USER@HOST"),
        (["--cores", "big"], "--cores does not apply to --target host"),
        (["--runner", "x"], "--runner does not apply to --target host"),
        (["--team", "ABC"], "--team does not apply to --target host"),
        (["--option", "a=b"], "take options"),
        (["--block", "5"], "time with its unit"),
        (["--block", "2x"], "time with its unit"),
        (["--block", "7200s"], "1ms to 3600s"),
        (["--threads", "0"], "expected numbers from 1"),
        (["--affinity", "3-1"], "runs backwards"),
        (["--processes", "0"], "--processes"),
        (["--again"], "--append"),
        (["--append", "/nonexistent/r.csv"], "no folder"),
        (["--fail-on-fallback"], "--runtime coreml"),
        (["--resolution", "big"], "expected a side in pixels"),
        (["--set", "stages.0.depth=0"], "depth"),
        (["--weights", "/nonexistent.pth", "mobilenetv2_100"], "one MODEL"),
        (["--runtime", "onnxruntime", "tiny_as_well"], "no network of the zoo"),
    ],
)
def test_mistakes_are_one_clear_message_and_exit_2(nets, capsys, arguments, words):
    code, out, err = call(capsys, "measure", nets / "tiny.yaml", *arguments)
    assert code == 2 and words in err and not out
    assert "Traceback" not in err and "internal error" not in err and len(err.strip().splitlines()) <= 4


def test_a_table_of_something_else_is_left_alone(nets, capsys, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("name,price\nbread,3\n")
    code, out, err = call(capsys, "measure", nets / "tiny.yaml", "--append", file)
    assert code == 2 and "no table of measurements" in err and not out
    assert file.read_text() == "name,price\nbread,3\n"


def test_a_device_that_is_not_attached_is_exit_3(nets, tmp_path):
    environment = os.environ | {"ANDROID_ADB_SERVER_PORT": "5953", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "vitscope", "measure", nets / "tiny.yaml", "--runtime", "litert", "--target", "adb:NONE"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    try:
        assert done.returncode == 3 and "Traceback" not in done.stderr
        assert "NONE" in done.stdout + done.stderr or "adb" in done.stderr
    finally:
        subprocess.run(["adb", "kill-server"], env=environment, capture_output=True, check=False)


def test_a_network_that_cannot_be_exported_is_a_row_with_its_reason(nets, capsys, tmp_path):
    code, out, _ = call(
        capsys, "measure", nets / "tiny.yaml", "--weights", tmp_path / "none.pth", "--runtime", "onnxruntime", *SHORT
    )
    assert code == 1 and "none.pth" in out


# profile, compare, devices


def test_a_profile_shows_measured_parts_beside_predicted_ones(nets, capsys):
    command = ("profile", nets / "tiny.yaml", "--measure", "onnxruntime", *SHORT, "--by", "stage")
    code, out, err = call(capsys, *command, "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"]
    (m,) = model["measurements"]
    assert m["condition"]["runtime"] == "onnxruntime" and not model["mes"]  # its unit is another device's
    code, out, _ = call(capsys, *command, "--csv")
    rows = list(csv.DictReader(out.splitlines()))
    parts = [float(r["measured_s_onnxruntime"] or 0) for r in rows if r["level"] == "stage"]
    total = float(rows[-1]["measured_s_onnxruntime"])
    assert 0 < sum(parts) <= total * 1.000001 and parts[0] > 0
    code, out, _ = call(capsys, *command)
    assert "onnxruntime, measured" in out and "interval of the median" in out


@pytest.mark.parametrize("command", ["profile", "compare"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--threads", "2"], "--measure"),
        (["--processes", "3"], "--measure"),
        (["--measure", "tflite"], "no runtime"),
        (["--python", "python3.12"], "--measure"),
        (["--measure", "litert", "--runner", "benchmark_model"], "--runner does not apply to --target host"),
        (["--measure", "onnxruntime", "--compute-units", "gpu"], "--compute-units"),
        (["--measure", "onnxruntime", "--compute-units", "cpu+ane"], "onnxruntime runs on cpu"),
    ],
)
def test_flags_of_measuring_need_it(nets, capsys, command, flags, words):
    models = [nets / "tiny.yaml", nets / "wide.yaml"][: 1 + (command == "compare")]
    code, out, err = call(capsys, command, *models, *flags)
    assert code == 2 and words in err and not out


def test_a_comparison_says_which_is_faster(nets, capsys):
    flags = ("--measure", "onnxruntime", "--resolution", "96", "--processes", "3", "--block", "20ms")
    code, out, err = call(capsys, "compare", nets / "tiny.yaml", nets / "wide.yaml", *flags, "--json")
    assert code == 0, err
    (comparison,) = json.loads(out)["comparisons"]
    (measured,) = comparison["measured"]
    assert measured["contrast"]["ratio"] < 1 and measured["b"] > measured["a"]  # 8 times the width takes longer
    assert "slower than" in measured["contrast"]["verdict"] or "no significant" in measured["contrast"]["verdict"]
    orders = [[b["order"] for b in m["blocks"]] for m in measured["measurements"]]
    aside = [b["order"] for m in measured["measurements"] for b in m["set_aside"]]  # where the machine was busy
    assert sorted([*orders[0], *orders[1], *aside]) == list(range(12 + len(aside)))
    assert len(orders[0]) == len(orders[1]) == 6 and min(orders[1]) < max(orders[0])  # they took turns
    code, _, err = call(capsys, "compare", nets / "tiny.yaml", nets / "tiny.yaml", *flags)
    assert code == 2 and "same network" in err


@pytest.mark.parametrize("flags", [(), ("--start",)])
def test_devices_lists_what_is_here_and_how_to_get_the_rest(capsys, flags):
    code, out, _ = call(capsys, "devices", *flags, "--json")
    data = json.loads(out)
    assert code == 0 and "iphone12" in [device["name"] for device in data["devices"]]
    runtimes = {runtime["name"]: runtime for runtime in data["runtimes"]}
    assert runtimes["onnxruntime"]["version"] == importlib.metadata.version("onnxruntime")
    assert runtimes["tensorrt"]["version"] is None and "pip install tensorrt" in runtimes["tensorrt"]["missing"]
    targets = {place["target"]: place for place in data["targets"]}
    assert targets["host"]["trouble"] is None
    if sys.platform != "darwin":
        assert "from a Mac" in targets["iphone"]["trouble"]


def test_a_broken_runtime_is_found_when_it_is_started_and_only_then(capsys, monkeypatch, tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)

    def told(*flags):
        code, out, _ = call(capsys, "devices", *flags, "--json")
        assert code == 0
        (runtime,) = [runtime for runtime in json.loads(out)["runtimes"] if runtime["name"] == "openvino"]
        return runtime

    assert told()["version"] is not None  # its package is there
    broken = told("--start")
    assert broken["version"] is None and "libtbb.so.12" in broken["missing"]
    code, out, err = call(capsys, "devices", "--start", "show", "iphone12")
    assert code == 2 and "--start" in err and not out


# Records as tables


def made(**changes) -> Measurement:
    condition = Condition(
        model="net", digest="d", form="deploy", input_shape=(1, 3, 8, 8), precision="fp32", format="onnx", weights="",
        tools="", artifact_bytes=1, target="host", host="box", processor="cpu", system="os", runtime="onnxruntime",
        runtime_version="1", unit="cpu", threads=1,
    )  # fmt: skip
    summary = Summary(
        latency_p50_s=0.010, latency_p90_s=0.012, latency_min_s=0.009, low_s=0.0095, high_s=0.0105, samples=1234
    )
    told = Attribution(
        how="measured", source="profiler", profiled_s=0.011,
        blocks=(
            BlockTime(path="stem", seconds=0.002, share=0.2), BlockTime(path=None, seconds=0.001, share=0.1),
            BlockTime(path="stages.0.blocks.0", seconds=0.003, share=0.3),
            BlockTime(path="stages.0.blocks.1", seconds=0.004, share=0.4),
        ),
    )  # fmt: skip
    m = Measurement(
        condition=condition, protocol=Protocol(), date="", load_s=(), warm_s=(), blocks=(), summary=summary,
        unstable=False, attribution=told,
    )  # fmt: skip
    return replace(m, **changes)


def test_a_table_has_the_figures_the_doubts_and_the_failures():
    shaky = made(unstable=True, warnings=("cool it",))
    failure = Failure(model="net", runtime="litert", precision="fp32", unit="cpu", threads=1, reason="is missing")
    table = measure_table([made(), shaky], [failure])
    titles = [column.title for column in table.columns]
    first, second, third = (dict(zip(titles, row.cells, strict=True)) for row in table.rows)
    assert first["p50"] == "10.000 ms" and first["p90"] == "12.000 ms" and first["samples"] == "1,234"
    assert first["95% interval of p50"] == "9.500 ms to 10.500 ms" and first["remarks"] == ""
    assert second["remarks"] == "unstable, 1 warning" and "net on onnxruntime: cool it" in table.notes
    assert third["p50"] == "–" and third["remarks"] == "is missing"
    assert "unit" not in titles and "input" not in titles


def test_parts_add_up_with_the_unexplained_last():
    m = made()
    assert m.attribution is not None
    stages = part_times(m.attribution, "stage")
    assert list(stages) == ["stem", "stages.0", "(unexplained)"] and stages["stages.0"][0] == pytest.approx(0.007)
    (table,) = breakdown_tables([m], "block")
    assert [row.cells[0] for row in table.rows][-1] == "(unexplained)" and "10% unexplained" in table.notes[0]
    rows = row_times(["stem", "stages.0", "head"], m)
    assert rows == pytest.approx({"stem": 0.002, "stages.0": 0.007, "(unexplained)": 0.001})
    assert not row_times(["stem"], replace(m, attribution=None))


def test_the_plan_is_every_combination_and_refuses_what_cannot_be():
    networks = [Network(model="a"), Network(model="b")]
    planned = cases(networks, ["onnxruntime", "coreml"], threads=(1, 2))
    assert len(planned) == 8 and [c.network.model for c in planned] == ["a"] * 4 + ["b"] * 4
    assert {c.runtime: (c.precision, c.unit) for c in planned} == {
        "onnxruntime": ("fp32", "cpu"),
        "coreml": ("fp16", "all"),
    }
    kept = cases(networks, ["onnxruntime", "torch"], precisions=["int8"], lenient=True)
    assert {c.runtime for c in kept} == {"onnxruntime"}
    assert parse_runtimes(["litert,torch", "litert"]) == ["litert", "torch"] and parse_runtimes(["torch,all"]) == [
        "all"
    ]
    assert parse_numbers("0,2-4,3", "--affinity", 0) == (0, 2, 3, 4)


def test_a_shorter_block_shortens_the_rest_and_a_longer_one_does_not():
    short, long = make_protocol(2, "10ms"), make_protocol(None, "5s")
    assert short.block_s == 0.01 and short.block_runs == 5 and short.warm_s < 0.01 and short.processes == 2
    assert long.block_s == 5 and (long.block_runs, long.warm_s, long.processes) == (50, 0.5, 5)


def test_progress_in_a_log_is_a_line_now_and_then(capsys):
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    for now[0] in (1.0, 4.0, 6.0, 7.0, 12.0):
        progress.say(f"at {now[0]:g}")
    assert capsys.readouterr().err.splitlines() == ["at 6", "at 12"]


def test_every_flag_of_measuring_is_explained_in_its_document():
    import typer

    from vitscope.cli import app

    text = (Path(__file__).parents[1] / "docs" / "measuring.md").read_text()
    command = typer.main.get_command(app).commands["measure"]  # type: ignore[attr-defined]
    flags = {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")}
    shared = {"--input", "--kwargs", "--set", "--json", "--csv", "--format", "--output", "--force", "--allow-plugins"}
    assert not [flag for flag in sorted(flags - shared) if f"`{flag}" not in text]


def test_a_block_off_the_neural_engine_fails_the_gate_by_name(nets, capsys, monkeypatch):
    """On the replayed iPhone of tests/replayed_iphone.py: answers composed from coremltools' source, no hardware."""
    require_package("coremltools")
    from tests.replayed_iphone import replayed

    phone, mac = replayed(monkeypatch)
    monkeypatch.setattr("vitscope.measure.targets.iphone.interface", lambda: mac)
    command = (
        "measure",
        nets / "tiny.yaml",
        "--target",
        "iphone",
        "--runtime",
        "coreml",
        "--team",
        "TEAM123456",
        *SHORT,
    )
    code, out, err = call(capsys, *command, "--fail-on-fallback")
    assert code == 0 and "iPhone 12" in out, err
    phone.unit = lambda name, kind: "cpu" if kind == "linear" else "ane"
    code, out, err = call(capsys, *command, "--fail-on-fallback")
    assert code == 1 and "1 block falls off the Neural Engine: head: linear on CPU" in out and "p50" in out
    code, _, err = call(capsys, *command, "--fail-on-fallback", "--compute-units", "cpu")
    assert code == 2 and "leaves the Neural Engine out" in err
