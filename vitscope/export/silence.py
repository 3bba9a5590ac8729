"""silenced(): run a converter without what it prints, Python's or its native code's, on either stream."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Send file descriptors 1 and 2 to nowhere, and warnings and logging with them, until the block ends.

    Converters report progress from threads and from C++, which `redirect_stdout` does not reach. What goes wrong they
    raise, and that passes through.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    before = logging.root.manager.disable
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            for number in (1, 2):
                os.dup2(sink.fileno(), number)
            try:
                # Where a caller has replaced Python's own streams, the descriptors do not reach them.
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    yield
            finally:
                with contextlib.suppress(ValueError, OSError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                for number, copy in zip((1, 2), kept, strict=True):
                    os.dup2(copy, number)
    finally:
        logging.disable(before)
        for copy in kept:
            os.close(copy)


def untold() -> None:
    """Keep ONNX Runtime from telling Microsoft of this machine and of each model, as it does from 1.29 on.

    It reads the variable when it is imported: call this before. An empty value of the user's leaves it on.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
