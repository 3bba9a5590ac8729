"""Grammar of RepViT (arXiv 2307.09283): MobileNetV3's block with its token mixer and channel mixer taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    Kernel,
    NormEps,
    Role,
    SeRatio,
    Stride,
    Width,
    hidden_channels,
    need_map,
    same_map,
)
from vitscope.spec.kinds.convolution import round_channels
from vitscope.spec.shape import FeatureShape

PAPER = "RepViT, arXiv 2307.09283"
SE_MULTIPLE = 8  # squeezed channels are a multiple of it (the reference's rounding)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepVitBlock(BlockSpec):
    """Depthwise k×k that trains in branches, squeeze-excite where asked for, then a residual 1×1 MLP."""

    kind: ClassVar[str] = "repvit"
    source: ClassVar[str] = f"{PAPER}, Section 3.2 and Figure 4"
    kernel: Kernel = 3
    expansion: Expansion = 2.0
    se_ratio: SeRatio = None
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5

    def squeezed_of(self, channels: int) -> int | None:
        """Channels inside squeeze-excite, None without it."""
        return None if self.se_ratio is None else round_channels(channels * self.se_ratio, SE_MULTIPLE)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepVitDownsample(BlockSpec):
    """A RepViT block, a strided depthwise convolution, a pointwise one to `width` channels, and a residual MLP."""

    kind: ClassVar[str] = "repvit_downsample"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{PAPER}, Section 3.3 (deeper downsampling layers)"
    width: Width
    stride: Stride = 2
    kernel: Kernel = 3
    expansion: Expansion = 2.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        hidden_channels(x.channels, self.expansion)
        hidden_channels(self.width, self.expansion)
        return x.strided(self.width, self.stride)


KINDS: tuple[type[BlockSpec], ...] = (RepVitBlock, RepVitDownsample)
