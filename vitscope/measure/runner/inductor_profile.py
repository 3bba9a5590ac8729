"""Time of every kernel that Inductor calls, with the operations of the network that it says it made the kernel of.

Inductor's wrapper is Python: a line a kernel, which its tracking of provenance numbers (`[Provenance debug handles]
cpp_fused_gelu_3:7`). The model is compiled once more with that on, and its wrapper runs with the clock around each such
line. All of this is private to torch: where a piece is not as it is known here, that is said, and nothing guessed.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitscope.measure.runner.ops import op, typical

_WARM = 3  # inferences before the profile
_SOURCES = re.compile(
    r"# Topologically Sorted Source Nodes: \[(.*?)\], Original ATen: .*\n\s*# \[Provenance debug handles\] (\S+)\n"
)
_HANDLES = re.compile(r"#\s*\[Provenance debug handles\]\s*(.+)")
_COMPUTING = re.compile(r"conv\d?d?|linear|matmul|bmm|mm|addmm|einsum|scaled_dot_product_attention")
# What a wrapper calls beside kernels: buffers, views and checks.
_PLUMBING = frozenset({
    "empty_strided", "empty_strided_cpu", "empty_strided_cuda", "empty_strided_cpu_pinned", "reinterpret_tensor",
    "_reinterpret_tensor", "alloc_from_pool", "assert_size_stride", "assert_alignment", "clear", "get_raw_stream",
})  # fmt: skip


def profiled(
    module: Any, example: Any, mode: str | None, sync: Callable[[], None] | None, runs: int
) -> list[dict[str, Any]]:
    """Each kernel call in order. Raises RuntimeError where Inductor does not tell what it made a kernel of.

    Its names are those of a torch.export program, or `path::kind` of the calls in a module.
    """
    import torch

    named: list[dict[str, tuple[str, str]]] = []
    wrapper, kernels = _compiled(module, example, mode, named)
    if len(named) != 1:
        raise RuntimeError(f"torch.compile made {len(named)} graphs, not one")
    spans: list[float] = []
    wait = sync or (lambda: None)

    def begin() -> float:
        wait()
        return time.perf_counter()

    def end(began: float) -> None:
        wait()
        spans.append(time.perf_counter() - began)

    wrapper.__dict__["_vitscope_begin"], wrapper.__dict__["_vitscope_end"] = begin, end
    text = Path(wrapper.__file__).read_text(encoding="utf-8")
    marks, timed = _timed(wrapper, text)
    sources = {mark: nodes.split(", ") for nodes, mark in _SOURCES.findall(text)}
    call = type(wrapper.runner).call if hasattr(wrapper, "runner") else wrapper.call
    plain, call.__code__ = call.__code__, timed
    rounds = []
    try:
        with torch.inference_mode():
            for _ in range(_WARM + runs):
                spans.clear()
                module.vitscope_compiled(example)
                rounds.append(list(spans))
    finally:
        call.__code__ = plain
        del module.vitscope_compiled
    if any(len(taken) != len(marks) for taken in rounds):
        raise RuntimeError(f"Inductor's wrapper has {len(marks)} kernels and ran {len(rounds[0])}")
    found = []
    for place, mark in enumerate(marks):
        nodes = [node for handle in mark.split(", ") for node in _made_of(handle, kernels, sources, named[0])]
        names = list(dict.fromkeys(named[0][node][0] for node in nodes if node in named[0]))
        seconds = typical([taken[place] for taken in rounds[_WARM:]])
        found.append(op(mark, mark.split(":")[0], seconds, names))
    return found


def _made_of(
    handle: str, kernels: dict[str, Any], sources: dict[str, list[str]], named: dict[str, tuple[str, str]]
) -> list[str]:
    """The nodes of Dynamo's graph that the kernel `handle` is made of.

    A ready-made kernel (`extern_kernels.convolution:33`) is sometimes told by the change of layout behind it, which may
    be the next block's: there the node of its kind counts, of those that its line is said to come from.
    """
    told = kernels.get(handle, {})
    kernel = handle.partition(":")[0]
    if kernel.startswith(("cpp_", "triton_")):
        return told.get("pre_grad_nodes", [])
    kind = kernel.rpartition(".")[2]
    if any(node == kind or node.startswith(f"{kind}_") for node in told.get("post_grad_nodes", [])):
        return told.get("pre_grad_nodes", [])
    computing = [node for node in sources.get(handle, []) if _COMPUTING.match(named.get(node, ("", ""))[1])]
    return computing if len(computing) == 1 else []


def _compiled(module: Any, example: Any, mode: str | None, named: list[dict[str, tuple[str, str]]]) -> tuple[Any, Any]:
    """(the wrapper's module, kernel → what it is made of) of a compilation that ran once, kept at `vitscope_compiled`.

    `named` receives node → (name, kind) of each graph.
    """
    import torch
    from torch._functorch import config as aot
    from torch._inductor import config, debug
    from torch._inductor.codecache import PyCodeCache
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.graph import GraphLowering

    told: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        named.append(_names(module, graph))
        return compile_fx(graph, inputs)

    settings = {
        **(torch._inductor.list_mode_options(mode) if mode else {}),
        "trace.provenance_tracking_level": 1,
        "fx_graph_cache": False,  # a graph from the cache comes without its provenance
        "fx_graph_remote_cache": False,
        "triton.cudagraphs": False,
    }
    before, saved = len(PyCodeCache.modules), GraphLowering.save_output_code
    GraphLowering.save_output_code = staticmethod(  # called when the wrapper is written
        lambda code: told.append(debug.create_kernel_information_json())
    )
    try:
        with config.patch(settings), aot.patch({"enable_autograd_cache": False}), torch.inference_mode():
            forward = torch.compile(module, backend=backend)
            forward(example)
    finally:
        GraphLowering.save_output_code = saved
    wrappers = [made for made in PyCodeCache.modules[before:] if hasattr(made, "call")]
    if len(wrappers) != 1 or len(told) != 1:
        raise RuntimeError(f"Inductor wrote {len(wrappers)} wrappers, not one")
    object.__setattr__(module, "vitscope_compiled", forward)
    return wrappers[0], told[0]


def _names(module: Any, graph: Any) -> dict[str, tuple[str, str]]:
    """Node of Dynamo's `graph` → (what the exported file calls it, its kind)."""
    calls = [node for node in graph.graph.nodes if node.op in ("call_function", "call_method", "call_module")]
    if not hasattr(module, "graph"):
        return {
            node.name: (f"{path}::{_kind(node)}", _kind(node)) for node in calls if (path := _path(node)) is not None
        }
    # A program is straight: Dynamo meets its operations in their order, and gives them names of its own.
    own = [node for node in module.graph.nodes if node.op == "call_function"]
    if [node.target for node in own] != [node.target for node in calls]:
        raise RuntimeError("Dynamo's graph is not the exported one, operation by operation")
    return {node.name: (mine.name, _kind(node)) for node, mine in zip(calls, own)}  # noqa: B905  (Python 3.8)


def _kind(node: Any) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _path(node: Any) -> str | None:
    """The module that the call stands in, as named_modules() has it; None where Dynamo does not tell."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    path = str(next(reversed(stack.values()))[0])
    path = re.sub(r"^L\['(self|fn|mod)'\]\.?", "", path)
    path = re.sub(r"_modules\['([^']+)'\]", r"\1", path)
    return re.sub(r"\[(\d+)\]", r".\1", path).replace("..", ".")


def _timed(wrapper: Any, text: str) -> tuple[list[str], Any]:
    """(the mark of each kernel call in order, the code of `call` with the clock around them).

    A call that has no number of Inductor's and is no plumbing is timed too, marked by its text, and has no names.
    """
    handles = {number: found.group(1).strip() for number, line in enumerate(text.splitlines(), 1)
               if (found := _HANDLES.search(line))}  # fmt: skip
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "call"]
    if len(functions) != 1 or not handles:
        raise RuntimeError("Inductor's wrapper is not written as it is known here")
    waiting = sorted(handles)
    marks: list[str] = []

    def through(body: list[ast.stmt]) -> list[ast.stmt]:
        timed: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.With):
                statement.body = through(statement.body)
                timed.append(statement)
            elif _is_kernel(statement):
                of = [line for line in waiting if line < statement.lineno]
                mark = ", ".join(handles[line] for line in of) or ast.unparse(statement)[:60]
                del waiting[: len(of)]
                marks.append(mark)
                timed += [*_BEGIN, statement, *_END]
            else:
                timed.append(statement)
        return timed

    function = functions[0]
    waiting = [line for line in waiting if function.lineno < line <= (function.end_lineno or 0)]
    function.body = through(function.body)
    if waiting:
        raise RuntimeError("Inductor's wrapper numbers what is no call")
    alone = ast.fix_missing_locations(ast.Module(body=[function], type_ignores=[]))
    space: dict[str, Any] = {}
    exec(compile(alone, wrapper.__file__, "exec"), wrapper.__dict__, space)
    return marks, space["call"].__code__


_BEGIN = ast.parse("_vitscope_began = _vitscope_begin()").body
_END = ast.parse("_vitscope_end(_vitscope_began)").body


def _is_kernel(statement: ast.stmt) -> bool:
    calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}
    return bool(names - _PLUMBING)
