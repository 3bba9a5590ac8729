"""silenced(): run a converter without what it prints, Python's or its native code's, on either stream; shown() undoes it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

_is_shown = ContextVar("converters' messages are shown", default=False)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Let converters say what they say, for the one who looks for a mistake: all of it on stderr, until the block ends."""
    before = _is_shown.set(True)
    try:
        yield
    finally:
        _is_shown.reset(before)


def is_shown() -> bool:
    """Whether the caller stands in a block of `shown`."""
    return _is_shown.get()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send file descriptors 1 and 2 to nowhere, and warnings and logging with them, until the block ends.

    Converters report progress from threads and from C++, which `redirect_stdout` does not reach. What goes wrong they
    raise, and that passes through.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where the caller closed it
        stream.flush()
    with contextlib.ExitStack() as stack:
        if _is_shown.get():
            stack.enter_context(_into(2, (1,)))  # stdout is for results
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        else:
            sink = stack.enter_context(tempfile.TemporaryFile())
            stack.enter_context(_without_warnings())
            stack.enter_context(_into(sink.fileno(), (1, 2)))
            # Where a caller has replaced Python's own streams, the descriptors do not reach them.
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


@contextlib.contextmanager
def _into(file: int, numbers: tuple[int, ...]) -> Iterator[None]:
    """The descriptors `numbers` lead to `file`, until the block ends."""
    kept = [_copy_of(number) for number in numbers]
    try:
        for number in numbers:
            os.dup2(file, number)
        try:
            yield
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                with contextlib.suppress(ValueError, OSError):
                    stream.flush()
            for number, copy in zip(numbers, kept, strict=True):
                os.close(number) if copy is None else os.dup2(copy, number)
    finally:
        for copy in kept:
            if copy is not None:
                os.close(copy)


def _copy_of(number: int) -> int | None:
    """Another descriptor of the same file; None where `number` is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """No warning and no line of logging, until the block ends."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def untold() -> None:
    """Keep ONNX Runtime from telling Microsoft of this machine and of each model, as it does from 1.29 on.

    It reads the variable when it is imported: call this before. An empty value of the user's leaves it on.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
