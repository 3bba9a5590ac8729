"""A network that is no spec, as records: its graphs, the parts of its module tree, and what was done to read it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vitscope.graph.record import Graph


@dataclass(frozen=True, slots=True)
class Part:
    """A row of a profile: the path of a module and the name of its class. All of its descendants belong to it."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Pass:
    """A network in one form: its graph for one image, for the batch, and its parts, coarse and fine."""

    counted: Graph
    batched: Graph
    stages: tuple[Part, ...]
    blocks: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network in train form and in deploy form, and notes on how they were obtained, for the person who reads the profile."""

    name: str
    source: str
    input: tuple[int, int, int]
    batch: int
    train: Pass
    deploy: Pass
    notes: tuple[str, ...] = ()


def parts_of(scopes: Sequence[str], depth: int) -> tuple[str, ...]:
    """The part that each module path lies in, by the words alone: the first, and numbered items that hold others, up to
    `depth` of them. `stages.0.blocks.1.mlp` is in `stages` at depth 1, and in `stages.0.blocks.1` at depth 2; empty for
    the top."""
    holders = {
        ".".join(words[:end]) for words in (scope.split(".") for scope in scopes) for end in range(1, len(words))
    }
    return tuple(_part_of(scope, depth, scope in holders) for scope in scopes)


def _part_of(scope: str, depth: int, holds: bool) -> str:
    words = scope.split(".")
    length = len(words) + holds  # an operation of a module itself stands beside those of its modules
    end = 1
    if depth > 1 and len(words) > 1 and words[1].isdecimal():
        end = 2
        while length > end + 2 and words[end + 1].isdecimal() and not (words[end + 2 :] or [""])[0].isdecimal():
            end += 2
    return ".".join(words[:end])
