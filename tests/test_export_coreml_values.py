"""Core ML programs against PyTorch in value, evaluated by the interpreter of the tests: our reading of MIL, not Core ML."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import require_package
from mil_interpreter import run_program
from networks import relative_error
from torch import Tensor, nn

from vitscope.export import export
from vitscope.export.artifact import Precision
from vitscope.subject import Subject, load_subject, subject_of

require_package("coremltools")


def shallow(*depths: int) -> tuple[str, ...]:
    return tuple(f"stages.{stage}.depth={depth}" for stage, depth in enumerate(depths))


# One network a family, in as few blocks as still hold one of each kind
NETWORKS = {
    "efficientformerv2_s0": (
        *shallow(1, 1), "stages.2.depth=1", "stages.2.blocks=[stride_attention]", "stages.2.expansion=2",
    ),
    "edgenext_xx_small": (),
    "efficientvit_b0": (),
    "levit_128s": (),
    "mobileone_s0": shallow(1, 1, 1),
    "mobilenetv3_large_100": (),
    "mobilevit_xxs": (),
    "mobilevitv2_050": (),
    "poolformer_s12": shallow(1, 1, 1, 1),
    "deit_tiny_distilled_patch16_224": ("stages.0.depth=2",),
    "segformer_b0_ade20k": (),
}  # fmt: skip


def outputs(subject: Subject, image: Tensor) -> Tensor:
    with torch.no_grad():
        return subject.module(image)


def written(subject: Subject, folder: Path, precision: Precision = "fp32") -> Path:
    return export(subject, "coreml", folder / "x.mlpackage", precision).path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_computes_the_network(name: str, tmp_path: Path) -> None:
    subject = load_subject(name, overrides=NETWORKS[name], resolution=(64, 64))
    image, other = subject.example(), subject.example(seed=2)
    wanted = outputs(subject, image)
    assert relative_error(outputs(subject, other), wanted) > 0.01, "or any image would give these values"
    (found,) = run_program(written(subject, tmp_path), image).values()
    assert found.shape == wanted.shape and relative_error(found, wanted) < 1e-4


class Resizes(nn.Module):
    """Resizes, paddings and poolings whose edges differ between conventions, at sizes that do not divide."""

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.interpolate(x, size=(14, 22), mode="bilinear")
        y = nn.functional.interpolate(y, scale_factor=2.0, mode="nearest")
        y = nn.functional.interpolate(y, size=(9, 13), mode="bilinear", align_corners=True)
        y = nn.functional.interpolate(y, scale_factor=2.0, mode="bicubic")
        y = nn.functional.avg_pool2d(y, 3, 2, 1) + nn.functional.avg_pool2d(y, 3, 2, 1, count_include_pad=False)
        y = nn.functional.max_pool2d(y - 3, 3, 2, 1)
        return nn.functional.pad(y, (1, 2, 3, 0))


def test_resizes_and_poolings_at_their_edges(tmp_path: Path) -> None:
    subject = subject_of(Resizes(), (3, 7, 11))
    (found,) = run_program(written(subject, tmp_path), subject.example()).values()
    assert relative_error(found, outputs(subject, subject.example())) < 1e-5


def test_half_and_eight_bits_are_near(tmp_path: Path) -> None:
    """Evaluated in half precision, weights of 8 bits as their scales and zero points say."""
    torch.manual_seed(0)
    subject = subject_of(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)), (3, 16, 16))
    wanted, image = outputs(subject, subject.example()), subject.example().half()
    errors = []
    for precision in ("fp16", "int8"):
        (tmp_path / precision).mkdir()
        (found,) = run_program(written(subject, tmp_path / precision, precision), image).values()
        errors.append(relative_error(found.float(), wanted))
    assert 1e-6 < errors[0] < 2e-3 < errors[1] < 0.02, errors


def test_a_wrong_weight_is_seen(tmp_path: Path) -> None:
    """What makes the tests above mean something: they read the weights that lie in the package."""
    layer = nn.Conv2d(3, 16, 3)
    subject = subject_of(nn.Sequential(layer, nn.ReLU()), (3, 12, 12))
    path = written(subject, tmp_path)
    (weights,) = path.rglob("weight.bin")
    values = layer.weight.detach().numpy().tobytes()
    assert weights.read_bytes().count(values) == 1
    weights.write_bytes(weights.read_bytes().replace(values, bytes(len(values))))
    (found,) = run_program(path, subject.example()).values()
    assert relative_error(found, outputs(subject, subject.example())) > 0.01


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_either_gelu_is_the_one_that_is_meant(approximate: str, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(approximate=approximate))
    subject = subject_of(module, (3, 16, 16), name="gelu")
    image = 3 * subject.example()
    (found,) = run_program(written(subject, tmp_path), image).values()
    assert relative_error(found, outputs(subject, image)) < 1e-5
    other = nn.Sequential(module[0], nn.GELU(approximate="none" if approximate == "tanh" else "tanh"))
    assert relative_error(found, other(image)) > 2e-5, "or the two could not be told apart"


def test_a_delegated_gelu_is_the_one_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ExecuTorch's Core ML delegate converts by coremltools too; what it converts is looked at on the way."""
    require_package("executorch")
    import coremltools

    forms: list[str] = []
    convert = coremltools.convert

    def looked_at(*arguments, **options):
        model = convert(*arguments, **options)
        operations = model._mil_program.functions["main"].operations
        forms.extend(operation.mode.val for operation in operations if operation.op_type == "gelu")
        return model

    monkeypatch.setattr(coremltools, "convert", looked_at)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(approximate="tanh"), nn.Conv2d(4, 4, 1), nn.GELU())
    export(subject_of(module, (3, 16, 16), name="gelu"), "executorch-coreml", tmp_path / "x.pte", "fp32")
    assert forms == ["TANH_APPROXIMATION", "EXACT"]
