"""Android through the real adb client and server, against the FAKE device of fake_android.py, which runs programs here.

No figure of these tests is of a phone. What they hold is that the right commands reach the device, that its answers are read,
and that each way of losing it ends in one line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import require_tool
from fake_android import FakeAndroid

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.export.artifact import Artifact
from vitscope.measure.channel import Job, MeasureError
from vitscope.measure.record import Protocol, State
from vitscope.measure.session import Failed, Round, measure
from vitscope.measure.targets import adb as adb_target
from vitscope.measure.targets import android
from vitscope.measure.targets.adb import AdbTarget, runners_of
from vitscope.measure.targets.adb_client import Adb, Device, GoneError, choose, devices, parse_devices

STANDIN = Path(__file__).with_name("standin_benchmark_model.py")
needs_adb = pytest.mark.usefixtures("real_adb")
CLUSTERS = (
    android.Cluster((0, 1, 2, 3), 1.8e9), android.Cluster((4, 5, 6), 2.4e9), android.Cluster((7,), 2.8e9),
)  # fmt: skip


@pytest.fixture(scope="session")
def real_adb() -> str:
    return require_tool("adb")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A real .tflite of three layers."""
    import litert_torch
    import torch
    from torch import nn

    path = tmp_path_factory.mktemp("model") / "tiny.tflite"
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 10)).eval()
    litert_torch.convert(module, (torch.zeros(1, 3, 32, 32),)).export(str(path))
    return Artifact(
        path=path, format="litert", model="tiny", digest="d", form="deploy", precision="fp32",
        input_shape=(1, 3, 32, 32), blocks=("0", "3"), weights="random", tools="litert_torch",
    )  # fmt: skip


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An adb server of these tests, on a port and with keys of its own: the user's stays as it is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mine = {"HOME": str(tmp_path_factory.mktemp("home")), "ANDROID_ADB_SERVER_PORT": str(port)}
    before = {name: os.environ.get(name) for name in (*mine, "ADB_SERVER_SOCKET", "ANDROID_SERIAL")}
    os.environ.update(mine)
    for name in ("ADB_SERVER_SOCKET", "ANDROID_SERIAL"):
        os.environ.pop(name, None)
    yield
    subprocess.run(["adb", "kill-server"], capture_output=True, check=False)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def phone(adb_server: None, tmp_path: Path) -> Iterator[FakeAndroid]:
    with FakeAndroid(tmp_path / "phone") as device:
        connect(device)
        yield device
        subprocess.run(["adb", "disconnect", device.serial], capture_output=True, check=False)


@pytest.fixture
def runner(tmp_path: Path) -> str:
    """The stand-in as a program that can be pushed and started."""
    program = tmp_path / "android_aarch64_benchmark_model"
    program.write_text(f"#!{sys.executable}\n{STANDIN.read_text()}")
    return str(program)


def connect(device: FakeAndroid) -> str:
    done = subprocess.run(["adb", "connect", device.serial], capture_output=True, text=True, check=False)
    return done.stdout


def job(model: Artifact, **changes: object) -> Job:
    return replace(Job(artifact=model, runtime="litert"), **changes)  # type: ignore[arg-type]


def opened(phone: FakeAndroid, model: Artifact, runner: str, *, timeout_s: float = 60.0, cores: str = "all"):
    target = AdbTarget(phone.serial, runners=runners_of([runner]), cores=cores)
    return target, target.open(job(model), timeout_s)


def one_line(error: BaseException) -> str:
    assert isinstance(error, VitscopeError)
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text
    return text


@needs_adb
def test_a_model_is_measured_from_the_push_to_the_removed_folder(
    phone: FakeAndroid, model: Artifact, runner: str
) -> None:
    target, channel = opened(phone, model, runner, cores="big")
    assert target.name == f"adb:{phone.serial}"
    assert channel.opened.host == "Fake Phone 8"
    assert channel.opened.processor == "Acme AC8000"
    assert channel.opened.system == "Android 14 (FAKE.240101.001)"
    assert channel.opened.load_s > 0
    assert "held to cores 7 (mask 80)" in channel.opened.notes
    assert channel.opened.cores == 8 and target.affinity() == (7,)
    seconds, _ = channel.warm(0.01, 3, 0.01, 0.5)
    assert seconds > 0
    assert channel.warm(0.0, 2, 1e9, 0.5) == (0.0, True)  # each run warms its own process as long as was asked first
    samples = channel.block(0.02, 7)
    assert "--warmup_runs=3 --warmup_min_secs=0.01 --num_runs=7 --min_secs=0.02" in phone.commands[-2]
    assert len(samples.samples_s) == 1 and samples.averaged >= 7 and 0 < samples.samples_s[0] < 1
    assert samples.before == State(clock_hz=2.7e9, temperature_c=42.5, thermal_status="light", load=samples.before.load)
    assert samples.after.load is not None
    # Each run was held to the mask of the fastest cluster, read from the device.
    assert set((phone.root / "masks").read_text().split()) == {"80"}
    (folder,) = phone.storage.iterdir()
    assert sorted(file.suffix for file in folder.iterdir()) == ["", "", ".tflite"]  # pid, the program, the model
    channel.close()
    target.close()
    assert not list(phone.storage.iterdir())


@needs_adb
def test_the_same_files_are_pushed_once(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    target, first = opened(phone, model, runner)
    before = phone._pushed
    assert before == model.num_bytes + Path(runner).stat().st_size
    target.open(job(model), 60.0)
    assert phone._pushed == before
    assert first.opened.runtime_version.startswith("android_aarch64_benchmark_model sha256:")
    target.close()


@needs_adb
def test_operations_are_read_from_a_run_apart(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    target, channel = opened(phone, model, runner)
    found = channel.op_times(5)
    assert found is not None
    how, ops = found
    assert how == "measured"
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {op.kind for op in ops}
    assert all(op.names and op.seconds > 0 for op in ops)
    profiled = [command for command in phone.commands if "enable_op_profiling" in command]
    assert len(profiled) == 1  # the run of op_times alone: timed runs are without
    target.close()


@needs_adb
def test_a_device_without_shell_v2_tells_exit_codes_too(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    phone.behaviour.shell_v2 = False
    subprocess.run(["adb", "disconnect", phone.serial], capture_output=True, check=True)
    connect(phone)
    adb = Adb(phone.serial)
    assert adb.shell("(exit 7)").code == 7
    target, channel = opened(phone, model, runner)
    assert channel.block(0.0, 2).averaged == 2
    target.close()


@needs_adb
def test_a_slow_device_is_waited_for(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    target, channel = opened(phone, model, runner)
    phone.behaviour.delay_s = 0.05
    assert channel.block(0.0, 2).averaged == 2
    phone.behaviour.delay_s = 0.0
    target.close()


@needs_adb
def test_the_format_of_old_builds_is_read(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    phone.behaviour.env["VITSCOPE_STANDIN"] = "old"
    target, channel = opened(phone, model, runner)
    assert channel.block(0.0, 3).averaged == 3
    target.close()


@needs_adb
@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("crash", "crashed (SIGSEGV)"),
        ("garbage", "printed what cannot be read: no line 'Inference timings in us"),
        ("fail", "ended with code 1: ERROR: Didn't find op for builtin opcode"),
    ],
)
def test_a_program_that_misbehaves_is_one_line(
    phone: FakeAndroid, model: Artifact, runner: str, mode: str, says: str
) -> None:
    phone.behaviour.env["VITSCOPE_STANDIN"] = mode
    with pytest.raises(MeasureError) as error:
        opened(phone, model, runner)
    assert says in one_line(error.value)
    assert error.value.exit_code == 1


@needs_adb
def test_a_program_that_hangs_is_ended_on_the_device(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    target, channel = opened(phone, model, runner, timeout_s=6.0)
    phone.behaviour.env["VITSCOPE_STANDIN"] = "hang"
    with pytest.raises(MeasureError) as error:
        channel.block(0.0, 2)
    assert "did not end in 6 s, and was stopped there" in one_line(error.value)
    (pid,) = [int(file.read_text()) for file in phone.storage.glob("*/pid")]
    assert gone(pid)
    phone.behaviour.env.clear()
    assert channel.block(0.0, 2).averaged == 2  # the device itself is well
    target.close()


@needs_adb
def test_a_device_unplugged_while_it_runs_is_one_line_and_stays_gone(
    phone: FakeAndroid, model: Artifact, runner: str
) -> None:
    target, channel = opened(phone, model, runner)
    kept = channel.block(0.0, 2)
    phone.behaviour.unplug_at, phone.behaviour.unplug_after_s = "--graph", 0.3
    with pytest.raises(GoneError) as error:
        channel.block(3.0, 2)
    assert "was lost" in one_line(error.value) and "unplugged" in str(error.value)
    assert kept.samples_s
    with pytest.raises(VitscopeError) as again:
        target.open(job(model), 20.0)
    assert phone.serial in one_line(again.value)
    channel.close()
    target.close()  # never raises


@needs_adb
def test_what_a_session_measured_before_the_cable_was_pulled_is_kept(
    phone: FakeAndroid, model: Artifact, runner: str
) -> None:
    target = AdbTarget(phone.serial, runners=runners_of([runner]))
    short = Protocol(processes=3, block_s=0.0, block_runs=2, warm_s=0.0, warm_runs=1, warm_limit_s=0.0, timeout_s=20.0)
    kept: list[tuple[Round, ...]] = []

    def pull(_: Job, rounds: tuple[Round, ...]) -> None:
        kept.append(rounds)
        phone.unplug()

    (failed,) = measure([job(model)], target, short, on_round=pull)
    assert isinstance(failed, Failed) and phone.serial in one_line(failed.error)
    ((done,),) = kept
    assert done.blocks[0].averaged == 2
    target.close()


@needs_adb
def test_an_interrupted_program_is_ended_on_the_device(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    target, channel = opened(phone, model, runner)
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        channel.block(30.0, 2)
    (pid,) = [int(file.read_text()) for file in phone.storage.glob("*/pid")]
    assert gone(pid)
    target.close()
    assert not list(phone.storage.iterdir())


@needs_adb
def test_onnx_runtime_s_program_tells_every_run_and_its_operations(phone: FakeAndroid, tmp_path: Path) -> None:
    """Against a stand-in that really runs ONNX Runtime and lets it write its own trace."""
    import onnx
    from onnx import TensorProto, helper

    path, shape = tmp_path / "tiny.onnx", (1, 3, 16, 16)
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["image"], ["out"], name="head/softmax")], "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    artifact = Artifact(
        path=path, format="onnx", model="tiny", digest="d", form="deploy", precision="fp32", input_shape=shape,
        blocks=("head",), weights="none", tools="onnx",
    )  # fmt: skip
    program = tmp_path / "onnxruntime_perf_test"
    program.write_text(f"#!{sys.executable}\n{STANDIN.with_name('standin_perftest.py').read_text()}")
    target = AdbTarget(phone.serial, runners=runners_of([str(program)]), cores="mid")
    channel = target.open(Job(artifact=artifact, runtime="onnxruntime", threads=2), 60.0)
    assert channel.opened.load_s > 0
    channel.warm(0.0, 4, 0.5, 0.5)
    samples = channel.block(0.0, 9)
    counted = next(command for command in reversed(phone.commands) if "results.csv" in command and "-r" in command)
    asked = int(counted.split(" -r ")[1].split()[0])
    assert samples.averaged == 1 and len(samples.samples_s) == asked - 4  # the first four warm the process
    assert len(samples.samples_s) >= 9 and "-x 2" in counted and "taskset 70" in counted
    found = channel.op_times(6)
    assert found is not None and [op.name for op in found[1]] == ["head/softmax"]
    target.close()


@needs_adb
def test_a_device_unplugged_while_a_model_is_copied(
    phone: FakeAndroid, model: Artifact, runner: str, tmp_path: Path
) -> None:
    big = tmp_path / "big.tflite"
    big.write_bytes(os.urandom(3_000_000))
    phone.behaviour.unplug_after_pushed = 1_000_000
    with pytest.raises(MeasureError) as error:
        AdbTarget(phone.serial, runners=runners_of([runner])).open(job(replace(model, path=big)), 30.0)
    assert phone.serial in one_line(error.value)


@needs_adb
def test_a_full_device_is_one_line_with_what_is_free(phone: FakeAndroid, model: Artifact, runner: str) -> None:
    phone.behaviour.free_bytes = 1000
    target = AdbTarget(phone.serial, runners=runners_of([runner]))
    with pytest.raises(MeasureError) as error:
        target.open(job(model), 30.0)
    assert "has no room for tiny.tflite" in one_line(error.value) and "df:" in str(error.value)
    target.close()


@needs_adb
def test_a_program_of_another_processor_is_refused_before_it_is_pushed(
    phone: FakeAndroid, model: Artifact, tmp_path: Path
) -> None:
    program = tmp_path / "benchmark_model"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(40))
    with pytest.raises(UnavailableError) as error:
        AdbTarget(phone.serial, runners=runners_of([str(program)])).open(job(model), 30.0)
    assert "built for x86_64" in one_line(error.value) and "arm64-v8a" in str(error.value)
    assert phone._pushed == 0


@needs_adb
def test_a_program_that_does_not_start_there_is_one_line(phone: FakeAndroid, model: Artifact, tmp_path: Path) -> None:
    program = tmp_path / "benchmark_model"
    program.write_bytes(b"\x7fELF no program at all")
    with pytest.raises(MeasureError) as error:
        AdbTarget(phone.serial, runners=runners_of([str(program)])).open(job(model), 30.0)
    assert "does not start there" in one_line(error.value)


@needs_adb
def test_which_device_is_meant(phone: FakeAndroid, tmp_path: Path) -> None:
    assert choose("").serial == phone.serial
    assert choose(phone.serial).ready
    with pytest.raises(UnavailableError) as error:
        choose(phone.serial[:-1] + "x")
    assert "did you mean" in one_line(error.value)
    with FakeAndroid(tmp_path / "second") as second:
        second.behaviour.authorized = False
        connect(second)
        states = {device.serial: device.state for device in devices()}
        assert states[phone.serial] == "device" and states[second.serial] == "unauthorized"
        with pytest.raises(UnavailableError) as error:
            choose("")
        assert "more than one" in one_line(error.value) and second.serial in str(error.value)
        with pytest.raises(UnavailableError) as error:
            choose(second.serial)
        assert "Allow USB debugging" in one_line(error.value)
    phone.unplug()
    until = time.monotonic() + 10
    while choose_state(phone.serial) == "device" and time.monotonic() < until:
        time.sleep(0.1)
    with pytest.raises(UnavailableError) as error:
        choose(phone.serial)
    assert phone.serial in one_line(error.value)
    subprocess.run(["adb", "disconnect"], capture_output=True, check=True)
    with pytest.raises(UnavailableError) as error:
        choose("")
    assert "no Android device is attached" in one_line(error.value)


def choose_state(serial: str) -> str | None:
    return next((device.state for device in devices() if device.serial == serial), None)


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process has ended; one that nobody waited for yet counts as ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_without_adb_the_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError) as error:
        choose("")
    assert "platform-tools" in one_line(error.value) and error.value.exit_code == 3


def test_devices_are_read_in_every_state() -> None:
    text = (
        "* daemon started successfully\nList of devices attached\n"
        "R58M123 device usb:1-4 product:beyond model:SM_G973F device:beyond1 transport_id:1\n"
        "emulator-5554 offline transport_id:3\n"
        "0123 no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-2\n\n"
    )
    found = parse_devices(text)
    assert found[0] == Device("R58M123", "device", found[0].about) and found[0].about["model"] == "SM_G973F"
    assert [device.state for device in found] == ["device", "offline", "no permissions"]
    assert found[0].trouble is None
    assert "udev" in (found[2].trouble or "")


@pytest.mark.parametrize(
    ("choice", "mask"), [("all", "ff"), ("big", "80"), ("mid", "70"), ("little", "f"), ("30", "30"), ("0x80", "80")]
)
def test_masks_come_from_the_topology(choice: str, mask: str) -> None:
    assert android.mask_of(android.choose_cores(choice, CLUSTERS)) == mask


@pytest.mark.parametrize(
    ("choice", "known", "says"),
    [
        ("mid", CLUSTERS[1:], "no such cluster"),
        ("big", (android.Cluster((0, 1), None),), "no such cluster"),
        ("100", CLUSTERS, "no core 8"),
        ("fast", CLUSTERS, "none of big, mid, little, all"),
        ("0", CLUSTERS, "none of"),
    ],
)
def test_cores_that_are_not_there_are_refused(choice: str, known: tuple[android.Cluster, ...], says: str) -> None:
    with pytest.raises(UsageError) as error:
        android.choose_cores(choice, known)
    assert says in one_line(error.value)


def test_a_device_that_tells_nothing_gives_unknowns() -> None:
    assert android.state(lambda _: "", (0,)) == State()
    assert android.clusters(lambda _: "") == ()
    assert android.clusters(lambda command: "0-2,5\n" if "online" in command else "") == (
        android.Cluster((0, 1, 2, 5), None),
    )
    assert android.identity(lambda _: "").host == "unknown"


def test_runners_are_told_by_name_or_by_file(tmp_path: Path) -> None:
    names = ("android_aarch64_benchmark_model", "executor_runner", "onnxruntime_perf_test", "tool")
    files = [tmp_path / name for name in names]
    for file in files:
        file.write_bytes(b"")
    found = runners_of([str(file) for file in files[:3]])
    assert found == dict(zip(("litert", "executorch", "onnxruntime"), files, strict=False))
    assert runners_of([f"litert={files[3]}"]) == {"litert": files[3]}
    for texts, says in (([str(files[3])], "say which runtime"), ([str(tmp_path / "x_benchmark_model")], "no such file"),
                        ([str(files[0]), f"litert={files[3]}"], "has a runner already")):  # fmt: skip
        with pytest.raises(UsageError) as error:
            runners_of(texts)
        assert says in one_line(error.value)


@needs_adb
def test_runtimes_without_a_runner_say_what_is_missing(phone: FakeAndroid, runner: str) -> None:
    target = AdbTarget(runners=runners_of([runner]))
    found = target.runtimes()
    assert target.name == f"adb:{phone.serial}"  # the only device, so that its rows are told from another's
    assert found["litert"].startswith("android_aarch64_benchmark_model sha256:")
    assert isinstance(found["executorch"], UnavailableError) and "--runner executorch=PATH" in str(found["executorch"])
    target.close()
    phone.unplug()
    subprocess.run(["adb", "disconnect"], capture_output=True, check=True)
    with pytest.raises(UnavailableError) as error:
        AdbTarget(runners=runners_of([runner])).runtimes()
    assert "no Android device is attached" in one_line(error.value)


def test_commands_of_the_other_programs_and_their_warm_up(model: Artifact) -> None:
    amount = adb_target.Amount(warm_runs=20, warm_s=0.5, runs=50, seconds=1.0, mean_s=0.01)
    assert (amount.discard, amount.counted) == (50, 100)
    words = adb_target.PROGRAMS["executorch"].ask("m.pte", job(model, threads=2), amount)
    assert words == ["--model_path=m.pte", "--num_executions=150", "--cpu_threads=2"]
    words = adb_target.PROGRAMS["onnxruntime"].ask("m.onnx", job(model, threads=2), amount)
    assert words[words.index("-r") + 1] == "150" and words[words.index("-x") + 1] == "2"
    assert words[-2:] == ["m.onnx", "results.csv"]
