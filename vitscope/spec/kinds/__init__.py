"""Every block kind that a spec may name: one line a family, whose module of the same name in `blocks/` builds it."""

from __future__ import annotations

from vitscope.spec.grammar import BlockSpec, Role
from vitscope.spec.kinds import (
    convnext,
    convolution,
    edgenext,
    edgevit,
    efficientformer,
    efficientvit,
    fastvit,
    levit,
    mobileformer,
    mobileone,
    mobilevit,
    poolformer,
    repvit,
    resnet,
    segformer,
    segnext,
    swin,
    universal,
    vit,
)

KINDS: tuple[type[BlockSpec], ...] = (
    *convolution.KINDS,
    *efficientformer.KINDS,
    *efficientvit.KINDS,
    *mobilevit.KINDS,
    *vit.KINDS,
    *mobileone.KINDS,
    *convnext.KINDS,
    *edgenext.KINDS,
    *edgevit.KINDS,
    *segformer.KINDS,
    *segnext.KINDS,
    *mobileformer.KINDS,
    *poolformer.KINDS,
    *repvit.KINDS,
    *swin.KINDS,
    *levit.KINDS,
    *fastvit.KINDS,
    *resnet.KINDS,
    *universal.KINDS,
)

ROLES: tuple[Role, ...] = ("stem", "downsample", "block", "head")
