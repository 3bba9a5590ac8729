"""A results CSV that several processes append to, with every sample in a JSON beside each row. `vitscope pareto` reads it.

`results.csv` has its samples in `results.samples/KEY.json`, and the rounds of a measurement that was interrupted in
`results.samples/KEY-of-BYTES.rounds.json`. The key is a digest of what is measured, where, on which version, and the protocol.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitscope.errors import UsageError
from vitscope.measure.channel import Job, MeasureError
from vitscope.measure.record import Condition, Measurement, Protocol
from vitscope.measure.saved import measurement_json, read_rounds, rounds_json, write_atomically
from vitscope.measure.session import Round

COLUMNS = (
    "model", "family", "params", "macs", "top1", "latency_p50_s", "latency_p90_s", "latency_low_s", "latency_high_s",
    "unstable", "precision", "form", "input", "batch", "target", "host", "processor", "system", "runtime",
    "runtime_version", "unit", "threads", "affinity", "options", "format", "weights", "artifact_bytes", "samples",
    "processes", "digest", "date", "warnings", "samples_file", "key",
)  # fmt: skip
FACTS = ("family", "params", "macs", "top1")  # what the caller knows of a network, and a measurement does not
_OURS = frozenset({"model", "latency_p50_s", "samples_file", "key"})  # a table without these is another's


def key_of(condition: Condition, protocol: Protocol) -> str:
    """The key of a measurement that was made."""
    return _digest(
        condition.model, condition.digest, condition.form, condition.input_shape, condition.precision, condition.format,
        condition.weights, condition.tools, _place(condition.target, condition.host), condition.runtime,
        condition.runtime_version, condition.unit, condition.threads, condition.affinity,
        sorted(condition.options.items()), _rule(protocol),
    )  # fmt: skip


def key_of_job(job: Job, protocol: Protocol, *, target: str, runtime_version: str) -> str:
    """The key that the measurement of `job` will have: what is finished and what was begun is found by it."""
    artifact = job.artifact
    return _digest(
        artifact.model, artifact.digest, artifact.form, artifact.input_shape, artifact.precision, artifact.format,
        artifact.weights, artifact.tools, _place(target, platform.node()), job.runtime, runtime_version, job.unit,
        job.threads, job.affinity, sorted(job.options), _rule(protocol),
    )  # fmt: skip


def check(path: Path) -> None:
    """Whether rows can be appended to `path`: it is new in a folder that is there, or a table of ours.

    Raises UsageError in one line, before anything is measured.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a directory, expected a CSV file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    for folder in (path.parent, _folder(path)):  # files are made beside and moved, so that the folder counts
        if folder.exists() and not os.access(folder, os.W_OK):
            raise UsageError(f"{path}: cannot write in the folder {folder}")
    _heading(path, _read(path))


def finished(path: Path) -> dict[str, frozenset[int]]:
    """The keys of the rows of `path`, each with the sizes in bytes of the files that were measured under it.

    An exporter that changed writes another file of the same network, which was not measured then. None where there is
    no such table; a row that does not tell the size has none. Raises UsageError for a table of another kind.
    """
    content = _read(path)
    columns = _heading(path, content)
    found: dict[str, frozenset[int]] = {}
    for row in _rows(path, content)[1:]:
        cells = dict(zip(columns, row, strict=False))
        if key := cells.get("key"):
            size = cells.get("artifact_bytes", "")
            found[key] = found.get(key, frozenset()) | ({int(size)} if size.isdecimal() else frozenset())
    return found


def append(path: Path, measurement: Measurement, facts: Mapping[str, Any] | None = None) -> Path:
    """Add the row of `measurement` to `path` and write its samples, whose file is returned. `facts` are of FACTS.

    Other processes may do the same: each row is added whole, under a lock. A table of ours with columns of its own
    keeps them, and one that lacks some of ours gets them. What was begun under the same key is dropped.
    Raises UsageError for a table of another kind, MeasureError when it cannot be written; the file then is as it was.
    """
    unknown = set(facts or {}) - set(FACTS)
    if unknown:
        raise ValueError(f"no column {sorted(unknown)[0]!r} is the caller's")
    key = key_of(measurement.condition, measurement.protocol)
    with _locked(path):
        content = _read(path)
        columns = _heading(path, content)  # before anything is written
        samples = _free(_folder(path) / f"{key}.json")
        _make(samples.parent)
        cells = _cells(measurement, facts or {}, key, samples.relative_to(path.parent).as_posix())
        write_atomically(samples, measurement_json(measurement).encode())
        try:
            write_atomically(path, _with_row(path, content, columns, cells))
        except BaseException:
            with contextlib.suppress(OSError):
                samples.unlink()
            raise
    drop(path, key)
    return samples


def kept(path: Path, key: str) -> tuple[Round, ...]:
    """The rounds that an interrupted measurement of `key` left; none where there are none or they are damaged."""
    return read_rounds(_unfinished(path, key))


def keep(path: Path, key: str, rounds: Sequence[Round]) -> None:
    """Remember the rounds of a measurement that goes on. Raises MeasureError when they cannot be written."""
    file = _unfinished(path, key)
    _make(file.parent)
    write_atomically(file, rounds_json(rounds).encode())


def drop(path: Path, key: str) -> None:
    """Forget the rounds of `key`, of whatever file (`rounds_key`)."""
    for file in _folder(path).glob(f"{key}*.rounds.json"):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def rounds_key(key: str, artifact_bytes: int) -> str:
    """What rounds of `key` are kept under: those of a file that was exported otherwise do not go on with this one."""
    return f"{key}-of-{artifact_bytes}"


def samples_of(path: Path, key: str) -> list[Path]:
    """The files of samples of `key` beside `path`, the newest first."""

    def number(file: Path) -> int:
        digits = file.stem[len(key) + 1 :]
        return int(digits) if digits.isdecimal() else 1

    files = (f for f in _folder(path).glob(f"{key}*.json") if f.stem == key or f.stem[len(key) + 1 :].isdecimal())
    return sorted(files, key=number, reverse=True)


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.stem}.samples")


def _unfinished(path: Path, key: str) -> Path:
    return _folder(path) / f"{key}.rounds.json"


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _place(target: str, host: str) -> str:
    """`host` and `mac` are wherever the command runs; other targets name their machine."""
    return f"{target} {host}" if target in ("host", "mac") else target


def _rule(protocol: Protocol) -> tuple[object, ...]:
    """What of a protocol makes its figures differ: all but how long to wait for an answer."""
    return (
        protocol.processes, protocol.blocks, protocol.block_s, protocol.block_runs, protocol.warm_s, protocol.warm_runs,
        protocol.warm_tolerance, protocol.warm_limit_s, protocol.slowed, protocol.memory_slowed, protocol.retries, protocol.seed,
    )  # fmt: skip


def _cells(measurement: Measurement, facts: Mapping[str, Any], key: str, samples_file: str) -> dict[str, str]:
    at, figures = measurement.condition, measurement.summary
    values: dict[str, Any] = {
        **facts, "model": at.model, "latency_p50_s": figures.latency_p50_s, "latency_p90_s": figures.latency_p90_s,
        "latency_low_s": figures.low_s, "latency_high_s": figures.high_s, "unstable": measurement.unstable,
        "precision": at.precision, "form": at.form, "input": "x".join(map(str, at.input_shape[1:])), "batch": at.batch,
        "target": at.target, "host": at.host, "processor": at.processor, "system": at.system, "runtime": at.runtime,
        "runtime_version": at.runtime_version, "unit": at.unit, "threads": at.threads,
        "affinity": " ".join(map(str, at.affinity)), "format": at.format, "weights": at.weights,
        "options": " ".join(f"{name}={value}" for name, value in sorted(at.options.items())),
        "artifact_bytes": at.artifact_bytes, "samples": figures.samples,
        "processes": len({block.process for block in measurement.blocks}), "digest": at.digest,
        "date": measurement.date, "warnings": "; ".join(measurement.warnings), "samples_file": samples_file, "key": key,
    }  # fmt: skip
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    """Unknown is empty. Seconds to the nanosecond, which is what a clock gives."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.9g}"
    return " ".join(str(value).split())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error


def _rows(path: Path, content: bytes) -> list[list[str]]:
    try:
        text = content.decode("utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file that rows can be appended to: {error}") from error


def _heading(path: Path, content: bytes) -> list[str]:
    """The columns of `path`, none where it is new. Raises UsageError when they are not of a table of ours."""
    if not content.strip():
        return []
    columns = [name.strip() for name in _rows(path, content)[0]]
    missing = sorted(_OURS - set(columns))
    if missing:
        raise UsageError(f"{path}: is no table of measurements (it has no column {missing[0]!r}); name another file")
    return columns


def _with_row(path: Path, content: bytes, columns: list[str], cells: Mapping[str, str]) -> bytes:
    """The whole file with one more row. The bytes of the others stay, unless they need new columns."""
    end = "\r\n" if content.partition(b"\n")[0].endswith(b"\r") else "\n"
    wanted = [*columns, *(name for name in COLUMNS if name not in columns)]
    if not columns:
        content = _line(COLUMNS, end)
    elif len(wanted) > len(columns):
        rows = _rows(path, content)
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(columns):
                raise UsageError(
                    f"{path}: row {number} has {len(row)} cells, but the heading names {len(columns)} columns"
                )
        blank = [""] * (len(wanted) - len(columns))
        content = _line(wanted, end) + b"".join(_line([*row, *blank], end) for row in rows[1:])
    elif not content.endswith(b"\n"):
        content += end.encode()
    return content + _line([cells.get(name, "") for name in (wanted if columns else COLUMNS)], end)


def _line(cells: Sequence[str], end: str) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=end).writerow(cells)
    return buffer.getvalue().encode()


def _free(path: Path) -> Path:
    """`path`, or it with a number where a measurement of the same key has its samples already."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise MeasureError(f"{folder}: cannot be made: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone with `path` among the processes of this machine. The lock is a file beside it, since `path` is replaced."""
    import fcntl  # POSIX, as the targets are

    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise MeasureError(f"{lock}: cannot write: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
