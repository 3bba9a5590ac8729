"""The house's rules, proven from the source: imports go one way, torch stays behind its doors, every file says what it is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vitscope"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Each may import what stands before it, and its own package. A name means a module and all that is inside it; of two
# that fit, the longer counts.
LAYERS = (
    ("errors", "units"),
    ("graph.record", "report.table"),
    ("spec",),
    ("cost",),
    ("latency",),
    ("blocks",),
    ("model",),
    ("graph",),
    ("sources",),
    ("weights",),
    ("subject",),
    ("export",),
    ("measure",),
    ("results",),
    ("pareto",),
    ("parts",),
    ("foreign",),
    ("estimate", "profile"),
    ("calibrate",),
    ("compare", "prototype", "catalogue"),
    ("report", "plot"),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TORCH_AT_TOP = (
    "blocks",
    "model",
    "weights",
    "graph.trace",
    "graph.meta",
    "sources.tree",
    "sources.build",
    "sources.module",
    "subject",
    "calibrate.probe",
    "calibrate.probe_build",
    "calibrate.probe_modules",
    "calibrate.block_probe",
    "calibrate.exporter",
    "calibrate.timer",
    "calibrate.calibration",
)
# An adapter imports its runtime or its format's tools inside its functions: they are optional.
TORCH_INSIDE_FUNCTIONS = ("graph.store", "profile", "foreign", "estimate", "export", "measure", *TORCH_AT_TOP)
TORCH = {
    "torch", "torchvision", "timm", "fvcore", "coremltools", "executorch", "litert_torch", "safetensors",
    "onnx", "onnxruntime", "openvino", "ai_edge_litert",
}  # fmt: skip
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "base", "manager", "handler"}


def unit(module: str) -> str | None:
    """The entry of LAYERS that a module belongs to."""
    parts = module.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in RANK), None)


def is_in(module: str, units: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in units)


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Full names of what a piece of source imports, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name.removeprefix("vitscope.") in MODULES else str(node.module)), node.lineno


def imported_at_top(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What is imported when the module is: all but the bodies of functions and of `if TYPE_CHECKING`."""
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(ast.Module([node], []))
        pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        for handler in getattr(node, "handlers", []):
            pending += handler.body


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    here = unit(module)
    if module == "__init__":
        for name, line in imported_at_top(parsed(module)):
            assert name.partition(".")[0] in sys.stdlib_module_names, f"{module}:{line} imports {name}"
        return
    assert here is not None, f"{module} has no place in LAYERS"
    for name, line in imported(parsed(module)):
        inner = name.removeprefix("vitscope.")
        if inner == name or name == "vitscope":  # not ours, or __version__
            continue
        there = unit(inner)
        assert there is not None, f"{module}:{line} imports {name}, which has no place in LAYERS"
        assert there == here or RANK[there] < RANK[here], f"{module}:{line} imports {name}, which comes after it"


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_imported_only_where_tensors_are(module: str) -> None:
    tree = parsed(module)
    if not is_in(module, TORCH_AT_TOP):
        for name, line in imported_at_top(tree):
            assert name.partition(".")[0] not in TORCH, f"{module}:{line} imports {name} when it is imported"
            assert not is_in(name.removeprefix("vitscope."), TORCH_AT_TOP), (
                f"{module}:{line} imports {name}, and so torch"
            )
    if not is_in(module, TORCH_INSIDE_FUNCTIONS):
        for name, line in imported(tree):
            assert name.partition(".")[0] not in TORCH, f"{module}:{line} imports {name}"


def test_the_table_writer_and_the_record_stand_alone() -> None:
    for module in ("report.table", "graph.record", "errors", "units"):
        for name, line in imported_at_top(parsed(module)):
            assert name.partition(".")[0] in sys.stdlib_module_names, f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_every_file_says_first_what_it_is_for(module: str) -> None:
    tree = parsed(module)
    text = ast.get_docstring(tree)
    assert text, f"{module} has no docstring"
    first = text.splitlines()[0]
    assert len(first) > 20, f"{module}: {first!r} says little"
    assert not NAMES_THAT_SAY_NOTHING & set(module.split(".")), f"{module} is named after nothing in it"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("blocks.")])
def test_every_family_of_blocks_cites_its_paper(module: str) -> None:
    assert "arXiv" in (ast.get_docstring(parsed(module)) or "")


def test_the_checks_see_what_they_are_to_see() -> None:
    source = """
import a
if x:
    import b
def f():
    import c
try:
    import d
except E:
    import e
class K:
    import g
if TYPE_CHECKING:
    import h
from vitscope.spec import flow, Spec
"""
    assert {name for name, _ in imported_at_top(ast.parse(source))} == {*"abdeg", "vitscope.spec.flow", "vitscope.spec"}
    assert {name for name, _ in imported(ast.parse(source))} >= {*"abcdegh"}
    assert unit("graph.record") == "graph.record" and unit("graph.trace") == "graph" and unit("nowhere") is None
