"""The command line as a user meets it: its surface, its streams, its exit codes, and what it does not import."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitscope.cli import app, main
from vitscope.spec.kinds import KINDS, ROLES

S1 = "efficientformerv2_s1"
COMMANDS = {"profile", "compare", "measure", "calibrate", "pareto", "zoo", "export", "validate", "schema", "devices"}


def run(*arguments, **options):
    """vitscope in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vitscope", *map(str, arguments)], capture_output=True, text=True, **options
    )


def call(capsys, *arguments):
    """vitscope in this process: exit code, stdout, stderr."""
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _parameters(command):
    import typer

    group = typer.main.get_command(app)
    return {option for p in group.commands[command].params for option in (*p.opts, *p.secondary_opts)}


# The surface is frozen: growth is a decision, made by changing these literals.


def test_commands_are_frozen():
    import typer

    assert set(typer.main.get_command(app).commands) == COMMANDS


def test_flags_are_frozen():
    shared = {"--device", "--resolution", "--batch", "--set", "--form", "--kwargs", "--input", "--allow-plugins", "--json",
              "--csv", "--format", "-o", "--output", "--force", "models"}  # fmt: skip
    measuring = {
        "--target", "--precision", "--threads", "--affinity", "--cores", "--compute-units", "--processes", "--block",
        "--runner", "--python", "--ssh-option", "--option", "--team", "--bundle", "--profile",
    }  # fmt: skip
    assert _parameters("profile") == shared | measuring | {
        "--measure", "--roofline",
        "--by", "--convention", "--weights", "--measured", "--max-params", "--max-macs", "--max-latency", "--strict",
    }  # fmt: skip
    assert _parameters("compare") == shared | measuring | {"--measure"}
    assert _parameters("measure") == shared - {"--device"} | measuring | {
        "--runtime", "--by", "--weights", "--seed", "--together", "--append", "--again", "--dry-run",
        "--fail-on-fallback",
    }  # fmt: skip
    assert _parameters("calibrate") == {
        "--runtime", "-o", "--output", "--force", "--target", "--threads", "--budget", "--model", "--refine", "--precision",
        "--batch", "--affinity", "--cores", "--runner", "--python", "--ssh-option", "--option", "--again", "--seed",
    }  # fmt: skip
    assert _parameters("export") == shared - {"--device", "--csv", "--format"} | {
        "--to", "--precision", "--weights", "--check", "--no-check",
    }  # fmt: skip


def test_block_kinds_are_frozen():
    found = {role: {kind.kind for kind in KINDS if kind.role == role} for role in ROLES}
    assert found == {
        "stem": {"conv_stem", "mobileone_stem", "patch_embed", "patch_stem", "pool_stem"},
        "downsample": {
            "conv",
            "conv_norm",
            "dual_path",
            "large_kernel",
            "levit_downsample",
            "norm_conv",
            "patch_merging",
            "repvit_downsample",
        },
        "block": {
            "attention",
            "bottleneck",
            "convnext_block",
            "edgevit",
            "efficientvit",
            "fastvit_attention",
            "ffn",
            "fused_inverted_residual",
            "global_tokens",
            "inverted_residual",
            "levit",
            "lite_bottleneck",
            "mb3d",
            "mb4d",
            "mbconv",
            "mobile_former",
            "mobileone",
            "mobilevit",
            "mobilevitv2",
            "norm",
            "poolformer",
            "repmixer",
            "repvit",
            "sdta",
            "segformer",
            "segnext",
            "separable",
            "stride_attention",
            "swin",
            "transformer",
            "uib",
        },
        "head": {
            "classifier",
            "conv_classifier",
            "distilled_classifier",
            "efficientvit_classifier",
            "efficientvit_segmentation",
            "efficientvit_upscaler",
            "gated_conv_classifier",
            "light_ham",
            "mobile_former_classifier",
            "sam_neck",
            "segformer_head",
        },
    }


def test_json_keys_are_frozen(capsys):
    code, out, _ = call(capsys, "profile", S1, "--device", "iphone12", "--json")
    assert code == 0
    data = json.loads(out)
    assert set(data) == {"schema_version", "vitscope_version", "models"} and data["schema_version"] == 1
    (model,) = data["models"]
    assert set(model) == {
        "name", "source", "digest", "form", "input", "resolution", "batch", "convention", "totals", "is_partial",
        "unknown_ops", "rows", "predictions", "measurements", "mes", "reported", "note", "notes", "spec",
    }  # fmt: skip
    assert set(model["totals"]) == {
        "params", "macs", "activations", "read_bytes", "write_bytes", "peak_activation_bytes", "weights_bytes",
        "deploy_params",
    }  # fmt: skip
    assert {"device", "runtime", "latency_s", "low_s", "high_s", "coverage", "status"} <= set(model["predictions"][0])
    assert model["totals"]["macs"] == 651_969_640 and model["resolution"] == [224, 224]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], *[[c, "--help"] for c in sorted(COMMANDS)], ["--version"]])
def test_help_is_on_stdout_and_done(capsys, arguments):
    code, out, err = call(capsys, *arguments)
    assert code == 0 and out and not err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["validate", S1],
        ["schema"],
        ["pareto", "published", "--device", "iPhone 12"],
        ["profile", S1, "--device", "iphone12", "--by", "op"],
        ["compare", S1, S1, "--device", "iphone12"],
        ["devices"],
    ],
)
def test_no_torch_is_loaded(arguments, tmp_path):
    environment = os.environ | {"VITSCOPE_CACHE": str(tmp_path)}
    run("profile", S1, "--device", "iphone12", env=environment, check=True)  # makes the blocks known
    code = (
        "import sys; from vitscope.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ('torch' in sys.modules and 'torch was loaded'))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_saved_profile_is_compared_without_torch(tmp_path):
    environment = os.environ | {"VITSCOPE_CACHE": str(tmp_path)}
    for name in (S1, "mobilenetv2_100"):
        run("profile", name, "-o", tmp_path / f"{name}.json", "--form", "deploy", env=environment, check=True)
        run("profile", name, "--device", "iphone12", env=environment, check=True)
    code = "import sys; from vitscope.cli import main; c = main(sys.argv[1:]); sys.exit(c or 'torch' in sys.modules)"
    files = [str(tmp_path / f"{name}.json") for name in (S1, "mobilenetv2_100")]
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", *files], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert S1 in done.stdout and "mobilenetv2_100" in done.stdout


# Formats and files


def test_csv_parses_and_its_rows_add_up(capsys):
    code, out, _ = call(capsys, "profile", S1, "mobilenetv2_100", "--device", "iphone12", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    for model in (S1, "mobilenetv2_100"):
        mine = [row for row in rows if row["model"] == model]
        (total,) = [row for row in mine if row["part"] == "total"]
        assert sum(int(row["macs"]) for row in mine if row["level"] == "block") == int(total["macs"])
        assert float(total["latency_s_iphone12"]) > 0


def test_markdown_and_text_hold_the_totals(capsys):
    for form in ("md", "text"):
        code, out, _ = call(capsys, "profile", S1, "--format", form, "--by", "stage")
        assert code == 0 and "651,969,640 MACs" in out and "6,185,560 params" in out


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "txt"])
def test_the_suffix_chooses_the_format(capsys, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    code, out, err = call(capsys, "profile", S1, "-o", path)
    assert (code, out) == (0, "") and f"wrote {path}" in err
    text = path.read_text()
    assert json.loads(text) if suffix == "json" else "651" in text


def test_files_are_not_overwritten_unasked(capsys, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("precious")
    code, _, err = call(capsys, "profile", S1, "-o", path)
    assert code == 2 and "--force" in err and path.read_text() == "precious"
    assert call(capsys, "profile", S1, "-o", path, "--force")[0] == 0
    assert json.loads(path.read_text())["schema_version"] == 1
    assert os.listdir(tmp_path) == ["out.json"]  # nothing temporary is left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "nothing_like_it"], "no network of the zoo"),
        (["profile", "efficientformerv2_s11"], "did you mean 'efficientformerv2_s1'"),
        (["profile", "specs/none.yaml"], "no such file"),
        (["profile", S1, "--device", "iphone112"], "did you mean 'iphone12'"),
        (["profile", S1, "--resolution", "0"], "--resolution 0"),
        (["profile", S1, "--resolution", "224by224"], "expected a side in pixels"),
        (["profile", S1, "--batch", "0"], "--batch"),
        (["profile", S1, "--set", "stages.2.depth"], "expected KEY=VALUE"),
        (["profile", S1, "--json", "--csv"], "different formats"),
        (["profile", S1, "-o", "x.exe"], "cannot tell the format"),
        (["profile", S1, "-o", "/nonexistent/x.json"], "does not exist"),
        (["profile", S1, "-o", "/", "--json"], "is a directory"),
        (["profile", S1, "--max-params", "lots"], "--max-params"),
        (["profile", S1, "--max-latency", "1"], "time with its unit"),
        (["profile", S1, "--max-latency", "1ms"], "--device"),
        (["profile", S1, "--by", "layer"], "layer"),
        (["profile", S1, "--convention", "snap", "--by", "op"], "--by block"),
        (["profile"], "MODEL"),
        (["profile", S1, "--colour"], "--colour"),
        (["compare", S1], "two models"),
        (["compare", S1, "none.json"], "none.json"),
        (["nothing"], "nothing"),
        (["profile", S1, "--weights", "none.pth"], "none.pth"),
        (["profile", S1, "--measured", "iphone12"], "NAME=TIME"),
        (["profile", S1, "--measured", "iphone12=1.1"], "time with its unit"),
        (["profile", S1, "--measured", "iphone12=0ms"], "above zero"),
        (["profile", S1, "mobilenetv2_100", "--measured", "iphone12=1ms"], "one MODEL"),
        (["profile", S1, "mobilenetv2_100", "--weights", "x.pth"], "one MODEL"),
    ],
)
def test_mistakes_are_one_clear_message_and_exit_2(capsys, arguments, words):
    code, out, err = call(capsys, *arguments)
    assert code == 2 and words in err and not out
    assert "Traceback" not in err and "internal error" not in err


def test_a_saved_profile_must_be_one(capsys, tmp_path):
    for text, words in [
        ("[]", "not a saved profile"),
        ("{", "not JSON"),
        ('{"models": [], "schema_version": 9}', "schema_version 9"),
    ]:
        path = tmp_path / "p.json"
        path.write_text(text)
        code, _, err = call(capsys, "compare", path, S1)
        assert code == 2 and words in err


# Gates


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (["--max-params", "7M"], 0),
        (["--max-params", "6M"], 1),
        (["--max-macs", "0.7G"], 0),
        (["--max-macs", "600M"], 1),
        (["--max-latency", "100ms"], 0),
        (["--max-latency", "0.1ms"], 1),
        (["--strict"], 0),
    ],
)
def test_budgets(capsys, gate, code):
    given, out, err = call(capsys, "profile", S1, "--device", "iphone12", *gate)
    assert given == code and "651,969,640 MACs" in out
    assert (gate[0] in err) == bool(code)


def test_a_measured_latency_is_scored_and_named(capsys):
    code, out, _ = call(capsys, "profile", S1, "--measured", "iphone12=1.1ms", "--measured", "pixel6=9ms")
    assert code == 0
    assert "MES 63.3 from measured latency on iphone12" in out  # (6.19/3)^-0.5 · 1.1^-1
    assert "from measured latency on pixel6" in out and "unit is not the paper's" in out


def test_a_latency_that_is_not_predicted_fails_its_budget(capsys):
    code, _, err = call(capsys, "profile", S1, "--device", "iphone12", "--batch", "8", "--max-latency", "100ms")
    assert code == 1 and "cannot be shown to hold" in err
    assert call(capsys, "profile", S1, "--device", "iphone12", "--batch", "8", "--strict")[0] == 1


# Processes


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m vitscope profile {S1} --by op | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert S1 in done.stdout


def test_ctrl_c_exits_130_in_one_line():
    process = subprocess.Popen(
        [sys.executable, "-m", "vitscope", "pareto", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # a background shell ignores it
    )  # fmt: skip
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write("model,latency_ms,top1\n" * 100_000)  # more than a pipe holds: it has begun to read
    process.stdin.flush()
    while process.poll() is None:  # one that comes between two reads is only seen at the next
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
    assert process.returncode == 130
    assert process.stderr.read().strip() == "interrupted"


def test_debug_shows_the_traceback_and_nothing_else_does():
    assert "Traceback" not in run("profile", "nothing_like_it").stderr
    done = run("profile", "nothing_like_it", "--debug")
    assert "Traceback" in done.stderr and done.returncode != 0


def test_a_terminal_gets_colour_unless_it_says_no(monkeypatch):
    import pty

    def typed(environment):
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "vitscope", "profile", S1, "--by", "stage"],
            stdout=follower, env=os.environ | environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(follower)
        text = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:
                break
            if not chunk:
                break
            text += chunk
        process.wait()
        return text.decode()

    coloured = typed({"TERM": "xterm-256color", "COLUMNS": "140"})
    assert "\x1b[" in coloured and "stages.3" in coloured
    bare = typed({"TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "140"})
    assert "\x1b[3" not in bare and "stages.3" in bare


def test_python_dash_m_works():
    assert run("--version").stdout.startswith("vitscope ")


SHOWN = {
    "demo": ("profile", "specs/efficientformerv2_s1.yaml", "--device", "iphone12", "--by", "stage"),
    "compare": ("compare", S1, "--set", "stages.2.width=112", "--device", "iphone12"),
    "mistakes": ("validate", "my_net.yaml"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_readme_shows_what_the_command_prints(name, tmp_path):
    root = Path(__file__).parent.parent
    shown = (root / "README.md").read_text().split(f"<!-- {name} -->")[1].split("```")[1].split("\n", 1)[1]
    (tmp_path / "my_net.yaml").write_text(
        "extends: efficientformerv2_s1\nstages:\n  0: {expanson: 3}\n  1: {act: gelo}\n"
    )
    done = run(*SHOWN[name], cwd=tmp_path if name == "mistakes" else root)
    assert shown == done.stdout + done.stderr
