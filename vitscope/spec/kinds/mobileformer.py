"""Grammar of Mobile-Former (arXiv 2108.05895): a map and a few global tokens side by side, with a bridge in each direction."""

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
    Kernel,
    NormEps,
    NumHeads,
    Role,
    Stride,
    Width,
    hidden_channels,
    need_map,
)
from vitscope.spec.shape import FeatureShape

PAPER = "Mobile-Former, arXiv 2108.05895"

Streams = tuple[FeatureShape, FeatureShape]  # map, tokens
BridgeHeads = Annotated[int, Field(strict=True, ge=1, le=256, description="heads between the map and the tokens")]


def need_streams(kind: str, x: Streams) -> None:
    """Refuse anything but a map with tokens beside it."""
    need_map(kind, x[0])
    if not x[1].tokens:
        raise ShapeError(f"{kind} needs tokens beside the map, but a second map of {x[1]} arrives")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteBottleneck(BlockSpec):
    """Depthwise k×k that multiplies the channels, with activation, then a linear 1×1; residual when shapes match."""

    kind: ClassVar[str] = "lite_bottleneck"
    source: ClassVar[str] = f"{PAPER}, Table 1 (bneck-lite; MicroNet, arXiv 2108.05894)"
    width: Width
    expansion: Expansion = 2.0
    kernel: Kernel = 3
    stride: Stride = 1
    act: ActField = "relu6"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.expansion != int(self.expansion):
            raise ValueError(f"expansion {self.expansion:g} of a depthwise convolution must be a whole number")

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalTokens(BlockSpec):
    """A few learned tokens, put beside the map that passes: from here on both flow."""

    kind: ClassVar[str] = "global_tokens"
    source: ClassVar[str] = f"{PAPER}, Section 3.1"
    num_tokens: Annotated[int, Field(strict=True, ge=1, le=4096, description="tokens")] = 6
    token_width: Annotated[int, Field(strict=True, ge=1, le=65536, description="channels of each token")] = 192

    def out_shape(self, x: FeatureShape) -> Streams:
        need_map(self.kind, x)
        return x, FeatureShape(self.token_width, self.num_tokens, 1, tokens=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileFormer(BlockSpec):
    """Tokens gather from the map and attend to each other; the map is convolved as they say, and gathers from them.

    The convolutions are an inverted residual; where stride is not 1, a depthwise and a 1×1 of that stride, whose output
    goes around a second such pair of `inner_expansion`.
    """

    kind: ClassVar[str] = "mobile_former"
    source: ClassVar[str] = f"{PAPER}, Sections 3.2 and 3.3; dynamic ReLU, arXiv 2003.10027"
    streams: ClassVar[int] = 2
    width: Width
    expansion: Expansion
    inner_expansion: Annotated[
        float, Field(strict=True, gt=0, le=64, description="hidden / output channels of the second pair, with a stride")
    ] = 4.0
    kernel: Kernel = 3
    stride: Stride = 1
    num_heads: NumHeads = 4
    bridge_heads: BridgeHeads = 2
    token_expansion: Annotated[
        float, Field(strict=True, gt=0, le=64, description="hidden / input channels of the tokens' MLP")
    ] = 2.0
    relu_hidden: Annotated[
        int, Field(strict=True, ge=1, le=4096, description="channels inside the layers that shape the activations")
    ] = 48
    act: ActField = "gelu"
    norm_eps: NormEps = 1e-5

    def __post_init__(self) -> None:
        if self.stride > 1 and (self.expansion % 1 or self.inner_expansion % 1):
            raise ValueError("expansion and inner_expansion of depthwise convolutions must be whole numbers")

    def out_shape(self, x: Streams) -> Streams:
        need_streams(self.kind, x)
        y = x[0].strided(self.width, self.stride)
        for what, heads, channels in (
            ("bridge_heads", self.bridge_heads, x[0].channels),
            ("bridge_heads", self.bridge_heads, y.channels),
            ("num_heads", self.num_heads, x[1].channels),
        ):
            if channels % heads:
                raise ShapeError(f"{what} {heads} do not divide {channels} channels")
        hidden_channels(x[0].channels, self.expansion)
        hidden_channels(x[1].channels, self.token_expansion)
        return y, x[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileFormerClassifier(BlockSpec):
    """Tokens gather once more; 1×1 and pooling of the map, the first token beside it, two linear layers."""

    kind: ClassVar[str] = "mobile_former_classifier"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = f"{PAPER}, Section 3.4"
    streams: ClassVar[int] = 2
    expansion: Expansion = 6.0
    hidden: Annotated[int, Field(strict=True, ge=1, le=65536, description="channels between the two linear layers")] = (
        1920
    )
    bridge_heads: BridgeHeads = 2
    classes: Classes = 1000
    norm_eps: NormEps = 1e-5

    def out_shape(self, x: Streams) -> FeatureShape:
        need_streams(self.kind, x)
        if x[0].channels % self.bridge_heads:
            raise ShapeError(f"bridge_heads {self.bridge_heads} do not divide {x[0].channels} channels")
        hidden_channels(x[0].channels, self.expansion)
        return FeatureShape(self.classes, 1, 1)


KINDS: tuple[type[BlockSpec], ...] = (LiteBottleneck, GlobalTokens, MobileFormer, MobileFormerClassifier)
