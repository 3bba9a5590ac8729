"""contents(path): what a .pt2 file says of its input, its weights and its operations, read by torch.export.load."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vitscope.export.opened import Contents, FileOp, Input
from vitscope.export.program import scope_of


def contents(path: Path) -> Contents:
    """Raises what torch.export.load raises for bytes that are no program."""
    import torch

    program = torch.export.load(str(path))
    given = set(program.graph_signature.user_inputs)
    inputs = tuple(
        Input(str(node.name), tuple(side if isinstance(side, int) else None for side in value.shape), _dtype(value))
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in given and isinstance(value := node.meta.get("val"), torch.Tensor)
    )
    weights: Counter[str] = Counter()
    for value in (*program.state_dict.values(), *program.constants.values()):
        if isinstance(value, torch.Tensor) and (value.is_floating_point() or value.dtype in (torch.int8, torch.uint8)):
            weights[_dtype(value)] += value.numel()
    ops = tuple(FileOp((str(node.name),), scope_of(node)) for node in program.graph.nodes if node.op == "call_function")
    return Contents(inputs=inputs, weights=weights, ops=ops)


def _dtype(value: object) -> str:
    return str(getattr(value, "dtype", "")).removeprefix("torch.")
