"""MobileOne (arXiv 2206.04040): depthwise and pointwise convolutions, over-parameterised by branches while training."""

from __future__ import annotations

from torch import nn

from vitscope.blocks.reparam import ReparamConv
from vitscope.spec.grammar import squeezed_channels
from vitscope.spec.kinds import mobileone as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class MobileOneBlock(nn.Sequential):
    """Depthwise k×k and pointwise 1×1 (Section 3.2), each ReparamConv: (B, C, H, W) → (B, width, H/stride, W/stride)."""

    def __init__(self, spec: grammar.MobileOneBlock, x: FeatureShape):
        super().__init__()
        options = {"branches": spec.branches, "norm_eps": spec.norm_eps, "act": spec.act}
        self.depthwise = ReparamConv(
            x.channels,
            x.channels,
            spec.kernel,
            stride=spec.stride,
            groups=x.channels,
            small_kernel=1 if spec.kernel > 1 else None,
            squeezed=squeezed_channels(x.channels, spec.se_ratio),
            **options,
        )
        self.pointwise = ReparamConv(
            x.channels, spec.width, squeezed=squeezed_channels(spec.width, spec.se_ratio), **options
        )


class MobileOneStem(nn.Sequential):
    """A dense k×k of stride 2, then MobileOne blocks of stride 2: (B, 3, H, W) → (B, width, H/2^depth, W/2^depth)."""

    def __init__(self, spec: grammar.MobileOneStem, x: FeatureShape):
        super().__init__()
        options = {"branches": spec.branches, "norm_eps": spec.norm_eps, "act": spec.act}
        self.conv = ReparamConv(
            x.channels, spec.width, spec.kernel, stride=2, small_kernel=1 if spec.kernel > 1 else None, **options
        )
        step = grammar.MobileOneBlock(width=spec.width, kernel=spec.kernel, stride=2, **options)  # type: ignore[arg-type]
        x = x.strided(spec.width, 2)
        for i in range(2, spec.depth + 1):
            self.add_module(f"block{i}", MobileOneBlock(step, x))
            x = step.out_shape(x)


BLOCKS = {grammar.MobileOneStem: MobileOneStem, grammar.MobileOneBlock: MobileOneBlock}
