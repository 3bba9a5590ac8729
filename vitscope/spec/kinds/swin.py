"""Grammar of Swin Transformer (arXiv 2103.14030): attention within windows, merging of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    BlockSpec,
    NormEps,
    Role,
    Width,
    need_pairs,
)
from vitscope.spec.kinds.vit import Transformer
from vitscope.spec.shape import FeatureShape

SWIN = "Swin Transformer, arXiv 2103.14030"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swin(Transformer):
    """A pre-norm transformer layer whose attention stays within windows; a shift makes new windows across their borders.

    A grid that the window does not divide is filled up with zeros; one that is no larger is one window, without shift.
    """

    kind: ClassVar[str] = "swin"
    source: ClassVar[str] = f"{SWIN}, Section 3.2"
    takes_prefix: ClassVar[bool] = False
    window: Annotated[int, Field(strict=True, ge=1, le=256, description="side of a window, in positions")] = 7
    shift: Annotated[
        int, Field(strict=True, ge=0, le=255, description="positions by which the windows are shifted")
    ] = 0
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.shift >= self.window:
            raise ValueError(f"shift {self.shift} is not smaller than the window of {self.window}")

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        self.check(x)
        height, width = min(self.window, x.height), min(self.window, x.width)
        need_pairs(-(-x.height // height) * height * -(-x.width // width) * width, height * width)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMerging(BlockSpec):
    """Each 2×2 tokens as one of fourfold width, LayerNorm, a linear layer without bias; odd sides are filled up."""

    kind: ClassVar[str] = "patch_merging"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{SWIN}, Section 3.1"
    width: Width
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        if not x.tokens:
            raise ShapeError(f"{self.kind} needs tokens, but the block before it puts out a {x} map")
        return FeatureShape(self.width, -(-x.height // 2), -(-x.width // 2), tokens=True)


KINDS = (PatchMerging, Swin)
