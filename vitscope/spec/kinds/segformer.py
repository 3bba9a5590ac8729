"""Grammar of SegFormer (arXiv 2105.15203): attention to a reduced map, an MLP with a depthwise convolution, an MLP head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Classes,
    Dropout,
    Expansion,
    Kernel,
    NormEps,
    NumHeads,
    Role,
    Width,
    hidden_channels,
    need_heads,
    need_map,
)
from vitscope.spec.shape import FeatureShape

PAPER = "SegFormer, arXiv 2105.15203"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNorm(BlockSpec):
    """A norm alone: it ends a stage whose output a head takes."""

    kind: ClassVar[str] = "norm"
    source: ClassVar[str] = "PVT, arXiv 2102.12122, Section 3; SegFormer, arXiv 2105.15203"
    norm: Annotated[Literal["bn", "ln", "gn"], Field(description="bn: BatchNorm; ln: LayerNorm over channels; gn")] = (
        "ln"
    )
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class SegFormer(BlockSpec):
    """Self-attention whose keys and values come from a map of 1/`reduction` the sides, then an MLP with a k×k inside.

    Both are pre-norm, with a residual around each.
    """

    kind: ClassVar[str] = "segformer"
    source: ClassVar[str] = f"{PAPER}, Section 3.1 (Efficient Self-Attention, Mix-FFN)"
    num_heads: NumHeads
    reduction: Annotated[
        int, Field(strict=True, ge=1, le=64, description="stride of the convolution in front of keys and values")
    ]
    kernel: Kernel = 3
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-6
    reduction_norm_eps: Annotated[
        float, Field(strict=True, gt=0, lt=1, description="epsilon of the LayerNorm on the reduced map")
    ] = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        need_heads(self.num_heads, x.channels)
        if min(x.height, x.width) < self.reduction:
            raise ShapeError(f"reduction {self.reduction} leaves nothing of the {x.height}×{x.width} map that arrives")
        hidden_channels(x.channels, self.expansion)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class SegFormerHead(BlockSpec):
    """Every stage projected to `width`, resized to the grid of the first, concatenated; 1×1 with norm; 1×1 to classes."""

    kind: ClassVar[str] = "segformer_head"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = f"{PAPER}, Section 3.2"
    width: Width
    num_stages: Annotated[
        int, Field(strict=True, ge=1, le=16, description="stages that it takes, from the last back")
    ] = 4
    classes: Classes = 150
    act: ActField = "relu"
    norm_eps: NormEps = 1e-5
    dropout: Dropout = 0.1

    @property
    def taps(self) -> tuple[int, ...]:
        """From the last stage back."""
        return tuple(range(-1, -self.num_stages - 1, -1))

    def out_shape(self, x: tuple[FeatureShape, ...]) -> FeatureShape:
        for stage in x:
            need_map(self.kind, stage)
        return FeatureShape(self.classes, x[-1].height, x[-1].width)


KINDS: tuple[type[BlockSpec], ...] = (StageNorm, SegFormer, SegFormerHead)
