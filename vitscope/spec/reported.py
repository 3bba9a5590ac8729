"""`reported:`, the figures that a network's authors printed, kept with their printed digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vitscope.errors import nearest
from vitscope.spec.text import Path
from vitscope.spec.value import Figure, Reported
from vitscope.units import parse_count, parse_seconds

_KEYS = ("params", "macs", "top1", "latency", "source")


def reported_of(raw: Any, problem: Callable[[Path, str], None]) -> Reported | None:
    """The record of a `reported` mapping; `problem` is called with the place and text of each mistake."""
    path: Path = ("reported",)
    if not isinstance(raw, dict):
        problem(path, f"reported expects a mapping with {', '.join(_KEYS)}; got {raw!r}")
        return None
    for key in raw:
        if key not in _KEYS:
            problem((*path, key), f"unknown key {key!r} of reported{nearest(key, _KEYS)}; keys: {', '.join(_KEYS)}")
    if not isinstance(raw.get("source"), str):
        problem(path, "reported needs source: the paper, table or page that prints the figures")

    def figure(where: Path, value: Any, parse: Callable[[Any], float]) -> Figure | None:
        if value is None:
            return None
        try:
            return Figure(parse(value), str(value))
        except ValueError as error:
            problem(where, f"{where[-1]}: {error}")
            return None

    latency = raw.get("latency")
    if latency is not None and not isinstance(latency, dict):
        problem(
            (*path, "latency"), f"latency expects a mapping of device to time, as {{iphone12: 1.1ms}}; got {latency!r}"
        )
        latency = None
    times = (
        (str(name), figure((*path, "latency", name), value, parse_seconds)) for name, value in (latency or {}).items()
    )
    return Reported(
        source=str(raw.get("source", "")),
        params=figure((*path, "params"), raw.get("params"), parse_count),
        macs=figure((*path, "macs"), raw.get("macs"), parse_count),
        top1=figure((*path, "top1"), raw.get("top1"), _percent),
        latency=tuple((name, time) for name, time in times if time is not None),
    )


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise ValueError(f"expected a percentage from 0 to 100, got {value!r}")
    return float(value)
