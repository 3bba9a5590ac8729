"""lower(graph, rules): the kernels that a runtime runs for a traced graph, after constant folding and fusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod

from vitscope.cost.ops import base_name, macs, op_class, weight_of
from vitscope.graph.record import Graph, OpRecord
from vitscope.latency.geometry import Geometry, geometry_of, matmul_geometry, softmax_geometry
from vitscope.latency.runtime import Fusable, FusionRules, How, KernelKind

# Casts disappear: every value of a deployed program has the one precision of the device file.
_CASTS = frozenset({"_to_copy", "detach", "alias"})
_ATTENTION = "_scaled_dot_product"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch of a runtime. Counts are of elements, so that the precision of the device sets the bytes.

    `reads` and `writes` are activations, each distinct value once; `weights` are constants, biases included. `ops` are
    the aten operations it holds, in order; `scope` is the module of the first. `depth` is over how many channels a
    convolution or product sums: channels per group, the inner dimension of a matmul, 1 for all else.

    `main` is the aten operation whose work it is (`convolution`, `gelu`, `gelu_tanh`, `mean`), and `epilogue` those that
    run while its result is written; what folded into the weights is in `ops` alone. `geometry` is enough to build the
    kernel again. All three are empty in kernels read from a table of counts.
    """

    kind: KernelKind
    scope: str
    macs: int
    reads: int
    weights: int
    writes: int
    depth: int
    ops: tuple[str, ...]
    main: str = ""
    epilogue: tuple[str, ...] = ()
    geometry: Geometry | None = None


def lower(graph: Graph, rules: FusionRules) -> tuple[Kernel, ...]:
    """The kernels of `graph` in execution order.

    Operations on constants alone are evaluated once by the runtime and vanish; views are free; an operation joins the
    kernel before or after it where `rules` say so and nobody else reads the value between them.
    """
    renamer = _Renamer(graph)
    nodes = list(renamer.nodes())
    kept = frozenset(renamer.value(i) for i in graph.outputs)  # whatever comes after the graph reads these
    readers: dict[int, list[_Node]] = {}
    for node in nodes:
        for value in node.reads:
            readers.setdefault(value, []).append(node)
    kernels: list[_Draft] = []
    maker: dict[int, _Draft] = {}
    stands_for: dict[int, tuple[int, int]] = {}  # a value absorbed from the front -> what its reader reads instead

    def only_reader(value: int) -> _Node | None:
        found = readers.get(value, [])
        return found[0] if len(found) == 1 and value not in kept else None

    for node in nodes:
        reads = dict(stands_for.get(value, (value, count)) for value, count in node.reads.items())
        host = _host(node, reads, maker, only_reader, rules)
        if host is not None:
            draft, how = host
            draft.absorb(node, reads, how)
        elif (reader := only_reader(node.write)) and _joins_reader(node, reader, rules):
            stands_for[node.write] = next(iter(reads.items()))
            continue
        else:
            draft = _Draft(node, reads, len(kernels))
            kernels.append(draft)
        maker[node.write] = draft
    return tuple(draft.kernel() for draft in kernels)


@dataclass(slots=True, eq=False)
class _Node:
    """One operation that does work, on values in single assignment: views resolved, in-place updates renamed."""

    op: str
    scope: str
    kind: KernelKind
    joins: tuple[Fusable, ...]  # what it may be to a fusion rule, the better case first
    macs: int
    reads: dict[int, int]  # value -> elements read
    weights: int
    write: int
    writes: int
    geometry: Geometry
    depth: int = 1
    channels: int = 1  # constants of at most this many elements fold into its weights
    has_bias: bool = False


@dataclass(slots=True, eq=False)
class _Draft:
    """A kernel while operations join it."""

    node: _Node
    reads: dict[int, int]
    order: int
    weights: int = 0
    write: int = 0
    writes: int = 0
    has_bias: bool = False
    ops: list[str] = field(default_factory=list)
    epilogue: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights, self.has_bias = self.node.weights, self.node.has_bias
        self.write, self.writes = self.node.write, self.node.writes
        self.ops.append(self.node.op)

    def absorb(self, node: _Node, reads: dict[int, int], how: str) -> None:
        if how == "fold":
            # A folded norm or bias leaves one bias per channel, a folded scale leaves nothing.
            if node.joins[0] != "scale" and not self.has_bias:
                self.weights += self.node.channels
                self.has_bias = True
        else:
            self.epilogue.append(node.op)
            self.weights += node.weights
            for value, count in reads.items():
                if value != self.write:
                    self.reads[value] = max(count, self.reads.get(value, 0))
        self.write, self.writes = node.write, node.writes
        self.ops.append(node.op)

    def kernel(self) -> Kernel:
        n = self.node
        return Kernel(
            n.kind, n.scope, n.macs, sum(self.reads.values()), self.weights, self.writes, n.depth, tuple(self.ops),
            n.op, tuple(self.epilogue), n.geometry,
        )  # fmt: skip


def _host(
    node: _Node,
    reads: dict[int, int],
    maker: dict[int, _Draft],
    only_reader: Callable[[int], _Node | None],
    rules: FusionRules,
) -> tuple[_Draft, How] | None:
    """The kernel that `node` joins as its epilogue and how, or None: the kernel that made the last of its operands."""
    if not node.joins or not reads:
        return None
    makers = {value: maker.get(value) for value in reads}
    latest = max((d for d in makers.values() if d is not None), key=lambda d: d.order, default=None)
    if latest is None or latest.write not in reads or latest.writes != node.writes:
        return None
    if reads[latest.write] != latest.writes or only_reader(latest.write) is not node:
        return None
    for name in node.joins:
        how = rules.epilogue(name, latest.node.kind)
        if how == "fold" and name in ("scale", "bias") and node.weights > latest.node.channels:
            continue  # a constant per position, as a table of attention biases, is read at run time
        if how is not None:
            return latest, how
    return None


def _joins_reader(node: _Node, reader: _Node, rules: FusionRules) -> bool:
    return len(node.reads) == 1 and any(rules.is_prologue(name, reader.kind) for name in node.joins)


class _Renamer:
    """Walks a graph and gives every written result its own number, whatever views or in-place updates do to tensors."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self._value: dict[int, int] = {}
        self._next = 0

    def value(self, tensor: int) -> int:
        if tensor not in self._value:
            self._value[tensor] = self._fresh()
        return self._value[tensor]

    def _fresh(self) -> int:
        self._next += 1
        return self._next

    def _assign(self, tensor: int) -> int:
        """A new value in `tensor` and in every view of what it held."""
        fresh = self._fresh()
        old = self._value.get(tensor)
        if old is not None:
            for other, held in self._value.items():
                if held == old:
                    self._value[other] = fresh
        self._value[tensor] = fresh
        return fresh

    def nodes(self) -> Iterator[_Node]:
        graph = self.graph
        for op in graph.ops:
            if graph.is_constant(op):
                continue
            kind = op_class(graph, op)
            if kind == "constant":  # zeros like an activation: the same for every image
                for out in op.outputs:
                    self._assign(out)
                continue
            if kind == "view" or op.op in _CASTS:
                for out in op.outputs:
                    self._value[out] = self.value(op.inputs[0])
                continue
            reads: dict[int, int] = {}
            weights = 0
            for i in dict.fromkeys(op.inputs):
                if i in graph.constants:
                    weights += graph.tensors[i].numel
                else:
                    value = self.value(i)
                    reads[value] = max(reads.get(value, 0), graph.tensors[i].numel)
            if op.op.startswith(_ATTENTION):
                yield from self._attention(op)
                continue
            written = [self._assign(i) for i in op.outputs]
            if not written:
                continue
            for extra in written[1:]:  # an op with several results writes them in one kernel
                for tensor in op.outputs[1:]:
                    if self._value[tensor] == extra:
                        self._value[tensor] = written[0]
            writes = sum(graph.tensors[i].numel for i in op.outputs)
            channels, has_bias = _channels(graph, op)
            kernel_kind = _kind(graph, op)
            yield _Node(
                _name(op), op.scope, kernel_kind, _joins(graph, op), macs(graph, op) or 0, reads, weights, written[0],
                writes, geometry_of(graph, op, kernel_kind), _depth(graph, op), channels, has_bias,
            )  # fmt: skip

    def _attention(self, op: OpRecord) -> Iterator[_Node]:
        """Fused attention as the matmul, softmax and matmul that it is where no fused kernel exists."""
        q, k, v = (self.graph.tensors[i] for i in op.inputs[:3])
        *batch, t, d = q.shape
        s, e = k.shape[-2], v.shape[-1]
        scores, rows = prod(batch) * t * s, prod(batch) * t
        values = [self.value(i) for i in op.inputs[:3]]
        first, second = self._fresh(), self._fresh()
        reads = {values[0]: q.numel, values[1]: k.numel}
        for mask in op.inputs[3:]:
            if mask not in self.graph.constants:
                reads[self.value(mask)] = self.graph.tensors[mask].numel
        table = sum(self.graph.tensors[i].numel for i in op.inputs[3:] if i in self.graph.constants)
        size = matmul_geometry(prod(batch), t, d, s)
        yield _Node("matmul", op.scope, "matmul", (), scores * d, reads, table, first, scores, size, d)
        size = softmax_geometry(rows, s)
        yield _Node("_softmax", op.scope, "softmax", (), 0, {first: scores}, 0, second, scores, size)
        out = self._assign(op.outputs[0])
        reads = {second: scores, values[2]: v.numel}
        size = matmul_geometry(prod(batch), t, s, e)
        yield _Node("matmul", op.scope, "matmul", (), scores * e, reads, 0, out, rows * e, size, s)


def _name(op: OpRecord) -> str:
    """The operation as kernels are told apart by it: the two forms of GELU are two pieces of work."""
    name = base_name(op)
    return "gelu_tanh" if name == "gelu" and op.attr("approximate") == "tanh" else name


def _kind(graph: Graph, op: OpRecord) -> KernelKind:
    kind = op_class(graph, op)
    if kind == "conv":
        weight = graph.tensors[op.inputs[1]].shape
        groups = op.attr("groups", 1)
        if groups == graph.tensors[op.inputs[0]].shape[1] and groups != 1:
            return "depthwise"
        if groups != 1:
            return "grouped"
        return "pointwise" if prod(weight[2:]) == 1 else "conv"
    assert kind not in ("view", "constant"), kind
    return kind


def _channels(graph: Graph, op: OpRecord) -> tuple[int, bool]:
    """Output channels of a kernel with weights, and whether it has a bias already."""
    weight = weight_of(graph, op)
    if weight is None:
        return 1, False
    if op_class(graph, op) == "conv":
        return graph.tensors[op.outputs[0]].shape[1], len(op.inputs) > 2
    shape = graph.tensors[op.outputs[0]].shape
    return shape[-1] if shape else 1, base_name(op) in ("addmm", "baddbmm", "addmv")


def _depth(graph: Graph, op: OpRecord) -> int:
    kind = op_class(graph, op)
    if kind == "conv":
        return graph.tensors[op.inputs[1]].shape[0 if op.attr("transposed") else 1]
    if kind not in ("linear", "matmul"):
        return 1
    shape = graph.tensors[op.inputs[-1]].shape
    return shape[-2] if len(shape) > 1 else prod(shape)


def _joins(graph: Graph, op: OpRecord) -> tuple[Fusable, ...]:
    """What `op` may be to a fusion rule."""
    name, kind = base_name(op), op_class(graph, op)
    if kind == "activation":
        return ("silu",) if name == "silu" else ("activation",)
    if name in ("native_batch_norm", "_native_batch_norm_legit_no_training"):
        return ("batch_norm",)
    if name in ("constant_pad_nd", "pad"):
        return ("pad",)
    if name in ("clone", "contiguous"):
        return ("copy",)
    if kind == "elementwise":
        operands = {i for i in op.inputs if i not in graph.constants}
        if len(operands) == 1 and name in ("mul", "div") and op.inputs[0] in operands:
            return ("scale", "elementwise")
        if len(operands) == 1 and name in ("add", "sub") and op.inputs[0] in operands:
            return ("bias", "elementwise")
        return ("elementwise",)
    return ()
