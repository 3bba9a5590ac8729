"""What holds of every network of the zoo: it trains at other sizes and in batches, and fusing keeps what it computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from networks import randomise, relative_error
from torch import Tensor, nn

from vitscope.errors import SpecError
from vitscope.model import build, fuse
from vitscope.spec import load_spec
from vitscope.spec.load import at_resolution
from vitscope.spec.value import Spec
from vitscope.spec.zoo import zoo_names

SIDES = (64, 96, 128, 160, 192, 256)


def smaller(name: str, number: int) -> list[Spec]:
    """The network for the first `number` square sizes that it takes and that are not its own."""

    def sizes() -> Iterator[Spec]:
        spec = load_spec(name)
        for side in SIDES:
            if (side, side) != spec.input[1:]:
                try:
                    yield at_resolution(spec, side, side)
                except SpecError:
                    continue

    found = [spec for spec, _ in zip(sizes(), range(number), strict=False)]
    assert len(found) == number
    return found


def outputs_of(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    result = model(x)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", zoo_names())
def test_trains_on_a_batch_at_two_further_sizes(name: str) -> None:
    for spec in smaller(name, 2):
        with torch.device("meta"):
            model = build(spec)
            outputs = outputs_of(model, torch.empty(2, *spec.input))
            sum((y.sum() for y in outputs), torch.zeros(())).backward()
        assert model.training and all(y.shape[0] == 2 for y in outputs)
        assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", zoo_names())
def test_fuse_keeps_the_outputs(name: str) -> None:
    (spec,) = smaller(name, 1)
    torch.manual_seed(0)
    model = build(spec).eval()
    randomise(model)
    model = model.double()  # so that what is left is no rounding
    x = torch.randn(2, *spec.input, dtype=torch.float64)
    with torch.no_grad():
        before = outputs_of(model, x)
        after = outputs_of(fuse(model), x)
    assert all(relative_error(a, b) < 1e-9 for a, b in zip(after, before, strict=True))
