"""The figure: well-formed, the same bytes every time, every label in it, and no label on another."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from vitscope.errors import UsageError
from vitscope.pareto import Axis, front_data
from vitscope.plot.front import draw
from vitscope.plot.labels import Disc, Label, place_labels
from vitscope.plot.palette import COLOURS, MARKERS, style, text_colour
from vitscope.plot.scale import axis_title, axis_unit, legend_sizes, limits, log_ticks
from vitscope.prototype import Candidate, place
from vitscope.results import parse_results, read_results

LATENCY = Axis("latency_s", ("latency_ms",), "Latency", "s", True)
PARAMS = Axis("params", ("params_m",), "Parameters", "count", True)


def data_of(rows: str):
    return front_data([parse_results("t.csv", ("model,family,latency_ms,top1,params_m\n" + rows).encode())])


def few():
    data = data_of("alpha,F,1,70,3\nbeta,F,2,75,12\ngamma,G,2,75,\ndelta,other,4,74,40\n")
    values = {"params": 5e6, "macs": 1e9}
    known = Candidate("known", "known", "iphone12", values, 0.0015, 0.0012, 0.0019, "ok", ("top1", 72.0))
    unknown = Candidate("unknown", "unknown", "iphone12", values, 0.003, 0.0025, 0.0036, "ok", None)
    return place(data, [known, unknown])


@pytest.mark.parametrize(("form", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("log_x", [False, True])
def test_each_form_has_its_bytes_and_always_the_same(form, magic, log_x):
    first, second = (draw(few(), form, log_x=log_x, title="Front") for _ in range(2))
    assert first.content.startswith(magic)
    assert first == second
    assert first.notes == ()


def test_an_svg_is_xml_and_names_every_point():
    content = draw(few(), "svg", title="A title").content.decode()
    assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    names = ("alpha", "beta", "gamma", "delta", "known (predicted)", "unknown (predicted)", "A title", "Latency (ms)")
    for name in names:
        assert f"<!-- {name} -->" in content, name
    assert "Date" not in content and "date" not in content


def test_figure_1_names_all_its_models_and_hides_none():
    from vitscope.results import device_condition, parse_condition

    chosen = [device_condition("iphone12"), parse_condition("source~EfficientFormerV2 paper Fig. 1")]
    data = front_data([read_results("published")], conditions=chosen, fill_size=True)
    drawing = draw(data, "svg", log_x=True)
    content = drawing.content.decode()
    assert drawing.notes == ()
    for point in data.points:
        assert f"<!-- {point.label} -->" in content


def test_names_that_could_break_a_figure():
    rows = (
        "$x_1$,_hidden,1,70,1\n<b>&amp;--,F$,2,71,1\n\u6a21\u578b \x07\x1b[31m,G,3,72,1\n" + "long" * 60 + ",H,4,73,1\n"
    )
    drawing = draw(data_of(rows), "svg")
    ET.fromstring(drawing.content)
    assert any("lacks some characters" in note for note in drawing.notes)


@pytest.mark.parametrize(
    "rows",
    [
        "one,F,1,70,3\n",
        "a,F,1,70,3\na,F,1,70,3\n",
        "a,F,0,0,0\n",
        "a,,1e-9,70,\nb,,1e9,70,\n",
        "a,F,-1,70,-3\nb,F,1,71,3\n",
    ],
)
def test_tables_with_hardly_anything_to_draw(rows):
    ET.fromstring(draw(data_of(rows), "svg").content)


def test_a_logarithmic_axis_needs_positive_values():
    with pytest.raises(UsageError, match="--log-x: zero has latency_s of zero or less"):
        draw(data_of("zero,F,0,70,3\n"), "svg", log_x=True)


def test_many_points_name_the_front_only_unless_asked():
    rows = "".join(f"m{i},F{i % 20},{1 + i * 0.1:.1f},{60 + (i * 7) % 23},{1 + i % 9}\n" for i in range(60))
    drawing = draw(data_of(rows), "svg")
    assert drawing.notes == ("the figure names the front only, not all 60 points (--labels all)",)
    assert "<!-- 8 other families -->" in drawing.content.decode()
    assert "<!-- m1 -->" in draw(data_of(rows), "svg", labels="all").content.decode()
    assert "<!-- m0 -->" not in draw(data_of(rows), "svg", labels="none").content.decode()


def test_nothing_of_the_users_matplotlib_changes():
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(few(), "png")
    assert dict(matplotlib.rcParams) == before


def test_families_join_by_x_or_by_rows():
    # The same three points; only the line through them differs.
    data = data_of("a,F,3,70,1\nb,F,1,71,1\nc,F,2,72,1\n")
    drawn = {join: draw(data, "svg", join=join).content for join in ("x", "rows", "none")}
    assert len(set(drawn.values())) == 3


# ---- labels


@pytest.mark.parametrize("seed", range(6))
def test_placed_labels_never_overlap_and_stay_inside(seed):
    rng = random.Random(seed)
    spots = [(rng.uniform(80, 420), rng.uniform(80, 320), rng.uniform(3, 18)) for _ in range(30)]
    labels = [Label(rng.uniform(25, 90), 9.0, (spot,), rng.randint(1, 2)) for spot in spots]
    bounds = (50.0, 50.0, 450.0, 350.0)
    places = place_labels(labels, [Disc(*spot, 5.0) for spot in spots], [], bounds)
    boxes = [(p.x, p.y, p.x + label.width, p.y + label.height) for label, p in zip(labels, places, strict=True) if p]
    assert len(boxes) >= 20
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert all(b[0] >= 49.5 and b[1] >= 49.5 and b[2] <= 450.5 and b[3] <= 350.5 for b in boxes)


def test_a_lonely_label_stands_close_and_needs_no_leader():
    (only,) = place_labels([Label(40, 9, ((200, 200, 5),))], [Disc(200, 200, 5, 40)], [], (0, 0, 400, 400))
    assert only is not None and only.leader is None
    assert not only.busy


def test_the_less_important_label_goes_when_there_is_no_room():
    labels = [Label(90, 9, ((50, 50, 2),), 2), Label(90, 9, ((50, 50, 2),), 1)]
    assert [p is None for p in place_labels(labels, [], [], (0.0, 44.0, 100.0, 66.0))] == [True, False]


def test_no_labels():
    assert place_labels([], [], [], (0, 0, 1, 1)) == []


# ---- axes and looks


@pytest.mark.parametrize(
    ("axis", "largest", "title"),
    [
        (LATENCY, 0.007, "Latency (ms)"),
        (LATENCY, 12.0, "Latency (s)"),
        (PARAMS, 8e7, "Parameters (M)"),
        (PARAMS, 900.0, "Parameters"),
    ],
)
def test_axis_titles_carry_the_unit_on_screen(axis, largest, title):
    assert axis_title(axis, axis_unit(axis, [largest]), None) == title


def test_an_axis_says_its_device_its_dataset_and_its_scale():
    assert (
        axis_title(LATENCY, axis_unit(LATENCY, [0.001]), "iPhone 12", log=True)
        == "Latency on iPhone 12 (ms, log scale)"
    )
    assert axis_title(PARAMS, axis_unit(PARAMS, [1e6]), "iPhone 12") == "Parameters (M)"
    miou = Axis("miou", ("miou",), "mIoU", "%", False)
    assert axis_title(miou, axis_unit(miou, [80]), "iPhone 12", dataset="Cityscapes") == "mIoU on Cityscapes (%)"


@pytest.mark.parametrize("log", [False, True])
def test_limits_hold_every_margin(log):
    from math import log10

    low, high = limits([(1.0, 20.0), (5.0, 30.0), (2.0, 90.0)], 500.0, log)
    place = (lambda v: log10(v / low) / log10(high / low)) if log else (lambda v: (v - low) / (high - low))
    for value, margin in [(1.0, 20.0), (5.0, 30.0), (2.0, 90.0)]:
        assert margin - 0.5 <= place(value) * 500 <= 500 - margin + 0.5


def test_a_linear_axis_begins_at_zero_when_zero_is_near():
    assert limits([(1.0, 5.0), (9.0, 5.0)], 500.0, False)[0] == 0.0
    assert limits([(70.0, 5.0), (90.0, 5.0)], 500.0, False)[0] > 60.0


def test_round_ticks_and_sizes():
    assert log_ticks(0.8, 12) == [0.8, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0]
    assert log_ticks(0.01, 200) == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert legend_sizes(2.3e6, 82e6) == [50e6, 20e6, 5e6]
    assert legend_sizes(12.2e6, 13.4e6) == [10e6]


def test_colour_never_speaks_alone():
    looks = [(style(i).colour, style(i).marker) for i in range(len(COLOURS) * len(MARKERS))]
    assert len(set(looks)) == len(looks)


def test_texts_are_dark_enough_to_read():
    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in COLOURS:
        assert 1.05 / (luminance(text_colour(colour)) + 0.05) >= 4.5  # WCAG AA on white
