"""Probe: a few copies of one kernel as a small network, so that a runtime meets the kernel as it does in a network.

Copies have weights of their own, so that no runtime finds two of them to be one. Some probes have as many as a small
network, others as a large one, whose weights the caches have lost when the next inference asks for them. Copies stand in
a chain where the sizes allow it, and are added up where they do not. Their maps are made of an image and end in their
means, as in a network: runtimes copy what enters and what leaves, which takes as long for a map as some of the copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from zlib import crc32

import torch
from torch import nn

from vitscope.calibrate.demand import bare, rough_s
from vitscope.calibrate.probe_build import LEAST_COPIES, Size, build
from vitscope.graph.trace import trace
from vitscope.latency.class_cost import class_of
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import FusionRules
from vitscope.subject import spread_constants

_WEIGHT_BYTES = 2e6, 40e6  # of all copies together: probes lie between these, so that every cache's edge is among them
_MOST_S = 40e-3  # roughly, of all copies together
_LEAST_S = 1.5e-3  # likewise: what stands at both ends of them is little beside it
_LEAST_LIGHT_COPIES = 10  # of what takes no longer than what stands between its copies
_MOST_COPIES, _MOST_COPIES_OF_WEIGHTS = 16, 48


@dataclass(frozen=True)
class Probe:
    """A network of kernels like `wanted`, `copies` of its class in all, and everything that a runtime makes of it."""

    wanted: Kernel
    copies: int
    module: nn.Module
    size: Size
    kernels: tuple[Kernel, ...]

    @property
    def name(self) -> str:
        size = self.wanted.geometry
        if size is None:
            return f"{self.wanted.main} on {self.wanted.scope.rpartition(' on ')[2]}"
        shape = f"{size.in_channels}x{size.out_channels}x{size.out_size[0]}x{size.out_size[1]}"
        return f"{self.wanted.kind} {self.wanted.main} {shape}"


def probe_of(kernel: Kernel, rules: FusionRules, batch: int = 1) -> Probe | None:
    """The probe of `kernel`; None for one that cannot be built from its sizes, or that a runtime makes no kernel of."""
    if kernel.geometry is None:
        return None
    copies = _copies(kernel)
    torch.manual_seed(0)
    try:
        made = build(kernel, kernel.geometry, copies, batch, rules)
        if made is None:
            return None
        module, size = made
        graph = trace(module.to("meta"), torch.empty((batch, *size), device="meta"))
        module, _ = build(kernel, kernel.geometry, copies, batch, rules)  # type: ignore[misc]
    except (RuntimeError, ValueError, ZeroDivisionError):
        return None  # sizes that torch itself does not take together: not the kernel that was meant
    kernels = tuple(bare(found) for found in lower(graph, rules))
    alike = [found for found in kernels if class_of(found) == class_of(kernel)]
    if not any(_same(found, kernel) for found in alike):
        return None
    spread_constants(module)
    return Probe(kernel, len(alike), module.eval(), size, kernels)


def _same(found: Kernel, wanted: Kernel) -> bool:
    """Of copies and elementwise operations the amount alone counts: in which order their axes stand makes no difference; and of
    means of rows, which stand for the parts of a norm too."""
    if found.kind in ("copy", "elementwise"):
        return found.writes == wanted.writes
    if class_of(wanted) == "reduce rows":
        return (found.reads, found.writes) == (wanted.reads, wanted.writes)
    return found.geometry == wanted.geometry


def _copies(kernel: Kernel) -> int:
    one = rough_s(kernel)
    least = _LEAST_LIGHT_COPIES if kernel.kind in ("elementwise", "activation") else LEAST_COPIES
    wanted = min(_MOST_COPIES, max(least, ceil(_LEAST_S / one)))
    if kernel.weights:
        least, most = _WEIGHT_BYTES
        weight_bytes = least * (most / least) ** (crc32(repr(kernel.geometry).encode()) / 2**32)
        enough = ceil(weight_bytes / (4 * kernel.weights))
        wanted = max(wanted, enough) if enough <= _MOST_COPIES_OF_WEIGHTS else wanted
    return max(1, min(wanted, int(_MOST_S / one)))
