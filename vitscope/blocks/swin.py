"""Swin Transformer (arXiv 2103.14030): transformer layers within windows, merging of patches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.tokens import TransformerLayer
from vitscope.blocks.windows import WindowAttention
from vitscope.spec.kinds import swin as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space


class Swin(TransformerLayer):
    """A pre-norm transformer layer with attention within windows (Section 3.2): (B, H·W, C) → same."""

    def __init__(self, spec: grammar.Swin, x: FeatureShape):
        hidden = int(x.channels * spec.expansion)
        super().__init__(x.channels, spec.num_heads, hidden, act=spec.act, norm_eps=spec.norm_eps)
        self.attn = WindowAttention(
            x.channels, spec.num_heads, grid=(x.height, x.width), window=spec.window, shift=spec.shift
        )


class PatchMerging(nn.Module):
    """2×2 tokens side by side, LayerNorm, linear (Section 3.1): (B, H·W, C) → (B, H/2·W/2, width)."""

    def __init__(self, spec: grammar.PatchMerging, x: FeatureShape):
        super().__init__()
        self.grid = (x.height, x.width)
        self.norm = nn.LayerNorm(4 * x.channels, eps=spec.norm_eps)
        self.reduction = nn.Linear(4 * x.channels, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, _, C = x.shape
        H, W = self.grid
        x_BHWC = x.reshape(B, H, W, C)
        if H % 2 or W % 2:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, W % 2, 0, H % 2))
        # Of each 2×2 the left column first, from the top: (row, column) as (0, 0), (1, 0), (0, 1), (1, 1)
        pairs = x_BHWC.reshape(B, -(-H // 2), 2, -(-W // 2), 2, C).permute(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(pairs.reshape(B, -1, 4 * C)))


BLOCKS = {grammar.Swin: Swin, grammar.PatchMerging: PatchMerging}
