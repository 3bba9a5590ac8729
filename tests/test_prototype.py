"""Prototypes among the points of a front: judged over their interval, with the accuracy that is reported and no other."""

from __future__ import annotations

import pytest

from vitscope.errors import UsageError
from vitscope.pareto import front_data
from vitscope.prototype import Candidate, parse_accuracies, place, prototype_point
from vitscope.results import parse_results

TABLE = b"""model,family,latency_ms,top1,params_m,device
a,F,1.0,70,3,iPhone 12
b,F,2.0,75,6.1,iPhone 12
c,G,2.0,74,9,iPhone 12
d,G,3.0,75,,iPhone 12
"""


def table(text: bytes = TABLE):
    return parse_results("results.csv", text)


def candidate(
    latency_s: float | None = 0.0015,
    low=0.0012,
    high=0.0018,
    top1=None,
    label="mine",
    status="ok",
    accuracy=None,
    about="",
) -> Candidate:
    values = {"params": 5e6, "macs": 1e9}
    accuracy = ("top1", top1) if top1 is not None else accuracy
    return Candidate(f"{label}.yaml", label, "iphone12", values, latency_s, low, high, status, accuracy, about)


@pytest.mark.parametrize(
    ("top1", "verdict", "rival"),
    [(76.0, "front", None), (70.5, "front", None), (70.0, "dominated", "a"), (60.0, "dominated", "a")],
)
def test_a_prototype_is_judged_over_its_interval(top1, verdict, rival):
    data = place(front_data([table()]), [candidate(top1=top1)])
    (mine,) = data.prototypes
    found = None if mine.dominated_by is None else data.points[mine.dominated_by].label
    assert (mine.verdict, found, mine.y, mine.size) == (verdict, rival, top1, 5e6)


def test_an_interval_that_reaches_across_the_front_decides_nothing():
    (mine,) = place(front_data([table()]), [candidate(high=0.0025, top1=72.0)]).prototypes
    assert (mine.verdict, mine.low, mine.x, mine.high) == ("undecided", 0.0012, 0.0015, 0.0025)


def test_accuracy_is_never_invented():
    data = place(front_data([table()]), [candidate(low=0.0005, high=0.0025)])
    (mine,) = data.prototypes
    rivals = [i if i is None else data.points[i].label for i in (mine.to_beat_low, mine.to_beat, mine.to_beat_high)]
    assert (mine.y, mine.verdict, mine.dominated_by, rivals) == (None, "no accuracy", None, [None, "a", "b"])


@pytest.mark.parametrize("name", ["mine", "mine.yaml"])
def test_accuracy_given_on_the_command_line_wins(name):
    (mine,) = place(front_data([table()]), [candidate(top1=60.0)], parse_accuracies([f"{name}=71.5"])).prototypes
    assert mine.y == 71.5


def test_a_prototype_without_a_prediction_is_left_out_and_says_why():
    data = place(front_data([table()]), [candidate(latency_s=None, status="not calibrated")])
    assert data.prototypes == ()
    assert data.omitted[-1].reason == "no latency_s on iphone12: not calibrated"


def test_prototypes_do_not_move_the_front():
    data = front_data([table()])
    assert place(data, [candidate(latency_s=0.0001, low=0.0001, high=0.0001, top1=99.0)]).points == data.points


def test_on_exact_costs_a_prototype_has_no_interval():
    text = b"model,params,top1\na,1000000,60\nb,9000000,80\n"
    (mine,) = place(front_data([table(text)], x="params"), [candidate(top1=70.0)]).prototypes
    assert (mine.low, mine.x, mine.high, mine.verdict) == (5e6, 5e6, 5e6, "front")


def test_what_a_profile_cannot_know():
    text = b"model,throughput,top1\na,100,60\n"
    with pytest.raises(UsageError, match="cannot know its throughput"):
        place(front_data([table(text)], x="throughput"), [candidate(top1=70.0)])
    with pytest.raises(UsageError, match="no such prototype — did you mean 'mine'"):
        place(front_data([table()]), [candidate()], {"mien": 70.0})
    with pytest.raises(UsageError, match="expected NAME=NUMBER"):
        parse_accuracies(["mine=good"])


# ---- accuracies of other tasks

CITIES = b"model,latency_ms,miou,map,dataset\na,1,70,,Cityscapes\nb,2,75,,Cityscapes\n"


@pytest.mark.parametrize(
    ("accuracy", "about", "y"),
    [
        (("miou", 74.0), "", 74.0),  # nobody says of what: taken as it is
        (("miou", 74.0), "mine Table 3 (Cityscapes)", 74.0),
        (("miou", 74.0), "mine_ade20k", None),  # 74 on another dataset is another number
        (("miou", 74.0), "ADE20K and Cityscapes", 74.0),
        (("map", 45.0), "", None),
        (("top1", 79.0), "", None),
        (None, "", None),
    ],
)
def test_the_reported_accuracy_counts_where_y_is_the_same_metric(accuracy, about, y):
    data = front_data([table(CITIES)])
    assert (data.y.key, data.dataset) == ("miou", "Cityscapes")
    (mine,) = place(data, [candidate(accuracy=accuracy, about=about)]).prototypes
    assert (mine.y, mine.verdict) == (y, "no accuracy" if y is None else "front")


def test_the_accuracy_of_a_spec_is_the_one_that_it_reports(monkeypatch):
    from types import SimpleNamespace

    from vitscope.spec.value import Figure, Reported

    reported = Reported(source="its paper, ADE20K", miou=Figure(42.84, "42.840"))
    result = SimpleNamespace(
        name="seg", reported=reported, totals=SimpleNamespace(params=5_000_000, macs=10**9), predictions=()
    )
    monkeypatch.setattr("vitscope.profile.profile", lambda *_, **__: result)
    found = prototype_point("seg.yaml", None)
    assert (found.accuracy, found.about) == (("miou", 42.84), "seg its paper, ADE20K")
