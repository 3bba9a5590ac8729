"""block_probe(demand): a few copies of a block in a chain, as a network stands them there, or one where sizes change."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn

from vitscope.blocks import build_block
from vitscope.calibrate.block import BlockDemand
from vitscope.calibrate.demand import bare
from vitscope.calibrate.probe import Probe
from vitscope.calibrate.probe_build import Size, from_an_image
from vitscope.graph.trace import trace
from vitscope.latency.kernels import lower
from vitscope.latency.runtime import FusionRules
from vitscope.model import fuse_in_place
from vitscope.spec.shape import features
from vitscope.subject import spread_constants

_LEAST_S, _MOST_COPIES = 30e-3, 16  # roughly, of all copies together: as much as a network goes through
_MOST_KERNELS = 150  # of all copies together: each takes a converter its time


def block_probe(demand: BlockDemand, rules: FusionRules, batch: int = 1) -> Probe | None:
    """The probe of a block; None for one whose input is no image and no tokens."""
    shape = features(demand.in_shape)[0].tensor(batch)
    most = min(_MOST_COPIES, max(1, _MOST_KERNELS // demand.kernels))
    copies = min(most, ceil(_LEAST_S / demand.rough_s)) if demand.repeats else 1
    if len(shape) not in (3, 4):
        return None

    def made() -> tuple[nn.Module, Size]:
        torch.manual_seed(0)
        body = nn.Sequential(*(build_block(demand.block, demand.in_shape) for _ in range(copies))).eval()
        spread_constants(body)
        fuse_in_place(body)
        if len(shape) == 3:
            return _OnTokens(body), (1, shape[1], shape[2])
        return from_an_image(body, (shape[1], shape[2], shape[3]))

    with torch.device("meta"):
        module, size = made()
        graph = trace(module, torch.empty((batch, *size)))
    kernels = tuple(bare(found) for found in lower(graph, rules))
    return Probe(demand.kernel, copies, made()[0], size, kernels)


class _OnTokens(nn.Module):
    """A network of tokens (B, T, C) on the image (B, 1, T, C)."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.squeeze(1))
