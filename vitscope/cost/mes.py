"""MES, the mobile efficiency score of EfficientFormerV2 (arXiv 2212.08059, Section 3.5): 100 · Π (Mᵢ/Uᵢ)^(−αᵢ)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# arXiv 2212.08059, Section 3.5: the units are a MobileNetV2-sized network on an iPhone 12 (iOS 16, Core ML).
BASE_SCORE = 100.0
UNIT_PARAMS = 3_000_000
UNIT_LATENCY_S = 1e-3
ALPHA_PARAMS = 0.5
ALPHA_LATENCY = 1.0
UNIT_DEVICE = "iphone12"

Origin = Literal["predicted", "measured", "reported"]


@dataclass(frozen=True, slots=True)
class Mes:
    """A score with its working: `score` = 100 · size_factor · latency_factor.

    Scores are comparable only when `device` agrees: the unit of latency is defined on the iPhone 12, and a score from
    another device is a score in another unit.
    """

    score: float
    params: int
    latency_s: float
    size_factor: float
    latency_factor: float
    device: str
    origin: Origin

    @property
    def has_paper_unit(self) -> bool:
        """Whether the score is in the unit of the paper."""
        return self.device == UNIT_DEVICE

    @property
    def working(self) -> str:
        """The formula with its numbers: `100 · (6.19M/3M)^-0.5 · (1.06ms/1ms)^-1 = 100 · 0.696 · 0.943`."""
        return (
            f"{BASE_SCORE:g} · ({self.params / 1e6:.3g}M/{UNIT_PARAMS / 1e6:g}M)^-{ALPHA_PARAMS:g} · "
            f"({self.latency_s * 1e3:.3g}ms/{UNIT_LATENCY_S * 1e3:g}ms)^-{ALPHA_LATENCY:g} = "
            f"{BASE_SCORE:g} · {self.size_factor:.3f} · {self.latency_factor:.3f}"
        )


def mes(params: int, latency_s: float, device: str, origin: Origin) -> Mes:
    """The score of a network of `params` scalars that takes `latency_s` on `device`. Both must be above zero."""
    size_factor = (params / UNIT_PARAMS) ** -ALPHA_PARAMS
    latency_factor = (latency_s / UNIT_LATENCY_S) ** -ALPHA_LATENCY
    score = BASE_SCORE * size_factor * latency_factor
    return Mes(score, params, latency_s, size_factor, latency_factor, device, origin)
