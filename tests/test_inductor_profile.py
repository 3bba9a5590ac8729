"""torch.compile's kernels, each told to the block that Inductor says it made it of; what it does not tell is not guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import attribute, block_of_op
from vitscope.measure.record import OpTime
from vitscope.measure.runner import inductor_profile, torch_compile

BLOCKS = ("stem", "body.0", "body.1", "head")
MESSAGE = {"input_shape": [1, 3, 16, 16], "threads": 1, "precision": "fp32", "unit": "cpu"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.act_after_conv = nn.Conv2d(8, 8, 3, padding=1), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act_after_conv(self.mix(x))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.fc((tokens @ tokens.transpose(1, 2) @ tokens).mean(1))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = (
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.Sequential(Block(), Block()),
            Head(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)))


@pytest.mark.parametrize("form", ["pt", "pt2"])
def test_every_kernel_belongs_to_the_block_that_it_computes(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Network().eval(), tmp_path / f"net.{form}"
    if form == "pt":
        torch.save(module, path)
        scopes = {name: name for name, _ in module.named_modules() if name}
    else:
        program = torch.export.export(module, (torch.zeros(1, 3, 16, 16),))
        torch.export.save(program, path)
        scopes = {node.name: _path(node) for node in program.graph.nodes if node.op == "call_function"}
    artifact = Artifact(
        path=path, format="torch", model="net", digest="", form="deploy", precision="fp32", input_shape=(1, 3, 16, 16),
        blocks=BLOCKS, weights="random", tools="", scopes=scopes,
    )  # fmt: skip
    model = torch_compile.load(str(path), MESSAGE)
    (expected,) = model.outputs()
    found = model.op_times(3)
    assert found is not None and found[0] == "measured"
    ops = [OpTime(**{**op, "names": tuple(op["names"])}) for op in found[1]]
    ready_made = [(op.name, block_of_op(op, artifact)) for op in ops if op.name.startswith("extern_kernels")]
    convolutions = [block for name, block in ready_made if ".convolution" in name]
    assert convolutions == ["stem", "body.0", "body.1"]
    products = [block for name, block in ready_made if ".convolution" not in name]
    assert len(products) >= 2 and set(products) == {"head"}
    across = [op for op in ops if len({_block(path) for path in _paths(op, scopes)}) > 1]
    assert across and {block_of_op(op, artifact) for op in across} <= {
        "body.0",
        "body.1",
    }  # a sum, and a convolution's own
    assert attribute("measured", ops, artifact, 1.0, "Inductor").unexplained == 0
    assert all(op.seconds > 0 for op in ops)
    np.testing.assert_array_equal(model.outputs()[0], expected)  # the clock is out of its wrapper again


def _path(node: Any) -> str:
    return str([*node.meta["nn_module_stack"].values()][-1][0])


def _paths(op: OpTime, scopes: dict[str, str]) -> list[str]:
    return [scopes.get(name, name.partition("::")[0]) for name in op.names]


def _block(path: str) -> str:
    return next((block for block in BLOCKS if f"{path}.".startswith(f"{block}.")), "")


def test_a_kernel_of_unknown_making_has_no_names() -> None:
    named = {"conv": ("a::conv2d", "conv2d"), "flatten": ("b::flatten", "flatten"), "fc": ("b::linear", "linear")}

    def told(sources: list[str], post: list[str]) -> list[str]:
        kernels = {"extern_kernels.convolution:3": {"post_grad_nodes": post, "pre_grad_nodes": ["flatten"]}}
        return inductor_profile._made_of(
            "extern_kernels.convolution:3", kernels, {"extern_kernels.convolution:3": sources}, named
        )

    assert told([], ["convolution_1"]) == ["flatten"]  # Inductor's word, where it is of the kernel's kind
    assert told(["flatten", "conv"], ["view_1"]) == ["conv"]  # its output's change of layout is the next block's
    assert told(["conv", "fc"], ["view_1"]) == []
    assert told([], ["view_1"]) == []


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.sin(x)
        torch._dynamo.graph_break()
        return torch.cos(x)


def test_a_network_in_several_graphs_is_refused(tmp_path: Path) -> None:
    torch.save(Broken(), tmp_path / "broken.pt")
    model = torch_compile.load(str(tmp_path / "broken.pt"), MESSAGE)
    with pytest.raises(RuntimeError, match="2 "):
        model.op_times(1)
    assert model.outputs()[0].shape == (1, 3, 16, 16)
