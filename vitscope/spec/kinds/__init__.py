"""Every block kind that a spec may name, in one literal table."""

from __future__ import annotations

from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.kinds.convolution import (
    Classifier,
    ConvClassifier,
    ConvDownsample,
    ConvStem,
    DistilledClassifier,
    InvertedResidual,
)
from vitscope.spec.kinds.efficientformer import Attention, DualPath, Ffn, Mb3d, Mb4d, StrideAttention

KINDS: tuple[type[BlockSpec], ...] = (
    ConvStem,
    ConvDownsample,
    DualPath,
    Ffn,
    Attention,
    StrideAttention,
    Mb4d,
    Mb3d,
    InvertedResidual,
    Classifier,
    DistilledClassifier,
    ConvClassifier,
)

ROLES: tuple[Role, ...] = ("stem", "downsample", "block", "head")
