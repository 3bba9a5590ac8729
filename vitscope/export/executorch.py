"""ExecuTorch with XNNPACK: a network as a `.pte` file, lowered from the torch.export program that all formats share.

Graph steps of our own precede the lowering, all without effect on values. Tables of attention bias are gathered once (they
are constants), and movements of data are said in the words that XNNPACK has; torch writes an expansion to its own shape
around every 4-D matmul, and each would end one delegate and begin another. GELU by tanh and norms of groups are written
out, which ExecuTorch 1.4 computes otherwise. A network in one piece runs faster, and is lowered several times faster,
since every piece is lowered by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.export import RefusedError, Written
from vitscope.export.program import exported, one_line, scope_of
from vitscope.export.silence import silenced

if TYPE_CHECKING:
    from vitscope.export.artifact import Precision
    from vitscope.subject import Subject

_CALIBRATION_SAMPLES = 4
_TANH = 0.7978845608028654  # sqrt(2/π), of GELU by tanh


def write(subject: Subject, path: Path, precision: Precision) -> Written:
    """Write `subject` to `path`. Raises RefusedError for what ExecuTorch cannot express."""
    with silenced():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    notes = []
    if precision == "fp16":
        notes.append(
            "input, output and arithmetic in fp16; weights too, but ExecuTorch stores those of convolutions in fp32"
        )
    if precision == "int8":
        notes.append(
            f"int8 weights per channel and activations per tensor (PT2E, XNNPACKQuantizer), calibrated on "
            f"{_CALIBRATION_SAMPLES} batches of noise: for time, not for accuracy; input and output stay fp32"
        )
    lowered = lower(subject, precision, [XnnpackPartitioner()], _written_out())
    path.write_bytes(lowered.content)
    notes.append(f"XNNPACK {lowered.delegation}")
    return Written(tools=f"executorch {version('executorch')}", scopes=lowered.scopes, notes=tuple(notes))


class Lowered:
    """A program that was given to a backend: the file's bytes, its names, and how much of it the backend took."""

    def __init__(self, content: bytes, scopes: dict[str, str], taken: int, left: Counter[str], parts: int):
        self.content, self.scopes, self.taken, self.left, self.parts = content, scopes, taken, left, parts

    @property
    def delegation(self) -> str:
        """How much the backend took, as the rest of a sentence that begins with its name."""
        total = self.taken + sum(self.left.values())
        if not self.left:
            return f"runs all {total} operations" + (f" in {self.parts} parts" if self.parts > 1 else "")
        named = ", ".join(f"{kind}×{number}" if number > 1 else kind for kind, number in self.left.items())
        return f"runs {self.taken} of {total} operations in {self.parts} parts; not {named}"


def lower(
    subject: Subject, precision: Precision, partitioners: Sequence[Any], decompositions: Mapping[Any, Any] | None = None
) -> Lowered:
    """`subject` as an ExecuTorch program whose parts `partitioners` gave to their backend, after `decompositions`.

    Raises RefusedError for what torch.export or ExecuTorch cannot express, ImportError where it is not installed.
    """
    with silenced():
        from executorch.exir import to_edge_transform_and_lower
        from executorch.exir.passes.constant_prop_pass import constant_prop_pass

    program: Any = exported(subject, precision)
    try:
        with silenced():
            if decompositions and any(node.target in decompositions for node in program.graph.nodes):
                program = program.run_decompositions(dict(decompositions))
            program = constant_prop_pass(program)  # before quantising, or it would turn int8 weights back into fp32
            if precision == "int8":
                program = _quantised(program, subject)
            for node in program.graph.nodes:
                # Every pass deep-copies this history of a node and adds to it: a quarter of the time, and no one asks.
                node.meta.pop("from_node", None)
            edge = to_edge_transform_and_lower(
                program, transform_passes=[_in_xnnpacks_words], partitioner=list(partitioners)
            )
            scopes, taken, left, parts = _inventory(edge.exported_program().graph_module)
            content = edge.to_executorch().buffer
    except ImportError:
        raise
    except Exception as error:
        raise RefusedError(f"{subject.name}: ExecuTorch cannot hold it: {one_line(error)}") from error
    return Lowered(content, scopes, taken, left, parts)


def _quantised(program: Any, subject: Subject) -> Any:
    """The program with quantisers around what XNNPACK computes in int8, their ranges from seeded noise."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    module = prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for seed in range(2, 2 + _CALIBRATION_SAMPLES):
            module(subject.example(seed))
        return torch.export.export(convert_pt2e(module), (subject.example(),), strict=False)


def _written_out() -> dict[Any, Any]:
    """What ExecuTorch 1.4 computes otherwise than torch, by operations that it computes alike.

    - XNNPACK's only GELU is the exact one, and ExecuTorch gives it those by tanh too. 0.5·(1 + tanh z) = sigmoid 2z.
    - Its own kernel of a group norm takes the variance as mean of squares minus square of mean: over the 10⁵ elements of a
      map four digits are left. XNNPACK has every operation below, so that the norm ends no delegate either.
    - Its hard sigmoid adds whole numbers, which an operation of its own turns into floats at every inference.
    """
    import torch

    aten: Any = torch.ops.aten

    def gelu(x: torch.Tensor, approximate: str = "none") -> Any:
        if approximate != "tanh":
            return NotImplemented
        return x * torch.sigmoid(x * (x * x * (2 * 0.044715 * _TANH) + 2 * _TANH))

    def hardsigmoid(x: torch.Tensor) -> Any:
        return torch.clamp(x + 3.0, 0.0, 6.0) / 6.0

    def group_norm(
        x: torch.Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn: bool = True
    ) -> Any:
        if x.dim() != 4:
            return NotImplemented
        B, C, _, _ = x.shape

        def mean(maps: torch.Tensor) -> torch.Tensor:
            """Of each group, as (B, C, 1, 1): of each channel first, which also keeps digits in a sum of so many."""
            groups = (
                maps.mean((2, 3), keepdim=True).reshape(B, num_groups, C // num_groups, 1).mean((2, 3), keepdim=True)
            )
            return groups if num_groups == 1 else groups.expand(-1, -1, C // num_groups, -1).reshape(B, C, 1, 1)

        centred = x - mean(x)
        normed = centred * torch.rsqrt(mean(centred * centred) + eps)
        if weight is not None:
            normed = normed * weight.reshape(1, C, 1, 1)
        return normed if bias is None else normed + bias.reshape(1, C, 1, 1)

    return {aten.gelu.default: gelu, aten.group_norm.default: group_norm, aten.hardsigmoid.default: hardsigmoid}


def _in_xnnpacks_words(module: Any) -> Any:
    """A pass: say with views and slices, which XNNPACK has, what torch says with other movements of data.

    Expansions go where the tensor has that shape already or its readers expand it themselves (the norms of EdgeNeXt's
    attention); so do aliases, which slices of a whole axis leave (GhostNet): each is a copy of ExecuTorch's own that ends a
    delegate. Squeezed and inserted axes are views; one of an axis, and each part of a
    split, is a slice.
    """
    from executorch.exir.dialects._ops import ops
    from torch.fx.passes.infra.pass_base import PassResult

    aten: Any = ops.edge.aten
    views = {aten.squeeze_copy.dim, aten.squeeze_copy.dims, aten.unsqueeze_copy.default}
    by_element = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
    graph = module.graph
    changed = False

    def call(target: Any, arguments: tuple[Any, ...], like: Any) -> Any:
        with graph.inserting_before(like):
            made = graph.call_function(target, arguments)
        made.meta = dict(like.meta)
        return made

    def shape(node: Any) -> list[int]:
        return [int(size) for size in node.meta["val"].shape]

    def is_expanding(user: Any, node: Any) -> bool:
        """Whether another input alone gives `user`, an operation by element, its shape."""
        others = [each for each in user.args if each is not node and hasattr(each, "meta")]
        return user.target in by_element and any(shape(each) == shape(user) for each in others)

    def is_void(node: Any) -> bool:
        """Whether it gives back what it takes, or nothing else than its readers make of that."""
        if node.target == aten.expand_copy.default:
            return shape(node) == shape(node.args[0]) or all(is_expanding(user, node) for user in node.users)
        return bool(node.target == aten.alias_copy.default)

    def slice_as(node: Any, source: Any, axis: int, start: int, length: int) -> Any:
        """`length` of `source` from `start`, in the shape of `node`."""
        part = call(aten.slice_copy.Tensor, (source, axis, start, start + length), node)
        part.meta["val"] = source.meta["val"].narrow(axis, start, length).contiguous()
        return part if shape(part) == shape(node) else call(aten.view_copy.default, (part, shape(node)), node)

    def replace(node: Any, by: Any) -> None:
        nonlocal changed
        node.replace_all_uses_with(by)
        graph.erase_node(node)
        changed = True

    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if is_void(node):
            replace(node, node.args[0])
        elif node.target in views:
            replace(node, call(aten.view_copy.default, (node.args[0], shape(node)), node))
        elif node.target == aten.select_copy.int:
            source, axis, index = node.args
            size = shape(source)[axis]
            replace(node, slice_as(node, source, axis % len(shape(source)), index % size, 1))
        elif node.target == aten._softmax.default and len(shape(node)) == 4 and node.args[1] in (-1, 3):
            # ExecuTorch 1.4 hands a softmax the channels-last result of a convolution as it lies in memory, and XNNPACK
            # then normalises over the channels. A map of three axes has no such layout.
            B, N, Q, K = shape(node)
            flat = call(aten.view_copy.default, (node.args[0], [B * N, Q, K]), node)
            flat.meta["val"] = node.meta["val"].reshape(B * N, Q, K)
            soft = call(aten._softmax.default, (flat, -1, False), node)
            soft.meta["val"] = flat.meta["val"]
            replace(node, call(aten.view_copy.default, (soft, [B, N, Q, K]), node))
        elif node.target == aten.split_with_sizes_copy.default:
            source, sizes = node.args[:2]
            axis = (node.args[2] if len(node.args) > 2 else 0) % len(shape(source))
            for item in list(node.users):
                index = item.args[1]
                replace(item, slice_as(item, source, axis, sum(sizes[:index]), sizes[index]))
            graph.erase_node(node)
    module.recompile()
    return PassResult(module, changed)


def _inventory(module: Any) -> tuple[dict[str, str], int, Counter[str], int]:
    """(name of each operation → module path, operations in delegates, kinds of those outside, number of delegates).

    An operation in a delegate is named `lowered_module_0/aten_convolution_default_3`, as ExecuTorch's inspector does;
    in the order in which they run.
    """
    scopes: dict[str, str] = {}
    left: Counter[str] = Counter()
    taken = parts = 0
    for node in _calls(module):
        inner = _delegate(module, node)
        if inner is None:
            if "getitem" not in str(node.target):
                left[str(node.target.__name__).removeprefix("aten.").partition(".")[0]] += 1
                scopes[node.name] = scope_of(node)
            continue
        parts += 1
        name = node.args[0].name
        for part in _calls(inner):
            if "getitem" not in str(part.target):
                taken += 1
                scopes[f"{name}/{part.name}"] = scope_of(part)
    return {name: scope for name, scope in scopes.items() if scope}, taken, left, parts


def _calls(module: Any) -> Iterator[Any]:
    return (node for node in module.graph.nodes if node.op == "call_function")


def _delegate(module: Any, node: Any) -> Any | None:
    """The graph that a call of a delegate stands for, or None for an operation of ExecuTorch's own."""
    from executorch.exir.delegate import executorch_call_delegate

    if node.target is not executorch_call_delegate:
        return None
    return getattr(module, node.args[0].target).original_module.graph_module
