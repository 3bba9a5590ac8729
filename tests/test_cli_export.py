"""`vitscope export`: files that are whole or not there, a row for each, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitscope.cli import main

TINY = "torch.nn:Conv2d"
CONV = ("--kwargs", "in_channels=3,out_channels=4,kernel_size=3", "--input", "3,16,16")


def call(capsys, *arguments):
    code = main(["export", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_table_a_file_and_what_pytorch_says(capsys, tmp_path):
    code, out, err = call(capsys, TINY, *CONV, "--to", "onnx", "--to", "torch", "-o", tmp_path / "made")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "torch.nn_Conv2d_fp32.onnx", "torch.nn_Conv2d_fp32.pt2",
    ]  # fmt: skip
    header, _, onnx_row, torch_row = out.splitlines()[:4]
    assert header.split() == ["model", "format", "precision", "file", "size", "weights", "agreement", "with", "PyTorch"]
    assert "torch.nn_Conv2d_fp32.onnx" in onnx_row and " onnxruntime; " in onnx_row and "openvino" in onnx_row
    assert " as built" in torch_row and torch_row.endswith(" torch")
    assert not err


def test_json_has_raw_numbers(capsys, tmp_path):
    code, out, _ = call(capsys, TINY, *CONV, "--to", "onnx", "--batch", 2, "--json", "-o", tmp_path)
    assert code == 0
    data = json.loads(out)
    assert set(data) == {"schema_version", "vitscope_version", "exports"}
    (row,) = data["exports"]
    assert set(row) == {
        "model", "format", "precision", "file", "bytes", "digest", "form", "input_shape", "weights", "tools", "notes",
        "agreements", "error",
    }  # fmt: skip
    assert row["input_shape"] == [2, 3, 16, 16] and row["form"] == "deploy" and row["error"] is None
    assert row["bytes"] == os.path.getsize(row["file"]) and row["file"].endswith("_b2_fp32.onnx")
    assert [one["runtime"] for one in row["agreements"]] == ["onnxruntime", "openvino"]
    assert all(one["holds"] is True and one["relative_error"] < 1e-4 for one in row["agreements"])


def test_a_spec_with_a_setting_in_train_form(capsys, tmp_path):
    code, out, err = call(
        capsys, "mobileone_s0", "--set", "stages.2.depth=1", "--resolution", 64, "--form", "train", "--no-check",
        "--to", "torch", "-o", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    (made,) = tmp_path.iterdir()
    assert made.name == "mobileone_s0_stages.2.depth=1_64x64_train_fp32.pt2"
    assert "not checked" in out and "random, seed 0" in out


def test_existing_files_need_force_and_are_left_alone(capsys, tmp_path):
    target = tmp_path / "x.onnx"
    target.write_text("mine")
    code, out, err = call(capsys, TINY, *CONV, "--to", "onnx", "-o", target)
    assert code == 2 and not out and err == f"{target}: already exists, will not overwrite without --force\n"
    assert target.read_text() == "mine"
    code, _, err = call(capsys, TINY, *CONV, "--to", "onnx", "-o", target, "--force")
    assert code == 0, err
    assert target.stat().st_size > 500 and [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


def test_a_refused_network_is_a_row_and_others_are_written(capsys, tmp_path, monkeypatch):
    (tmp_path / "branching.py").write_text(
        "import torch\n"
        "class Branch(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.sum() > 0 else -x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = call(capsys, "branching:Branch", "--input", "3,8,8", "--to", "torch,onnx", "-o", tmp_path / "a")
    assert code == 1 and out.count("torch.export cannot follow it") == 2
    assert err.count("\n") == 2 and all(line.startswith(("torch: ", "onnx: ")) for line in err.splitlines())
    assert not list((tmp_path / "a").iterdir())
    code, out, _ = call(capsys, TINY, *CONV, "--to", "torch", "-o", tmp_path / "a", "--json")
    assert code == 0 and len(list((tmp_path / "a").iterdir())) == 1


def test_a_refused_format_does_not_stop_the_others(capsys, tmp_path, monkeypatch):
    (tmp_path / "bessel.py").write_text(
        "import torch\n"
        "class Bessel(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.special.bessel_j0(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "made"
    code, out, err = call(capsys, "bessel:Bessel", "--input", "3,8,8", "--to", "onnx,torch", "-o", folder, "--json")
    assert code == 1 and "has no ONNX form" in err
    first, second = json.loads(out)["exports"]
    assert first["file"] is None and "has no ONNX form" in first["error"] and first["bytes"] is None
    assert second["error"] is None and [path.suffix for path in folder.iterdir()] == [".pt2"]


def test_missing_tools_are_exit_3_with_the_cure(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    code, out, err = call(capsys, TINY, *CONV, "--to", "onnx,torch", "-o", tmp_path)
    assert code == 3 and 'pip install "vitscope[onnx]"' in err and err.count("\n") == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt2"] and "cannot be written" in out


def test_a_missing_runtime_leaves_the_check_open(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    code, out, err = call(capsys, TINY, *CONV, "--to", "onnx", "-o", tmp_path)
    assert code == 0 and not err
    assert " onnxruntime; not checked: openvino is not installed" in out


def test_a_file_that_computes_something_else_is_exit_1(capsys, tmp_path, monkeypatch):
    """The module is changed behind the exporter's back, which is what a wrong converter looks like."""
    (tmp_path / "lying.py").write_text(
        "import torch\n"
        "class Lying(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * (1.01 if torch.compiler.is_exporting() else 1.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, out, _ = call(capsys, "lying:Lying", "--input", "3,8,8", "--to", "onnx", "-o", tmp_path / "x.onnx")
    assert code == 1 and out.count("ABOVE 1e-04") == 2 and "1.0e-02 onnxruntime" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "onxx"), "--to onxx: no such format — did you mean 'onnx'?; formats: coreml, onnx, "),
        (("--to", ","), "--to: no format given; formats: coreml"),
        (("--to", "torch", "--precision", "int8"), "--precision int8: torch.export program is written in fp32, fp16"),
        (("--to", "onnx", "-o", "-"), "-o -: an exported file does not go to stdout"),
        (("--to", "onnx,torch", "-o", "x.onnx"), "-o x.onnx: 2 files are asked for; name a folder"),
        (("--to", "onnx", "-o", "x.pt2"), "-o x.pt2: a file of onnx ends in .onnx"),
        (("--to", "onnx", "-o", "none/here"), "-o none/here: the folder none does not exist"),
        (("--to", "onnx", "-o", "none/x.onnx"), "none/x.onnx: the folder none does not exist"),
        (("--to", "onnx", "-o", "file"), "-o file: is a file, expected a folder or one of .onnx"),
        (("--to", "onnx", "--resolution", "0"), "--resolution 0: expected a side in pixels"),
        (("--to", "onnx", TINY), "the same model twice"),
        (("--to", "onnx", "--set", "a=1"), "--set a=1: torch.nn:Conv2d is no spec"),
        (("--to", "onnx", "--weights", "w.pt"), "--weights: torch.nn:Conv2d is no spec"),
    ],
)
def test_usage_errors_are_one_line_before_any_work(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    code, out, err = call(capsys, TINY, *CONV, *arguments)
    assert code == 2 and not out and err.count("\n") == 1, err
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_spec_that_is_wrong_and_a_file_that_is_exported_already(capsys, tmp_path):
    code, _, err = call(capsys, "efficientformerv2_s9", "--to", "torch", "-o", tmp_path)
    assert code == 2 and "efficientformerv2_s" in err
    (tmp_path / "x.onnx").write_bytes(b"")
    code, _, err = call(capsys, tmp_path / "x.onnx", "--to", "torch", "-o", tmp_path)
    assert code == 2 and "is an exported file already" in err


def _vitscope(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "vitscope", "export", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """A limit on the size of files, since a real full disk needs root: writing fails part of the way in both cases."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from vitscope.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    big = ("--kwargs", "in_channels=3,out_channels=4000,kernel_size=3", "--input", "3,4,4")
    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, "export", TINY, *big, "--to", "onnx", "-o", folder],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and not list(folder.iterdir())


def test_an_unwritable_folder(capsys, tmp_path):
    if os.geteuid() == 0:
        path = Path("/proc/x.pt2")  # where not even root writes
        code, _, err = call(capsys, TINY, *CONV, "--to", "torch", "-o", path)
    else:
        tmp_path.chmod(0o500)
        code, _, err = call(capsys, TINY, *CONV, "--to", "torch", "-o", tmp_path)
        tmp_path.chmod(0o700)
    assert code == 2 and "cannot write" in err and err.count("\n") == 1


def test_an_interrupt_leaves_no_half_file(tmp_path):
    process = _vitscope("efficientformerv2_s0", "--resolution", 64, "--to", "onnx", "-o", tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path.name.startswith(".vitscope-") for path in tmp_path.iterdir()] == [True], "it works aside"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err.strip().splitlines()[-1] == "interrupted", err
    assert not list(tmp_path.iterdir())


def test_nothing_but_the_result_is_on_stdout(tmp_path):
    process = _vitscope(TINY, *CONV, "--to", "onnx,torch", "--precision", "fp16", "--json", "-o", tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0 and not err, err
    assert [row["precision"] for row in json.loads(out)["exports"]] == ["fp16", "fp16"]
