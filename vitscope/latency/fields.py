"""Reading a mapping field by field with one-line errors: file, key, what was expected, what was found, the nearest name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitscope.errors import UsageError, nearest

MAX_BYTES = 4_000_000  # a device file is a few kB; a larger one is something else


def read_yaml(path: Path) -> object:
    """The document in `path`, with the fast C loader where PyYAML has it. Raises UsageError, also for a key given twice."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # pyright: ignore[reportGeneralTypeIssues]
        """The safe loader, which keeps the last of two equal keys, with that mistake refused."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [child.value for child, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise UsageError(f"{path}:{node.start_mark.line + 1}: the key {twice!r} is given twice")
            return super().construct_mapping(node, deep)

    try:
        raw = path.read_bytes()
        if len(raw) > MAX_BYTES:
            raise UsageError(f"{path}: {len(raw)} bytes, expected a file of at most {MAX_BYTES}")
        return yaml.load(raw.decode(), Loader=Loader)
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not a YAML file: {reason}") from error


class Fields:
    """A mapping being read. Every field is taken by the method that says what it must be; `done()` refuses what is left."""

    def __init__(self, where: str, value: object, inside: str = ""):
        self.where = where
        self.inside = inside
        if not isinstance(value, dict):
            raise UsageError(f"{where}: {inside or 'the document'} must be a mapping, got {_brief(value)}")
        self._left: dict[Any, Any] = dict(value)
        self._known: list[str] = []

    def fail(self, key: str, expected: str, got: object) -> UsageError:
        return UsageError(f"{self.where}: {self._path(key)} must be {expected}, got {_brief(got)}")

    def take(self, key: str, expected: str) -> Any:
        """The raw value of a required field."""
        self._known.append(key)
        if key not in self._left:
            close = nearest(key, [str(k) for k in self._left])
            raise UsageError(f"{self.where}: {self._path(key)} is missing, expected {expected}{close}")
        return self._left.pop(key)

    def has(self, key: str) -> bool:
        self._known.append(key)
        return key in self._left

    def text(self, key: str) -> str:
        value = self.take(key, "a text")
        if not isinstance(value, str) or not value.strip():
            raise self.fail(key, "a text", value)
        return " ".join(value.split())

    def number(self, key: str, *, positive: bool = False, minimum: float | None = 0.0) -> float:
        """A finite number: above 0 when `positive`, else at least `minimum` (None: any)."""
        expected = (
            "a number above 0" if positive else "a number" if minimum is None else f"a number of at least {minimum:g}"
        )
        value = self.take(key, expected)
        if isinstance(value, str):  # YAML 1.1 reads 1e-5, without a point, as a text
            try:
                value = float(value)
            except ValueError:
                raise self.fail(key, expected, value) from None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.fail(key, expected, value)
        if (positive and value <= 0) or (not positive and minimum is not None and value < minimum):
            raise self.fail(key, expected, value)
        return float(value)

    def integer(self, key: str, *, minimum: int = 0) -> int:
        expected = f"a whole number of at least {minimum}"
        value = self.take(key, expected)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.fail(key, expected, value)
        return value

    def flag(self, key: str) -> bool:
        value = self.take(key, "true or false")
        if not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return value

    def choice(self, key: str, names: Iterable[str]) -> Any:
        names = list(names)
        value = self.take(key, "one of " + ", ".join(names))
        if value not in names:
            raise UsageError(f"{self.fail(key, 'one of ' + ', '.join(names), value)}{nearest(str(value), names)}")
        return value

    def choices(self, key: str, names: Iterable[str]) -> tuple[Any, ...]:
        names = list(names)
        value = self.take(key, "a list of " + ", ".join(names))
        if not isinstance(value, list):
            raise self.fail(key, "a list of " + ", ".join(names), value)
        for item in value:
            if item not in names:
                raise UsageError(f"{self.fail(key, 'a list of ' + ', '.join(names), item)}{nearest(str(item), names)}")
        return tuple(value)

    def record(self, key: str) -> Fields:
        return Fields(self.where, self.take(key, "a mapping"), self._path(key))

    def records(self, key: str) -> list[Fields]:
        value = self.take(key, "a list of mappings")
        if not isinstance(value, list):
            raise self.fail(key, "a list of mappings", value)
        return [Fields(self.where, item, f"{self._path(key)}.{i}") for i, item in enumerate(value)]

    def names(self) -> tuple[str, ...]:
        """The fields that nobody has taken yet, for a mapping whose keys are names of the user's choice."""
        return tuple(str(key) for key in self._left)

    def done(self) -> None:
        """Refuse a field that nobody asked for: a typing error must not change a device in silence."""
        if self._left:
            key = str(next(iter(self._left)))
            known = ", ".join(sorted(set(self._known)))
            raise UsageError(f"{self.where}: unknown key {self._path(key)}{nearest(key, self._known)}; keys: {known}")

    def _path(self, key: str) -> str:
        return f"{self.inside}.{key}" if self.inside else key


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
