"""A network that is no spec, as records: its graphs, the parts of its module tree, and what was done to read it. No torch."""

from __future__ import annotations

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
