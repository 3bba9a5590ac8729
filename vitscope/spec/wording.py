"""How the problems of a spec are worded: values as YAML writes them and cut short, close names, one line each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vitscope.errors import nearest

_ROOM = 60  # characters of a value that a message repeats
_LONGEST_WORD = 64  # beyond it nothing is a slip of the finger, and looking for close names gets slow


def shown(value: Any) -> str:
    """`value` as a spec would write it, without line breaks or control characters, cut to a readable length."""
    text = _written(value)
    return text if len(text) <= _ROOM else text[: _ROOM - 1] + "…"


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value[: _ROOM + 1])
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_written(item) for item in value[:_ROOM])}]"
    if isinstance(value, dict):
        items = list(value.items())[:_ROOM]
        return f"{{{', '.join(f'{printable(str(key)[:_ROOM])}: {_written(item)}' for key, item in items)}}}"
    return repr(value)


def printable(text: str) -> str:
    """`text` with everything that could move a terminal's cursor or break a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def one_line(error: BaseException) -> str:
    """The text of an exception of somebody else's code, as part of a line."""
    text = printable(" ".join(str(error).split())) or "no message"
    return text if len(text) <= 300 else text[:299] + "…"


def choices(word: object, names: Iterable[str], what: str) -> str:
    """The end of `unknown x 'fnn'`: ` — did you mean 'ffn'? kinds: ffn, attention`, or `; kinds: …`."""
    names = list(names)
    close = close_to(word, names)
    return f"{close or ';'} {what}: {', '.join(names)}"


def close_to(word: object, names: Iterable[str]) -> str:
    """` — did you mean 'x'?` whatever the case of letters and the kind of dashes, or an empty text."""
    text = str(word)
    return nearest(text.lower().replace("-", "_"), names) if len(text) <= _LONGEST_WORD else ""
