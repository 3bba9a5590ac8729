"""The parts of a module tree: what a row of a profile stands for, by stage and by block."""

from __future__ import annotations

from collections import Counter

from torch import nn

from vitscope.sources.network import Part

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_DEPTH = 6  # parts are looked for no deeper in the tree


def stages(module: nn.Module) -> tuple[Part, ...]:
    """The children of the root: a module that has none is one part."""
    return _parts((name, child) for name, child in module.named_children())


def blocks(module: nn.Module) -> tuple[Part, ...]:
    """The children of the root; of a container its items, and of a module that repeats others, each of them.

    A ViT's blocks, a ResNet's bottlenecks and a Swin's blocks are rows of their own, whatever they are nested in.
    """
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        if isinstance(child, _CONTAINERS) and len(child):
            found.append((name, child))
            for inner, item in child.named_children():
                found += _cut(item, f"{name}.{inner}", _DEPTH)
        else:
            found += _cut(child, name, _DEPTH)
    return _parts(found)


def _parts(named: object) -> tuple[Part, ...]:
    return tuple(Part(path, type(child).__name__) for path, child in named)  # type: ignore[attr-defined]


def _cut(module: nn.Module, path: str, depth: int) -> list[tuple[str, nn.Module]]:
    """`module` itself, or its parts when it repeats modules of one class."""
    if not depth or not _repeats(module, depth):
        return [(path, module)]
    inner = [part for name, child in module.named_children() for part in _cut(child, f"{path}.{name}", depth - 1)]
    return [(path, module), *inner]  # what it does itself is a part of its own


def _repeats(module: nn.Module, depth: int) -> bool:
    """Whether `module` is, or holds at some depth, a container with several modules of one class that have parts."""
    if isinstance(module, _CONTAINERS):
        composed = Counter(type(child) for child in module.children() if any(True for _ in child.children()))
        if max(composed.values(), default=0) > 1:
            return True
    return depth > 0 and any(_repeats(child, depth - 1) for child in module.children())
