"""The runner and its pipes: a real runtime in a real process, and processes that crash, hang, print garbage or end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import SHAPE, tiny_onnx

from vitscope.errors import UnavailableError, UsageError
from vitscope.measure import timing
from vitscope.measure.channel import Job, MeasureError
from vitscope.measure.pack import runner_pyz
from vitscope.measure.pipe import RunnerChannel, RunnerProcess, load_message
from vitscope.measure.runner import state as machine_state
from vitscope.measure.targets import parse_target
from vitscope.measure.targets.host import HostTarget

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(artifact=tiny_onnx(tmp_path_factory.mktemp("tiny") / "tiny.onnx"), runtime="onnxruntime")


def script(code: str) -> RunnerProcess:
    return RunnerProcess([sys.executable, "-c", code], where="here")


def answering(line: str, then: str = "") -> RunnerProcess:
    """A process that answers its first message with `line`."""
    return script(f"import sys, time, os, signal; sys.stdin.readline(); print({line!r}, flush=True); {then}")


def child_of(channel: object) -> int | None:
    """The process that was forked for the channel's file."""
    assert isinstance(channel, RunnerChannel)
    pid = channel._process._process.pid
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(found[0]) if found else None


# ---- a real runtime


def test_a_runtime_in_a_fresh_process_warms_up_and_gives_samples(job: Job) -> None:
    channel = HostTarget().open(replace(job, affinity=(min(os.sched_getaffinity(0)),)), LIMIT_S)
    try:
        import onnxruntime

        assert channel.opened.runtime_version == onnxruntime.__version__
        assert channel.opened.host == os.uname().nodename and channel.opened.cores == os.cpu_count()
        assert channel.opened.processor and channel.opened.load_s > 0
        seconds, _ = channel.warm(0.02, 20, 0.5, 5.0)
        assert 0.02 <= seconds < 60
        block = channel.block(0.0, 30)
        assert len(block.samples_s) == 30 and min(block.samples_s) > 0
        assert block.before.probe_s and block.after.load is not None
    finally:
        channel.close()


def test_the_outputs_come_back_in_files(job: Job, tmp_path: Path) -> None:
    channel = HostTarget().open(job, LIMIT_S)
    assert isinstance(channel, RunnerChannel)
    try:
        (file,) = channel.run(str(tmp_path / "out"))
        output = np.load(file)
        assert output.shape == SHAPE and output.min() == 0 and output.max() > 0  # after a ReLU
        assert channel.run() == []
    finally:
        channel.close()


def test_the_host_says_what_it_has_and_what_it_lacks() -> None:
    found = HostTarget().runtimes(["onnxruntime", "coreml"])
    assert set(found) == {"onnxruntime", "coreml"}  # the others are not imported to answer
    assert isinstance(found["onnxruntime"], str)
    if sys.platform != "darwin":
        assert isinstance(found["coreml"], UnavailableError) and "macOS" in str(found["coreml"])


def test_a_file_that_the_runtime_refuses_is_one_line(job: Job, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(MeasureError) as caught:
        HostTarget().open(replace(job, artifact=replace(job.artifact, path=broken)), LIMIT_S)
    assert str(caught.value).startswith("host: ") and "\n" not in str(caught.value)


def test_a_missing_runtime_names_the_cure(job: Job) -> None:
    if sys.platform == "darwin":
        pytest.skip("Core ML predicts here")
    with pytest.raises(UnavailableError, match=r"macOS.*coreml"):
        HostTarget().open(replace(job, runtime="coreml"), LIMIT_S)


def test_cores_that_are_not_there_are_refused(job: Job) -> None:
    with pytest.raises(MeasureError, match="cannot be held to cores 4000"):
        HostTarget().open(replace(job, affinity=(4000,)), LIMIT_S)


# ---- the packed runner


def test_the_packed_runner_runs_alone_and_speaks_the_same(job: Job, tmp_path: Path) -> None:
    """Isolated (-I), in an empty folder, so that nothing of this repository can be imported but what is in the file."""
    pyz = tmp_path / "runner.pyz"
    pyz.write_bytes(runner_pyz())
    found = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, 'runner.pyz'); import vitscope; print(vitscope.__file__)"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "runner.pyz" in found.stdout
    process = RunnerProcess([sys.executable, "-I", "-u", str(pyz)], where="packed", cwd=str(tmp_path))
    channel = RunnerChannel(process, job, lambda job: str(job.artifact.path), LIMIT_S)
    try:
        channel.warm(0.0, 5, 1.0, 5.0)
        assert len(channel.block(0.0, 7).samples_s) == 7
    finally:
        channel.close()
    assert runner_pyz() == runner_pyz() and len(runner_pyz()) < 200_000


def test_one_process_forks_for_one_file_after_another(job: Job, tmp_path: Path) -> None:
    """The second file is the one that runs, and one that the runtime refuses ends the process."""
    channel = HostTarget().open(replace(job, apart=True), LIMIT_S)
    assert isinstance(channel, RunnerChannel) and channel.opened.apart
    pid, first = channel._process._process.pid, child_of(channel)
    assert first
    channel.warm(0.0, 5, 1.0, 5.0)
    channel.exchange(replace(job, apart=True))
    assert child_of(channel) not in (None, first)  # a fresh one, of which nothing is left of the first
    with pytest.raises(MeasureError, match="a model is loaded already"):
        channel._ask({"do": "load"}, 0.0)  # the new one is there already
    assert len(channel.block(0.0, 7).samples_s) == 7 and channel._process._process.pid == pid
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    with pytest.raises(MeasureError, match="host: "):
        channel.exchange(replace(job, artifact=replace(job.artifact, path=damaged), apart=True))
    assert channel._process._process.poll() is not None and child_of(channel) is None


def test_a_file_that_ends_its_forked_process_ends_the_runner_alike(job: Job) -> None:
    channel = HostTarget().open(replace(job, apart=True), LIMIT_S)
    child = child_of(channel)
    assert child
    os.kill(child, signal.SIGSEGV)
    with pytest.raises(MeasureError, match="the runner was ended by SIGSEGV during block"):
        channel.block(0.0, 3)
    channel.close()


@pytest.mark.parametrize("apart", [False, True])
def test_nothing_of_a_closed_runner_is_left(job: Job, apart: bool) -> None:
    channel = HostTarget().open(replace(job, apart=apart), LIMIT_S)
    assert isinstance(channel, RunnerChannel)
    pids = [pid for pid in (channel._process._process.pid, child_of(channel)) if pid]
    assert len(pids) == 1 + apart
    channel.close()
    channel.close()  # twice does no harm
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_is_not_loaded_apart_cannot_be_exchanged(job: Job) -> None:
    channel = HostTarget().open(job, LIMIT_S)
    assert isinstance(channel, RunnerChannel) and not channel.opened.apart
    with pytest.raises(MeasureError, match="no model is loaded apart"):
        channel.exchange(job)
    assert channel._process._process.poll() is not None


def test_a_process_with_threads_is_not_forked() -> None:
    code = (
        "import sys, threading\n"
        "from vitscope.measure.runner.__main__ import _can_fork\n"
        "print(_can_fork())\n"
        "end = threading.Event()\n"
        "threading.Thread(target=end.wait).start()\n"
        "print(_can_fork())\n"
        "end.set()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.split() == [str(sys.platform == "linux"), "False"], done.stderr


@pytest.mark.parametrize("module", [timing, machine_state])
def test_what_runs_on_boards_uses_the_standard_library_alone(module: object) -> None:
    import ast

    tree = ast.parse(Path(module.__file__).read_text())  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names), names


# ---- the protocol


def runner(*lines: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "vitscope.measure.runner"], input="\n".join(lines), capture_output=True, text=True,
        timeout=60, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nonsense_is_answered_and_the_runner_goes_on() -> None:
    answers = runner("not json", "3", '{"do": "_run"}', '{"do": "block", "min_s": 1, "min_runs": 1}', '{"do": "load"}')
    assert len(answers) == 5
    assert all('"error"' in answer for answer in answers)
    assert "no model is loaded" in answers[3]


def test_quit_and_the_end_of_stdin_both_end_it() -> None:
    assert runner('{"do": "quit"}', '{"do": "block"}') == []
    assert runner() == []


def test_what_a_runtime_prints_does_not_reach_the_protocol(tmp_path: Path) -> None:
    code = (
        "import os, sys, vitscope.measure.runner.__main__ as m\n"
        "class Loud:\n"
        "    def version():\n"
        "        print('a progress bar'); os.write(1, b'from C\\n'); return '1'\n"
        "m._adapter = lambda name: Loud\n"
        "m.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input='{"do": "versions", "adapters": {"x": "loud"}}\n', capture_output=True,
        text=True, timeout=60, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1 and '"x": "1"' in done.stdout
    assert "a progress bar" in done.stderr and "from C" in done.stderr


def test_threads_are_told_before_the_runtime_is_loaded(job: Job) -> None:
    message = load_message(replace(job, threads=3, options=(("a", "b"),)), "/x.onnx")
    assert (message["threads"], message["adapter"], message["options"]) == (3, "onnxruntime_cpu", {"a": "b"})


# ---- processes that do not keep it


def test_a_crash_names_the_signal_and_the_last_words() -> None:
    process = script("import os, sys; sys.stdin.readline(); print('out of luck', file=sys.stderr); os.abort()")
    with pytest.raises(MeasureError, match=r"^here: the runner was ended by SIGABRT during block: out of luck$"):
        process.ask({"do": "block"}, LIMIT_S)
    process.close()


def test_an_early_end_names_the_code() -> None:
    process = script("raise SystemExit(7)")
    with pytest.raises(MeasureError, match="ended with code 7 during load"):
        process.ask({"do": "load"}, LIMIT_S)
    process.close()


def test_a_hang_is_ended_with_all_that_it_started() -> None:
    process = script(
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); "
        'print(\'{"ok": "load", "pid": %d}\' % p.pid, flush=True); time.sleep(600)'
    )
    child = process.ask({"do": "load"}, LIMIT_S)["pid"]
    with pytest.raises(MeasureError, match=r"no answer to block within 0.2 s"):
        process.ask({"do": "block"}, 0.2)
    process.close()
    for _ in range(100):  # an orphan is reaped by init, not by us
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.05)
    raise AssertionError("the child of the runner still runs")


@pytest.mark.parametrize("line", ["Segmentation fault", "[1, 2]", '{"ok": "warm"}', "\x00\x01"])
def test_garbage_is_named_and_the_process_ended(line: str) -> None:
    process = answering(line, "time.sleep(600)")
    with pytest.raises(MeasureError, match="which is not its protocol"):
        process.ask({"do": "block"}, LIMIT_S)
    assert process._process.poll() == -signal.SIGKILL
    process.close()


def test_an_answer_without_its_values_is_garbage_too(job: Job) -> None:
    process = answering('{"ok": "load"}')
    with pytest.raises(MeasureError, match="lacks what it must say"):
        RunnerChannel(process, job, lambda _: "x", LIMIT_S)
    opened = (
        '{"ok": "load", "runtime_version": "1", "host": "h", "processor": "p", "system": "s", "load_s": 1, "notes": []}'
    )
    for block in ("[]", "[-1.0]", '["a"]'):
        answer = f'{{"ok": "block", "samples_s": {block}, "before": {{}}, "after": {{}}}}'
        process = answering(opened, f"sys.stdin.readline(); print({answer!r}, flush=True); time.sleep(600)")
        channel = RunnerChannel(process, job, lambda _: "x", LIMIT_S)
        with pytest.raises(MeasureError, match="answer to block is damaged"):
            channel.block(0.0, 1)
        channel.close()


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(MeasureError, match="cannot start /no/such/python: No such file"):
        RunnerProcess(["/no/such/python"], where="here")


# ---- names of targets


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("hots", {}, "did you mean 'host'"),
        ("host:x", {}, "takes no address"),
        ("ssh:", {}, "expected ssh:USER@HOST"),
        ("host", {"runner": "x"}, "--runner does not apply to --target host"),
    ],
)
def test_targets_are_refused_in_one_line(text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_target(text, **options)


def test_a_target_takes_what_is_given() -> None:
    assert parse_target("host", runner=None).name == "host"
    if sys.platform != "darwin":
        with pytest.raises(UnavailableError, match="macOS"):
            parse_target("mac")
