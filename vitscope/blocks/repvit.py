"""RepViT (arXiv 2307.09283): a reparameterisable depthwise token mixer, then a channel mixer; deep downsampling."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.layers import ConvNormAct, DropPath
from vitscope.blocks.reparam import ReparamConv
from vitscope.spec.kinds import repvit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class ConvMlp(nn.Sequential):
    """1×1 expand, activation, 1×1 project, each with norm: (B, C, H, W) → same."""

    def __init__(self, dim: int, spec: grammar.RepVitBlock | grammar.RepVitDownsample):
        super().__init__()
        hidden = int(dim * spec.expansion)
        self.expand = ConvNormAct(dim, hidden, bias=False, norm_eps=spec.norm_eps, act=spec.act)
        self.project = ConvNormAct(hidden, dim, bias=False, norm_eps=spec.norm_eps)


class RepVitBlock(nn.Module):
    """Token mixer (k×k and 1×1 depthwise and the input itself, summed, then a norm), then a residual MLP: shape kept."""

    def __init__(self, spec: grammar.RepVitBlock, x: FeatureShape):
        super().__init__()
        self.token_mixer = ReparamConv(
            x.channels,
            x.channels,
            spec.kernel,
            groups=x.channels,
            small_kernel=1,
            identity="plain",
            norm_sum=True,
            norm_eps=spec.norm_eps,
            squeezed=spec.squeezed_of(x.channels),
        )
        self.channel_mixer = ConvMlp(x.channels, spec)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.channel_mixer(x))


class RepVitDownsample(nn.Module):
    """Block, depthwise stride, pointwise widening, residual MLP: (B, C, H, W) → (B, width, H/stride, W/stride)."""

    def __init__(self, spec: grammar.RepVitDownsample, x: FeatureShape):
        super().__init__()
        options = {"bias": False, "norm_eps": spec.norm_eps}
        before = grammar.RepVitBlock(kernel=spec.kernel, expansion=spec.expansion, act=spec.act, norm_eps=spec.norm_eps)
        self.block = RepVitBlock(before, x)
        self.depthwise = ConvNormAct(
            x.channels, x.channels, spec.kernel, stride=spec.stride, groups=x.channels, **options
        )
        self.pointwise = ConvNormAct(x.channels, spec.width, **options)
        self.channel_mixer = ConvMlp(spec.width, spec)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(self.depthwise(self.block(x)))
        return x + self.channel_mixer(x)


BLOCKS = {grammar.RepVitBlock: RepVitBlock, grammar.RepVitDownsample: RepVitDownsample}
