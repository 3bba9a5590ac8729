"""FeatureShape: what flows between blocks, a map or a sequence of tokens on a grid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """One image's feature: (channels, height, width) as a map, or height·width tokens of `channels` when `tokens`."""

    channels: int
    height: int
    width: int
    tokens: bool = False

    def tensor(self, batch: int = 1) -> tuple[int, ...]:
        """The shape of the tensor: (B, C, H, W) for a map, (B, H·W, C) for tokens."""
        if self.tokens:
            return (batch, self.height * self.width, self.channels)
        return (batch, self.channels, self.height, self.width)

    def strided(self, channels: int, stride: int) -> FeatureShape:
        """After a padded convolution with `stride`: sides rounded up."""
        return FeatureShape(channels, -(-self.height // stride), -(-self.width // stride))

    def __str__(self) -> str:
        if self.tokens:
            return f"{self.height * self.width} tokens × {self.channels}"
        return f"{self.channels}×{self.height}×{self.width}"
