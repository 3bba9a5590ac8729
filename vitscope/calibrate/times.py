"""Times of kernels in a file, one line each: an interrupted calibration goes on from it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vitscope.calibrate.record import Timed
from vitscope.errors import UsageError
from vitscope.measure.saved import decode

SCHEMA_VERSION = 2


def write_timed(timed: Timed) -> str:
    """One line of JSON: each kernel of the probe once, and in which order they run."""
    distinct = list(dict.fromkeys(timed.kernels))
    numbers = {kernel: number for number, kernel in enumerate(distinct)}
    record = asdict(replace(timed, kernels=tuple(distinct)))
    return json.dumps(record | {"order": [numbers[kernel] for kernel in timed.kernels]}, separators=(",", ":"))


def read_header(path: Path) -> dict[str, Any]:
    """Where the times were taken (`place`), and of which models (`models`; None for the zoo's). Raises UsageError."""
    try:
        with path.open(encoding="utf-8") as file:
            found = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not the times of a calibration: {error}") from error
    if not isinstance(found, dict) or "schema_version" not in found:
        raise UsageError(f"{path}: not the times of a calibration: its first line says no place")
    if found["schema_version"] != SCHEMA_VERSION:
        raise UsageError(f"{path}: written by another version of vitscope; remove it, or give --again to time anew")
    return found


def read_timed(path: Path) -> list[Timed]:
    """The lines of a file that a calibration wrote; the last may have been cut. Raises UsageError for any other file."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read: {error}") from error
    for number, line in enumerate(lines[1:], 2):  # the first says where they were taken
        try:
            record = json.loads(line)
            order = record.pop("order")
            timed = decode(Timed, record)
            found.append(replace(timed, kernels=tuple(timed.kernels[number] for number in order)))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            if number == len(lines):
                break
            raise UsageError(f"{path}:{number}: not the times of a calibration: {error}") from error
    return found
