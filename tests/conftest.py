"""What every test may rely on: a block store of its own, and timm, which this project's CPU build needs help to import."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

# Before anything imports torch: networks this small run no faster on more threads, and on a busy machine, where threads
# wait for each other, several times slower. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_KEEP: list[Any] = []  # operators live as long as the Library object that defined them


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Traces go to a folder of this run: no test reads what an earlier run, or the user, left behind."""
    before = os.environ.get("VITSCOPE_CACHE")
    os.environ["VITSCOPE_CACHE"] = str(tmp_path_factory.mktemp("store"))
    yield
    if before is None:
        del os.environ["VITSCOPE_CACHE"]
    else:
        os.environ["VITSCOPE_CACHE"] = before


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """timm imports torchvision, whose registry build lacks its operators beside torch's CPU build: only their names
    are needed, and only where they are missing."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        assert "torchvision::nms" in str(error)
        from torch.library import Library

        library = Library("torchvision", "DEF")
        library.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        library.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEEP.append(library)
    return importlib.import_module("timm")
