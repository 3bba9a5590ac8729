"""Grammar of EfficientViT (MIT, arXiv 2205.14756): multi-scale linear attention, and heads that fuse three stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Classes,
    Expansion,
    HeadDim,
    Kernel,
    NormEps,
    NormField,
    Role,
    Width,
    hidden_channels,
    need_head_dim,
    need_map,
)
from vitscope.spec.shape import FeatureShape

PAPER = "EfficientViT, arXiv 2205.14756"


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientVit(BlockSpec):
    """Multi-scale ReLU linear attention on a map, then an inverted residual with fewer norms; a residual around each.

    The second scale is the map's q, k and v, each gathered from `scale`×`scale` neighbours.
    """

    kind: ClassVar[str] = "efficientvit"
    source: ClassVar[str] = f"{PAPER}, Section 3.1"
    head_dim: HeadDim = 16
    scale: Annotated[Kernel, Field(description="side of the neighbourhood of the second scale")] = 5
    expansion: Expansion = 4.0
    kernel: Kernel = 3
    act: ActField = "hardswish"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    attention_eps: Annotated[
        float, Field(strict=True, gt=0, lt=1, description="added to the denominator of the attention")
    ] = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        need_head_dim(self.head_dim, x.channels)
        hidden_channels(x.channels, self.expansion)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientVitClassifier(BlockSpec):
    """1×1 convolution to `width`, global average pooling, linear to `hidden`, LayerNorm, activation, linear."""

    kind: ClassVar[str] = "efficientvit_classifier"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = f"{PAPER}, Section 3.2"
    width: Width
    hidden: Annotated[int, Field(strict=True, ge=1, le=65536, description="channels between the two linear layers")]
    classes: Classes = 1000
    act: ActField = "hardswish"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return FeatureShape(self.classes, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion(BlockSpec):
    """The last three stages, each through 1×1 and norm, resized to one grid and added; then `depth` residual blocks."""

    role: ClassVar[Role] = "head"
    width: Width
    depth: Annotated[int, Field(strict=True, ge=0, le=512, description="residual blocks after the sum")]
    fused: Annotated[
        bool, Field(strict=True, description="fused inverted residuals in place of inverted residuals")
    ] = False
    expansion: Expansion = 4.0
    resize: Annotated[Literal["bicubic", "bilinear"], Field(description="interpolation between the grids")] = "bicubic"
    act: ActField = "hardswish"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    @property
    def taps(self) -> tuple[int, ...]:
        """The last three stages, the last first."""
        return (-1, -2, -3)

    def grid(self, x: tuple[FeatureShape, ...]) -> tuple[int, int]:
        """Height and width of the grid on which the stages are added: that of the finest."""
        return x[-1].height, x[-1].width

    def fused_shape(self, x: tuple[FeatureShape, ...]) -> FeatureShape:
        """The shape of the sum."""
        for stage in x:
            need_map(self.kind, stage)
        hidden_channels(self.width, self.expansion)
        return FeatureShape(self.width, *self.grid(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientVitSegmentation(Fusion):
    """The last three stages fused on the grid of the finest, residual blocks, 1×1 to one map of logits for each class."""

    kind: ClassVar[str] = "efficientvit_segmentation"
    source: ClassVar[str] = f"{PAPER}, Section 3.2"
    out_expansion: Annotated[
        float | None,
        Field(strict=True, gt=0, le=64, description="channels before the last 1×1 / width; null for no layer there"),
    ] = None
    classes: Classes = 19

    def out_shape(self, x: tuple[FeatureShape, ...]) -> FeatureShape:
        y = self.fused_shape(x)
        hidden_channels(self.width, self.out_expansion or 1.0)
        return FeatureShape(self.classes, y.height, y.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamNeck(Fusion):
    """The last three stages fused on a fixed grid, residual blocks, 1×1, LayerNorm: the embedding that SAM decodes."""

    kind: ClassVar[str] = "sam_neck"
    source: ClassVar[str] = "EfficientViT-SAM, arXiv 2402.05008"
    fused: Annotated[
        bool, Field(strict=True, description="fused inverted residuals in place of inverted residuals")
    ] = True
    act: ActField = "gelu_tanh"
    side: Annotated[int, Field(strict=True, ge=1, le=1024, description="side of the grid, whatever the image")] = 64

    def grid(self, x: tuple[FeatureShape, ...]) -> tuple[int, int]:
        """The fixed grid."""
        return self.side, self.side

    def out_shape(self, x: tuple[FeatureShape, ...]) -> FeatureShape:
        return self.fused_shape(x)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficientVitUpscaler(Fusion):
    """The last three stages fused on the grid of the finest, residual blocks, 1×1 and pixel shuffle to an image."""

    kind: ClassVar[str] = "efficientvit_upscaler"
    source: ClassVar[str] = f"{PAPER}; the output layer is our choice"
    upscale: Annotated[
        int, Field(strict=True, ge=1, le=128, description="sides of the image put out / sides of the finest stage")
    ]

    def out_shape(self, x: tuple[FeatureShape, ...]) -> FeatureShape:
        y = self.fused_shape(x)
        return FeatureShape(3, y.height * self.upscale, y.width * self.upscale)


KINDS: tuple[type[BlockSpec], ...] = (
    EfficientVit,
    EfficientVitClassifier,
    EfficientVitSegmentation,
    SamNeck,
    EfficientVitUpscaler,
)
