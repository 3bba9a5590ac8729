"""EfficientViT (MIT, arXiv 2205.14756; SAM encoders, arXiv 2402.05008): linear attention on maps, heads on three stages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.convolution import FusedInvertedResidual, InvertedResidual
from vitscope.blocks.layers import ACTS, ConvNormAct, DropPath, LayerNorm2d
from vitscope.spec.kinds import convolution
from vitscope.spec.kinds import efficientvit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W positions, N heads of all scales together, D head dim, E = D + 1


def linear_attention(q_BNDT: Tensor, k_BNDT: Tensor, v_BNDT: Tensor, eps: float) -> Tensor:
    """ReLU linear attention (Section 3.1), keys times values first, so that cost grows with T: → (B, N, D, T).

    A row of ones under v makes the denominator, Σ q·k, in the same two products. Half precision would overflow in it.
    """
    q, k, v = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (q_BNDT, k_BNDT, v_BNDT))
    q, k = F.relu(q), F.relu(k)
    v_BNET = F.pad(v, (0, 0, 0, 1), value=1.0)
    kv_BNED = v_BNET @ k.transpose(2, 3)
    y_BNET = kv_BNED @ q
    return (y_BNET[:, :, :-1] / (y_BNET[:, :, -1:] + eps)).to(v_BNDT.dtype)


class MultiScaleAttention(nn.Module):
    """Linear attention on q, k, v and on q, k, v gathered from neighbourhoods (Section 3.1): (B, C, H, W) → same.

    In the channels every head has its q, k and v side by side.
    """

    def __init__(self, spec: grammar.EfficientVit, x: FeatureShape):
        super().__init__()
        C, D = x.channels, spec.head_dim
        self.head_dim, self.eps = D, spec.attention_eps
        self.qkv = nn.Conv2d(C, 3 * C, 1, bias=False)
        self.gather = nn.Sequential(
            nn.Conv2d(3 * C, 3 * C, spec.scale, padding=spec.scale // 2, groups=3 * C, bias=False),
            nn.Conv2d(3 * C, 3 * C, 1, groups=3 * (C // D), bias=False),
        )
        self.proj = ConvNormAct(2 * C, C, bias=False, norm=spec.norm, norm_eps=spec.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        qkv = self.qkv(x)
        scales = torch.cat([qkv, self.gather(qkv)], 1).reshape(B, -1, 3 * self.head_dim, H * W)
        q_BNDT, k_BNDT, v_BNDT = scales.chunk(3, dim=2)
        y_BNDT = linear_attention(q_BNDT, k_BNDT, v_BNDT, self.eps)
        return self.proj(y_BNDT.reshape(B, 2 * C, H, W))


class EfficientVitBlock(nn.Module):
    """Residual multi-scale linear attention, residual inverted residual (Section 3.1): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.EfficientVit, x: FeatureShape):
        super().__init__()
        self.attn = MultiScaleAttention(spec, x)
        self.drop_path = DropPath()
        local = convolution.InvertedResidual(
            width=x.channels, expansion=spec.expansion, kernel=spec.kernel, act=spec.act, norm=spec.norm,
            norm_eps=spec.norm_eps, fewer_norm=True,
        )  # fmt: skip
        self.local = InvertedResidual(local, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.local(x + self.drop_path(self.attn(x)))


class EfficientVitClassifier(nn.Module):
    """1×1 convolution, average, linear, norm, activation, linear: (B, C, H, W) → (B, classes)."""

    def __init__(self, spec: grammar.EfficientVitClassifier, x: FeatureShape):
        super().__init__()
        self.conv = ConvNormAct(
            x.channels, spec.width, bias=False, norm=spec.norm, norm_eps=spec.norm_eps, act=spec.act
        )
        self.hidden = nn.Linear(spec.width, spec.hidden, bias=False)
        self.norm = nn.LayerNorm(spec.hidden, eps=spec.norm_eps)
        self.act = ACTS[spec.act]()
        self.head = nn.Linear(spec.hidden, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.hidden(self.conv(x).mean((2, 3))))))


def resized(x: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    """A map on another grid, the corners of both grids covering the same area: (B, C, H, W) → (B, C, *grid)."""
    return x if tuple(x.shape[2:]) == grid else F.interpolate(x, size=grid, mode=mode, align_corners=False)


class Fusion(nn.Module):
    """Three stages projected, resized and added, then residual blocks (Section 3.2): maps → (B, width, *grid)."""

    def __init__(self, spec: grammar.Fusion, x: tuple[FeatureShape, ...]):
        super().__init__()
        fused = spec.fused_shape(x)
        options = {"norm": spec.norm, "norm_eps": spec.norm_eps}
        self.resize = spec.resize
        self.side = spec.side if isinstance(spec, grammar.SamNeck) else None
        self.inputs = nn.ModuleList(ConvNormAct(stage.channels, spec.width, bias=False, **options) for stage in x)
        fields = {"width": spec.width, "expansion": spec.expansion, "act": spec.act, **options}
        self.blocks = nn.Sequential(
            *(
                FusedInvertedResidual(convolution.FusedInvertedResidual(**fields), fused)
                if spec.fused
                else InvertedResidual(convolution.InvertedResidual(**fields), fused)
                for _ in range(spec.depth)
            )
        )

    def fuse_stages(self, stages: tuple[Tensor, ...]) -> Tensor:
        """The sum of the projected stages, through the residual blocks."""
        H, W = stages[-1].shape[2:]
        grid = (H, W) if self.side is None else (self.side, self.side)
        maps = [resized(conv(x), grid, self.resize) for conv, x in zip(self.inputs, stages, strict=True)]
        y = maps[0]
        for other in maps[1:]:
            y = y + other
        return self.blocks(y)


class EfficientVitSegmentation(Fusion):
    """Logits on the grid of the finest stage: three maps → (B, classes, H, W)."""

    def __init__(self, spec: grammar.EfficientVitSegmentation, x: tuple[FeatureShape, ...]):
        super().__init__(spec, x)
        hidden = int(spec.width * (spec.out_expansion or 1))
        self.expand = (
            ConvNormAct(spec.width, hidden, bias=False, norm=spec.norm, norm_eps=spec.norm_eps, act=spec.act)
            if spec.out_expansion is not None
            else nn.Identity()
        )
        self.head = nn.Conv2d(hidden, spec.classes, 1)

    def forward(self, *stages: Tensor) -> Tensor:
        return self.head(self.expand(self.fuse_stages(stages)))


class SamNeck(Fusion):
    """SAM's image embedding (arXiv 2402.05008): three maps → (B, width, side, side)."""

    def __init__(self, spec: grammar.SamNeck, x: tuple[FeatureShape, ...]):
        super().__init__(spec, x)
        self.head = nn.Conv2d(spec.width, spec.width, 1)
        self.norm = LayerNorm2d(spec.width, eps=spec.norm_eps)

    def forward(self, *stages: Tensor) -> Tensor:
        return self.norm(self.head(self.fuse_stages(stages)))


class EfficientVitUpscaler(Fusion):
    """A larger image: three maps → (B, 3, H·upscale, W·upscale) of the finest stage's H and W."""

    def __init__(self, spec: grammar.EfficientVitUpscaler, x: tuple[FeatureShape, ...]):
        super().__init__(spec, x)
        self.upscale = spec.upscale
        self.head = nn.Conv2d(spec.width, 3 * spec.upscale**2, 1)

    def forward(self, *stages: Tensor) -> Tensor:
        return F.pixel_shuffle(self.head(self.fuse_stages(stages)), self.upscale)


BLOCKS = {
    grammar.EfficientVit: EfficientVitBlock,
    grammar.EfficientVitClassifier: EfficientVitClassifier,
    grammar.EfficientVitSegmentation: EfficientVitSegmentation,
    grammar.SamNeck: SamNeck,
    grammar.EfficientVitUpscaler: EfficientVitUpscaler,
}
