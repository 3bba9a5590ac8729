"""Predicted against measured latency of a device: a mark for every network, the line of agreement and those 10 % off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitscope import units
from vitscope.errors import UsageError
from vitscope.plot.figure import Drawing, Form, dress, label, no_room, place_of, render, tick_logarithmic, write
from vitscope.plot.labels import Disc, place_labels
from vitscope.plot.legend import draw_handles, handle
from vitscope.plot.marks import DOT, FONT, HEIGHT, clean, dot
from vitscope.plot.palette import FAINT, INK, OTHER, Style, style, text_colour
from vitscope.plot.scale import Scale, limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WITHIN = 0.1  # of the measured latency: the distance of the two lines beside the identity
_WIDTH = 8.0  # inches: square axes, and a legend
_SIDE = 5.16  # inches of the axes
_LEFT, _BOTTOM = 0.72, 0.62  # inches
_MOST_FAMILIES = 12  # more styles than this no reader keeps apart
_MOST_NAMED = 10  # networks outside the lines that carry their name, the farthest first

_STEPS = 80  # points along the identity


@dataclass(frozen=True, slots=True)
class Pair:
    """What one network took and what was predicted for it, in seconds. `family` groups networks by their look."""

    name: str
    family: str
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """(predicted − measured) / measured."""
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class Agreement:
    """All that the figure shows. `families` are the largest first; `pairs` stand as they came."""

    device: str
    about: str
    pairs: tuple[Pair, ...]
    families: tuple[str, ...]
    mape: float
    within: float

    @property
    def headline(self) -> str:
        """How many networks, how far off, and how many of them between the lines."""
        n, f = len(self.pairs), len(self.families)
        return (
            f"{n} network{'s' * (n != 1)} of {f} famil{'ies' if f != 1 else 'y'}: MAPE {_percent(self.mape)}, "
            f"{units.percent(self.within)} within ±{units.percent(WITHIN)}"
        )


def agreement(device: str, pairs: Sequence[Pair], about: str = "") -> Agreement:
    """The Agreement of `pairs` on `device`; `about` says how the predictions came about, as `each family held out`.

    Raises UsageError without pairs, and for a latency that is not a positive number.
    """
    if not pairs:
        raise UsageError(f"{device}: no network was both measured and predicted: there is nothing to draw")
    for pair in pairs:
        for what, seconds in (("measured", pair.measured_s), ("predicted", pair.predicted_s)):
            if not (math.isfinite(seconds) and seconds > 0):
                raise UsageError(
                    f"{device}: {pair.name} has a {what} latency of {seconds:g} s, expected one above zero"
                )
    errors = [abs(pair.error) for pair in pairs]
    count: dict[str, int] = {}
    for pair in pairs:
        count[pair.family] = count.get(pair.family, 0) + 1
    return Agreement(
        device=device,
        about=about,
        pairs=tuple(pairs),
        families=tuple(sorted(count, key=lambda family: (-count[family], family))),
        mape=sum(errors) / len(errors),
        within=sum(error <= WITHIN for error in errors) / len(errors),
    )


def draw_agreement(data: Agreement, form: Form) -> Drawing:
    """Render `data`: both axes logarithmic and alike. The same data gives the same bytes.

    Named are the networks that lie farthest outside the lines.
    """
    return render(lambda figure: _paint(data, figure), form, (_WIDTH, HEIGHT))


def _paint(data: Agreement, figure: Figure) -> list[str]:
    unit = _unit(data)
    looks = {family: style(i) for i, family in enumerate(data.families[:_MOST_FAMILIES])}
    box = (_LEFT / _WIDTH, _BOTTOM / HEIGHT, _SIDE / _WIDTH, _SIDE / HEIGHT)
    axes = figure.add_axes(box)
    axes.set_xscale("log")
    axes.set_yscale("log")
    values = [value / unit.scale for pair in data.pairs for value in (pair.measured_s, pair.predicted_s)]
    low, high = limits([(value, DOT + 36) for value in values], _SIDE * 72, True)
    for axis, what in ((axes.xaxis, "Measured"), (axes.yaxis, "Predicted")):
        tick_logarithmic(axis, low, high)
        axis.set_label_text(f"{what} latency ({unit.unit}, log scale)", fontsize=10, color=INK, parse_math=False)
        axis.labelpad = 6
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    dress(axes)
    lines = _lines(axes, low, high)
    for pair in data.pairs:
        x, y = pair.measured_s / unit.scale, pair.predicted_s / unit.scale
        dot(axes, x, y, looks.get(pair.family, OTHER), ahead=False)
    _titles(axes, data)
    draw_handles(axes, _handles(data, looks), (_BOTTOM + _SIDE) / HEIGHT)
    return _names(axes, data, looks, unit, lines)


def _lines(axes: Axes, low: float, high: float) -> list[list[tuple[float, float]]]:
    """The identity and the lines 10 % beside it. Returns them in points of the figure, for labels to keep off."""
    axes.fill_between([low, high], [low * (1 - WITHIN), high * (1 - WITHIN)], [low * (1 + WITHIN), high * (1 + WITHIN)],
                      color=INK, alpha=0.05, linewidth=0, zorder=1)  # fmt: skip
    axes.plot([low, high], [low, high], color=INK, linewidth=1.3, zorder=2)
    found = [[(low, low), (high, high)]]
    for factor in (1 - WITHIN, 1 + WITHIN):
        ends = [low, high], [low * factor, high * factor]
        axes.plot(*ends, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
        found.append(list(zip(*ends, strict=True)))
    return [[place_of(axes, x, y) for x, y in line] for line in found]


def _titles(axes: Axes, data: Agreement) -> None:
    look: dict[str, Any] = {"color": INK, "transform": axes.transAxes, "parse_math": False, "va": "bottom"}
    axes.text(0, 1.062, clean(f"{data.device}: predicted against measured latency", 90), fontsize=12, **look)
    about = f" ({data.about})" if data.about else ""
    axes.text(0, 1.018, clean(data.headline + about, 110), fontsize=9.5, **look)


def _handles(data: Agreement, looks: dict[str, Style]) -> list[Any]:
    handles = [handle(family or "(no family)", look.marker, look.colour) for family, look in looks.items()]
    others = len(data.families) - len(looks)
    if others:
        handles.append(handle(f"{others} other famil{'ies' if others > 1 else 'y'}", OTHER.marker, OTHER.colour))
    handles.append(handle("predicted = measured", "", INK, linestyle="-", linewidth=1.3))
    handles.append(handle(f"±{units.percent(WITHIN)}", "", FAINT, linestyle=(0, (4, 3)), linewidth=0.9))
    return handles


def _names(
    axes: Axes,
    data: Agreement,
    looks: dict[str, Style],
    unit: Scale,
    lines: list[list[tuple[float, float]]],
) -> list[str]:
    outside = [pair for pair in data.pairs if abs(pair.error) > WITHIN]
    outside.sort(key=lambda pair: (-abs(math.log(pair.predicted_s / pair.measured_s)), pair.name))
    places = {pair: place_of(axes, pair.measured_s / unit.scale, pair.predicted_s / unit.scale) for pair in data.pairs}
    named = outside[:_MOST_NAMED]
    texts = [f"{clean(pair.name, 34)} {units.ratio(pair.error)}" for pair in named]
    labels = [
        label(axes, text, ((*places[pair], DOT + 1),), priority=i)
        for i, (text, pair) in enumerate(zip(texts, named, strict=True))
    ]
    x, y = _LEFT * 72, _BOTTOM * 72
    bounds = (x + 4, y + 4, x + _SIDE * 72 + FONT, y + _SIDE * 72)
    discs = [Disc(*place, DOT + 2, 40.0) for place in places.values()]
    # Points along the identity keep a name and its leader on the side of its mark.
    (x0, y0), (x1, y1) = lines[0]
    steps = [k / _STEPS for k in range(_STEPS + 1)]
    discs += [Disc(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t, 0.0, 0.0) for t in steps]
    found = place_labels(labels, discs, lines, bounds)
    for text, pair, place in zip(texts, named, found, strict=True):
        if place is not None:
            write(axes, text, text_colour(looks.get(pair.family, OTHER).colour), place)
    return no_room([text for text, place in zip(texts, found, strict=True) if place is None])


def _unit(data: Agreement) -> Scale:
    """Seconds where some network takes one or more, milliseconds where any takes a tenth of one, else microseconds."""
    largest = max(max(pair.measured_s, pair.predicted_s) for pair in data.pairs)
    return Scale(1.0, "s") if largest >= 1 else Scale(1e-3, "ms") if largest >= 1e-4 else Scale(1e-6, "µs")


def _percent(share: float) -> str:
    """One decimal: `8.5%`."""
    return f"{share * 100:.1f}%"
