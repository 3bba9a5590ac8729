"""vitscope devices: the list, one device whole as text and JSON, and refusals with their exit codes."""

from __future__ import annotations

import json

import pytest

from vitscope.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["devices", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_list_names_every_device_with_its_error(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys)
    assert code == 0
    assert "iphone12" in out and "mean error held out" in out


def test_show_prints_facts_with_sources_coefficients_limits_and_error(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "show", "iphone12")
    assert code == 0
    for text in ("source", "LPDDR4X", "GB/s", "hard activation", "out of range", "held out", "80% interval"):
        assert text in out


def test_a_device_without_a_fit_is_listed_and_shown_as_roofline_only(capsys: pytest.CaptureFixture[str]):
    _, out, _ = run(capsys)
    assert next(line for line in out.splitlines() if line.startswith("h200")).count("roofline only") == 1
    code, out, _ = run(capsys, "show", "h200")
    assert code == 0
    assert "roofline only, no latency but a lower bound" in out and "unconfirmed: L2 cache" in out


def test_show_as_json_is_the_whole_record(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "show", "iphone12", "--json")
    record = json.loads(out)
    assert (code, record["schema_version"]) == (0, 1)
    device = record["device"]
    assert device["fusion"] == "coreml" and device["coefficients"]["floor_s"] > 0
    assert {fact["key"] for fact in device["facts"]} >= {"peak_macs_per_s", "memory_bytes_per_s"}


def test_show_as_markdown(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "show", "iphone12", "--format", "md")
    assert code == 0 and "|---" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "iphone112"), 2, "did you mean 'iphone12'"),
        (("check", "iphone112"), 2, "did you mean 'iphone12'"),
        (("check", "h200"), 3, "roofline only, there is no fit to repeat"),
        (("show", "nothing.yaml"), 2, "no such device file"),
        (("show", "iphone12", "--format", "csv"), 2, "use --format text, md or json"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str):
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in err and "Traceback" not in err
