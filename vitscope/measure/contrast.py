"""contrast(a, b): is B faster than A? From one session, in which their processes and blocks took turns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vitscope.errors import UsageError
from vitscope.measure.record import Condition, Measurement
from vitscope.measure.statistics import spread

SMALLEST = 0.02  # a difference that no interval makes worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """How many times as fast B is as A: above 1, B is the faster. `significant` is decided by the rule in `contrast`."""

    a: str
    b: str
    ratio: float
    low: float
    high: float
    significant: bool
    pairs: int  # of processes

    @property
    def verdict(self) -> str:
        """`B is 1.18× faster (95 %: 1.15–1.21)`, `B is 1.18× slower (…)` or `no significant difference (…)`."""
        if not self.significant:
            return (
                f"no significant difference between {self.a} and {self.b} "
                f"({self.b} runs at {self.ratio:.2f}× the speed, 95 %: {self.low:.2f}–{self.high:.2f})"
            )
        if self.ratio >= 1:
            return f"{self.b} is {self.ratio:.2f}× faster than {self.a} (95 %: {self.low:.2f}–{self.high:.2f})"
        slower, least, most = 1 / self.ratio, 1 / self.high, 1 / self.low
        return f"{self.b} is {slower:.2f}× slower than {self.a} (95 %: {least:.2f}–{most:.2f})"


def contrast(a: Measurement, b: Measurement, *, seed: int = 0) -> Contrast:
    """Compare two measurements of one session, process by process.

    A pair is the n-th block of A and of B in their n-th processes, which ran one after the other: what slowed the
    machine for a while is in both and leaves the ratio. The ratio is the median over processes of the median over
    pairs, the interval the bootstrap over processes of `statistics.spread`. They differ when the interval excludes 1 and
    the ratio is more than 2 % off.
    """
    ratios = _pairs(a, b)
    if len(ratios) < 2:
        raise UsageError("a comparison needs two processes of each model or more")
    centre = float(np.median([np.median(values) for values in ratios]))
    low, high = spread(ratios, seed=seed)
    low, high = min(low, centre), max(high, centre)
    ratio = math.exp(centre)
    excludes = low > 0 or high < 0
    first, second = _names(a.condition, b.condition)
    return Contrast(
        a=first, b=second, ratio=ratio, low=math.exp(low), high=math.exp(high),
        significant=excludes and abs(max(ratio, 1 / ratio) - 1) > SMALLEST, pairs=len(ratios),
    )  # fmt: skip


def _names(a: Condition, b: Condition) -> tuple[str, str]:
    """The models, or what tells them apart where one network is compared with itself."""
    for parts in (("model",), ("model", "runtime"), ("model", "runtime", "precision", "form", "unit", "threads")):
        first, second = (" ".join(str(getattr(side, part)) for part in parts) for side in (a, b))
        if first != second:
            return first, second
    return f"the first {a.model}", f"the second {b.model}"


def _pairs(a: Measurement, b: Measurement) -> list[np.ndarray]:
    """Of each process that both have, ln(seconds of A / seconds of B) of its blocks in order."""
    sides = []
    for measurement in (a, b):
        found: dict[int, list[float]] = {}
        for block in sorted(measurement.blocks, key=lambda block: block.order):
            found.setdefault(block.process, []).append(math.log(float(np.median(block.samples_s))))
        sides.append(found)
    first, second = sides
    both = [process for process in first if process in second]
    return [
        np.array([x - y for x, y in zip(first[process], second[process], strict=False)]) for process in sorted(both)
    ]
