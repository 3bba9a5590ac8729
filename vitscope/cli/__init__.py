"""The command line: one small file a command, and the only place that catches errors."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from vitscope import __version__
from vitscope.cli.calibrate import calibrate
from vitscope.cli.compare import compare
from vitscope.cli.devices import app as devices
from vitscope.cli.export import export
from vitscope.cli.measure import measure
from vitscope.cli.pareto import pareto
from vitscope.cli.profile import profile
from vitscope.cli.schema import schema
from vitscope.cli.validate import validate
from vitscope.cli.zoo import zoo
from vitscope.errors import VitscopeError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a write says, without the name of a file
_INTERRUPTED = 130

app = typer.Typer(
    name="vitscope",
    help="Explore and profile efficient vision backbones: params, MACs, memory and predicted latency from a YAML spec.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a gate failed, 2 usage or spec, 3 a runtime or device is missing, 130 interrupted.",
)
for command in (profile, compare, measure, calibrate, pareto, zoo, export, validate, schema):
    app.command()(command)
app.add_typer(devices, name="devices")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"vitscope {__version__}")
        raise typer.Exit()


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error and what converters say, in any command.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error becomes one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with _talkative() if debug else contextlib.nullcontext():
            code = app(arguments, prog_name="vitscope", standalone_mode=False)
        if code == _INTERRUPTED:  # how the parser hands on a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`): not an error, and nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
            # What stdout still holds would be written at exit, fail again, and be told by a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            print(f"cannot write the output: {error.strerror}", file=sys.stderr)
            return 1
        return _report(error)


def _talkative() -> contextlib.AbstractContextManager[None]:
    """Converters are heard: imported where it is asked for, since most commands convert nothing."""
    from vitscope.export.silence import shown

    return shown()


def _report(error: Exception) -> int:
    """Say what went wrong in as few lines as there are problems; the exit code that belongs to it."""
    if isinstance(error, VitscopeError):
        print(error, file=sys.stderr)
        return error.exit_code
    show = getattr(error, "show", None)  # the parser's own errors: usage and one line
    if callable(show):
        show(file=sys.stderr)
        return int(getattr(error, "exit_code", 2))
    text = " ".join(str(error).split()) or "no message"
    print(
        f"vitscope: internal error: {type(error).__name__}: {text} (run again with --debug and report it)",
        file=sys.stderr,
    )
    return 2
