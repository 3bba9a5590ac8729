"""torch.export programs and pickled modules: values, the module of each node, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import Calls, randomise
from torch import nn

from vitscope.export import RefusedError, export
from vitscope.export.agreement import agreement
from vitscope.export.program import exported, one_line, scope_of
from vitscope.export.torch import write_module
from vitscope.model import fuse
from vitscope.subject import Subject, load_subject, subject_of, take_statistics


@pytest.fixture
def tiny() -> Subject:
    """Two convolutions: what is about files, not networks, needs no more."""
    torch.manual_seed(0)
    return subject_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)), (3, 12, 12), name="tiny")


@pytest.mark.parametrize(("name", "form"), [("efficientformerv2_s0", "deploy"), ("mobileone_s0", "train")])
def test_a_program_computes_the_network_and_knows_its_modules(tmp_path, name, form):
    subject = load_subject(name, form="train", resolution=(64, 64))
    randomise(subject.module)
    take_statistics(subject.module, (3, 64, 64))
    subject = replace(subject, form=form, module=fuse(subject.module) if form == "deploy" else subject.module)
    artifact = export(subject, "torch", tmp_path / "x.pt2")
    found = agreement(subject, artifact)
    assert found.runtime == "torch" and found.holds and found.same_class == 1
    modules = dict(subject.module.named_modules())
    program = torch.export.load(str(artifact.path))
    names = [node.name for node in program.graph.nodes if node.op == "call_function"]
    assert set(names) == set(artifact.scopes) and set(artifact.scopes.values()) <= set(modules)
    convolutions = [artifact.scopes[name] for name in names if name.startswith("conv2d")]
    assert len(convolutions) == len(set(convolutions)) > 20
    assert all(isinstance(modules[scope], nn.Conv2d) for scope in convolutions)


def test_half_is_half_and_near(tmp_path, tiny):
    artifact = export(tiny, "torch", tmp_path / "x.pt2", "fp16")
    assert {value.dtype for value in torch.export.load(str(artifact.path)).state_dict.values()} == {torch.float16}
    found = agreement(tiny, artifact)
    assert found.holds and found.relative_error is not None and 1e-6 < found.relative_error < 1e-2
    assert {tensor.dtype for tensor in tiny.module.parameters()} == {torch.float32}, "the subject stays as it is"


def test_a_module_called_twice_keeps_its_path():
    act = nn.ReLU()
    subject = subject_of(Calls(lambda act, x: act(act(x) - 1), act), (3, 4, 4))
    scopes = [scope_of(node) for node in exported(subject).graph.nodes if node.op == "call_function"]
    assert scopes == ["layers.0", "", "layers.0"]


def test_control_flow_is_refused_in_one_line():
    subject = subject_of(Calls(lambda x: x if x.sum() > 0 else -x), (3, 4, 4), name="branch")
    with pytest.raises(RefusedError, match=r"^branch: torch\.export cannot follow it: \w+: ") as caught:
        exported(subject)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_the_first_of_many_lines():
    assert one_line(ValueError("a\n\n  b")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300


def test_a_pickled_module_is_the_module(tmp_path, tiny):
    written = write_module(tiny, tmp_path / "x.pt")
    loaded = torch.load(tmp_path / "x.pt", weights_only=False)
    assert not loaded.training and torch.equal(loaded(tiny.example()), tiny.module(tiny.example()))
    assert written.scopes == {"0": "0", "1": "1", "2": "2"}
    write_module(tiny, tmp_path / "half.pt", "fp16")
    assert next(torch.load(tmp_path / "half.pt", weights_only=False).parameters()).dtype == torch.float16


def test_a_module_that_cannot_be_pickled_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="local: its module cannot be pickled: "):
        write_module(subject_of(Calls(lambda x: x), (3, 4, 4), name="local"), tmp_path / "x.pt")
