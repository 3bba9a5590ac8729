"""Which kernels to time next: those that tell most about the time that networks spend, given what was timed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from vitscope.calibrate.demand import Demand
from vitscope.latency.class_cost import PRODUCTS, axes_of, class_of

if TYPE_CHECKING:
    import numpy as np

_REACH = 1.0  # how far a timed kernel tells of others, in units of axes_of
# Kernels of each class of products, and of each other: what networks other than the zoo's have most may be what it has least.
_FEWEST_PRODUCTS, _FEWEST = 4, 2
_FEWEST_AT_FIRST = 1  # of each other: there may be no time for a second choice
_KNOWN = 0.1  # of the error of a class that is left to a kernel beside a timed one


class Choice:
    """Kernels by class, each with how well the timed ones cover it."""

    def __init__(self, demands: Sequence[Demand]):
        import numpy as np

        self.members: dict[str, list[Demand]] = {}
        for each in demands:
            if each.kernel.geometry is not None:
                self.members.setdefault(class_of(each.kernel), []).append(each)
        self._alike: dict[str, np.ndarray] = {}
        self._covered: dict[str, np.ndarray] = {}
        self._left: dict[str, list[bool]] = {}
        self._weights = {name: np.array([each.weight for each in members]) for name, members in self.members.items()}
        self._timed = dict.fromkeys(self.members, 0)
        self._index = {}
        for name, members in self.members.items():
            at = np.array([axes_of(each.kernel.geometry) for each in members if each.kernel.geometry])
            squared = ((at[:, None] - at[None]) ** 2).sum(-1)
            self._alike[name] = np.exp(-0.5 * squared / _REACH**2)
            self._covered[name] = np.zeros(len(members))
            self._left[name] = [True] * len(members)
            self._index |= {each.kernel: (name, i) for i, each in enumerate(members)}

    def exclude(self, demand: Demand) -> None:
        """Not to be chosen: held out, or timed and refused."""
        name, i = self._index[demand.kernel]
        self._left[name][i] = False

    def cover(self, demand: Demand) -> None:
        """`demand` is timed: what is like it is known a little too."""
        import numpy as np

        name, i = self._index[demand.kernel]
        self._left[name][i] = False
        self._timed[name] += 1
        self._covered[name] = np.maximum(self._covered[name], self._alike[name][i])

    def next(self, number: int, errors: Mapping[str, float]) -> list[Demand]:
        """The `number` kernels that together tell most. `errors` are those of classes as far as known (else 1).

        A few of each class come first. Each other is chosen for the sum over all kernels of its class: what
        share of a network's time one takes, times how much nearer the new one is to it than those timed before. Those
        chosen count as timed from then on.
        """

        chosen = self._few_of_each(number)
        gains = {name: self._gains(name) for name in self.members}
        while len(chosen) < number:
            best = max(
                ((float(gain.max()) * errors.get(name, 1.0), name) for name, gain in gains.items() if gain.size),
                default=(0.0, ""),
            )
            if best[0] <= 0:
                break
            name = best[1]
            demand = self.members[name][int(gains[name].argmax())]
            chosen.append(demand)
            self.cover(demand)
            gains[name] = self._gains(name)
        return chosen

    def _few_of_each(self, number: int) -> list[Demand]:
        """Of each class that has too few timed kernels those that tell most of it, products first: one of each, then
        another of each, since there may not be the time for all."""
        chosen: list[Demand] = []
        others = _FEWEST if any(self._timed.values()) else _FEWEST_AT_FIRST
        classes = sorted(self.members, key=lambda name: (name not in PRODUCTS, name))
        for few in range(1, _FEWEST_PRODUCTS + 1):
            for name in classes:
                if few > (_FEWEST_PRODUCTS if name in PRODUCTS else others):
                    continue
                if len(chosen) < number and self._timed[name] < few and any(self._left[name]):
                    chosen.append(self.members[name][int(self._gains(name).argmax())])
                    self.cover(chosen[-1])
        return chosen

    def _gains(self, name: str) -> np.ndarray:
        import numpy as np

        weights = self._weights[name]
        nearer = np.maximum(self._alike[name] - self._covered[name][None], 0)
        gains = nearer @ weights + _KNOWN * weights
        return np.where(self._left[name], gains, 0.0)


def hold_out(demands: Sequence[Demand], number: int, seed: int, taken: Collection[object] = ()) -> list[Demand]:
    """`number` kernels at random, a weightier one more likely: what the others are to predict."""
    random = Random(seed)
    left = [each for each in demands if each.kernel not in taken]
    found: list[Demand] = []
    while left and len(found) < number:
        pick = random.choices(range(len(left)), [each.weight for each in left])[0]
        found.append(left.pop(pick))
    return found


def spread(chosen: Sequence[Demand], among: Sequence[Demand]) -> list[Demand]:
    """`chosen` in order, with `among` between them at equal distances."""
    placed = [(index / len(chosen), each) for index, each in enumerate(chosen)]
    placed += [((index + 1) / (len(among) + 1), each) for index, each in enumerate(among)]
    return [each for _, each in sorted(placed, key=lambda item: item[0])]
