"""The kernels that networks ask of a runtime: what is worth timing, and which families ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import FusionRules
from vitscope.profile import deploy_graphs
from vitscope.spec import load_spec
from vitscope.spec.zoo import zoo_names

# What a CPU core does at the least, to weigh kernels before anything is timed. Only the order of kernels depends on it.
_MACS_PER_S, _BYTES_PER_S, _START_S = 30e9, 5e9, 3e-6

_BEYOND = 0.1  # of a network's time: each kernel that the zoo has little of
_LARGE = 384 * 384  # pixels of an input: kernels of larger ones take the time of many others


@dataclass(frozen=True, slots=True)
class Demand:
    """A kernel that networks have, where it stands in none: how many seconds, about, and of which families."""

    kernel: Kernel
    weight: float  # summed share of each network's time that equal kernels take
    families: frozenset[str]


def bare(kernel: Kernel) -> Kernel:
    """The kernel apart from where it stands: two equal ones take the same time."""
    return replace(kernel, scope="", scopes=(), ops=())


def rough_s(kernel: Kernel, element_bytes: int = 4) -> float:
    """Seconds, within a factor of a few, on some core."""
    moved = element_bytes * (kernel.reads + kernel.writes + kernel.weights)
    return _START_S + max(kernel.macs / _MACS_PER_S, moved / _BYTES_PER_S)


def small_networks() -> list[str]:
    """The networks of the zoo whose inputs are photographs of up to 384×384 pixels."""
    return [name for name in zoo_names() if (size := load_spec(name).input)[1] * size[2] <= _LARGE]


def kernels_of(names: Iterable[str], rules: FusionRules, batch: int = 1) -> dict[str, tuple[str, tuple[Kernel, ...]]]:
    """Network of the zoo → (family, its kernels in order)."""
    found = {}
    for name in names:
        spec = load_spec(name)
        kernels = tuple(bare(k) for graph in deploy_graphs(spec, batch) for k in lower(graph, rules))
        found[name] = (spec.family or name, kernels)
    return found


def beyond_the_zoo(batch: int = 1) -> list[Demand]:
    """What the zoo has little of, as other networks have it: grouped convolutions of 8 to 64 channels a group, and batch norms
    that no convolution takes in, since they follow a join."""
    made = []
    for width in (8, 16, 24, 32, 40, 64):
        for side, groups in ((56, 4), (28, 8), (14, 16), (7, 24)):
            channels, positions = width * groups, batch * side * side
            size = Geometry(
                batch, channels, channels, (3, 3), (1, 1), (1, 1), groups, in_size=(side, side), out_size=(side, side)
            )
            kernel = Kernel(
                "grouped", "", 9 * width * channels * positions, channels * positions, 9 * width * channels + channels,
                channels * positions, 9 * width, (), "convolution", ("relu",), size,
            )  # fmt: skip
            made.append(Demand(kernel, _BEYOND, frozenset()))
    for channels, side in ((32, 112), (72, 56), (144, 28), (240, 14), (480, 14), (720, 7)):
        size = Geometry(batch, channels, channels, in_size=(side, side), out_size=(side, side))
        n = batch * channels * side * side
        kernel = Kernel("norm", "", 0, n, 4 * channels, n, 1, (), "native_batch_norm", (), size)
        made.append(Demand(kernel, _BEYOND, frozenset()))
    return made


def demand(networks: Mapping[str, tuple[str, tuple[Kernel, ...]]]) -> list[Demand]:
    """The distinct kernels of `networks`, the weightiest first."""
    weights: dict[Kernel, float] = {}
    families: dict[Kernel, set[str]] = {}
    for family, kernels in networks.values():
        total = sum(map(rough_s, kernels))
        for kernel in kernels:
            weights[kernel] = weights.get(kernel, 0.0) + rough_s(kernel) / total
            families.setdefault(kernel, set()).add(family)
    made = [Demand(kernel, weight, frozenset(families[kernel])) for kernel, weight in weights.items()]
    return sorted(made, key=lambda d: -d.weight)
