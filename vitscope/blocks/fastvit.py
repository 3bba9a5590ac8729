"""FastViT (arXiv 2303.14189): RepMixer and attention blocks, large-kernel downsampling, all reparameterisable."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitscope.blocks.convolution import fold_norm_forward
from vitscope.blocks.layers import ACTS, ConvNormAct, DropPath, LayerScale, fold_layer_scale, layer_scale, norm_affine
from vitscope.blocks.reparam import ReparamConv, identity_kernel
from vitscope.blocks.tokens import SelfAttention
from vitscope.spec.grammar import squeezed_channels
from vitscope.spec.kinds import fastvit as grammar
from vitscope.spec.shape import FeatureShape

# B batch, C channels, H W space, T = H*W tokens


class ConvFfn(nn.Module):
    """Depthwise k×k and norm, 1×1 expand, activation, 1×1 project (Section 3.2): (B, C, H, W) → same."""

    def __init__(self, dim: int, spec: grammar.ConvFfn):
        super().__init__()
        hidden = int(dim * spec.expansion)
        self.depthwise = ConvNormAct(dim, dim, spec.ffn_kernel, groups=dim, bias=False, norm_eps=spec.norm_eps)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = ACTS[spec.act]()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.depthwise(x))))


class RepMixer(nn.Module):
    """x + γ·(mixed(x) − norm(x)) (Section 3.2.1, Equations 1 to 3): (B, C, H, W) → same. One convolution once fused."""

    def __init__(self, dim: int, kernel: int, *, norm_eps: float, layer_scale_init: float | None):
        super().__init__()
        self.mixer = ReparamConv(
            dim, dim, kernel, groups=dim, small_kernel=1 if kernel > 1 else None, norm_eps=norm_eps
        )
        self.norm: nn.Module | None = nn.BatchNorm2d(dim, eps=norm_eps)
        self.ls = layer_scale(dim, layer_scale_init)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return self.mixer(x)
        return x + self.ls(self.mixer(x) - self.norm(x))

    def fuse(self) -> None:
        """Put the input itself, the norm and the layer scale into the kernel of the mixer."""
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        conv = self.mixer.conv
        assert conv is not None and conv.bias is not None  # fused before this
        if not conv.weight.is_meta:
            gain, shift = norm_affine(self.norm)
            gamma = self.ls.gamma.detach().double() if isinstance(self.ls, LayerScale) else torch.ones_like(gain)
            weight = gamma.view(-1, 1, 1, 1) * (conv.weight.double() - identity_kernel(conv, gain))
            weight = weight + identity_kernel(conv, torch.ones_like(gain))
            conv.weight.data = weight.detach().to(conv.weight.dtype)
            conv.bias.data = (gamma * (conv.bias.double() - shift)).detach().to(conv.bias.dtype)
        self.norm, self.ls = None, nn.Identity()


class RepMixerBlock(nn.Module):
    """RepMixer, then a residual ConvFfn with layer scale: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.RepMixer, x: FeatureShape):
        super().__init__()
        self.token_mixer = RepMixer(
            x.channels, spec.kernel, norm_eps=spec.norm_eps, layer_scale_init=spec.layer_scale_init
        )
        self.mlp = ConvFfn(x.channels, spec)
        self.ls2 = layer_scale(x.channels, spec.layer_scale_init)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.ls2(self.mlp(x)))

    def fuse(self) -> None:
        """Fold the layer scale into the projection."""
        self.ls2 = fold_layer_scale(self.ls2, self.mlp.fc2)


class AttentionBlock(nn.Module):
    """Residual norm and self-attention, residual ConvFfn, each with layer scale: (B, C, H, W) → same."""

    def __init__(self, spec: grammar.FastVitAttention, x: FeatureShape):
        super().__init__()
        dim = x.channels
        self.norm: nn.Module = nn.BatchNorm2d(dim, eps=spec.norm_eps)
        self.attn = SelfAttention(dim, dim // spec.head_dim, qkv_bias=False)
        self.ls1 = layer_scale(dim, spec.layer_scale_init)
        self.mlp = ConvFfn(dim, spec)
        self.ls2 = layer_scale(dim, spec.layer_scale_init)
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        y_BTC = self.attn(self.norm(x).flatten(2).transpose(1, 2))
        x = x + self.drop_path(self.ls1(y_BTC.transpose(1, 2).reshape(x.shape)))
        return x + self.drop_path(self.ls2(self.mlp(x)))

    def fuse(self) -> None:
        """Fold the norm into the layer of q, k and v, which gets a bias, and the layer scales into both projections."""
        qkv = self.attn.qkv
        if isinstance(self.norm, nn.BatchNorm2d) and qkv.bias is None:
            qkv.bias = nn.Parameter(qkv.weight.new_zeros(qkv.out_features))
        self.norm = fold_norm_forward(self.norm, qkv)
        self.ls1 = fold_layer_scale(self.ls1, self.attn.proj)
        self.ls2 = fold_layer_scale(self.ls2, self.mlp.fc2)


class PositionConv(nn.Module):
    """Conditional position encoding, x + depthwise k×k of x (CPVT, arXiv 2102.10882, Section 3.3): shape unchanged."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.has_residual = True

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + x if self.has_residual else self.conv(x)

    def fuse(self) -> None:
        """Put the input itself into the kernel."""
        if self.has_residual and not self.conv.weight.is_meta:
            ones = self.conv.weight.new_ones(self.conv.out_channels)
            weight = self.conv.weight.double() + identity_kernel(self.conv, ones)
            self.conv.weight.data = weight.detach().to(self.conv.weight.dtype)
        self.has_residual = False


class LargeKernelDownsample(nn.Sequential):
    """Grouped k×k with a small kernel beside it, then 1×1, position (Section 3.2): (B, C, H, W) → (B, width, H', W')."""

    def __init__(self, spec: grammar.LargeKernelDownsample, x: FeatureShape):
        super().__init__()
        self.spatial = ReparamConv(
            x.channels,
            spec.width,
            spec.kernel,
            stride=spec.stride,
            groups=x.channels,
            small_kernel=spec.small_kernel,
            identity="none",
            norm_eps=spec.norm_eps,
        )
        self.pointwise = ReparamConv(spec.width, spec.width, norm_eps=spec.norm_eps, act=spec.act)
        if spec.position_kernel is not None:
            self.position = PositionConv(spec.width, spec.position_kernel)


class GatedConvClassifier(nn.Module):
    """Grouped convolution with squeeze-excite, average, linear: (B, C, H, W) → (B, classes)."""

    def __init__(self, spec: grammar.GatedConvClassifier, x: FeatureShape):
        super().__init__()
        width = x.channels * spec.expansion
        self.conv = ReparamConv(
            x.channels,
            width,
            spec.kernel,
            groups=x.channels,
            small_kernel=1 if spec.kernel > 1 else None,
            squeezed=squeezed_channels(width, spec.se_ratio),
            norm_eps=spec.norm_eps,
            act=spec.act,
        )
        self.head = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


BLOCKS = {
    grammar.LargeKernelDownsample: LargeKernelDownsample,
    grammar.RepMixer: RepMixerBlock,
    grammar.FastVitAttention: AttentionBlock,
    grammar.GatedConvClassifier: GatedConvClassifier,
}
