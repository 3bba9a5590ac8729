"""Fusion rules of a runtime, read from vitscope/latency/runtimes/*.yaml and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from vitscope.cost.ops import FREE
from vitscope.errors import UnavailableError
from vitscope.graph.record import OpRecord
from vitscope.latency.fields import Fields, read_yaml

RUNTIMES = Path(__file__).parent / "runtimes"

# What an operation is to a fusion rule; `_joins` in nodes.py says which of them a recorded operation is. `sum` adds two
# values of one shape, `bias` and `scale` a constant. `activation` is any but SiLU, `elementwise` any of the three before.
Fusable = Literal[
    "batch_norm", "scale", "bias", "activation", "relu", "clamp", "gelu", "hardswish", "hardsigmoid", "sigmoid", "silu",
    "sum", "elementwise", "layer_norm", "pad", "copy",
]  # fmt: skip
How = Literal["fold", "fuse"]
Permute = Literal["free", "copy", "early"]
Slice = Literal["free", "copy", "each", "strided"]
Attention = Literal["parts", "fused", "pattern"]
Writes = Literal["full", "rows", "channels"]

KernelKind = Literal[
    "conv", "grouped", "depthwise", "pointwise", "linear", "matmul", "attention", "softmax", "norm", "activation",
    "elementwise", "pool", "resize", "reduce", "copy", "reshape", "gather", "unknown",
]  # fmt: skip
CONVOLUTIONS = frozenset({"conv", "grouped", "depthwise", "pointwise"})
_ORDERS: dict[str, tuple[int, ...]] = {"channels_last": (0, 2, 3, 1), "blocked": (-1, 0, 1, 2, 3)}


@dataclass(frozen=True, slots=True)
class Epilogue:
    """An operation `op` that follows a kernel of a kind in `into` joins it, see the comment in coreml.yaml.

    With `first` it does so only where nothing else has been fused before it.
    """

    op: Fusable
    into: frozenset[KernelKind]
    how: How
    first: bool = False


@dataclass(frozen=True, slots=True)
class Prologue:
    """An operation `op` whose only reader is a kernel of a kind in `into` joins it.

    With `through` it does so also where another operation that joins the kernel stands between them.
    """

    op: Fusable
    into: frozenset[KernelKind]
    through: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How maps (B, C, H, W) lie in memory. What is neither native nor a follower takes them as the network has them.

    `native` kernels (kinds, aten names, or `transposed` for transposed convolutions) ask for it and give it; a `follower`
    runs in it where its operands lie so, in blocks only where all of them do. `block`: channels of a block, 0 without.
    `permute`: whether a permuted map is written out (`copy`), even where its new order is how it lies.
    """

    order: tuple[int, ...]
    native: frozenset[str]
    followers: frozenset[str]
    block: int
    permute: Literal["free", "copy"] = "free"

    def asks(self, name: str, kind: str, in_channels: int, out_channels: int, op: OpRecord) -> bool | None:
        """Whether a kernel asks for the layout (True) or only gives it (False); None where it does neither.

        With blocks, a convolution of fewer channels than one block reads them as they come, and one in groups, but for
        depthwise ones, must fill whole blocks.
        """
        if kind not in self.native and name not in self.native:
            return None
        if not self.block or kind not in CONVOLUTIONS:
            return True
        if kind == "depthwise":
            return True
        if kind == "grouped":
            groups = op.attr("groups", 1)
            groups = groups if isinstance(groups, int) else 1
            filled = (in_channels // groups) % self.block == 0 and (out_channels // groups) % self.block == 0
            return True if filled else None
        return in_channels >= self.block

    def is_follower(self, name: str, kind: str) -> bool:
        return kind in self.followers or name in self.followers


@dataclass(frozen=True, slots=True)
class Step:
    """One of the kernels that stand for an operation. It reads the steps numbered in `reads`, or the operation's `input`;
    without, the step before it. It writes as many values as the operation, one a row, or one a channel of a map.
    `weights`: into how many equal parts the operation's constants go, of which it reads one; 0 reads none. `apart`: it
    joins no other kernel.
    """

    op: str
    kind: KernelKind
    reads: tuple[str | int, ...] = ()
    writes: Writes = "full"
    weights: int = 0
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Decomposition:
    """An operation (an aten name) that the runtime has no kernel for; of tensors of `rank` only, where that is not 0."""

    op: str
    rank: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class FusionRules:
    """Which operations of a graph one kernel of this runtime holds, and what it adds to them.

    `permute`: a transposed tensor is read where it lies (`free`), written out for whoever wants it straight (`copy`), or
    before it is cut in parts at the latest (`early`). `reshape`: nobody's work, or a node that is run although it moves
    nothing (`run`). `slice`: parts of a tensor are read where they lie (`free`),
    written by one kernel (`copy`), by one kernel for `each`, or only where they are no one stretch of memory (`strided`).
    Products of `reads_transposed` kinds take an operand whose last two axes are swapped. `attention`: a fused operation of
    PyTorch runs as its `parts` or as one kernel (`fused`); with `pattern`, products around a softmax become one too.
    `padding`: which zeros around a map a convolution adds itself; where only those of `same`, an operation before it adds
    all others. `constants`: operations on constants alone are `folded` before the first image, or `run` for each.
    """

    name: str
    about: str
    source: str
    epilogues: tuple[Epilogue, ...]
    prologues: tuple[Prologue, ...]
    version: str = ""
    permute: Permute = "free"
    reshape: Literal["free", "run"] = "free"
    slice: Slice = "free"
    attention: Attention = "parts"
    constants: Literal["folded", "run"] = "folded"
    padding: Literal["any", "same"] = "any"
    reads_transposed: frozenset[KernelKind] = frozenset()
    layout: Layout | None = None
    decompositions: tuple[Decomposition, ...] = ()

    def __hash__(self) -> int:  # a memo key that is asked for often: its rules are hashed once
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((
            self.name, self.version, self.epilogues, self.prologues, self.permute, self.reshape, self.slice, self.attention,
            self.constants, self.padding, self.reads_transposed, self.layout, self.decompositions,
        ))  # fmt: skip

    def epilogue(self, op: Fusable, kind: str, is_first: bool = True) -> How | None:
        """How `op` joins a kernel of `kind` before it, None when it does not. `is_first`: nothing was fused before."""
        for rule in self.epilogues:
            if rule.op == op and kind in rule.into and (is_first or not rule.first):
                return rule.how
        return None

    def is_prologue(self, op: Fusable, kind: str, through: bool = False) -> bool:
        """Whether `op` joins a kernel of `kind` after it; `through`: with another such operation between."""
        return any(rule.op == op and kind in rule.into and (rule.through or not through) for rule in self.prologues)

    def steps(self, op: str, rank: int) -> tuple[Step, ...]:
        """The kernels that `op` on tensors of `rank` is made of, () when it is one."""
        return next((d.steps for d in self.decompositions if d.op == op and d.rank in (0, rank)), ())


@cache
def load_runtime(name: str) -> FusionRules:
    """The rules of a runtime that ships with vitscope. Raises UnavailableError for an unknown name."""
    path = RUNTIMES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RUNTIMES.glob("*.yaml")))
        raise UnavailableError(f"no fusion rules for runtime {name!r}: known are {known}")
    return read_rules(Fields(path.name, read_yaml(path)))


def read_rules(top: Fields) -> FusionRules:
    """Rules from a document. Raises UsageError in one line that names the place."""
    rules = FusionRules(
        name=top.text("name"),
        about=top.text("about"),
        source=top.text("source"),
        epilogues=tuple(_epilogue(item) for item in top.records("epilogues")),
        prologues=tuple(_prologue(item) for item in top.records("prologues")),
        version=top.text("version") if top.has("version") else "",
        permute=top.choice("permute", get_args(Permute)) if top.has("permute") else "free",
        reshape=top.choice("reshape", ("free", "run")) if top.has("reshape") else "free",
        slice=top.choice("slice", get_args(Slice)) if top.has("slice") else "free",
        attention=top.choice("attention", get_args(Attention)) if top.has("attention") else "parts",
        constants=top.choice("constants", ("folded", "run")) if top.has("constants") else "folded",
        padding=top.choice("padding", ("any", "same")) if top.has("padding") else "any",
        reads_transposed=_kinds(top, "reads_transposed") if top.has("reads_transposed") else frozenset(),
        layout=_layout(top.record("layout")) if top.has("layout") else None,
        decompositions=tuple(_decomposition(r) for r in top.records("decompositions"))
        if top.has("decompositions")
        else (),
    )
    top.done()
    return rules


def _epilogue(fields: Fields) -> Epilogue:
    op, into, how = fields.choice("op", get_args(Fusable)), _kinds(fields), fields.choice("how", get_args(How))
    rule = Epilogue(op, into, how, _yes(fields, "first"))
    fields.done()
    return rule


def _prologue(fields: Fields) -> Prologue:
    rule = Prologue(fields.choice("op", get_args(Fusable)), _kinds(fields), _yes(fields, "through"))
    fields.done()
    return rule


def _layout(fields: Fields) -> Layout:
    known = (*get_args(KernelKind), "transposed", *_known_operations())
    layout = Layout(
        order=_ORDERS[fields.choice("order", _ORDERS)],
        native=frozenset(fields.choices("native", known)),
        followers=frozenset(fields.choices("followers", known)),
        block=fields.integer("block") if fields.has("block") else 0,
        permute=fields.choice("permute", ("free", "copy")) if fields.has("permute") else "free",
    )
    fields.done()
    return layout


def _decomposition(fields: Fields) -> Decomposition:
    op = fields.choice("op", (*_known_operations(), "gelu_tanh"))
    rank = fields.integer("rank") if fields.has("rank") else 0
    steps = tuple(_step(item, n) for n, item in enumerate(fields.records("steps")))
    if not steps:
        raise fields.fail("steps", "a list of one step or more", [])
    if rank != 4 and any(step.writes == "channels" for step in steps):
        raise fields.fail("rank", "4, where a step writes channels, which maps have", rank)
    fields.done()
    return Decomposition(op, rank, steps)


def _step(fields: Fields, number: int) -> Step:
    expected = f"a list of input and of the numbers below {number} of steps before"
    reads = fields.take("reads", expected) if fields.has("reads") else []
    if not isinstance(reads, list) or any(read not in ("input", *range(number)) for read in reads):
        raise fields.fail("reads", expected, reads)
    step = Step(
        op=fields.text("op"),
        kind=fields.choice("kind", get_args(KernelKind)),
        reads=tuple(reads),
        writes=fields.choice("writes", get_args(Writes)) if fields.has("writes") else "full",
        weights=fields.integer("weights") if fields.has("weights") else 0,
        apart=_yes(fields, "apart"),
    )
    fields.done()
    return step


def _known_operations() -> tuple[str, ...]:
    return tuple(sorted(name for names in FREE.values() for name in names))


def _yes(fields: Fields, key: str) -> bool:
    value = fields.take(key, "true or false") if fields.has(key) else False
    if not isinstance(value, bool):
        raise fields.fail(key, "true or false", value)
    return value


def _kinds(fields: Fields, key: str = "into") -> frozenset[Any]:
    return frozenset(fields.choices(key, get_args(KernelKind)))
