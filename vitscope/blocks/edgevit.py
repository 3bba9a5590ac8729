"""EdgeViT (arXiv 2205.03436): local aggregation, attention among sampled positions, local propagation."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.convolution import fold_norm_forward
from vitscope.blocks.layers import NORMS, ConvNormAct, DropPath
from vitscope.blocks.tokens import Mlp, SelfAttention
from vitscope.spec.kinds import edgevit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W tokens, h w space after sampling


class ConvNorm(nn.Module):
    """Patches to positions, then a norm (Section 3.1): (B, C, H, W) → (B, width, H/stride, W/stride)."""

    def __init__(self, spec: grammar.ConvNorm, x: FeatureShape):
        super().__init__()
        self.conv = nn.Conv2d(x.channels, spec.width, spec.stride, spec.stride)
        self.norm = NORMS[spec.norm](spec.width, spec.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    fuse = ConvNormAct.fuse


def positions(dim: int, kernel: int) -> nn.Conv2d:
    """The depthwise convolution that, added to its input, tells where each position is."""
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)


class LocalAggregation(nn.Module):
    """Each window gathered by 1×1, depthwise k×k, 1×1, then an MLP of 1×1 (Section 3.2): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.EdgeVit, dim: int):
        super().__init__()
        hidden = int(dim * spec.expansion)
        self.positions = positions(dim, spec.position_kernel)
        self.norm1 = nn.BatchNorm2d(dim)
        self.gather = nn.Sequential(nn.Conv2d(dim, dim, 1), positions(dim, spec.kernel), nn.Conv2d(dim, dim, 1))
        self.norm2 = nn.BatchNorm2d(dim)
        self.fc1 = ConvNormAct(dim, hidden, norm="none", act=spec.act)
        self.fc2 = ConvNormAct(hidden, dim, norm="none")
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(x)
        x = x + self.drop_path(self.gather(self.norm1(x)))
        return x + self.drop_path(self.fc2(self.fc1(self.norm2(x))))

    def fuse(self) -> None:
        """Fold both norms into the 1×1 convolutions behind them."""
        first = self.gather[0]
        assert isinstance(first, nn.Conv2d)
        self.norm1 = fold_norm_forward(self.norm1, first)
        self.norm2 = fold_norm_forward(self.norm2, self.fc1.conv)


class SparseAttention(nn.Module):
    """Every rate-th row and column attends, then a transposed convolution spreads (Section 3.2): (B, T, C) → same."""

    def __init__(self, spec: grammar.EdgeVit, dim: int):
        super().__init__()
        self.rate = rate = spec.sample_rate
        self.attn = SelfAttention(dim, spec.num_heads)
        self.spread = nn.ConvTranspose2d(dim, dim, rate, rate, groups=dim) if rate > 1 else nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=spec.spread_norm_eps) if rate > 1 else nn.Identity()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.rate == 1:
            return self.attn(x)
        B, C = x.shape[0], x.shape[2]
        sampled_BhwC = x.reshape(B, *grid, C)[:, :: self.rate, :: self.rate]
        h, w = sampled_BhwC.shape[1:3]
        y = self.attn.mixed(sampled_BhwC.reshape(B, h * w, C))
        y_BCHW = self.spread(y.transpose(1, 2).reshape(B, C, h, w))
        return self.attn.proj(self.norm(y_BCHW.flatten(2).transpose(1, 2)))


class EdgeVitBlock(nn.Module):
    """Local aggregation where positions are sampled, then positions, attention, MLP (Figure 2): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.EdgeVit, x: FeatureShape):
        super().__init__()
        dim = x.channels
        self.local = LocalAggregation(spec, dim) if spec.sample_rate > 1 else nn.Identity()
        self.positions = positions(dim, spec.position_kernel)
        self.norm1 = nn.LayerNorm(dim, eps=spec.norm_eps)
        self.attn = SparseAttention(spec, dim)
        self.norm2 = nn.LayerNorm(dim, eps=spec.norm_eps)
        self.mlp = Mlp(dim, int(dim * spec.expansion), spec.act)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(x)
        x = x + self.positions(x)
        y_BTC = x.flatten(2).transpose(1, 2)
        y_BTC = y_BTC + self.drop_path(self.attn(self.norm1(y_BTC), (x.shape[2], x.shape[3])))
        y_BTC = y_BTC + self.drop_path(self.mlp(self.norm2(y_BTC)))
        return y_BTC.transpose(1, 2).reshape(x.shape)


BLOCKS = {grammar.ConvNorm: ConvNorm, grammar.EdgeVit: EdgeVitBlock}
