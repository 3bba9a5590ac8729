"""nn.Module → Network: traced on the meta device where its code allows it, else by a real forward pass."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from vitscope.errors import UsageError, VitscopeError
from vitscope.graph.fold import fold_batch_norm
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.sources import Source
from vitscope.sources.build import Built, Size, build
from vitscope.sources.network import Network, Pass
from vitscope.sources.tree import blocks, stages

# What a module may call its own way from train form to deploy form, in timm's order of preference.
_DEPLOY = ("fuse", "reparameterize", "switch_to_deploy")


def load(
    source: Source, kwargs: Mapping[str, Any], *, size: Size | None, resolution: tuple[int, int] | None, batch: int
) -> Network:
    """The Network that `source` names. Raises UsageError with one line when it cannot be built or run."""
    notes: list[str] = []
    built = _built(source, kwargs, notes)
    asked = _sized(built.input, size, resolution)
    try:
        return _network(built.module, asked, batch, source, notes, lambda: _on_cpu(source, kwargs))
    except UsageError:
        # timm's attention networks are made for one size, and say so in their constructor.
        if asked[1:] == built.input[1:] or source.kind != "timm" or "img_size" in kwargs:
            raise
        sized = {**kwargs, "img_size": asked[1:]}
        try:
            built = _built(source, sized, notes)
        except UsageError:
            built = None
        if built is None:
            raise
    notes.append(f"built with img_size={asked[1]}×{asked[2]}")
    return _network(built.module, asked, batch, source, notes, lambda: _on_cpu(source, sized))


def read(module: nn.Module, size: Size, batch: int, name: str = "") -> Network:
    """The Network of a module that the caller holds, which stays as it is."""
    name = name or type(module).__name__
    source = Source("python", name, name)
    return _network(on_meta(module), size, batch, source, [], lambda: module)


def _sized(made_for: Size, size: Size | None, resolution: tuple[int, int] | None) -> Size:
    chosen = size or made_for
    return chosen if resolution is None else (chosen[0], *resolution)


def _built(source: Source, kwargs: Mapping[str, Any], notes: list[str]) -> Built:
    """Built on the meta device; a constructor that needs values there is given a real device, and its result moved."""
    try:
        with torch.device("meta"):
            return build(source, kwargs)
    except VitscopeError:
        raise
    except Exception:
        pass
    try:
        built = build(source, kwargs)
    except VitscopeError:
        raise
    except Exception as error:
        raise UsageError(f"{source.text}: cannot be built: {_said(error)}") from error
    notes.append("built on the CPU: its constructor computes with values")
    return Built(on_meta(built.module), built.input)


def _on_cpu(source: Source, kwargs: Mapping[str, Any]) -> nn.Module:
    return build(source, kwargs).module


def _network(
    module: nn.Module, size: Size, batch: int, source: Source, notes: list[str], real: Callable[[], nn.Module]
) -> Network:
    """Trace `module`, which is on the meta device; `real` gives one with values for where that cannot be followed."""
    try:
        train = _pass(module, size, batch, "meta")
    except Exception as meta_error:
        module = real()
        try:
            train = _pass(module, size, batch, _device(module))
        except Exception as error:
            raise UsageError(
                f"{source.text}: its forward pass on {'×'.join(map(str, size))} raised {_said(error)}"
            ) from error
        notes = [*notes, f"counted by a real forward pass: on the meta device it raised {_said(meta_error)}"]
    deploy, done = _deployed(module, size, batch, train)
    return Network(
        name=source.name, source=source.text, input=size, batch=batch, train=train, deploy=deploy,
        notes=(*notes, done),
    )  # fmt: skip


def _pass(module: nn.Module, size: Size, batch: int, device: torch.device | str) -> Pass:
    def graph(images: int) -> Graph:
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        with _written_out():
            return trace(module, torch.zeros((images, *size), dtype=dtype, device=device))

    counted = graph(1)
    return Pass(counted, counted if batch == 1 else graph(batch), stages(module), blocks(module))


@contextmanager
def _written_out() -> Iterator[None]:
    """torch's fused inference path of MultiheadAttention off: it hides its matmuls in one opaque operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _deployed(module: nn.Module, size: Size, batch: int, train: Pass) -> tuple[Pass, str]:
    """`module` after its own reparameterisation, if it knows one, and with BatchNorm folded; and the note that says so."""
    if not any(_own_way(child) for child in module.modules()):
        folded = _folded(train)
        nothing = len(folded.counted.ops) == len(train.counted.ops)
        return folded, "deploy form: as trained, no BatchNorm to fold" if nothing else "deploy form: BatchNorm folded"
    fused = on_meta(module) if _device(module) == torch.device("meta") else copy.deepcopy(module)
    done: Counter[str] = Counter()
    try:
        with torch.no_grad(), torch.device(_device(fused)):
            fused.eval()
            fused = fuse_own_way(fused, done)
        traced = _pass(fused, size, batch, _device(fused))
    except Exception as error:
        return _folded(train), f"deploy form: BatchNorm folded; the model's own fusion raised {_said(error)}"
    calls = ", ".join(f"{name} × {count}" for name, count in done.items())
    return _folded(traced), f"deploy form: {calls}; BatchNorm folded"


def _own_way(module: nn.Module) -> str:
    return next((name for name in _DEPLOY if callable(getattr(type(module), name, None))), "")


def fuse_own_way(module: nn.Module, done: Counter[str] | None = None) -> nn.Module:
    """Call every module's own fusion, parents first; one that returns a module is replaced by it. `done` counts calls."""
    name = _own_way(module)
    done = Counter() if done is None else done
    if name:
        result = getattr(module, name)()
        done[f"{type(module).__name__}.{name}()"] += 1
        if isinstance(result, nn.Module) and result is not module:
            module = result
    for child_name, child in module.named_children():
        fused = fuse_own_way(child, done)
        if fused is not child:
            setattr(module, child_name, fused)
    return module


def _folded(traced: Pass) -> Pass:
    counted = fold_batch_norm(traced.counted)
    batched = counted if traced.batched is traced.counted else fold_batch_norm(traced.batched)
    return Pass(counted, batched, traced.stages, traced.blocks)


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of `module` whose tensors have shapes and no data. What was shared stays shared; nothing is copied."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers, part.__dict__):
            for tensor in tensors.values():
                if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                    memo[id(tensor)] = _empty(tensor)
    return copy.deepcopy(module, memo)


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def _device(module: nn.Module) -> torch.device:
    tensor = next(iter(module.parameters()), next(iter(module.buffers()), None))
    return torch.device("cpu") if tensor is None else tensor.device


def _said(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return f"{type(error).__name__}: {text[:200]}"
