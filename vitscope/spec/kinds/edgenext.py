"""Grammar of EdgeNeXt (arXiv 2206.10589): the SDTA encoder; its convolutional encoder is ConvNeXt's block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    LayerScale,
    NormEps,
    NumHeads,
    hidden_channels,
    need_heads,
    need_map,
)
from vitscope.spec.shape import FeatureShape


def split_channels(channels: int, num_splits: int) -> tuple[int, ...]:
    """Channels of each split: all but the last are of the same size, rounded up."""
    size = -(-channels // num_splits)
    return (*[size] * (num_splits - 1), channels - size * (num_splits - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdta(BlockSpec):
    """Split depthwise transpose attention: a cascade of 3×3 over splits of the channels, attention among channels, MLP.

    One residual goes around all of it, and one around the attention.
    """

    kind: ClassVar[str] = "sdta"
    source: ClassVar[str] = "EdgeNeXt, arXiv 2206.10589, Section 3.2; XCiT, arXiv 2106.09681, Section 3"
    num_splits: Annotated[
        int,
        Field(
            strict=True,
            ge=2,
            le=64,
            description="splits of the channels: the last stays as it is, each other one is convolved after the one before",
        ),
    ]
    num_heads: NumHeads
    positions: Annotated[
        bool,
        Field(strict=True, description="add a projected Fourier encoding of the position in front of the attention"),
    ] = False
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-6
    layer_scale_init: LayerScale = 1e-6

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        need_heads(self.num_heads, x.channels)
        if split_channels(x.channels, self.num_splits)[-1] < 1:
            size = -(-x.channels // self.num_splits)
            raise ShapeError(f"{self.num_splits} splits of {size} leave none of the {x.channels} channels for the last")
        hidden_channels(x.channels, self.expansion)
        return x


KINDS: tuple[type[BlockSpec], ...] = (Sdta,)
