"""read_state: the tensors of a checkpoint file, whatever it wraps them in. Nothing in the file is ever executed."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitscope.errors import VitscopeError

# Where training scripts put the weights beside the optimiser and the epoch; the first that is there is taken.
_WRAPPERS = ("model", "state_dict", "model_ema", "state_dict_ema")
_PARALLEL = "module."  # in front of every key of a network trained on several GPUs


class WeightsError(VitscopeError):
    """A checkpoint that cannot be read, or that does not fit the network; one line a finding (exit code 2)."""


def read_state(path: Path) -> dict[str, Any]:
    """Name → tensor of a .safetensors file, or of one that torch.save wrote. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a directory, expected a checkpoint file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot read: {error.strerror}") from None
    if path.suffix == ".safetensors":
        return _state(_read_safetensors(path), path)
    if not start.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle as torch wrote before version 1.6
        what = "empty" if not start else "not a checkpoint of torch.save"
        raise WeightsError(f"{path}: {what}, expected a .pth or .pt file of tensors, or a .safetensors file")
    return _state(_read_torch(path), path)


def _read_safetensors(path: Path) -> Any:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file: {_first_line(error)}") from None


def _read_torch(path: Path) -> Any:
    import torch

    if _is_torchscript(path):
        raise WeightsError(f"{path}: a TorchScript archive, expected a state_dict")
    try:
        # The command line of the training script, a plain record that many checkpoints carry.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise WeightsError(
                f"{path}: holds Python objects besides tensors, and reading them could run code; where you trust the "
                "file, save its weights alone: "
                f'torch.save(torch.load("{path.name}", weights_only=False)["model"], "weights.pth")'
            ) from None
        raise WeightsError(f"{path}: not a checkpoint: {_first_line(error)}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"{path}: damaged, or not a checkpoint: {_first_line(error)}") from None


def _is_torchscript(path: Path) -> bool:
    """Whether the file holds a compiled network; torch.load would hand it to a reader that runs it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _state(content: Any, path: Path) -> dict[str, Any]:
    """The tensors in what a file holds, out of its wrappers and without the prefix of parallel training."""
    import torch

    for _ in range(2):  # a wrapper may hold another
        inner = next((content[k] for k in _WRAPPERS if isinstance(content, Mapping) and k in content), None)
        if isinstance(inner, Mapping):
            content = inner
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: holds {_what(content)}, expected a state_dict: names and their tensors")
    strange = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise WeightsError(
            f"{path}: {strange[0]!r} is {_what(content[strange[0]])}, expected a state_dict: names and their tensors"
        )
    names = [str(key) for key in content]
    prefix = len(_PARALLEL) if all(name.startswith(_PARALLEL) for name in names) else 0
    return {name[prefix:]: tensor for name, tensor in zip(names, content.values(), strict=True)}


def _what(value: Any) -> str:
    return (
        "an empty mapping" if isinstance(value, Mapping) and not value else f"an object of type {type(value).__name__}"
    )
