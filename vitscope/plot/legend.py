"""Legends: marks and lines at the right border; of a front, below them what the bubbles' area means."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vitscope import units
from vitscope.pareto import FrontData
from vitscope.plot.marks import DOT, DPI, FONT, WIDTH, clean, renderer_of, with_alpha
from vitscope.plot.palette import FAINT, INK, OTHER, Style
from vitscope.plot.scale import legend_sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 28  # characters of a family's name: more would squeeze the axes


def draw_legend(
    axes: Axes,
    *,
    data: FrontData,
    styles: Mapping[str, Style],
    joined: Collection[str],
    radius: Callable[[float | None], float],
    top: float,
) -> float:
    """Draw that of a front at the right border from `top` down. Returns the share of the figure's width that it takes."""
    share, bottom = draw_handles(axes, _handles(data, styles, joined), top)
    _sizes(axes, data, radius, (0.99 - share) * WIDTH * 72 + 2, bottom - 18)
    return share + 0.02


def draw_handles(axes: Axes, handles: Sequence[Any], top: float) -> tuple[float, float]:
    """Draw `handles` with their labels at the right border from `top` down.

    Returns the share of the figure's width that they take, and where they end, in points from the lower border.
    """
    figure: Any = axes.figure
    legend = figure.legend(
        handles=handles, labels=[handle.get_label() for handle in handles], loc="upper left", bbox_to_anchor=(0.5, top),
        labelspacing=0.55, frameon=False, fontsize=FONT, labelcolor=INK, borderaxespad=0.0, borderpad=0.2, alignment="left",
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in somebody's model name is not mathematics
    box = legend.get_window_extent(renderer_of(axes))
    share = box.width / (figure.get_figwidth() * DPI)
    legend.set_bbox_to_anchor((0.99 - share, top), figure.transFigure)
    return share, box.y0 * 72 / DPI


def handle(name: str, marker: str, colour: str, **rest: Any) -> Any:
    """An entry of a legend: a mark, a line, or both."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"markersize": 2 * DOT, "linewidth": 1.1, "linestyle": "none", **rest}
    # A leading underscore would hide the entry.
    return Line2D([], [], color=colour, marker=marker, label=re.sub("^_", "\u02cd", clean(name, LONGEST)), **look)


def _handles(data: FrontData, styles: Mapping[str, Style], joined: Collection[str]) -> list[Any]:
    handles = [
        handle(name, look.marker, look.colour, linestyle=look.dash if name in joined else "none")
        for name, look in styles.items()
    ]
    others = len(data.families) - len(styles)
    if others > 0:
        handles.append(handle(f"{others} other families", OTHER.marker, OTHER.colour))
    if not data.also:
        handles.append(handle("Pareto front", "", INK, linestyle="-", linewidth=1.7))
    rim = {"markeredgecolor": INK, "markeredgewidth": 1.3}
    handles.append(handle("on the front", "o", FAINT, markerfacecolor=FAINT, **rim))
    if data.prototypes:
        handles.append(handle("predicted", "o", INK, linestyle="-", markerfacecolor="white", **rim))
    return handles


def _sizes(axes: Axes, data: FrontData, radius: Callable[[float | None], float], left: float, top: float) -> None:
    """Bubbles of round sizes, one below the other; `left` and `top` in points."""
    shown = [s for s in (*(p.size for p in data.points), *(p.size for p in data.prototypes)) if s is not None]
    if data.size is None or not shown:
        return
    rows: list[tuple[float | None, str]] = [
        (size, units.si(size, "B" if data.size.unit == "B" else "")) for size in legend_sizes(min(shown), max(shown))
    ]
    if any(point.size is None for point in data.points):
        rows.append((None, "unknown"))
    draw_sizes(axes, data.size.title, [(radius(size), size is not None, text) for size, text in rows], left, top)


def draw_sizes(axes: Axes, title: str, rows: Sequence[tuple[float, bool, str]], left: float, top: float) -> None:
    """Bubbles of round sizes, one below the other: (radius in points, whether it is a bubble or a dot, text).

    `left` and `top` are in points.
    """
    widest = max(rows[0][0], FONT)
    _note(axes, left, top, clean(title, LONGEST))
    y = top - 8
    for radius, is_bubble, text in rows:
        half = max(radius, DOT)
        step = max(half, 0.6 * FONT) + 3
        y -= step
        _disc(axes, left + widest, y, half, with_alpha(FAINT, 0.2) if is_bubble else FAINT)
        _note(axes, left + 2 * widest + 7, y, re.sub(r"\.0+(?=\D|$)", "", text))
        y -= step


def _note(axes: Axes, x: float, y: float, text: str) -> None:
    at: Any = axes.figure.dpi_scale_trans
    look: dict[str, Any] = {"fontsize": FONT, "color": INK, "va": "center", "parse_math": False, "clip_on": False}
    axes.text(x / 72, y / 72, text, transform=at, **look)


def _disc(axes: Axes, x: float, y: float, radius: float, face: Any) -> None:
    from matplotlib.lines import Line2D

    at: Any = axes.figure.dpi_scale_trans
    look: dict[str, Any] = {
        "markerfacecolor": face,
        "markeredgecolor": FAINT,
        "markeredgewidth": 0.8,
        "linestyle": "none",
    }
    axes.add_artist(Line2D([x / 72], [y / 72], marker="o", markersize=2 * radius, transform=at, clip_on=False, **look))
