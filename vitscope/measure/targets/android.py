"""What an Android device says of itself: its clusters of cores and the mask of a choice of them, its state, its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitscope.errors import UsageError
from vitscope.measure.record import State

Read = Callable[[str], str]  # a shell command → what it printed, empty where it failed

_POLICIES = (
    "for p in /sys/devices/system/cpu/cpufreq/policy*; do "
    'echo "$(cat $p/related_cpus)|$(cat $p/cpuinfo_max_freq)"; done 2>/dev/null'
)
_ONLINE = "cat /sys/devices/system/cpu/online"
_ZONES = 'for z in /sys/class/thermal/thermal_zone*; do echo "$(cat $z/type)|$(cat $z/temp)"; done 2>/dev/null'
_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # android.os.PowerManager
_CPU_ZONE = re.compile(r"cpu|soc|apc|big|mid|little|tsens", re.IGNORECASE)
_SPLIT = "--vitscope--"
_ABI_OF_MACHINE = {
    0x03: "x86",
    0x28: "armeabi-v7a",
    0x3E: "x86_64",
    0xB7: "arm64-v8a",
    0xF3: "riscv64",
}  # e_machine of ELF
CORES = ("big", "mid", "little", "all")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores that share a clock, with its highest rate in Hz; None where the device does not tell."""

    cores: tuple[int, ...]
    max_hz: float | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Which device it is. `abis` are what its programs may be built for, the best first."""

    host: str
    processor: str
    system: str
    abis: tuple[str, ...]


def clusters(read: Read) -> tuple[Cluster, ...]:
    """The clusters of cores, slowest first: cpufreq's policies, or all online cores as one where there are none."""
    found: dict[tuple[int, ...], float | None] = {}
    for line in read(_POLICIES).splitlines():
        cores, _, clock = line.partition("|")
        numbers = tuple(sorted(int(core) for core in cores.split() if core.isdigit()))
        if numbers:
            found[numbers] = int(clock) * 1e3 if clock.strip().isdigit() else None  # cpufreq counts in kHz
    if not found:
        online = _ranges(read(_ONLINE))
        return (Cluster(online, None),) if online else ()
    return tuple(
        Cluster(cores, found[cores]) for cores in sorted(found, key=lambda cores: (found[cores] or 0.0, cores))
    )


def choose_cores(choice: str, known: tuple[Cluster, ...]) -> tuple[int, ...]:
    """The cores that `choice` means on this device: a cluster by its speed, all, or a mask in hexadecimal.

    Raises UsageError for a cluster that the device does not have, and for a core that it does not have.
    """
    every = tuple(sorted(core for cluster in known for core in cluster.cores))
    listed = "; ".join(_cluster_text(cluster) for cluster in known) or "nothing known of its cores"
    if choice == "all":
        return every
    if choice in CORES:
        rated = [cluster for cluster in known if cluster.max_hz is not None]
        speeds = sorted({cluster.max_hz for cluster in rated if cluster.max_hz is not None})
        if len(speeds) < 2 or (choice == "mid" and len(speeds) < 3):
            raise UsageError(f"--cores {choice}: this device has no such cluster ({listed})")
        wanted = {"little": speeds[:1], "big": speeds[-1:], "mid": speeds[1:-1]}[choice]
        return tuple(sorted(core for cluster in rated if cluster.max_hz in wanted for core in cluster.cores))
    try:
        mask = int(choice, 16)
    except ValueError:
        mask = 0
    if mask <= 0:
        raise UsageError(f"--cores {choice}: is none of {', '.join(CORES)}, nor a mask in hexadecimal such as f0")
    cores = tuple(core for core in range(mask.bit_length()) if mask >> core & 1)
    strange = [core for core in cores if every and core not in every]
    if strange:
        raise UsageError(f"--cores {choice}: this device has no core {strange[0]} ({listed})")
    return cores


def mask_of(cores: tuple[int, ...]) -> str:
    """The mask that `taskset` takes: hexadecimal, bit n for core n."""
    return format(sum(1 << core for core in cores), "x")


def identity(read: Read) -> Identity:
    """Its name, processor and system, from its properties; `unknown` for what it does not say."""
    names = (
        "ro.product.manufacturer", "ro.product.model", "ro.soc.manufacturer", "ro.soc.model", "ro.board.platform",
        "ro.hardware", "ro.build.version.release", "ro.build.id", "ro.product.cpu.abilist",
    )  # fmt: skip
    lines = read("; ".join(f'echo "$(getprop {name})"' for name in names)).splitlines()
    prop: dict[str, str] = dict(zip(names, (line.strip() for line in lines), strict=False))

    def joined(*keys: str) -> str:
        return " ".join(text for key in keys if (text := prop.get(key, "")))

    release, build = prop.get("ro.build.version.release", ""), prop.get("ro.build.id", "")
    return Identity(
        host=joined("ro.product.manufacturer", "ro.product.model") or "unknown",
        processor=joined("ro.soc.manufacturer", "ro.soc.model")
        or joined("ro.board.platform", "ro.hardware")
        or "unknown",
        system=(f"Android {release}" + (f" ({build})" if build else "")) if release else "Android, version unknown",
        abis=tuple(abi for abi in prop.get("ro.product.cpu.abilist", "").split(",") if abi),
    )


def state(read: Read, cores: tuple[int, ...]) -> State:
    """Clock, heat, thermal status and load now. The clock is the fastest of `cores`, the heat that of the hottest CPU zone."""
    clocks = " ".join(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in cores)
    text = read(
        f"cat {clocks or '/dev/null'} 2>/dev/null; echo {_SPLIT}; {_ZONES}; echo {_SPLIT}; "
        f"dumpsys thermalservice 2>/dev/null; echo {_SPLIT}; cat /proc/loadavg 2>/dev/null; true"
    )
    parts = [part.strip() for part in text.split(_SPLIT)]
    clock, zones, service, load = (*parts, "", "", "", "")[:4]
    rates = [int(line) * 1e3 for line in clock.splitlines() if line.strip().isdigit()]
    status = re.search(r"Thermal Status:\s*(\d+)", service)
    level = int(status.group(1)) if status else None
    first = load.split()[0] if load.split() else ""
    return State(
        clock_hz=max(rates, default=None),
        temperature_c=_hottest(zones),
        thermal_status=None if level is None else _STATUS[level] if level < len(_STATUS) else str(level),
        load=float(first) if re.fullmatch(r"\d+\.?\d*", first) else None,
    )


def abi_of(program: Path) -> str | None:
    """Which ABI an ELF program is built for; None for what is no ELF file, or a processor that is not known here."""
    with program.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    return _ABI_OF_MACHINE.get(int.from_bytes(head[18:20], "big" if head[5] == 2 else "little"))


def _hottest(zones: str) -> float | None:
    """°C. Kernels count in thousandths; a zone that is off or broken reads 0 or far below."""
    heats = []
    for line in zones.splitlines():
        kind, _, value = line.partition("|")
        if _CPU_ZONE.search(kind) and re.fullmatch(r"\d+", value.strip()):
            heat = int(value) / 1000 if int(value) >= 1000 else float(value)
            if 0 < heat < 150:
                heats.append(heat)
    return max(heats, default=None)


def _cluster_text(cluster: Cluster) -> str:
    clock = f" at {cluster.max_hz / 1e9:.2f} GHz" if cluster.max_hz else ""
    return f"cores {', '.join(map(str, cluster.cores))}{clock}"


def _ranges(text: str) -> tuple[int, ...]:
    """`0-3,6` → 0, 1, 2, 3, 6."""
    cores: list[int] = []
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match:
            cores += range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1)
    return tuple(cores)
