"""Grammar of the universal inverted bottleneck of MobileNetV4 (arXiv 2404.10518)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    Kernel,
    NormEps,
    NormField,
    Stride,
    Width,
    need_map,
)
from vitscope.spec.kinds.convolution import round_channels
from vitscope.spec.shape import FeatureShape

SOURCE = "MobileNetV4, arXiv 2404.10518, Section 4"


@dataclass(frozen=True, slots=True, kw_only=True)
class UniversalInvertedBottleneck(BlockSpec):
    """Optional depthwise, 1×1 expand, optional depthwise, linear 1×1 project; residual when stride is 1, channels match.

    The middle depthwise alone is an inverted residual, the first alone is like ConvNeXt, both are ExtraDW, none is an
    FFN. The stride is the middle one's, or the first one's where there is no middle. Hidden channels are rounded to a
    multiple of 8.
    """

    kind: ClassVar[str] = "uib"
    source: ClassVar[str] = SOURCE
    width: Width
    start_kernel: Annotated[Kernel | None, Field(description="depthwise before expansion, odd; null for none")] = None
    kernel: Annotated[Kernel | None, Field(description="depthwise between the 1×1s, odd; null for none")] = None
    expansion: Expansion = 4.0
    stride: Stride = 1
    act: ActField = "relu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.stride > 1 and self.start_kernel is None and self.kernel is None:
            raise ValueError(f"stride {self.stride} needs a depthwise convolution: give kernel or start_kernel")

    def hidden_of(self, in_channels: int) -> int:
        """Channels between the 1×1 convolutions."""
        return round_channels(in_channels * self.expansion, 8)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, self.stride)


KINDS: tuple[type[BlockSpec], ...] = (UniversalInvertedBottleneck,)
