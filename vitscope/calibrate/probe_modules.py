"""The small networks that probes are made of: copies in a chain or added up, and what keeps a runtime from merging them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, call: Callable[[Tensor], Tensor]):
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


class Chain(nn.Module):
    """One after another."""

    def __init__(self, parts: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class Imaged(nn.Module):
    """A network of maps of `channels` on an image: a pointwise convolution makes them, and means of maps come out. Its ReLU
    keeps constants that follow from becoming its weights."""

    def __init__(self, body: nn.Module, channels: int):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, channels, 1), body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(torch.relu(self.stem(x)))
        return y.mean((2, 3), keepdim=True) if y.dim() == 4 else y


class Sum(nn.Module):
    """All of one input, added up."""

    def __init__(self, parts: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.parts
        y = first(x)
        for part in others:
            y = y + part(x)
        return y


class Reshaped(nn.Module):
    """The axes of a map numbered anew, and ReLU, which keeps two in a row from being made one."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return torch.relu(x.reshape(b, w, c, h))


class Summed(nn.Module):
    """Each part of the sum of the running value and the input."""

    def __init__(self, parts: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self.parts:
            y = part(y + x)
        return y


class Between(nn.Module):
    """A function of the input plus a constant, which keeps two in a row from being made one."""

    def __init__(self, call: Callable[[Tensor], Tensor]):
        super().__init__()
        self.call, self.shift = call, nn.Parameter(torch.randn(1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x + _of_rank(self.shift, x))


class Tokens(nn.Module):
    """A network of (B, T, C), or of (B, C) where there is one token, on the image (1, B, T, C)."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        _, B, T, C = x.shape
        return self.body(x.view(B, T, C) if T > 1 else x.view(B, C))


class Products(nn.Module):
    """Attention's two products, (M, K) × (K, N) and (M, N) × (N, K), again and again, of an input (heads, M, K)."""

    def __init__(self, heads: int, depth: int, columns: int, pairs: int):
        super().__init__()
        self.keys = nn.ParameterList(nn.Parameter(torch.randn(1, heads, columns, depth) * 0.05) for _ in range(pairs))

    def forward(self, x: Tensor) -> Tensor:
        one = x[:, :, :1, :1]
        for own in self.keys:
            # Computed, so that no runtime prepares them as weights; of the input alone: products that something else reads
            # too, as none in attention, XNNPACK copies to renumber their axes.
            keys = own * one
            x = (x @ keys.transpose(-2, -1)) @ keys
        return x


class GroupNorm(nn.Module):
    def __init__(self, groups: int, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Elementwise(nn.Module):
    """An operation on the running value and another: a map of its size (`same`), one value a channel (`channel`) or a row of
    tokens (`row`), or constants: one a channel (`constant`), one an element (`table`), or a `number`."""

    def __init__(
        self, call: Callable[[Tensor, Tensor], Tensor], copies: int, channels: int, size: tuple[int, int], other: str
    ):
        super().__init__()
        self.call, self.copies, self.other = call, copies, other
        shape = {"table": (1, channels, *size), "constant": (1, channels, 1, 1)}.get(other, (1, 1, 1, 1))
        given = other in ("table", "constant", "number")
        self.constants = nn.ParameterList(nn.Parameter(torch.rand(shape) + 0.5) for _ in range(copies * given))

    def forward(self, x: Tensor) -> Tensor:
        for constant in self.constants:
            x = self.call(x, constant if x.dim() == 4 else constant.flatten(2).transpose(1, 2))
            # two constants in a row would be made one; LiteRT joins a ReLU to none that is a number
            x = torch.abs(x) if self.other == "number" else torch.relu(x)
        if not self.constants:
            part = x if self.other == "same" else self._part(x)
            given = part * part + 1  # nothing that one divides by is near 0
            for _ in range(self.copies):
                x = self.call(x, given)
        return x

    def _part(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return x[:, :, :1, :1]
        return x[..., :1] if self.other == "row" else x[:, :1]


class Reduced(nn.Module):
    """The input plus what it reduces to."""

    def __init__(self, call: Callable[[Tensor], Tensor]):
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return x + self.call(x)


class Turned(nn.Module):
    """The last two axes in each other's place, and that taken for the map as it was: two in a row do not cancel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(-2, -1).reshape(x.shape)


class Permuted(nn.Module):
    """Heads before tokens, as attention takes them apart (`rows`: each row stays whole), or all axes but the first elsewhere."""

    def __init__(self, rows: bool):
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            B, T, C = x.shape
            heads = next(n for n in (4, 3, 2, 1) if C % n == 0)
            apart = x.reshape(B, T, heads, C // heads)
        else:
            apart = x
        return apart.permute((0, 2, 1, 3) if self.rows else (1, 0, 3, 2)).reshape(x.shape)


class Unblocked(nn.Module):
    """A convolution, whose channels a runtime may keep in blocks, before an operation that wants them one by one."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).abs()


class Numbered(nn.Module):
    """A convolution, whose channels a runtime may keep last, before an operation on the map as it is numbered."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return self.conv(x).reshape(b, c * w, h).abs().reshape(b, c, h, w)


class Parted(nn.Module):
    """The two halves of the channels of a map in each other's place, without their signs: two in a row do not cancel."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat([second, first], 1).abs()


class Unbound(nn.Module):
    """Likewise the two halves of the rows of tokens, cut as attention cuts queries, keys and values."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unflatten(1, (2, -1)).unbind(1)
        return torch.cat([second, first], 1).abs()


class Joined(nn.Module):
    """The input beside what `part` makes of it, as two halves of channels."""

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.part(x)], 1)


class Scaled(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Shifted(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]):
        super().__init__()
        self.call, self.scale = call, nn.Parameter(torch.randn(1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x * _of_rank(self.scale, x))


def _of_rank(number: Tensor, x: Tensor) -> Tensor:
    """One number as a tensor of as many axes as `x`: with fewer, converters turn a map around for it."""
    return number if x.dim() == 4 else number.view((1,) * x.dim())
