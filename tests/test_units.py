"""units: scaling, rounding and parsing, with the edges where a digit or a prefix changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitscope import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (7, "7"), (999, "999"), (1000, "1.00k"), (6_185_560, "6.19M"), (651_969_640, "652M"),
        (999_600_000, "1.00G"), (999_400_000, "999M"), (12_710_112, "12.7M"), (None, "–"), (0.25, "0.250"),
    ],
)  # fmt: skip
def test_si(value, text):
    assert units.si(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00106, "1.06 ms"), (0.000834, "834 µs"), (2.1, "2.10 s"), (0.0, "0 s"), (None, "–"), (3e-9, "3.00 ns")],
)
def test_seconds(value, text):
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.032, "+3.2%"), (-0.41, "-41.0%"), (0.0, "0%"), (0.0001, "0%"), (None, "–"), (12.0, "+1200%"), (1.053, "+105%")],
)
def test_ratio(value, text):
    assert units.ratio(value) == text


def test_fixed_milliseconds_never_shows_something_as_nothing():
    assert units.fixed_milliseconds(0.0000293) == "0.029 ms"
    assert units.fixed_milliseconds(1e-8) == "<0.001 ms"
    assert units.fixed_milliseconds(0.0) == "0.000 ms"
    assert units.fixed_milliseconds(None) == "–"
    assert units.percent(0.0004) == "<0.1%"
    assert units.percent(0.0) == "0%"


@pytest.mark.parametrize(
    ("text", "value"), [("6.1M", 6_100_000), ("0.65G", 650_000_000), ("1000", 1000), (12, 12), ("2k", 2000)]
)
def test_parse_count(text, value):
    assert units.parse_count(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["6.1X", "many", "", "-3M", "1e400", "6 .1M", True])
def test_parse_count_refuses(text):
    with pytest.raises(ValueError, match="expected a"):
        units.parse_count(text)


@pytest.mark.parametrize(("text", "value"), [("1.1ms", 1.1e-3), ("850us", 850e-6), ("850µs", 850e-6), ("2s", 2.0)])
def test_parse_seconds(text, value):
    assert units.parse_seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1.1", "ms", "1.1 minutes", "-1ms"])
def test_parse_seconds_needs_a_unit(text):
    with pytest.raises(ValueError, match="expected a time with its unit"):
        units.parse_seconds(text)


@given(st.floats(1e-9, 1e15))
def test_significant_is_within_half_a_unit_of_the_third_figure(value):
    assert float(units.significant(value)) == pytest.approx(value, rel=5.1e-3)
