"""Why counters disagree: each tool's answer as our count plus terms that are computed from the same graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vitscope.cost.ops import base_name, macs, op_class
from vitscope.graph.record import Graph, OpRecord
from vitscope.graph.store import block_graph
from vitscope.spec import load_spec
from vitscope.spec.flow import flow


def _graphs() -> list[Graph]:
    return [block_graph(place.block, place.in_shape) for place in flow(load_spec("efficientformerv2_s1"))]


def _total(value: Callable[[Graph, OpRecord], int]) -> int:
    return sum(value(graph, op) for graph in _graphs() for op in graph.ops)


def _written(names: Iterable[str]) -> int:
    """Output elements of the operations called one of `names`."""
    return _total(lambda g, op: g.tensors[op.outputs[0]].numel if base_name(op) in names else 0)


def _conv_bias() -> int:
    return _total(
        lambda g, op: g.tensors[op.outputs[0]].numel if op_class(g, op) == "conv" and len(op.inputs) > 2 else 0
    )


def _linear_bias() -> int:
    return _written({"addmm"})


def _matmul() -> int:
    return _total(lambda g, op: (macs(g, op) or 0) if op_class(g, op) == "matmul" else 0)


def _norm_params() -> int:
    return sum(p.numel for graph in _graphs() for p in graph.params if ".norm." in f".{p.name}")


def _mul() -> int:
    return _written({"mul"})


# Tool → what it adds to conv + linear + matmul: sign and name of each term.
TERMS: dict[str, tuple[tuple[str, Callable[[], int]], ...]] = {
    "torch FlopCounterMode": (),
    "fvcore": (
        ("2 per element of BatchNorm", lambda: 2 * _written({"native_batch_norm"})),
        ("4 per output element of bilinear resize", lambda: 4 * _written({"upsample_bilinear2d"})),
    ),
    "ptflops (aten)": (
        ("1 per output element of a convolution with bias", _conv_bias),
        ("1 per output element of a linear layer with bias", _linear_bias),
    ),
    "calflops": (("attention's matmuls are missing", lambda: -_matmul()),),
    "torchinfo": (
        ("attention's matmuls are missing", lambda: -_matmul()),
        ("1 per output element of a convolution with bias", _conv_bias),
        ("1 per output element of a linear layer with bias", _linear_bias),
        ("the parameters of each norm", _norm_params),
    ),
    "torchprofile": (
        ("1 per element of BatchNorm", lambda: _written({"native_batch_norm"})),
        ("4 per output element of bilinear resize", lambda: 4 * _written({"upsample_bilinear2d"})),
        ("1 per element of a multiplication", _mul),
        ("1 per output element of pooling and means", lambda: _written({"mean", "avg_pool2d"})),
    ),
}


def reconciliation(answers: dict[str, int], reference: int) -> str:
    """A Markdown table: each tool's difference as a sum of terms, and what these leave unexplained."""
    lines = [
        "### Why they disagree",
        "",
        "Every term is computed from the network's own graph; *rest* is what the terms do not explain. (torchprofile's few",
        "are multiplications of shapes, which its trace records as operations.)",
        "",
        "| tool | difference | terms | rest |",
        "|---|---:|---|---:|",
    ]
    for tool, answer in answers.items():
        terms = [(text, term()) for text, term in TERMS[tool]]
        rest = answer - reference - sum(value for _, value in terms)
        listed = "; ".join(f"{value:+,} {text}" for text, value in terms) or "none"
        lines.append(f"| {tool} | {answer - reference:+,} | {listed} | {rest:,} |")
    return "\n".join(lines)
