"""VALUE → MODULE: one block family a file, its paper cited, with a literal table of grammar class → module class.

The grammar of `vitscope.spec.kinds.x` is built by `vitscope.blocks.x`, which is imported when its first block is built.
"""

from __future__ import annotations

from importlib import import_module

from torch import nn

from vitscope.spec.grammar import BlockSpec
from vitscope.spec.plugins import PLUGIN_BLOCKS
from vitscope.spec.shape import Feature


def build_block(spec: BlockSpec, x: Feature) -> nn.Module:
    """The module of `spec` for an input of shape `x`, on torch's default device."""
    kind = type(spec)
    made = PLUGIN_BLOCKS.get(kind)
    if made is None:
        family = import_module(f"vitscope.blocks.{kind.__module__.rpartition('.')[2]}")
        made = family.BLOCKS[kind]
    return made(spec, x)
