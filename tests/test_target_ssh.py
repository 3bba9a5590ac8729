"""A machine behind ssh, against a real sshd on loopback that the tests start, with keys, port and known hosts of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import require_tool

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.export.artifact import Artifact
from vitscope.measure.channel import Job, MeasureError
from vitscope.measure.pipe import RunnerChannel
from vitscope.measure.targets.ssh import SshTarget, _parsed, why_ssh_failed


@dataclass
class Server:
    """A running sshd and what a client needs to reach it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> list[str]:
        return [
            f"IdentityFile={self.folder / 'key'}", f"UserKnownHostsFile={self.folder / 'known'}", "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null",
        ]  # fmt: skip

    @property
    def remote_tmp(self) -> Path:
        return self.folder / "tmp"

    def target(self, *, python: str = sys.executable) -> SshTarget:
        place = f"{getpass.getuser()}@127.0.0.1:{self.port}"
        return SshTarget(place, python=python, ssh_option=self.options)

    def cut(self) -> None:
        """End sshd and every connection it serves, and only those: each is a child of ours or of its."""
        if self.process.poll() is None:
            for pid in descendants(self.process.pid):
                if "sshd" in command_of(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Deepest first, so that none is adopted before it is found."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (*descendants(child), child)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    sshd = require_tool("sshd")
    require_tool("ssh")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "key", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, capture_output=True
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "authorized").write_text((folder / "key.pub").read_text())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "tmp").mkdir()
    (folder / "bin").mkdir()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile {folder / 'pid'}\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
        f"SetEnv TMPDIR={folder / 'tmp'} OMP_NUM_THREADS=1\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its privileges; made by its own service
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(folder / "config")], stderr=(folder / "log").open("wb"), start_new_session=True
    )
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < until and process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
    started = Server(folder, port, process)
    yield started
    started.cut()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A real .onnx of one convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    weight = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["out"], name="conv", pads=[1, 1, 1, 1])], "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 8, 32, 32))], [weight],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Artifact(
        path=path, format="onnx", model="tiny", digest="d", form="deploy", precision="fp32",
        input_shape=(1, 3, 32, 32), blocks=("conv",), weights="ones", tools="onnx",
    )  # fmt: skip


def job(model: Artifact, runtime: str = "onnxruntime") -> Job:
    return Job(artifact=model, runtime=runtime)


def one_line(error: BaseException) -> str:
    assert isinstance(error, VitscopeError)
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text
    return text


def remote_runner(target: SshTarget) -> int:
    """The process number of the runner there."""
    (pid,) = Path(target._folder).glob("pid.*")
    return int(pid.read_text())


def ended(pid: int, within_s: float = 15.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_model_is_measured_over_ssh_and_nothing_stays_there(server: Server, model: Artifact) -> None:
    import onnxruntime

    target = server.target()
    channel = target.open(job(model), 60.0)
    assert channel.opened.runtime_version == onnxruntime.__version__
    assert channel.opened.host and channel.opened.system
    _, _ = channel.warm(0.01, 5, 0.05, 0.5)
    samples = channel.block(0.02, 9)
    assert len(samples.samples_s) >= 9 and all(0 < value < 1 for value in samples.samples_s)
    pid = remote_runner(target)
    channel.close()
    assert ended(pid)
    # A second process finds the model and the runner there already.
    copied = sorted(file.name for file in Path(target._folder).iterdir())
    again = target.open(job(model), 60.0)
    assert len(again.block(0.0, 3).samples_s) >= 3
    assert {name for name in copied if not name.startswith("pid")} == {
        file.name for file in Path(target._folder).iterdir() if not file.name.startswith("pid")
    }
    assert len([name for name in copied if name.endswith((".onnx", ".pyz"))]) == 2
    again.close()
    target.close()
    assert not list(server.remote_tmp.glob("vitscope-*"))


def test_one_process_there_takes_one_file_after_another(server: Server, model: Artifact, tmp_path: Path) -> None:
    """As a calibration does with hundreds: what is spent leaves no file there."""
    other = tmp_path / "other.onnx"
    other.write_bytes(model.path.read_bytes() + b"\xa2\x1f\x01x")  # the same, and a field 500 that nobody reads
    target = server.target()
    channel = target.open(replace(job(model), apart=True), 60.0)
    assert isinstance(channel, RunnerChannel)
    for path in (other, model.path, other):
        channel.exchange(replace(job(model), artifact=replace(model, path=path), apart=True))
        assert len(channel.block(0.0, 3).samples_s) >= 3
        assert len(list(Path(target._folder).glob("*.onnx"))) == 1
    channel.close()
    target.close()


def test_the_runtimes_there_are_told_with_their_cure(server: Server) -> None:
    import onnxruntime

    target = server.target()
    found = target.runtimes()
    assert found["onnxruntime"] == onnxruntime.__version__
    missing = found["tensorrt"]
    assert isinstance(missing, UnavailableError)
    assert f"there: {sys.executable} -m pip install tensorrt" in one_line(missing)
    assert missing.exit_code == 3
    target.close()


def test_a_runtime_that_is_not_there_is_refused_with_its_cure(server: Server, model: Artifact) -> None:
    bare = server.folder / "bin/python-without"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: no installed packages
    bare.chmod(0o755)
    target = server.target(python=str(bare))
    with pytest.raises(UnavailableError) as error:
        target.open(job(model), 60.0)
    assert f"there: {bare} -m pip install onnxruntime" in one_line(error.value)
    target.close()


def test_a_connection_cut_in_the_middle_is_one_line_and_what_is_done_is_kept(server: Server, model: Artifact) -> None:
    target = server.target()
    channel = target.open(job(model), 30.0)
    kept = channel.block(0.0, 3)
    pid = remote_runner(target)
    server.cut()
    with pytest.raises(MeasureError) as error:
        channel.block(5.0, 3)
    assert "the connection was lost during block" in one_line(error.value)
    assert len(kept.samples_s) >= 3
    with pytest.raises(VitscopeError) as again:
        target.open(job(model), 30.0)
    assert "connection was lost" in one_line(again.value)
    channel.close()
    target.close()  # never raises
    assert ended(pid)  # the runner there ends by itself once nobody listens


def test_a_runner_that_crashes_is_told_from_a_lost_connection(server: Server, model: Artifact) -> None:
    target = server.target()
    channel = target.open(job(model), 30.0)
    os.kill(remote_runner(target), signal.SIGSEGV)
    with pytest.raises(MeasureError) as error:
        channel.block(0.0, 3)
    assert "the runner there crashed (SIGSEGV) during block" in one_line(error.value)
    target.close()


def test_a_runner_that_hangs_is_ended_there_too(server: Server, model: Artifact) -> None:
    target = server.target()
    channel = target.open(job(model), 4.0)
    pid = remote_runner(target)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(MeasureError) as error:
        channel.block(0.0, 3)
    assert "no answer to block within 4 s" in one_line(error.value)
    assert ended(pid)
    channel.close()
    target.close()


def test_a_full_disk_there_is_one_line(server: Server, model: Artifact) -> None:
    full = server.folder / "bin/cat"
    full.write_text('#!/bin/sh\nexec /bin/cat "$@" > /dev/full\n')  # the kernel's own ENOSPC
    full.chmod(0o755)
    target = server.target()
    target._set_up()
    path = f"{server.folder / 'bin'}:$PATH"
    run = target._command
    target._command = lambda script: run(f"PATH={path}; export PATH; {script}")  # type: ignore[method-assign]
    with pytest.raises(MeasureError) as error:
        target.open(job(model), 30.0)
    assert "has no room for tiny.onnx" in one_line(error.value) and "df:" in str(error.value)
    target.close()


def test_who_is_not_let_in_learns_how(server: Server) -> None:
    (server.folder / "authorized").write_text("")
    with pytest.raises(UnavailableError) as error:
        server.target().runtimes()
    assert "refused the log-in (it takes: publickey)" in one_line(error.value)
    assert "ssh-copy-id" in str(error.value) and error.value.exit_code == 3


def test_a_host_key_that_is_not_known_or_not_the_known_one(server: Server) -> None:
    (server.folder / "known").write_text("")
    with pytest.raises(UnavailableError) as error:
        server.target().runtimes()
    assert "host key is not known" in one_line(error.value)
    (server.folder / "known").write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'stranger.pub').read_text()}")
    with pytest.raises(UnavailableError) as error:
        server.target().runtimes()
    assert "another than the known one" in one_line(error.value)


def test_no_server_and_no_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnavailableError) as error:
        SshTarget(f"127.0.0.1:{port}").runtimes()
    assert "no ssh server does on this port" in one_line(error.value)
    with pytest.raises(UnavailableError) as error:
        SshTarget("pi@no-such-host.invalid").runtimes()
    assert "no such host" in one_line(error.value)


def test_a_python_in_the_home_there(server: Server, model: Artifact) -> None:
    target = server.target(python=f"~/{os.path.relpath(sys.executable, Path.home())} -B")
    channel = target.open(job(model), 60.0)
    assert channel.opened.runtime_version
    channel.close()
    target.close()


def test_no_python_there_and_one_too_old(server: Server) -> None:
    with pytest.raises(UnavailableError) as error:
        server.target(python="python-that-is-not").runtimes()
    assert "python-that-is-not does not run there" in one_line(error.value) and "--python" in str(error.value)
    old = server.folder / "bin/python-old"
    old.write_text("#!/bin/sh\necho 3.6\n")
    old.chmod(0o755)
    with pytest.raises(UnavailableError) as error:
        server.target(python=str(old)).runtimes()
    assert "Python 3.6" in one_line(error.value)
    assert not list(server.remote_tmp.iterdir())


def test_a_file_that_is_gone_or_a_folder(server: Server, model: Artifact, tmp_path: Path) -> None:
    target = server.target()
    with pytest.raises(MeasureError) as error:
        target.open(job(replace(model, path=tmp_path / "gone.onnx")), 30.0)
    assert "cannot be read" in one_line(error.value)
    with pytest.raises(UsageError):
        target.open(job(replace(model, path=tmp_path)), 30.0)
    target.close()


@pytest.mark.parametrize(
    ("place", "means"),
    [
        ("pi@pi5", ("pi@pi5", "")), ("pi5", ("pi5", "")), ("pi@10.0.0.7:2222", ("pi@10.0.0.7", "2222")),
        ("u@[::1]:22", ("u@::1", "22")), ("u@fe80::1", ("u@fe80::1", "")),
    ],
)  # fmt: skip
def test_places(place: str, means: tuple[str, str]) -> None:
    assert _parsed(place) == means


@pytest.mark.parametrize("place", ["", "-oProxyCommand=x", "a@-b", "pi@host:0", "pi@host:99999", "pi@", "a b", "h:x"])
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(UsageError) as error:
        SshTarget(place)
    assert "expected ssh:USER@HOST" in one_line(error.value)


def test_options_that_are_none() -> None:
    for options in ({"ssh_option": ["-v"]}, {"python": ""}, {"python": "'~/bench"}):
        with pytest.raises(UsageError) as error:
            SshTarget("pi@pi5", **options)  # type: ignore[arg-type]
        assert one_line(error.value).startswith(("--ssh-option -v", "--python "))


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("ssh: connect to host 10.0.0.7 port 22: No route to host\r\n", "does not answer"),
        ("ssh: connect to host x port 22: Connection timed out", "does not answer"),
        ("a@b: Permission denied (publickey,password).", "it takes: publickey,password"),
        ("command-line: line 0: Bad configuration option: foo", "refused an option"),
        ("", "without a word"),
    ],
)
def test_what_ssh_says_in_one_line(said: str, means: str) -> None:
    assert means in why_ssh_failed(said) and "\n" not in why_ssh_failed(said)


def test_the_target_is_what_a_session_takes() -> None:
    from vitscope.measure.targets import parse_target

    assert parse_target("ssh:pi@pi5", python="python3.11", ssh_option=["Port=7"]).name == "ssh:pi@pi5"
