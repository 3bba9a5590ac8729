"""FeatureShape: what flows between blocks, a map or a sequence of tokens on a grid; some networks carry several."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """One image's feature: (channels, height, width) as a map, or height·width tokens of `channels` when `tokens`.

    `prefix` counts tokens in front of those of the grid: class and distillation tokens.
    """

    channels: int
    height: int
    width: int
    tokens: bool = False
    prefix: int = 0

    def tensor(self, batch: int = 1) -> tuple[int, ...]:
        """The shape of the tensor: (B, C, H, W) for a map, (B, prefix + H·W, C) for tokens."""
        if self.tokens:
            return (batch, self.prefix + self.height * self.width, self.channels)
        return (batch, self.channels, self.height, self.width)

    @property
    def numel(self) -> int:
        """Scalars of one image."""
        return self.channels * (self.prefix + self.height * self.width)

    def strided(self, channels: int, stride: int) -> FeatureShape:
        """After a padded convolution with `stride`: sides rounded up."""
        return FeatureShape(channels, -(-self.height // stride), -(-self.width // stride))

    def __str__(self) -> str:
        if self.tokens:
            return f"{self.prefix + self.height * self.width} tokens × {self.channels}"
        return f"{self.channels}×{self.height}×{self.width}"


# One feature, or several that flow side by side: a map and a few global tokens, or the outputs that a head taps.
Feature = FeatureShape | tuple[FeatureShape, ...]


def features(x: Feature) -> tuple[FeatureShape, ...]:
    """All features of `x`, the map first."""
    return x if isinstance(x, tuple) else (x,)


def main_feature(x: Feature) -> FeatureShape:
    """The first feature: the one whose channels are the width of a stage."""
    return x[0] if isinstance(x, tuple) else x
