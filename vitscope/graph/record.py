"""The intermediate representation: tensors, operations and graphs as plain frozen records. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

Shape = tuple[int, ...]
TensorKind = Literal["input", "param", "buffer", "const", "activation"]

DTYPE_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of a graph.

    `storage` numbers the memory behind it: a view shares the number of what it views. `name` is the qualified
    name of a parameter or buffer, empty otherwise.
    """

    shape: Shape
    dtype: str
    kind: TensorKind
    storage: int
    name: str = ""

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.numel * DTYPE_BYTES.get(self.dtype, 4)

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat", "complex"))


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One operation: an aten name without overload, where in the module tree it ran, and what it read and wrote.

    `inputs` and `outputs` index `Graph.tensors`. `attrs` holds the non-tensor arguments by their schema names.
    """

    op: str
    scope: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: tuple[tuple[str, object], ...] = ()
    is_view: bool = False

    def attr(self, name: str, default: object = None) -> object:
        """The argument called `name`, or `default` where the call left it out."""
        for key, value in self.attrs:
            if key == name:
                return value
        return default


@dataclass(frozen=True, slots=True)
class Param:
    """A learnable tensor, named once however many modules share it; also listed when the forward pass never reads it."""

    name: str
    shape: Shape
    dtype: str = "float32"

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def scope(self) -> str:
        """The module that owns it: `mlp.fc1.conv` of `mlp.fc1.conv.weight`."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Graph:
    """All operations of one forward pass, in execution order, with every value and every learnable parameter."""

    tensors: tuple[Tensor, ...]
    ops: tuple[OpRecord, ...]
    params: tuple[Param, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # a graph is a memo key: its many records are hashed once
        return hash((self.ops, self.tensors, self.params))

    @cached_property
    def constants(self) -> frozenset[int]:
        """Tensors that no input reaches: parameters, buffers, and what is computed from these alone."""
        known = {i for i, tensor in enumerate(self.tensors) if tensor.kind in ("param", "buffer", "const")}
        for op in self.ops:
            if all(i in known for i in op.inputs):
                known.update(op.outputs)
        return frozenset(known)

    def is_constant(self, op: OpRecord) -> bool:
        """Whether `op` gives the same result for every image, so that a runtime can evaluate it once."""
        return all(i in self.constants for i in op.inputs)

    def input_shapes(self, op: OpRecord) -> tuple[Shape, ...]:
        return tuple(self.tensors[i].shape for i in op.inputs)

    def output_shapes(self, op: OpRecord) -> tuple[Shape, ...]:
        return tuple(self.tensors[i].shape for i in op.outputs)

    def __str__(self) -> str:
        return "\n".join(self.line(op) for op in self.ops if not op.is_view)

    def line(self, op: OpRecord) -> str:
        """One readable line: `mlp.mid.conv  convolution  (1,192,56,56) * (192,1,3,3)/g192 -> (1,192,28,28)`."""

        def text(index: int) -> str:
            return "(" + ",".join(map(str, self.tensors[index].shape)) + ")"

        reads = " * ".join(text(i) for i in op.inputs)
        groups = op.attr("groups", 1)
        suffix = f"/g{groups}" if groups != 1 else ""
        writes = " ".join(text(i) for i in op.outputs)
        return f"{op.scope or '.'}  {op.op}  {reads}{suffix} -> {writes}"
