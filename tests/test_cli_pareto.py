"""`vitscope pareto` as typed: what goes to stdout and to stderr, what it writes, and each refusal."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from vitscope.cli.pareto import pareto
from vitscope.errors import UsageError
from vitscope.spec.value import Figure, Reported

app = typer.Typer()
app.command()(pareto)

ROWS = """model,family,latency_ms,top1,params_m,device
a,F,1,70,3,iPhone 12
b,F,2,75,6.1,iPhone 12
c,G,2,74,9,Pixel 6
d,G,3,,2,Pixel 6
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.csv").write_text(ROWS)
    return tmp_path


def run(*arguments: str, stdin: str | bytes | None = None):
    return CliRunner().invoke(app, [*arguments], input=stdin, catch_exceptions=True)


def done(*arguments: str, stdin: str | None = None):
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.exception
    return result


def refused(*arguments: str, stdin: str | bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert isinstance(result.exception, UsageError), (result.exception, result.output)
    assert result.stdout == ""
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_the_table_says_who_dominates_whom_and_who_was_left_out(results):
    out = done("results.csv").stdout
    assert out.splitlines()[0] == "Latency against ImageNet top-1 accuracy: 2 of 3 on the front"
    assert "c" in out and out.count("front") == 3
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["c"].endswith("dominated  b")
    assert lines["d"].endswith("left out   (no top1)")
    assert "1 of 4 rows left out, each with its reason" in out
    assert "2 devices" in out


def test_json_is_raw_numbers_in_base_units(results):
    document = json.loads(done("results.csv", "--json", "--device", "iphone12").stdout)
    assert set(document) == {
        "schema_version",
        "x",
        "y",
        "size",
        "also",
        "device",
        "points",
        "predicted",
        "left_out",
        "notes",
    }
    assert document["schema_version"] == 1
    assert document["device"] == "iPhone 12"
    assert document["x"] == {"key": "latency_s", "columns": ["latency_ms"], "unit": "s", "better": "low"}
    assert document["points"][1] == {
        "label": "b", "family": "F", "latency_s": 0.002, "top1": 75.0, "params": 6100000,
        "on_front": True, "dominated_by": None, "source": "results.csv:3",
    }  # fmt: skip


def test_csv_parses_and_keeps_its_notes_on_stderr(results):
    result = done("results.csv", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["state"] for row in rows] == ["front", "dominated", "front", "left out: no top1"]
    assert rows[1]["dominated_by"] == "b"
    assert rows[3]["latency_s"] == ""
    assert "rows left out" in result.stderr


def test_markdown(results):
    assert "| a | F | 1.00 ms | 70.0 | 3.00M | front |  |" in done("results.csv", "--format", "md").stdout


def test_stdin_and_the_aliases_of_columns(results):
    out = done("-", "--x", "latency", "--y", "top1", "--size", "params", "--json", stdin=ROWS).stdout
    assert json.loads(out)["points"][0]["source"] == "<stdin>:2"


def test_figures_and_tables_by_suffix(results):
    result = done(
        "results.csv", *[arg for s in ("svg", "png", "pdf", "csv", "json", "md", "txt") for arg in ("-o", f"f.{s}")]
    )
    assert (results / "f.svg").read_text().startswith("<?xml")
    assert (results / "f.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "f.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((results / "f.json").read_text())["schema_version"] == 1
    assert (results / "f.txt").read_text() == result.stdout
    assert result.stderr.splitlines() == [f"wrote f.{s}" for s in ("svg", "png", "pdf", "csv", "json", "md", "txt")]
    assert not [path for path in results.iterdir() if path.name.startswith(".")]


def test_an_existing_figure_needs_force(results):
    (results / "f.svg").write_text("mine")
    assert refused("results.csv", "-o", "f.svg") == "f.svg: already exists, will not overwrite without --force"
    assert (results / "f.svg").read_text() == "mine"
    done("results.csv", "-o", "f.svg", "--force")
    assert (results / "f.svg").read_text() != "mine"


def test_one_row_is_a_front(results):
    (results / "one.csv").write_text("model,latency_ms,top1\nonly,1,70\n")
    assert "1 of 1 on the front" in done("one.csv", "-o", "one.svg").stdout


def test_several_files_are_one_table(results):
    (results / "mine.csv").write_text("name,latency_s,top1,params,device\nmine,0.0005,80,1000000,iphone12\n")
    points = json.loads(done("results.csv", "mine.csv", "--device", "iphone12", "--json").stdout)["points"]
    assert [p["dominated_by"] for p in points] == [None, "mine", "mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["."], ".: is a directory, expected a CSV file"),
        (["empty.csv"], "empty.csv: is empty"),
        (["binary.csv"], "binary.csv: not UTF-8 text"),
        (["text.csv"], "text.csv:3: latency_ms is 'fast', expected a number"),
        (["ragged.csv"], "ragged.csv:3: 2 cells, but the heading names 3 columns"),
        (["bare.csv"], "bare.csv: no column to take for --y"),
        (["nothing.csv"], "no row has both latency_ms and top1 (2 rows: 1 no latency_s, 1 no top1)"),
        (["results.csv", "--x", "latncy_ms"], "no such column — did you mean 'latency_ms'?; columns: model, family,"),
        (["results.csv", "--size", "parms_m"], "results.csv: --size 'parms_m': no such column — did you mean 'params_m'?"),
        (["results.csv", "--family", "kin"], "results.csv: --family 'kin': no such column"),
        (["results.csv", "--label", "nme"], "results.csv: --label 'nme': no such column"),
        (["results.csv", "--y", "model"], "--y 'model': cannot know whether low or high is better: say --y-direction min"),
        (["results.csv", "--y", "model", "--y-direction", "max"], "results.csv:2: model is 'a', expected a number"),
        (["results.csv", "--also", "model"], "say --also model:min or --also model:max"),
        (["results.csv", "--device", "iphone 13"], "did you mean 'iPhone 12'"),
        (["results.csv", "--where", "family"], "--where 'family': expected COLUMN=VALUE"),
        (["results.csv", "-o", "f.gif"], "-o f.gif: cannot tell the format from the suffix"),
        (["results.csv", "-o", "f"], "a figure is .svg, .png, .pdf, a table .csv, .json, .md, .txt"),
        (["results.csv", "-o", "-"], "-o -: cannot tell the format"),
        (["results.csv", "-o", "nowhere/f.svg"], "the folder nowhere does not exist"),
        (["results.csv", "-o", "f.svg", "-o", "f.svg"], "-o: the same file twice"),
        (["results.csv", "--json", "--csv"], "choose one"),
        (["results.csv", "--json", "--format", "md"], "choose one"),
        (["-", "-"], "standard input can be read once only"),
        (["results.csv", "--add-y", "m=1"], "there is no prototype without --add MODEL"),
        (["results.csv", "--add", "m"], "Name the predictor with --device"),
        (["results.csv", "--device", "iphone12", "--device", "pixel6"], "--device pixel6: a front is of one device"),
        (["zero.csv", "--log-x", "-o", "f.svg"], "--log-x: z has latency_s of zero or less"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(results, arguments, message):
    files = {
        "empty.csv": b"",
        "binary.csv": b"\x89PNG\xff\xfe",
        "text.csv": b"model,latency_ms,top1\na,1,70\nb,fast,71\n",
        "ragged.csv": b"model,latency_ms,top1\na,1,70\nb,2\n",
        "bare.csv": b"model,latency_ms\na,1\n",
        "nothing.csv": b"model,latency_ms,top1\na,1,\nb,,70\n",
        "zero.csv": b"model,latency_ms,top1\nz,0,70\n",
    }
    for name, content in files.items():
        (results / name).write_bytes(content)
    assert message in refused(*arguments)
    assert not (results / "f.svg").exists()


def profile_of(latency_s, top1):
    def profile(model, *, devices=(), by="block"):
        status = "ok" if latency_s else "not calibrated"
        prediction = SimpleNamespace(
            device=devices[0],
            latency_s=latency_s,
            low_s=0.0014,
            high_s=0.0016,
            status=status,
            reason="",
            coverage=0.97,
            interval=0.8,
        )
        reported = Reported(source="the paper", top1=Figure(top1, str(top1)) if top1 else None)
        totals = SimpleNamespace(params=4_000_000, macs=10**9)
        return SimpleNamespace(name=model, totals=totals, predictions=(prediction,), reported=reported)

    return profile


@pytest.mark.parametrize(
    ("latency_s", "top1", "extra", "expected"),
    [
        (
            0.0015,
            72.0,
            [],
            "mine: predicted 1.50 ms (80% interval 1.40 ms to 1.60 ms, covers 97% of the work) on iphone12, "
            "on the front over its whole interval",
        ),
        (0.0015, None, [], "on the front with ImageNet top-1 accuracy above 70.0 (a)"),
        (0.0015, None, ["--add-y", "mine=65"], "dominated over its whole interval"),
        (None, 72.0, [], "left out  (no latency_s on iphone12: not calibrated)"),
    ],
)
def test_a_prototype_among_published_models(results, monkeypatch, latency_s, top1, extra, expected):
    monkeypatch.setattr("vitscope.profile.profile", profile_of(latency_s, top1))
    result = done("results.csv", "--add", "mine", "--device", "iphone12", *extra, "-o", "f.svg")
    assert expected in result.stdout
    assert "mine (predicted)" in result.stdout
    assert ("<!-- mine (predicted) -->" in (results / "f.svg").read_text()) == (latency_s is not None)


def test_a_network_of_the_zoo_as_prototype(results):
    document = json.loads(done("results.csv", "--add", "efficientformerv2_s1", "--device", "iphone12", "--json").stdout)
    (mine,) = document["predicted"]
    assert (mine["label"], mine["params"], mine["top1"]) == ("efficientformerv2_s1", 6185560, 79.0)
    assert 0 < mine["low"] <= mine["latency_s"] <= mine["high"]


def test_a_device_that_nobody_predicts_for_may_choose_the_rows_of_exact_costs():
    chosen = ("--device", "NVIDIA A100", "--where", "dataset=ADE20K", "--x", "params", "--y", "miou")
    document = json.loads(done("published", *chosen, "--add", "efficientformerv2_s0", "--json").stdout)
    (mine,) = document["predicted"]
    assert (document["device"], mine["device"], mine["verdict"]) == ("NVIDIA A100", None, "no accuracy")
    assert "unknown device 'NVIDIA A100'" in refused(
        *chosen[:2], "published", "--x", "latency", "--y", "top1", "--add", "x"
    )


def test_no_torch_is_loaded(results):
    code = (
        "import sys, typer; from vitscope.cli.pareto import pareto; app = typer.Typer(); app.command()(pareto)\n"
        "app(['results.csv', '-o', 'f.svg'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
