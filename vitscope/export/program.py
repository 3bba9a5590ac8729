"""exported(subject, precision): the network as a torch.export program, and the module that each of its nodes came from.

Every format but a pickled module starts from this one trace, so that all of them execute the same operations.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

from vitscope.export import RefusedError
from vitscope.export.silence import silenced

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node

    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject

_CALL = re.compile(r"@\d+")  # torch.export tells a module's second call from its first as `act@1`


def exported(subject: Subject, precision: Precision = "fp32") -> ExportedProgram:
    """The program of `subject` in eval mode without gradients, for its own input shape.

    In fp16 weights, input and outputs are half; in int8 the program is the fp32 one, which a format's own tools
    quantise. `node.meta['nn_module_stack']` of its nodes holds the modules they stand in: see `scope_of`. Raises
    RefusedError where torch.export cannot follow the network.
    """
    import torch

    module, example = subject.module, example_input(subject, precision)
    if precision == "fp16":
        module = copy.deepcopy(module).half()
    try:
        with silenced(), torch.no_grad():
            return torch.export.export(module.eval(), (example,), strict=False)
    except Exception as error:
        raise RefusedError(f"{subject.name}: torch.export cannot follow it: {one_line(error)}") from error


def example_input(subject: Subject, precision: Precision = "fp32", seed: int = 1) -> torch.Tensor:
    """One batch of seeded noise in the type that the exported file takes: half for fp16, else float."""
    example = subject.example(seed)
    return example.half() if precision == "fp16" else example


def scope_of(node: Node) -> str:
    """The path of the innermost module that `node` stands in (`stages.2.blocks.3.mixer.qkv`); empty for the top."""
    stack = node.meta.get("nn_module_stack")
    return scope_in(stack) if stack else ""


def scope_in(stack: dict[str, tuple[str, object]]) -> str:
    """The innermost module path of an `nn_module_stack`, as torch.export wrote it."""
    path = next(reversed(stack.values()))[0] if stack else ""
    return _CALL.sub("", path.removeprefix("L['self']").removeprefix("."))


def one_line(error: BaseException, limit: int = 300) -> str:
    """An error of a converter in one line: its kind and the first of what may be many lines, cut at `limit`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {' '.join(lines)}" if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
