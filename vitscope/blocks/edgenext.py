"""EdgeNeXt (arXiv 2206.10589): split depthwise transpose attention, with XCiT's attention among channels (2106.09681)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.layers import DropPath, fold_layer_scale, layer_scale
from vitscope.blocks.tokens import Mlp
from vitscope.spec.kinds import edgenext as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W tokens, N heads, D head dim

NUM_WAVES = 32  # of each axis; both follow the reference implementation
TEMPERATURE = 10_000.0


class SplitConvs(nn.Module):
    """A cascade of depthwise 3×3 over splits of the channels (Section 3.2), as in Res2Net: (B, C, H, W) → same.

    Each split is added to what its neighbour's convolution put out, and convolved in turn; the last stays as it is.
    """

    def __init__(self, channels: int, num_splits: int):
        super().__init__()
        self.sizes = grammar.split_channels(channels, num_splits)
        self.convs = nn.ModuleList(nn.Conv2d(size, size, 3, padding=1, groups=size) for size in self.sizes[:-1])

    def forward(self, x: Tensor) -> Tensor:
        *splits, last = x.split(self.sizes, dim=1)
        outputs: list[Tensor] = []
        for split, conv in zip(splits, self.convs, strict=True):
            outputs.append(conv(split + outputs[-1] if outputs else split))
        return torch.cat([*outputs, last], 1)


def waves(num_positions: int) -> Tensor:
    """Sines and cosines of falling frequency along one axis of `num_positions`: (NUM_WAVES, num_positions)."""
    # On the CPU even when modules are made on the meta device, whose arithmetic takes long to load.
    position = torch.arange(1, num_positions + 1, device="cpu", dtype=torch.float32)
    angle = position / (num_positions + 1e-6) * (2 * math.pi)
    i = torch.arange(NUM_WAVES // 2, device="cpu", dtype=torch.float32)
    angles = angle / TEMPERATURE ** (2 * i / NUM_WAVES)[:, None]  # (NUM_WAVES/2, positions)
    return torch.stack([angles.sin(), angles.cos()], 1).flatten(0, 1)


class FourierPositions(nn.Module):
    """Encoded rows and columns, projected to the channels (DETR, arXiv 2005.12872, Appendix A.4): adds to (B, C, H, W)."""

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        device = torch.get_default_device()
        self.register_buffer("rows", waves(height)[:, :, None].to(device), persistent=False)
        self.register_buffer("columns", waves(width)[:, None, :].to(device), persistent=False)
        self.rows: Tensor
        self.columns: Tensor
        self.proj = nn.Conv2d(2 * NUM_WAVES, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2:]
        rows, columns = self.rows, self.columns
        if (rows.shape[1], columns.shape[2]) != (H, W):  # not the size that it was made for: multi-scale training
            rows, columns = waves(H)[:, :, None].to(rows), waves(W)[:, None, :].to(rows)
        return x + self.proj(torch.cat([rows.expand(-1, -1, W), columns.expand(-1, H, -1)])[None])


class CrossCovariance(nn.Module):
    """Attention among the channels of each head, of unit length along the tokens (XCiT, Section 3.1): (B, T, C) → same."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.num_heads, C // self.num_heads)
        q_BNDT, k_BNDT, v_BNDT = qkv.permute(2, 0, 3, 4, 1).unbind(0)
        logits_BNDD = F.normalize(q_BNDT, dim=-1) @ F.normalize(k_BNDT, dim=-1).transpose(2, 3) * self.temperature
        return self.proj((logits_BNDD.softmax(-1) @ v_BNDT).permute(0, 3, 1, 2).reshape(B, T, C))


class SdtaBlock(nn.Module):
    """SDTA encoder (Section 3.2): split convolutions, cross-covariance attention, MLP; residual: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.Sdta, x: FeatureShape):
        super().__init__()
        dim, init = x.channels, spec.layer_scale_init
        self.splits = SplitConvs(dim, spec.num_splits)
        self.positions = FourierPositions(dim, x.height, x.width) if spec.positions else nn.Identity()
        self.norm1 = nn.LayerNorm(dim, eps=spec.norm_eps)
        self.attn = CrossCovariance(dim, spec.num_heads)
        self.ls1 = layer_scale(dim, init, channel_dim=-1)
        self.norm2 = nn.LayerNorm(dim, eps=spec.norm_eps)
        self.mlp = Mlp(dim, int(dim * spec.expansion), spec.act)
        self.ls2 = layer_scale(dim, init, channel_dim=-1)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        y_BTC = self.positions(self.splits(x)).flatten(2).transpose(1, 2)
        y_BTC = y_BTC + self.drop_path(self.ls1(self.attn(self.norm1(y_BTC))))
        y_BTC = self.ls2(self.mlp(self.norm2(y_BTC)))
        return x + self.drop_path(y_BTC.transpose(1, 2).reshape(x.shape))

    def fuse(self) -> None:
        """Fold both layer scales into the linear layers before them."""
        self.ls1 = fold_layer_scale(self.ls1, self.attn.proj)
        self.ls2 = fold_layer_scale(self.ls2, self.mlp.fc2)


BLOCKS = {grammar.Sdta: SdtaBlock}
