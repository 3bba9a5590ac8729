"""A Ctrl-C while native code calls Python: it waits for the end of the block, the second one does not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from vitscope.export.interrupt import after_the_converter


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _python_handles_interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores them
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_waits_and_the_second_does_not(capfd):
    steps = []
    with pytest.raises(KeyboardInterrupt), after_the_converter():
        _interrupt()
        steps.append("went on")
    assert steps == ["went on"] and "interrupted" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt), after_the_converter():
        _interrupt()
        _interrupt()
        steps.append("not reached")
    assert steps == ["went on"]
    with pytest.raises(KeyboardInterrupt):  # outside, as ever
        _interrupt()


def test_an_error_of_a_converter_that_was_interrupted_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), after_the_converter():
        _interrupt()
        raise RuntimeError("no more memory")
    with pytest.raises(RuntimeError), after_the_converter():
        raise RuntimeError("no more memory")


def test_a_handler_of_the_callers_own_stays(capfd):
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append("mine"))
    with after_the_converter():
        _interrupt()
    assert heard == ["mine"] and not capfd.readouterr().err


def test_a_command_that_is_done_is_not_interrupted():
    """A process that takes a while to go, as torch does, keeps its exit code."""
    code = (
        "import atexit, signal, sys; from vitscope.__main__ import run; sys.argv = ['vitscope', '--version'];"
        "atexit.register(lambda: signal.raise_signal(signal.SIGINT));"
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(run())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and done.stdout.startswith("vitscope")
