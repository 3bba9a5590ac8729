"""EfficientFormer V1 (arXiv 2206.01191) and EfficientFormerV2 (arXiv 2212.08059): token mixers, FFNs, downsampling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.layers import (
    ACTS,
    ConvNormAct,
    DropPath,
    fold_layer_scale,
    layer_scale,
    pool_exclude_pad,
)
from vitscope.blocks.tokens import BiasTable, Mlp, TokenAttention
from vitscope.spec.kinds import efficientformer as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, N heads, Q queries, K keys, D key dim per head, E value dim per head


class UnifiedFfn(nn.Module):
    """1×1 expand, 3×3 depthwise, 1×1 project (V2, Section 3.1), without the residual: (B, C, H, W) → same."""

    def __init__(self, dim: int, spec: grammar.Ffn | grammar.Mb3d, *, kernel: int = 3, norm: str = "bn"):
        super().__init__()
        hidden = int(dim * spec.expansion)
        options = {"norm": norm, "norm_eps": spec.norm_eps}
        self.fc1 = ConvNormAct(dim, hidden, act=spec.act, **options)
        self.mid = ConvNormAct(hidden, hidden, kernel, groups=hidden, act=spec.act, **options)
        self.fc2 = ConvNormAct(hidden, dim, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.mid(self.fc1(x)))


class FfnBlock(nn.Module):
    """Residual unified FFN with layer scale: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.Ffn, x: FeatureShape):
        super().__init__()
        self.mlp = UnifiedFfn(x.channels, spec, kernel=spec.kernel, norm=spec.norm)
        self.ls2 = layer_scale(x.channels, spec.layer_scale_init)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.ls2(self.mlp(x)))

    def fuse(self) -> None:
        """Fold the layer scale into the projection."""
        self.ls2 = fold_layer_scale(self.ls2, self.mlp.fc2.conv)


class MapAttention(nn.Module):
    """MHSA on a map (V2, Sections 3.3 and 3.4): (B, C, H, W) → same.

    Optionally on a grid reduced by a strided depthwise convolution and resized back before the projection, with a
    depthwise convolution of the value added to the output, and with heads mixed before and after the softmax.
    """

    def __init__(self, spec: grammar.Attention, x: FeatureShape, stride: int = 1):
        super().__init__()
        dim, options = x.channels, {"norm": spec.norm, "norm_eps": spec.norm_eps}
        self.num_heads, self.key_dim = spec.num_heads, spec.key_dim
        self.value_dim = int(spec.value_ratio * spec.key_dim)
        self.stride = stride
        self.stride_conv = (
            ConvNormAct(dim, dim, 3, stride=stride, groups=dim, **options) if stride > 1 else nn.Identity()
        )
        grid = (-(-x.height // stride), -(-x.width // stride))
        self.q = ConvNormAct(dim, self.num_heads * self.key_dim, **options)
        self.k = ConvNormAct(dim, self.num_heads * self.key_dim, **options)
        self.v = ConvNormAct(dim, self.num_heads * self.value_dim, **options)
        values = self.num_heads * self.value_dim
        self.v_local = ConvNormAct(values, values, 3, groups=values, **options) if spec.local_value else None
        self.bias = BiasTable(self.num_heads, grid, grid)
        self.talking_head1 = nn.Conv2d(self.num_heads, self.num_heads, 1) if spec.talking_heads else nn.Identity()
        self.talking_head2 = nn.Conv2d(self.num_heads, self.num_heads, 1) if spec.talking_heads else nn.Identity()
        self.act = ACTS[spec.act]()
        self.proj = ConvNormAct(values, dim, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stride_conv(x)
        B, _, H, W = x.shape
        q_BNQD = self.q(x).reshape(B, self.num_heads, self.key_dim, H * W).transpose(2, 3)
        k_BNDK = self.k(x).reshape(B, self.num_heads, self.key_dim, H * W)
        v = self.v(x)
        v_BNKE = v.reshape(B, self.num_heads, self.value_dim, H * W).transpose(2, 3)
        logits_BNQK = self.bias(q_BNQD @ k_BNDK * self.key_dim**-0.5)
        attn_BNQK = self.talking_head2(self.talking_head1(logits_BNQK).softmax(-1))
        y = (attn_BNQK @ v_BNKE).transpose(2, 3).reshape(B, -1, H, W)
        if self.v_local is not None:
            y = y + self.v_local(v)
        if self.stride > 1:
            y = F.interpolate(y, scale_factor=self.stride, mode="bilinear", align_corners=False)
        return self.proj(self.act(y))


class AttentionBlock(FfnBlock):
    """Residual MHSA, then residual unified FFN, each with layer scale: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.Attention, x: FeatureShape):
        super().__init__(spec, x)
        stride = spec.attention_stride if isinstance(spec, grammar.StrideAttention) else 1
        self.token_mixer = MapAttention(spec, x, stride)
        self.ls1 = layer_scale(x.channels, spec.layer_scale_init)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(self.token_mixer(x)))
        return super().forward(x)

    def fuse(self) -> None:
        """Fold both layer scales into the projections before them."""
        super().fuse()
        self.ls1 = fold_layer_scale(self.ls1, self.token_mixer.proj.conv)


class AttentionDownsample(nn.Module):
    """Attention from strided queries to every position (V2, Section 3.4): (B, C, H, W) → (B, width, H/s, W/s)."""

    def __init__(self, spec: grammar.DualPath, x: FeatureShape):
        super().__init__()
        dim, options = x.channels, {"norm": spec.norm, "norm_eps": spec.norm_eps}
        self.num_heads, self.key_dim = spec.num_heads, spec.key_dim
        self.value_dim = int(spec.value_ratio * spec.key_dim)
        self.stride = spec.stride
        out = spec.out_shape(x)
        values = self.num_heads * self.value_dim
        self.q_local = nn.Conv2d(dim, dim, 3, spec.stride, padding=1, groups=dim)  # no norm after it
        self.q = ConvNormAct(dim, self.num_heads * self.key_dim, **options)
        self.k = ConvNormAct(dim, self.num_heads * self.key_dim, **options)
        self.v = ConvNormAct(dim, values, **options)
        self.v_local = ConvNormAct(values, values, 3, stride=spec.stride, groups=values, **options)
        self.bias = BiasTable(self.num_heads, (out.height, out.width), (x.height, x.width), spec.stride)
        self.act = ACTS[spec.act]()
        self.proj = ConvNormAct(values, spec.width, **options)

    def forward(self, x: Tensor) -> Tensor:
        B = x.shape[0]
        queries = self.q_local(x) + F.avg_pool2d(x, 1, self.stride)
        H, W = queries.shape[2:]
        q_BNQD = self.q(queries).reshape(B, self.num_heads, self.key_dim, H * W).transpose(2, 3)
        k_BNDK = self.k(x).reshape(B, self.num_heads, self.key_dim, -1)
        v = self.v(x)
        v_BNKE = v.reshape(B, self.num_heads, self.value_dim, -1).transpose(2, 3)
        attn_BNQK = self.bias(q_BNQD @ k_BNDK * self.key_dim**-0.5).softmax(-1)
        y = (attn_BNQK @ v_BNKE).transpose(2, 3).reshape(B, -1, H, W) + self.v_local(v)
        return self.proj(self.act(y))


class DualPath(nn.Module):
    """A strided convolution plus attention downsampling, summed (V2, Section 3.4)."""

    def __init__(self, spec: grammar.DualPath, x: FeatureShape):
        super().__init__()
        self.conv = ConvNormAct(x.channels, spec.width, 3, stride=spec.stride, norm=spec.norm, norm_eps=spec.norm_eps)
        self.attn = AttentionDownsample(spec, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x) + self.conv(x)


class PoolMixer(nn.Module):
    """Average pooling minus identity (PoolFormer, arXiv 2111.11418; V1, Section 3.1)."""

    def __init__(self, kernel: int):
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return pool_exclude_pad(x, self.kernel) - x


class ConvMlp(nn.Module):
    """Two 1×1 convolutions with norm, activation between them: (B, C, H, W) → same."""

    def __init__(self, dim: int, spec: grammar.Mb4d):
        super().__init__()
        hidden = int(dim * spec.expansion)
        self.fc1 = ConvNormAct(dim, hidden, norm=spec.norm, norm_eps=spec.norm_eps, act=spec.act)
        self.fc2 = ConvNormAct(hidden, dim, norm=spec.norm, norm_eps=spec.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class Mb4dBlock(nn.Module):
    """MB4D (V1, Section 3.1): residual token mixer, residual MLP, each with layer scale: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.Mb4d, x: FeatureShape):
        super().__init__()
        dim = x.channels
        if spec.token_mixer == "pool":
            self.token_mixer: nn.Module = PoolMixer(spec.kernel)
        else:
            self.token_mixer = ConvNormAct(dim, dim, spec.kernel, groups=dim, norm=spec.norm, norm_eps=spec.norm_eps)
        self.ls1 = layer_scale(dim, spec.layer_scale_init)
        self.mlp = ConvMlp(dim, spec)
        self.ls2 = layer_scale(dim, spec.layer_scale_init)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1(self.token_mixer(x)))
        return x + self.drop_path(self.ls2(self.mlp(x)))

    def fuse(self) -> None:
        """Fold the layer scales; that of a pooling mixer has no layer to go into and stays."""
        if isinstance(self.token_mixer, ConvNormAct):
            self.ls1 = fold_layer_scale(self.ls1, self.token_mixer.conv)
        self.ls2 = fold_layer_scale(self.ls2, self.mlp.fc2.conv)


class Mb3dBlock(nn.Module):
    """MB3D (V1, Section 3.1): pre-norm attention on tokens, then an MLP on tokens or the unified FFN on the map.

    (B, C, H, W) or (B, T, C) → (B, T, C) with the MLP, (B, C, H, W) with the FFN.
    """

    def __init__(self, spec: grammar.Mb3d, x: FeatureShape):
        super().__init__()
        dim, init = x.channels, spec.layer_scale_init
        self.grid = (x.height, x.width)
        self.norm1 = nn.LayerNorm(dim, eps=spec.norm_eps)
        values = int(spec.value_ratio * spec.key_dim)
        self.token_mixer = TokenAttention(dim, spec.num_heads, spec.key_dim, values, self.grid)
        self.ls1 = layer_scale(dim, init, channel_dim=-1)
        self.to_map = spec.channel_mixer == "ffn"
        self.norm2 = nn.Identity() if self.to_map else nn.LayerNorm(dim, eps=spec.norm_eps)
        self.mlp = UnifiedFfn(dim, spec) if self.to_map else Mlp(dim, int(dim * spec.expansion), spec.act)
        self.ls2 = layer_scale(dim, init, channel_dim=1 if self.to_map else -1)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            x = x.flatten(2).transpose(1, 2)  # (B, T, C)
        x = x + self.drop_path(self.ls1(self.token_mixer(self.norm1(x))))
        if self.to_map:
            x = x.transpose(1, 2).reshape(x.shape[0], -1, *self.grid)  # (B, C, H, W)
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def fuse(self) -> None:
        """Fold both layer scales into the layers before them."""
        proj = self.token_mixer.proj
        assert isinstance(proj, nn.Linear)
        self.ls1 = fold_layer_scale(self.ls1, proj)
        last = self.mlp.fc2.conv if isinstance(self.mlp, UnifiedFfn) else self.mlp.fc2
        self.ls2 = fold_layer_scale(self.ls2, last)


BLOCKS = {
    grammar.Ffn: FfnBlock,
    grammar.Attention: AttentionBlock,
    grammar.StrideAttention: AttentionBlock,
    grammar.DualPath: DualPath,
    grammar.Mb4d: Mb4dBlock,
    grammar.Mb3d: Mb3dBlock,
}
