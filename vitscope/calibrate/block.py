"""The blocks that networks are made of: kernels among others, with the copies and permutations that stand between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vitscope.calibrate.demand import Demand, rough_s
from vitscope.graph.store import block_graph
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import FusionRules
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.shape import Feature, features

_MOST_S = 20e-3  # roughly: blocks that take longer are of images that no phone looks at


@dataclass(frozen=True)
class BlockDemand(Demand):
    """A block that networks have. `kernel` stands for it: of no kind that is known, and without sizes."""

    block: BlockSpec
    in_shape: Feature
    rough_s: float
    kernels: int
    repeats: bool  # puts out what it takes in, so that copies stand in a chain


def blocks_of(names: Iterable[str], rules: FusionRules, batch: int = 1) -> list[BlockDemand]:
    """The distinct blocks of networks that take one tensor and give one; those that take most of their networks' time first,
    each family in turn, so that a few of them are of many families."""
    weights: dict[tuple[BlockSpec, Feature], float] = {}
    families: dict[tuple[BlockSpec, Feature], set[str]] = {}
    sizes: dict[tuple[BlockSpec, Feature], tuple[float, int, bool]] = {}
    for name in names:
        spec = load_spec(name)
        placed = [place for place in flow(spec) if len(features(place.in_shape)) == len(features(place.out_shape)) == 1]
        kernels = [lower(block_graph(place.block, place.in_shape, "deploy", batch), rules) for place in placed]
        times = [sum(map(rough_s, own)) for own in kernels]
        for place, own, own_s in zip(placed, kernels, times, strict=True):
            key = place.block, place.in_shape
            weights[key] = weights.get(key, 0.0) + own_s / (sum(times) or 1.0)
            families.setdefault(key, set()).add(spec.family or name)
            sizes[key] = own_s, len(own), place.in_shape == place.out_shape
    made = [
        BlockDemand(_stand_in(*key), weight, frozenset(families[key]), *key, *sizes[key])
        for key, weight in weights.items()
        if 0 < sizes[key][0] < _MOST_S
    ]
    made.sort(key=lambda each: -each.weight)
    turns: dict[str, int] = {}
    order = {}
    for each in made:
        family = min(each.families, key=lambda name: turns.get(name, 0))
        order[each.kernel] = turns[family] = turns.get(family, 0) + 1
    return sorted(made, key=lambda each: (order[each.kernel], -each.weight))


def _stand_in(block: BlockSpec, in_shape: Feature) -> Kernel:
    return Kernel("unknown", f"{block} on {in_shape}", 0, 0, 0, 0, 1, (), block.kind)
