"""ONNX files, written here node by node: counted by the same tables, placed in modules, and one line for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import vitscope
from vitscope.cli import main
from vitscope.errors import UsageError
from vitscope.graph.record import Graph
from vitscope.sources.onnx import load
from vitscope.sources.onnx_ops import NAMES, VIEWS


def weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()]


def write(
    path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], image: tuple = (1, 3, 8, 8)
) -> str:
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], initializers,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(path))
    return str(path)


def graph_of(path: str, **options) -> Graph:
    return load(path, **{"size": None, "resolution": None, "batch": 1, **options}).train.counted


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


@pytest.fixture
def cnn(tmp_path) -> str:
    """Convolution, norm, activation, pooling, linear: named by an exporter's scopes."""
    nodes = [
        helper.make_node("Conv", ["x", "stem.conv.weight"], ["a"], "/stem/conv/Conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node(
            "BatchNormalization", ["a", "stem.bn.weight", "stem.bn.bias", "stem.bn.mean", "stem.bn.var"], ["b"],
            "/stem/bn/BatchNormalization",
        ),
        helper.make_node("Relu", ["b"], ["c"], "/stem/act/Relu"),
        helper.make_node("Conv", ["c", "onnx::Conv_7", "onnx::Conv_8"], ["d"], "/stages/stages.0/stages.0.1/conv/Conv", group=8),
        helper.make_node("Add", ["c", "d"], ["e"], "/stages/stages.0/Add"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], "/pool/GlobalAveragePool"),
        helper.make_node("Flatten", ["f"], ["g"], "/Flatten"),
        helper.make_node("Gemm", ["g", "head.weight", "head.bias"], ["y"], "/head/Gemm", transB=1),
    ]  # fmt: skip
    tensors = {
        "stem.conv.weight": (8, 3, 3, 3), "stem.bn.weight": (8,), "stem.bn.bias": (8,), "stem.bn.mean": (8,),
        "stem.bn.var": (8,), "onnx::Conv_7": (8, 1, 1, 1), "onnx::Conv_8": (8,), "head.weight": (10, 8), "head.bias": (10,),
    }  # fmt: skip
    return write(tmp_path / "cnn.onnx", nodes, weights(**tensors), ("N", 3, 8, 8))


def test_a_convolutional_network_row_by_row(cnn):
    profile = vitscope.profile(cnn)
    assert [(row.path, row.cost.params, row.cost.macs) for row in profile.rows] == [
        ("stem", 8 * 3 * 9 + 2 * 8, 4 * 4 * 8 * 3 * 9),
        ("stages.0", 8 + 8, 4 * 4 * 8),
        ("pool", 0, 0),
        ("head", 10 * 8 + 10, 10 * 8),
    ]
    assert profile.deploy_params == profile.totals.params - 2 * 8 + 8
    assert profile.input == (3, 8, 8) and not profile.is_partial
    assert sum(row.cost.macs for row in profile.rows) == profile.totals.macs
    assert vitscope.profile(cnn, form="deploy").totals.macs == profile.totals.macs


def test_the_same_network_in_torch_counts_the_same(cnn):
    from torch import nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1, groups=8)

        def forward(self, x):
            return x + self.conv(x)

    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    net = nn.Sequential(*stem, Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    ours, theirs = vitscope.profile(net, (3, 8, 8)), vitscope.profile(cnn)
    assert (ours.totals.macs, ours.totals.params) == (theirs.totals.macs, theirs.totals.params)
    assert ours.totals.activations == theirs.totals.activations and ours.deploy_params == theirs.deploy_params


def test_another_input_and_a_batch(cnn):
    larger = vitscope.profile(cnn, (3, 16, 24), batch=4)
    assert larger.totals.macs == 8 * 12 * 8 * (27 + 1) + 80 and larger.input == (3, 16, 24)
    assert vitscope.profile(cnn, resolution=(16, 24)).totals.macs == larger.totals.macs
    assert larger.totals.write_bytes == 4 * vitscope.profile(cnn, (3, 16, 24)).totals.write_bytes


# --- One operator at a time: nodes, weights, MACs on an input of 1×3×8×8. ---

PRODUCTS = {
    "conv transposed": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], weights(w=(3, 5, 2, 2)), 8 * 8 * 3 * 5 * 4,
    ),
    "matmul by a matrix": ([helper.make_node("MatMul", ["x", "w"], ["y"])], weights(w=(8, 16)), 3 * 8 * 8 * 16),
    "matmul by a vector": ([helper.make_node("MatMul", ["x", "w"], ["y"])], weights(w=(8,)), 3 * 8 * 8),
    "matmul of activations": ([helper.make_node("MatMul", ["x", "x"], ["y"])], [], 3 * 8 * 8 * 8),
    "matmul stretched": ([helper.make_node("MatMul", ["x", "w"], ["y"])], weights(w=(1, 1, 8, 4)), 3 * 8 * 8 * 4),
    "einsum": ([helper.make_node("Einsum", ["x", "x"], ["y"], equation="bchw,bciw->bchi")], [], 3 * 8 * 8 * 8),
    "einsum over two": ([helper.make_node("Einsum", ["x", "w"], ["y"], equation="bchw,kcw->bkh")], weights(w=(7, 3, 8)),
                        8 * 7 * 3 * 8),
    "shapes that are computed": (
        [
            helper.make_node("Shape", ["x"], ["s"], start=0, end=2),
            helper.make_node("Concat", ["s", "rest"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["r"]),
            helper.make_node("MatMul", ["r", "w"], ["y"]),
        ],
        [integers("rest", -1), *weights(w=(64, 2))], 3 * 64 * 2,
    ),
    "a weight behind a transpose": (
        [helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0]), helper.make_node("MatMul", ["x", "v"], ["y"])],
        weights(w=(5, 8)), 3 * 8 * 8 * 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(tmp_path, name):
    nodes, initializers, expected = PRODUCTS[name]
    profile = vitscope.profile(write(tmp_path / "net.onnx", nodes, initializers))
    assert profile.totals.macs == expected and not profile.is_partial
    assert profile.totals.params == sum(np.prod(t.dims) for t in initializers if t.data_type == TensorProto.FLOAT)


def test_every_operator_of_the_tables_is_known_there():
    from vitscope.cost.ops import FREE

    free = {name for names in FREE.values() for name in names}
    assert {*NAMES.values(), *VIEWS.values()} <= free
    assert not NAMES.keys() & VIEWS.keys()


def test_what_is_unknown_is_named_and_placed(tmp_path):
    nodes = [
        helper.make_node("NonZero", ["x"], ["z"], "/body/NonZero"),
        helper.make_node("Conv", ["x", "w"], ["y"], "/body/Conv"),
    ]
    profile = vitscope.profile(write(tmp_path / "net.onnx", nodes, weights(w=(4, 3, 1, 1))))
    assert profile.totals.unknown == ("body: onnx::NonZero",) and profile.totals.macs == 8 * 8 * 12
    assert any("onnx::NonZero" in note for note in profile.notes)


def test_a_product_of_unknown_shape_is_not_counted_as_nothing(tmp_path):
    nodes = [
        helper.make_node("NonZero", ["x"], ["z"], "/a/NonZero"),
        helper.make_node("Cast", ["z"], ["f"], "/a/Cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], "/a/Transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["t", "w"], ["y"], "/a/MatMul"),
    ]
    profile = vitscope.profile(write(tmp_path / "net.onnx", nodes, weights(w=(4, 6))))
    assert profile.totals.unknown == ("a: onnx::NonZero", "a: onnx::MatMul")


def test_weights_read_twice_count_once(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    profile = vitscope.profile(write(tmp_path / "net.onnx", nodes, weights(w=(8, 8))))
    assert (profile.totals.params, profile.totals.macs) == (64, 2 * 3 * 8 * 64)


def test_scopes_of_torchs_newer_exporter(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], "node_conv2d")
    entry = node.metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['', 'stages', 'stages.1', 'stages.1.conv', 'conv2d']"
    graph = graph_of(write(tmp_path / "net.onnx", [node], weights(w=(4, 3, 1, 1))))
    assert [op.scope for op in graph.ops] == ["stages.1.conv"]
    assert [p.name for p in graph.params] == ["stages.1.conv.w"]


def test_without_any_scope_each_node_is_a_part(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], "Conv_0"), helper.make_node("Relu", ["a"], ["y"], "Relu_1")]
    profile = vitscope.profile(write(tmp_path / "net.onnx", nodes, weights(w=(4, 3, 1, 1))))
    assert [(row.path, row.cost.params) for row in profile.rows] == [("Conv_0", 12), ("Relu_1", 0)]


# --- The command line. ---


def test_an_onnx_file_is_profiled_without_torch(cnn, tmp_path):
    code = "import sys; from vitscope.cli import main; c = main(sys.argv[1:]); sys.exit(c or ('torch' in sys.modules and 9))"
    arguments = ["profile", cnn, "--by", "op", "--device", "iphone12", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert model["totals"]["macs"] == 4 * 4 * 8 * 28 + 80 and model["predictions"][0]["device"] == "iphone12"
    assert model["source"] == cnn and "opset 20" in model["notes"][0]


def _two_inputs(path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 8, 8)) for name in ("x", "z", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "z"], ["y"])], "net", values[:2], values[2:])
    onnx.save(helper.make_model(graph), str(path))


BROKEN = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "not an ONNX model"),
    "text": (lambda path: path.write_text("name: small\n"), "not an ONNX model"),
    "two inputs": (_two_inputs, "expected one image (N, C, H, W) as input, it has x of rank 4, z of rank 4"),
    "free sides": (
        lambda path: write(path, [helper.make_node("Relu", ["x"], ["y"])], [], ("N", 3, "H", "W")),
        "its input x is N×3×H×W: say which with --input C,H,W",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_is_one_line(capsys, tmp_path, name):
    make, says = BROKEN[name]
    path = tmp_path / "net.onnx"
    make(path)
    assert main(["profile", str(path)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and len(captured.err.splitlines()) == 1 and not captured.out


def test_free_sides_are_given(capsys, tmp_path):
    path = write(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], [], ("N", 3, "H", "W"))
    assert vitscope.profile(path, (3, 5, 7)).input == (3, 5, 7)
    (tmp_path / "nett.onnx").mkdir()
    with pytest.raises(UsageError, match=r"did you mean 'net\.onnx'"):
        vitscope.profile(str(tmp_path / "ned.onnx"))


def test_without_the_package_the_cure_is_named(cnn):
    code = "import sys; sys.modules['onnx'] = None; from vitscope.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "profile", cnn], capture_output=True, text=True)
    assert done.returncode == 3 and 'pip install "vitscope[onnx]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1
