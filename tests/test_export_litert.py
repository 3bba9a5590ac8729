"""LiteRT files against PyTorch: values, names that lead back to modules, what XNNPACK runs, precisions, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_package
from torch import Tensor, nn

from tests.networks import randomise, relative_error
from vitscope.errors import UnavailableError
from vitscope.export import RefusedError, export
from vitscope.export.artifact import Artifact, Precision, block_of
from vitscope.export.litert import scopes_of, undelegated
from vitscope.export.silence import silenced
from vitscope.model import fuse
from vitscope.subject import Subject, load_subject, subject_of

require_package("litert_torch")

# Attention with a bias table, talking heads and a dual path; in three blocks rather than fifteen
TRANSFORMER = (
    "efficientformerv2_s0",
    ("stages.2.depth=1", "stages.2.blocks=[stride_attention]", "stages.2.expansion=2"),
)


def subject(name: str, overrides: tuple[str, ...] = ()) -> Subject:
    """A network of the zoo at 64 px with every value randomised, in deploy form."""
    found = load_subject(name, form="train", overrides=overrides, resolution=(64, 64))
    randomise(found.module)
    return replace(found, module=fuse(found.module).eval(), form="deploy")  # type: ignore[arg-type]


def run(artifact: Artifact, image: Tensor) -> Tensor:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.numpy())
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def expected(of: Subject) -> Tensor:
    with torch.no_grad():
        return of.module(of.example())


def operations(artifact: Artifact) -> Iterator[tuple[str, list[str]]]:
    """(kind, names of the outputs) of each operation of a file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path))
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    for operation in interpreter._get_ops_details():  # type: ignore[attr-defined]
        if operation["op_name"] != "DELEGATE":
            yield operation["op_name"], [names[index] for index in operation["outputs"]]


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Artifact]:
    """MobileNetV2 in every precision."""
    folder = tmp_path_factory.mktemp("litert")
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return {p: export(subject("mobilenetv2_100"), "litert", folder / f"{p}.tflite", p) for p in precisions}


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(subject(*TRANSFORMER), "litert", tmp_path_factory.mktemp("litert") / "t.tflite")


def test_a_transformer_agrees_with_pytorch(transformer: Artifact) -> None:
    of = subject(*TRANSFORMER)
    assert relative_error(run(transformer, of.example()), expected(of)) < 1e-4


def test_every_operation_of_a_transformer_names_its_block(transformer: Artifact) -> None:
    modules = dict(subject(*TRANSFORMER).module.named_modules())
    found = list(operations(transformer))
    assert len(found) > 80
    for kind, outputs in found:
        scope = transformer.scopes[outputs[0]]
        assert scope in modules
        assert block_of(scope, transformer.blocks) is not None
        if kind == "DEPTHWISE_CONV_2D":
            assert isinstance(modules[scope], nn.Conv2d) and modules[scope].groups > 1, scope
    named = Counter(transformer.scopes[outputs[0]] for kind, outputs in found if kind == "CONV_2D")
    attention = "stages.2.blocks.0.token_mixer"
    assert {f"{attention}.{part}.conv" for part in "qkv"} <= set(named), "three 1×1 convolutions keep their own names"
    assert {block_of(scope, transformer.blocks) for scope in transformer.scopes.values()} == set(transformer.blocks)


def test_xnnpack_leaves_only_the_subsampling_of_a_dual_path(transformer: Artifact) -> None:
    left, total, parts = undelegated(transformer.path.read_bytes())
    assert left == Counter({"AVERAGE_POOL_2D": 1})
    assert (total, parts) == (len(list(operations(transformer))), 2)
    assert f"XNNPACK runs {total - 1} of {total} operations in 2 parts; not AVERAGE_POOL_2D" in transformer.notes


def test_precisions_differ_by_size_and_by_error(mobile: dict[Precision, Artifact]) -> None:
    of = subject("mobilenetv2_100")
    errors = {p: relative_error(run(artifact, of.example()), expected(of)) for p, artifact in mobile.items()}
    assert errors["fp32"] < 1e-4
    assert 1e-6 < errors["fp16"] < 0.02
    assert 1e-4 < errors["int8"] < 0.25
    size = {p: artifact.num_bytes for p, artifact in mobile.items()}
    assert size["fp16"] < 0.55 * size["fp32"]
    assert size["int8"] < 0.33 * size["fp32"]


def test_names_survive_quantisation(mobile: dict[Precision, Artifact]) -> None:
    for artifact in mobile.values():
        found = {outputs[0] for _, outputs in operations(artifact)}
        assert found - set(artifact.scopes) <= {"serving_default_args_0_quantized"}, "the image belongs to no module"
        assert all(block_of(artifact.scopes[name], artifact.blocks) for name in found & set(artifact.scopes))


def test_int8_of_a_plain_network_stays_in_one_piece(mobile: dict[Precision, Artifact]) -> None:
    assert undelegated(mobile["int8"].path.read_bytes())[0] == Counter()
    assert any("static_wi8_ai8" in note for note in mobile["int8"].notes)
    assert all("static" not in note for note in mobile["fp32"].notes)


class Gelu(nn.Module):
    """A convolution before an activation that XNNPACK has no int8 form of, in two branches of equal classes."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.ModuleList([nn.Conv2d(3, 32, 3, padding=1)])
        self.right = nn.ModuleList([nn.Conv2d(3, 32, 3, padding=1)])
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.left[0](x)) * self.right[0](x)


def test_int8_without_an_int8_gelu_is_dynamic_and_whole(tmp_path: Path) -> None:
    of = subject_of(Gelu(), (3, 32, 32))
    artifact = export(of, "litert", tmp_path / "g.tflite", "int8")
    assert any("dynamic_wi8_afp32" in note for note in artifact.notes)
    assert undelegated(artifact.path.read_bytes())[0] == Counter()
    assert relative_error(run(artifact, of.example()), expected(of)) < 0.05


def test_lists_of_equal_modules_are_told_apart(tmp_path: Path) -> None:
    artifact = export(subject_of(Gelu(), (3, 32, 32)), "litert", tmp_path / "g.tflite")
    convolutions = [artifact.scopes[outputs[0]] for kind, outputs in operations(artifact) if kind == "CONV_2D"]
    assert sorted(convolutions) == ["left.0", "right.0"]


def test_names_come_from_the_file_alone(transformer: Artifact) -> None:
    assert scopes_of(transformer.path.read_bytes(), subject(*TRANSFORMER)) == transformer.scopes


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).abs() + torch.linalg.det(x[..., :3, :3])[..., None, None]


def test_what_the_converter_lacks_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as refused:
        export(subject_of(Complex(), (3, 8, 8), name="spectral"), "litert", tmp_path / "c.tflite")
    text = str(refused.value)
    assert text.startswith("spectral: LiteRT cannot hold it: ")
    assert "\n" not in text and len(text) < 400
    assert not (tmp_path / "c.tflite").exists()


def test_a_missing_converter_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "litert_torch", None)
    with pytest.raises(UnavailableError, match=r"vitscope\[litert\]"):
        export(subject_of(Gelu(), (3, 32, 32)), "litert", tmp_path / "g.tflite")


def test_silence_swallows_native_output_and_lets_errors_through(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with pytest.raises(ValueError, match="wrong"), silenced():
        print("python")
        os.write(1, b"native\n")
        os.write(2, b"native error\n")
        raise ValueError("wrong")
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_exporting_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(subject_of(Gelu(), (3, 16, 16)), "litert", tmp_path / "g.tflite")
    assert capfd.readouterr() == ("", "")
