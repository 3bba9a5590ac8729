"""Grammar of EfficientFormer V1 (arXiv 2206.01191) and EfficientFormerV2 (arXiv 2212.08059) blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    HeadDim,
    Kernel,
    LayerScale,
    NormEps,
    NormField,
    NumHeads,
    Role,
    Stride,
    ValueRatio,
    Width,
    hidden_channels,
    need_map,
    need_pairs,
    same_map,
)
from vitscope.spec.shape import FeatureShape

V1 = "EfficientFormer, arXiv 2206.01191"
V2 = "EfficientFormerV2, arXiv 2212.08059"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn(BlockSpec):
    """Unified FFN: 1×1 expand, depthwise k×k, 1×1 project; residual with layer scale."""

    kind: ClassVar[str] = "ffn"
    source: ClassVar[str] = f"{V2}, Section 3.1"
    expansion: Expansion = 4.0
    kernel: Kernel = 3
    act: ActField = "gelu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Ffn):
    """MHSA on a map with local value and talking heads, then the unified FFN; a residual with layer scale around each."""

    kind: ClassVar[str] = "attention"
    source: ClassVar[str] = f"{V2}, Section 3.3"
    num_heads: NumHeads = 8
    key_dim: HeadDim = 32
    value_ratio: ValueRatio = 4.0
    local_value: Annotated[
        bool, Field(strict=True, description="add a depthwise 3×3 of the value map to the attention output")
    ] = True
    talking_heads: Annotated[
        bool, Field(strict=True, description="mix heads by 1×1 convolutions around the softmax")
    ] = True

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        y = Ffn.out_shape(self, x)
        need_pairs(x.height * x.width, x.height * x.width)
        return y


@dataclass(frozen=True, slots=True, kw_only=True)
class StrideAttention(Attention):
    """Attention computed on a grid reduced by a strided depthwise 3×3, brought back by bilinear resize."""

    kind: ClassVar[str] = "stride_attention"
    source: ClassVar[str] = f"{V2}, Section 3.4"
    attention_stride: Annotated[int, Field(strict=True, ge=2, le=16, description="reduction of the attention grid")] = 2

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        Ffn.out_shape(self, x)
        if x.height % self.attention_stride or x.width % self.attention_stride:
            raise ShapeError(
                f"attention_stride {self.attention_stride} does not divide the {x.height}×{x.width} map that arrives here"
            )
        grid = (x.height // self.attention_stride) * (x.width // self.attention_stride)
        need_pairs(grid, grid)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Mb4d(BlockSpec):
    """MB4D: a pooling (or depthwise convolution) token mixer, then a two-layer 1×1 MLP; a residual around each."""

    kind: ClassVar[str] = "mb4d"
    source: ClassVar[str] = f"{V1}, Section 3.1"
    token_mixer: Annotated[
        Literal["pool", "conv"], Field(description="pool: average pooling minus identity; conv: depthwise convolution")
    ] = "pool"
    kernel: Kernel = 3
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mb3d(BlockSpec):
    """MB3D: LayerNorm and attention with a learned bias on tokens, then an MLP on tokens or the unified FFN on the map.

    A map that arrives is flattened first; with `channel_mixer: mlp` tokens leave, with `ffn` a map.
    """

    kind: ClassVar[str] = "mb3d"
    source: ClassVar[str] = f"{V1}, Section 3.1"
    num_heads: NumHeads = 8
    key_dim: HeadDim = 32
    value_ratio: ValueRatio = 4.0
    channel_mixer: Annotated[
        Literal["mlp", "ffn"], Field(description="mlp: LayerNorm and two linear layers; ffn: the unified FFN of V2")
    ] = "mlp"
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        hidden_channels(x.channels, self.expansion)
        need_pairs(x.height * x.width, x.height * x.width)
        return FeatureShape(x.channels, x.height, x.width, tokens=self.channel_mixer == "mlp")


@dataclass(frozen=True, slots=True, kw_only=True)
class DualPath(BlockSpec):
    """Dual-path attention downsampling: a strided convolution plus attention from strided queries to the whole map."""

    kind: ClassVar[str] = "dual_path"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = f"{V2}, Section 3.4"
    width: Width
    stride: Stride = 2
    num_heads: NumHeads = 8
    key_dim: HeadDim = 16
    value_ratio: ValueRatio = 4.0
    act: ActField = "gelu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        y = x.strided(self.width, self.stride)
        need_pairs(y.height * y.width, x.height * x.width)
        return y


KINDS: tuple[type[BlockSpec], ...] = (DualPath, Ffn, Attention, StrideAttention, Mb4d, Mb3d)
