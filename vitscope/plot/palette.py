"""Colours and marker shapes that a colour-blind reader can tell apart; colour never speaks alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Okabe and Ito, "Color Universal Design" (2008), without black (the front's) and yellow (too pale for lines on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Seven shapes beside six colours: no pair repeats before the 42nd family.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))

INK = "#222222"  # text, axes and the front
FAINT = "#8A8A8A"  # leaders, and the families that share one style
GRID = "#E6E6E6"


@dataclass(frozen=True, slots=True)
class Style:
    """How one family looks."""

    colour: str
    marker: str
    dash: Any  # a line style of matplotlib


OTHER = Style(FAINT, "h", "-")


def style(index: int) -> Style:
    """The look of the `index`-th family."""
    return Style(
        COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], DASHES[index // len(COLOURS) % len(DASHES)]
    )


def text_colour(colour: str) -> str:
    """A family's colour dark enough to read on white: halfway to the ink."""
    mixed = ((int(colour[k : k + 2], 16) * 0.45 + int(INK[k : k + 2], 16) * 0.55) for k in (1, 3, 5))
    return "#" + "".join(f"{round(channel):02X}" for channel in mixed)
