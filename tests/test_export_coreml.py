"""Core ML programs: opened and inspected, since they predict on macOS only; each operation leads back to its module."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_package
from torch import nn

from vitscope.errors import UsageError
from vitscope.export import RefusedError, export
from vitscope.export.artifact import Artifact, Precision, block_of
from vitscope.export.inspect_coreml import RULES, Op, inspect
from vitscope.subject import Subject, load_subject, subject_of

ct = require_package("coremltools")


def exported(subject: Subject, folder: Path, precision: Precision = "fp16") -> Artifact:
    return export(subject, "coreml", folder / f"{precision}.mlpackage", precision)


@pytest.fixture(scope="module")
def network() -> Subject:
    return load_subject("efficientformerv2_s0", resolution=(64, 64))


@pytest.fixture(scope="module")
def artifact(network: Subject, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return exported(network, tmp_path_factory.mktemp("coreml"))


def test_a_half_precision_program_of_one_tensor_in_and_one_out(network: Subject, artifact: Artifact) -> None:
    found = inspect(artifact.path)
    assert found.inputs == {"image": (1, 3, 64, 64)} and found.outputs == {"logits": (1, 1000)}
    assert found.opset == "CoreML6", "iOS 16"
    assert set(found.dtypes) == {"float16"}, "nothing is converted at the edges"
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.module.modules())
    assert found.kinds["conv"] == convolutions
    assert found.kinds["softmax"] == 5  # one an attention of the deepest two stages at depth
    assert found.rank == 4
    assert list(artifact.path.parent.iterdir()) == [artifact.path], "nothing is left beside it"


def test_the_weights_are_two_bytes_a_parameter(network: Subject, artifact: Artifact) -> None:
    params = sum(p.numel() for p in network.module.parameters())
    stored = inspect(artifact.path).weight_bytes
    assert stored == pytest.approx(2 * params, rel=0.001), "but for constants that are folded"
    assert stored < artifact.num_bytes


def test_eight_bits_are_of_the_weights_alone(tmp_path: Path) -> None:
    subject = subject_of(nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)), (3, 16, 16))
    half, small = exported(subject, tmp_path), exported(subject, tmp_path, "int8")
    before, now = inspect(half.path), inspect(small.path)
    weights, biases = 3 * 64 * 9 + 64 * 64 * 9, 64 + 64
    assert before.weight_bytes == 2 * (weights + biases)
    # The first convolution has 1728 weights, under the 2048 from which coremltools quantises; each channel of the
    # second has a scale of two bytes and a zero point of one.
    assert now.weight_bytes == 2 * 3 * 64 * 9 + 64 * 64 * 9 + 2 * biases + 3 * 64
    assert now.kinds == before.kinds and set(now.dtypes) == {"float16"}
    assert any("weights only" in note for note in small.notes)
    assert small.scopes == half.scopes, "the names stay"


def test_single_precision_is_known_to_leave_the_neural_engine(tmp_path: Path) -> None:
    subject = subject_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 8, 8))
    single = exported(subject, tmp_path, "fp32")
    found = inspect(single.path, single.scopes)
    assert {finding.rule.key for finding in found.findings} == {"fp32"} and len(found.findings) == 2
    assert "may refuse conv 0: computes in fp32 (and 1 more)" in found.line()


@pytest.mark.parametrize("name", ["efficientformerv2_s0", "edgenext_xx_small"])
def test_every_operation_leads_to_a_block(name: str, network: Subject, artifact: Artifact, tmp_path: Path) -> None:
    made = artifact if name == network.name else exported(load_subject(name, resolution=(64, 64)), tmp_path)
    ops = inspect(made.path).ops
    mapped = [op for op in ops if block_of(made.scopes.get(op.name, ""), made.blocks)]
    assert len(mapped) >= 0.95 * len(ops)
    reached = {block_of(scope, made.blocks) for scope in made.scopes.values()}
    assert reached >= set(made.blocks), "each block has an operation"


def test_nothing_known_is_refused_of_a_network_made_for_it(artifact: Artifact) -> None:
    line = inspect(artifact.path, artifact.scopes).line()
    assert line == "198 ops, 6.74MB of weights, Neural Engine: nothing known to be refused"
    assert any(note.endswith(f": {line}") for note in artifact.notes)


class Hostile(nn.Module):
    """One of each thing that RULES knows of."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 3, 31, padding=15, groups=3)
        self.dilated = nn.Conv2d(3, 3, 3, padding=2, dilation=2)
        self.pool = nn.MaxPool2d(3, stride=3)
        self.up = nn.Upsample(scale_factor=4, mode="bilinear")
        self.large_pool = nn.AvgPool2d(15, stride=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.large_pool(self.up(self.pool(self.dilated(self.wide(x)))))
        x = x[:, torch.tensor([2, 0, 1])]
        return torch.relu(x.reshape(x.shape[0], 1, -1))


def test_each_rule_finds_what_it_is_for_and_says_where(tmp_path: Path) -> None:
    made = exported(subject_of(Hostile(), (3, 96, 96), name="hostile"), tmp_path)
    found = inspect(made.path, made.scopes)
    said = {finding.rule.key: str(finding) for finding in found.findings}
    assert said["kernel"] == "conv wide: kernel 31 > 13"
    assert said["dilation"] == "conv dilated: dilation 2"
    assert said["pool"] == "avg_pool large_pool: pool kernel 15 > 13"
    assert said["upsample"] == "upsample_bilinear up: upsampling ×4 > 2"
    assert said["gather"].startswith("gather")
    assert said["axis"].endswith("axis 38988 > 16384")
    assert set(said) == {rule.key for rule in RULES} - {"fp32", "rank"}, "coremltools itself refuses a rank above 5"
    assert any("pool stride 3 > 2" in str(finding) for finding in found.findings)
    line = found.line()
    assert "\n" not in line and "more kinds" in line


def test_a_rule_is_not_found_at_its_limit() -> None:
    limits = [
        Op("a", "conv", (1, 8, 9, 9), "float16", (8, 8, 13, 13), {"dilations": (1.0, 1.0)}),
        Op("b", "max_pool", (1, 8, 9, 9), "float16", None, {"kernel_sizes": (13.0, 13.0), "strides": (2.0, 2.0)}),
        Op("c", "upsample_bilinear", (1, 8, 18, 18), "float16", into=((1, 8, 9, 9),)),
        Op("d", "reshape", (1, 2, 3, 4, 16384), "float16"),
        Op("e", "cast", (1, 3), "float32"),
    ]
    assert [rule.finds(op) for rule in RULES for op in limits if rule.finds(op)] == []
    assert all(rule.source and rule.evidence in ("documented", "reported") for rule in RULES)
    high = replace(limits[3], shape=(1, 2, 3, 4, 5, 6))
    assert [rule.finds(high) for rule in RULES if rule.finds(high)] == ["rank 6 > 5"]
    over = replace(limits[0], weight=(8, 8, 1, 14))
    assert [rule.key for rule in RULES if rule.finds(over)] == ["kernel"]


@pytest.mark.parametrize(
    ("size", "factor", "corners"), [((7, 5), 2.0, False), ((4, 6), 3.0, True), ((8, 6), 0.5, False)]
)
def test_a_bicubic_resize_is_two_products(size: tuple[int, int], factor: float, corners: bool) -> None:
    from vitscope.export.coreml_ops import _matrix

    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    real = nn.functional.interpolate(x, scale_factor=factor, mode="bicubic", align_corners=corners)
    for after, scale in ((real.shape[-2:], (None, None)), ((None, None), (factor, factor))):
        down, across = (torch.from_numpy(_matrix(n, a, s, corners)) for n, a, s in zip(size, after, scale, strict=True))
        torch.testing.assert_close(down @ x @ across.T, real, rtol=1e-4, atol=1e-5)


class Resized(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.interpolate(x, size=(12, 16), mode="bicubic")
        return nn.functional.interpolate(torch.relu(y), scale_factor=2.0, mode="bicubic")


def test_core_ml_gets_the_bicubic_resizes_that_it_has_not(tmp_path: Path) -> None:
    made = exported(subject_of(Resized(), (3, 8, 8)), tmp_path)
    found = inspect(made.path)
    assert found.kinds == {"matmul": 4, "relu": 1} and found.outputs == {"logits": (1, 3, 24, 32)}


class Fourier(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def test_what_coremltools_cannot_convert_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RefusedError, match="bessel_j0") as caught:
        exported(subject_of(Fourier(), (3, 8, 8), name="fourier"), tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("fourier: coremltools cannot convert it: ")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_is_no_core_ml_package_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no Core ML package"):
        inspect(tmp_path / "absent.mlpackage")
    (tmp_path / "folder.mlpackage").mkdir()
    with pytest.raises(UsageError, match="is no Core ML package"):
        inspect(tmp_path / "folder.mlpackage")
