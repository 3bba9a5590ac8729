"""A map in windows that attend within themselves (Swin, arXiv 2103.14030, Section 3.2): cutting, shifting, relative bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitscope.blocks.tokens import SelfAttention

# B batch, C channels, H W space, G windows of an image, T tokens of a window, N heads

MASKED = -100.0  # added to the logit of two positions that a shift made neighbours (the reference's value)
Sides = tuple[int, int]  # height, width


def to_windows(x_BHWC: Tensor, window: Sides) -> Tensor:
    """Cut a map whose sides the window divides: (B, H, W, C) → (B·G, T, C), windows by rows."""
    B, H, W, C = x_BHWC.shape
    h, w = window
    return x_BHWC.reshape(B, H // h, h, W // w, w, C).transpose(2, 3).reshape(-1, h * w, C)


def from_windows(windows: Tensor, sides: Sides, window: Sides) -> Tensor:
    """Put the map together again: (B·G, T, C) → (B, H, W, C)."""
    (H, W), (h, w), C = sides, window, windows.shape[-1]
    return windows.reshape(-1, H // h, W // w, h, w, C).transpose(2, 3).reshape(-1, H, W, C)


def relative_offsets(window: Sides) -> Tensor:
    """For each query and key of a window, the row of a table of signed distances: (T, T) of int64."""
    h, w = window
    # On the CPU even when modules are made on the meta device, whose arithmetic takes long to load.
    y, x = torch.arange(h, device="cpu"), torch.arange(w, device="cpu")
    dy, dx = y[:, None] - y[None, :] + h - 1, x[:, None] - x[None, :] + w - 1
    return (dy[:, None, :, None] * (2 * w - 1) + dx[None, :, None, :]).reshape(h * w, h * w)


def shift_mask(sides: Sides, window: Sides, shift: Sides) -> Tensor:
    """What keeps positions apart that only a cyclic shift brought into one window: (G, 1, T, T), 0 or MASKED."""

    def regions(side: int, length: int, by: int) -> Tensor:
        place = torch.arange(side, device="cpu")
        return (place >= side - length).long() + (place >= side - by).long() if by else torch.zeros_like(place)

    rows, columns = (regions(*axis) for axis in zip(sides, window, shift, strict=True))
    regions_GT = to_windows((rows[:, None] * 3 + columns[None, :])[None, :, :, None], window)[..., 0]
    is_apart = regions_GT[:, :, None] != regions_GT[:, None, :]
    return (is_apart.float() * MASKED)[:, None]


class RelativeBias(nn.Module):
    """Learned attention bias by signed distance within a window: () → (N, T, T)."""

    def __init__(self, num_heads: int, window: Sides):
        super().__init__()
        h, w = window
        self.table = nn.Parameter(torch.zeros((2 * h - 1) * (2 * w - 1), num_heads))
        offsets = relative_offsets(window).to(torch.get_default_device())
        self.register_buffer("offsets", offsets, persistent=False)
        self.offsets: Tensor

    def forward(self) -> Tensor:
        return self.table[self.offsets].permute(2, 0, 1)


class WindowAttention(SelfAttention):
    """Self-attention within the windows of a grid of tokens, which may be shifted by half a window: (B, H·W, C) → same.

    A grid that the window does not divide is filled up with zeros. A window is no larger than the grid, and where it is
    as large, nothing is shifted.
    """

    def __init__(self, dim: int, num_heads: int, *, grid: Sides, window: int, shift: int = 0):
        super().__init__(dim, num_heads)
        self.grid = grid
        self.window = (min(window, grid[0]), min(window, grid[1]))
        self.shift = (shift if grid[0] > window else 0, shift if grid[1] > window else 0)
        self.padded = (-(-grid[0] // self.window[0]) * self.window[0], -(-grid[1] // self.window[1]) * self.window[1])
        self.relative_bias = RelativeBias(num_heads, self.window)
        mask = None
        if any(self.shift):
            mask = shift_mask(self.padded, self.window, self.shift).to(torch.get_default_device())
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor | None

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        B, T, C = x.shape
        (H, W), (down, right) = self.grid, self.shift
        x_BHWC = x.reshape(B, H, W, C)
        if self.mask is not None:
            x_BHWC = torch.roll(x_BHWC, (-down, -right), (1, 2))
        if self.padded != self.grid:
            x_BHWC = F.pad(x_BHWC, (0, 0, 0, self.padded[1] - W, 0, self.padded[0] - H))
        bias = self.relative_bias() if self.mask is None else self.relative_bias() + self.mask
        windows = super().forward(to_windows(x_BHWC, self.window), bias)
        y_BHWC = from_windows(windows, self.padded, self.window)[:, :H, :W]
        if self.mask is not None:
            y_BHWC = torch.roll(y_BHWC, (down, right), (1, 2))
        return y_BHWC.reshape(B, T, C)
