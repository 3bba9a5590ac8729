"""Grammar of the MobileViT (arXiv 2110.02178) and MobileViTv2 (arXiv 2206.02680) blocks."""

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
    hidden_channels,
    need_map,
)
from vitscope.spec.shape import FeatureShape

Dim = Annotated[int, Field(strict=True, ge=1, le=65536, description="width of the tokens")]
DimRatio = Annotated[float, Field(strict=True, gt=0, le=64, description="width of the tokens / input channels")]
NumLayers = Annotated[int, Field(strict=True, ge=1, le=512, description="transformer layers inside the block")]
Patch = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=64,
        description="side of a patch; pixels at the same place of all patches attend to each other",
    ),
]


def whole_patches(height: int, width: int, patch: int) -> tuple[int, int]:
    """The sides of a map rounded up to whole patches."""
    return -(-height // patch) * patch, -(-width // patch) * patch


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileVit(BlockSpec):
    """k×k and 1×1 convolutions to tokens, transformer layers across patches, back to the map and fused with the input.

    A map whose sides are no multiple of the patch is resized up for the layers, and back after them.
    """

    kind: ClassVar[str] = "mobilevit"
    source: ClassVar[str] = "MobileViT, arXiv 2110.02178, Section 3.1"
    dim: Dim
    num_layers: NumLayers
    num_heads: NumHeads = 4
    expansion: Expansion = 2.0
    patch: Patch = 2
    kernel: Kernel = 3
    act: ActField = "silu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide the {self.dim} channels of dim")
        hidden_channels(self.dim, self.expansion)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileVitV2(BlockSpec):
    """Depthwise k×k and 1×1 convolutions to tokens, layers of separable self-attention across patches, 1×1 back.

    A map whose sides are no multiple of the patch is resized up, and leaves in that size.
    """

    kind: ClassVar[str] = "mobilevitv2"
    source: ClassVar[str] = "MobileViTv2, arXiv 2206.02680, Section 3"
    num_layers: NumLayers
    dim_ratio: DimRatio = 0.5
    expansion: Expansion = 2.0
    patch: Patch = 2
    kernel: Kernel = 3
    act: ActField = "silu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def dim(self, in_channels: int) -> int:
        """Width of the tokens: int(in · dim_ratio)."""
        dim = int(in_channels * self.dim_ratio)
        if dim < 1:
            raise ShapeError(f"dim_ratio {self.dim_ratio:g} of {in_channels} channels leaves no width for the tokens")
        return dim

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        hidden_channels(self.dim(x.channels), self.expansion)
        height, width = whole_patches(x.height, x.width, self.patch)
        return FeatureShape(x.channels, height, width)


KINDS: tuple[type[BlockSpec], ...] = (MobileVit, MobileVitV2)
