"""ONNX Runtime's nodes, those it names itself or not at all included, each told to the block whose work it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import require_package

from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import attribute, block_of_op
from vitscope.measure.record import OpTime
from vitscope.measure.runner import onnxruntime_cpu

onnx = require_package("onnx")
ROOT = Path(__file__).parents[1]
BLOCKS = ("first", "second", "third", "head")


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[OpTime]]:
    """A network of four blocks by ONNX Runtime: nodes it reorders, inlines and reshapes."""
    helper = onnx.helper
    path = tmp_path_factory.mktemp("profile") / "x.onnx"
    rng = np.random.default_rng(0)

    def node(kind: str, name: str, *inputs: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [name], name=name, **attributes)

    nodes = [
        node("Conv", "first.conv/Conv_0", "input", "w0", pads=[1, 1, 1, 1]),
        node("Conv", "first.project/Conv_1", "first.conv/Conv_0", "w1"),
        node("Transpose", "second.attn/Transpose_2", "first.project/Conv_1", perm=[0, 2, 3, 1]),
        node("HardSwish", "second.act/HardSwish_3", "second.attn/Transpose_2"),
        node("MatMul", "third.fc/MatMul_4", "second.act/HardSwish_3", "w2"),
        node("Add", "third.fc/Add_5", "third.fc/MatMul_4", "b2"),
        node("HardSwish", "third.act/HardSwish_6", "third.fc/Add_5"),
        node("ReduceMean", "head.pool/ReduceMean_7", "third.act/HardSwish_6", "axes", keepdims=0),
    ]
    shapes = {"w0": (32, 16, 3, 3), "w1": (32, 32, 1, 1), "w2": (32, 32), "b2": (32,)}
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    values["axes"] = np.array([1, 2])
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "x",
        [helper.make_tensor_value_info("input", kind, [1, 16, 16, 16])],
        [helper.make_tensor_value_info("head.pool/ReduceMean_7", kind, [1, 32])],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    artifact = Artifact(
        path=path, format="onnx", model="x", digest="", form="deploy", precision="fp32", input_shape=(1, 16, 16, 16),
        blocks=BLOCKS, weights="random", tools="", scopes={n.name: n.name.rpartition("/")[0] for n in nodes},
    )  # fmt: skip
    model = onnxruntime_cpu.load(str(path), {"input_shape": [1, 16, 16, 16], "threads": 1})
    found = model.op_times(3)
    assert found is not None and found[0] == "measured"
    return artifact, [OpTime(**{**op, "names": tuple(op["names"])}) for op in found[1]]


def test_what_the_runtime_put_in_or_left_without_a_name_goes_with_the_block_that_needs_it(
    profiled: tuple[Artifact, list[OpTime]],
) -> None:
    artifact, ops = profiled
    told = [(op.kind, block_of_op(op, artifact)) for op in ops]
    assert all(block is not None for _, block in told), told
    blocks = [block for _, block in told if block is not None]
    assert blocks == sorted(blocks, key=BLOCKS.index)  # a straight network: one block after the other
    assert [block for kind, block in told if kind == "HardSigmoid"] == ["second", "third"]  # nameless, of one inlined
    assert [block for kind, block in told if kind == "Gemm"] == ["third"]
    reshapes = [block for kind, block in told if kind == "Reshape"]  # before and after the Gemm: another node's names
    assert reshapes == ["third"] * len(reshapes)
    own = [op for op in ops if op.name not in artifact.scopes]
    assert len(own) > 4  # so that the runtime did name nodes itself


def test_all_the_time_is_explained(profiled: tuple[Artifact, list[OpTime]]) -> None:
    artifact, ops = profiled
    assert attribute("measured", ops, artifact, 1.0, "ONNX Runtime").unexplained == 0


_SILENCE_IT_TOO = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "TF_BUILD")
_QUIET = """
import sys, numpy
from pathlib import Path
from typing import Any
from vitscope.export import agreement
from vitscope.measure.runner import onnxruntime_cpu
path = sys.argv[1]
if sys.argv[2] == "measure":
    onnxruntime_cpu.load(path, {"input_shape": [1, 16, 16, 16], "threads": 1}).run()
else:
    agreement._onnxruntime(Path(path), numpy.zeros((1, 16, 16, 16), numpy.float32))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there it is an event of the system, without files")
@pytest.mark.parametrize("way", ["measure", "agree"])
def test_the_runtime_tells_nobody_of_a_model(profiled: tuple[Artifact, list[OpTime]], tmp_path: Path, way: str) -> None:
    """Its telemetry would keep a file of its session among the temporary files, and an identifier in the home."""
    kept = {name: value for name, value in os.environ.items() if name not in _SILENCE_IT_TOO}
    environment = {**kept, "TMPDIR": str(tmp_path), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", _QUIET, str(profiled[0].path), way]
    subprocess.run(command, check=True, timeout=100, env=environment, capture_output=True, cwd=ROOT)
    assert not [*tmp_path.rglob("*.ses"), *tmp_path.rglob("deviceid")]
