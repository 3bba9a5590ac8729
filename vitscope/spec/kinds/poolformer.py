"""Grammar of PoolFormer (arXiv 2111.11418): the MetaFormer block whose token mixer is a pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vitscope.spec.grammar import (
    ActField,
    BlockSpec,
    Expansion,
    Kernel,
    LayerScale,
    NormEps,
    NormField,
    same_map,
)
from vitscope.spec.shape import FeatureShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFormer(BlockSpec):
    """Norm and average pooling minus identity, then norm and a two-layer 1×1 MLP; a residual with layer scale around each."""

    kind: ClassVar[str] = "poolformer"
    source: ClassVar[str] = "PoolFormer, arXiv 2111.11418, Section 3.2"
    kernel: Kernel = 3
    expansion: Expansion = 4.0
    act: ActField = "gelu"
    norm: NormField = "gn"
    norm_eps: NormEps = 1e-5
    layer_scale_init: LayerScale = 1e-5

    def out_shape(self, x: FeatureShape) -> FeatureShape:
        return same_map(self.kind, x, self.expansion)


KINDS = (PoolFormer,)
