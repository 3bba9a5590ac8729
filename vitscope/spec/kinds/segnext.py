"""Grammar of SegNeXt (arXiv 2209.08575): multi-scale convolutional attention, and the Hamburger head (arXiv 2109.04553)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Classes,
    Dropout,
    Expansion,
    Kernel,
    LayerScale,
    NormEps,
    Role,
    Width,
    need_map,
    same_map,
)
from vitscope.spec.shape import FeatureShape

PAPER = "SegNeXt, arXiv 2209.08575"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegNext(BlockSpec):
    """Multi-scale convolutional attention, then an MLP with a depthwise 3×3; norm and a residual with layer scale for each.

    What gates the map is gathered by a depthwise k×k and, after it, by pairs of strips of 7, 11 and 21 positions.
    """

    kind: ClassVar[str] = "segnext"
    source: ClassVar[str] = f"{PAPER}, Section 3.1 (MSCAN)"
    strips: ClassVar[tuple[int, ...]] = (7, 11, 21)
    kernel: Kernel = 5
    expansion: Expansion
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-2

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightHam(BlockSpec):
    """Three stages resized to the grid of the finest, concatenated, squeezed; a low-rank matrix factorisation; classes.

    The factorisation starts from random bases, as its authors' does at every call; here they are drawn once, when the
    network is built, from a fixed seed, so that the same input gives the same output.
    """

    kind: ClassVar[str] = "light_ham"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = f"{PAPER}, Section 3.2; Hamburger, arXiv 2109.04553, Section 2 (NMF)"
    width: Width = 256
    num_bases: Annotated[int, Field(strict=True, ge=1, le=4096, description="rank of the factorisation")] = 16
    steps: Annotated[int, Field(strict=True, ge=0, le=100, description="multiplicative updates in eval mode")] = 7
    train_steps: Annotated[int, Field(strict=True, ge=0, le=100, description="multiplicative updates in training")] = 6
    groups: Annotated[int, Field(strict=True, ge=1, le=4096, description="groups of the GroupNorms")] = 32
    classes: Classes = 150
    act: ActField = "relu"
    norm_eps: NormEps = 1e-5
    dropout: Dropout = 0.1

    def __post_init__(self) -> None:
        if self.width % self.groups:
            raise ValueError(f"{self.groups} groups do not divide width {self.width}")

    @property
    def taps(self) -> tuple[int, ...]:
        """The last three stages, the finest first."""
        return (-3, -2, -1)

    def out_shape(self, x: tuple[FeatureShape, ...]) -> FeatureShape:
        for stage in x:
            need_map(self.kind, stage)
        return FeatureShape(self.classes, x[0].height, x[0].width)


KINDS: tuple[type[BlockSpec], ...] = (SegNext, LightHam)
