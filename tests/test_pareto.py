"""The front itself: dominance against brute force, tables of results, filters, and merging."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vitscope
from benchmarks.dense_columns import extended
from vitscope.errors import UsageError
from vitscope.pareto import Axis, FrontData, Omitted, Point, dominators, front_data, pareto_mask
from vitscope.results import (
    choose,
    device_condition,
    parse_condition,
    parse_number,
    parse_results,
    read_results,
)

TABLE = b"""model,family,latency_ms,top1,params_m,device
a,F,1.0,70,3,iPhone 12
b,F,2.0,75,6.1,iPhone 12
c,G,2.0,74,9,iPhone 12
d,G,3.0,75,,iPhone 12
"""


def table(text: bytes = TABLE, name: str = "results.csv"):
    return parse_results(name, text)


def by_label(data: FrontData) -> dict[str, str | None]:
    return {p.label: None if p.dominated_by is None else data.points[p.dominated_by].label for p in data.points}


# ---- dominance

# A coarse grid makes ties and equal points common.
COSTS = st.integers(2, 4).flatmap(
    lambda k: st.lists(st.tuples(*[st.integers(-3, 3).map(float)] * k), min_size=1, max_size=25)
)


def beaten(costs, i):
    """The definition, spelled out: another is at least as good everywhere and better somewhere."""
    return [
        j
        for j in range(len(costs))
        if all(p <= q for p, q in zip(costs[j], costs[i], strict=True))
        and any(p < q for p, q in zip(costs[j], costs[i], strict=True))
    ]


@given(COSTS)
def test_the_front_is_what_brute_force_finds(costs):
    assert pareto_mask(costs) == [not beaten(costs, i) for i in range(len(costs))]


@given(COSTS)
def test_a_dominator_is_on_the_front_and_dominates(costs):
    mask = pareto_mask(costs)
    for i, j in enumerate(dominators(costs)):
        assert (j is None) == mask[i]
        if j is not None:
            assert mask[j] and j in beaten(costs, i)


@given(COSTS, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(costs, random):
    order = list(range(len(costs)))
    random.shuffle(order)
    shuffled = pareto_mask([costs[i] for i in order])
    assert {costs[i] for i, on in enumerate(pareto_mask(costs)) if on} == {
        costs[i] for i, on in zip(order, shuffled, strict=True) if on
    }


@pytest.mark.parametrize(
    ("costs", "front"),
    [
        ([(1, 1)], {0}),
        ([(1, 2), (2, 1)], {0, 1}),
        ([(1, 1), (1, 1)], {0, 1}),  # equal points stay together
        ([(1, 1), (1, 2)], {0}),  # a tie on one objective does not save
        ([(1, 3), (2, 2), (3, 1), (3, 3)], {0, 1, 2}),
        ([(1, 1, 5), (2, 2, 2), (2, 2, 3)], {0, 1}),
        ([(0.0, 1), (-0.0, 1)], {0, 1}),
    ],
)
def test_small_fronts(costs, front):
    assert {i for i, on in enumerate(pareto_mask(costs)) if on} == front


def test_the_nearest_front_member_is_named_on_scaled_axes():
    # Unscaled, (0, 1000) would be nearer to (0.9, 1000.5) by far less than its share of the range.
    assert dominators([(0.0, 1000.0), (1.0, 0.0), (1.0, 10.0), (0.1, 1000.5)]) == [None, None, 1, 0]


# ---- from a table to points


def test_front_data_of_a_small_table():
    assert front_data([table()]) == FrontData(
        x=Axis("latency_s", ("latency_ms",), "Latency", "s", True),
        y=Axis("top1", ("top1",), "ImageNet top-1 accuracy", "%", False),
        size=Axis("params", ("params_m",), "Parameters", "count", True),
        also=(),
        device="iPhone 12",
        points=(
            Point("a", "F", 0.001, 70.0, 3e6, (), "results.csv:2", 0),
            Point("c", "G", 0.002, 74.0, 9e6, (), "results.csv:4", 2, dominated_by=2),
            Point("b", "F", 0.002, 75.0, 6.1e6, (), "results.csv:3", 1),
            Point("d", "G", 0.003, 75.0, None, (), "results.csv:5", 3, dominated_by=2),
        ),
        prototypes=(),
        omitted=(),
        notes=(),
    )


def test_directions_turn_the_front_round():
    data = front_data([table()], x_minimize=False)
    assert by_label(data) == {"a": "d", "b": "d", "c": "d", "d": None}


def test_a_third_objective_keeps_what_two_would_drop():
    # c is beaten by b on params too; d has none and is left out, with its reason.
    data = front_data([table()], also=["params_m:max"])
    assert by_label(data) == {"a": None, "b": None, "c": None}
    assert data.omitted == (Omitted("d", "G", "no params", "results.csv:5"),)


def test_missing_and_infinite_cells_are_left_out_with_their_reason():
    text = b"model,latency_ms,top1\na,1,70\nb,,71\nc,2,n/a\nd,nan,\ne,inf,72\n"
    data = front_data([table(text)])
    assert [p.label for p in data.points] == ["a"]
    assert {o.label: o.reason for o in data.omitted} == {
        "b": "no latency_s",
        "c": "no top1",
        "d": "no latency_s and no top1",
        "e": "latency_s is infinite",
    }
    assert data.notes == ("4 of 5 rows left out, each with its reason",)


def test_units_of_two_files_meet_in_the_base_unit():
    mine = table(b"name,latency_s,top1,params\nmine,0.0011,79,6100000\n", "mine.csv")
    theirs = table(b"model,latency_ms,top1,params_m\ntheirs,1.1,79,6.1\n", "theirs.csv")
    data = front_data([mine, theirs])
    assert [(p.x, p.size) for p in data.points] == [(0.0011, 6.1e6)] * 2  # equal to the bit
    assert len(data.front) == 2
    assert data.x.columns == ("latency_s", "latency_ms")


def test_measured_and_predicted_latency_never_share_an_axis():
    measured = table(b"model,latency_p50_ms,top1\na,1,70\n", "m.csv")
    predicted = table(b"model,latency_ms,top1\nb,1,70\n", "p.csv")
    with pytest.raises(UsageError, match="no column to take for --x"):
        front_data([measured, predicted])
    assert front_data([measured]).x.key == "latency_p50_s"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("keep", {("m", 3.0, 70.0), ("m", 1.0, 60.0), ("m", 2.0, 80.0), ("n", 9.0, 50.0)}),
        ("first", {("m", 3.0, 70.0), ("n", 9.0, 50.0)}),
        ("best", {("m", 1.0, 60.0), ("n", 9.0, 50.0)}),
        ("median", {("m", 2.0, 70.0), ("n", 9.0, 50.0)}),
    ],
)
def test_duplicates(how, expected):
    text = b"model,macs,top1\nm,3,70\nm,1,60\nm,2,80\nn,9,50\n"
    data = front_data([table(text)], x="macs", duplicates=how)
    assert {(p.label, p.x, p.y) for p in data.points} == expected
    assert "merge" in data.notes[0]


def test_fill_size_takes_the_median_of_other_rows_even_of_hidden_ones():
    text = b"model,latency_ms,top1,params_m,device\nm,1,70,,p\nm,2,70,3,q\nm,2,70,5,q\nn,1,60,,p\n"
    data = front_data([table(text)], conditions=[device_condition("p")], fill_size=True)
    assert {p.label: p.size for p in data.points} == {"m": 4e6, "n": None}
    assert "1 points take their params from other rows" in data.notes[0]


def test_several_devices_are_said():
    text = b"model,latency_ms,top1,device\nm,1,70,p\nn,2,70,q\n"
    assert "2 devices" in front_data([table(text)]).notes[0]


def test_the_default_y_is_the_first_accuracy_that_the_chosen_rows_give():
    text = b"model,latency_ms,top1,miou,dataset\na,1,70,,\nb,2,,80,Cityscapes\nc,3,,40,ADE20K\n"
    assert front_data([table(text)]).y.key == "top1"
    data = front_data([table(text)], conditions=[parse_condition("dataset=Cityscapes")])
    assert (data.y.key, data.dataset, [p.label for p in data.points]) == ("miou", "Cityscapes", ["b"])
    both = front_data([table(text)], y="miou")
    assert both.dataset is None
    assert "2 datasets, whose mIoU does not compare" in both.notes[0]


def test_the_shipped_table_has_its_dense_predictions_in_columns():
    # The columns are what the script reads in the text, and the script has nothing left to do.
    published = read_results("published")
    path = Path(vitscope.__file__).parent / "data" / "published.csv"
    assert extended(path.read_bytes().decode()).encode() == path.read_bytes()
    chosen = [parse_condition(c) for c in ("dataset=Cityscapes", "device=NVIDIA Jetson AGX Orin", "source~paper")]
    data = front_data([published], conditions=chosen)
    assert (len(data.points), data.y.key) == (14, "miou")
    assert [data.points[i].label.split()[0] for i in data.front] == [
        f"EfficientViT-{v}" for v in ("B0", "B1", "L1", "L2")
    ]


def test_an_axis_whose_direction_nobody_knows_is_asked_for():
    text = b"model,energy,top1\na,1,70\n"
    with pytest.raises(UsageError, match=r"--x 'energy'.*--x-direction min or --x-direction max"):
        front_data([table(text)], x="energy")
    assert front_data([table(text)], x="energy", x_minimize=True).x.key == "energy"


def test_the_shipped_table_has_figure_1():
    source = parse_condition("source~EfficientFormerV2 paper Fig. 1")
    data = front_data([read_results("published")], conditions=[device_condition("iphone12"), source], fill_size=True)
    assert len(data.points) == 21
    assert [data.points[i].label for i in data.front] == [
        "EfficientFormerV2-S0", "EfficientFormerV2-S1", "EfficientFormer-L1", "EfficientFormerV2-S2", "EfficientFormerV2-L",
    ]  # fmt: skip
    assert [p.label for p in data.points if p.size is None] == ["UniNet-B1"]


# ---- reading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\xff", "not UTF-8 text"),
        (b"a,b\0,c\n", "a binary file"),
        (b"model,top1\n", "no rows"),
        (b"model,top1,top1\na,1,2\n", "names column 'top1' twice"),
        (b"model,top1\na,1,2\n", "results.csv:2: 3 cells, but the heading names 2 columns"),
        (b'model,top1\n"a\nb",1\n"c,2\n', "results.csv:4: not CSV"),
    ],
)
def test_bad_files(content, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        parse_results("results.csv", content)


def test_a_bad_cell_is_named_with_file_line_and_text():
    text = b'model,latency_ms,top1\n"two\nlines",1,70\nb,fast,71\nc,slow,72\n'
    with pytest.raises(
        UsageError, match=r"results.csv:4: latency_ms is 'fast', expected a number \(and 1 more such cells\)"
    ):
        front_data([table(text)])


def test_text_in_a_column_or_a_row_that_is_not_used_does_no_harm():
    text = b"model,latency_ms,top1,remark,device\na,1,70,odd,p\nb,fast,71,,q\n"
    assert len(front_data([table(text)], conditions=[device_condition("p")]).points) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_a_byte_order_mark(delimiter):
    text = "\ufeff" + delimiter.join(["model", "top1"]) + "\r\n" + delimiter.join(["a", "70"]) + "\r\n"
    assert parse_results("t", text.encode()).rows[0].cells == ("a", "70")


@pytest.mark.parametrize(
    ("text", "exponent", "value"),
    [
        ("1.1", -3, 0.0011),
        ("6.1", 6, 6.1e6),
        ("1e3", 0, 1000.0),
        ("-.5", 0, -0.5),
        ("", 0, None),
        ("NaN", 0, None),
        ("–", 0, None),
    ],
)
def test_numbers(text, exponent, value):
    assert parse_number(text, exponent) == value


@pytest.mark.parametrize("text", ["fast", "1,1", "1_0", "0x10", "1 ms", "12%"])
def test_no_numbers(text):
    with pytest.raises(ValueError, match="expected a number"):
        parse_number(text)


def test_infinite_and_overflowing_numbers_are_infinite():
    assert parse_number("-inf") == -math.inf
    assert parse_number("1e999", 6) == math.inf


# ---- filters


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("family=f", "ab"),
        ("family=F|G", "abcd"),
        ("family!=F", "cd"),
        ("model~A", "a"),
        ("latency_ms<2", "a"),
        ("latency_ms <= 2", "abc"),
        ("params_m>3", "bc"),  # an unknown is not above three
        ("top1=75.0", "bd"),
        ("top1>=75", "bd"),
    ],
)
def test_conditions(condition, kept):
    (chosen,), notes = choose([table()], [parse_condition(condition)])
    assert ("".join(row.cells[0] for row in chosen.rows), notes) == (kept, [])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("family", "expected COLUMN=VALUE"),
        ("latency_ms<fast", "expected a number after <"),
        ("famly=F", "no such column — did you mean 'family'"),
        ("device=iPhone 13", "did you mean 'iPhone 12'"),
        ("family=F|H", "no family is 'H'"),
        ("model~z", "no model contains 'z'"),
        ("device<3", "results.csv:2: device is 'iPhone 12', expected a number"),
    ],
)
def test_bad_conditions(condition, message):
    with pytest.raises(UsageError) as caught:
        choose([table()], [parse_condition(condition)])
    assert message in str(caught.value)


def test_conditions_that_no_row_meets_together():
    with pytest.raises(UsageError, match="no row meets all of"):
        choose([table()], [parse_condition("family=F"), parse_condition("model=c")])


def test_a_file_without_the_column_is_left_whole_and_said():
    other = table(b"model,latency_ms,top1\nz,1,70\n", "other.csv")
    (_, kept), notes = choose([table(), other], [device_condition("iPhone12")])
    assert len(kept.rows) == 1
    assert notes == ["other.csv has no column 'device': --device 'iPhone12' does not apply to it"]
