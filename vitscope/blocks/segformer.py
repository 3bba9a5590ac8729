"""SegFormer (arXiv 2105.15203): attention to a reduced map, Mix-FFN, and the head that is nothing but 1×1 layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitscope.blocks.efficientvit import resized
from vitscope.blocks.layers import ACTS, NORMS, ConvNormAct, DropPath
from vitscope.spec.kinds import segformer as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W tokens, R reduced tokens, N heads, D head dim


class StageNorm(nn.Module):
    """A norm alone: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.StageNorm, x: FeatureShape):
        super().__init__()
        self.norm = NORMS[spec.norm](x.channels, spec.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ReducedAttention(nn.Module):
    """Every position attends to a map of 1/reduction the sides (Section 3.1, Equation 2): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.SegFormer, dim: int):
        super().__init__()
        self.num_heads = spec.num_heads
        self.q = nn.Linear(dim, dim)
        reduces = spec.reduction > 1
        self.reduce = nn.Conv2d(dim, dim, spec.reduction, spec.reduction) if reduces else nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=spec.reduction_norm_eps) if reduces else nn.Identity()
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, C = x.shape[:2]
        N, D = self.num_heads, C // self.num_heads
        x_BTC = x.flatten(2).transpose(1, 2)
        reduced_BRC = self.norm(self.reduce(x).flatten(2).transpose(1, 2))
        q_BNTD = self.q(x_BTC).reshape(B, -1, N, D).transpose(1, 2)
        k_BNRD, v_BNRD = self.kv(reduced_BRC).reshape(B, -1, 2, N, D).permute(2, 0, 3, 1, 4).unbind(0)
        attn_BNTR = (q_BNTD * D**-0.5 @ k_BNRD.transpose(2, 3)).softmax(-1)
        y_BTC = self.proj((attn_BNTR @ v_BNRD).transpose(1, 2).reshape(B, -1, C))
        return y_BTC.transpose(1, 2).reshape(x.shape)


class MixFfn(nn.Module):
    """1×1, depthwise k×k, activation, 1×1 (Section 3.1, Equation 3): (B, C, H, W) → same."""

    def __init__(self, dim: int, hidden: int, kernel: int, act: str):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.act = ACTS[act]()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.depthwise(self.fc1(x))))


class SegFormerBlock(nn.Module):
    """Pre-norm attention and Mix-FFN, a residual around each (Figure 2): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.SegFormer, x: FeatureShape):
        super().__init__()
        dim = x.channels
        self.norm1 = NORMS["ln"](dim, spec.norm_eps)
        self.attn = ReducedAttention(spec, dim)
        self.norm2 = NORMS["ln"](dim, spec.norm_eps)
        self.mlp = MixFfn(dim, int(dim * spec.expansion), spec.kernel, spec.act)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SegFormerHead(nn.Module):
    """Stages projected, resized, concatenated, merged (Section 3.2): maps → (B, classes, H, W) of the last of them."""

    def __init__(self, spec: grammar.SegFormerHead, x: tuple[FeatureShape, ...]):
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv2d(stage.channels, spec.width, 1) for stage in x)
        self.merge = ConvNormAct(len(x) * spec.width, spec.width, bias=False, norm_eps=spec.norm_eps, act=spec.act)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.head = nn.Conv2d(spec.width, spec.classes, 1)

    def forward(self, *stages: Tensor) -> Tensor:
        grid = (stages[-1].shape[2], stages[-1].shape[3])
        maps = [resized(conv(x), grid, "bilinear") for conv, x in zip(self.inputs, stages, strict=True)]
        return self.head(self.dropout(self.merge(torch.cat(maps, 1))))


BLOCKS = {
    grammar.StageNorm: StageNorm,
    grammar.SegFormer: SegFormerBlock,
    grammar.SegFormerHead: SegFormerHead,
}
