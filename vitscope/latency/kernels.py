"""lower(graph, rules): the kernels that a runtime runs for a traced graph, after constant folding and fusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vitscope.graph.record import Graph
from vitscope.latency.geometry import Geometry, attention_geometry
from vitscope.latency.node import Node
from vitscope.latency.nodes import Nodes
from vitscope.latency.runtime import FusionRules, How, KernelKind


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch of a runtime. Counts are of elements, so that the precision of the device sets the bytes.

    `reads` and `writes` are activations, each distinct value once; `weights` are constants, biases included. `ops` are
    the aten operations it holds, in order; `scope` is the module of the first. `depth` is over how many channels a
    convolution or product sums: channels per group, the inner dimension of a matmul, 1 for all else.

    `main` is the aten operation whose work it is (`convolution`, `gelu`, `gelu_tanh`, `mean`), or what a copy does to memory
    (`permute_rows`, see axis_order.movement; `reorder`, between layouts of maps), and `epilogue` those that
    run while its result is written; what folded into the weights is in `ops` alone. `geometry` is enough to build the
    kernel again. `scopes` are the modules that it works for, that of `scope` first; a change of layout stands between
    two. All four are empty in kernels read from a table of counts.
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
    scopes: tuple[str, ...] = ()


def lower(graph: Graph, rules: FusionRules) -> tuple[Kernel, ...]:
    """The kernels of `graph` in execution order.

    Operations on constants alone are evaluated once by the runtime and vanish, unless `rules` run them; views are free,
    or copies where `rules` say so; an operation joins the kernel before or after it where `rules` say so and nobody else
    reads the value between them. A graph stands alone: a map that enters it lies as its first reader wants it, and no
    fusion crosses its ends.
    """
    walk = Nodes(graph, rules)
    nodes = list(walk)
    kept = frozenset(walk.value(i) for i in graph.outputs)  # whatever comes after the graph reads these
    readers: dict[int, list[Node]] = {}
    for node in nodes:
        for value in node.reads:
            readers.setdefault(value, []).append(node)
    kernels: list[_Draft] = []
    maker: dict[int, _Draft] = {}
    stands_for: dict[int, Node] = {}  # a value absorbed from the front -> the operation that its reader does first

    def only_reader(value: int) -> Node | None:
        found = readers.get(value, [])
        return found[0] if len(found) == 1 and value not in kept else None

    nodes.reverse()
    while nodes:
        node = nodes.pop()
        before = [stands_for[value] for value in node.reads if value in stands_for]
        reads = dict(node.reads)
        for absorbed in before:
            del reads[absorbed.write]
            for value, count in absorbed.reads.items():
                reads[value] = max(count, reads.get(value, 0))
        host = _host(node, reads, maker, only_reader, rules)
        if rules.attention == "pattern" and (parts := _attention(node, reads, maker, only_reader)):
            kernels = [draft for draft in kernels if draft not in parts]
            draft = _attending(parts, node, reads, max(part.order for part in parts) + 1)
            kernels.append(draft)
        elif host is not None:
            draft, how = host
            draft.absorb(node, reads, how)
        elif node.parts:
            for part in node.parts:
                for value in part.reads:
                    readers[value] = [*(r for r in readers.get(value, []) if r is not node), part]
            nodes += reversed(node.parts)
            continue
        elif _joins_reader(node, only_reader, rules):
            node.reads = reads
            stands_for[node.write] = node
            continue
        else:
            draft = _Draft(node, reads, kernels[-1].order + 1 if kernels else 0)
            draft.scopes += [absorbed.scope for absorbed in before]
            kernels.append(draft)
        maker[node.write] = draft
    return tuple(draft.kernel() for draft in kernels)


@dataclass(slots=True, eq=False)
class _Draft:
    """A kernel while operations join it."""

    node: Node
    reads: dict[int, int]
    order: int
    weights: int = 0
    write: int = 0
    writes: int = 0
    has_bias: bool = False
    ops: list[str] = field(default_factory=list)
    epilogue: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights, self.has_bias = self.node.weights, self.node.has_bias
        self.write, self.writes = self.node.write, self.node.writes
        self.ops.append(self.node.op)
        self.scopes.append(self.node.scope)
        if self.node.maker:
            self.scopes.append(self.node.maker)

    def absorb(self, node: Node, reads: dict[int, int], how: str) -> None:
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
        self.scopes.append(node.scope)

    def kernel(self) -> Kernel:
        n = self.node
        return Kernel(
            n.kind, n.scope, n.macs, sum(self.reads.values()), self.weights, self.writes, n.depth, tuple(self.ops),
            n.op, tuple(self.epilogue), n.geometry, tuple(dict.fromkeys(self.scopes)),
        )  # fmt: skip


_OnlyReader = Callable[[int], Node | None]


def _host(
    node: Node, reads: dict[int, int], maker: dict[int, _Draft], only_reader: _OnlyReader, rules: FusionRules
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
        how = rules.epilogue(name, latest.node.kind, not latest.epilogue)
        if how == "fold" and latest.epilogue:
            continue  # weights are before what runs while the kernel writes
        if how == "fold" and name in ("scale", "bias") and node.weights > latest.node.channels:
            continue  # a constant per position, as a table of attention biases, is read at run time
        if how is not None:
            return latest, how
    return None


def _joins_reader(node: Node, only_reader: _OnlyReader, rules: FusionRules) -> bool:
    """Whether `node` runs at the front of its only reader, or at the front of what that does.

    A sum does with both its operands, all else has one.
    """
    reader = only_reader(node.write)
    if reader is None or not node.joins or (len(node.reads) != 1 and node.joins[0] != "sum"):
        return False
    if any(rules.is_prologue(name, reader.kind) for name in node.joins):
        return True
    last = only_reader(reader.write)
    if last is None or not any(rules.is_prologue(name, last.kind, through=True) for name in node.joins):
        return False
    return _joins_reader(reader, only_reader, rules)


def _attention(
    node: Node, reads: dict[int, int], maker: dict[int, _Draft], only_reader: _OnlyReader
) -> list[_Draft] | None:
    """The kernels that become one with the product `node`: product, what is added to it or scales it, softmax."""
    if node.kind != "matmul":
        return None
    soft = next((d for v in reads if (d := maker.get(v)) and d.node.kind == "softmax" and d.write == v), None)
    if soft is None or only_reader(soft.write) is not node or soft.epilogue:
        return None
    chain = [soft]
    while chain[-1].node.kind in ("softmax", "elementwise"):
        last = chain[-1]
        source = next((v for v in last.reads if (d := maker.get(v)) and d.write == v and d.writes == last.writes), None)
        if source is None or only_reader(source) is not last.node:
            return None
        chain.append(maker[source])
    return chain[::-1] if chain[-1].node.kind == "matmul" else None


def _attending(parts: list[_Draft], node: Node, reads: dict[int, int], order: int) -> _Draft:
    """One kernel of the first product, what follows it, and the second product `node`."""
    first = parts[0].node.geometry
    g = attention_geometry(first.batch, first.out_size[0], first.out_channels, first.in_channels,
                           node.geometry.out_channels)  # fmt: skip
    made = {part.write for part in parts}
    outside: dict[int, int] = {}  # queries, keys and values may be parts of one tensor: each is read
    for operands in (*(part.reads for part in parts), reads):
        for value, count in operands.items():
            if value not in made:
                outside[value] = outside.get(value, 0) + count
    whole = Node(
        "attention", parts[0].node.scope, "attention", (), parts[0].node.macs + node.macs, outside, 0, node.write,
        node.writes, g, parts[0].node.depth,
    )  # fmt: skip
    draft = _Draft(whole, outside, order)
    draft.weights = sum(part.weights for part in parts) + node.weights
    draft.ops = [*(op for part in parts for op in part.ops), node.op]
    draft.scopes = [*(scope for part in parts for scope in part.scopes), node.scope]
    return draft
