"""trace(module, *inputs): run a module once on the meta device, where shapes cost nothing, and record every aten call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vitscope.graph import meta
from vitscope.graph.record import Graph, OpRecord, Param, Tensor, TensorKind

# Calls that make bookkeeping values and move no data of the network.
_INVISIBLE = frozenset(
    {"detach", "alias", "lift_fresh", "_local_scalar_dense", "sym_size", "sym_numel", "_assert_async"}
)
# Allocations without contents: the op that fills them is the one that costs.
_EMPTY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
# Norms also return statistics for a backward pass that never comes.
_DATA_OUTPUTS = {"native_batch_norm": 1, "native_layer_norm": 1, "native_group_norm": 1, "max_pool2d_with_indices": 1}


class _Recorder(TorchDispatchMode):
    """Collects an OpRecord per aten call; knows in which module the call happens from `scopes`."""

    def __init__(self, named: dict[int, tuple[str, TensorKind]]):
        super().__init__()
        self.tensors: list[Tensor] = []
        self.ops: list[OpRecord] = []
        self.scopes: list[str] = [""]
        self._named = named
        self._index: dict[int, int] = {}
        self._storages: dict[int, int] = {}
        self._keep: list[torch.Tensor] = []  # ids stay unique only while the objects live

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nobody compiles this frame, and the wrapper that guards against it imports torch._dynamo: a second's delay.
        return False

    def value(self, tensor: torch.Tensor, kind: TensorKind) -> int:
        """The index of `tensor` in the graph, adding it when it is new."""
        index = self._index.get(id(tensor))
        if index is None:
            name, kind = self._named.get(id(tensor), ("", kind))
            storage = self._storages.setdefault(tensor.untyped_storage()._cdata, len(self._storages))
            index = self._index[id(tensor)] = len(self.tensors)
            dtype = str(tensor.dtype).removeprefix("torch.")
            self.tensors.append(Tensor(tuple(tensor.shape), dtype, kind, storage, name))
            self._keep.append(tensor)
        return index

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._overloadpacket.__name__
        result = meta.run(func, name, args, kwargs or {})
        if name in _INVISIBLE:
            # The same value under another object: whoever reads it reads the original.
            if isinstance(result, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
                self._index[id(result)] = self.value(args[0], "const")
                self._keep.append(result)
            return result
        reads: list[torch.Tensor] = []
        attrs: list[tuple[str, object]] = []
        for argument, given in _named_arguments(func, args, kwargs or {}):
            tensors = _tensors(given)
            if tensors:
                reads += tensors
            elif given is not None and not isinstance(given, torch.Tensor):
                attrs.append((argument, _plain(given)))
        # A value that no recorded call made (an index table computed at construction) is a constant of the network.
        inputs = tuple(self.value(tensor, "const") for tensor in reads)
        written = _tensors(result)[: _DATA_OUTPUTS.get(name)]
        if name in _EMPTY:
            return result
        read_storages = {self.tensors[i].storage for i in inputs}
        outputs = tuple(self.value(tensor, "activation") for tensor in written)
        is_view = (
            bool(outputs) and not name.endswith("_") and all(self.tensors[i].storage in read_storages for i in outputs)
        )
        self.ops.append(OpRecord(name, self.scopes[-1], inputs, outputs, tuple(attrs), is_view))
        return result


def _named_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for argument, given in zip(func._schema.arguments, args, strict=False):
        yield argument.name, given
    yield from kwargs.items()


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _tensors(item)]
    if isinstance(value, dict):  # what a network may put out
        return [t for item in value.values() for t in _tensors(item)]
    return []


def _plain(value: Any) -> object:
    """A non-tensor argument as a hashable value that JSON can hold."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return str(value)


@contextmanager
def _scoped(module: nn.Module, scopes: list[str]) -> Iterator[None]:
    """Keep `scopes[-1]` at the qualified name of the module whose forward is running."""
    handles = []
    for name, child in module.named_modules():
        if name:
            handles.append(child.register_forward_pre_hook(lambda *_, name=name: scopes.append(name)))
            handles.append(child.register_forward_hook(lambda *_: scopes.pop() and None, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(module: nn.Module, *inputs: torch.Tensor) -> Graph:
    """Record one forward pass of `module` in eval mode.

    `module` and `inputs` belong on the meta device (no data is computed there); a real device works too and costs a
    real forward pass. Training state is left as it was. Raises whatever `module.forward` raises.
    """
    named: dict[int, tuple[str, TensorKind]] = {}
    params = []
    for name, parameter in module.named_parameters():  # shared tensors come once, under their first name
        named[id(parameter)] = (name, "param")
        params.append(Param(name, tuple(parameter.shape), str(parameter.dtype).removeprefix("torch.")))
    for name, buffer in module.named_buffers():
        named[id(buffer)] = (name, "buffer")
    recorder = _Recorder(named)
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        with torch.no_grad(), _scoped(module, recorder.scopes):
            input_ids = tuple(recorder.value(tensor, "input") for tensor in inputs)
            with recorder:
                result = module(*inputs)
    finally:
        for child in training:
            child.training = True
    outputs = tuple(recorder.value(tensor, "activation") for tensor in _tensors(result))
    return Graph(tuple(recorder.tensors), tuple(recorder.ops), tuple(params), input_ids, outputs)
