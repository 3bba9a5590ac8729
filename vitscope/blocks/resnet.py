"""ResNet (arXiv 1512.03385): the stem with pooling, and the bottleneck with the stride on its k×k convolution."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.layers import ACTS, ConvNormAct, DropPath
from vitscope.spec.kinds import resnet as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class PoolStem(nn.Module):
    """Strided convolution, max pooling (Table 1): (B, C, H, W) → (B, width, H/4, W/4), each half rounded up."""

    def __init__(self, spec: grammar.PoolStem, x: FeatureShape):
        super().__init__()
        options = {"bias": False, "norm": spec.norm, "norm_eps": spec.norm_eps, "act": spec.act}
        self.conv = ConvNormAct(x.channels, spec.width, spec.kernel, stride=2, **options)
        self.pool = nn.MaxPool2d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


class Bottleneck(nn.Module):
    """Reduce, k×k, expand, residual, activation (Section 4.1): (B, C, H, W) → (B, width, H/stride, W/stride)."""

    def __init__(self, spec: grammar.Bottleneck, x: FeatureShape):
        super().__init__()
        inner = spec.width // spec.reduction
        options = {"bias": False, "norm": spec.norm, "norm_eps": spec.norm_eps}
        self.reduce = ConvNormAct(x.channels, inner, act=spec.act, **options)
        self.conv = ConvNormAct(inner, inner, spec.kernel, stride=spec.stride, act=spec.act, **options)
        self.expand = ConvNormAct(inner, spec.width, **options)
        self.shortcut: nn.Module = nn.Identity()
        if spec.stride != 1 or spec.width != x.channels:
            self.shortcut = ConvNormAct(x.channels, spec.width, stride=spec.stride, **options)
        self.drop_path = DropPath()
        self.act = ACTS[spec.act]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.conv(self.reduce(x)))
        return self.act(self.shortcut(x) + self.drop_path(y))


BLOCKS = {grammar.PoolStem: PoolStem, grammar.Bottleneck: Bottleneck}
