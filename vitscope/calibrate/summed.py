"""The error of a network from the errors of its kernels: what a fit can say of networks that it has not timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import hypot, log

from vitscope.calibrate.record import Fitted, HeldOut
from vitscope.latency.kernels import Kernel
from vitscope.latency.score import INTERVAL, conformal

_DRIFT = 0.05  # in ln, of one machine from hour to hour: docs/calibrating.md
_SHARE = 0.5  # of a network's predicted time that timed kernels must make, for the network to be judged by them


@dataclass(frozen=True, slots=True)
class Summed:
    """A network as the sum of its timed kernels, or a family's blocks: as timed, and as a fit without the family predicts."""

    name: str
    family: str
    timed_s: float
    predicted_s: float
    share: float  # of the network's predicted time that these kernels are
    kernels: Counter[Kernel]

    @property
    def log_error(self) -> float:
        return log(self.predicted_s / self.timed_s)


def summed(fit: Fitted) -> list[Summed]:
    """Every network of which enough kernels were timed, and what was timed of each family's blocks."""
    ratio = {
        (each.timed.wanted, each.family): each.corrected_s / each.timed.seconds
        for each in fit.held_out
        if each.corrected_s and each.timed.seconds and not each.timed.is_block
    }
    size, costs = fit.element_bytes, fit.costs
    found = []
    for name, (family, kernels) in fit.networks.items():
        counts = Counter(kernels)
        seconds = {kernel: count * (costs.kernel_s(kernel, size) or 0.0) for kernel, count in counts.items()}
        known = {kernel: own for kernel, own in seconds.items() if (kernel, family) in ratio}
        total, timed = sum(seconds.values()), sum(known.values())
        if total and timed >= _SHARE * total:
            predicted = sum(own * ratio[kernel, family] for kernel, own in known.items())
            found.append(Summed(name, family, timed, predicted, timed / total, counts))
    return found + _blocks(fit)


def _blocks(fit: Fitted) -> list[Summed]:
    """The timed blocks of each family, one after another: as near to a network as a calibration comes."""
    of: dict[str, list[HeldOut]] = {}
    for each in fit.held_out:
        if each.timed.is_block and each.corrected_s and each.timed.seconds:
            of.setdefault(each.family, []).append(each)
    return [
        Summed(
            f"{len(blocks)} blocks", family, sum(each.timed.seconds or 0.0 for each in blocks),
            sum(each.corrected_s or 0.0 for each in blocks), 1.0,
            Counter(kernel for each in blocks for kernel in each.timed.kernels),
        )
        for family, blocks in of.items()
        if len(blocks) > 1
    ]  # fmt: skip


def halfwidth(networks: Sequence[Summed], level: float = INTERVAL) -> float:
    """Half width in ln of the interval that holds that share of the networks: as sums of what was timed in the same minutes,
    and, in quadrature, what the machine itself differs by in another hour."""
    return hypot(conformal([abs(each.log_error) for each in networks], level), _DRIFT)


def difference_factor(networks: Sequence[Summed], fit: Fitted, level: float = INTERVAL) -> float:
    """The error of a difference of two networks as a share of the seconds that only one of them has: the quantile."""
    size, costs = fit.element_bytes, fit.costs
    seconds: dict[Kernel, float] = {}
    for each in networks:
        for kernel in each.kernels:
            seconds.setdefault(kernel, costs.kernel_s(kernel, size) or 0.0)
    found = []
    for a, b in combinations(networks, 2):
        unshared = sum(
            count * seconds[kernel]
            for only in (a.kernels - b.kernels, b.kernels - a.kernels)
            for kernel, count in only.items()
        )
        error = (b.predicted_s - a.predicted_s) - (b.timed_s - a.timed_s)
        if unshared:
            found.append(abs(error) / unshared)
    return conformal(found, level) if found else 1.0
