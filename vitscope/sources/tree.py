"""The parts of a module tree: what a row of a profile stands for, by stage and by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import nn

from vitscope.sources.network import Part

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_DEPTH = 6  # parts are looked for no deeper in the tree
_WRAPPED = 2  # how far inside a module the container that it repeats modules in may stand

_Named = tuple[str, nn.Module]


def stages(module: nn.Module) -> tuple[Part, ...]:
    """The children of the root; of a container of stages, which repeat modules themselves, each stage."""
    found: list[_Named] = []
    for name, child in module.named_children():
        found.append((name, child))
        if isinstance(child, _CONTAINERS) and any(_repeats(item) for item in child.children()):
            found += [(f"{name}.{inner}", item) for inner, item in child.named_children()]
    return _parts(found)


def blocks(module: nn.Module) -> tuple[Part, ...]:
    """The children of the root; of a container its items, and of a module that repeats others, each of them.

    A ViT's blocks, a ResNet's bottlenecks and a Swin's blocks are rows of their own, whatever they are nested in.
    """
    found: list[_Named] = []
    for name, child in module.named_children():
        if isinstance(child, _CONTAINERS):
            found.append((name, child))
            for inner, item in child.named_children():
                found += _cut(item, f"{name}.{inner}", _DEPTH)
        else:
            found += _cut(child, name, _DEPTH)
    return _parts(found)


def _parts(named: Iterable[_Named]) -> tuple[Part, ...]:
    return tuple(Part(path, type(child).__name__) for path, child in named)


def _cut(module: nn.Module, path: str, depth: int) -> list[_Named]:
    """`module` itself; before its parts, when it repeats modules, for what it does on its own."""
    if not depth or not _repeats(module):
        return [(path, module)]
    inner = [part for name, child in module.named_children() for part in _cut(child, f"{path}.{name}", depth - 1)]
    return [(path, module), *inner]


def _repeats(module: nn.Module, within: int = _WRAPPED) -> bool:
    """Whether `module` is, or holds not far inside, a container with several blocks of one class."""
    if isinstance(module, _CONTAINERS):
        kinds = Counter(type(child) for child in module.children() if _is_block(child))
        if max(kinds.values(), default=0) > 1:
            return True
    return within > 0 and any(_repeats(child, within - 1) for child in module.children())


def _is_block(module: nn.Module) -> bool:
    """More than one layer with weights: a convolution with its norm and activation is none."""
    return sum(parameter.dim() > 1 for parameter in module.parameters()) > 1
