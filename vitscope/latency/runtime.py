"""Fusion rules of a runtime, read from vitscope/latency/runtimes/*.yaml and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from vitscope.errors import UnavailableError
from vitscope.latency.fields import Fields, read_yaml

RUNTIMES = Path(__file__).parent / "runtimes"

# What an operation is to a fusion rule; `fusable_kind` in kernels.py says which of them a recorded operation is.
Fusable = Literal["batch_norm", "scale", "bias", "activation", "silu", "elementwise", "pad", "copy"]
How = Literal["fold", "fuse"]

KernelKind = Literal[
    "conv", "grouped", "depthwise", "pointwise", "linear", "matmul", "softmax", "norm", "activation", "elementwise", "pool",
    "resize", "reduce", "copy", "gather", "unknown",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Epilogue:
    """An operation `op` that follows a kernel of a kind in `into` joins it, see the comment in coreml.yaml."""

    op: Fusable
    into: frozenset[KernelKind]
    how: How


@dataclass(frozen=True, slots=True)
class Prologue:
    """An operation `op` whose only reader is a kernel of a kind in `into` joins it."""

    op: Fusable
    into: frozenset[KernelKind]


@dataclass(frozen=True)
class FusionRules:
    """Which operations of a graph one kernel of this runtime holds."""

    name: str
    about: str
    source: str
    epilogues: tuple[Epilogue, ...]
    prologues: tuple[Prologue, ...]

    def __hash__(self) -> int:  # a memo key that is asked for often: its rules are hashed once
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.epilogues, self.prologues))

    def epilogue(self, op: Fusable, kind: str) -> How | None:
        """How `op` joins a kernel of `kind` before it, None when it does not."""
        return next((rule.how for rule in self.epilogues if rule.op == op and kind in rule.into), None)

    def is_prologue(self, op: Fusable, kind: str) -> bool:
        """Whether `op` joins a kernel of `kind` after it."""
        return any(rule.op == op and kind in rule.into for rule in self.prologues)


@cache
def load_runtime(name: str) -> FusionRules:
    """The rules of a runtime that ships with vitscope. Raises UnavailableError for an unknown name."""
    path = RUNTIMES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RUNTIMES.glob("*.yaml")))
        raise UnavailableError(f"no fusion rules for runtime {name!r}: known are {known}")
    top = Fields(path.name, read_yaml(path))
    epilogues = tuple(_epilogue(item) for item in top.records("epilogues"))
    prologues = tuple(_prologue(item) for item in top.records("prologues"))
    rules = FusionRules(top.text("name"), top.text("about"), top.text("source"), epilogues, prologues)
    top.done()
    return rules


def _epilogue(fields: Fields) -> Epilogue:
    rule = Epilogue(fields.choice("op", get_args(Fusable)), _kinds(fields), fields.choice("how", get_args(How)))
    fields.done()
    return rule


def _prologue(fields: Fields) -> Prologue:
    rule = Prologue(fields.choice("op", get_args(Fusable)), _kinds(fields))
    fields.done()
    return rule


def _kinds(fields: Fields) -> frozenset[Any]:
    return frozenset(fields.choices("into", get_args(KernelKind)))
