"""Grammar of EdgeViT (arXiv 2205.03436): local aggregation, sparse attention and local propagation; its downsampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    Kernel,
    NormEps,
    NormField,
    NumHeads,
    Role,
    Stride,
    Width,
    hidden_channels,
    need_heads,
    need_map,
    need_pairs,
)
from vitscope.spec.kinds.convnext import patches
from vitscope.spec.shape import FeatureShape

PAPER = "EdgeViT, arXiv 2205.03436"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNorm(BlockSpec):
    """A convolution whose kernel is its stride, then a norm: patches of the map are merged without overlap."""

    kind: ClassVar[str] = "conv_norm"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{PAPER}, Section 3.1"
    width: Width
    stride: Stride = 2
    norm: NormField = "ln"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return patches(self.kind, x, self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeVit(BlockSpec):
    """Local-global-local: every window is gathered by convolutions, one delegate of each attends, a convolution spreads it.

    With `sample_rate: 1` every position attends, and there is nothing to gather or to spread.
    """

    kind: ClassVar[str] = "edgevit"
    source: ClassVar[str] = f"{PAPER}, Section 3.2"
    num_heads: NumHeads
    sample_rate: Annotated[
        int, Field(strict=True, ge=1, le=64, description="side of the window that one attending position stands for")
    ]
    kernel: Kernel = 5
    position_kernel: Annotated[
        Kernel, Field(description="side of the depthwise kernel that encodes positions, odd")
    ] = 3
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-6
    spread_norm_eps: Annotated[
        float, Field(strict=True, gt=0, lt=1, description="epsilon of the LayerNorm after local propagation")
    ] = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        need_heads(self.num_heads, x.channels)
        if x.height % self.sample_rate or x.width % self.sample_rate:
            raise ShapeError(
                f"sample_rate {self.sample_rate} does not divide the {x.height}×{x.width} map that arrives"
            )
        hidden_channels(x.channels, self.expansion)
        positions = x.height * x.width // self.sample_rate**2
        need_pairs(positions, positions)
        return x


KINDS: tuple[type[BlockSpec], ...] = (ConvNorm, EdgeVit)
