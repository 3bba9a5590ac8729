"""The plain vision transformer: ViT (arXiv 2010.11929) and its distilled form, DeiT (arXiv 2012.12877)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitscope.blocks.tokens import TransformerLayer
from vitscope.spec.kinds import vit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, P prefix tokens, T = P + H*W tokens


class PatchEmbed(nn.Module):
    """Patches projected to tokens (ViT, Section 3.1): (B, 3, H·patch, W·patch) → (B, T, width).

    In front stand a class token and, in DeiT (Section 4), one of distillation; positions are learned for one grid.
    """

    def __init__(self, spec: grammar.PatchEmbed, x: FeatureShape):
        super().__init__()
        out, width = spec.out_shape(x), spec.width
        self.proj = nn.Conv2d(x.channels, width, spec.patch, spec.patch)
        self.norm = nn.LayerNorm(width, eps=spec.norm_eps) if spec.norm == "ln" else nn.Identity()
        self.cls_token = _tokens(1, width) if spec.class_tokens > 0 else None
        self.dist_token = _tokens(1, width) if spec.class_tokens > 1 else None
        self.pos_embed = _tokens(out.prefix + out.height * out.width, width) if spec.positions else None

    def forward(self, x: Tensor) -> Tensor:
        x_BTC = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.cls_token, self.dist_token) if token is not None]
        if prefix:
            x_BTC = torch.cat([*prefix, x_BTC], dim=1)
        return x_BTC if self.pos_embed is None else x_BTC + self.pos_embed


def _tokens(number: int, width: int) -> nn.Parameter:
    """Learned tokens or positions (1, number, width), drawn as the references do: a normal of deviation 0.02."""
    return nn.Parameter(torch.empty(1, number, width).normal_(std=0.02))


class Transformer(TransformerLayer):
    """A pre-norm transformer layer (ViT, Section 3.1): (B, T, C) → same."""

    def __init__(self, spec: grammar.Transformer, x: FeatureShape):
        hidden = int(x.channels * spec.expansion)
        super().__init__(x.channels, spec.num_heads, hidden, act=spec.act, norm_eps=spec.norm_eps)


BLOCKS = {grammar.PatchEmbed: PatchEmbed, grammar.Transformer: Transformer}
