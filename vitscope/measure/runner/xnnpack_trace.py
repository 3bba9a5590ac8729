"""XNNPACK's own times of its kernels inside ExecuTorch's wheel, whose build asks for none: asked for as the library is called.

The package has no event tracer, but the XNNPACK in it can time its kernels (`XNN_FLAG_BASIC_PROFILING` of xnnpack.h), if
the one who makes a runtime of it says so. The library makes it through its own table of addresses (the PLT's slots of an ELF
file), where this file puts functions of its own for as long as a profile takes: one that adds the flag, one that reads
the times after each call. It is done in the process of the profile, never in one that is timed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vitscope.measure.runner.executorch_names import Kernel, Step

_CREATE, _INVOKE, _INFO = "xnn_create_runtime_v4", "xnn_invoke_runtime", "xnn_get_runtime_profiling_info"
_TIME_KERNELS = 8  # XNN_FLAG_BASIC_PROFILING
_NUMBER, _NAMES, _TIMES = 0, 1, 2  # xnn_profile_info
_LOADED, _DYNAMIC = 1, 2  # p_type of a program header
_SYMBOL_STRINGS, _SYMBOLS, _SLOT_BYTES, _SLOTS = 5, 6, 2, 23  # d_tag: DT_STRTAB, DT_SYMTAB, DT_PLTRELSZ, DT_JMPREL
_Invoke = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_Create = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p
)


class Called(NamedTuple):
    """One call of XNNPACK: when it began and ended, when it was read, all on time.perf_counter, and its kernels."""

    began_s: float
    ended_s: float
    read_s: float
    kernels: list[Kernel]


class Untraceable(RuntimeError):
    """A library whose calls cannot be seen: no ELF file of 64 bits, other names, or a table that may not be written."""


@contextlib.contextmanager
def watched(path: str) -> Iterator[list[Called]]:
    """The calls of XNNPACK that the loaded library at `path` makes, as they come in; runtimes made inside time kernels.

    Runtimes made inside must not outlive the process by much, and may be called outside. Raises Untraceable.
    """
    library = ctypes.CDLL(path)
    slots = _slots(path, library, (_CREATE, _INVOKE))
    create, invoke = _Create((_CREATE, library)), _Invoke((_INVOKE, library))
    calls: list[Called] = []
    tags: dict[int, list[str]] = {}

    def creating(subgraph: Any, cache: Any, workspace: Any, pool: Any, flags: int, made: Any) -> int:
        return create(subgraph, cache, workspace, pool, flags | _TIME_KERNELS, made)

    def invoking(runtime: int) -> int:
        began = time.perf_counter()
        status = invoke(runtime)
        ended = time.perf_counter()
        with contextlib.suppress(OSError):  # no times: the call has no kernels then, and the reader sees that
            if runtime not in tags:
                tags[runtime] = _tags(library, runtime)
            times = (ctypes.c_uint64 * len(tags[runtime]))()
            _info(library, runtime, _TIMES, times)
            kernels = [Kernel(tag, us * 1e-6) for tag, us in zip(tags[runtime], times)]  # noqa: B905  (Python 3.8)
            calls.append(Called(began, ended, time.perf_counter(), kernels))
        return status

    ours = {_CREATE: _Create(creating), _INVOKE: _Invoke(invoking)}
    before = {name: slot.value for name, slot in slots.items()}
    # A model that is collected while XNNPACK runs would wait for the lock of the call that it is collected in.
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    for name, slot in slots.items():
        slot.value = ctypes.cast(ours[name], ctypes.c_void_p).value
    try:
        yield calls
    finally:
        for name, slot in slots.items():
            slot.value = before[name]
        if collects:
            gc.enable()


def rounds_of(run: Callable[[], Any], calls: list[Called], runs: int) -> list[list[Step]]:
    """The steps of each of `runs` inferences, without what it took to read their times. Raises RuntimeError.

    What passes between two calls is a step of no told kind: operations of ExecuTorch's own, and its handing over.
    """
    rounds: list[list[Step]] = []
    for _ in range(runs):
        calls.clear()
        at = time.perf_counter()
        run()
        ended = time.perf_counter()
        steps: list[Step] = []
        for call in calls:
            if not call.kernels:
                raise RuntimeError("XNNPACK gave no times of its kernels")
            taken = call.ended_s - call.began_s - sum(kernel.seconds for kernel in call.kernels)
            steps += [_between(call.began_s - at), Step(True, call.kernels, max(0.0, taken))]
            at = call.read_s
        steps.append(_between(ended - at))
        rounds.append(steps)
    return rounds


def _between(seconds: float) -> Step:
    return Step(False, [Kernel("", seconds)])


def _tags(library: Any, runtime: int) -> list[str]:
    """XNNPACK's words for each kernel of a runtime, in order. Raises OSError where it times none."""
    number = ctypes.c_size_t()
    _info(library, runtime, _NUMBER, number)
    needed = ctypes.c_size_t()
    getattr(library, _INFO)(ctypes.c_void_p(runtime), _NAMES, ctypes.c_size_t(0), None, ctypes.byref(needed))
    words = ctypes.create_string_buffer(needed.value)
    _info(library, runtime, _NAMES, words)
    found = words.raw.decode(errors="replace").split("\0")[: number.value]
    if len(found) != number.value:
        raise OSError("fewer names than kernels")
    return found


def _info(library: Any, runtime: int, what: int, into: Any) -> None:
    used = ctypes.c_size_t()
    size = ctypes.c_size_t(ctypes.sizeof(into))
    status = getattr(library, _INFO)(ctypes.c_void_p(runtime), what, size, ctypes.byref(into), ctypes.byref(used))
    if status:
        raise OSError(f"{_INFO} answered {status}")


def _slots(path: str, library: Any, names: tuple[str, ...]) -> dict[str, ctypes.c_void_p]:
    """The places in memory that hold the addresses which the library calls for `names`. Raises Untraceable."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        found, values = _offsets(data, names)
        base = ctypes.cast(getattr(library, _INVOKE), ctypes.c_void_p).value - values[_INVOKE]  # type: ignore[operator]
        slots = {name: base + found[name] for name in names}
    except (KeyError, AttributeError, struct.error, ValueError) as error:
        raise Untraceable(f"XNNPACK is not called there as it is known to be ({error})") from error
    writable = _writable()
    if not all(any(low <= slot and slot + 8 <= high for low, high in writable) for slot in slots.values()):
        raise Untraceable("the table of its addresses may not be written")
    return {name: ctypes.c_void_p.from_address(slot) for name, slot in slots.items()}


def _offsets(data: bytes, names: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """(offset of the slot of each of `names`, value of its symbol) in an ELF file of 64 bits, little-endian (elf.5)."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no ELF file of 64 bits")
    (headers_at,) = struct.unpack_from("<Q", data, 32)
    size, number = struct.unpack_from("<HH", data, 54)
    # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz
    headers = [struct.unpack_from("<IIQQQQ", data, headers_at + place * size) for place in range(number)]

    def in_file(address: int) -> int:
        for kind, _, offset, start, _, length in headers:
            if kind == _LOADED and start <= address < start + length:
                return offset + address - start
        raise ValueError("an address outside of the file")

    tags: dict[int, int] = {}
    for kind, _, offset, _, _, length in headers:
        if kind == _DYNAMIC:
            tags.update(struct.iter_unpack("<QQ", data[offset : offset + length // 16 * 16]))  # type: ignore[arg-type]
    strings, symbols, slots = in_file(tags[_SYMBOL_STRINGS]), in_file(tags[_SYMBOLS]), in_file(tags[_SLOTS])
    found: dict[str, int] = {}
    values: dict[str, int] = {}
    for place in range(tags[_SLOT_BYTES] // 24):
        offset, info, _ = struct.unpack_from("<QQq", data, slots + 24 * place)
        name_at, _, _, _, value = struct.unpack_from("<IBBHQ", data, symbols + 24 * (info >> 32))
        start = strings + name_at
        name = data[start : data.index(b"\0", start)].decode()
        if name in names:
            found[name], values[name] = offset, value
    return found, values


def _writable() -> list[tuple[int, int]]:
    """The ranges of this process's memory that may be written. Raises Untraceable where the system does not tell."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            lines = [line.split(None, 2) for line in file]
    except OSError as error:
        raise Untraceable("this system does not tell what of its memory may be written") from error
    return [
        (int(low, 16), int(high, 16))
        for places, rights, _ in lines
        if "w" in rights
        for low, _, high in [places.partition("-")]
    ]
