"""What the runner can read of its machine: names, clock, heat, load, and how fast its core and its memory are. Never raises.

What a system does not tell is None: a virtual machine has no clock to read, a Mac no thermal zones, and neither is 0.
"""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import re
import time
from collections.abc import Iterable
from typing import Any

_SYS = "/sys"
_CPUINFO = "/proc/cpuinfo"
# Some 40 to 200 µs of hashing, out of the nearest cache: the clock of the core and little else.
_PROBE_BYTES = bytes(1 << 16)
_PROBE_STANDS = 25  # a core that has just waited wakes slowly: repeated until the best has stood for so many tries
_PROBE_TRIES = 200
_MEMORY_BYTES = 16 << 20  # more than what lies next to a core, so that a copy meets what the cores of a machine share
_MEMORY_TRIES = 7
_memory: list[memoryview] = []  # made once: fresh pages would be timed with their making


def machine() -> dict[str, Any]:
    """`host`, `processor`, `system` and `cores`: what stays the same while the machine is up."""
    return {"host": platform.node(), "processor": _processor(), "system": _system(), "cores": os.cpu_count()}


def state(cores: Iterable[int] = ()) -> dict[str, Any]:
    """What changes: the fields of vitscope.measure.record.State. The clock is that of the fastest of `cores`."""
    return {
        "clock_hz": _clock(tuple(cores)),
        "temperature_c": _temperature(),
        "load": _load(),
        "memory_probe_s": memory_probe(),
        "probe_s": probe(),
    }


def probe() -> float:
    """Seconds of a fixed computation at its best: the speed of this core where no clock can be read."""
    best, stands = float("inf"), 0
    for _ in range(_PROBE_TRIES):
        start = time.perf_counter()
        hashlib.sha256(_PROBE_BYTES)
        taken = time.perf_counter() - start
        stands = stands + 1 if taken > 0.99 * best else 0
        best = min(best, taken)
        if stands == _PROBE_STANDS:
            break
    return best


def memory_probe() -> float | None:
    """Seconds of a fixed copy: how much of the shared caches and of memory others leave. The caches are cold afterwards.

    None where there is no memory for it.
    """
    times = []
    for _ in range(_MEMORY_TRIES):
        start = time.perf_counter()
        try:
            sweep(2 * _MEMORY_BYTES)
        except MemoryError:
            return None
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[(_MEMORY_TRIES - 1) // 2]  # the first may have made the memory


def sweep(num_bytes: int) -> None:
    """Go through so many bytes (at most 32 MiB), half of them written: what the caches held before goes. Raises
    MemoryError."""
    if not _memory:
        _memory.extend(memoryview(bytearray(os.urandom(4096) * (_MEMORY_BYTES // 4096))) for _ in range(2))
    half = num_bytes // 2
    _memory[0][:half] = _memory[1][:half]


def _clock(cores: tuple[int, ...]) -> float | None:
    wanted = cores or _allowed()
    names = [f"{_SYS}/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in wanted]
    kilohertz = [value for value in map(_number, names) if value]
    return max(kilohertz) * 1e3 if kilohertz else None


def _allowed() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _temperature() -> float | None:
    zones = [_number(name) for name in glob.glob(f"{_SYS}/class/thermal/thermal_zone*/temp")]
    celsius = [value / 1e3 for value in zones if value is not None and 0 < value < 150e3]
    return max(celsius) if celsius else None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _number(name: str) -> float | None:
    try:
        with open(name, encoding="ascii") as file:
            return float(file.read())
    except (OSError, ValueError):
        return None


def _processor() -> str:
    """The maker's name of the processor; on ARM boards, which have none, the board's name with the kind of its cores."""
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        text = ""
    found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    if found:
        return found[1].strip()
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def _sysctl(name: str) -> str:
    import subprocess

    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _system() -> str:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            found = re.search(r'^PRETTY_NAME="?([^"\n]+)', file.read(), re.MULTILINE)
    except OSError:
        found = None
    name = f"{found[1]}, " if found else ""
    return f"{name}{platform.system()} {platform.release()} {platform.machine()}"
