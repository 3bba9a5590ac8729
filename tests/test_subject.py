"""A Subject: the same values every time, a fused network that computes what the train form does, one line of error."""

from __future__ import annotations

import pytest
import torch
from networks import relative_error
from torch import nn

from vitscope.blocks.layers import LayerScale
from vitscope.errors import SpecError, UsageError
from vitscope.export.artifact import block_of
from vitscope.subject import load_subject, spread_constants, subject_of, take_statistics

SPEC = "mobileone_s0"


def outputs(subject, seed: int = 1):
    with torch.no_grad():
        return subject.module(subject.example(seed))


def test_values_and_noise_are_the_same_every_time():
    torch.manual_seed(123)
    first = load_subject(SPEC, resolution=(32, 32))
    torch.manual_seed(456)
    second = load_subject(SPEC, resolution=(32, 32))
    assert torch.equal(outputs(first), outputs(second)) and first.digest == second.digest
    assert not torch.equal(first.example(1), first.example(2))
    assert first.weights == "random, seed 0" and not first.module.training


@pytest.mark.parametrize("name", ["mobileone_s0", "efficientformerv2_s0"])
def test_deploy_computes_what_train_does(name):
    train = load_subject(name, form="train", resolution=(64, 64))
    deploy = load_subject(name, form="deploy", resolution=(64, 64))
    assert relative_error(outputs(deploy), outputs(train)) < 1e-4
    assert train.digest == deploy.digest and train.blocks == deploy.blocks
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in s.module.modules()) for s in (train, deploy)]
    assert norms[0] > 20 and norms[1] < norms[0]


def test_activations_keep_their_size():
    """With the statistics of untrained norms a deep network's signal dies, and half precision has nothing to hold."""
    subject = load_subject("efficientformerv2_s0", resolution=(64, 64))
    assert 1e-3 < outputs(subject).std().item() < 1e3
    assert relative_error(outputs(subject, 1), outputs(subject, 2)) > 0.1, "the image matters"


def test_every_parameter_lies_in_a_block():
    subject = load_subject(SPEC, resolution=(32, 32))
    assert subject.blocks[0] == "stem" and subject.blocks[-1] == "head" and "stages.0.blocks.0" in subject.blocks
    assert all(block_of(name, subject.blocks) for name, _ in subject.module.named_parameters())


def test_settings_and_sizes():
    plain = load_subject(SPEC, resolution=(32, 32))
    changed = load_subject(SPEC, resolution=(32, 48), overrides=["stages.2.depth=1"], batch=3)
    assert changed.input_shape == (3, 3, 32, 48) and changed.name == f"{SPEC} stages.2.depth=1"
    assert changed.digest != plain.digest and len(changed.blocks) < len(plain.blocks)
    assert outputs(changed).shape == (3, 1000)


def test_the_callers_module_stays_as_it_is():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    subject = subject_of(module, (3, 8, 8), name="mine", batch=2)
    assert module.training and all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not subject.module.training and subject.input_shape == (2, 3, 8, 8) and subject.digest == ""
    held = subject.module.state_dict()
    assert subject.weights == "as built" and all(torch.equal(before[name], tensor) for name, tensor in held.items())


def test_no_parameter_is_idle():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), LayerScale(4, 1e-5))
    drawn = module[0].weight.clone()
    spread_constants(module)
    assert torch.equal(module[0].weight, drawn), "what was drawn at random stays"
    gains, scales, shifts = module[1].weight, module[2].gamma, module[1].bias
    assert gains.unique().numel() == 4 and gains.min() >= 0.25 and gains.max() <= 0.75
    assert scales.unique().numel() == 4 and scales.min() >= 0.1 and scales.max() <= 0.3
    assert shifts.unique().numel() == 4 and shifts.abs().max() < 0.2


def test_every_block_of_a_subject_matters():
    """A network whose layer scales start at 1e-5: without one block its output is another."""
    subject = load_subject("efficientformerv2_s0", resolution=(64, 64))
    before = outputs(subject)
    subject.module.stages[2].blocks[1] = nn.Identity()
    assert relative_error(outputs(subject), before) > 1e-2


def test_statistics_are_those_of_the_noise_alone():
    module = nn.Sequential(nn.BatchNorm2d(3))
    module[0].running_mean.fill_(100)  # type: ignore[union-attr]
    module[0].momentum = 0.3
    take_statistics(module, (3, 64, 64))
    norm = module[0]
    assert norm.momentum == 0.3 and not norm.training
    assert norm.running_mean.abs().max() < 0.1 and (norm.running_var - 1).abs().max() < 0.1


def test_timm_and_callables_have_digests_of_their_arguments(timm):
    small = load_subject("torch.nn:Conv2d", kwargs={"in_channels": 3, "out_channels": 4, "kernel_size": 1},
                         input_size=(3, 8, 8))  # fmt: skip
    large = load_subject("torch.nn:Conv2d", kwargs={"in_channels": 3, "out_channels": 5, "kernel_size": 1},
                         input_size=(3, 8, 8))  # fmt: skip
    assert small.digest and small.digest != large.digest
    found = load_subject("timm:mobilenetv3_small_050", resolution=(64, 64))
    assert found.input_shape == (1, 3, 64, 64) and outputs(found).shape == (1, 1000)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (SPEC, {"kwargs": {"a": 1}}, "takes --set KEY=VALUE and --resolution"),
        (SPEC, {"input_size": (3, 8, 8)}, "takes --set KEY=VALUE and --resolution"),
        ("timm:resnet10t", {"overrides": ["a=1"]}, "is no spec; its arguments are given with --kwargs"),
        ("timm:resnet10t", {"weights": "x.pt"}, "its own code loads its weights"),
        ("torch.nn:Conv2d", {"kwargs": {"in_channels": 3}, "input_size": (3, 8, 8)}, "missing a required argument"),
        ("network.onnx", {}, "is an exported file already"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(model, options, message, timm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.onnx").write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        load_subject(model, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_that_cannot_run_is_one_line():
    with pytest.raises(UsageError, match="wide: its forward pass on 3×8×8 raised RuntimeError: ") as caught:
        subject_of(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), (3, 8, 8), name="wide")
    assert "\n" not in str(caught.value)


def test_a_wrong_setting_is_an_error_of_the_spec():
    with pytest.raises(SpecError, match="depht"):
        load_subject(SPEC, overrides=["stages.2.depht=1"])


def test_a_module_without_memory_is_refused():
    with torch.device("meta"):
        module = nn.Conv2d(3, 4, 1)
    with pytest.raises(UsageError, match="on the meta device"):
        subject_of(module, (3, 8, 8))
