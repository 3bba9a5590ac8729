"""Artifact: an exported network as a file, with what a runtime, a measurement and a reader need to know of it. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file (or, for Core ML, a folder) that one kind of runtime executes.

    `scopes` maps the names that the file gives to its operations or values to the module paths of the network
    (`stages.2.blocks.3.mixer.qkv`), so that a runtime's own profile can be told by block. `blocks` are the paths of
    the blocks, in order. `tools` are the packages that wrote the file, with versions.
    """

    path: Path
    format: str  # a key of vitscope.export.FORMATS
    model: str
    digest: str
    form: Literal["train", "deploy", "exported"]  # exported: by someone, in whatever form
    precision: Precision
    input_shape: tuple[int, int, int, int]  # (B, C, H, W)
    blocks: tuple[str, ...]
    weights: str
    tools: str
    scopes: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    notes: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        if self.path.is_dir():
            return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return self.path.stat().st_size


def block_of(scope: str, blocks: tuple[str, ...]) -> str | None:
    """The block that module path `scope` lies in: the longest of `blocks` that is it or a parent of it."""
    parts = scope.split(".")
    known = set(blocks)
    return next((path for n in range(len(parts), 0, -1) if (path := ".".join(parts[:n])) in known), None)
