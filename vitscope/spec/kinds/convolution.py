"""Grammar of convolutional stems, downsamplers, inverted residuals and heads that many families share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
    Act,
    ActField,
    BlockSpec,
    Classes,
    Expansion,
    Kernel,
    NormEps,
    NormField,
    Role,
    Stride,
    Width,
    hidden_channels,
    need_map,
)
from vitscope.spec.shape import FeatureShape

Bias = Annotated[bool, Field(strict=True, description="bias of the convolutions, also in front of a norm")]
SqueezeRatio = Annotated[
    float | None,
    Field(strict=True, gt=0, le=4, description="squeezed channels / those of se_of; null for no squeeze-excite"),
]
SqueezeOf = Annotated[Literal["input", "hidden"], Field(description="the channels that se_ratio is of")]
SqueezeMultiple = Annotated[
    int, Field(strict=True, ge=1, le=64, description="squeezed channels are rounded to a multiple of it")
]
SqueezeAct = Annotated[Act, Field(description="activation between the two layers of squeeze-excite")]
SqueezeGate = Annotated[Literal["sigmoid", "hardsigmoid"], Field(description="gate of squeeze-excite")]


def round_channels(channels: float, multiple: int) -> int:
    """To the nearest multiple, at least one, and never below nine tenths (the MobileNets' rule, arXiv 1801.04381)."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * channels else rounded + multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvStem(BlockSpec):
    """`depth` strided convolutions, each with norm and activation; widths halve backwards from `width`."""

    kind: ClassVar[str] = "conv_stem"
    role: ClassVar[Role] = "stem"
    source: ClassVar[str] = "EfficientFormerV2, arXiv 2212.08059, Section 3; LeViT, arXiv 2104.01136"
    width: Width
    depth: Annotated[int, Field(strict=True, ge=1, le=6, description="number of convolutions, each of stride 2")] = 2
    kernel: Kernel = 3
    act: ActField = "gelu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = True
    last_act: Annotated[bool, Field(strict=True, description="activation after the last convolution as well")] = True

    def __post_init__(self) -> None:
        if self.width % 2 ** (self.depth - 1):
            raise ValueError(
                f"width {self.width} cannot be halved {self.depth - 1} times for a stem of depth {self.depth}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of each convolution."""
        return tuple(self.width // 2 ** (self.depth - 1 - i) for i in range(self.depth))

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        for width in self.widths:
            x = x.strided(width, 2)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvDownsample(BlockSpec):
    """A strided convolution and a norm, without activation, between two stages."""

    kind: ClassVar[str] = "conv"
    role: ClassVar[Role] = "downsample"
    source: ClassVar[str] = "EfficientFormer, arXiv 2206.01191, Section 3"
    width: Width
    stride: Stride = 2
    kernel: Kernel = 3
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = True

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class Separable(BlockSpec):
    """Depthwise k×k, then 1×1, each with norm and activation, without a residual."""

    kind: ClassVar[str] = "separable"
    source: ClassVar[str] = "MobileNetV1, arXiv 1704.04861, Section 3.1"
    width: Width
    kernel: Kernel = 3
    stride: Stride = 1
    act: ActField = "relu6"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = False

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual(BlockSpec):
    """1×1 expand, depthwise k×k, linear 1×1 project; residual when stride is 1 and channels match.

    Where the hidden channels are those of the input (`expansion: 1`) there is no expanding convolution, as in the first
    unit of MobileNetV2. With `se_ratio` the depthwise output is gated (squeeze-excite).
    """

    kind: ClassVar[str] = "inverted_residual"
    source: ClassVar[str] = "MobileNetV2, arXiv 1801.04381, Section 3; MobileNetV3, arXiv 1905.02244 (squeeze-excite)"
    width: Width
    expansion: Expansion = 6.0
    hidden: Annotated[
        int | None,
        Field(strict=True, ge=1, le=1 << 20, description="hidden channels in place of expansion; null for expansion"),
    ] = None
    kernel: Kernel = 3
    stride: Stride = 1
    se_ratio: SqueezeRatio = None
    se_of: SqueezeOf = "hidden"
    se_multiple: SqueezeMultiple = 8
    se_act: SqueezeAct = "relu"
    se_gate: SqueezeGate = "hardsigmoid"
    act: ActField = "relu6"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = False
    fewer_norm: Annotated[
        bool, Field(strict=True, description="no norm but a bias after every convolution before the last")
    ] = False

    def hidden_of(self, in_channels: int) -> int:
        """Channels of the depthwise convolution."""
        return self.hidden if self.hidden is not None else hidden_channels(in_channels, self.expansion)

    def squeezed_of(self, in_channels: int) -> int | None:
        """Channels inside squeeze-excite, None without it."""
        if self.se_ratio is None:
            return None
        base = in_channels if self.se_of == "input" else self.hidden_of(in_channels)
        return round_channels(base * self.se_ratio, self.se_multiple)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        self.hidden_of(x.channels)
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class MbConv(InvertedResidual):
    """An inverted residual with squeeze-excite of a quarter of its input channels, and SiLU."""

    kind: ClassVar[str] = "mbconv"
    source: ClassVar[str] = "EfficientNet, arXiv 1905.11946, Section 4"
    se_ratio: SqueezeRatio = 0.25
    se_of: SqueezeOf = "input"
    se_multiple: SqueezeMultiple = 1
    se_act: SqueezeAct = "silu"
    se_gate: SqueezeGate = "sigmoid"
    act: ActField = "silu"


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedInvertedResidual(BlockSpec):
    """k×k expand in place of 1×1 and depthwise, linear 1×1 project; residual when stride is 1 and channels match.

    With `expansion: 1` and `project_kernel: 3` two 3×3 convolutions of one width, as in the stem of EfficientViT-L.
    """

    kind: ClassVar[str] = "fused_inverted_residual"
    source: ClassVar[str] = "EfficientNetV2, arXiv 2104.00298, Section 3.2 (Fused-MBConv)"
    width: Width
    expansion: Expansion = 4.0
    kernel: Kernel = 3
    project_kernel: Annotated[Kernel, Field(description="side of the projection, odd")] = 1
    project_act: Annotated[Act, Field(description="activation after the projection")] = "none"
    stride: Stride = 1
    act: ActField = "silu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = False

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        hidden_channels(x.channels, self.expansion)
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier(BlockSpec):
    """Norm, pooling to one vector, one linear layer."""

    kind: ClassVar[str] = "classifier"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = "the plain ImageNet head"
    takes_prefix: ClassVar[bool] = True
    num_linear: ClassVar[int] = 1
    classes: Classes = 1000
    norm: Annotated[Literal["bn", "ln", "none"], Field(description="norm before pooling; ln over channels")] = "bn"
    norm_eps: NormEps = 1e-5
    pool: Annotated[
        Literal["mean", "token"],
        Field(description="mean: average over all positions; token: a class token for each linear layer"),
    ] = "mean"
    pool_first: Annotated[bool, Field(strict=True, description="pooling before the norm")] = False

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        if x.tokens and self.norm == "bn" and not self.pool_first:
            raise ShapeError(f"{self.kind} with norm bn needs a feature map, but tokens arrive: use norm: ln")
        if self.pool == "mean" and x.prefix:
            raise ShapeError(f"{self.kind} would average the class token with the grid's: use pool: token")
        if self.pool == "token" and x.prefix != self.num_linear:
            need = "one class token" if self.num_linear == 1 else "a class and a distillation token"
            raise ShapeError(f"{self.kind} with pool: token needs {need}, but {x.prefix} prefix tokens arrive")
        return FeatureShape(self.classes, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilledClassifier(Classifier):
    """Norm, pooling, two linear layers: one for labels, one for a teacher; averaged in eval mode."""

    kind: ClassVar[str] = "distilled_classifier"
    source: ClassVar[str] = "DeiT, arXiv 2012.12877; EfficientFormerV2, arXiv 2212.08059"
    num_linear: ClassVar[int] = 2
    own_norms: Annotated[
        bool, Field(strict=True, description="a BatchNorm of its own in front of each linear layer, after pooling")
    ] = False

    def __post_init__(self) -> None:
        if self.own_norms and not (self.norm == "bn" and self.pool_first and self.pool == "mean"):
            raise ValueError("own_norms needs norm: bn, pool: mean and pool_first: true")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvClassifier(BlockSpec):
    """1×1 convolution with norm and activation to `width` channels, global average pooling, one linear layer.

    With `hidden` a second 1×1 convolution with activation works on the pooled vector: with a bias where it has no norm.
    """

    kind: ClassVar[str] = "conv_classifier"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = "MobileNetV2, arXiv 1801.04381, Table 2; with hidden MobileNetV3, arXiv 1905.02244, Table 1"
    width: Width
    hidden: Annotated[
        int | None,
        Field(strict=True, ge=1, le=65536, description="channels of a layer after pooling; null for no such layer"),
    ] = None
    hidden_norm: Annotated[Literal["bn", "none"], Field(description="norm of the layer after pooling")] = "none"
    classes: Classes = 1000
    act: ActField = "relu6"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = False

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return FeatureShape(self.classes, 1, 1)


KINDS: tuple[type[BlockSpec], ...] = (
    ConvStem,
    ConvDownsample,
    Separable,
    InvertedResidual,
    MbConv,
    FusedInvertedResidual,
    Classifier,
    DistilledClassifier,
    ConvClassifier,
)
