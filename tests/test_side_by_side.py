"""Predictions on several devices beside one another: interval, coverage, shares that add up, a word where no number is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vitscope.cli import main
from vitscope.latency.device import load_device
from vitscope.profile import profile_spec
from vitscope.report.profile import predicted_cell, prediction_text, profile_table, summary_table
from vitscope.spec import load_spec

DEVICES = ("iphone12", "raspberry_pi5", "iphone13")  # the second is roofline only


@pytest.fixture(scope="module")
def made():
    return profile_spec(load_spec("efficientformerv2_s0"), [load_device(name) for name in DEVICES], by="stage")


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_shares_and_call_overhead_of_each_device_are_its_total(made):
    for i, prediction in enumerate(made.predictions):
        seconds = [row.latency_s[i] for row in made.rows]
        if prediction.latency_s is None:
            assert seconds == [None] * len(seconds)
        else:
            assert sum(seconds) + prediction.floor_s == pytest.approx(prediction.latency_s)


def test_every_device_has_its_column_and_a_refusal_stands_where_the_number_would(made):
    table = profile_table(made)
    titles = [column.title for column in table.columns]
    assert titles[6:] == ["iphone12", "share", "raspberry_pi5", "iphone13", "share"]
    assert all(len(row.cells) == len(titles) for row in (*table.rows, *table.footer))
    (total,) = table.footer
    assert total.cells[titles.index("raspberry_pi5")] == "not calibrated"
    assert total.cells[titles.index("iphone12")] == predicted_cell(made.predictions[0]) != "not calibrated"
    (row,) = summary_table([made]).rows
    assert row.cells[-3:] == tuple(predicted_cell(p) for p in made.predictions)
    for prediction in made.predictions:
        assert prediction_text(prediction) in table.notes


def test_coverage_below_all_of_it_is_said_beside_every_number(made):
    part = replace(made.predictions[0], coverage=0.96)
    assert predicted_cell(part).endswith(" ms (covers 96%)")
    assert prediction_text(part).endswith(", covers 96% of the work")
    refused = replace(made.predictions[1], status="out of range", coverage=0.5)
    assert predicted_cell(refused) == "out of range"
    assert prediction_text(refused).endswith(", covers 50% of the work")
    assert "covers" not in predicted_cell(made.predictions[0]) + prediction_text(made.predictions[0])


def test_compare_says_of_both_what_is_predicted_and_decides_by_the_pair(capsys: pytest.CaptureFixture[str]):
    pair = ("compare", "efficientformerv2_s1", "efficientformerv2_s0")
    devices = [word for name in DEVICES for word in ("--device", name)]
    out = call(capsys, *pair, *devices)
    lines = out.splitlines()
    for name in pair[1:]:
        assert any(line.startswith(f"{name} on iphone12 (") and "80% interval" in line for line in lines)
        assert any(
            line.startswith(f"{name} on raspberry_pi5 (") and "not calibrated: roofline only" in line for line in lines
        )
    (row,) = [line for line in lines if line.startswith("latency on raspberry_pi5")]
    assert row.count("not calibrated") == 2
    assert "raspberry_pi5: cannot be compared" in lines
    (verdict,) = [line for line in lines if line.startswith("iphone12: ")]
    assert "efficientformerv2_s0 is faster (difference -" in verdict
    # The interval of the difference is the pair's own: narrower than those of both networks laid together.
    (found,) = json.loads(call(capsys, *pair, "--device", "iphone12", "--json"))["comparisons"]
    difference = found["latency"][0]["difference"]
    models = json.loads(call(capsys, "profile", *pair[1:], "--device", "iphone12", "--json"))["models"]
    widths = [m["predictions"][0]["high_s"] - m["predictions"][0]["low_s"] for m in models]
    assert difference["high_s"] - difference["low_s"] < sum(widths)
