"""The one family of errors: each is one clear line for the user and an exit code for the shell."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VitscopeError(Exception):
    """Something the user can mend. Its text is the whole message; `exit_code` is what the shell gets."""

    exit_code = 2


class UsageError(VitscopeError):
    """A command line, a file or a column that does not fit together (exit code 2)."""


class SpecError(VitscopeError):
    """One or more problems of a spec, one line each, with file, line and column where known (exit code 2)."""

    def __init__(self, problems: Iterable[str]):
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n".join(self.problems))


class ShapeError(ValueError):
    """A block that cannot take the shape it is given. Raised by a grammar class, wrapped with its place by the spec."""


class UnavailableError(VitscopeError):
    """A runtime, a device or an optional package that is not here; the text names the cure (exit code 3)."""

    exit_code = 3


def nearest(word: str, names: Iterable[str]) -> str:
    """` — did you mean 'x'?` for the closest of `names`, or an empty text when nothing is close."""
    close = difflib.get_close_matches(str(word), list(names), n=1, cutoff=0.6)
    return f" — did you mean {close[0]!r}?" if close else ""
