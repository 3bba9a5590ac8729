"""Source → nn.Module: timm, torchvision, and callables of the user's own, each with the input size it is made for."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from torch import nn
from torch.library import Library

from vitscope.errors import UnavailableError, UsageError, nearest
from vitscope.sources import Source

Size = tuple[int, int, int]
_DEFAULT: Size = (3, 224, 224)
_KEEP: list[Any] = []  # operators live as long as the Library object that defined them


@dataclass(frozen=True, slots=True)
class Built:
    """A module and the (C, H, W) that it is made for."""

    module: nn.Module
    input: Size


def build(source: Source, kwargs: Mapping[str, Any]) -> Built:
    """The module that `source` names, without pretrained weights, on torch's default device.

    Raises UsageError for a name that does not exist, UnavailableError for a package that is not installed; whatever
    the model's own code raises passes.
    """
    makers = {"timm": _timm, "torchvision": _torchvision, "python": _python}
    return makers[source.kind](source, kwargs)


def _timm(source: Source, kwargs: Mapping[str, Any]) -> Built:
    timm = import_timm()
    architecture = source.name.partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(
            f"{source.text}: timm {timm.__version__} has no such model{nearest(architecture, timm.list_models())}"
        )
    try:
        module = timm.create_model(source.name, **{"pretrained": False, **kwargs})
    except RuntimeError as error:
        if "Invalid pretrained tag" not in str(error):
            raise
        tags = timm.list_pretrained(f"{architecture}.*")
        raise UsageError(
            f"{source.text}: no such tag{nearest(source.name, tags)}; the tag does not change the counts"
        ) from None
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    size = tuple(config.get("input_size") or _DEFAULT)
    return Built(module, _asked(size, kwargs))  # type: ignore[arg-type]


def _asked(size: Size, kwargs: Mapping[str, Any]) -> Size:
    """`size` with what `in_chans`, `img_size` or `image_size` say."""
    side = kwargs.get("img_size", kwargs.get("image_size"))
    height, width = (side, side) if isinstance(side, int) else side if isinstance(side, (list, tuple)) else size[1:]
    return int(kwargs.get("in_chans", size[0])), int(height), int(width)


def _torchvision(source: Source, kwargs: Mapping[str, Any]) -> Built:
    models = import_torchvision().models
    names = models.list_models()
    if source.name not in names:
        raise UsageError(f"{source.text}: torchvision has no such model{nearest(source.name, names)}")
    untrained: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(source.name)).parameters:
        untrained["weights_backbone"] = None  # its default would be fetched
    return Built(models.get_model(source.name, **{**untrained, **kwargs}), _asked(_DEFAULT, kwargs))


def _python(source: Source, kwargs: Mapping[str, Any]) -> Built:
    made: Any = _callable(source)
    if not isinstance(made, nn.Module):
        try:
            inspect.signature(made).bind(**kwargs)
        except TypeError as error:
            raise UsageError(f"{source.text}: cannot be called so: {error}; give its arguments with --kwargs") from None
        except ValueError:
            pass  # a callable without a signature: the call itself will tell
        made = made(**kwargs)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{source.text}: returned {type(made).__name__}, expected a torch.nn.Module")
    size = getattr(made, "input_size", None) or getattr(made, "default_cfg", {}).get("input_size") or _DEFAULT
    return Built(made, tuple(size) if len(size) == 3 else _DEFAULT)  # type: ignore[arg-type]


def _callable(source: Source) -> Any:
    """The object that `package.module:callable` names, found as `python -m` finds modules: here first."""
    path, _, names = source.name.partition(":")
    with _here_on_path():
        try:
            found: Any = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{path}.".startswith(f"{error.name}."):
                raise  # the module is there, and imports one that is not
            known = ["timm", "torchvision", *(name[:-3] for name in sorted(os.listdir(".")) if name.endswith(".py"))]
            raise UsageError(f"{source.text}: no module named {error.name!r}{nearest(error.name, known)}") from None
    for name in names.split("."):
        if not hasattr(found, name):
            callables = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UsageError(f"{source.text}: {path} has no {name!r}{nearest(name, callables)}")
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(f"{source.text}: {type(found).__name__} is no callable and no torch.nn.Module")
    return found


@contextmanager
def _here_on_path() -> Iterator[None]:
    """The working directory first on sys.path."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


@lru_cache(maxsize=1)
def import_torchvision() -> ModuleType:
    """torchvision, also where its build lacks the operators that belong to torch's CPU build.

    Then its import fails at `torchvision::nms`. Only the names of two operators are needed to import it, and no
    backbone calls them, so they are defined by name, only where that very error shows that they are missing.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        raise UnavailableError("torchvision is not installed: pip install torchvision") from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    library = Library("torchvision", "DEF")
    library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    _KEEP.append(library)
    return importlib.import_module("torchvision")


@lru_cache(maxsize=1)
def import_timm() -> ModuleType:
    """timm, which imports torchvision."""
    import_torchvision()
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError:
        raise UnavailableError("timm is not installed: pip install timm") from None
