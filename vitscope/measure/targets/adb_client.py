"""One Android device through the real `adb` program: shell commands with their exit code, files in, each failure in one line."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vitscope.errors import UnavailableError, UsageError, nearest
from vitscope.measure.channel import MeasureError

_CURE = "install Android's platform-tools (apt install adb, brew install android-platform-tools) and put adb in PATH"
_MARK = "vitscope-exit:"  # older devices' adb shell forgets the exit code, so the command prints it itself
_GONE = re.compile(
    r"device '.*' not found|device not found|no devices/emulators found|device (?:is )?offline|device still connecting"
    r"|error: closed|protocol fault|connection reset|no such device|EOF|failed to read copy response"
    r"|failed to get feature set|couldn't read from device|broken pipe",
    re.IGNORECASE,
)
_STATES = {
    "offline": "does not answer (offline): plug it in again, or run `adb reconnect`",
    "unauthorized": "has not allowed this computer: unlock it and confirm “Allow USB debugging”",
    "authorizing": "is still being asked whether it allows this computer: unlock it and confirm “Allow USB debugging”",
    "bootloader": "is in its bootloader: boot Android",
    "recovery": "is in recovery: boot Android",
    "sideload": "is in recovery: boot Android",
}
_NO_PERMISSIONS = (
    "may not be opened by this user (no permissions): add a udev rule for its vendor "
    "(apt install android-sdk-platform-tools-common, join group plugdev), then plug it in again"
)


class GoneError(MeasureError):
    """A device that answered before and does not now: unplugged, switched off, or its network is lost (exit code 1)."""


class SilentError(MeasureError):
    """A command of the device that did not end in its time (exit code 1)."""


@dataclass(frozen=True, slots=True)
class Device:
    """A line of `adb devices -l`: its serial, its state (`device` is ready), and what else adb says of it."""

    serial: str
    state: str
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state == "device"

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used, with the cure; None when it can."""
        if self.ready:
            return None
        if self.state.startswith("no permissions"):
            return _NO_PERMISSIONS
        return _STATES.get(self.state, f"is in state {self.state!r}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command of the device printed (both streams, in the order they came) and its exit code; None if lost."""

    text: str
    code: int | None


def parse_devices(text: str) -> tuple[Device, ...]:
    """The devices that `adb devices -l` printed."""
    found: list[Device] = []
    for line in text.splitlines():
        serial, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not rest or line.startswith(("List of devices", "*", "adb server")):
            continue
        if rest.startswith("no permissions"):
            found.append(Device(serial, "no permissions"))
            continue
        words = rest.split()
        about = dict(word.split(":", 1) for word in words[1:] if ":" in word)
        found.append(Device(serial, words[0], about))
    return tuple(found)


def devices(adb: str = "adb", timeout_s: float = 20.0) -> tuple[Device, ...]:
    """What is attached. Raises UnavailableError without adb, or when its server does not start."""
    return parse_devices(_run([_program(adb), "devices", "-l"], timeout_s).text)


def choose(serial: str, adb: str = "adb") -> Device:
    """The device that `serial` names (empty: the only one attached), ready to be used. Raises UnavailableError."""
    attached = devices(adb)
    names = ", ".join(device.serial for device in attached)
    if not attached:
        what = f"no Android device {serial} is attached" if serial else "no Android device is attached"
        raise UnavailableError(f"{what}: plug one in with USB debugging on, or `adb connect HOST:PORT`")
    if not serial:
        if len(attached) > 1:
            raise UnavailableError(f"more than one Android device is attached: say which, as adb:SERIAL ({names})")
        device = next(iter(attached))
    else:
        named = [device for device in attached if device.serial == serial]
        if not named:
            hint = nearest(serial, [device.serial for device in attached])
            raise UnavailableError(f"no Android device {serial} is attached{hint}; attached: {names}")
        device = named[0]
    if device.trouble:
        raise UnavailableError(f"Android device {device.serial} {device.trouble}")
    return device


@dataclass(frozen=True, slots=True)
class Adb:
    """One device. Every method raises GoneError when it is lost, MeasureError when it does not answer in time."""

    serial: str
    adb: str = "adb"

    def shell(self, command: str, timeout_s: float = 20.0) -> Said:
        """Run one shell command there to its end."""
        said = self._call("shell", f"{command}\necho {_MARK}$?", timeout_s=timeout_s)
        text, mark, code = said.text.rpartition(_MARK)
        if not mark:
            self._raise_if_gone(said.text)
            return Said(said.text.strip("\r\n"), None)
        digits = code.strip()
        return Said(text.replace("\r\n", "\n").strip("\n"), int(digits) if digits.isdigit() else None)

    def read(self, command: str) -> str:
        """What a command prints, or an empty text when it fails: for facts that not every device tells."""
        said = self.shell(command)
        return said.text if said.code == 0 else ""

    def push(self, path: Path, there: str, timeout_s: float = 600.0) -> None:
        """Copy a file there whole, checked by its size. Raises MeasureError when there is no room."""
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file to bring to {self.serial}")
        said = self._call("push", str(path), there, timeout_s=timeout_s)
        size = path.stat().st_size
        if said.code != 0:
            self._raise_if_gone(said.text)
            raise MeasureError(self._push_failed(path, size, said.text))
        arrived = self.read(f"stat -c %s {shlex.quote(there)}").strip()
        if arrived != str(size):
            raise MeasureError(
                f"{self.serial}: {path.name} arrived with {arrived or 'no'} bytes of {size}; is the device full? "
                f"{self._free_text()}"
            )

    def pull(self, there: str, timeout_s: float = 600.0) -> bytes:
        """What a file there holds, byte for byte. Raises MeasureError where there is none or it did not come whole."""
        size = self.read(f"stat -c %s {shlex.quote(there)}").strip()
        if not size.isdigit():
            raise MeasureError(f"{self.serial}: there is no file {there}")
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder, "pulled")
            said = self._call("pull", there, str(here), timeout_s=timeout_s)
            data = here.read_bytes() if here.is_file() else b""
        if said.code != 0 or len(data) != int(size):
            self._raise_if_gone(said.text)
            raise MeasureError(
                f"{self.serial}: of {there} came {len(data)} bytes of {size}: {last_line(said.text) or 'no answer'}"
            )
        return data

    def reachable(self) -> bool:
        """Whether adb still sees the device as ready."""
        try:
            return any(device.serial == self.serial and device.ready for device in devices(self.adb))
        except UnavailableError:
            return False

    def _free_text(self) -> str:
        try:
            lines = self.read("df -h /data/local/tmp").splitlines()
        except MeasureError:
            return ""
        return f"(df: {' '.join(lines[-1].split())})" if len(lines) > 1 else ""

    def _push_failed(self, path: Path, size: int, said: str) -> str:
        reason = last_line(said)
        if "No space left" in said or "ENOSPC" in said:
            return (
                f"{self.serial} has no room for {path.name} ({size / 1e6:.1f} MB): free some of its storage "
                f"{self._free_text()}".rstrip()
            )
        return f"{self.serial}: {path.name} could not be copied there: {reason}"

    def _call(self, *words: str, timeout_s: float) -> Said:
        return _run([_program(self.adb), "-s", self.serial, *words], timeout_s, self.serial)

    def _raise_if_gone(self, text: str) -> None:
        if _GONE.search(text) or not self.reachable():
            raise GoneError(
                f"Android device {self.serial} was lost ({last_line(text) or 'no answer'}): was it unplugged?"
            )


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _program(adb: str) -> str:
    found = shutil.which(adb)
    if found is None:
        raise UnavailableError(f"Android needs the program adb, which is not here: {_CURE}")
    return found


def _run(command: list[str], timeout_s: float, serial: str = "") -> Said:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s,
            env={**os.environ, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        if serial:
            raise SilentError(f"Android device {serial} did not answer in {timeout_s:g} s") from error
        raise UnavailableError(
            f"adb did not answer in {timeout_s:g} s: run `adb kill-server`, then try again"
        ) from error
    text = done.stdout.decode("utf-8", "replace")
    if not serial and done.returncode:
        raise UnavailableError(f"adb does not work here: {last_line(text)}")
    return Said(text, done.returncode)
