"""ONNX files: the same network in both runtimes that read them, and names that lead back to its blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import Calls, randomise
from torch import nn

from vitscope.errors import UsageError
from vitscope.export import RefusedError, export
from vitscope.export.agreement import agreement, agreements
from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import block_of_op
from vitscope.measure.record import OpTime
from vitscope.model import fuse
from vitscope.subject import Subject, load_subject, subject_of, take_statistics

# Between them: convolutions, attention with tables of bias, resizing, unfolding, branches, squeeze and excite.
SMALL = {
    "efficientformerv2_s0": (),
    "mobilevit_xxs": tuple(f"stages.{n}.num_layers=1" for n in (2, 3, 4)),
    "mobilenetv2_100": ("stages.1.depth=1",),
}

# OpenVINO 2026.4.1 computes another network, and the right one where every value of the graph is an output: one of its
# fusions. What ONNX Runtime makes of the same file agrees.
OTHERWISE = {("mobilevit_xxs", "openvino")}


def subject_with_values(name: str, form: str = "train", **options) -> Subject:
    """A network of the zoo at 64 pixels whose every tensor counts, fused after its values were drawn."""
    subject = load_subject(name, form="train", resolution=(64, 64), **options)
    randomise(subject.module)
    take_statistics(subject.module, subject.input_shape[1:])  # or biases drown what the image makes
    return replace(subject, form=form, module=fuse(subject.module) if form == "deploy" else subject.module)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Subject, Artifact]]:
    made: dict[tuple[str, str], tuple[Subject, Artifact]] = {}

    def make(name: str, precision: str = "fp32") -> tuple[Subject, Artifact]:
        if (name, precision) not in made:
            subject = subject_with_values(name, "deploy", overrides=SMALL[name])
            path = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
            made[name, precision] = subject, export(subject, "onnx", path, precision)  # type: ignore[arg-type]
        return made[name, precision]

    return make


def optimised(artifact: Artifact, folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of the file on this processor."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(artifact.path), settings, providers=["CPUExecutionProvider"])
    return onnx.load(settings.optimized_model_filepath)


def block_of_name(name: str, artifact: Artifact) -> str | None:
    """The block that a runtime's own name leads to."""
    return block_of_op(OpTime(name=name, kind="", seconds=0.0, names=(name,)), artifact)


@pytest.mark.parametrize("name", SMALL)
def test_both_runtimes_compute_the_network(exported, name):
    subject, artifact = exported(name)
    found = agreements(subject, artifact)
    assert [one.runtime for one in found] == ["onnxruntime", "openvino"]
    for one in found:
        if (name, one.runtime) in OTHERWISE:
            assert one.holds is False, "it computes the network now: take it out of OTHERWISE"
            continue
        assert one.holds and one.relative_error is not None and one.relative_error < 1e-4, one
        assert one.same_class == 1


def test_a_file_of_other_values_does_not_hold(exported):
    _, artifact = exported("mobilenetv2_100")
    other = subject_with_values("mobilenetv2_100", "deploy", overrides=SMALL["mobilenetv2_100"])
    with torch.no_grad():
        next(p for name, p in other.module.named_parameters() if name.endswith("conv.weight")).mul_(1.01)
    found = agreement(other, artifact, "onnxruntime")
    assert found.holds is False and found.relative_error is not None and found.relative_error > 1e-4


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "mobilevit_xxs"])
def test_names_survive_the_runtimes_optimiser(exported, tmp_path, name):
    """Of what computes (layouts and casts aside) at least 95 % lead back to a block."""
    _, artifact = exported(name)
    moves = {"ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Cast"}
    graph = optimised(artifact, tmp_path).graph
    nodes = [node for node in graph.node if node.op_type not in moves]
    assert any(node.name not in artifact.scopes for node in nodes), "nothing was fused: the test shows nothing"
    makers = {value: node.name for node in graph.node for value in node.output}
    blocks = []
    for node in nodes:  # its own names, or that of what it reads: an activation in the layout of its convolution
        names = (node.name, *node.output, *(makers.get(value, "") for value in node.input))
        blocks.append(next((b for name in names if (b := block_of_name(name, artifact)) is not None), None))
    assert sum(block is not None for block in blocks) >= 0.95 * len(nodes)
    assert set(blocks) - {None} == set(artifact.blocks)


def test_every_node_and_value_of_the_file_has_its_module(exported):
    subject, artifact = exported("efficientformerv2_s0")
    modules = dict(subject.module.named_modules())
    graph = onnx.load(str(artifact.path)).graph
    assert graph.input[0].name == "input" and [value.name for value in graph.output] == ["output"]
    for node in graph.node:
        assert artifact.scopes[node.name] in modules
        assert all(artifact.scopes[value] == artifact.scopes[node.name] for value in node.output)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert all(isinstance(modules[artifact.scopes[node.name]], nn.Conv2d) for node in convolutions)
    assert convolutions[0].name.startswith("stem.conv1.conv/Conv_")


def test_the_file_holds_nothing_of_this_machine(exported):
    _, artifact = exported("efficientformerv2_s0")
    content = artifact.path.read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in content and b'File "' not in content
    onnx.checker.check_model(str(artifact.path), full_check=True)
    assert [path.name for path in artifact.path.parent.iterdir()] == [artifact.path.name], "one file"


@pytest.mark.parametrize(("precision", "bound", "size"), [("fp16", 5e-2, 0.6), ("int8", 0.5, 0.45)])
def test_smaller_numbers_are_smaller_and_near(exported, precision, bound, size):
    _, full = exported("mobilenetv2_100")
    subject, artifact = exported("mobilenetv2_100", precision)
    assert artifact.num_bytes < size * full.num_bytes and artifact.notes
    for one in agreements(subject, artifact):
        assert one.holds and one.relative_error is not None and 1e-5 < one.relative_error < bound, one
    kinds = {tensor.data_type for tensor in onnx.load(str(artifact.path)).graph.initializer}
    wanted = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8
    assert wanted in kinds
    graph = onnx.load(str(artifact.path)).graph
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in (*graph.input, *graph.output))


def test_half_keeps_the_kernels_that_exist_in_float_alone(exported, tmp_path):
    """Or ONNX Runtime would take Gelu and Softmax apart into the operations that define them."""
    _, artifact = exported("efficientformerv2_s0", "fp16")
    kinds = {node.op_type for node in optimised(artifact, tmp_path).graph.node}
    assert {"Gelu", "Softmax"} <= kinds and not {"Erf", "Exp"} & kinds


def test_the_quantised_convolutions_lead_back_too(exported, tmp_path):
    _, artifact = exported("mobilenetv2_100", "int8")
    nodes = [node for node in optimised(artifact, tmp_path).graph.node if node.op_type == "QLinearConv"]
    assert len(nodes) > 20
    assert all(block_of_name(node.name, artifact) for node in nodes)


def test_a_batch_and_several_outputs(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 4, 3), nn.ReLU()

        def forward(self, x):
            y = self.act(self.conv(x))
            return self.act(y - 1), y.mean((2, 3))

    subject = subject_of(Two(), (3, 16, 16), batch=3)
    for precision in ("fp32", "fp16"):
        artifact = export(subject, "onnx", tmp_path / f"{precision}.onnx", precision)  # type: ignore[arg-type]
        session = onnxruntime.InferenceSession(str(artifact.path))
        results = session.run(None, {"input": np.zeros((3, 3, 16, 16), np.float32)})
        assert [value.name for value in session.get_outputs()] == ["output_0", "output_1"]
        assert [np.shape(result) for result in results] == [(3, 4, 14, 14), (3, 4)]
        assert agreement(subject, artifact).holds
        assert "act" in artifact.scopes.values() and not any("@" in scope for scope in artifact.scopes.values())


def test_a_network_without_an_onnx_form_is_refused_in_one_line(tmp_path):
    hidden = subject_of(Calls(lambda x: torch.linalg.det(x[..., :3, :3])), (3, 8, 8), name="determinants")
    with pytest.raises(RefusedError, match=r"determinants: has no ONNX form: .*") as caught:
        export(replace(hidden, module=Calls(lambda x: torch.special.bessel_j0(x))), "onnx", tmp_path / "x.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    branching = replace(hidden, module=Calls(lambda x: x if x.sum() > 0 else -x))
    with pytest.raises(RefusedError, match=r"torch\.export cannot follow it") as caught:
        export(branching, "onnx", tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


def test_unknown_formats_precisions_and_runtimes(tmp_path, exported):
    subject, artifact = exported("mobilenetv2_100")
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        export(subject, "onxx", tmp_path / "x")
    with pytest.raises(UsageError, match="is written in fp32, fp16"):
        export(subject, "torch", tmp_path / "x", "int8")
    with pytest.raises(UsageError, match="litert does not execute onnx files here; onnxruntime, openvino"):
        agreement(subject, artifact, "litert")


def test_a_damaged_file_fails_in_one_line(tmp_path, exported):
    subject, artifact = exported("mobilenetv2_100")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(artifact.path.read_bytes()[:1000])
    for found in agreements(subject, replace(artifact, path=broken)):
        assert found.failed and found.holds is False and found.relative_error is None
        assert found.reason and "\n" not in found.reason


def test_nothing_is_known_of_a_file_that_no_runtime_here_executes(exported):
    subject, artifact = exported("mobilenetv2_100")
    found = agreement(subject, replace(artifact, format="coreml"))
    assert found.holds is None and found.relative_error is None and "no runtime" in found.reason
