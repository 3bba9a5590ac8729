"""The sizes of a figure and the marks it is made of: bubbles, dots, and text that is text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitscope.plot.palette import INK, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DPI = 10.0, 6.4, 200  # inches, and pixels an inch of a PNG
DOT = 3.0  # points: half the side of a family's mark
FONT = 8.5  # points


def bubble(axes: Axes, x: float, y: float, radius: float, colour: str) -> None:
    """A pale disc of `radius` points: it may cover others without hiding them."""
    axes.plot(
        [x], [y], marker="o", markersize=2 * radius, markerfacecolor=with_alpha(colour, 0.16),
        markeredgecolor=with_alpha(colour, 0.55), markeredgewidth=0.7, linestyle="none", zorder=3.5,
    )  # fmt: skip


def dot(axes: Axes, x: float, y: float, look: Style, ahead: bool) -> None:
    """A family's mark at the exact place; those on the front have a dark rim."""
    axes.plot(
        [x], [y], marker=look.marker, markersize=2 * DOT + (1.2 if ahead else 0), markerfacecolor=look.colour,
        markeredgecolor=INK if ahead else "white", markeredgewidth=1.3 if ahead else 0.6, linestyle="none", zorder=5,
    )  # fmt: skip


def with_alpha(colour: str, alpha: float) -> tuple[float, float, float, float]:
    """`colour` with transparency, as matplotlib takes it."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return red, green, blue, alpha


def renderer_of(axes: Axes) -> Any:
    """What measures texts: always the raster renderer, so that all three forms of a figure have one layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = axes.figure.canvas
    return (canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(axes.figure)).get_renderer()  # pyright: ignore


def clean(text: str, longest: int = 60) -> str:
    """One line of printable characters, cut where it would leave the figure."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
