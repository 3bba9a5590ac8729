"""A FAKE Android device: it speaks adb's wire protocol over TCP to the real adb, and runs what is pushed on this host.

It is no emulator. Its shell is this host's, in a folder that stands for /data/local/tmp; /sys, getprop, dumpsys and
taskset are props with the values of a phone that does not exist. What is proven against it is how vitscope drives adb and
takes failures, not how fast any phone is.

The protocol is as documented in AOSP's packages/modules/adb: protocol.txt, SYNC.TXT, SERVICES.TXT.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (int.from_bytes(word, "little") for word in (
    b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE",
))  # fmt: skip
VERSION = 0x01000001  # the first without checksums
MAX_DATA = 256 * 1024

PROPERTIES = {
    "ro.product.manufacturer": "Fake", "ro.product.model": "Phone 8", "ro.soc.manufacturer": "Acme",
    "ro.soc.model": "AC8000", "ro.board.platform": "acme", "ro.hardware": "acme", "ro.build.version.release": "14",
    "ro.build.id": "FAKE.240101.001", "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
}  # fmt: skip
CLUSTERS = {"policy0": ("0 1 2 3", 1_800_000), "policy4": ("4 5 6", 2_400_000), "policy7": ("7", 2_800_000)}  # kHz
THERMAL = "IsStatusOverride: false\nThermalEventListeners:\nThermal Status: 1\nCached temperatures:\n"


@dataclass
class Behaviour:
    """What goes wrong. Everything may be changed while the device runs."""

    authorized: bool = True
    answers: bool = True  # False: a device that hangs in its handshake
    shell_v2: bool = True  # False: as before Android 7, where a shell tells no exit code
    delay_s: float = 0.0  # before each packet of an answer
    free_bytes: int | None = None  # room for pushed files
    unplug_at: str = ""  # the connection ends `unplug_after_s` after a command with this text began
    unplug_after_s: float = 0.0
    unplug_after_pushed: int | None = None  # or when so many bytes were pushed
    env: dict[str, str] = field(default_factory=dict)  # of every command: how a pushed program misbehaves


class FakeAndroid:
    """One device on 127.0.0.1. Use as a context; `serial` is what adb calls it once it is connected."""

    def __init__(self, root: Path, properties: Mapping[str, str] = PROPERTIES):
        self.root = root
        self.behaviour = Behaviour()
        self.commands: list[str] = []  # every shell command that came, as it came
        self._properties = dict(properties)
        self._sockets: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pushed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._furnish()

    def __enter__(self) -> FakeAndroid:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, 9)

    def unplug(self) -> None:
        """The cable is pulled: every connection ends, and no new one is taken."""
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    @property
    def storage(self) -> Path:
        """What /data/local/tmp is here."""
        return self.root / "data/local/tmp"

    def running(self) -> list[int]:
        """Process numbers of started commands that have not ended."""
        return [process.pid for process in self._processes if process.poll() is None]

    def _furnish(self) -> None:
        self.storage.mkdir(parents=True)
        cpu = self.root / "sys/devices/system/cpu"
        for name, (cores, clock) in CLUSTERS.items():
            policy = cpu / "cpufreq" / name
            policy.mkdir(parents=True)
            (policy / "related_cpus").write_text(cores + "\n")
            (policy / "cpuinfo_max_freq").write_text(f"{clock}\n")
            for core in cores.split():
                (cpu / f"cpu{core}/cpufreq").mkdir(parents=True)
                (cpu / f"cpu{core}/cpufreq/scaling_cur_freq").write_text(f"{clock - 100_000}\n")
        (cpu / "online").write_text("0-7\n")
        for number, (kind, heat) in enumerate((("battery", 31000), ("cpu-1-0", 42500), ("cpu-off", 0))):
            zone = self.root / f"sys/class/thermal/thermal_zone{number}"
            zone.mkdir(parents=True)
            (zone / "type").write_text(kind + "\n")
            (zone / "temp").write_text(f"{heat}\n")
        cases = "".join(f"{name}) echo '{value}';;\n" for name, value in self._properties.items())
        programs = {
            "getprop": f'case "$1" in\n{cases}esac\n',
            "dumpsys": f'[ "$1" = thermalservice ] && cat <<END\n{THERMAL}END\n',
            "taskset": 'echo "$1" >> "$VITSCOPE_FAKE/masks"; shift; exec "$@"\n',
        }
        for name, text in programs.items():
            program = self.root / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text("#!/bin/sh\n" + text)
            program.chmod(0o755)

    def here(self, text: str) -> str:
        """A command or a path of the device as one of this host."""
        return text.replace("/data/local/tmp", str(self.storage)).replace("/sys/", f"{self.root}/sys/")

    def start(self, command: str, *, apart: bool) -> subprocess.Popen[bytes]:
        """Run a shell command in the sandbox; `apart` keeps its two streams apart."""
        self.commands.append(command)
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["/bin/sh", "-c", self.here(command)], cwd=self.root, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            env={**os.environ, "PATH": path, "VITSCOPE_FAKE": str(self.root), **self.behaviour.env},
        )  # fmt: skip
        self._processes.append(process)
        if self.behaviour.unplug_at and self.behaviour.unplug_at in command:
            threading.Timer(self.behaviour.unplug_after_s, self.unplug).start()
        return process

    def take(self, num_bytes: int) -> bool:
        """Whether there is room for so many more pushed bytes; pulls the cable where that was asked for."""
        self._pushed += num_bytes
        limit = self.behaviour.unplug_after_pushed
        if limit is not None and self._pushed > limit:
            self.unplug()
        return self.behaviour.free_bytes is None or self._pushed <= self.behaviour.free_bytes

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            threading.Thread(target=_Link(self, connection).serve, daemon=True).start()


class _Link:
    """One connection of an adb server, with the streams that it opened."""

    def __init__(self, device: FakeAndroid, connection: socket.socket):
        self.device, self._socket = device, connection
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: int, arg0: int, arg1: int, data: bytes = b"") -> None:
        time.sleep(self.device.behaviour.delay_s)
        header = struct.pack("<6I", command, arg0, arg1, len(data), 0, command ^ 0xFFFFFFFF)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(header + data)

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, arg0, arg1, length, _, _ = struct.unpack("<6I", self._exactly(24))
                self._take(command, arg0, arg1, self._exactly(length))
        for stream in self._streams.values():
            stream.ended.set()
            stream.inbox.put(b"")

    def _take(self, command: int, arg0: int, arg1: int, data: bytes) -> None:
        behaviour = self.device.behaviour
        if command == CNXN:
            if not behaviour.answers:
                return
            if not behaviour.authorized:
                self.send(AUTH, 1, 0, bytes(20))
                return
            features = "cmd,shell_v2" if behaviour.shell_v2 else "cmd"
            banner = f"device::ro.product.name=fake;ro.product.model=Phone_8;ro.product.device=fake;features={features}"
            self.send(CNXN, VERSION, MAX_DATA, banner.encode())
        elif command == AUTH:
            if arg0 == 2:  # a signature that this device does not know: it asks for the public key, and then a person
                self.send(AUTH, 1, 0, bytes(20))
        elif command == OPEN:
            number = len(self._streams) + 1
            stream = self._streams[number] = _Stream(self, number, arg0)
            threading.Thread(target=stream.run, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif command == WRTE and arg1 in self._streams:
            self._streams[arg1].inbox.put(data)
            self.send(OKAY, arg1, arg0)
        elif command == OKAY and arg1 in self._streams:
            self._streams[arg1].ready.release()
        elif command == CLSE and arg1 in self._streams:
            self._streams[arg1].ended.set()
            self._streams[arg1].inbox.put(b"")
            self._streams[arg1].ready.release()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


class _Stream:
    """One service that the server opened."""

    def __init__(self, link: _Link, number: int, theirs: int):
        self._link, self._number, self._theirs = link, number, theirs
        self.inbox: queue.Queue[bytes] = queue.Queue()
        self.ready = threading.Semaphore(1)  # one packet may be on its way
        self.ended = threading.Event()
        self._buffer = b""

    def run(self, service: str) -> None:
        name, _, rest = service.partition(":")
        answers: dict[str, Callable[[str], None]] = {"shell": self._shell, "sync": self._sync}
        answer = answers.get(name.split(",")[0])
        if answer is None:
            self._link.send(CLSE, 0, self._theirs)
            return
        self._link.send(OKAY, self._number, self._theirs)
        self._v2 = name.startswith("shell,v2")
        with contextlib.suppress(EOFError, OSError):
            answer(rest)
        self._link.send(CLSE, self._number, self._theirs)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA // 2):
            self.ready.acquire()
            if self.ended.is_set():
                raise EOFError
            self._link.send(WRTE, self._number, self._theirs, data[start : start + MAX_DATA // 2])

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            piece = self.inbox.get()
            if not piece:
                raise EOFError
            self._buffer += piece
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _shell(self, command: str) -> None:
        process = self._link.device.start(command, apart=self._v2)

        def forward(pipe: object, kind: int) -> None:
            with contextlib.suppress(EOFError, OSError, ValueError):
                while piece := os.read(pipe.fileno(), 4096):  # type: ignore[attr-defined]
                    self._write(struct.pack("<BI", kind, len(piece)) + piece if self._v2 else piece)

        pipes = [(process.stdout, 1), (process.stderr, 2)] if self._v2 else [(process.stdout, 1)]
        threads = [threading.Thread(target=forward, args=pipe, daemon=True) for pipe in pipes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = process.wait()
        if self._v2:
            self._write(struct.pack("<BIB", 3, 1, code & 0xFF))

    def _sync(self, _: str) -> None:
        device = self._link.device
        while True:
            kind, length = struct.unpack("<4sI", self._read(8))
            if kind == b"QUIT":
                return
            path = self._read(length).decode()
            if kind == b"STAT":
                there = Path(device.here(path))
                known = there.stat() if there.exists() else None
                numbers = (known.st_mode, known.st_size, int(known.st_mtime)) if known else (0, 0, 0)
                self._write(struct.pack("<4s3I", b"STAT", *numbers))
            elif kind == b"RECV":
                data = Path(device.here(path)).read_bytes()
                for start in range(0, len(data), 1 << 16):
                    piece = data[start : start + (1 << 16)]
                    self._write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
                self._write(struct.pack("<4sI", b"DONE", 0))
            elif kind == b"SEND":
                self._receive(path)

    def _receive(self, target: str) -> None:
        device = self._link.device
        path, _, mode = target.rpartition(",")
        there, fits = Path(device.here(path)), True
        with there.open("wb") as file:
            while True:
                kind, length = struct.unpack("<4sI", self._read(8))
                if kind == b"DONE":  # its length field is the time of the file
                    break
                piece = self._read(length)
                fits = device.take(len(piece)) and fits
                if fits:
                    file.write(piece)
        there.chmod(int(mode) & 0o777)
        if fits:
            self._write(struct.pack("<4sI", b"OKAY", 0))
        else:
            there.unlink()
            said = b"couldn't write: No space left on device"
            self._write(struct.pack("<4sI", b"FAIL", len(said)) + said)
