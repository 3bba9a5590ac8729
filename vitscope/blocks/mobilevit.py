"""MobileViT (arXiv 2110.02178) and MobileViTv2 (arXiv 2206.02680): attention across the patches of a small map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.layers import ACTS, ConvNormAct, DropPath
from vitscope.blocks.tokens import TransformerLayer
from vitscope.spec.kinds import mobilevit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, D token width, H W space, P pixels of a patch, N patches

# Nothing here has more than five dimensions: Core ML and some LiteRT delegates take no more.


def unfold(x: Tensor, patch: int) -> Tensor:
    """The pixels of every patch side by side: (B, D, H, W) → (B, D, P, N), both in row-major order."""
    B, D, H, W = x.shape
    x = x.reshape(B * D, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 1, 3).reshape(B, D, patch * patch, -1)


def fold(x_BDPN: Tensor, patch: int, height: int, width: int) -> Tensor:
    """What `unfold` took apart: (B, D, P, N) → (B, D, H, W)."""
    B, D, _, _ = x_BDPN.shape
    x = x_BDPN.reshape(B * D, patch, patch, height // patch, width // patch)
    return x.permute(0, 3, 1, 4, 2).reshape(B, D, height, width)


class MobileVitBlock(nn.Module):
    """Local representation, global representation, fusion (arXiv 2110.02178, Figure 1b): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.MobileVit, x: FeatureShape):
        super().__init__()
        channels, options = x.channels, {"bias": False, "norm": spec.norm, "norm_eps": spec.norm_eps, "act": spec.act}
        self.patch = spec.patch
        self.local = ConvNormAct(channels, channels, spec.kernel, **options)
        self.embed = nn.Conv2d(channels, spec.dim, 1, bias=False)
        self.layers = nn.Sequential(
            *(
                TransformerLayer(
                    spec.dim, spec.num_heads, int(spec.dim * spec.expansion), act=spec.act, norm_eps=spec.norm_eps
                )
                for _ in range(spec.num_layers)
            )
        )
        self.norm = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.proj = ConvNormAct(spec.dim, channels, **options)
        self.fusion = ConvNormAct(2 * channels, channels, spec.kernel, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(torch.cat([x, self.proj(self.across_patches(self.embed(self.local(x))))], 1))

    def across_patches(self, x: Tensor) -> Tensor:
        """Every place of the patches attends over all patches: (B, D, H, W) → same."""
        B, D, H, W = x.shape
        grid = grammar.whole_patches(H, W, self.patch)
        if grid != (H, W):
            x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        P = self.patch**2
        # Contiguous for one image too, where reshape alone would leave the channels apart in memory.
        tokens = unfold(x, self.patch).permute(0, 2, 3, 1).reshape(B * P, -1, D).contiguous()  # (B·P, N, D)
        tokens = self.norm(self.layers(tokens))
        x = fold(tokens.reshape(B, P, -1, D).permute(0, 3, 1, 2), self.patch, *grid)
        if grid != (H, W):
            x = F.interpolate(x, size=(H, W), mode="bilinear", align_corners=False)
        return x


class SeparableAttention(nn.Module):
    """Self-attention in linear time (arXiv 2206.02680, Section 3.2): (B, D, P, N) → same.

    A single query channel scores the patches, the keys are averaged by it to one context, which gates the values.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.qkv = nn.Conv2d(dim, 1 + 2 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q_B1PN, k_BDPN, v_BDPN = self.qkv(x).split([1, self.dim, self.dim], dim=1)
        context_BDP1 = (k_BDPN * q_B1PN.softmax(-1)).sum(-1, keepdim=True)
        return self.proj(v_BDPN.relu() * context_BDP1)


class SeparableLayer(nn.Module):
    """Pre-norm separable attention, then a pre-norm pair of 1×1 convolutions; a residual around each: (B, D, P, N) → same.

    GroupNorm of one group: an image's mean and deviation are those of all its channels, pixels and patches together.
    """

    def __init__(self, dim: int, hidden: int, act: str, norm_eps: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(1, dim, eps=norm_eps)
        self.attn = SeparableAttention(dim)
        self.norm2 = nn.GroupNorm(1, dim, eps=norm_eps)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = ACTS[act]()
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.fc2(self.act(self.fc1(self.norm2(x)))))


class MobileVitV2Block(nn.Module):
    """MobileViTv2 block (arXiv 2206.02680, Section 3.3): (B, C, H, W) → (B, C, H', W'), sides up to whole patches."""

    def __init__(self, spec: grammar.MobileVitV2, x: FeatureShape):
        super().__init__()
        channels, dim = x.channels, spec.dim(x.channels)
        options = {"bias": False, "norm": spec.norm, "norm_eps": spec.norm_eps}
        self.patch = spec.patch
        self.local = ConvNormAct(channels, channels, spec.kernel, groups=channels, act=spec.act, **options)
        self.embed = nn.Conv2d(channels, dim, 1, bias=False)
        hidden = int(dim * spec.expansion)
        self.layers = nn.Sequential(
            *(SeparableLayer(dim, hidden, spec.act, spec.norm_eps) for _ in range(spec.num_layers))
        )
        self.norm = nn.GroupNorm(1, dim, eps=spec.norm_eps)
        self.proj = ConvNormAct(dim, channels, **options)

    def forward(self, x: Tensor) -> Tensor:
        grid = grammar.whole_patches(x.shape[2], x.shape[3], self.patch)
        if grid != tuple(x.shape[2:]):
            x = F.interpolate(x, size=grid, mode="bilinear", align_corners=True)
        patches_BDPN = self.layers(unfold(self.embed(self.local(x)), self.patch))
        return self.proj(fold(self.norm(patches_BDPN), self.patch, *grid))


BLOCKS = {grammar.MobileVit: MobileVitBlock, grammar.MobileVitV2: MobileVitV2Block}
