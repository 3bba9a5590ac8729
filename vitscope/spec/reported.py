"""`reported:`, the figures that a network's authors printed, kept with their printed digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vitscope.spec.text import Path
from vitscope.spec.value import Figure, Reported
from vitscope.spec.wording import choices, shown
from vitscope.units import parse_count, parse_seconds

REPORTED_KEYS = {
    "params": "learnable scalars, as 6.1M",
    "macs": "multiply-accumulates of one image, as 0.65G",
    "top1": "ImageNet top-1 accuracy in percent",
    "latency": "device to time, as {iphone12: 1.1ms}",
    "source": "the paper, table or page that prints them",
}


def reported_of(raw: Any, problem: Callable[[Path, str], None]) -> Reported | None:
    """The record of a `reported` mapping; `problem` is called with the place and text of each mistake."""
    path: Path = ("reported",)
    if not isinstance(raw, dict):
        problem(path, f"reported expects a mapping with {', '.join(REPORTED_KEYS)}; got {shown(raw)}")
        return None
    for key in raw:
        if key not in REPORTED_KEYS:
            problem((*path, key), f"unknown key {shown(key)} of reported{choices(key, REPORTED_KEYS, 'keys')}")
    source = raw.get("source")
    if source is None:
        problem(path, f"reported needs source, {REPORTED_KEYS['source']}")
    elif not isinstance(source, str) or not source.strip() or not " ".join(source.split()).isprintable():
        problem((*path, "source"), f"source of reported expects a text, got {shown(source)}")

    def figure(where: Path, value: Any, parse: Callable[[Any], float]) -> Figure | None:
        if value is None:
            return None
        try:
            return Figure(parse(value), str(value))
        except ValueError as error:
            problem(where, f"reported {where[-1]}: {error}")
            return None

    latency = raw.get("latency")
    if latency is not None and not isinstance(latency, dict):
        problem((*path, "latency"), f"reported latency expects {REPORTED_KEYS['latency']}; got {shown(latency)}")
        latency = None
    times = []
    for name, value in (latency or {}).items():
        where = (*path, "latency", name)
        if not isinstance(name, str) or not name.isprintable():
            problem(where, f"the name of a device expects a text, got {shown(name)}")
        elif time := figure(where, value, _time):
            times.append((name, time))
    return Reported(
        source=" ".join(str(source).split()),
        params=figure((*path, "params"), raw.get("params"), _count),
        macs=figure((*path, "macs"), raw.get("macs"), _count),
        top1=figure((*path, "top1"), raw.get("top1"), _percent),
        latency=tuple(times),
    )


def _count(value: Any) -> float:
    if isinstance(value, (list, dict, bool)):
        raise ValueError(f"expected a number with an optional k, M, G or T, as 6.1M; got {shown(value)}")
    return _positive(parse_count(value if not isinstance(value, str) else value[:64]), value)


def _time(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError(f"expected a time with its unit, as 1.1ms; got {shown(value)}")
    return _positive(parse_seconds(value[:64]), value)


def _positive(number: float, value: Any) -> float:
    if number <= 0:
        raise ValueError(f"expected more than nothing, got {shown(value)}")
    return number


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise ValueError(f"expected a percentage from 0 to 100, got {shown(value)}")
    return float(value)
