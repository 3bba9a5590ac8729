"""ExecuTorch files against PyTorch: values, names that lead back to modules, what a delegate takes, precisions, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from conftest import require_package
from torch import Tensor, nn

from tests.networks import relative_error
from tests.test_export_litert import TRANSFORMER, expected, subject
from vitscope.errors import UnavailableError
from vitscope.export import RefusedError, export
from vitscope.export.artifact import Artifact, Precision, block_of
from vitscope.subject import load_subject, subject_of

require_package("executorch.exir")


MOBILE = load_subject(
    "mobileone_s0", resolution=(64, 64), overrides=tuple(f"stages.{stage}.depth=1" for stage in range(3))
)


def run(artifact: Artifact, image: Tensor) -> Tensor:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(str(artifact.path)).load_method("forward")
    assert method is not None
    return method.execute([image.half() if artifact.precision == "fp16" else image])[0].float()


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Precision, Artifact]:
    """Five blocks of MobileOne-S0, a chain of convolutions, in every precision."""
    folder = tmp_path_factory.mktemp("executorch")
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return {p: export(MOBILE, "executorch", folder / f"{p}.pte", p) for p in precisions}


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(subject(*TRANSFORMER), "executorch", tmp_path_factory.mktemp("executorch") / "t.pte")


def test_a_transformer_agrees_with_pytorch(transformer: Artifact) -> None:
    of = subject(*TRANSFORMER)
    assert relative_error(run(transformer, of.example()), expected(of)) < 1e-4


def test_a_transformer_is_taken_whole_but_for_its_subsampling_and_its_mean(transformer: Artifact) -> None:
    (note,) = transformer.notes
    assert note.startswith("XNNPACK runs ") and note.endswith(" in 3 parts; not avg_pool2d, mean"), note


def test_every_operation_of_a_transformer_names_its_module(transformer: Artifact) -> None:
    modules = dict(subject(*TRANSFORMER).module.named_modules())
    for name, scope in transformer.scopes.items():
        assert scope in modules
        assert block_of(scope, transformer.blocks) is not None
        if "convolution" in name:
            assert isinstance(modules[scope], nn.Conv2d), (name, scope)
    convolutions = [module for module in modules.values() if isinstance(module, nn.Conv2d)]
    assert sum("convolution" in name for name in transformer.scopes) == len(convolutions)
    assert {block_of(scope, transformer.blocks) for scope in transformer.scopes.values()} == set(transformer.blocks)


def test_precisions_differ_by_size_and_by_error(mobile: Mapping[Precision, Artifact]) -> None:
    errors = {p: relative_error(run(artifact, MOBILE.example()), expected(MOBILE)) for p, artifact in mobile.items()}
    assert errors["fp32"] < 1e-4
    assert 1e-5 < errors["fp16"] < 0.05
    assert 1e-3 < errors["int8"] < 0.3
    size = {p: artifact.num_bytes for p, artifact in mobile.items()}
    assert size["fp16"] < 0.9 * size["fp32"]
    assert size["int8"] < 0.4 * size["fp32"]


def test_in_every_precision_xnnpack_leaves_the_mean_alone(mobile: Mapping[Precision, Artifact]) -> None:
    for artifact in mobile.values():
        assert artifact.notes[-1].endswith(" in 2 parts; not mean"), artifact.notes


class Movements(nn.Module):
    """What torch says with squeeze, unsqueeze, select, split, unbind and expand, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 12, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        q, k, v = x.reshape(1, 3, 4, 64).unbind(1)
        mixed = (q.unsqueeze(1).transpose(2, 3) @ k.unsqueeze(1)) @ v.unsqueeze(1).transpose(2, 3)
        left, right = x.split([2, 10], dim=1)
        y = mixed.transpose(2, 3).squeeze(1).reshape(1, 4, 8, 8)
        return self.after(torch.cat((left + right[:, -2:], y), 1)) * x[:, -1].unsqueeze(1)


def test_movements_of_data_stay_inside_the_delegate(tmp_path: Path) -> None:
    of = subject_of(Movements(), (3, 8, 8))
    artifact = export(of, "executorch", tmp_path / "m.pte")
    assert artifact.notes[-1].startswith("XNNPACK runs all ") and "parts" not in artifact.notes[-1]
    assert relative_error(run(artifact, of.example()), expected(of)) < 1e-4
    assert {"before", "after"} <= set(artifact.scopes.values())


class Voids(nn.Module):
    """A slice of all, an expansion that a division makes anyway, and whole numbers added to floats: of which ExecuTorch
    makes operations of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)[:, :8]
        return nn.functional.hardsigmoid(y / (y.mean((2, 3), keepdim=True).abs() + 0.1).expand_as(y))


def test_what_changes_nothing_ends_no_delegate(tmp_path: Path) -> None:
    of = subject_of(Voids(), (3, 8, 8))
    artifact = export(of, "executorch", tmp_path / "m.pte")
    assert artifact.notes[-1].startswith("XNNPACK runs all ") and "parts" not in artifact.notes[-1]
    assert relative_error(run(artifact, of.example()), expected(of)) < 1e-4


def test_an_expansion_that_nothing_else_makes_stays(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            row = x[:, :1, :1]
            return row.expand(1, 3, 8, 8) * row.expand(1, 3, 8, 8)  # each alone gives the shape

    of = subject_of(Rows(), (3, 8, 8))
    artifact = export(of, "executorch", tmp_path / "m.pte")
    assert run(artifact, of.example()).shape == (1, 3, 8, 8)
    assert relative_error(run(artifact, of.example()), expected(of)) < 1e-4


class MixedHeads(nn.Module):
    """A softmax between convolutions: over the last axis, whatever the memory's layout."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.before(x).softmax(-1))


def test_a_softmax_of_a_convolution_is_over_the_right_axis(tmp_path: Path) -> None:
    of = subject_of(MixedHeads(), (3, 8, 8))
    artifact = export(of, "executorch", tmp_path / "m.pte")
    assert relative_error(run(artifact, of.example()), expected(of)) < 1e-4


class GeluByTanh(nn.Module):
    """XNNPACK knows the exact GELU alone, which differs by 2e-4 of the largest value here."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.act = nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class NormOfAMap(nn.Module):
    """A mean far from 0 over many elements: a variance from the mean of squares keeps three digits."""

    def __init__(self, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, 32)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([x, x * 2], 1).repeat(1, 6, 1, 1)[:, :32] + 30.0)[:, :, ::2]


@pytest.mark.parametrize("module", [GeluByTanh(), NormOfAMap(1), NormOfAMap(8)], ids=["gelu", "norm", "norm of 8"])
def test_what_executorch_computes_otherwise_is_written_out(module: nn.Module, tmp_path: Path) -> None:
    of = subject_of(module, (3, 96, 96))
    artifact = export(of, "executorch", tmp_path / "t.pte")
    assert relative_error(run(artifact, of.example()), expected(of)) < 1e-4
    assert "norm" not in artifact.notes[0] and "gelu" not in artifact.notes[0], artifact.notes[0]


def test_a_file_for_core_ml_is_written_here_and_taken_whole(tmp_path: Path) -> None:
    require_package("coremltools")
    of = subject_of(Movements(), (3, 8, 8))
    artifact = export(of, "executorch-coreml", tmp_path / "c.pte", "fp16")
    assert artifact.notes[0].startswith("Core ML runs all "), artifact.notes
    assert b"CoreMLBackend" in artifact.path.read_bytes()
    assert {"before", "after"} <= set(artifact.scopes.values())


class Spectral(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).abs()


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("network", [Spectral, Branching])
def test_what_cannot_be_expressed_is_refused_in_one_line(network: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as refused:
        export(subject_of(network(), (3, 8, 8), name="odd"), "executorch", tmp_path / "o.pte")
    text = str(refused.value)
    assert text.startswith("odd: ") and "\n" not in text and len(text) < 400
    assert not (tmp_path / "o.pte").exists()


def test_a_missing_package_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "executorch.backends.xnnpack.partition.xnnpack_partitioner", None)
    with pytest.raises(UnavailableError, match=r"vitscope\[executorch\]"):
        export(subject_of(Spectral(), (3, 8, 8)), "executorch", tmp_path / "o.pte")


def test_exporting_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(subject_of(Movements(), (3, 8, 8)), "executorch", tmp_path / "m.pte")
    assert capfd.readouterr() == ("", "")
