"""Exported files as MODEL: read by their format's tool, measured as they are on real runtimes, refused in one line."""

from __future__ import annotations

import csv
import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import require_package
from test_target_adb import adb_server, phone, real_adb, runner  # noqa: F401  (fixtures)
from test_target_ssh import server  # noqa: F401  (a fixture)

from vitscope.cli import main
from vitscope.errors import UsageError
from vitscope.export import export
from vitscope.export.opened import FileOp, format_of, opened, told_by
from vitscope.export.opened.litert import module_path
from vitscope.subject import load_subject

SHORT = ("--processes", "1", "--block", "5ms")
SPEC = """
name: tiny
input: [3, 32, 32]
act: relu
stem: {block: conv_stem, width: 8}
stages:
  - {depth: 2, width: 8, block: inverted_residual, expansion: 2}
head: {block: classifier, classes: 10}
"""
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "executorch": ".pte", "torch": ".pt2", "coreml": ".mlpackage"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network in every format, under names that tell nothing of it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "tiny.yaml").write_text(SPEC)
    subject = load_subject(str(folder / "tiny.yaml"))
    for format, suffix in SUFFIXES.items():
        require_package({"litert": "litert_torch", "coreml": "coremltools"}.get(format, format))
        export(subject, format, folder / f"net{suffix}", "fp16" if format == "coreml" else "fp32")
    return folder


def call(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def onnx_file(path: Path, *inputs: tuple, dtype: str = "FLOAT", layout: str = "nchw") -> Path:
    """An ONNX file that convolves its first input, whatever else it takes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    given = [
        helper.make_tensor_value_info(f"in{n}", getattr(TensorProto, dtype), shape) for n, shape in enumerate(inputs)
    ]
    nodes, name = [], "in0"
    if dtype == "UINT8":
        nodes.append(helper.make_node("Cast", [name], ["real"], "real", to=TensorProto.FLOAT))
        name = "real"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [name], ["turned"], "turn", perm=[0, 3, 1, 2]))
        name = "turned"
    nodes.append(helper.make_node("Conv", [name, "w"], ["out"], "conv", pads=[1] * 4))
    result = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph(nodes, "g", given, [result], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tflite_with_two_inputs(source: Path, path: Path) -> Path:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    graph: Any = model.subgraphs[0]
    graph.inputs = [*graph.inputs, graph.operators[0].outputs[0]]
    model.signatureDefs = []
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


# What is read


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_file_tells_its_input_its_precision_and_its_blocks(files, format):
    found = opened(str(files / f"net{SUFFIXES[format]}"))
    assert found.format == format and found.form == "exported" and found.input_shape == (1, 3, 32, 32)
    assert found.precision == ("fp16" if format == "coreml" else "fp32")
    if format in ("onnx", "litert", "torch"):
        assert found.blocks == ("stem", "stages.0.blocks.0", "stages.0.blocks.1", "head")
        assert {"stem.conv1.conv", "stages.0.blocks.1.project.conv"} <= set(found.scopes.values())
    assert found.digest == opened(str(files / f"net{SUFFIXES[format]}")).digest
    assert len({opened(str(files / f"net{suffix}")).digest for suffix in SUFFIXES.values()}) == len(SUFFIXES)


@pytest.mark.parametrize("format", ["onnx", "litert", "executorch"])
def test_int8_is_told_by_the_weights(files, tmp_path, format):
    path = tmp_path / f"net{SUFFIXES[format]}"
    export(load_subject(str(files / "tiny.yaml")), format, path, "int8")
    assert opened(str(path)).precision == "int8"


def test_open_sides_are_those_asked_for_and_channels_may_come_last(tmp_path):
    path = str(onnx_file(tmp_path / "open.onnx", ("n", 3, "h", "w")))
    assert opened(path, resolution=(48, 64), batch=2).input_shape == (2, 3, 48, 64)
    assert opened(path, input_size=(3, 8, 8)).input_shape == (1, 3, 8, 8)
    with pytest.raises(UsageError, match=r"in0 is \?×3×\?×\?: say which with --resolution"):
        opened(path)
    with pytest.raises(UsageError, match="export it at one size"):
        opened(path, resolution=(48, 64), target="adb:X")
    last = str(onnx_file(tmp_path / "last.onnx", (1, 40, 48, 3), layout="nhwc"))
    assert opened(last).input_shape == (1, 3, 40, 48)
    assert opened(str(onnx_file(tmp_path / "all.onnx", (4, 3, 8, 8)))).input_shape == (4, 3, 8, 8)


def test_names_lead_to_blocks_whoever_wrote_them():
    assert module_path("stages.0.conv;1") == "stages.0.conv"
    torch_names = "__main__.Net/torch.nn.modules.container.Sequential_blocks/__main__.Blk_0/torch.nn.Conv2d_conv;1"
    assert module_path(torch_names) == "blocks.0.conv" and module_path("__main__.Net;1") == ""
    assert module_path("net/block_1/expand/Relu6;net/block_1/bn") == "net.block_1.expand"
    assert module_path("Identity") is None

    def blocks(*scopes):
        return told_by([FileOp((f"op{n}",), scope) for n, scope in enumerate(scopes)])

    assert blocks("net.block_1.expand", "net.block_1.project", "net.block_2.expand")[1] == (
        "net.block_1",
        "net.block_2",
    )
    assert blocks("s.0.downsample.conv", "s.0.blocks.0.a", "s.0.blocks.1.a")[1] == (
        "s.0.downsample", "s.0.blocks.0", "s.0.blocks.1",
    )  # fmt: skip
    assert blocks("one.conv", "one.act")[1] == ("one.conv", "one.act")
    titles, told = blocks(None, None)
    assert titles == {"op0": "op0", "op1": "op1"} and told == ("op0", "op1")  # operations by their own names
    assert blocks() == ({}, ())
    assert format_of("a/net.TFLITE") == "litert" and format_of("net.mlpackage/") == "coreml" and not format_of("s.yaml")


# What is measured


def test_each_file_runs_on_the_runtimes_of_its_format(files, capsys):
    names = [files / f"net{SUFFIXES[format]}" for format in ("onnx", "litert", "executorch", "torch")]
    runtimes = "onnxruntime,openvino,litert,executorch,torch"
    code, out, err = call(capsys, "measure", *names, "--runtime", runtimes, *SHORT, "--by", "block", "--json")
    assert code == 0, err
    rows = json.loads(out)["measurements"]
    assert [(Path(m["condition"]["model"]).suffix, m["condition"]["runtime"]) for m in rows] == [
        (".onnx", "onnxruntime"), (".onnx", "openvino"), (".tflite", "litert"), (".pte", "executorch"), (".pt2", "torch"),
    ]  # fmt: skip
    for m in rows:
        at = m["condition"]
        assert at["form"] == "exported" and at["digest"] == opened(at["model"]).digest
        assert at["artifact_bytes"] == Path(at["model"]).stat().st_size and at["input_shape"] == [1, 3, 32, 32]
        if at["runtime"] != "executorch":
            parts = {part["path"]: part["share"] for part in m["attribution"]["blocks"]}
            assert {"stem", "stages.0.blocks.0", "head"} <= set(parts) and parts.get(None, 0) < 0.5


def test_a_row_is_kept_until_the_file_is_another(files, capsys, tmp_path):
    import onnx

    file, results = tmp_path / "net.onnx", tmp_path / "r.csv"
    file.write_bytes((files / "net.onnx").read_bytes())
    command = ("measure", file, "--runtime", "onnxruntime", *SHORT, "--append", results)
    assert "1 row added" in call(capsys, *command)[2]
    code, out, err = call(capsys, *command)
    assert code == 0 and "1 row kept" in err and "net.onnx" in out
    model = onnx.load(file)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, file)
    assert "1 row added" in call(capsys, *command)[2]
    with open(results, newline="") as table:
        rows = list(csv.DictReader(table))
    assert len({row["digest"] for row in rows}) == 2 and {row["form"] for row in rows} == {"exported"}
    assert all(int(row["params"]) > 0 and int(row["macs"]) > 0 for row in rows)


def test_sizes_of_an_open_file_bytes_in_and_channels_last(capsys, tmp_path):
    path = onnx_file(tmp_path / "open.onnx", ("n", "h", "w", 3), dtype="UINT8", layout="nhwc")
    flags = ("--resolution", "16,8x24", "--batch", "2", "--runtime", "onnxruntime,openvino", *SHORT, "--csv")
    code, out, err = call(capsys, "measure", path, *flags)
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 0, err + out
    assert [(row["input"], row["batch"]) for row in rows] == [("3x16x16", "2")] * 2 + [("3x8x24", "2")] * 2


def test_a_file_of_torchs_own_exporter_with_weights_beside_it(capsys, tmp_path):
    import torch
    from torch import nn

    require_package("onnxscript")
    module = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())
    path = tmp_path / "own.onnx"
    torch.onnx.export(
        module.eval(), (torch.randn(1, 3, 64, 64),), str(path), dynamo=True, verbose=False, external_data=True
    )
    flags = ("--runtime", "onnxruntime", *SHORT, "--by", "block", "--json")
    capsys.readouterr()
    code, out, err = call(capsys, "measure", path, *flags)
    assert code == 0, err
    (m,) = json.loads(out)["measurements"]
    shares = {part["path"]: part["share"] for part in m["attribution"]["blocks"]}
    assert shares.get(None, 0.0) < 0.5, shares  # ONNX Runtime calls them after names of the file, with words of its own
    code, out, err = call(capsys, "measure", path, "--target", "ssh:nobody@127.0.0.1", "--runtime", "onnxruntime")
    assert code == 2 and "keeps weights in own.onnx.data" in err
    before = opened(str(path)).digest
    beside = tmp_path / "own.onnx.data"
    content = bytearray(beside.read_bytes())
    content[0] ^= 1
    beside.write_bytes(content)
    os.utime(path, (1, 1))
    assert opened(str(path)).digest != before
    beside.unlink()
    os.utime(path, (2, 2))
    code, out, err = call(capsys, "measure", path)
    assert code == 2 and "not beside it" in err and len(err.splitlines()) == 1


# What is refused


@pytest.mark.parametrize(
    ("file", "arguments", "words"),
    [
        ("net.onnx", ["--runtime", "litert"], "ONNX files run on onnxruntime, openvino, tensorrt; not on litert"),
        ("net.tflite", ["--runtime", "litert,onnxruntime"], "LiteRT files run on litert; not on onnxruntime"),
        ("net.onnx", ["--precision", "int8"], "is in fp32"),
        ("net.pte", ["--resolution", "64"], "takes 1×3×32×32 and nothing else"),
        ("net.tflite", ["--batch", "4"], "takes 1 at once"),
        ("net.pt2", ["--set", "stages.0.depth=3"], "--set"),
        ("net.onnx", ["--form", "train"], "--form train"),
        ("net.onnx", ["--weights", "w.pth"], "--weights"),
        ("nett.onnx", [], "did you mean 'net.onnx'"),
        ("folder.onnx", [], "is a folder"),
        ("empty.tflite", [], "is empty"),
        ("two.onnx", [], "has 2 inputs (in0 1×3×8×8 of float32; in1 1×3×8×8 of float32)"),
        ("two.tflite", [], "has 2 inputs"),
        ("tokens.onnx", [], "expected one image"),
        *((f"{kind}{suffix}", [], "cannot be read as") for kind in ("text", "cut") for suffix in (".onnx", ".tflite", ".pt2")),
        ("cut.pte", [], "cannot be read as"),
        ("text.pte", [], "no ExecuTorch program"),
        ("text.mlpackage", [], "has a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(files, capsys, tmp_path, file, arguments, words):
    path = tmp_path / file
    kind, suffix = path.stem, path.suffix
    if kind == "text":
        path.write_text("no model at all, but long enough to be looked at\n" * 9)
    elif kind == "cut":
        content = (files / f"net{suffix}").read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif file == "two.onnx":
        onnx_file(path, (1, 3, 8, 8), (1, 3, 8, 8))
    elif file == "two.tflite":
        tflite_with_two_inputs(files / "net.tflite", path)
    elif kind == "tokens":
        onnx_file(path, (1, 128), dtype="INT64")
    else:
        path = files / file
    code, out, err = call(capsys, "measure", path, *arguments)
    assert code == 2 and words in err and not out, err
    assert len(err.splitlines()) == 1 and "Traceback" not in err and "internal" not in err


@pytest.mark.parametrize("command", ["profile", "export", "compare"])
def test_only_onnx_is_read_as_a_network(files, capsys, command):
    code, out, err = call(capsys, command, files / "net.tflite", *(["--to", "onnx"] if command == "export" else []))
    assert code == 2 and "vitscope measure" in err and len(err.splitlines()) == 1 and not out


def test_weights_inside_another_delegate_need_their_precision_said(files, tmp_path):
    path = tmp_path / "phone.pte"
    require_package("coremltools")
    export(load_subject(str(files / "tiny.yaml")), "executorch-coreml", path, "fp16")
    with pytest.raises(UsageError, match="say it with --precision"):
        opened(str(path))
    assert opened(str(path), precisions=["fp16"]).precision == "fp16"


# Elsewhere, and beside other figures


def test_a_file_on_a_fake_android_device(files, capsys, phone, runner):  # noqa: F811
    """The FAKE device of fake_android.py: no figure of a phone."""
    where = ("--target", f"adb:{phone.serial}", "--runtime", "litert", "--runner", runner)
    code, out, err = call(capsys, "measure", files / "net.tflite", *where, *SHORT, "--json")
    assert code == 0, err + out
    (m,) = json.loads(out)["measurements"]
    assert m["condition"]["target"] == f"adb:{phone.serial}" and m["condition"]["form"] == "exported"
    code, out, err = call(capsys, "profile", files / "tiny.yaml", "--measure", "litert", *where[:2], *where[4:], *SHORT)
    assert code == 0 and "litert" in out, err


def test_a_file_and_a_profile_over_ssh(files, capsys, server):  # noqa: F811
    place = f"ssh:{getpass.getuser()}@127.0.0.1:{server.port}"
    where = ["--target", place, "--python", sys.executable]
    for option in server.options:
        where += ["--ssh-option", option]
    code, out, err = call(capsys, "measure", files / "net.tflite", *where, "--runtime", "litert", *SHORT, "--json")
    assert code == 0, err + out
    assert json.loads(out)["measurements"][0]["condition"]["target"] == place
    code, out, err = call(capsys, "profile", files / "net.onnx", "--measure", "onnxruntime", *where, *SHORT, "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"]
    assert model["measurements"][0]["condition"]["target"] == place


def test_a_file_beside_the_network_it_came_from(files, capsys):
    both = (files / "tiny.yaml", files / "net.onnx")
    flags = ("--measure", "onnxruntime", "--processes", "2", *SHORT[2:])
    code, out, err = call(capsys, "compare", *both, *flags, "--json")
    assert code == 0, err
    (comparison,) = json.loads(out)["comparisons"]
    (measured,) = comparison["measured"]
    assert [m["condition"]["form"] for m in measured["measurements"]] == ["deploy", "exported"]
    code, out, err = call(capsys, "profile", files / "net.onnx", "--measure", "openvino", *SHORT, "--csv")
    assert code == 0 and any(float(row["measured_s_openvino"] or 0) for row in csv.DictReader(out.splitlines())), err
