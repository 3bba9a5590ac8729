"""A roofline: the blocks of a network under the two roofs of a device, each as large as its share of the latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitscope import units
from vitscope.errors import UsageError
from vitscope.latency.roofline import Roofline, RooflineBlock
from vitscope.pareto import Axis
from vitscope.plot.figure import Drawing, Form, dress, label, no_room, place_of, render, tick_logarithmic, write
from vitscope.plot.labels import Disc, place_labels
from vitscope.plot.legend import draw_handles, draw_sizes, handle
from vitscope.plot.marks import DOT, HEIGHT, WIDTH, bubble, clean, dot
from vitscope.plot.palette import FAINT, INK, OTHER, Style, style, text_colour
from vitscope.plot.scale import Scale, axis_unit, legend_sizes, limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LARGEST = 22.0  # points: the radius of the largest share
_MOST_STAGES = 12  # more styles than this no reader keeps apart
_MOST_NAMED = 10  # marks that carry their name, the largest first
_ABOVE = 1.02  # times the roof: less is rounding, not above it
_TOP = 0.885  # of the figure's height: the upper end of axes and legend


@dataclass(frozen=True, slots=True)
class Mark:
    """Blocks of one stage that are alike, at one place of the figure; `share` is that of all of them."""

    paths: tuple[str, ...]
    stage: str
    intensity: float
    macs_per_s: float
    share: float

    @property
    def name(self) -> str:
        """The blocks and their share: `stages.2.blocks.1–6, 9: 31%`."""
        return f"{joined(self.paths)}: {units.percent(self.share)}"


def marks(data: Roofline) -> tuple[Mark, ...]:
    """What the figure shows, the largest share first: blocks with a place on both axes, those that are alike as one."""
    alike: dict[tuple[str, float, float], list[RooflineBlock]] = {}
    for block in data.blocks:
        if block.intensity is not None and block.macs_per_s is not None:
            alike.setdefault((block.stage, block.intensity, block.macs_per_s), []).append(block)
    found = [
        Mark(tuple(block.path for block in blocks), stage, x, y, sum(block.share for block in blocks))
        for (stage, x, y), blocks in alike.items()
    ]
    return tuple(sorted(found, key=lambda mark: (-mark.share, mark.paths)))


def joined(paths: Sequence[str]) -> str:
    """Numbered paths with a common beginning as one: `stages.2.blocks.1–6, 9`; others one after another."""
    groups: dict[str, list[int]] = {}
    for path in paths:
        head, _, last = path.rpartition(".")
        groups.setdefault(f"{head}." if last.isdecimal() else path, []).append(int(last) if last.isdecimal() else -1)
    return ", ".join(head + (_ranges(numbers) if head.endswith(".") else "") for head, numbers in groups.items())


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(a) if a == b else f"{a}–{b}" if b > a + 1 else f"{a}, {b}" for a, b in runs)


def draw_roofline(data: Roofline, form: Form, name: str) -> Drawing:
    """Render the roofline of the network `name`. The same data gives the same bytes.

    Raises UsageError where no block has a place in the figure.
    """
    shown = marks(data)
    if not shown:
        raise UsageError(f"--roofline: no block of {name} multiplies anything: there is nothing to place under a roof")
    return render(lambda figure: _Canvas(data, shown, figure, name).paint(), form)


class _Canvas:
    """One drawing in progress."""

    def __init__(self, data: Roofline, shown: Sequence[Mark], figure: Figure, name: str) -> None:
        self.data, self.shown, self.figure, self.name = data, shown, figure, name
        stages = list(dict.fromkeys(block.stage for block in data.blocks if any(block.path in m.paths for m in shown)))
        self.looks = {stage: style(i) for i, stage in enumerate(stages[:_MOST_STAGES])}
        self.others = len(stages) - len(self.looks)
        self.per_share = _LARGEST**2 / shown[0].share if shown[0].share else 0.0  # area is proportional
        rate = Axis("macs_per_s", (), "", "count", False)
        self.unit: Scale = axis_unit(rate, [data.peak.value, *(mark.macs_per_s for mark in shown)])

    def paint(self) -> list[str]:
        axes = self.figure.add_axes((0.085, 0.1, 0.7, _TOP - 0.1))
        width, bottom = draw_handles(axes, self._handles(), _TOP)
        axes.set_position((0.085, 0.1, 1 - (width + 0.035) - 0.085, _TOP - 0.1))
        self._scales(axes)
        what = "latency" if self.data.prediction.shares else "all bounds"
        sizes = legend_sizes(max(self.shown[-1].share, 1e-3), self.shown[0].share) if self.per_share else []
        if sizes:
            rows = [(self._radius(share), True, units.percent(share)) for share in sizes]
            draw_sizes(axes, f"Share of {what}", rows, (0.99 - width) * WIDTH * 72 + 2, bottom - 18)
        self._titles(axes)
        roof = self._roof(axes)
        for mark in self.shown:  # the largest first: small bubbles above large ones
            bubble(axes, *self._xy(mark), self._radius(mark.share), self._look(mark).colour)
        for mark in self.shown:
            dot(axes, *self._xy(mark), self._look(mark), ahead=False)
        return [*self._names(axes, roof), *self._left_out(), *self._above()]

    def _xy(self, mark: Mark) -> tuple[float, float]:
        return mark.intensity, mark.macs_per_s / self.unit.scale

    def _radius(self, share: float) -> float:
        return max(math.sqrt(share * self.per_share), DOT)

    def _look(self, mark: Mark) -> Style:
        return self.looks.get(mark.stage, OTHER)

    def _scales(self, axes: Axes) -> None:
        box = axes.get_position()
        spans = [(x, self._radius(mark.share) + 10) for mark in self.shown for x in self._xy(mark)[:1]]
        low, high = limits([*spans, (self.data.ridge, 60.0)], box.width * WIDTH * 72, True)
        heights = [(y, self._radius(mark.share) + 14) for mark in self.shown for y in self._xy(mark)[1:]]
        heights += [(self.data.peak.value / self.unit.scale, 26.0)]
        bottom, top = limits(heights, box.height * HEIGHT * 72, True)
        axes.set_xscale("log")
        axes.set_yscale("log")
        tick_logarithmic(axes.xaxis, low, high)
        tick_logarithmic(axes.yaxis, bottom, top)
        axes.set_xlim(low, high)
        axes.set_ylim(bottom, top)
        text: dict[str, Any] = {"fontsize": 10, "color": INK, "labelpad": 6, "parse_math": False}
        axes.set_xlabel("Arithmetic intensity (MACs per byte of main memory, log scale)", **text)
        rate = "Attained" if self.data.prediction.shares else "At most attainable"
        axes.set_ylabel(f"{rate} ({self.unit.unit}MAC/s, log scale)", **text)
        dress(axes)

    def _titles(self, axes: Axes) -> None:
        look: dict[str, Any] = {"color": INK, "transform": axes.transAxes, "parse_math": False, "va": "bottom"}
        axes.text(0, 1.062, clean(f"{self.name} on {self.data.device}: roofline", 90), fontsize=12, **look)
        axes.text(0, 1.018, clean(headline(self.data), 125), fontsize=9, **look)

    def _roof(self, axes: Axes) -> list[list[tuple[float, float]]]:
        """Both roofs and the ridge. Returns them in points of the figure, for labels to keep off."""
        (low, high), (bottom, _) = axes.get_xlim(), axes.get_ylim()
        ridge, peak = self.data.ridge, self.data.peak.value / self.unit.scale
        corners = [(low, self.data.roof(low) / self.unit.scale), (ridge, peak), (high, peak)]
        axes.plot(*zip(*corners, strict=True), color=INK, linewidth=1.7, zorder=3)
        axes.plot([ridge, ridge], [bottom, peak], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
        lines = [corners, [(ridge, bottom), (ridge, peak)]]
        return [[place_of(axes, x, y) for x, y in line] for line in lines]

    def _handles(self) -> list[Any]:
        handles = [handle(stage or "(no stage)", look.marker, look.colour) for stage, look in self.looks.items()]
        if self.others:
            handles.append(handle(f"{self.others} other stage{'s' * (self.others > 1)}", OTHER.marker, OTHER.colour))
        handles.append(handle("roof of the stated peaks", "", INK, linestyle="-", linewidth=1.7))
        return handles

    def _names(self, axes: Axes, roof: list[list[tuple[float, float]]]) -> list[str]:
        """The names of the largest marks and of what the roof is made of, each where it hides nothing."""
        box = axes.get_position()
        x0, y0 = box.x0 * WIDTH * 72, box.y0 * HEIGHT * 72
        x1, y1 = box.x1 * WIDTH * 72, box.y1 * HEIGHT * 72
        texts, colours, labels = [], [], []
        for text, anchors in self._roof_texts(roof, (x0, y0, x1, y1)):
            texts.append(text)
            colours.append(INK)
            labels.append(label(axes, text, anchors, priority=0))
        for i, mark in enumerate(self.shown[:_MOST_NAMED]):
            texts.append(clean(mark.name, 44))
            colours.append(text_colour(self._look(mark).colour))
            where = place_of(axes, *self._xy(mark))
            labels.append(label(axes, texts[-1], ((*where, self._radius(mark.share) + 1),), priority=i + 1))
        discs = []
        for mark in self.shown:
            where = place_of(axes, *self._xy(mark))
            discs += [Disc(*where, DOT + 2, 40.0), Disc(*where, self._radius(mark.share) + 1, 1.6)]
        places = place_labels(labels, discs, [*roof, *roof], (x0 + 4, y0 + 4, x1 + 6, y1 + 4))
        for text, colour, place in zip(texts, colours, places, strict=True):
            if place is not None:
                write(axes, text, colour, place)
        return no_room([text for text, place in zip(texts, places, strict=True) if place is None])

    def _roof_texts(
        self, roof: list[list[tuple[float, float]]], box: tuple[float, float, float, float]
    ) -> list[tuple[str, _Anchors]]:
        (start, corner, end), (foot, _) = roof
        unsure = {True: "", False: " (unconfirmed)"}
        data = self.data
        peak = f"peak {units.si(data.peak.value, 'MAC/s')}{unsure[data.peak.confirmed]}"
        memory = f"memory {units.si(data.bandwidth.value, 'B/s')}{unsure[data.bandwidth.confirmed]}"
        ridge = f"ridge {units.significant(data.ridge)} MACs/B"
        inside = [point for point in _between(start, corner) if box[1] < point[1] < box[3]]
        return [
            (peak, tuple((*point, 1.0) for point in _between(corner, end))),
            (memory, tuple((*point, 1.0) for point in inside) or ((*corner, 1.0),)),
            (ridge, tuple((*point, 1.0) for point in _between(foot, corner))),
        ]

    # ---- what a reader should be told

    def _left_out(self) -> list[str]:
        shown = {path for mark in self.shown for path in mark.paths}
        hidden = [block for block in self.data.blocks if block.path not in shown]
        if not hidden:
            return []
        share = units.percent(sum(block.share for block in hidden))
        names = joined([block.path for block in hidden])
        return [f"not in the figure, for they multiply nothing or read nothing from main memory: {names} ({share})"]

    def _above(self) -> list[str]:
        data = self.data
        above = [m for m in self.shown if m.macs_per_s > _ABOVE * data.roof(m.intensity)]
        if not above:
            return []
        names = joined([path for mark in above for path in mark.paths])
        doubt = [fact.key for fact in (data.peak, data.bandwidth) if not fact.confirmed]
        also = f" ({' and '.join(doubt)} unconfirmed)" if doubt else ""
        return [f"above the roof: {names}: the fit of {data.device} is faster there than the peaks it states{also}"]


def headline(data: Roofline) -> str:
    """What the blocks' seconds are: predicted, with interval and coverage, or bounds. (The table beside says why.)"""
    p = data.prediction
    runs = f"{p.runtime}, {p.precision}, batch {p.batch}"
    if p.latency_s is None:
        return f"{p.status}, at least {units.milliseconds(p.low_s)}: blocks stand at their bounds ({runs})"
    text = (
        f"{units.milliseconds(p.latency_s)} predicted, {units.percent(p.interval)} interval {units.milliseconds(p.low_s)} "
        f"to {units.milliseconds(p.high_s)}; {units.percent(data.floor_share)} is call overhead, of no block ({runs})"
    )
    return text if p.coverage >= 1 else f"{text}; covers {units.percent(p.coverage)} of the work"


_Anchors = tuple[tuple[float, float, float], ...]


def _between(a: tuple[float, float], b: tuple[float, float]) -> list[tuple[float, float]]:
    """Places along a line where its name may stand."""
    return [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for t in (0.5, 0.3, 0.7, 0.15, 0.85)]
