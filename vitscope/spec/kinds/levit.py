"""Grammar of LeViT (arXiv 2104.01136): attention with a bias table and an MLP, BatchNorm behind every linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    HeadDim,
    NormEps,
    NumHeads,
    Role,
    Stride,
    ValueRatio,
    Width,
    hidden_channels,
    need_pairs,
)
from vitscope.spec.shape import FeatureShape

LEVIT = "LeViT, arXiv 2104.01136"


def need_values(key_dim: int, value_ratio: float) -> None:
    """Refuse heads without a value channel."""
    if int(key_dim * value_ratio) < 1:
        raise ValueError(f"value_ratio {value_ratio:g} of {key_dim} key channels leaves no value channel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Levit(BlockSpec):
    """Attention with a learned bias, then an MLP, a residual around each; a map that arrives is flattened first."""

    kind: ClassVar[str] = "levit"
    source: ClassVar[str] = f"{LEVIT}, Section 4"
    num_heads: NumHeads
    key_dim: HeadDim
    value_ratio: ValueRatio = 2.0
    expansion: Expansion = 2.0
    act: ActField = "hardswish"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        need_values(self.key_dim, self.value_ratio)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        hidden_channels(x.channels, self.expansion)
        need_pairs(x.height * x.width, x.height * x.width)
        return FeatureShape(x.channels, x.height, x.width, tokens=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevitDownsample(BlockSpec):
    """Attention from every `stride`-th row and column to all positions, without residual, then a residual MLP."""

    kind: ClassVar[str] = "levit_downsample"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{LEVIT}, Section 4 (shrinking attention)"
    width: Width
    stride: Stride = 2
    num_heads: NumHeads
    key_dim: HeadDim
    value_ratio: ValueRatio = 4.0
    expansion: Expansion = 2.0
    act: ActField = "hardswish"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        need_values(self.key_dim, self.value_ratio)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        hidden_channels(self.width, self.expansion)
        height, width = -(-x.height // self.stride), -(-x.width // self.stride)
        need_pairs(height * width, x.height * x.width)
        return FeatureShape(self.width, height, width, tokens=True)


KINDS = (LevitDownsample, Levit)
