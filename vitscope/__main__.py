"""`python -m vitscope`, and the start of the `vitscope` command."""

from __future__ import annotations

import signal
import sys

from vitscope.cli import main


def run() -> int:
    """One command as a process of its own: once it is done, a Ctrl-C does not turn its end into a failure."""
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # torch and the runtimes take a second to go
    return code


if __name__ == "__main__":
    sys.exit(run())
