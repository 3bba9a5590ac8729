"""Layers on tokens that every transformer family shares: self-attention and the MLP (ViT, arXiv 2010.11929, Section 3.1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vitscope.blocks.layers import ACTS, DropPath

# B batch, T tokens, C channels, N heads, D head dim, Q queries, K keys, X all of q, k and v per head


class SelfAttention(nn.Module):
    """Multi-head self-attention with one linear layer for q, k and v in this order: (B, T, C) → same.

    `bias`, of a shape that broadcasts to (B, N, T, T), is added to the logits: relative positions, masks. One of
    (G, N, T, T) holds for every G of a batch that consists of groups of G: the windows of an image.
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.proj(self.mixed(x, bias))

    def mixed(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """What the heads gather, side by side, before the last layer."""
        B, T, C = x.shape
        D = C // self.num_heads
        q_BNTD, k_BNTD, v_BNTD = self.qkv(x).reshape(B, T, 3, self.num_heads, D).permute(2, 0, 3, 1, 4).unbind(0)
        logits_BNTT = q_BNTD * D**-0.5 @ k_BNTD.transpose(2, 3)
        if bias is not None and bias.dim() == 4 and bias.shape[0] not in (1, B):
            logits_BNTT = (logits_BNTT.unflatten(0, (-1, bias.shape[0])) + bias).flatten(0, 1)
        elif bias is not None:
            logits_BNTT = logits_BNTT + bias
        return (logits_BNTT.softmax(-1) @ v_BNTD).transpose(1, 2).reshape(B, T, C)


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (B, T, C) → same."""

    def __init__(self, dim: int, hidden: int, act: str = "gelu"):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACTS[act]()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention, then a pre-norm MLP of `hidden` channels; a residual around each: (B, T, C) → same."""

    def __init__(self, dim: int, num_heads: int, hidden: int, *, act: str = "gelu", norm_eps: float = 1e-6):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, hidden, act)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def grid_offsets(queries: tuple[int, int], keys: tuple[int, int], stride: int = 1) -> Tensor:
    """For each query and key, the row of a bias table that belongs to their distance: (Q, K) of int64.

    A table has a row per key position: |Δy|·W + |Δx|, with queries standing on every `stride`-th key.
    """
    (query_h, query_w), (key_h, key_w) = queries, keys

    def axis(num_queries: int, num_keys: int) -> Tensor:
        # On the CPU even when modules are made on the meta device, whose arithmetic takes long to load.
        steps = torch.arange(max(num_queries * stride, num_keys), device="cpu")
        return (steps[: num_queries * stride : stride, None] - steps[None, :num_keys]).abs()

    dy, dx = axis(query_h, key_h), axis(query_w, key_w)  # (Qh, Kh), (Qw, Kw)
    offsets = dy[:, None, :, None] * key_w + dx[None, :, None, :]  # (Qh, Qw, Kh, Kw)
    return offsets.reshape(query_h * query_w, key_h * key_w)


class BiasTable(nn.Module):
    """Learned attention bias by absolute distance (LeViT, arXiv 2104.01136, Section 4): adds (N, Q, K) to logits."""

    def __init__(self, num_heads: int, queries: tuple[int, int], keys: tuple[int, int], stride: int = 1):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_heads, keys[0] * keys[1]))
        offsets = grid_offsets(queries, keys, stride).to(torch.get_default_device())
        self.register_buffer("offsets", offsets, persistent=False)
        self.offsets: Tensor

    def forward(self, logits_BNQK: Tensor) -> Tensor:
        return logits_BNQK + self.table[:, self.offsets]


class TokenAttention(nn.Module):
    """Attention with a bias table on the tokens of a grid (LeViT; EfficientFormer, arXiv 2206.01191): (B, T, C) → same.

    One layer makes q, k and v, which interleave per head and may differ in width; `linear` makes both layers.
    """

    def __init__(
        self, dim: int, num_heads: int, key_dim: int, value_dim: int, grid: tuple[int, int], *,
        linear: Callable[[int, int], nn.Module] = nn.Linear, act: str = "none",
    ):  # fmt: skip
        super().__init__()
        self.num_heads, self.key_dim, self.value_dim = num_heads, key_dim, value_dim
        self.qkv = linear(dim, num_heads * (2 * key_dim + value_dim))
        self.bias = BiasTable(num_heads, grid, grid)
        self.act = ACTS[act]()
        self.proj = linear(num_heads * value_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        qkv_BNTX = self.qkv(x).reshape(B, T, self.num_heads, -1).permute(0, 2, 1, 3)
        q_BNQD, k_BNKD, v_BNKE = qkv_BNTX.split([self.key_dim, self.key_dim, self.value_dim], dim=-1)
        attn_BNQK = self.bias(q_BNQD @ k_BNKD.transpose(2, 3) * self.key_dim**-0.5).softmax(-1)
        return self.proj(self.act((attn_BNQK @ v_BNKE).transpose(1, 2).reshape(B, T, -1)))
