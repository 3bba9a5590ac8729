"""Spec, Stage and Reported: an architecture as one frozen, hashable value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from vitscope.spec.grammar import BlockSpec


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as its authors printed it, and its value in base units (scalars, MACs, seconds, percent)."""

    value: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What the authors printed, and where."""

    source: str
    params: Figure | None = None
    macs: Figure | None = None
    top1: Figure | None = None
    miou: Figure | None = None
    map: Figure | None = None
    latency: tuple[tuple[str, Figure], ...] = ()
    convention: Literal["vitscope", "fvcore", "snap"] = "vitscope"
    form: Literal["train", "deploy"] = "train"
    differs: tuple[tuple[str, str], ...] = ()  # figure → why it is not ours

    @property
    def accuracy(self) -> tuple[str, Figure] | None:
        """The metric of the network's task and its figure, if any: top-1, mIoU or mAP."""
        figures = (("top1", self.top1), ("miou", self.miou), ("map", self.map))
        return next(((metric, figure) for metric, figure in figures if figure is not None), None)

    def latency_s(self, device: str) -> float | None:
        """Reported seconds on `device`, if any."""
        return next((figure.value for name, figure in self.latency if name == device), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks at one resolution, after an optional downsampling block."""

    width: int
    blocks: tuple[BlockSpec, ...]
    downsample: BlockSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """An architecture: stem, stages, head, and the input (channels, height, width) that it is made for."""

    name: str
    input: tuple[int, int, int]
    stem: BlockSpec
    stages: tuple[Stage, ...]
    head: BlockSpec
    drop_path_rate: float = 0.0
    family: str = ""
    paper: str = ""
    note: str = ""
    reported: Reported | None = None
    document: str = field(default="", compare=False, repr=False)  # the merged document as canonical JSON
    plugins: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def digest(self) -> str:
        """A short fingerprint of the merged document, stored beside every result."""
        return hashlib.blake2b(self.document.encode(), digest_size=8).hexdigest()
