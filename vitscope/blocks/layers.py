"""Layers that every family shares: convolution with norm and activation, layer scale, drop path, activations, norms.

Sources: BatchNorm folding, arXiv 1712.05877 Section 3.2; layer scale, CaiT, arXiv 2103.17239 Section 2; drop path
(stochastic depth), arXiv 1603.09382.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# B batch, C channels, H W space, T = H*W tokens

ACTS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
    "none": nn.Identity,
}


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "bn": lambda channels, eps: nn.BatchNorm2d(channels, eps=eps),
    "gn": lambda channels, eps: nn.GroupNorm(1, channels, eps=eps),
    "ln": lambda channels, eps: LayerNorm2d(channels, eps=eps),
    "none": lambda channels, eps: nn.Identity(),
}


class ConvNormAct(nn.Module):
    """k×k convolution with padding k//2, norm, activation: (B, C, H, W) → (B, out, ceil(H/stride), ceil(W/stride))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        norm: str = "bn",
        norm_eps: float = 1e-5,
        act: str = "none",
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)
        self.norm = NORMS[norm](out_channels, norm_eps)
        self.act = ACTS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold a BatchNorm into the convolution before it."""
        if isinstance(self.norm, nn.BatchNorm2d):
            gain, shift = norm_affine(self.norm)
            scale_rows(self.conv, gain)
            add_bias(self.conv, shift)
            self.norm = nn.Identity()


def norm_affine(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode as `gain · x + shift`, both of shape (C,). Computed in float64: folding loses nothing."""
    assert norm.running_mean is not None and norm.running_var is not None
    if norm.weight.is_meta:  # no values to fold: the caller needs the shapes alone
        return norm.weight.data, norm.bias.data
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * gain
    return gain.detach(), shift.detach()


def scale_rows(layer: nn.Conv2d | nn.Linear, gain: Tensor) -> None:
    """Multiply the outputs of `layer` by `gain` (C,), and make sure that it has a bias to add to."""
    weight = layer.weight
    if layer.bias is None:
        layer.bias = nn.Parameter(weight.new_zeros(weight.shape[0]))
    if weight.is_meta:
        return
    gain = gain.double()
    rows = gain.reshape(-1, *[1] * (weight.dim() - 1))
    weight.data = (weight.double() * rows).to(weight.dtype)
    layer.bias.data = (layer.bias.double() * gain).to(weight.dtype)


def add_bias(layer: nn.Conv2d | nn.Linear, shift: Tensor) -> None:
    """Add `shift` (C,) to the outputs of `layer`, which has a bias."""
    assert layer.bias is not None
    if not layer.bias.is_meta:
        layer.bias.data = (layer.bias.double() + shift).to(layer.bias.dtype)


class LayerScale(nn.Module):
    """Per-channel gain of a residual branch; `channel_dim` is 1 for a map and -1 for tokens."""

    def __init__(self, channels: int, init: float, channel_dim: int = 1):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), init))
        self.channel_dim = channel_dim

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.gamma.view(-1, 1, 1) if self.channel_dim == 1 else self.gamma)


def layer_scale(channels: int, init: float | None, channel_dim: int = 1) -> nn.Module:
    """LayerScale, or nothing where a spec gives null."""
    return nn.Identity() if init is None else LayerScale(channels, init, channel_dim)


def fold_layer_scale(scale: nn.Module, last: nn.Conv2d | nn.Linear) -> nn.Module:
    """Move the gain of a branch into its last layer; returns what stands in the gain's place."""
    if isinstance(scale, LayerScale):
        scale_rows(last, scale.gamma.detach())
        return nn.Identity()
    return scale


class DropPath(nn.Module):
    """Drops a residual branch for a random part of the batch while training; the identity in eval mode."""

    def __init__(self, drop_prob: float = 0.0):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob:g}"


def pool_exclude_pad(x: Tensor, kernel: int) -> Tensor:
    """Average pooling of stride 1 whose border windows divide by the pixels that they hold: shape unchanged."""
    return F.avg_pool2d(x, kernel, 1, kernel // 2, count_include_pad=False)


class SqueezeExcite(nn.Module):
    """Channels gated by what a global average says of all of them (arXiv 1709.01507, Section 3): (B, C, H, W) → same."""

    def __init__(self, channels: int, squeezed: int, *, act: str = "relu", gate: str = "sigmoid"):
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = ACTS[act]()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = ACTS[gate]()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))
