"""VALUE → MODULE: the module class of every block kind, in one literal table; one block family a file, its paper cited."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from vitscope.blocks import convolution, efficientformer
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.kinds import convolution as conv_grammar
from vitscope.spec.kinds import efficientformer as ef_grammar
from vitscope.spec.plugins import PLUGIN_BLOCKS
from vitscope.spec.shape import Feature

BLOCKS: dict[type[BlockSpec], Callable[..., nn.Module]] = {
    conv_grammar.ConvStem: convolution.ConvStem,
    conv_grammar.ConvDownsample: convolution.ConvDownsample,
    conv_grammar.InvertedResidual: convolution.InvertedResidual,
    conv_grammar.Classifier: convolution.Classifier,
    conv_grammar.DistilledClassifier: convolution.DistilledClassifier,
    conv_grammar.ConvClassifier: convolution.ConvClassifier,
    ef_grammar.Ffn: efficientformer.FfnBlock,
    ef_grammar.Attention: efficientformer.AttentionBlock,
    ef_grammar.StrideAttention: efficientformer.AttentionBlock,
    ef_grammar.DualPath: efficientformer.DualPath,
    ef_grammar.Mb4d: efficientformer.Mb4dBlock,
    ef_grammar.Mb3d: efficientformer.Mb3dBlock,
}


def build_block(spec: BlockSpec, x: Feature) -> nn.Module:
    """The module of `spec` for an input of shape `x`, on torch's default device."""
    kind = type(spec)
    return (BLOCKS.get(kind) or PLUGIN_BLOCKS[kind])(spec, x)
