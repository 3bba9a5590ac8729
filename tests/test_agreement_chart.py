"""The figure of predicted against measured latency: what it says of its networks, what it draws, and what it refuses."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from vitscope.errors import UsageError
from vitscope.plot.agreement import Agreement, Pair, agreement, draw_agreement
from vitscope.plot.marks import DPI, HEIGHT
from vitscope.plot.palette import FAINT, INK, style

PAIRS = (
    Pair("near", "A", 0.001, 0.00105),
    Pair("edge", "A", 0.002, 0.0022 - 1e-12),
    Pair("far", "B", 0.004, 0.006),
    Pair("low", "B", 0.010, 0.0075),
    Pair("same", "A", 0.005, 0.005),
)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(data: Agreement) -> str:
    return draw_agreement(data, "svg").content.decode()


def uses(content: str) -> list[tuple[str, float, float]]:
    """(fill, x, y) of every mark that is drawn from a symbol: those of networks have a fill of their own."""
    found = []
    for use in ET.fromstring(content).iter(f"{SVG}use"):
        parts = dict(p.strip().split(": ") for p in use.get("style", "").split(";") if ": " in p)
        if "fill" in parts and "x" in use.attrib:
            found.append((parts["fill"].upper(), float(use.attrib["x"]), float(use.attrib["y"])))
    return found


def test_the_data_of_the_figure():
    data = agreement("phone", PAIRS, "each family held out")
    # |0.05| + |0.1| + |0.5| + |-0.25| + 0, over five
    assert data.mape == pytest.approx(0.18)
    assert (data.within, data.families) == (0.6, ("A", "B"))  # the largest family first
    assert data.headline == "5 networks of 2 families: MAPE 18.0%, 60% within ±10%"
    assert agreement("phone", PAIRS[:1]).headline == "1 network of 1 family: MAPE 5.0%, 100% within ±10%"


def test_the_figure_says_its_device_its_error_and_its_lines():
    content = drawn(agreement("phone", PAIRS, "each family held out"))
    for text in (
        "phone: predicted against measured latency",
        "5 networks of 2 families: MAPE 18.0%, 60% within ±10% (each family held out)",
        "Measured latency (ms, log scale)", "Predicted latency (ms, log scale)", "predicted = measured", "±10%", "A", "B",
    ):  # fmt: skip
        assert f"<!-- {text} -->" in content, text
    # Named with their error are those outside the lines, and no others.
    assert "<!-- far +50.0% -->" in content and "<!-- low -25.0% -->" in content
    assert not any(f"<!-- {name}" in content for name in ("near", "edge", "same"))


def test_every_network_is_a_mark_of_its_family_where_it_belongs():
    content = drawn(agreement("phone", PAIRS))
    marks = [mark for mark in uses(content) if mark[0] != INK.upper()]  # without the ticks
    first, second = style(0).colour, style(1).colour
    # three and two networks, and an entry each in the legend
    assert [sum(fill == colour for fill, *_ in marks) for colour in (first, second)] == [3 + 1, 2 + 1]
    # On the identity, a mark is as far from the left border of the square axes as from the lower one.
    x, y = marks[4][1:]
    left, lower = 0.72 * 72, HEIGHT * 72 - 0.62 * 72
    assert marks[4][0] == first and x - left == pytest.approx(lower - y, abs=72 / DPI)
    above = [lower - y > x - left for _, x, y in marks[:4]]
    assert above == [True, True, True, False]


def test_the_lines_run_from_corner_to_corner_and_ten_per_cent_beside():
    paths = [
        p for p in ET.fromstring(drawn(agreement("phone", PAIRS))).iter(f"{SVG}path") if "stroke:" in p.get("style", "")
    ]
    identity = [p for p in paths if INK.lower() in p.get("style", "") and "1.3" in p.get("style", "")]
    beside = [p for p in paths if FAINT.lower() in p.get("style", "") and "dasharray" in p.get("style", "")]
    assert (len(identity), len(beside)) == (1 + 1, 2 + 1)  # each with its entry in the legend


def test_more_families_than_styles_share_one():
    pairs = [Pair(f"n{i}", f"F{i:02}", 0.001 * (i + 1), 0.001 * (i + 1)) for i in range(14)]
    content = drawn(agreement("phone", pairs))
    assert "<!-- 2 other families -->" in content and "<!-- F11 -->" in content and "<!-- F12 -->" not in content


@pytest.mark.parametrize(
    ("seconds", "unit"), [((2e-5, 3e-5), "µs"), ((2e-5, 3e-3), "ms"), ((0.5, 1.2), "s"), ((0.003, 0.003), "ms")]
)
def test_axes_are_read_in_the_unit_that_suits_them(seconds, unit):
    content = drawn(agreement("phone", [Pair(f"n{i}", "A", s, s) for i, s in enumerate(seconds)]))
    assert f"<!-- Measured latency ({unit}, log scale) -->" in content


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_the_same_data_gives_the_same_bytes(form):
    data = agreement("phone", PAIRS)
    assert draw_agreement(data, form) == draw_agreement(data, form)


def test_names_that_could_break_a_figure():
    pairs = [Pair("<b>&amp;--$x_1$", "_hidden", 1.0, 2.0), Pair("long" * 30, "$F$", 1.0, 3.0)]
    content = drawn(agreement("a & b", pairs))
    assert ET.fromstring(content).tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "phone: no network was both measured and predicted"),
        ([Pair("zero", "A", 0.0, 0.001)], "phone: zero has a measured latency of 0 s, expected one above zero"),
        ([Pair("nan", "A", 0.001, float("nan"))], "phone: nan has a predicted latency of nan s"),
    ],
)
def test_what_cannot_be_drawn_is_said(pairs, message):
    with pytest.raises(UsageError, match=message):
        agreement("phone", pairs)
