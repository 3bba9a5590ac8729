"""Bytes read and written, activations and peak memory, against graphs small enough to follow by hand."""

from __future__ import annotations

import pytest
import torch
from networks import Calls, zoo_graph
from torch import Tensor, nn

from vitscope.cost.traffic import activations, peak_activation_bytes, read_bytes, write_bytes
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace

F32 = 4  # bytes


def graph_of(module: nn.Module, *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Graph:
    module = module.to("meta", dtype) if dtype.is_floating_point else module.to("meta")
    return trace(module, *(torch.empty(shape, device="meta", dtype=dtype) for shape in shapes))


def traffic(graph: Graph) -> list[tuple[str, int, int]]:
    """(operation, bytes read, bytes written) of every operation that is more than a view."""
    return [(op.op, read_bytes(graph, op), write_bytes(graph, op)) for op in graph.ops if not op.is_view]


def test_a_convolution_reads_input_weight_and_bias_and_writes_its_output() -> None:
    graph = graph_of(nn.Conv2d(3, 16, 3, stride=2, padding=1), (1, 3, 32, 32))
    reads = (3 * 32 * 32 + 16 * 3 * 9 + 16) * F32
    assert traffic(graph) == [("convolution", reads, 16 * 16 * 16 * F32)]


def test_half_precision_is_half_the_bytes() -> None:
    graph = graph_of(nn.Conv2d(3, 16, 3, stride=2, padding=1), (1, 3, 32, 32), dtype=torch.float16)
    assert traffic(graph) == [("convolution", (3 * 32 * 32 + 16 * 3 * 9 + 16) * 2, 16 * 16 * 16 * 2)]


def test_a_batch_norm_reads_its_statistics_and_writes_one_output() -> None:
    graph = graph_of(nn.BatchNorm2d(8), (1, 8, 4, 4))
    assert traffic(graph) == [("native_batch_norm", (8 * 16 + 4 * 8) * F32, 8 * 16 * F32)]


def test_the_same_operand_twice_is_read_once() -> None:
    graph = graph_of(Calls(lambda x: x * x), (10, 10))
    assert traffic(graph) == [("mul", 100 * F32, 100 * F32)]


def test_views_move_nothing_and_what_reads_them_reads_what_they_show() -> None:
    graph = graph_of(Calls(lambda x: x[:, :3].transpose(0, 1) + 1), (10, 10))
    assert [op.op for op in graph.ops if op.is_view] == ["slice", "transpose"]
    assert traffic(graph) == [("add", 30 * F32, 30 * F32)]


def test_a_reshape_that_copies_is_no_view() -> None:
    graph = graph_of(Calls(lambda x: x.transpose(0, 1).reshape(-1)), (10, 20))
    assert traffic(graph) == [("clone", 200 * F32, 200 * F32)]


def test_linear_on_tokens() -> None:
    graph = graph_of(nn.Linear(8, 32), (2, 49, 8))
    assert traffic(graph) == [("addmm", (2 * 49 * 8 + 8 * 32 + 32) * F32, 2 * 49 * 32 * F32)]


def test_activations_are_outputs_of_convolution_linear_and_matmul_alone() -> None:
    graph = graph_of(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(128, 5)),
        (1, 3, 8, 8),
    )
    assert sum(activations(graph, op) for op in graph.ops) == 8 * 4 * 4 + 5


# --- Peak memory. Sides of 100 elements, so that bytes are 400 a tensor; the comment is what is alive at the peak. ---

N = 100 * F32


def peak_of(function, *shapes: tuple[int, ...], layers: tuple[nn.Module, ...] = ()) -> int:
    return peak_activation_bytes(graph_of(Calls(function, *layers), *shapes))


def in_place(x: Tensor) -> Tensor:
    y = x + 1
    y.relu_()
    return y.mul_(2)


def kept_view(x: Tensor) -> Tensor:
    y = x + 1
    part = y[:5]  # keeps all of y alive
    z = (x * 2).exp()
    return z[:5] + part


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + 1, 2 * N),  # x and the sum
        (lambda x: ((x + 1) * 2).exp(), 2 * N),  # each with its successor; x is gone by then
        (lambda x: x + (x + 1).exp(), 3 * N),  # x, its sum and the exponential
        (lambda x: x + (x + 1).exp().sigmoid(), 3 * N),  # one at a time beside x
        (lambda x: torch.cat([x, x + 1, x + 2]), 6 * N),  # x, both sums, and the three times larger whole
        (lambda x: [x + 1, x + 2, x + 3], 4 * N),  # all three are outputs: they stay
        (lambda x: (x + 1).view(-1).view(10, 10).exp(), 2 * N),  # views add nothing
        (in_place, 2 * N),  # in-place steps neither
        (kept_view, 3 * N),  # x, y and x * 2; then y, which its part keeps, x * 2 and the exponential
    ],
    ids=[
        "sum",
        "chain",
        "residual",
        "long residual",
        "concatenation",
        "three outputs",
        "views",
        "in place",
        "kept view",
    ],
)
def test_peak_memory(function, expected: int) -> None:
    assert peak_of(function, (10, 10)) == expected


def test_parameters_and_what_is_computed_from_them_are_no_activations() -> None:
    linear = nn.Linear(10, 10, bias=False)
    assert peak_of(lambda layer, x: x @ (layer.weight * 2).exp(), (10, 10), layers=(linear,)) == 2 * N


def test_an_input_that_is_never_read_stays() -> None:
    assert peak_of(lambda x, y: (x + 1).exp(), (10, 10), (10, 10)) == 3 * N


def test_peak_of_a_residual_ffn() -> None:
    # x stays for the residual beside the two widest maps, before and after an activation (or a norm).
    graph = zoo_graph("efficientformerv2_s0")
    assert peak_activation_bytes(graph) == (32 * 56 * 56 + 2 * 4 * 32 * 56 * 56) * F32


def test_peak_grows_with_the_batch() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GELU())
    one, five = (peak_activation_bytes(graph_of(layers, (batch, 3, 32, 32))) for batch in (1, 5))
    assert one == max(3 * 32 * 32 + 8 * 16 * 16, 2 * 8 * 16 * 16) * F32
    assert five == 5 * one
