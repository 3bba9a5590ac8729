"""A convolution that trains as several parallel branches and deploys as one: shared by MobileOne, RepViT and FastViT.

Sources: RepVGG, arXiv 2101.03697, Section 3.3; MobileOne, arXiv 2206.04040, Section 3.2; large kernels with a small
one beside, RepLKNet, arXiv 2203.06717, Section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.layers import ACTS, ConvNormAct, SqueezeExcite, add_bias, norm_affine, scale_rows

# B batch, C channels, H W space


class ReparamConv(nn.Module):
    """Sum of k×k convolutions, a smaller one and the input itself, then norm, squeeze-excite and activation.

    (B, C, H, W) → (B, out, ceil(H/stride), ceil(W/stride)). `branches` convolutions of side `kernel` stand side by side,
    one of side `small_kernel` beside them; `identity` adds the input where stride and channels allow it, through a norm of
    its own ("norm") or as it is ("plain"). Each branch has a norm, except that with `norm_sum` the small one has a bias in
    place of it and a norm follows the sum. fuse() leaves one convolution of side `kernel`, with bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        branches: int = 1,
        small_kernel: int | None = None,
        identity: str = "norm",
        norm_sum: bool = False,
        norm_eps: float = 1e-5,
        squeezed: int | None = None,
        act: str = "none",
    ):
        super().__init__()

        def branch(side: int, *, norm: bool = True) -> ConvNormAct:
            return ConvNormAct(
                in_channels,
                out_channels,
                side,
                stride=stride,
                groups=groups,
                bias=not norm,
                norm="bn" if norm else "none",
                norm_eps=norm_eps,
            )

        self.branches: nn.ModuleList | None = nn.ModuleList(branch(kernel) for _ in range(branches))
        self.small = branch(small_kernel, norm=not norm_sum) if small_kernel is not None else None
        self.identity: nn.Module | None = None
        if identity != "none" and stride == 1 and in_channels == out_channels:
            self.identity = nn.BatchNorm2d(in_channels, eps=norm_eps) if identity == "norm" else nn.Identity()
        self.conv: nn.Conv2d | None = None  # what fuse() puts in place of all branches
        self.norm = nn.BatchNorm2d(out_channels, eps=norm_eps) if norm_sum else nn.Identity()
        self.se = SqueezeExcite(out_channels, squeezed) if squeezed is not None else nn.Identity()
        self.act = ACTS[act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.se(self.norm(self.summed(x))))

    def summed(self, x: Tensor) -> Tensor:
        """The branches' sum: (B, C, H, W) → (B, out, H', W')."""
        if self.branches is None:
            assert self.conv is not None
            return self.conv(x)
        first, *others = self.branches
        y = first(x)
        for branch in (*others, self.small, self.identity):
            if branch is not None:
                y = y + branch(x)
        return y

    def fuse(self) -> None:
        """Add up the kernels of all branches, whose norms are folded by now, and fold the norm of the sum."""
        if self.branches is None:
            return
        identity, convs = self.identity, self._convs(self.branches)
        self.conv = conv = convs[0]  # of the full kernel, with a bias since its norm was folded
        if not conv.weight.is_meta:
            weight, bias = torch.zeros_like(conv.weight, dtype=torch.float64), conv.weight.new_zeros(()).double()
            for branch in convs:
                assert branch.bias is not None
                weight = weight + centred(branch.weight.double(), conv.kernel_size[0])
                bias = bias + branch.bias.double()
            if isinstance(identity, nn.BatchNorm2d):
                gain, shift = norm_affine(identity)
                weight, bias = weight + identity_kernel(conv, gain), bias + shift
            elif identity is not None:
                weight = weight + identity_kernel(conv, torch.ones_like(bias))
            assert conv.bias is not None
            conv.weight.data, conv.bias.data = weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)
        self.branches = self.small = self.identity = None
        if isinstance(self.norm, nn.BatchNorm2d):
            gain, shift = norm_affine(self.norm)
            scale_rows(conv, gain)
            add_bias(conv, shift)
            self.norm = nn.Identity()

    def _convs(self, branches: nn.ModuleList) -> list[nn.Conv2d]:
        """The convolutions of all branches, one of the full kernel first."""
        layers = [*branches, *([self.small] if self.small is not None else [])]
        return [layer.conv for layer in layers if isinstance(layer, ConvNormAct)]


def centred(weight: Tensor, kernel: int) -> Tensor:
    """A small kernel in the middle of zeros: (out, C, k, k) → (out, C, kernel, kernel)."""
    margin = (kernel - weight.shape[-1]) // 2
    return F.pad(weight, (margin,) * 4)


def identity_kernel(conv: nn.Conv2d, gain: Tensor) -> Tensor:
    """The kernel in the shape of `conv`'s that multiplies each channel by its `gain` (C,), in float64."""
    weight = torch.zeros_like(conv.weight, dtype=torch.float64)
    out, per_group, *_ = weight.shape
    rows, middle = torch.arange(out, device=weight.device), conv.kernel_size[0] // 2
    weight[rows, rows % per_group, middle, middle] = gain.double()
    return weight
