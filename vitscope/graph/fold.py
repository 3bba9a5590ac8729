"""fold_batch_norm(graph): the graph after each BatchNorm was folded into the convolution or linear layer before it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vitscope.graph.record import Graph, OpRecord, Param, Tensor

_NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training"})
_LAYERS = frozenset({"convolution", "_convolution", "mm", "addmm"})


def fold_batch_norm(graph: Graph) -> Graph:
    """`graph` without each BatchNorm that directly follows a convolution or linear layer whose output it alone reads.

    Its gain goes into the weights, its shift into the bias, which is added where there is none. Layers whose weights
    are read more than once, and norms that follow anything else, stay as they are.
    """
    owners = {t.storage: t for t in graph.tensors if t.kind == "param"}
    readers: Counter[int] = Counter()  # of each value
    reads: Counter[int] = Counter()  # of each storage, views aside
    for op in graph.ops:
        readers.update(dict.fromkeys(op.inputs, 1))
        if not op.is_view:
            reads.update({graph.tensors[i].storage: 1 for i in op.inputs})
    makers = {i: step for step, op in enumerate(graph.ops) for i in op.outputs}
    kept = frozenset(graph.outputs)

    def owned(index: int) -> Tensor | None:
        """The parameter behind tensor `index` if a single operation reads it."""
        storage = graph.tensors[index].storage
        return owners.get(storage) if reads[storage] == 1 else None

    tensors, params = list(graph.tensors), {p.name: p for p in graph.params}
    ops: list[OpRecord | None] = list(graph.ops)
    next_storage = max((t.storage for t in tensors), default=0) + 1
    for step, norm in enumerate(graph.ops):
        if norm.op not in _NORMS or norm.attr("training") is True or norm.inputs[0] in kept:
            continue
        made = makers.get(norm.inputs[0], -1)
        layer = ops[made] if made >= 0 else None
        if layer is None or layer.op not in _LAYERS or readers[norm.inputs[0]] != 1:
            continue
        weight = owned(layer.inputs[-1 if layer.op in ("mm", "addmm") else 1])
        if weight is None:
            continue
        if len(layer.inputs) == 2:
            bias = f"{weight.name.rpartition('.')[0]}.bias".removeprefix(".")
            channels = graph.tensors[norm.inputs[0]].shape[1]
            tensors.append(Tensor((channels,), weight.dtype, "param", next_storage, bias))
            params[bias] = Param(bias, (channels,), weight.dtype)
            next_storage += 1
            new = len(tensors) - 1
            is_linear = layer.op == "mm"
            layer = replace(
                layer, op="addmm" if is_linear else layer.op,
                inputs=(new, *layer.inputs) if is_linear else (*layer.inputs, new),
            )  # fmt: skip
        for i in norm.inputs[1:]:
            gone = owned(i)
            if gone is not None:
                params.pop(gone.name, None)
        ops[made] = replace(layer, outputs=norm.outputs)
        ops[step] = None
    return Graph(
        tuple(tensors), tuple(op for op in ops if op is not None), tuple(params.values()), graph.inputs, graph.outputs
    )
