"""Blocks of networks as probes: what they hold, and that few of them are of many families."""

from __future__ import annotations

import torch

from vitscope.calibrate.block import blocks_of
from vitscope.calibrate.block_probe import block_probe
from vitscope.latency.runtime import load_runtime

RULES = load_runtime("onnxruntime")
NETWORKS = ("mobilevit_xxs", "edgenext_xx_small", "mobilenetv2_100", "levit_128s", "deit_tiny_patch16_224")


def test_the_first_blocks_are_of_every_family_and_each_is_there_once() -> None:
    blocks = blocks_of(NETWORKS, RULES)
    assert len({each.kernel for each in blocks}) == len(blocks) > 30
    assert len({family for each in blocks[:5] for family in each.families}) == 5
    assert all(each.kernel.geometry is None and each.weight > 0 for each in blocks)


def test_a_block_is_a_chain_of_copies_where_sizes_allow_it() -> None:
    for each in blocks_of(NETWORKS, RULES)[:10]:
        probe = block_probe(each, RULES)
        assert probe is not None and len(probe.kernels) >= probe.copies
        assert probe.copies == 1 or each.repeats
        assert probe.copies * each.kernels <= 150 or probe.copies == 1
        with torch.no_grad():
            output = probe.module(torch.randn(1, *probe.size, generator=torch.Generator().manual_seed(0)))
        assert torch.isfinite(output).all(), each.kernel.scope
