"""A machine behind ssh as a target (a Raspberry Pi, a Jetson): one runner file and the model are copied, and talk by pipe."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.measure.channel import Channel, Job, MeasureError
from vitscope.measure.pack import runner_pyz
from vitscope.measure.pipe import RunnerChannel, RunnerProcess, versions
from vitscope.measure.runtimes import RUNTIMES

_CONNECT_S = 10  # for ssh to reach the machine
_SETUP_S = 60.0  # for one short command there, a slow SD card included
_COPY_S = 600.0  # for one file
_VERSIONS_S = 240.0  # a first import of every runtime on a Raspberry Pi
_OLDEST = (3, 8)
_LOST = 255  # ssh's own exit code; what a command there returns is below it

_FOLDER_FAILED, _PYTHON_FAILED = 71, 72
_SET_UP = """d=$(mktemp -d "${{TMPDIR:-/tmp}}/vitscope-XXXXXX") || exit 71
echo "$d"
{python} -c 'import sys; print("%d.%d" % sys.version_info[:2])' || {{ code=$?; rmdir "$d"; echo "code $code" >&2; exit 72; }}"""
_DIGEST = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"


class SshTarget:
    """`USER@HOST[:PORT]`, or a name of ~/.ssh/config. `python` is the interpreter there that has the runtimes.

    `ssh_option` are further options of ssh as `Name=value` (`IdentityFile=~/.ssh/pi`); they win over ours. Nothing is
    asked: a password or an unknown host key is an error that says what to do.
    """

    def __init__(self, place: str, *, python: str = "python3", ssh_option: Sequence[str] = ()):
        self.name = f"ssh:{place}"
        self._host, port = _parsed(place)
        self._python, self._python_said = _in_shell(python), python
        for option in ssh_option:
            if not re.fullmatch(r"[A-Za-z]+[= ].+", option):
                raise UsageError(f"--ssh-option {option}: expected Name=value, as in `man ssh_config`")
        options = [
            *ssh_option, "BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "ServerAliveInterval=15",
            "ServerAliveCountMax=2", "LogLevel=ERROR", "ClearAllForwardings=yes",
        ]  # fmt: skip
        self._options = [word for option in options for word in ("-o", option)] + (["-p", port] if port else [])
        self._folder = ""
        self._there: dict[str, str] = {}  # SHA-256 of what was copied → its path there
        self._brought: dict[Path, str] = {}  # path here → its path there
        self._started = 0

    def runtimes(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Runtime → its version there, or the UnavailableError that says how to get it there."""
        process = self._start()
        try:
            found: dict[str, Any] = dict(versions(process, _VERSIONS_S, names))
        finally:
            process.close()
        return {
            name: self._with_cure(error, name) if isinstance(error, UnavailableError) else error
            for name, error in found.items()
        }

    def open(self, job: Job, timeout_s: float) -> Channel:
        """Copy the file there, once for the life of the target, and load it in a fresh process."""
        self._bring(job)  # before the process: a copy that fails starts none
        try:
            return RunnerChannel(self._start(), job, self._bring, timeout_s, self._take_away)
        except UnavailableError as error:
            raise self._with_cure(error, job.runtime) from error

    def close(self) -> None:
        """Remove the folder there; where the machine is gone, its /tmp is emptied by its next boot."""
        if self._folder:
            with contextlib.suppress(VitscopeError, OSError):
                self._run(f"rm -rf {shlex.quote(self._folder)}")
        self._folder, self._there, self._brought = "", {}, {}

    def _start(self) -> RunnerProcess:
        self._set_up()
        runner = self._copy("runner.pyz", io.BytesIO(runner_pyz()), len(runner_pyz()))
        self._started += 1
        pid = f"pid.{self._started}"
        # A shell stays in between, so that a signal that ends the runner is told from a connection that ended.
        inner = f"echo $$ > {pid}; exec {self._python} -u {shlex.quote(runner)}"
        script = (
            f"cd {shlex.quote(self._folder)} || exit 1; sh -c {shlex.quote(inner)}; code=$?; rm -f {pid}; exit $code"
        )
        return _SshProcess(self._command(script), self, f"{self._folder}/{pid}")

    def _set_up(self) -> None:
        if self._folder:
            return
        done = self._run(_SET_UP.format(python=self._python))
        said, lines = _last_line(done.stderr), done.stdout.decode(errors="replace").split()
        if done.returncode == _PYTHON_FAILED:
            raise UnavailableError(
                f"{self.name}: {self._python_said} does not run there: install it (sudo apt install python3), "
                "or name one with --python"
            )
        if done.returncode == _FOLDER_FAILED or (done.returncode == 0 and len(lines) != 2):
            raise MeasureError(
                f"{self.name}: no folder could be made there: {said or 'its shell prints of its own accord'}"
            )
        if done.returncode:
            raise MeasureError(f"{self.name}: the set-up there ended with code {done.returncode}: {said or 'no word'}")
        folder, version = lines
        self._folder = folder
        if tuple(int(part) for part in re.findall(r"\d+", version)) < _OLDEST:
            self.close()
            raise UnavailableError(
                f"{self.name}: {self._python_said} there is Python {version}, and the runner needs "
                f"{'.'.join(map(str, _OLDEST))} or newer: name a newer one with --python"
            )

    def _bring(self, job: Job) -> str:
        path = job.artifact.path
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; ssh targets take models that are one file")
        self._set_up()
        try:
            with path.open("rb") as file:
                self._brought[path] = self._copy(path.name, file, path.stat().st_size)
                return self._brought[path]
        except OSError as error:
            raise MeasureError(f"{path}: cannot be read: {error.strerror or error}") from error

    def _take_away(self, job: Job) -> None:
        """Remove the file of `job` there. It may be gone here, so that its name there is found by its place."""
        there = self._brought.pop(job.artifact.path, "")
        for digest in [digest for digest, path in self._there.items() if path == there]:
            del self._there[digest]
            self._run(f"rm -f {shlex.quote(there)}")

    def _copy(self, name: str, file: IO[bytes], size: int) -> str:
        """Bring a file there, checked by its digest. Its name there is its digest and suffix."""
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        wanted = digest.hexdigest()
        if wanted in self._there:
            return self._there[wanted]
        file.seek(0)
        there = f"{self._folder}/{wanted[:16]}{Path(name).suffix}"
        place = shlex.quote(there)
        done = self._run(f"cat > {place} && {self._python} -c {shlex.quote(_DIGEST)} {place}", _COPY_S, file)
        said = done.stderr.decode(errors="replace")
        if done.returncode or done.stdout.decode(errors="replace").strip() != wanted:
            if "No space left" in said or "quota" in said.lower():
                free = self._run(f"df -h {shlex.quote(self._folder)}").stdout.decode(errors="replace").splitlines()
                raise MeasureError(
                    f"{self.name} has no room for {name} ({size / 1e6:.1f} MB): free some of its disk"
                    + (f" (df: {' '.join(free[-1].split())})" if len(free) > 1 else "")
                )
            raise MeasureError(
                f"{self.name}: {name} did not arrive whole: {_last_line(done.stderr) or 'its digest differs'}"
            )
        self._there[wanted] = there
        return there

    def _run(
        self, script: str, timeout_s: float = _SETUP_S, stdin: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a script of sh there to its end. Raises UnavailableError when the machine cannot be reached."""
        command = self._command(script)
        try:
            done = subprocess.run(
                command, input=stdin.read() if stdin else b"", capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"{self.name} did not answer in {timeout_s:g} s") from error
        if done.returncode == _LOST:
            said = done.stderr.decode(errors="replace")
            if self._folder:  # it answered before
                raise MeasureError(
                    f"{self.name}: the connection was lost ({_last_line(done.stderr) or 'no reason given'})"
                )
            raise UnavailableError(f"{self.name}: {why_ssh_failed(said)}")
        return done

    def _command(self, script: str) -> list[str]:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UnavailableError("ssh targets need the program ssh, which is not here (apt install openssh-client)")
        return [ssh, "-T", *self._options, "--", self._host, f"sh -c {shlex.quote(script)}"]

    def _with_cure(self, error: UnavailableError, runtime: str) -> UnavailableError:
        """The same with the cure for there, where vitscope is not installed and need not be."""
        known = RUNTIMES[runtime]
        text = str(error).removesuffix(f" ({known.cure})")
        return UnavailableError(f"{text} (there: {self._python_said} -m pip install {known.package.replace('_', '-')})")

    def end(self, pid_file: str) -> None:
        """End a runner there that the end of its connection did not."""
        with contextlib.suppress(VitscopeError, OSError):
            self._run(f"kill -9 $(cat {shlex.quote(pid_file)})", 2 * _CONNECT_S)


class _SshProcess(RunnerProcess):
    """A runner behind ssh: what ends here must end there too."""

    def __init__(self, command: Sequence[str], target: SshTarget, pid_file: str):
        self._target, self._pid_file = target, pid_file
        super().__init__(command, where=target.name)

    def kill(self) -> None:
        running = self._process.poll() is None
        super().kill()
        if running:
            self._target.end(self._pid_file)

    def _why_it_ended(self, do: str) -> str:
        text = super()._why_it_ended(do)
        code, said = self._process.returncode, _last_line(self.stderr_tail().encode())
        if code == _LOST:
            return f"the connection was lost during {do} ({said or 'no reason given'})"
        if code is not None and 128 < code < _LOST:
            try:
                name = signal.Signals(code - 128).name
            except ValueError:
                name = f"signal {code - 128}"
            return f"the runner there crashed ({name}) during {do}" + (f": {said[:200]}" if said else "")
        return text


def why_ssh_failed(said: str) -> str:
    """What ssh wrote, as one line with the cure."""
    last = _last_line(said.encode())
    if re.search(r"could not resolve|name or service not known|nodename nor servname", said, re.IGNORECASE):
        return f"no such host: check its name, or give its address ({last})"
    if "Connection refused" in said:
        return (
            "the machine answers, but no ssh server does on this port: sudo systemctl start ssh there, or name the port"
        )
    if re.search(r"timed out|no route to host|network is unreachable|host is down", said, re.IGNORECASE):
        return f"the machine does not answer: is it on, and in this network? ({last})"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return "its host key is another than the known one: if that is expected, remove the old one with ssh-keygen -R HOST"
    if "Host key verification failed" in said or "host key is known" in said:
        return "its host key is not known here: connect once by hand (ssh USER@HOST) and confirm it"
    denied = re.search(r"Permission denied(?: \(([^)]*)\))?", said)
    if denied:
        ways = f" (it takes: {denied.group(1)})" if denied.group(1) else ""
        return f"it refused the log-in{ways}: put your key there with ssh-copy-id, or name one: --ssh-option IdentityFile=PATH"
    if "Bad configuration option" in said or "extra arguments at end of line" in said:
        return f"ssh refused an option: {last}"
    return f"ssh failed: {last or 'without a word'}"


def _parsed(place: str) -> tuple[str, str]:
    """`pi@host:2222` → (`pi@host`, `2222`); an IPv6 address with a port stands in brackets."""
    match = re.fullmatch(
        r"(?:([^@\s]+)@)?(?:\[([0-9A-Fa-f:%.\w]+)\]|([^@:\s\[\]]+|[0-9A-Fa-f:]*::[0-9A-Fa-f:]*))(?::(\d+))?", place
    )
    if match is None or place.startswith("-"):
        raise UsageError(f"--target ssh:{place}: expected ssh:USER@HOST or ssh:USER@HOST:PORT")
    user, host, port = match.group(1), match.group(2) or match.group(3), match.group(4)
    if host.startswith("-") or (user or "").startswith("-") or (port and not 0 < int(port) < 65536):
        raise UsageError(f"--target ssh:{place}: expected ssh:USER@HOST or ssh:USER@HOST:PORT")
    return (f"{user}@{host}" if user else host), port or ""


def _in_shell(python: str) -> str:
    """A command as words of the shell there; `~/` stays that machine's home, which quotes would hide."""
    try:
        words = shlex.split(python)
    except ValueError:
        words = []
    if not words:
        raise UsageError(f"--python {python}: expected a program of the machine, as ~/bench/bin/python")
    first = f'"$HOME"/{shlex.quote(words[0][2:])}' if words[0].startswith("~/") else shlex.quote(words[0])
    return " ".join((first, *map(shlex.quote, words[1:])))


def _last_line(text: bytes) -> str:
    return next((line.strip() for line in reversed(text.decode(errors="replace").splitlines()) if line.strip()), "")
