"""Grammar of the plain vision transformer: ViT (arXiv 2010.11929) and DeiT (arXiv 2012.12877)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    NormEps,
    NumHeads,
    Role,
    Width,
    hidden_channels,
    need_heads,
    need_pairs,
)
from vitscope.spec.kinds.convnext import patches
from vitscope.spec.shape import FeatureShape

VIT = "ViT, arXiv 2010.11929"

Patch = Annotated[int, Field(strict=True, ge=1, le=256, description="side of a patch, in pixels")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchEmbed(BlockSpec):
    """Patches cut without overlap, each projected to a token; class tokens in front, learned positions added.

    Pixels that fill no patch, at the far borders, are dropped.
    """

    kind: ClassVar[str] = "patch_embed"
    role: ClassVar[Role] = "stem"
    source: ClassVar[str] = f"{VIT}, Section 3.1"
    width: Width
    patch: Patch = 16
    class_tokens: Annotated[
        int, Field(strict=True, ge=0, le=2, description="tokens in front: 1 class token, 2 with that of distillation")
    ] = 1
    positions: Annotated[
        bool, Field(strict=True, description="add a learned embedding to every token, sized by the grid")
    ] = True
    norm: Annotated[Literal["ln", "none"], Field(description="norm of the projected patches")] = "none"
    norm_eps: NormEps = 1e-6

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        grid = patches(self.kind, x, self.width, self.patch)
        return replace(grid, tokens=True, prefix=self.class_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer(BlockSpec):
    """A pre-norm transformer layer on tokens: self-attention, then an MLP, a residual around each."""

    kind: ClassVar[str] = "transformer"
    source: ClassVar[str] = f"{VIT}, Section 3.1"
    takes_prefix: ClassVar[bool] = True
    num_heads: NumHeads
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-6

    def check(self, x: FeatureShape) -> None:
        """Raise ShapeError unless tokens arrive whose channels the heads divide."""
        if not x.tokens:
            raise ShapeError(f"{self.kind} needs tokens, but the block before it puts out a {x} map")
        need_heads(self.num_heads, x.channels)
        hidden_channels(x.channels, self.expansion)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        self.check(x)
        positions = x.prefix + x.height * x.width
        need_pairs(positions, positions)
        return x


KINDS = (PatchEmbed, Transformer)
