"""What every test may rely on: a block store of its own, and timm, which this project's CPU build needs help to import."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import NoReturn

import pytest

# Before anything imports torch: networks this small run no faster on more threads, and on a busy machine, where threads
# wait for each other, several times slower. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it runs in the background deaf to Ctrl-C, and so is every process that it starts: the tests of
# interruption would wait for what cannot come.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """timm, also beside torch's CPU build, where importing it takes some help."""
    from vitscope.sources.build import import_timm

    return import_timm()


def require_package(name: str) -> ModuleType:
    """The module `name` of an optional package. Without it the test is skipped, or fails as `require_tool` does."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        _lack(f"{name} is not installed: {error}")


def require_tool(name: str) -> str:
    """The path of a program that a test runs, also where only root's PATH leads (`sshd`).

    Without it the test is skipped; with VITSCOPE_REQUIRE_TOOLS=1, as the whole suite sets it, it fails.
    """
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if found is None:
        _lack(f"{name} is not installed")
    return found


def _lack(message: str) -> NoReturn:
    if os.environ.get("VITSCOPE_REQUIRE_TOOLS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)
