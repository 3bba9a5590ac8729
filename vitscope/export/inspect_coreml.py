"""inspect(path): what stands in a Core ML program, read without running it, and what in it the Neural Engine may refuse.

Core ML predicts on macOS only; its file is a protobuf that opens anywhere. Which unit an operation gets is decided on the
device, by a compiler that is not public: RULES holds what others found it to refuse, each with its source. A program in
which no rule applies is not proven to stay on the Neural Engine. Only the compute plan of a device says that
(`vitscope.measure.placement`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from vitscope.errors import UnavailableError, UsageError
from vitscope.export.silence import is_shown
from vitscope.units import size

CONSTANT = ("const", "constexpr_")  # what holds weights and parameters and executes nothing
_BITS = {
    "FLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64, "INT8": 8, "UINT8": 8, "INT16": 16, "UINT16": 16, "INT32": 32,
    "INT64": 64, "BOOL": 8, "INT4": 4, "UINT4": 4,
}  # fmt: skip
_CONVOLUTIONS = ("conv", "conv_transpose")
_POOLS = ("avg_pool", "max_pool", "l2_pool")
_UPSAMPLES = ("upsample_nearest_neighbor", "upsample_bilinear")
_EDGE = ("cast", "const")


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: its output's name, kind, shape and type, the shape of its weight, and the numbers it is given."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    weight: tuple[int, ...] | None = None
    given: Mapping[str, tuple[float, ...]] = field(default_factory=dict, hash=False)
    into: tuple[tuple[int, ...], ...] = ()  # the shapes of its inputs

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that the Neural Engine was found to refuse. `finds` returns what of an operation it applies to, or "".

    `evidence`: `documented` by Apple, or `reported` by others, of which systems newer than theirs may differ.
    """

    key: str
    evidence: str
    source: str
    finds: Callable[[Op], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that applies to an operation. `path` is the module it came from, None where that is not known."""

    rule: Rule
    op: Op
    what: str
    path: str | None

    def __str__(self) -> str:
        return f"{self.op.kind} {self.path or self.op.name}: {self.what}"


@dataclass(frozen=True, slots=True)
class Inspection:
    """A Core ML program: operations in order, bytes of weights as they are stored, inputs and outputs with shapes."""

    ops: tuple[Op, ...]
    weight_bytes: int
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    opset: str
    findings: tuple[Finding, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """How many operations of each kind, the most frequent first."""
        return dict(Counter(op.kind for op in self.ops).most_common())

    @property
    def dtypes(self) -> dict[str, int]:
        """How many operations give each type."""
        return dict(Counter(op.dtype for op in self.ops).most_common())

    @property
    def rank(self) -> int:
        """The highest rank of a tensor."""
        return max((op.rank for op in self.ops), default=0)

    def line(self, most: int = 3) -> str:
        """The whole in one line, naming at most `most` findings."""
        said = f"{len(self.ops)} ops, {size(self.weight_bytes)} of weights, Neural Engine: "
        if not self.findings:
            return said + "nothing known to be refused"
        by_rule = Counter(finding.rule.key for finding in self.findings)
        first = {}
        for finding in self.findings:
            first.setdefault(finding.rule.key, finding)
        shown = [f"{first[key]}" + (f" (and {n - 1} more)" if n > 1 else "") for key, n in by_rule.items()]
        rest = f"; {len(shown) - most} more kinds" if len(shown) > most else ""
        return said + "may refuse " + "; ".join(shown[:most]) + rest


def inspect(path: Path, scopes: Mapping[str, str] | None = None) -> Inspection:
    """Read the .mlpackage at `path`; `scopes` (of its Artifact) names modules in the findings.

    Raises UsageError where it is none, UnavailableError without coremltools.
    """
    try:
        with quiet():
            import coremltools as ct
    except ImportError as error:
        raise UnavailableError(f'Core ML files cannot be opened: {error} (pip install "vitscope[coreml]")') from error
    try:
        with quiet():
            spec: Any = ct.utils.load_spec(str(path))
    except Exception as error:
        raise UsageError(
            f"{path}: is no Core ML package: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
    if spec.WhichOneof("Type") != "mlProgram":
        raise UsageError(f"{path}: holds a {spec.WhichOneof('Type')}, not an ML Program")
    return inspect_spec(spec, scopes)


def inspect_spec(spec: Any, scopes: Mapping[str, str] | None = None) -> Inspection:
    """The same of the protobuf of an ML Program that is at hand."""
    main = spec.mlProgram.functions["main"]
    ops, weight_bytes = _read(main.block_specializations[main.opset].operations, _shapes(main.inputs))
    known = scopes or {}
    findings = tuple(
        Finding(rule, op, what, known.get(op.name)) for rule in RULES for op in ops if (what := rule.finds(op))
    )
    return Inspection(
        ops=ops,
        weight_bytes=weight_bytes,
        inputs={f.name: tuple(f.type.multiArrayType.shape) for f in spec.description.input},
        outputs={f.name: tuple(f.type.multiArrayType.shape) for f in spec.description.output},
        opset=main.opset,
        findings=findings,
    )


def operations(spec: Any) -> Iterator[Any]:
    """The operations of a Core ML model's main function, in order, without its constants. `spec` is its protobuf."""
    main = spec.mlProgram.functions["main"]
    for operation in main.block_specializations[main.opset].operations:
        if not operation.type.startswith(CONSTANT):
            yield operation


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of coremltools: versions it has not been tried with, missing Mac libraries, progress bars."""
    if is_shown():
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _read(operations: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[tuple[Op, ...], int]:
    """The operations that execute, and the bytes that constants hold in the file of weights or in the program."""
    values: dict[str, tuple[float, ...]] = {}
    constants: set[str] = set()
    found: list[Op] = []
    stored = 0
    for operation in operations:
        output = operation.outputs[0]
        shapes.update(_shapes(operation.outputs))
        if operation.type.startswith(CONSTANT):
            constants.add(output.name)
            stored += sum(_stored(value) for value in operation.attributes.values())
            if operation.type == "const":
                values[output.name] = _numbers(operation.attributes["val"])
            continue
        names = {key: [b.name for b in given.arguments if b.name] for key, given in operation.inputs.items()}
        weight = names.get("weight", [])
        found.append(
            Op(
                name=output.name,
                kind=operation.type,
                shape=shapes[output.name],
                dtype=_dtype(output.type.tensorType),
                weight=shapes.get(weight[0]) if weight else None,
                given={key: values[first[0]] for key, first in names.items() if first and values.get(first[0])},
                into=tuple(shapes[n] for ns in names.values() for n in ns if n in shapes and n not in constants),
            )
        )
    return tuple(found), stored


def _shapes(named: Any) -> dict[str, tuple[int, ...]]:
    """Sizes of each named tensor; an axis of unknown size is -1."""
    return {
        value.name: tuple(d.constant.size if d.HasField("constant") else -1 for d in value.type.tensorType.dimensions)
        for value in named
    }


def _dtype(tensor: Any) -> str:
    descriptor = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type
    return descriptor.values_by_number[tensor.dataType].name.lower()


def _stored(value: Any) -> int:
    """Bytes of a constant of floats or 8 bit integers. Axes, strides and modes are parameters of operations, no weights."""
    if value.WhichOneof("value") != "blobFileValue":
        kind = (
            value.immediateValue.tensor.WhichOneof("value") if value.WhichOneof("value") == "immediateValue" else None
        )
        if kind not in ("floats", "doubles", "bytes"):
            return 0
    tensor = value.type.tensorType
    sizes = [d.constant.size for d in tensor.dimensions]
    if not sizes:
        return 0  # a scalar is an epsilon or a scale
    return prod(sizes) * _BITS.get(_dtype(tensor).upper(), 0) // 8


def _numbers(value: Any) -> tuple[float, ...]:
    """A constant that stands in the program itself, as numbers; empty for text and for what is in the weights' file."""
    if value.WhichOneof("value") != "immediateValue":
        return ()
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind not in ("ints", "floats", "bools", "longInts", "doubles"):
        return ()
    return tuple(float(number) for number in getattr(tensor, kind).values)


_HOLLANCE = "github.com/hollance/neural-engine, unsupported-layers.md (2019-22, of the older NeuralNetwork format)"
_ANEFORGE = "ANEForge, arXiv 2606.17090 and 2606.22283"
_APPLE_TYPED = "coremltools guide, Typed Execution: the Neural Engine computes in float16"
MAX_RANK, MAX_AXIS, MAX_KERNEL, MAX_POOL, MAX_POOL_STRIDE, MAX_UPSAMPLE = 5, 16384, 13, 13, 2, 2


def _high_rank(op: Op) -> str:
    rank = max([op.rank, *map(len, op.into)])
    return f"rank {rank} > {MAX_RANK}" if rank > MAX_RANK else ""


def _long_axis(op: Op) -> str:
    longest = max([0, *op.shape])
    return f"axis {longest} > {MAX_AXIS}" if longest > MAX_AXIS else ""


def _large_kernel(op: Op) -> str:
    if op.kind not in _CONVOLUTIONS or not op.weight or len(op.weight) < 3:
        return ""
    kernel = max(op.weight[2:])
    return f"kernel {kernel} > {MAX_KERNEL}" if kernel > MAX_KERNEL else ""


def _dilated(op: Op) -> str:
    dilation = max([1.0, *op.given.get("dilations", ())])
    return f"dilation {dilation:.0f}" if op.kind in _CONVOLUTIONS and dilation > 1 else ""


def _gathers(op: Op) -> str:
    return op.kind if op.kind.startswith(("gather", "scatter")) else ""


def _large_pool(op: Op) -> str:
    if op.kind not in _POOLS:
        return ""
    kernel = max([0.0, *op.given.get("kernel_sizes", ())])
    stride = max([0.0, *op.given.get("strides", ())])
    if kernel > MAX_POOL:
        return f"pool kernel {kernel:.0f} > {MAX_POOL}"
    return f"pool stride {stride:.0f} > {MAX_POOL_STRIDE}" if stride > MAX_POOL_STRIDE else ""


def _large_upsample(op: Op) -> str:
    if op.kind not in _UPSAMPLES and not op.kind.startswith("resize"):
        return ""
    source = next((shape for shape in op.into if len(shape) == op.rank), None)
    if source is None or min(source[-2:]) < 1:
        return ""
    scale = max(after / before for before, after in zip(source[-2:], op.shape[-2:], strict=True))
    return f"upsampling ×{scale:g} > {MAX_UPSAMPLE}" if scale > MAX_UPSAMPLE else ""


def _single(op: Op) -> str:
    return "computes in fp32" if op.dtype in ("float32", "float64") and op.kind not in _EDGE else ""


RULES: tuple[Rule, ...] = (
    Rule("fp32", "documented", _APPLE_TYPED, _single),
    Rule("rank", "reported", _ANEFORGE, _high_rank),
    Rule("axis", "reported", f"{_ANEFORGE} (A13-A15)", _long_axis),
    Rule("kernel", "reported", f"{_HOLLANCE}; {_ANEFORGE} puts the cliff at 13 to 15", _large_kernel),
    Rule("dilation", "reported", _HOLLANCE, _dilated),
    Rule("gather", "reported", _HOLLANCE, _gathers),
    Rule("pool", "reported", _HOLLANCE, _large_pool),
    Rule("upsample", "reported", _HOLLANCE, _large_upsample),
)
