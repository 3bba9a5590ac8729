"""Layers on tokens that every transformer family shares: self-attention and the MLP (ViT, arXiv 2010.11929, Section 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

from vitscope.blocks.layers import ACTS, DropPath

# B batch, T tokens, C channels, N heads, D head dim


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
