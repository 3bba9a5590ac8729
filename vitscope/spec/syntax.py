"""What a YAML parser's complaint means to the person who wrote the file."""

from __future__ import annotations

import yaml

_CURES = {
    "mapping values are not allowed in this context":
        "a ': ' that starts no key here: quote a text that holds one, and check the indentation",
    "did not find expected ',' or ']'": "expected ',' or ']'",
    "did not find expected ',' or '}'": "expected ',' or '}'",
    "did not find expected key": "expected a key here: check the indentation, and the brackets and quotes above",
    "did not find expected '-' indicator": "expected '- ' here: check the indentation",
    "did not find expected node content": "expected a value here",
    "did not find expected <document start>": "unexpected text after the end of the value",
    "could not find expected ':'": "expected ': ' after this key",
    "found unexpected end of stream": "the text ends too early",
    "found unknown escape character": "unknown escape after \\: double it, or use single quotes",
}  # fmt: skip
_OPENED = {
    "while parsing a flow sequence": "the list",
    "while parsing a flow mapping": "the mapping",
    "while scanning a quoted scalar": "the quoted text",
}


def explain_syntax(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Line, column (one-based; line 0 when unknown) and meaning of a syntax error of `text`."""
    place = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if place is None:
        return 0, 0, " ".join(str(error).split())
    problem = str(getattr(error, "problem", "") or "").strip()
    what = _CURES.get(problem, problem)
    if problem.startswith("found character"):  # cannot start any token, or: that cannot start any token
        character = _character(text, place.line, place.column)
        what = (
            "a tab cannot indent: use spaces"
            if character == "\t"
            else f"a value cannot start with {character!r}: quote it as text"
        )
    context, opened = str(getattr(error, "context", "") or ""), getattr(error, "context_mark", None)
    if context in _OPENED and opened is not None and (opened.line, opened.column) != (place.line, place.column):
        what += f" ({_OPENED[context]} opened at line {opened.line + 1}, column {opened.column + 1})"
    return place.line + 1, place.column + 1, what


def _character(text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    return lines[line][column : column + 1] if line < len(lines) else ""
