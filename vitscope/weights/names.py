"""Every naming that checkpoints may come in, one line a family. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vitscope.weights import (
    convnext,
    edgenext,
    efficientformer,
    efficientvit,
    fastvit,
    levit,
    mobilenet,
    mobileone,
    mobilevit,
    poolformer,
    repvit,
    resnet,
    swin,
    vit,
)
from vitscope.weights.naming import Naming

NAMINGS: tuple[Naming, ...] = (
    *efficientformer.NAMINGS,
    *efficientvit.NAMINGS,
    *mobilenet.NAMINGS,
    *mobilevit.NAMINGS,
    *vit.NAMINGS,
    *mobileone.NAMINGS,
    *edgenext.NAMINGS,  # before ConvNeXt, whose marks its networks bear too
    *convnext.NAMINGS,
    *poolformer.NAMINGS,
    *repvit.NAMINGS,
    *swin.NAMINGS,
    *levit.NAMINGS,
    *fastvit.NAMINGS,
    *resnet.NAMINGS,
)


def naming_of(keys: Iterable[str]) -> Naming | None:
    """The naming that `keys` are in, or None when no table knows them: perhaps they are our own."""
    known = tuple(keys)
    return next((n for n in NAMINGS if all(any(re.search(mark, key) for key in known) for mark in n.marks)), None)
