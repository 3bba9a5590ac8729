"""What all figures share: their three forms with the same bytes every time, the look of axes, labels with their leaders."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitscope.errors import UsageError, nearest
from vitscope.plot.labels import Label, Place
from vitscope.plot.marks import DPI, FONT, HEIGHT, WIDTH, renderer_of
from vitscope.plot.palette import FAINT, GRID, INK
from vitscope.plot.scale import log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Form = Literal["svg", "png", "pdf"]

FORMS: dict[str, Form] = {".svg": "svg", ".png": "png", ".pdf": "pdf"}
# Without these a figure would differ from run to run, or from machine to machine.
_RC: Any = {"svg.hashsalt": "vitscope", "svg.fonttype": "path", "pdf.fonttype": 42, "font.family": ["DejaVu Sans"]}
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "vitscope"},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": "vitscope", "Producer": None},
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure, and what a reader of it should be told."""

    content: bytes
    notes: tuple[str, ...]


def form_of(path: Path, flag: str) -> Form:
    """The form that the suffix of `path` asks for. Raises UsageError, headed by `flag`, for any other suffix."""
    if path.suffix.lower() not in FORMS:
        raise UsageError(
            f"{flag} {path}: cannot tell the format from the suffix{nearest(path.suffix, FORMS)}; a figure is {', '.join(FORMS)}"
        )
    return FORMS[path.suffix.lower()]


def render(paint: Callable[[Figure], list[str]], form: Form, size: tuple[float, float] = (WIDTH, HEIGHT)) -> Drawing:
    """The bytes of a figure of `size` inches that `paint` draws on; its notes are those that `paint` returns."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = Figure(figsize=size, dpi=DPI, facecolor="white")
        notes = paint(figure)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=DPI, metadata=_METADATA[form])
    if any("missing from" in str(warning.message) for warning in caught):
        notes.append("the figure's font lacks some characters of the labels: they show as boxes")
    return Drawing(out.getvalue(), tuple(notes))


def dress(axes: Axes) -> None:
    """Grid behind everything, no frame at the top and the right, ticks that do not shout."""
    axes.grid(color=GRID, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_linewidth(0.8)


def tick_logarithmic(axis: Axis, low: float, high: float) -> None:
    """Round ticks between `low` and `high` on an axis whose scale is logarithmic."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def place_of(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a point of the data lies, in points from the lower left corner of the figure."""
    px, py = axes.transData.transform((x, y))
    return float(px) * 72 / DPI, float(py) * 72 / DPI


def label(
    axes: Axes, text: str, anchors: tuple[tuple[float, float, float], ...], *, strong: bool = False, priority: int = 0
) -> Label:
    """The box that `text` will take, to be placed beside one of `anchors`."""
    drawn = axes.text(0, 0, text, fontsize=FONT, fontweight="bold" if strong else "normal", parse_math=False)
    box = drawn.get_window_extent(renderer_of(axes))
    drawn.remove()
    return Label(box.width * 72 / DPI, box.height * 72 / DPI, anchors, priority)


def write(axes: Axes, text: str, colour: str, place: Place, *, strong: bool = False) -> None:
    """Draw a label where it was placed, with its leader where it stands away."""
    from matplotlib.lines import Line2D

    points: Any = axes.figure.dpi_scale_trans
    if place.leader is not None:
        x0, y0, x1, y1 = (value / 72 for value in place.leader)
        line = Line2D([x0, x1], [y0, y1], transform=points, color=FAINT, linewidth=0.7, zorder=4.5)
        line.set_clip_on(False)
        axes.add_artist(line)
    # The ground dims what a text lies on, and hides the grid behind it. (A halo would turn the text into bare outlines.)
    ground: dict[str, Any] = {
        "facecolor": "white",
        "edgecolor": "none",
        "pad": 0.6,
        "alpha": 0.75 if place.busy else 1.0,
    }
    axes.text(
        place.x / 72, place.y / 72, text, transform=points, fontsize=FONT, fontweight="bold" if strong else "normal",
        color=colour, ha="left", va="bottom", zorder=8, parse_math=False, clip_on=False,
        bbox=ground,
    )  # fmt: skip


def no_room(hidden: Sequence[str]) -> list[str]:
    """The note on labels that found no place; none when all did."""
    if not hidden:
        return []
    return [f"no room in the figure for {len(hidden)} labels: {', '.join(hidden[:6])}{' …' if len(hidden) > 6 else ''}"]
