"""nodes(graph, rules): the operations of a graph that do work, in single assignment, and the copies that layouts cost.

A traced graph has views, which cost nothing in PyTorch, and says nothing of how a runtime lays out its maps. Where `rules`
do, every value has an order: which axis is outermost in memory. An operation takes an operand as it lies or asks for
an order; what lies otherwise is copied first, once, and that copy is a node of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from vitscope.cost.ops import base_name, macs, op_class
from vitscope.graph.record import Graph, OpRecord
from vitscope.latency.axis_order import ANY, PLAIN, Order, lies_alike, movement, permuted, permuting_axes
from vitscope.latency.geometry import (
    IMAGE_CHANNELS,
    Geometry,
    Pair,
    attention_geometry,
    geometry_of,
    matmul_geometry,
    padded_before,
    softmax_geometry,
    tensor_geometry,
)
from vitscope.latency.node import Node, expanded, reshape
from vitscope.latency.op_kernel import (
    channels_and_bias,
    depth_of,
    joins_of,
    kernel_kind,
)
from vitscope.latency.operand_order import wanted_orders
from vitscope.latency.reshapes import reshapes
from vitscope.latency.runtime import FusionRules

# Casts disappear: every value of a deployed program has the one precision of the device file.
_CASTS = frozenset({"_to_copy", "detach", "alias"})
_CLONES = frozenset({"clone", "contiguous"})
_ATTENTION = "_scaled_dot_product"
_PERMUTES = frozenset({"permute", "transpose", "t", "movedim"})
_SLICES = frozenset({"slice", "split", "split_with_sizes", "chunk", "narrow"})
_SELECTS = frozenset({"select", "unbind"})


class Nodes:
    """Walks a graph and gives every written result its own number, whatever views or in-place updates do to tensors."""

    def __init__(self, graph: Graph, rules: FusionRules):
        self.graph, self.rules, self.layout = graph, rules, rules.layout
        self._value: dict[int, int] = {}
        self._next = 0
        self._order: dict[int, Order] = {}  # tensor -> how it lies, where that is not PLAIN
        self._copies: dict[tuple[int, int, Order], int] = {}  # (value, tensor, order) -> the value copied to that order
        self._pads: dict[tuple[int, Pair], int] = {}  # (value, padded size) -> the padded value
        self._made_in: dict[int, str] = {}  # value -> the module that made it
        self._moved_in: dict[int, str] = {}  # tensor -> the module that permuted it
        # part of a permuted tensor -> what its copy does, with the axis that it was cut by
        self._moves: dict[int, str] = {}
        self._pending: list[Node] = []
        if self.layout is not None:
            for i in graph.inputs:
                shape = graph.tensors[i].shape
                if len(shape) == 4 and shape[1] > IMAGE_CHANNELS:  # not an image, which comes as the network has it
                    self._order[i] = ANY

    def value(self, tensor: int) -> int:
        """The number of what is in `tensor` now."""
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

    def __iter__(self) -> Iterator[Node]:
        graph = self.graph
        reshaped = reshapes(graph) if self.rules.reshape == "run" else {}
        for index, op in enumerate(graph.ops):
            if graph.is_constant(op):
                if self.rules.constants == "run":
                    yield from self._constant(op)
                continue
            kind = op_class(graph, op)
            if kind == "constant":  # zeros like an activation: the same for every image
                for out in op.outputs:
                    self._assign(out)
                continue
            name = base_name(op)
            if kind == "view" or op.op in _CASTS or (name in _CLONES and self.rules.permute != "free"):
                self._view(op, name)
                for _ in range(reshaped.get(index, 0)):
                    self._emit(reshape(op.scope, self._fresh()))
            elif op.op.startswith(_ATTENTION):
                self._attention(op)
            elif op.outputs:
                self._work(op, name)
            yield from self._pending
            self._pending.clear()

    def _constant(self, op: OpRecord) -> Iterator[Node]:
        """An operation on constants, where a runtime does it for every image: its result stays a constant."""
        graph = self.graph
        if not op.inputs or not op.outputs or op_class(graph, op) in ("view", "constant") or op.op in _CASTS:
            return
        kind = kernel_kind(graph, op)
        weights, writes = (sum(graph.tensors[i].numel for i in dict.fromkeys(ids)) for ids in (op.inputs, op.outputs))
        sizes = geometry_of(graph, op, kind)
        yield Node(base_name(op), op.scope, kind, (), macs(graph, op) or 0, {}, weights, self._fresh(), writes, sizes)

    # ---- views ----

    def _view(self, op: OpRecord, name: str) -> None:
        """An operation that only says how to read memory: free, or a copy where the runtime moves data for it."""
        source = op.inputs[0]
        if name in _SLICES | _SELECTS and self._shortens(op):
            if self.rules.permute == "early" and self._order.get(source, PLAIN) not in (PLAIN, ANY):
                self._settle(source, op.scope)
            if self._is_written(op, name):
                self._slice(op, name)
                return
        order = self._order.get(source, PLAIN)
        if order is PLAIN and self.rules.permute == "free":
            for out in op.outputs:
                self._value[out] = self.value(source)
            return
        rank = len(self.graph.tensors[source].shape)
        if name in _PERMUTES and self.rules.permute != "free":
            self._moved_in.setdefault(op.outputs[0], op.scope)
            if order == ANY:
                order = PLAIN
                self._order.pop(source, None)
            after = permuted(order, permuting_axes(op, rank))
            if self.layout is not None and order == self.layout.order and self.layout.permute == "copy":
                self._turn(op, after)
            else:
                self._alias(op, after)
        elif name in _SLICES or op.op in _CASTS or (name in _CLONES and order == ANY):
            self._alias(op, order)
        elif name in _SELECTS and order not in (PLAIN, ANY) and order[0] >= 0:
            self._alias(op, _without(order, _axis(op, rank)))
        elif self._is_swapped(source) and self._keeps_matrices(op):
            rank = len(self.graph.tensors[op.outputs[0]].shape)
            self._alias(op, (*range(rank - 2), rank - 1, rank - 2))
        else:  # a reshape and its like: reads memory as it is numbered
            value = self._as(source, PLAIN, op.scope)
            for out in op.outputs:
                self._value[out] = value
                self._order.pop(out, None)

    def _alias(self, op: OpRecord, order: Order) -> None:
        source = op.inputs[0]
        moved = self._moved_in.get(source)
        for out in op.outputs:
            self._value[out] = self.value(source)
            self._lay(out, order)
            if moved is not None:
                self._moved_in.setdefault(out, moved)

    def _turn(self, op: OpRecord, order: Order) -> None:
        """A permuted map of the layout, written out although its new order may be what lies there already."""
        out, fresh = op.outputs[0], self._fresh()
        shape, count = self.graph.tensors[out].shape, self.graph.tensors[out].numel
        reads, sizes = {self.value(op.inputs[0]): count}, tensor_geometry(shape)
        self._emit(Node("permute", op.scope, "copy", ("copy",), 0, reads, 0, fresh, count, sizes))
        self._value[out] = fresh
        self._lay(out, order if lies_alike(order, PLAIN, shape) else PLAIN)

    def _lay(self, tensor: int, order: Order) -> None:
        if lies_alike(order, PLAIN, self.graph.tensors[tensor].shape):
            self._order.pop(tensor, None)
        else:
            self._order[tensor] = order

    def _shortens(self, op: OpRecord) -> bool:
        """Whether a slice leaves something out; one of a whole axis is no work."""
        return self.graph.tensors[op.outputs[0]].numel < self.graph.tensors[op.inputs[0]].numel

    def _is_written(self, op: OpRecord, name: str) -> bool:
        """Whether the runtime writes out the parts that `op` cuts."""
        if self.rules.slice != "strided":
            return self.rules.slice != "free"
        source = op.inputs[0]
        shape, order = self.graph.tensors[source].shape, self._order.get(source, PLAIN)
        if order[:1] in ((-1,), (-2,)):
            return False
        axis = _axis(op, len(shape))
        outer = order or tuple(range(len(shape)))
        return any(shape[a] > 1 for a in outer[: outer.index(axis)])

    def _settle(self, tensor: int, scope: str) -> None:
        """Write a permuted tensor out now, unless it lies in the layout of maps."""
        if self.layout is None or self._order[tensor] != self.layout.order:
            self._value[tensor] = self._as(tensor, PLAIN, scope)
            self._order.pop(tensor, None)

    def _slice(self, op: OpRecord, name: str) -> None:
        """A slice that the runtime writes out; all parts of a split are one node."""
        source = op.inputs[0]
        order = self._order.get(source, PLAIN)
        if name in _SELECTS and order and order[0] >= 0:
            rank = len(self.graph.tensors[source].shape)
            kept = _without(order, _axis(op, rank))
            value = self.value(source)
            self._moves |= dict.fromkeys(op.outputs, movement(order, PLAIN, rank))
        else:
            order = self._settled(source)
            kept = order if name in _SLICES and order[:1] != (-1,) else PLAIN
            value = self._as(source, kept, op.scope)
        moved = self._moved_in.get(source)
        groups = [(out,) for out in op.outputs] if self.rules.slice == "each" else [op.outputs]
        for outputs in groups:
            count = sum(self.graph.tensors[i].numel for i in outputs)
            fresh = self._fresh()
            for out in outputs:
                self._value[out] = fresh
                self._lay(out, kept)
                if moved is not None:
                    self._moved_in.setdefault(out, moved)
            sizes = tensor_geometry(self.graph.tensors[outputs[0]].shape)
            self._emit(Node(name, op.scope, "copy", ("copy",), 0, {value: count}, 0, fresh, count, sizes))

    # ---- layouts ----

    def _settled(self, tensor: int) -> Order:
        """How `tensor` lies, where nobody has asked yet: as the network has it."""
        order = self._order.get(tensor, PLAIN)
        if order == ANY:
            self._order.pop(tensor)
            return PLAIN
        return order

    def _as(self, tensor: int, want: Order, scope: str) -> int:
        """The value of `tensor` lying in the order `want`, copied there once where it lies otherwise."""
        value = self.value(tensor)
        order = self._order.get(tensor, PLAIN)
        if order == want:
            return value
        shape = self.graph.tensors[tensor].shape
        if order == ANY:
            self._order.pop(tensor)
            self._lay(tensor, want)
            return value
        if lies_alike(order, want, shape):
            return value
        key = (value, tensor, want)
        if key not in self._copies:
            fresh = self._copies[key] = self._fresh()
            count = prod(shape)
            in_layout = self.layout is not None and (self.layout.order in (order, want) or order[:1] == (-1,))
            moved = self._moved_in.get(tensor)
            where = scope if moved is None or in_layout else moved
            maker = self._made_in.get(value, "") if in_layout else ""
            name = "reorder" if in_layout else self._moves.get(tensor) or movement(order, want, len(shape))
            self._emit(Node(name, where, "copy", ("copy",), 0, {value: count}, 0, fresh, count, tensor_geometry(shape),
                            maker=maker))  # fmt: skip
        return self._copies[key]

    # ---- work ----

    def _work(self, op: OpRecord, name: str) -> None:
        graph, rules = self.graph, self.rules
        kind = kernel_kind(graph, op)
        want, gives = wanted_orders(graph, self.layout, self._order, op, name, kind)
        reads: dict[int, int] = {}
        weights = 0
        lying = bool(self._order) or want is not PLAIN  # else all lies as the network has it
        size = max((graph.tensors[i].numel for i in op.inputs if i not in graph.constants), default=0) if lying else 0
        for i in dict.fromkeys(op.inputs):
            if i in graph.constants:
                weights += graph.tensors[i].numel
                continue
            value = self.value(i)
            moves = lying and (self._order.get(i, PLAIN) is not PLAIN or want is not PLAIN)
            if moves and not (kind in rules.reads_transposed and self._is_swapped(i)):
                whole = kind != "elementwise" or graph.tensors[i].numel == size
                value = self._operand(i, want if whole else PLAIN, op.scope)
            reads[value] = max(reads.get(value, 0), graph.tensors[i].numel)
        sizes = geometry_of(graph, op, kind)
        is_given = op.inputs[:1] and op.inputs[0] not in graph.constants
        if rules.padding == "same" and is_given and (padded := padded_before(op, kind, sizes)) is not None:
            reads = self._padded(op.scope, reads, sizes, padded)
        written = [self._assign(i) for i in op.outputs]
        for extra in written[1:]:  # an op with several results writes them in one kernel
            for tensor in op.outputs[1:]:
                if self._value[tensor] == extra:
                    self._value[tensor] = written[0]
        self._made_in[written[0]] = op.scope
        if self.layout is not None or self._order:
            for out in op.outputs:
                self._lay(out, gives)
        writes = sum(graph.tensors[i].numel for i in op.outputs)
        channels, has_bias = channels_and_bias(graph, op, kind)
        label = "gelu_tanh" if name == "gelu" and op.attr("approximate") == "tanh" else name
        node = Node(
            label, op.scope, kind, joins_of(graph, op, name, kind), macs(graph, op) or 0, reads, weights, written[0],
            writes, sizes, depth_of(graph, op, kind), channels, has_bias,
        )  # fmt: skip
        shape = graph.tensors[op.outputs[0]].shape
        steps = rules.steps(label, len(shape))
        if steps:
            node.parts = expanded(node, steps, self._fresh, shape)
        self._emit(node)

    def _padded(self, scope: str, reads: dict[int, int], sizes: Geometry, padded: Pair) -> dict[int, int]:
        """What a convolution of `sizes` reads whose map, the first of its operands, is padded before: once for all that pad it
        alike."""
        value, *others = reads
        count = sizes.batch * sizes.in_channels * prod(padded)
        if (value, padded) not in self._pads:
            fresh = self._pads[value, padded] = self._fresh()
            around = Geometry(
                sizes.batch, sizes.in_channels, sizes.in_channels, in_size=sizes.in_size, out_size=padded
            )  # fmt: skip
            self._emit(
                Node("constant_pad_nd", scope, "copy", ("pad",), 0, {value: reads[value]}, 0, fresh, count, around)
            )
        return {self._pads[value, padded]: count} | {other: reads[other] for other in others}

    def _operand(self, tensor: int, want: Order, scope: str) -> int:
        if want == ANY:
            return self.value(tensor)
        return self._as(tensor, want, scope)

    def _is_swapped(self, tensor: int) -> bool:
        """Whether only the last two axes lie the other way round, which a product reads as fast."""
        rank = len(self.graph.tensors[tensor].shape)
        swapped = (*range(rank - 2), rank - 1, rank - 2)
        return rank >= 2 and lies_alike(self._order.get(tensor, PLAIN), swapped, self.graph.tensors[tensor].shape)

    def _keeps_matrices(self, op: OpRecord) -> bool:
        """Whether a view leaves the last two axes alone."""
        before, after = (self.graph.tensors[i].shape for i in (op.inputs[0], op.outputs[0]))
        return len(after) >= 2 and before[-2:] == after[-2:]

    def _emit(self, node: Node) -> None:
        self._pending.append(node)

    def _attention(self, op: OpRecord) -> None:
        """Fused attention: one kernel where the runtime has one, else the matmul, softmax and matmul that it is."""
        graph = self.graph
        q, k, v = (graph.tensors[i] for i in op.inputs[:3])
        *batch, t, d = q.shape
        s, e = k.shape[-2], v.shape[-1]
        heads, rows = prod(batch), prod(batch) * t
        scores = rows * s
        values = [self._operand(i, PLAIN, op.scope) for i in op.inputs[:3]]
        masks = {self.value(i): graph.tensors[i].numel for i in op.inputs[3:] if i not in graph.constants}
        table = sum(graph.tensors[i].numel for i in op.inputs[3:] if i in graph.constants)
        if self.rules.attention != "parts":
            out = self._assign(op.outputs[0])
            reads = {values[0]: q.numel, values[1]: k.numel, values[2]: v.numel} | masks
            self._emit(
                Node(base_name(op), op.scope, "attention", (), scores * (d + e), reads, table, out, rows * e,
                     attention_geometry(heads, t, s, d, e), d)
            )  # fmt: skip
            return
        first, second = self._fresh(), self._fresh()
        reads = {values[0]: q.numel, values[1]: k.numel} | masks
        size = matmul_geometry(heads, t, d, s)
        self._emit(Node("matmul", op.scope, "matmul", (), scores * d, reads, table, first, scores, size, d))
        size = softmax_geometry(rows, s)
        self._emit(Node("_softmax", op.scope, "softmax", (), 0, {first: scores}, 0, second, scores, size))
        out = self._assign(op.outputs[0])
        reads = {second: scores, values[2]: v.numel}
        size = matmul_geometry(heads, t, s, e)
        self._emit(Node("matmul", op.scope, "matmul", (), scores * e, reads, 0, out, rows * e, size, s))


def _axis(op: OpRecord, rank: int) -> int:
    """Along which axis an operation cuts a tensor of `rank`."""
    dim = op.attr("dim", 0)
    return dim % rank if isinstance(dim, int) else 0


def _without(order: Order, axis: int) -> Order:
    """`order` of the axes that are left without `axis`."""
    return tuple(a - (a > axis) for a in order if a != axis)
