"""Grammar of convolutional stems, downsamplers, inverted residuals and heads that many families share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitscope.errors import ShapeError
from vitscope.spec.grammar import (
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
    odd,
)
from vitscope.spec.shape import FeatureShape

Bias = Annotated[bool, Field(strict=True, description="bias of the convolutions, also in front of a norm")]


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
        odd("kernel", self.kernel)
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

    def __post_init__(self) -> None:
        odd("kernel", self.kernel)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        return x.strided(self.width, self.stride)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual(BlockSpec):
    """1×1 expand, depthwise k×k, linear 1×1 project; residual when stride is 1 and channels match.

    With `expansion: 1` there is no expanding convolution, as in the first unit of MobileNetV2.
    """

    kind: ClassVar[str] = "inverted_residual"
    source: ClassVar[str] = "MobileNetV2, arXiv 1801.04381, Section 3"
    width: Width
    expansion: Expansion = 6.0
    kernel: Kernel = 3
    stride: Stride = 1
    act: ActField = "relu6"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = False
    fewer_norm: Annotated[
        bool, Field(strict=True, description="no norm but a bias after every convolution before the last")
    ] = False

    def __post_init__(self) -> None:
        odd("kernel", self.kernel)

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        need_map(self.kind, x)
        hidden_channels(x.channels, self.expansion)
        return x.strided(self.width, self.stride)


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
    project_kernel: Annotated[int, Field(strict=True, ge=1, le=63, description="side of the projection, odd")] = 1
    stride: Stride = 1
    act: ActField = "silu"
    norm: NormField = "bn"
    norm_eps: NormEps = 1e-5
    bias: Bias = False

    def __post_init__(self) -> None:
        odd("kernel", self.kernel)
        odd("project_kernel", self.project_kernel)

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
    """1×1 convolution with norm and activation to `width` channels, global average pooling, one linear layer."""

    kind: ClassVar[str] = "conv_classifier"
    role: ClassVar[Role] = "head"
    source: ClassVar[str] = "MobileNetV2, arXiv 1801.04381, Table 2"
    width: Width
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
    InvertedResidual,
    FusedInvertedResidual,
    Classifier,
    DistilledClassifier,
    ConvClassifier,
)
