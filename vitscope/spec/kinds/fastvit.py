"""Grammar of FastViT (arXiv 2303.14189): RepMixer, attention, large-kernel downsampling, position encoding, head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Classes,
    Expansion,
    HeadDim,
    Kernel,
    LayerScale,
    NormEps,
    Role,
    SeRatio,
    Stride,
    Width,
    need_head_dim,
    need_map,
    need_pairs,
    same_map,
    squeezed_channels,
)
from vitscope.spec.shape import FeatureShape

PAPER = "FastViT, arXiv 2303.14189"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvFfn(BlockSpec):
    """What both block kinds end with: depthwise `ffn_kernel`, norm, two 1×1 layers; residual with layer scale."""

    ffn_kernel: Kernel = 7
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepMixer(ConvFfn):
    """A depthwise k×k minus a norm, with layer scale and residual, all one convolution once fused; then the FFN."""

    kind: ClassVar[str] = "repmixer"
    source: ClassVar[str] = f"{PAPER}, Section 3.2.1 and Figure 2"
    kernel: Kernel = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FastVitAttention(ConvFfn):
    """BatchNorm and self-attention over all positions, then the FFN; a residual with layer scale around each."""

    kind: ClassVar[str] = "fastvit_attention"
    source: ClassVar[str] = f"{PAPER}, Section 3.2 and Figure 2"
    head_dim: HeadDim = 32

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        y = ConvFfn.out_shape(self, x)
        need_head_dim(self.head_dim, x.channels)
        need_pairs(x.height * x.width, x.height * x.width)
        return y


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeKernelDownsample(BlockSpec):
    """A strided grouped convolution, large kernel beside small, that widens each channel; then a 1×1, in branches too.

    With `position_kernel` a conditional position encoding follows: a depthwise convolution added to its input.
    """

    kind: ClassVar[str] = "large_kernel"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{PAPER}, Section 3.2.3 and Figure 2; position encoding, CPVT, arXiv 2102.10882"
    width: Width
    stride: Stride = 2
    kernel: Kernel = 7
    small_kernel: Kernel = 3
    position_kernel: Annotated[
        Kernel | None, Field(description="side of the position encoding, odd; null for none")
    ] = None
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.small_kernel >= self.kernel:
            raise ValueError(f"small_kernel {self.small_kernel} is not smaller than kernel {self.kernel}")

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        if self.width % x.channels:
            raise ShapeError(f"{self.kind} needs a width that {x.channels} channels divide, {self.width} is none")
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedConvClassifier(BlockSpec):
    """A grouped k×k in branches that widens each channel, squeeze-excite, activation, average, one linear layer."""

    kind: ClassVar[str] = "gated_conv_classifier"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = f"{PAPER}, Figure 2"
    classes: Classes = 1000
    expansion: Annotated[
        int, Field(strict=True, ge=1, le=64, description="channels before the linear layer / input")
    ] = 2
    kernel: Kernel = 3
    se_ratio: SeRatio = 0.0625
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        squeezed_channels(x.channels * self.expansion, self.se_ratio)
        return FeatureShape(self.classes, 1, 1)


KINDS: tuple[type[BlockSpec], ...] = (
    LargeKernelDownsample,
    RepMixer,
    FastVitAttention,
    GatedConvClassifier,
)
