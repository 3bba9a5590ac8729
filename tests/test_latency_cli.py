"""vitscope devices: the list, one device whole as text and JSON, and refusals with their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

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
        (("check", "iphone12", "--plot", "out.svgg"), 2, "--plot out.svgg: cannot tell the format from the suffix"),
        (("check", "iphone12", "--plot", "nowhere/out.svg"), 2, "the folder nowhere does not exist"),
        (("show", "nothing.yaml"), 2, "no such device file"),
        (("show", "iphone12", "--format", "csv"), 2, "use --format text, md or json"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str):
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in err and "Traceback" not in err


def test_check_draws_the_networks_that_it_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    files = [tmp_path / "fit.svg", tmp_path / "fit.png"]
    arguments = ["check", "iphone14"]
    for file in files:
        arguments += ["--plot", str(file)]
    code, out, err = run(capsys, *arguments)
    assert code == 0 and all(f"wrote {file}" in err for file in files) and files[1].read_bytes().startswith(b"\x89PNG")
    content = files[0].read_text(encoding="utf-8")
    assert "<!-- iphone14: predicted against measured latency -->" in content
    rows = [line.split() for line in out.splitlines() if line.endswith("%") and " ms" in line]
    errors = [abs(float(row[-1].rstrip("%"))) for row in rows]
    within = 100 * sum(error <= 10 for error in errors) / len(rows)
    headline = f"{len(rows)} networks of {len({row[2] for row in rows})} families: MAPE {sum(errors) / len(rows):.1f}%"
    assert f"<!-- {headline}, {within:.0f}% within ±10% (each family held out) -->" in content
    outside = [row[0] for row in rows if abs(float(row[-1].rstrip("%"))) > 10]
    assert outside and all(f"<!-- {name} " in content for name in outside)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and "already exists, will not overwrite without --force" in err
