"""The proof of a network beside timm's: logits, counts, the deploy form, a step of training; a family test calls these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomise, relative_error, zoo_graph, zoo_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitscope.cost.ops import macs
from vitscope.errors import SpecError
from vitscope.graph.record import Graph
from vitscope.model import build, fuse, fuse_in_place
from vitscope.spec import load_spec
from vitscope.weights import load_state

TOLERANCE = 1e-5
FOLD_TOLERANCE = 1e-9  # of float64
Size = tuple[int, int]  # height, width


def named_sizes(table: Sequence[tuple[Any, ...]]) -> list[Any]:
    """A test for each network of `table`, whose rows begin with its name and end with the sizes to prove it at."""
    return [pytest.param(row[0], size, id=f"{row[0]}-{size[0]}x{size[1]}") for row in table for size in row[-1]]


def part(graph: Graph, *prefixes: str) -> tuple[int, int]:
    """Params and MACs of the modules under any of `prefixes`; without one, of all."""
    under = prefixes or ("",)
    found = [macs(graph, op) for op in graph.ops if f"{op.scope}.".startswith(under)]
    assert None not in found
    return sum(p.numel for p in graph.params if p.name.startswith(under)), sum(count or 0 for count in found)


def pair(timm: ModuleType, name: str, size: Size, sized: bool = True) -> tuple[nn.Module, nn.Module]:
    """timm's network with random values, told the size if it must be, and ours with its weights."""
    torch.manual_seed(0)  # convolutions keep the values that they are made with
    theirs = timm.create_model(name, **({"img_size": size} if sized else {})).eval()
    randomise(theirs)
    ours = zoo_model(name, size)
    load_state(ours, theirs.state_dict())
    return theirs, ours


def same_logits(timm: ModuleType, name: str, size: Size, sized: bool = True) -> None:
    """Ours with timm's weights gives timm's logits on a batch of two, and so does its deploy form.

    The deploy form is held against ours in float64: in float32 a deep network with random values may be further than the
    tolerance from its own exact result, and folding would be blamed for the rounding.
    """
    theirs, ours = pair(timm, name, size, sized)
    x = images(*size)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.shape == (2, 1000)
        assert relative_error(ours(x), expected) < TOLERANCE
        exact = ours.double()
        assert relative_error(fuse(exact)(x.double()), exact(x.double())) < FOLD_TOLERANCE
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def same_as_formulas(
    name: str, size: Size, reference: Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor], *shape: int
) -> None:
    """With random values, ours and its deploy form give what `reference` computes from them, of `shape` an image."""
    model, x = zoo_model(name, size), images(*size)
    randomise(model)
    with torch.no_grad():
        expected = reference(model.state_dict(), x)
        assert expected.shape == (2, *shape)
        assert relative_error(model(x), expected) < TOLERANCE
        assert relative_error(fuse(model)(x), expected) < TOLERANCE


def breaks_parity(
    timm: ModuleType, name: str, mistake: Callable[[Any], None], size: Size = (64, 64), sized: bool = True
) -> None:
    """With `mistake` made in ours, it no longer gives timm's logits: the proof of parity could fail."""
    theirs, ours = pair(timm, name, size, sized)
    mistake(ours)
    x = images(*size)
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) > TOLERANCE


def refused(folder: Path, text: str, match: str) -> None:
    """A spec file of this text is refused, and the message says why."""
    spec = folder / "bad.yaml"
    spec.write_text(text)
    with pytest.raises(SpecError, match=match):
        load_spec(spec)


def counts(name: str, params: int, core: int) -> None:
    """Our trace at the network's own input has these counts, and torch's counter agrees; so does the deploy form's."""
    spec = load_spec(name)
    with torch.device("meta"):
        model, x = build(spec).eval(), torch.empty(1, *spec.input)
        with FlopCounterMode(display=False) as counter:
            model(x)
        fuse_in_place(model)
        with FlopCounterMode(display=False) as deployed:
            model(x)
    assert part(zoo_graph(name)) == (params, core)
    assert counter.get_total_flops() == 2 * core
    assert deployed.get_total_flops() <= 2 * core
    assert not any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in model.modules())
    assert sum(p.numel() for p in model.parameters()) <= params


def loss(outputs: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy; of a pair, summed over both heads."""
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.stack([F.cross_entropy(head, labels) for head in heads]).sum()


def trains(name: str, size: Size, grid: Size | None = None) -> None:
    """A backward pass in train form reaches every parameter; `grid` is that of the labels of a dense head."""
    model = zoo_model(name, size).train()
    randomise(model)  # a layer scale of 1e-6 would leave gradients too small to tell from none
    labels = torch.tensor([3, 700])
    if grid is not None:
        labels = torch.randint(150, (2, *grid), generator=torch.Generator().manual_seed(0))
    loss(model(images(*size)), labels).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def trains_on_meta(name: str, size: Size) -> None:
    """As `trains`, by shapes alone."""
    with torch.device("meta"):
        model = build(load_spec(name, resolution=size)).train()
        outputs = model(torch.empty(2, 3, *size))
        sum(head.sum() for head in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
