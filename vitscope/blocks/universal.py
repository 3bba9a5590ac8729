"""The universal inverted bottleneck of MobileNetV4 (arXiv 2404.10518)."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.layers import ConvNormAct, DropPath
from vitscope.spec.kinds import universal as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class UniversalInvertedBottleneck(nn.Module):
    """Depthwise, expand, depthwise, project (Section 4, Figure 4): (B, C, H, W) → (B, width, H/stride, W/stride).

    Each depthwise convolution is optional; the first has a norm and no activation.
    """

    def __init__(self, spec: grammar.UniversalInvertedBottleneck, x: FeatureShape):
        super().__init__()
        C, hidden = x.channels, spec.hidden_of(x.channels)
        options = {"bias": False, "norm": spec.norm, "norm_eps": spec.norm_eps}
        self.start: nn.Module = nn.Identity()
        if spec.start_kernel is not None:
            stride = spec.stride if spec.kernel is None else 1
            self.start = ConvNormAct(C, C, spec.start_kernel, stride=stride, groups=C, **options)
        self.expand = ConvNormAct(C, hidden, act=spec.act, **options)
        self.depthwise: nn.Module = nn.Identity()
        if spec.kernel is not None:
            self.depthwise = ConvNormAct(
                hidden, hidden, spec.kernel, stride=spec.stride, groups=hidden, act=spec.act, **options
            )
        self.project = ConvNormAct(hidden, spec.width, **options)
        self.drop_path = DropPath()
        self.has_residual = spec.stride == 1 and spec.width == C

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(self.start(x))))
        return x + self.drop_path(y) if self.has_residual else y


BLOCKS = {grammar.UniversalInvertedBottleneck: UniversalInvertedBottleneck}
