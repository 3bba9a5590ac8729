"""Networks for the tests that need values: built from the zoo, with everything randomised that default init hides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.model import Model, build
from vitscope.spec import load_spec
from vitscope.spec.zoo import zoo_names

# Learned tokens, positions and attention biases, by their names in timm and here
TABLES = {"attention_biases", "table", "relative_position_bias_table", "cls_token", "dist_token", "pos_embed"}


class Calls(nn.Module):
    """A function of layers and tensors as a module: `Calls(lambda conv, x: conv(x) + x, nn.Conv2d(3, 3, 1))`."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*self.layers, *inputs)


# The networks that every part of vitscope is proven on; each later family has its own file in tests/families.
FOUNDERS = tuple(name for name in zoo_names() if name.startswith(("efficientformer", "mobilenetv2_")))


def zoo_model(name: str, resolution: tuple[int, int] | None = None, overrides: tuple[str, ...] = ()) -> Model:
    """A network of the zoo in eval mode, on the CPU."""
    model = build(load_spec(name, overrides, resolution=resolution))
    return model.eval()  # type: ignore[return-value]


def zoo_graph(name: str, resolution: tuple[int, int] | None = None) -> Graph:
    """The train-form Graph of a network of the zoo, traced whole on the meta device."""
    spec = load_spec(name, resolution=resolution)
    with torch.device("meta"):
        return trace(build(spec), torch.empty(1, *spec.input))


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every tensor values that matter: norm statistics and gains, biases, layer scales, tables of attention bias.

    With default values a block whose layer scale is 1e-5 adds nothing to the output, and a wrong one goes unnoticed.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    def normal(tensor: Tensor, deviation: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation)

    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            kind = name.rpartition(".")[2]
            if kind == "running_mean":
                normal(tensor, 0.2)
            elif kind == "running_var":
                uniform(tensor, 0.5, 1.5)
            elif kind == "num_batches_tracked":
                tensor.fill_(7)
            elif kind in TABLES:
                normal(tensor, 1.0)
            elif kind in ("gamma", "gamma_xca", "scale"):
                uniform(tensor, 0.1, 0.5)
            elif kind == "bias":
                normal(tensor, 0.1)
            elif kind == "temperature" or (kind == "weight" and tensor.dim() == 1):
                uniform(tensor, 0.5, 1.5)
            elif kind == "weight" and tensor.dim() == 2:
                normal(tensor, tensor.shape[1] ** -0.5)


def images(height: int, width: int, batch: int = 2, seed: int = 1) -> Tensor:
    """A batch of noise."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
