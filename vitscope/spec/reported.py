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
    "miou": "mean intersection over union of segmentation, in percent",
    "map": "mean average precision of detection or segmentation by boxes, in percent",
    "latency": "device to time, as {iphone12: 1.1ms}",
    "source": "the paper, table or page that prints them",
    "convention": "how params and macs were counted: vitscope, fvcore or snap",
    "form": "of which form: train or deploy",
    "differs": "figure to cause, where the printed one is not ours, as {macs: counts elementwise work too}",
}
REPORTED_CHOICES = {"convention": ("vitscope", "fvcore", "snap"), "form": ("train", "deploy")}


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
    chosen = {}
    for key, names in REPORTED_CHOICES.items():
        value = raw.get(key, names[0])
        if value not in names:
            problem((*path, key), f"unknown {key} {shown(value)}{choices(value, names, 'one of')}")
        else:
            chosen[key] = value
    return Reported(
        source=" ".join(str(source).split()),
        params=figure((*path, "params"), raw.get("params"), _count),
        macs=figure((*path, "macs"), raw.get("macs"), _count),
        top1=figure((*path, "top1"), raw.get("top1"), _percent),
        miou=figure((*path, "miou"), raw.get("miou"), _percent),
        map=figure((*path, "map"), raw.get("map"), _percent),
        latency=tuple(sorted(times, key=lambda time: time[0])),
        differs=_causes(raw, path, problem),
        **chosen,
    )


def _causes(raw: dict[Any, Any], path: Path, problem: Callable[[Path, str], None]) -> tuple[tuple[str, str], ...]:
    """Why a printed figure is not ours: a text for each figure that has one."""
    value = raw.get("differs")
    if value is None:
        return ()
    if not isinstance(value, dict):
        problem((*path, "differs"), f"reported differs expects {REPORTED_KEYS['differs']}; got {shown(value)}")
        return ()
    causes = []
    for key, cause in value.items():
        if key not in ("params", "macs") or raw.get(key) is None:
            problem((*path, "differs", key), f"differs explains params or macs that are reported, not {shown(key)}")
        elif not isinstance(cause, str) or not cause.strip() or not " ".join(cause.split()).isprintable():
            problem((*path, "differs", key), f"the cause of a difference expects a text, got {shown(cause)}")
        else:
            causes.append((key, " ".join(cause.split())))
    return tuple(sorted(causes))


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
