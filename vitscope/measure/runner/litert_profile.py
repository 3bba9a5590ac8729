"""Time per kernel from LiteRT's own profiler, which the package's Python does not offer: through its C library.

The profiler tells XNNPACK's kernels by kind, in the order they run, without names. They are laid beside the operations
of the file, which XNNPACK keeps in order, leaving out what it fuses or elides.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from vitscope.measure.runner.ops import op, typical
from vitscope.measure.runner.order import FileOp, in_order

_VERSIONS = ("2.3.",)  # whose layout of an event is the one below
_CPU = 1  # LiteRtHwAccelerators
_WRITE = 1  # LiteRtTensorBufferLockMode
_OPTIONS = b"runtime_options_string"
_PROFILING = b"enable_profiling = true\n"
_THREADS = b"num_threads = %d\n"
_FILE_OP, _DELEGATE_OP = 2, 8  # the kinds of event that are kept
_WARM = 5  # inferences before the profile
_TYPES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "int8": 9, "float16": 10}  # LiteRtElementType

# What a kernel of XNNPACK may stand for, where its own words are not the kind's name.
_KINDS = {
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "Fully Connected": ("FULLY_CONNECTED", "CONV_2D"),
    "Dynamic Fully Connected": ("FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D"),
    "Batch Matrix Multiply": ("BATCH_MATMUL",),
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "Multiply": ("MUL",),
    "Subtract": ("SUB",),
    "Divide": ("DIV",),
    "Sigmoid": ("LOGISTIC",),
    "HardSwish": ("HARD_SWISH",),
    "Negate": ("NEG",),
    "Reciprocal Square Root": ("RSQRT",),
    "Square Root": ("SQRT",),
    "Clamp": ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "MINIMUM", "MAXIMUM"),
    "Slice": ("SLICE", "STRIDED_SLICE", "SPLIT"),
    "Copy": ("CONCATENATION", "RESHAPE", "SPLIT", "PAD"),
    "Constant Pad": ("PAD", "PADV2"),
    "Average Pooling": ("AVERAGE_POOL_2D", "MEAN"),
    "Global Average Pooling": ("AVERAGE_POOL_2D", "MEAN"),
    "Max Pooling": ("MAX_POOL_2D",),
    "Resize Bilinear": ("RESIZE_BILINEAR",),
    "Convert": ("QUANTIZE", "DEQUANTIZE", "FULLY_CONNECTED", "CAST"),
}
_COMPUTE = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"}


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("more", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class _Layout(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_uint32), ("sides", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class _TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int), ("layout", _Layout)]


class Kernel(NamedTuple):
    """One event: XNNPACK's words for a kernel, or the kind of an operation that it did not take."""

    tag: str
    delegated: bool
    number: int
    microseconds: int


def supported(version: str) -> bool:
    """Whether the events of this version of LiteRT are known to be laid out as they are read here."""
    return version.startswith(_VERSIONS)


def kernels(path: str, inputs: Sequence[Any], outputs: Sequence[Any], threads: int, runs: int) -> list[list[Kernel]]:
    """The kernels of each of `runs` inferences of the file at `path`, in their order.

    `inputs` are arrays, `outputs` the interpreter's details of the results. Raises RuntimeError where a call fails.
    """
    import ai_edge_litert
    import numpy

    library = ctypes.CDLL(os.path.join(os.path.dirname(ai_edge_litert.__file__), "libLiteRt.so"))
    held: list[Any] = []  # what the library keeps pointers to

    def call(name: str, *arguments: Any) -> None:
        function = getattr(library, name)
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise RuntimeError(f"{name} answered {status}")

    def made(name: str, *arguments: Any) -> Any:
        handle = ctypes.c_void_p()
        call(name, *arguments, ctypes.byref(handle))
        return handle

    environment = made("LiteRtCreateEnvironment", 0, None)
    model = made("LiteRtCreateModelFromFile", environment, path.encode())
    options = made("LiteRtCreateOptions")
    call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
    release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
    for name, text in ((_OPTIONS, _PROFILING), (b"xnnpack", _THREADS % threads)):
        payload = ctypes.create_string_buffer(text)
        held += [payload, release]
        extra = made("LiteRtCreateOpaqueOptions", name, ctypes.cast(payload, ctypes.c_void_p), release)
        call("LiteRtAddOpaqueOptions", options, extra)
    compiled = made("LiteRtCreateCompiledModel", environment, model, options)
    profiler = made("LiteRtCompiledModelGetProfiler", compiled)
    if not profiler:
        raise RuntimeError("LiteRT gave no profiler")

    def buffer(direction: str, index: int, dtype: str, shape: Sequence[int]) -> Any:
        kind = _TensorType(element=_TYPES[dtype])
        kind.layout.rank = len(shape)
        for place, side in enumerate(shape):
            kind.layout.sides[place] = int(side)
        wanted = made(
            f"LiteRtGetCompiledModel{direction}BufferRequirements", compiled, ctypes.c_size_t(0), ctypes.c_size_t(index)
        )
        return made("LiteRtCreateManagedTensorBufferFromRequirements", environment, ctypes.byref(kind), wanted)

    given = [buffer("Input", place, str(array.dtype), array.shape) for place, array in enumerate(inputs)]
    results = [
        buffer("Output", n, numpy.dtype(detail["dtype"]).name, detail["shape"]) for n, detail in enumerate(outputs)
    ]
    for tensor, array in zip(given, inputs):  # noqa: B905  (Python 3.8)
        address = ctypes.c_void_p()
        call("LiteRtLockTensorBuffer", tensor, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        call("LiteRtUnlockTensorBuffer", tensor)
    in_array = (ctypes.c_void_p * len(given))(*given)
    out_array = (ctypes.c_void_p * len(results))(*results)

    def run() -> None:
        sizes = ctypes.c_size_t(len(given)), ctypes.c_size_t(len(results))
        call("LiteRtRunCompiledModel", compiled, ctypes.c_size_t(0), sizes[0], in_array, sizes[1], out_array)

    for _ in range(_WARM):
        run()
    rounds = []
    for _ in range(runs):
        call("LiteRtResetProfiler", profiler)
        call("LiteRtStartProfiler", profiler)
        run()
        call("LiteRtStopProfiler", profiler)
        count = ctypes.c_int()
        call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        call("LiteRtGetProfilerEvents", profiler, count, events)
        rounds.append(
            [
                Kernel(
                    (event.tag or b"").decode(errors="replace"),
                    event.type == _DELEGATE_OP,
                    event.index,
                    event.elapsed_us,
                )
                for event in events
                if event.type in (_FILE_OP, _DELEGATE_OP)
            ]
        )
    return rounds


def told(rounds: Sequence[Sequence[Kernel]], parts: Sequence[Sequence[FileOp]], left: Sequence[FileOp]) -> list[Any]:
    """The profile's operations with the file's names. `parts` are the operations that each delegate took, `left` others.

    Raises RuntimeError where inferences ran different kernels.
    """
    kinds = [[kernel[:3] for kernel in one] for one in rounds]
    if not kinds or not kinds[0] or any(one != kinds[0] for one in kinds):
        raise RuntimeError("LiteRT's profile is empty, or its inferences ran different kernels")
    first = rounds[0]
    names: list[list[str]] = [[] for _ in first]
    by_number = {operation.number: operation for operation in left}
    runs: list[list[int]] = []  # places of the kernels of each delegate
    for place, kernel in enumerate(first):
        if not kernel.delegated:
            operation = by_number.get(kernel.number)
            if operation is not None and operation.kind == kernel.tag:
                names[place] = operation.names
        elif kernel.number == 0 or not runs:
            runs.append([place])
        else:
            runs[-1].append(place)
    if len(runs) == len(parts):
        for places, part in zip(runs, parts):  # noqa: B905  (Python 3.8)
            for place, found in zip(places, aligned([first[place].tag for place in places], part)):  # noqa: B905  (Python 3.8)
                names[place] = found
    return [
        op(
            kernel.tag,
            kernel.tag.partition(" (")[0],
            typical([one[place].microseconds for one in rounds]) * 1e-6,
            names[place],
            "cpu",
        )
        for place, kernel in enumerate(first)
    ]


def aligned(tags: Sequence[str], operations: Sequence[FileOp]) -> list[list[str]]:
    """The names of the operation that each kernel is, by order and kind (vitscope.measure.runner.order)."""
    return in_order([_kinds_of(tag) for tag in tags], operations, _COMPUTE)


def _kinds_of(tag: str) -> tuple[str, ...]:
    words = tag.partition(" (")[0]
    if words == "Convolution" and "DWConv" in tag:
        return ("DEPTHWISE_CONV_2D",)
    if words == "Convolution" and "IGEMM" in tag:
        return ("CONV_2D",)
    return _KINDS.get(words, (words.upper().replace(" ", "_"),))
