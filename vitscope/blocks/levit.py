"""LeViT (arXiv 2104.01136): attention with a bias table and an MLP, BatchNorm behind every linear layer."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from vitscope.blocks.layers import ACTS, DropPath, add_bias, norm_affine, scale_rows
from vitscope.blocks.tokens import BiasTable, TokenAttention
from vitscope.spec.kinds import levit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, T tokens, C channels, H W space, N heads, Q queries, K keys, D key dim per head, E value dim per head


class LinearNorm(nn.Module):
    """Linear layer without bias, then BatchNorm over all tokens of the batch: (B, T, in) → (B, T, out)."""

    def __init__(self, in_channels: int, out_channels: int, norm_eps: float = 1e-5):
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm1d(out_channels, eps=norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, 1)).view_as(y) if isinstance(self.norm, nn.BatchNorm1d) else y

    def fuse(self) -> None:
        """Fold the norm into the layer before it."""
        if isinstance(self.norm, nn.BatchNorm1d):
            gain, shift = norm_affine(self.norm)
            scale_rows(self.linear, gain)
            add_bias(self.linear, shift)
            self.norm = nn.Identity()


class LevitMlp(nn.Module):
    """Two normed linear layers with an activation between them: (B, T, C) → same."""

    def __init__(self, dim: int, hidden: int, act: str, norm_eps: float):
        super().__init__()
        self.fc1 = LinearNorm(dim, hidden, norm_eps)
        self.act = ACTS[act]()
        self.fc2 = LinearNorm(hidden, dim, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LevitBlock(nn.Module):
    """Residual attention, residual MLP (Section 4): (B, C, H, W) or (B, T, C) → (B, T, C)."""

    def __init__(self, spec: grammar.Levit, x: FeatureShape):
        super().__init__()
        dim, values = x.channels, int(spec.value_ratio * spec.key_dim)
        self.attn = TokenAttention(
            dim, spec.num_heads, spec.key_dim, values, (x.height, x.width),
            linear=partial(LinearNorm, norm_eps=spec.norm_eps), act=spec.act,
        )  # fmt: skip
        self.mlp = LevitMlp(dim, int(dim * spec.expansion), spec.act, spec.norm_eps)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = as_tokens(x)
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class ShrinkingAttention(nn.Module):
    """Attention from every `stride`-th row and column to all positions (Section 4): (B, T, C) → (B, T', width)."""

    def __init__(self, spec: grammar.LevitDownsample, x: FeatureShape):
        super().__init__()
        out, eps = spec.out_shape(x), spec.norm_eps
        self.num_heads, self.key_dim, self.stride = spec.num_heads, spec.key_dim, spec.stride
        self.value_dim = int(spec.value_ratio * spec.key_dim)
        self.grid = (x.height, x.width)
        self.kv = LinearNorm(x.channels, self.num_heads * (self.key_dim + self.value_dim), eps)
        self.q = LinearNorm(x.channels, self.num_heads * self.key_dim, eps)
        self.bias = BiasTable(self.num_heads, (out.height, out.width), self.grid, spec.stride)
        self.act = ACTS[spec.act]()
        self.proj = LinearNorm(self.num_heads * self.value_dim, spec.width, eps)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        queries = x.reshape(B, *self.grid, C)[:, :: self.stride, :: self.stride].reshape(B, -1, C)
        kv_BKNX = self.kv(x).reshape(B, T, self.num_heads, -1)
        k_BKND, v_BKNE = kv_BKNX.split([self.key_dim, self.value_dim], dim=-1)
        q_BNQD = self.q(queries).reshape(B, -1, self.num_heads, self.key_dim).transpose(1, 2)
        attn_BNQK = self.bias(q_BNQD @ k_BKND.permute(0, 2, 3, 1) * self.key_dim**-0.5).softmax(-1)
        return self.proj(self.act((attn_BNQK @ v_BKNE.transpose(1, 2)).transpose(1, 2).flatten(2)))


class LevitDownsample(nn.Module):
    """Shrinking attention, then a residual MLP (Section 4): (B, C, H, W) or (B, T, C) → (B, T', width)."""

    def __init__(self, spec: grammar.LevitDownsample, x: FeatureShape):
        super().__init__()
        self.attn = ShrinkingAttention(spec, x)
        self.mlp = LevitMlp(spec.width, int(spec.width * spec.expansion), spec.act, spec.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(as_tokens(x))
        return x + self.mlp(x)


def as_tokens(x: Tensor) -> Tensor:
    """A map as tokens, by rows, in memory too: (B, C, H, W) → (B, T, C). Tokens stay."""
    return x.flatten(2).transpose(1, 2).contiguous() if x.dim() == 4 else x


BLOCKS = {grammar.Levit: LevitBlock, grammar.LevitDownsample: LevitDownsample}
