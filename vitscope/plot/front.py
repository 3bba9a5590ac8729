"""Draws a Pareto front: bubbles, families, the front as a staircase, prototypes with their intervals, and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from vitscope.errors import UsageError
from vitscope.pareto import FrontData, Point
from vitscope.plot.figure import Drawing, Form, dress, label, no_room, place_of, render, tick_logarithmic, write
from vitscope.plot.labels import Disc, Label, place_labels
from vitscope.plot.legend import draw_legend
from vitscope.plot.marks import DOT, DPI, HEIGHT, WIDTH, bubble, clean, dot
from vitscope.plot.palette import INK, OTHER, Style, style, text_colour
from vitscope.plot.scale import axis_title, axis_unit, limits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Labels = Literal["auto", "all", "front", "none"]
Join = Literal["x", "rows", "none"]

_LARGEST, _SMALLEST = 21.0, 8.0  # points: bounds of the largest bubble's radius, and of the smallest one's
_MOST_FAMILIES = 12  # more styles than this no reader keeps apart
_MOST_LABELS = 45  # `auto` labels only the front beyond this


def draw(
    data: FrontData, form: Form, *, log_x: bool = False, title: str = "", labels: Labels = "auto", join: Join = "x"
) -> Drawing:
    """Render `data`; `join` says in which order a line runs through a family: by x, or as the table's rows stand.

    The same data gives the same bytes. Raises UsageError for a log axis with values that have no logarithm.
    """
    if log_x:
        bad = next((v.label for v in (*data.points, *data.prototypes) if v.x <= 0), None)
        if bad is not None:
            raise UsageError(f"--log-x: {bad} has {data.x.key} of zero or less")
    return render(lambda figure: _Canvas(data, figure, log_x, title, labels, join).paint(), form)


class _Canvas:
    """One drawing in progress: the figure, its axes, and the scales that turn numbers into places."""

    def __init__(
        self,
        data: FrontData,
        figure: Figure,
        log_x: bool,
        title: str,
        labels: Labels,
        join: Join,
    ) -> None:
        self.data, self.figure, self.title, self.labels, self.log_x = data, figure, title, labels, log_x
        self.lines = {name: self._line(members, join) for name, members in data.families}
        self.styles = {name: style(i) for i, (name, _) in enumerate(data.families[:_MOST_FAMILIES])}
        sizes = [s for s in (*(p.size for p in data.points), *(p.size for p in data.prototypes)) if s is not None]
        # Radius² a unit of size, for area is proportional. Sizes that hardly differ need no large bubbles to show it.
        self.per_size = min(_LARGEST**2 / max(sizes), _SMALLEST**2 / min(sizes)) if sizes else 0.0
        self.x_unit, self.y_unit = (
            axis_unit(data.x, [p.x for p in data.points]),
            axis_unit(data.y, [p.y for p in data.points]),
        )

    def paint(self) -> list[str]:
        axes = self.figure.add_axes((0.075, 0.1, 0.9, 0.8 if self.title else 0.86))
        legend_width = draw_legend(
            axes, data=self.data, styles=self.styles, joined=[n for n, points in self.lines.items() if len(points) > 1],
            radius=self._radius, top=0.9 if self.title else 0.955,
        )  # fmt: skip
        right = 1 - (legend_width + 0.02 if legend_width else 0.02)
        axes.set_position((0.075, 0.1, right - 0.075, 0.81 if self.title else 0.86))
        self._scales(axes)
        self._families(axes)
        stairs = self._front(axes)
        self._points(axes)
        self._prototypes(axes)
        return self._labels(axes, stairs)

    # ---- numbers to places

    def _radius(self, size: float | None) -> float:
        return math.sqrt(size * self.per_size) if size is not None else 0.0

    def _xs(self, values: Sequence[float]) -> list[float]:
        return [value / self.x_unit.scale for value in values]

    def _ys(self, values: Sequence[float]) -> list[float]:
        return [value / self.y_unit.scale for value in values]

    def _scales(self, axes: Axes) -> None:
        data = self.data
        box = axes.get_position()
        width, height = box.width * WIDTH * 72, box.height * HEIGHT * 72
        spans = [(v, max(self._radius(p.size), DOT) + 7) for p in data.points for v in self._xs([p.x])]
        spans += [(v, 12.0) for p in data.prototypes for v in self._xs([p.low, p.x, p.high])]
        low, high = limits(spans, width, self.log_x)
        if self.log_x:
            axes.set_xscale("log")
        axes.set_xlim(low, high)
        heights = [(v, max(self._radius(p.size), DOT) + 16) for p in data.points for v in self._ys([p.y])]
        heights += [(v, 20.0) for p in data.prototypes if p.y is not None for v in self._ys([p.y])]
        axes.set_ylim(*limits(heights, height, False))
        if self.log_x:
            tick_logarithmic(axes.xaxis, low, high)
        else:
            axes.set_xticks(
                [tick for tick in axes.get_xticks() if low <= tick <= high and not (tick < 0 <= data.points[0].x)]
            )
        text: dict[str, Any] = {"fontsize": 10, "color": INK, "labelpad": 6, "parse_math": False}
        axes.set_xlabel(clean(axis_title(data.x, self.x_unit, data.device, self.log_x), 90), **text)
        axes.set_ylabel(clean(axis_title(data.y, self.y_unit, data.device, dataset=data.dataset)), **text)
        if self.title:
            axes.set_title(clean(self.title, 100), fontsize=12, color=INK, loc="left", pad=12, parse_math=False)
        dress(axes)

    # ---- layers, from the back

    def _style(self, family: str) -> Style:
        return self.styles.get(family, OTHER)

    def _line(self, members: Sequence[int], join: Join) -> list[Point]:
        points = [self.data.points[i] for i in members]
        return [] if join == "none" else points if join == "x" else sorted(points, key=lambda p: p.row)

    def _families(self, axes: Axes) -> None:
        for name, points in self.lines.items():
            look = self._style(name)
            if len(points) > 1:
                xs, ys = self._xs([p.x for p in points]), self._ys([p.y for p in points])
                faint = name not in self.styles
                axes.plot(
                    xs,
                    ys,
                    color=look.colour,
                    linewidth=0.6 if faint else 1.1,
                    linestyle=look.dash,
                    alpha=0.75,
                    zorder=2,
                )

    def _front(self, axes: Axes) -> list[tuple[float, float]]:
        """The border of what is dominated, as a staircase; with more than two objectives there is none to draw."""
        if self.data.also:
            return []
        members = [self.data.points[i] for i in self.data.front]
        members.sort(key=lambda p: p.x if self.data.x.minimize else -p.x)
        (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
        worst_x, worst_y = (x_high if self.data.x.minimize else x_low), (y_high if self.data.y.minimize else y_low)
        corners = [(self._xs([members[0].x])[0], worst_y)]
        for point in members:
            (x,), (y,) = self._xs([point.x]), self._ys([point.y])
            corners += [(x, corners[-1][1]), (x, y)]
        corners.append((worst_x, corners[-1][1]))
        axes.plot(*zip(*corners, strict=True), color=INK, linewidth=1.7, solid_joinstyle="miter", zorder=3)
        return corners

    def _points(self, axes: Axes) -> None:
        for point in sorted(self.data.points, key=lambda p: -(p.size or 0)):  # small bubbles above large ones
            look = self._style(point.family)
            (x,), (y,) = self._xs([point.x]), self._ys([point.y])
            if point.size is not None:
                bubble(axes, x, y, self._radius(point.size), look.colour)
        for point in self.data.points:
            look = self._style(point.family)
            (x,), (y,) = self._xs([point.x]), self._ys([point.y])
            ahead = point.dominated_by is None
            dot(axes, x, y, look, ahead)

    def _prototypes(self, axes: Axes) -> None:
        for prototype in self.data.prototypes:
            low, x, high = self._xs([prototype.low, prototype.x, prototype.high])
            if prototype.y is None:
                if low < high:
                    axes.axvspan(low, high, color=INK, alpha=0.07, linewidth=0, zorder=1)
                axes.axvline(x, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=3)
                continue
            (y,) = self._ys([prototype.y])
            if low < high:
                bar = [[x - low], [high - x]]
                axes.errorbar(
                    [x], [y], xerr=bar, color=INK, linewidth=1.1, capsize=3, capthick=1.1, fmt="none", zorder=5
                )
            if prototype.size is not None:
                radius = self._radius(prototype.size)
                axes.plot(
                    [x], [y], marker="o", markersize=2 * radius, markerfacecolor="none", markeredgecolor=INK, alpha=0.7,
                    markeredgewidth=0.9, linestyle="none", zorder=4,
                )  # fmt: skip
            axes.plot(
                [x], [y], marker="o", markersize=2.3 * DOT, markerfacecolor="white", markeredgecolor=INK,
                markeredgewidth=1.3, linestyle="none", zorder=6,
            )  # fmt: skip

    # ---- labels

    def _labels(self, axes: Axes, stairs: Sequence[tuple[float, float]]) -> list[str]:
        data = self.data
        front = set(data.front)
        wanted = self.labels
        notes: list[str] = []
        if wanted == "auto":
            wanted = "all" if len(data.points) <= _MOST_LABELS else "front"
            if wanted == "front":
                notes.append(f"the figure names the front only, not all {len(data.points)} points (--labels all)")
        indices = [i for i in range(len(data.points)) if wanted == "all" or (wanted == "front" and i in front)]
        texts: list[tuple[str, bool]] = []
        labels: list[Label] = []
        colours: list[str] = []
        box = axes.get_window_extent()
        bounds = tuple(v * 72 / DPI for v in (box.x0 + 8, box.y0 + 8, box.x1 - 4, box.y1 + 20))
        for i in indices:
            point = data.points[i]
            x, y = place_of(axes, *self._xs([point.x]), *self._ys([point.y]))
            texts.append((clean(point.label), i in front))
            colours.append(text_colour(self._style(point.family).colour))
            anchors = ((x, y, max(self._radius(point.size), DOT + 1)),)
            labels.append(label(axes, texts[-1][0], anchors, strong=i in front, priority=1 if i in front else 2))
        for prototype in data.prototypes:
            (x,) = self._xs([prototype.x])
            if prototype.y is not None:
                where = place_of(axes, x, *self._ys([prototype.y]))
                anchors = ((*where, max(self._radius(prototype.size), DOT + 1)),)
            else:
                column = place_of(axes, x, axes.get_ylim()[0])[0]
                anchors = tuple(
                    (column, bounds[1] + (bounds[3] - bounds[1]) * share, 1.0) for share in (0.04, 0.12, 0.25, 0.4, 0.9)
                )
            texts.append((f"{clean(prototype.label)} (predicted)", True))
            colours.append(INK)
            labels.append(label(axes, texts[-1][0], anchors, strong=True))
        places = place_labels(
            labels, self._discs(axes), self._lines(axes, stairs), (bounds[0], bounds[1], bounds[2], bounds[3])
        )
        hidden = [text for (text, _), place in zip(texts, places, strict=True) if place is None]
        for (text, strong), colour, place in zip(texts, colours, places, strict=True):
            if place is not None:
                write(axes, text, colour, place, strong=strong)
        return [*notes, *no_room(hidden)]

    def _discs(self, axes: Axes) -> list[Disc]:
        discs: list[Disc] = []
        for point in self.data.points:
            x, y = place_of(axes, *self._xs([point.x]), *self._ys([point.y]))
            discs.append(Disc(x, y, DOT + 2, 40.0))
            if point.size is not None:
                discs.append(Disc(x, y, self._radius(point.size) + 1, 1.6))
        for prototype in self.data.prototypes:
            if prototype.y is not None:
                x, y = place_of(axes, *self._xs([prototype.x]), *self._ys([prototype.y]))
                discs.append(Disc(x, y, DOT + 2, 40.0))
        return discs

    def _lines(self, axes: Axes, stairs: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
        lines = [[place_of(axes, x, y) for x, y in stairs]] * 3  # thrice the weight of a family's line
        for points in self.lines.values():
            lines.append([place_of(axes, *self._xs([p.x]), *self._ys([p.y])) for p in points])
        for p in self.data.prototypes:
            if p.y is not None:
                lines.append([place_of(axes, x, *self._ys([p.y])) for x in self._xs([p.low, p.high])])
            else:
                (x,) = self._xs([p.x])
                lines.append([place_of(axes, x, y) for y in axes.get_ylim()])
        return lines
