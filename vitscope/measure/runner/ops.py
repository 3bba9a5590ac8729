"""One operation of a runtime's profile as the runner answers it, and the typical of its times. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def op(name: str, kind: str, seconds: float, names: Iterable[str], unit: str = "") -> dict[str, Any]:
    """The fields of vitscope.measure.record.OpTime. `names` are those of the exported file, each once."""
    return {"name": name, "kind": kind, "seconds": seconds, "names": list(dict.fromkeys(names)), "unit": unit}


def typical(times: Sequence[float]) -> float:
    """The mean of the middle half: one inference that was interrupted does not move it, and it keeps the fractions
    of a clock of whole microseconds, which a median loses. Raises ValueError for no times."""
    if not times:
        raise ValueError("no times")
    ordered = sorted(times)
    edge = len(ordered) // 4
    middle = ordered[edge : len(ordered) - edge]
    return sum(middle) / len(middle)
