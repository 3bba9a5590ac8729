"""Convolutional stem, downsampling, inverted residual (MobileNetV2, arXiv 1801.04381) and classifier heads."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.layers import ConvNormAct, DropPath, SqueezeExcite, add_bias, norm_affine
from vitscope.spec.kinds import convolution as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W tokens


class ConvStem(nn.Sequential):
    """`depth` convolutions of stride 2 with norm and activation: (B, 3, H, W) → (B, width, H/2^depth, W/2^depth)."""

    def __init__(self, spec: grammar.ConvStem, x: FeatureShape):
        super().__init__()
        in_channels = x.channels
        for i, width in enumerate(spec.widths, start=1):
            conv = ConvNormAct(
                in_channels,
                width,
                spec.kernel,
                stride=2,
                bias=spec.bias,
                norm=spec.norm,
                norm_eps=spec.norm_eps,
                act=spec.act if spec.last_act or i < spec.depth else "none",
            )
            self.add_module(f"conv{i}", conv)
            in_channels = width


class ConvDownsample(ConvNormAct):
    """Strided convolution and norm: (B, C, H, W) → (B, width, H/stride, W/stride)."""

    def __init__(self, spec: grammar.ConvDownsample, x: FeatureShape):
        super().__init__(
            x.channels,
            spec.width,
            spec.kernel,
            stride=spec.stride,
            bias=spec.bias,
            norm=spec.norm,
            norm_eps=spec.norm_eps,
        )


class Separable(nn.Sequential):
    """k×k depthwise, then 1×1 (MobileNetV1, arXiv 1704.04861, Section 3.1): (B, C, H, W) → (B, width, H', W')."""

    def __init__(self, spec: grammar.Separable, x: FeatureShape):
        super().__init__()
        options = {"bias": spec.bias, "norm": spec.norm, "norm_eps": spec.norm_eps, "act": spec.act}
        self.depthwise = ConvNormAct(
            x.channels, x.channels, spec.kernel, stride=spec.stride, groups=x.channels, **options
        )
        self.project = ConvNormAct(x.channels, spec.width, **options)


class InvertedResidual(nn.Module):
    """1×1 expand, k×k depthwise, linear 1×1 project (arXiv 1801.04381, Section 3): (B, C, H, W) → (B, width, H', W').

    Squeeze-excite, where it has one, gates the output of the depthwise convolution (arXiv 1905.02244, Figure 4).
    """

    def __init__(self, spec: grammar.InvertedResidual, x: FeatureShape):
        super().__init__()
        hidden, squeezed = spec.hidden_of(x.channels), spec.squeezed_of(x.channels)
        options = {"bias": spec.bias, "norm": spec.norm, "norm_eps": spec.norm_eps}
        inner = {"bias": True, "norm": "none"} if spec.fewer_norm else options
        self.expand = ConvNormAct(x.channels, hidden, act=spec.act, **inner) if hidden != x.channels else nn.Identity()
        self.depthwise = ConvNormAct(
            hidden, hidden, spec.kernel, stride=spec.stride, groups=hidden, act=spec.act, **inner
        )
        self.se = SqueezeExcite(hidden, squeezed, act=spec.se_act, gate=spec.se_gate) if squeezed else nn.Identity()
        self.project = ConvNormAct(hidden, spec.width, **options)
        self.drop_path = DropPath()
        self.has_residual = spec.stride == 1 and spec.width == x.channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + self.drop_path(y) if self.has_residual else y


class FusedInvertedResidual(nn.Module):
    """k×k expand, linear project (Fused-MBConv, arXiv 2104.00298, Section 3.2): (B, C, H, W) → (B, width, H', W')."""

    def __init__(self, spec: grammar.FusedInvertedResidual, x: FeatureShape):
        super().__init__()
        hidden = int(x.channels * spec.expansion)
        options = {"bias": spec.bias, "norm": spec.norm, "norm_eps": spec.norm_eps}
        self.expand = ConvNormAct(x.channels, hidden, spec.kernel, stride=spec.stride, act=spec.act, **options)
        self.project = ConvNormAct(hidden, spec.width, spec.project_kernel, act=spec.project_act, **options)
        self.drop_path = DropPath()
        self.has_residual = spec.stride == 1 and spec.width == x.channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.expand(x))
        return x + self.drop_path(y) if self.has_residual else y


class Classifier(nn.Module):
    """Norm, pooling, linear: (B, C, H, W) or (B, T, C) → (B, classes)."""

    def __init__(self, spec: grammar.Classifier, x: FeatureShape):
        super().__init__()
        self.tokens, self.num_linear = x.tokens, spec.num_linear
        self.pool, self.pool_first = spec.pool, spec.pool_first
        self.norm: nn.Module = nn.Identity()
        if spec.norm == "bn":
            self.norm = (nn.BatchNorm1d if spec.pool_first else nn.BatchNorm2d)(x.channels, eps=spec.norm_eps)
        elif spec.norm == "ln":
            self.norm = nn.LayerNorm(x.channels, eps=spec.norm_eps)
        self.head = nn.Linear(x.channels, spec.classes)

    def pooled(self, x: Tensor) -> list[Tensor]:
        """What each linear layer takes, normalised, (B, C): a class token of its own, or all the same average."""
        if not self.pool_first:
            if isinstance(self.norm, nn.LayerNorm) and not self.tokens:
                x = x.flatten(2).transpose(1, 2)  # (B, T, C)
            x = self.norm(x)
        if self.pool == "token":
            vectors = [x[:, i] for i in range(self.num_linear)]
        else:
            vectors = [x.mean(1) if x.dim() == 3 else x.mean((2, 3))]
        if self.pool_first:
            vectors = [self.norm(vector) for vector in vectors]
        return vectors * (self.num_linear // len(vectors))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pooled(x)[0])

    def fuse(self) -> None:
        """Fold a BatchNorm into the linear layer: pooling between them is an average, which commutes with it."""
        self.norm = fold_norm_forward(self.norm, self.head)


def fold_norm_forward(norm: nn.Module, *heads: nn.Linear | nn.Conv2d) -> nn.Module:
    """Fold a BatchNorm into the linear layers or 1×1 convolutions behind it; returns what stands in the norm's place."""
    if not isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm1d)):
        return norm
    gain, shift = norm_affine(norm)
    for head in heads:
        if not head.weight.is_meta:
            weight = head.weight.double().flatten(1)
            add_bias(head, weight @ shift)
            head.weight.data = (weight * gain).to(head.weight.dtype).reshape(head.weight.shape)
    return nn.Identity()


class DistilledClassifier(Classifier):
    """Two linear layers (DeiT, arXiv 2012.12877, Section 4): their pair while training, their average in eval mode."""

    def __init__(self, spec: grammar.DistilledClassifier, x: FeatureShape):
        super().__init__(spec, x)
        self.head_dist: nn.Module = nn.Linear(x.channels, spec.classes)
        self.norm_dist = nn.BatchNorm1d(x.channels, eps=spec.norm_eps) if spec.own_norms else None

    def pooled(self, x: Tensor) -> list[Tensor]:
        """As of the plain head; with a norm for each linear layer, the average through either."""
        if self.norm_dist is None:
            return super().pooled(x)
        vector = x.mean(1) if x.dim() == 3 else x.mean((2, 3))
        return [self.norm(vector), self.norm_dist(vector)]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        label, teacher = self.pooled(x)
        if isinstance(self.head_dist, nn.Identity):
            return self.head(label)
        if self.training:
            return self.head(label), self.head_dist(teacher)
        return (self.head(label) + self.head_dist(teacher)) / 2

    def fuse(self) -> None:
        """Fold the norms into both layers, then both layers into one: their average is a linear layer again.

        Two layers that read tokens of their own stay two.
        """
        if isinstance(self.head_dist, nn.Linear):
            if self.norm_dist is not None:
                fold_norm_forward(self.norm_dist, self.head_dist)
                self.norm_dist = None
                self.norm = fold_norm_forward(self.norm, self.head)
            self.norm = fold_norm_forward(self.norm, self.head, self.head_dist)
            if self.pool == "token":
                return
            if not self.head.weight.is_meta:
                self.head.weight.data = (self.head.weight.data + self.head_dist.weight.data) / 2
                self.head.bias.data = (self.head.bias.data + self.head_dist.bias.data) / 2
            self.head_dist = nn.Identity()


class ConvClassifier(nn.Module):
    """1×1 convolution, global average pooling, linear (arXiv 1801.04381, Table 2): (B, C, H, W) → (B, classes).

    Between pooling and linear there may be one layer more, a 1×1 convolution on one position (arXiv 1905.02244, Table 1).
    """

    def __init__(self, spec: grammar.ConvClassifier, x: FeatureShape):
        super().__init__()
        self.conv = ConvNormAct(
            x.channels, spec.width, bias=spec.bias, norm=spec.norm, norm_eps=spec.norm_eps, act=spec.act
        )
        self.hidden: nn.Module = nn.Identity()
        if spec.hidden is not None:
            bias = spec.bias or spec.hidden_norm == "none"
            options = {"bias": bias, "norm": spec.hidden_norm, "norm_eps": spec.norm_eps, "act": spec.act}
            self.hidden = ConvNormAct(spec.width, spec.hidden, **options)
        self.head = nn.Linear(spec.hidden or spec.width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.conv(x).mean((2, 3), keepdim=True)).flatten(1))


BLOCKS = {
    grammar.ConvStem: ConvStem,
    grammar.ConvDownsample: ConvDownsample,
    grammar.Separable: Separable,
    grammar.InvertedResidual: InvertedResidual,
    grammar.MbConv: InvertedResidual,
    grammar.FusedInvertedResidual: FusedInvertedResidual,
    grammar.Classifier: Classifier,
    grammar.DistilledClassifier: DistilledClassifier,
    grammar.ConvClassifier: ConvClassifier,
}
