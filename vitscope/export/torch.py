"""torch: the torch.export program saved as `.pt2`, and the module itself pickled, which only this host can load."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from vitscope.export import RefusedError, Written
from vitscope.export.program import exported, one_line, scope_of

if TYPE_CHECKING:
    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject


def write(subject: Subject, path: Path, precision: Precision) -> Written:
    """Write the program of `subject` to `path`. In fp16 weights, input and outputs are half. Raises RefusedError."""
    import torch

    program = exported(subject, precision)
    torch.export.save(program, str(path))
    scopes = {node.name: scope_of(node) for node in program.graph.nodes if node.op == "call_function"}
    notes = ("input and outputs are float16",) if precision == "fp16" else ()
    return Written(tools=f"torch {torch.__version__}", scopes=scopes, notes=notes)


def write_module(subject: Subject, path: Path, precision: Precision = "fp32") -> Written:
    """Pickle the module of `subject` to `path` (`.pt`): eager timing needs its own code, not a program made of it.

    Only a process that can import the classes loads it, and loading runs code: for files of this host alone. The
    scopes are the module paths themselves. Raises RefusedError where it cannot be pickled.
    """
    import pickle

    import torch

    module = copy.deepcopy(subject.module).half() if precision == "fp16" else subject.module
    try:
        torch.save(module.eval(), str(path))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RefusedError(f"{subject.name}: its module cannot be pickled: {one_line(error)}") from error
    scopes = {name: name for name, _ in module.named_modules() if name}
    return Written(tools=f"torch {torch.__version__}", scopes=scopes)
