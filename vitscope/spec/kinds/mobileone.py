"""Grammar of MobileOne (arXiv 2206.04040): convolutions that train as parallel branches and deploy as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Kernel,
    NormEps,
    Role,
    SeRatio,
    Stride,
    Width,
    need_map,
    squeezed_channels,
)
from vitscope.spec.shape import FeatureShape

PAPER = "MobileOne, arXiv 2206.04040"

Branches = Annotated[
    int, Field(strict=True, ge=1, le=16, description="parallel k×k convolutions of the train form, each with a norm")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileOneStem(BlockSpec):
    """A dense 3×3 of stride 2 in branches, then `depth - 1` MobileOne blocks of stride 2."""

    kind: ClassVar[str] = "mobileone_stem"
    role: ClassVar[Role] = "stem"
    source: ClassVar[str] = f"{PAPER}, Table 2; with depth 2, FastViT, arXiv 2303.14189, Section 3.2"
    width: Width
    depth: Annotated[int, Field(strict=True, ge=1, le=5, description="number of steps, each of stride 2")] = 1
    kernel: Kernel = 3
    branches: Branches = 1
    act: ActField = "relu"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        for _ in range(self.depth):
            x = x.strided(self.width, 2)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileOneBlock(BlockSpec):
    """Depthwise k×k, then pointwise 1×1, each in branches: k×k, 1×1 (depthwise only) and identity where it fits."""

    kind: ClassVar[str] = "mobileone"
    source: ClassVar[str] = f"{PAPER}, Section 3.2 and Figure 3"
    width: Width
    kernel: Kernel = 3
    stride: Stride = 1
    branches: Branches = 1
    se_ratio: SeRatio = None
    act: ActField = "relu"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        squeezed_channels(min(x.channels, self.width), self.se_ratio)
        return x.strided(self.width, self.stride)


KINDS: tuple[type[BlockSpec], ...] = (MobileOneStem, MobileOneBlock)
