"""Where results go: stdout or a file, written whole or not at all, and never over an existing file unasked."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vitscope.errors import UsageError
from vitscope.report.table import Table, markdown, plain, terminal

STDOUT = Path("-")


def check_writable(path: Path, force: bool) -> None:
    """Refuse early what `write_file` would refuse late: an existing file without `force`, a missing folder."""
    if path == STDOUT:
        return
    if path.is_dir():
        raise UsageError(f"{path}: is a directory, expected a file name")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: cannot write in the folder {path.parent}")
    if path.exists() and not force:
        raise UsageError(f"{path}: already exists, will not overwrite without --force")


def write_file(path: Path, content: str | bytes, force: bool) -> None:
    """Write `content` atomically: readers see the old file or the new one. Raises UsageError when refused."""
    check_writable(path, force)
    data = content.encode() if isinstance(content, str) else content
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)  # mkstemp is private; a result is not
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{path}: cannot write: {error.strerror or error}") from error


def emit(content: str | bytes, output: Path | None, force: bool) -> None:
    """Send a finished result to stdout, or to `output` when it names a file."""
    if output is not None and output != STDOUT:
        write_file(output, content, force)
        print(f"wrote {output}", file=sys.stderr)
    elif isinstance(content, bytes):
        if sys.stdout.isatty():
            raise UsageError("will not write a binary file to a terminal: name one with -o FILE")
        sys.stdout.buffer.write(content)
    else:
        sys.stdout.write(content)


def show(table: Table, form: str = "text") -> None:
    """Print a table to stdout: `md`, or text that is rich on a terminal and plain, uncut in a pipe."""
    if form == "md":
        sys.stdout.write(markdown(table))
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        terminal(table)
    else:
        sys.stdout.write(plain(table))


def emit_tables(tables: Sequence[Table], form: str = "text", output: Path | None = None, force: bool = False) -> None:
    """Several tables with an empty line between: shown on stdout, or written to `output` when it names a file."""
    if output is not None and output != STDOUT:
        emit("\n".join(map(markdown if form == "md" else plain, tables)), output, force)
        return
    for i, table in enumerate(tables):
        if i:
            print()
        show(table, form)
