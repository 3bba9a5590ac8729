"""after_the_converter(): a Ctrl-C waits for the end of a block, since native code that calls Python must not be left midway."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SAID = b"interrupted: the converter comes to its end first (Ctrl-C again: at once)\n"


@contextlib.contextmanager
def after_the_converter() -> Iterator[None]:
    """Raise the KeyboardInterrupt of a first Ctrl-C when the block ends; a second one raises where it falls.

    Converters call Python from C++ that lets no exception through: one ends the process with SIGABRT or SIGSEGV, and
    what lies half written stays. Where the caller has a handler of its own, or this is not the main thread, which alone
    gets interrupts, nothing is changed.
    """
    first = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not first:
        yield
        return
    asked = False
    stderr = _copy_of_stderr()  # the block may lead the descriptor elsewhere

    def wait(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, first)
        if stderr is not None:
            with contextlib.suppress(OSError):
                os.write(stderr, _SAID)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, first)
        if stderr is not None:
            os.close(stderr)
        if asked:
            raise KeyboardInterrupt


def _copy_of_stderr() -> int | None:
    with contextlib.suppress(OSError):
        return os.dup(2)
    return None
