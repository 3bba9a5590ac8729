"""refine: what whole networks add to a calibration of kernels: how much longer kernels take among others, and each start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import TYPE_CHECKING

from vitscope.latency.class_cost import ClassCosts
from vitscope.latency.kernels import Kernel
from vitscope.latency.least_squares import minimise

if TYPE_CHECKING:
    import numpy as np

_SCALE_SD = 0.1  # in ln: how far kernels among others are from kernels alone
_MORE_SD_S = 2e-6  # of each kernel, more or less
_ERROR_SD = 0.03  # in ln, of a measured network


@dataclass(frozen=True, slots=True)
class Whole:
    """A network that was timed as a whole."""

    name: str
    family: str
    kernels: tuple[Kernel, ...]
    measured_s: float


@dataclass(frozen=True, slots=True)
class Refined:
    """A network as kernels alone predict it, and as a refinement does that has not seen its family."""

    network: Whole
    alone_s: float
    refined_s: float


def refine(costs: ClassCosts, networks: Sequence[Whole], element_bytes: int) -> ClassCosts:
    """`costs` with one factor on all kernels and one time added to each, as `networks` were measured. Both have a prior of
    no change, so that two networks move little. Networks with kernels that were never timed say nothing."""
    import numpy as np

    plain = replace(costs, scale=1.0, more_s=0.0)
    known = [(each, total) for each in networks if (total := plain.total_s(each.kernels, element_bytes)) is not None]
    if not known:
        return costs
    fixed = np.array([costs.floor_s + costs.cold_s(each.kernels, element_bytes) for each, _ in known])
    sums = np.array([total for _, total in known]) - fixed
    counts = np.array([float(len(each.kernels)) for each, _ in known])
    log_s = np.log([each.measured_s for each, _ in known])

    def problem(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale, more = exp(x[0]), x[1] * _MORE_SD_S
        total = np.maximum(fixed + scale * sums + more * counts, 1e-9)
        residual = np.concatenate([(np.log(total) - log_s) / _ERROR_SD, [x[0] / _SCALE_SD, x[1]]])
        slopes = np.stack([scale * sums / total, _MORE_SD_S * counts / total], axis=1) / _ERROR_SD
        return residual, np.concatenate([slopes, np.diag([1 / _SCALE_SD, 1.0])])

    _, x = minimise(problem, np.zeros(2))
    return replace(costs, scale=exp(float(x[0])), more_s=float(x[1]) * _MORE_SD_S)


def leave_families_out(costs: ClassCosts, networks: Sequence[Whole], element_bytes: int) -> list[Refined]:
    """Every network, refined on those of other families alone."""
    found = []
    for each in networks:
        rest = [other for other in networks if other.family != each.family]
        alone = costs.total_s(each.kernels, element_bytes)
        refined = refine(costs, rest, element_bytes).total_s(each.kernels, element_bytes)
        if alone is not None and refined is not None:
            found.append(Refined(each, alone, refined))
    return found
