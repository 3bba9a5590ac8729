"""Measurements and unfinished rounds as JSON and back: every sample, with all of its context. Files are written atomically."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from vitscope.errors import UsageError
from vitscope.measure.channel import MeasureError
from vitscope.measure.record import Measurement
from vitscope.measure.session import Round

SCHEMA_VERSION = 1


def measurement_json(measurement: Measurement) -> str:
    """The whole record; seconds, bytes and hertz as raw numbers."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "measurement": asdict(measurement)}, separators=(",", ":"))


def read_measurement(path: Path) -> Measurement:
    """The record that `measurement_json` wrote. Raises UsageError for any other file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {data['schema_version']}, expected {SCHEMA_VERSION}")
        return decode(Measurement, data["measurement"])
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a measurement of vitscope: {error}") from error


def rounds_json(rounds: Sequence[Round]) -> str:
    """The rounds of a measurement that is not finished."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "rounds": [asdict(past) for past in rounds]})


def read_rounds(path: Path) -> tuple[Round, ...]:
    """The rounds in `path`; none where there is no such file, or one that is damaged or of another version."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            return ()
        return tuple(decode(Round, past) for past in data["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def decode(kind: Any, data: Any) -> Any:
    """A value of `kind` (dataclasses, tuples, mappings, unions with None, literals, scalars) from what `asdict` made of one.

    Unknown keys are an error, missing ones take the field's default. Raises KeyError, TypeError or ValueError.
    """
    make: Any = kind
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {field.name for field in fields(kind)}
        unknown = set(data) - known
        if unknown:
            raise ValueError(f"unknown key {sorted(unknown)[0]!r} of {make.__name__}")
        return make(**{name: decode(hints[name], value) for name, value in data.items()})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = [inner[0]] * len(data) if inner[1:] == (...,) else inner
        return tuple(decode(part, value) for part, value in zip(kinds, data, strict=True))
    if origin in (types.UnionType, typing.Union):
        return data if data is None else decode(next(part for part in inner if part is not type(None)), data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {str(name): decode(inner[1], value) for name, value in data.items()}
    if origin is typing.Literal:
        if data not in inner:
            raise ValueError(f"expected one of {', '.join(map(str, inner))}, got {data!r}")
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind):
        raise ValueError(f"expected {kind.__name__}, got {data!r}")
    return data


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never half of it; so does whoever starts the machine again.

    Raises MeasureError when the disk is full or the folder cannot be written, with the old file as it was.
    """
    path = Path(os.path.realpath(path))
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise MeasureError(f"{path}: cannot write: {error.strerror or error}") from error
        raise
