"""SegNeXt (arXiv 2209.08575): convolutional attention of several scales, and a head that factorises (arXiv 2109.04553)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.convolution import fold_norm_forward
from vitscope.blocks.efficientvit import resized
from vitscope.blocks.layers import (
    ACTS,
    DropPath,
    LayerScale,
    add_bias,
    fold_layer_scale,
    layer_scale,
    norm_affine,
)
from vitscope.blocks.segformer import MixFfn
from vitscope.spec.kinds import segnext as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W positions, R bases

EPS = 1e-6  # in the denominator of the multiplicative updates
SEED = 0  # of the random bases


def depthwise(dim: int, height: int, width: int) -> nn.Conv2d:
    """A depthwise convolution that keeps the size of the map."""
    return nn.Conv2d(dim, dim, (height, width), padding=(height // 2, width // 2), groups=dim)


class MultiScaleGate(nn.Module):
    """The map gated by sums over its neighbourhoods (MSCA, Section 3.1, Equations 1 and 2): (B, C, H, W) → same."""

    def __init__(self, dim: int, kernel: int, strips: tuple[int, ...]):
        super().__init__()
        self.near = depthwise(dim, kernel, kernel)
        self.rows = nn.ModuleList(depthwise(dim, 1, length) for length in strips)
        self.columns = nn.ModuleList(depthwise(dim, length, 1) for length in strips)
        self.mix = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        gate = near
        for row, column in zip(self.rows, self.columns, strict=True):
            gate = gate + column(row(near))
        return self.mix(gate) * x


class SegNextBlock(nn.Module):
    """Norm, attention with a residual of its own; norm, Mix-FFN (Figure 2): (B, C, H, W) → same."""

    def __init__(self, spec: grammar.SegNext, x: FeatureShape):
        super().__init__()
        dim, init = x.channels, spec.layer_scale_init
        self.norm1 = nn.BatchNorm2d(dim, eps=spec.norm_eps)
        self.expand = nn.Conv2d(dim, dim, 1)
        self.act = ACTS[spec.act]()
        self.gate = MultiScaleGate(dim, spec.kernel, spec.strips)
        self.project = nn.Conv2d(dim, dim, 1)
        self.ls1 = layer_scale(dim, init)
        self.norm2 = nn.BatchNorm2d(dim, eps=spec.norm_eps)
        self.mlp = MixFfn(dim, int(dim * spec.expansion), 3, spec.act)
        self.ls2 = layer_scale(dim, init)
        self.drop_path = DropPath()
        self.skip: nn.Module | None = None  # once the norm is folded: its gain, where it went around the attention

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        z = self.project(self.gate(self.act(self.expand(y))))
        x = x + self.drop_path(self.ls1(y + z)) if self.skip is None else self.skip(x) + z
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))

    def fuse(self) -> None:
        """Fold both norms into the 1×1 behind them, both layer scales into the 1×1 before them.

        The first norm's output is also added around the attention: x + s·(a·x + b + z) = (1 + s·a)·x + (s·z + s·b).
        """
        if isinstance(self.norm1, nn.BatchNorm2d):
            gain, shift = norm_affine(self.norm1)
            scale = self.ls1.gamma.detach() if isinstance(self.ls1, LayerScale) else None
            self.norm1 = fold_norm_forward(self.norm1, self.expand)
            self.ls1 = fold_layer_scale(self.ls1, self.project)
            self.skip = LayerScale(len(gain), 1.0).to(self.project.weight.device)
            if not gain.is_meta:
                s = scale.double() if scale is not None else torch.ones_like(gain)
                self.skip.gamma.data = (1 + s * gain).to(self.project.weight.dtype)
                add_bias(self.project, s * shift)
        self.norm2 = fold_norm_forward(self.norm2, self.mlp.fc1)
        self.ls2 = fold_layer_scale(self.ls2, self.mlp.fc2)


class Factorisation(nn.Module):
    """The nearest non-negative matrix of low rank (NMF; arXiv 2109.04553, Section 2.2.1): (B, C, H, W) ≥ 0 → same.

    Gradients flow through the last update alone (Section 2.2.2).
    """

    def __init__(self, spec: grammar.LightHam):
        super().__init__()
        self.steps, self.train_steps = spec.steps, spec.train_steps
        generator = torch.Generator("cpu").manual_seed(SEED)
        bases = torch.rand(spec.width, spec.num_bases, generator=generator, device="cpu")
        bases = F.normalize(bases, dim=0).to(torch.get_default_device())
        self.register_buffer("bases", bases, persistent=False)
        self.bases: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x_BCT = x.flatten(2)
        bases_BCR = self.bases.expand(x.shape[0], -1, -1)
        with torch.no_grad():
            codes_BTR = (x_BCT.transpose(1, 2) @ bases_BCR).softmax(-1)
            for _ in range(self.train_steps if self.training else self.steps):
                codes_BTR = updated(codes_BTR, x_BCT.transpose(1, 2), bases_BCR)
                bases_BCR = updated(bases_BCR, x_BCT, codes_BTR)
        codes_BTR = updated(codes_BTR, x_BCT.transpose(1, 2), bases_BCR)
        return (bases_BCR @ codes_BTR.transpose(1, 2)).reshape(x.shape)


def updated(factor: Tensor, matrix: Tensor, other: Tensor) -> Tensor:
    """One multiplicative update of `factor`, so that factor · otherᵀ comes nearer to `matrix` (Lee and Seung)."""
    return factor * (matrix @ other) / (factor @ (other.transpose(1, 2) @ other) + EPS)


class ConvGroupNorm(nn.Sequential):
    """1×1 without bias, GroupNorm, activation: (B, C, H, W) → (B, width, H, W)."""

    def __init__(self, spec: grammar.LightHam, in_channels: int, act: str):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, spec.width, 1, bias=False)
        self.norm = nn.GroupNorm(spec.groups, spec.width, eps=spec.norm_eps)
        self.act = ACTS[act]()


class LightHam(nn.Module):
    """Three stages, squeezed, factorised, to classes (Section 3.2): maps → (B, classes, H, W) of the first."""

    def __init__(self, spec: grammar.LightHam, x: tuple[FeatureShape, ...]):
        super().__init__()
        self.squeeze = ConvGroupNorm(spec, sum(stage.channels for stage in x), spec.act)
        self.lower = nn.Conv2d(spec.width, spec.width, 1)
        self.ham = Factorisation(spec)
        self.lift = ConvGroupNorm(spec, spec.width, "none")
        self.align = ConvGroupNorm(spec, spec.width, spec.act)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.head = nn.Conv2d(spec.width, spec.classes, 1)

    def forward(self, *stages: Tensor) -> Tensor:
        grid = (stages[0].shape[2], stages[0].shape[3])
        x = self.squeeze(torch.cat([resized(stage, grid, "bilinear") for stage in stages], 1))
        x = F.relu(x + self.lift(self.ham(F.relu(self.lower(x)))))
        return self.head(self.dropout(self.align(x)))


BLOCKS = {grammar.SegNext: SegNextBlock, grammar.LightHam: LightHam}
