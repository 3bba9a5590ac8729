"""Grammar of ResNet (arXiv 1512.03385): the stem with pooling, and the bottleneck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Kernel,
    NormEps,
    NormField,
    Role,
    Stride,
    Width,
    need_map,
)
from vitscope.spec.shape import FeatureShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStem(BlockSpec):
    """A convolution of stride 2 with norm and activation, then max pooling of 3×3 and stride 2."""

    kind: ClassVar[str] = "pool_stem"
    role: ClassVar[Role] = "stem"
    source: ClassVar[str] = "ResNet, arXiv 1512.03385, Table 1"
    width: Width
    kernel: Kernel = 7
    act: ActField = "relu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, 2).strided(self.width, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck(BlockSpec):
    """1×1 to fewer channels, k×k with the stride, linear 1×1 to `width`; the activation follows the residual sum.

    Where stride or channels change, the shortcut is a strided 1×1 convolution with norm.
    """

    kind: ClassVar[str] = "bottleneck"
    source: ClassVar[str] = "ResNet, arXiv 1512.03385, Section 4.1; the stride on the k×k as in v1.5"
    width: Width
    reduction: Annotated[int, Field(strict=True, ge=1, le=64, description="output / inner channels")] = 4
    kernel: Kernel = 3
    stride: Stride = 1
    act: ActField = "relu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.reduction:
            raise ValueError(f"reduction {self.reduction} does not divide width {self.width}")

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, self.stride)


KINDS: tuple[type[BlockSpec], ...] = (PoolStem, Bottleneck)
