"""The published measurements that a device was fitted on, and the kernels of their networks, read from latency/data/*.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vitscope.errors import UnavailableError, UsageError
from vitscope.latency.kernels import Kernel

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True, order=True)
class NetworkId:
    """A network as it was measured: a timm name, the side of its square input, and `whole` or `backbone` (no classifier)."""

    name: str
    resolution: int
    part: str = "whole"


@dataclass(frozen=True, slots=True)
class Row:
    """One published latency. `sign` names what keeps the network out of the fit, empty when nothing does."""

    network: NetworkId
    published_as: str
    lineage: str
    harness: str
    device: str
    latency_s: float
    confidence: str
    sign: str
    source: str


@dataclass(frozen=True)
class Table:
    """Rows in the order of the file, and for each network of the fit its kernels with how often each occurs."""

    rows: tuple[Row, ...]
    kernels: dict[NetworkId, tuple[tuple[int, Kernel], ...]]


ROW_COLUMNS = (
    "network", "resolution", "part", "published_as", "lineage", "harness", "device", "latency_ms", "confidence", "sign",
    "source",
)  # fmt: skip
KERNEL_COLUMNS = ("network", "resolution", "part", "kind", "count", "macs", "reads", "weights", "writes", "depth")


@cache
def load_table(device: str) -> Table:
    """The table that ships for `device`. Raises UnavailableError when there is none."""
    rows, kernels = DATA / f"{device}_rows.csv", DATA / f"{device}_kernels.csv"
    if not rows.is_file() or not kernels.is_file():
        raise UnavailableError(f"no measurements of {device!r} ship with vitscope, so its fit cannot be repeated here")
    return parse_table(rows.read_text(), kernels.read_text(), device)


def parse_table(rows_text: str, kernels_text: str, where: str) -> Table:
    """A Table from the text of its two files; `where` names them in errors."""
    rows = tuple(_row(record, f"{where}_rows.csv:{line}") for line, record in _records(rows_text, ROW_COLUMNS, where))
    kernels: dict[NetworkId, list[tuple[int, Kernel]]] = {}
    for line, record in _records(kernels_text, KERNEL_COLUMNS, where):
        at = f"{where}_kernels.csv:{line}"
        macs, reads, weights, writes, depth, count = (
            _integer(record, key, at) for key in ("macs", "reads", "weights", "writes", "depth", "count")
        )
        kernel = Kernel(record["kind"], "", macs, reads, weights, writes, depth, ())  # type: ignore[arg-type]
        kernels.setdefault(_network(record, at), []).append((count, kernel))
    for row in rows:
        if not row.sign and row.network not in kernels:
            raise UsageError(f"{where}_kernels.csv: no kernels of {row.network.name} at {row.network.resolution} px")
    return Table(rows, {network: tuple(found) for network, found in kernels.items()})


def rows_text(rows: Iterable[Row]) -> str:
    """The text of a rows file."""
    lines = [
        (
            *_key(r.network),
            r.published_as,
            r.lineage,
            r.harness,
            r.device,
            f"{r.latency_s * 1e3:g}",
            r.confidence,
            r.sign,
            r.source,
        )
        for r in rows
    ]
    return _csv(ROW_COLUMNS, lines)


def kernels_text(kernels: dict[NetworkId, tuple[Kernel, ...]]) -> str:
    """The text of a kernels file: equal kernels of one network are one line with their count."""
    lines = []
    for network in sorted(kernels):
        counts: dict[tuple[object, ...], int] = {}
        for k in kernels[network]:
            key = (k.kind, k.macs, k.reads, k.weights, k.writes, k.depth)
            counts[key] = counts.get(key, 0) + 1
        for (kind, *numbers), count in counts.items():
            lines.append((*_key(network), kind, count, *numbers))
    return _csv(KERNEL_COLUMNS, lines)


def _row_cells(r: Row) -> tuple[object, ...]:
    latency_ms = f"{r.latency_s * 1e3:g}"
    return *_key(r.network), r.published_as, r.lineage, r.harness, r.device, latency_ms, r.confidence, r.sign, r.source


def _key(network: NetworkId) -> tuple[object, ...]:
    return network.name, network.resolution, network.part


def _csv(columns: tuple[str, ...], lines: Iterable[tuple[object, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return out.getvalue()


def _records(text: str, columns: tuple[str, ...], where: str) -> Iterable[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"{where}: the table has no column {missing[0]!r}; expected {', '.join(columns)}")
    for record in reader:
        yield reader.line_num, record


def _row(record: dict[str, str], at: str) -> Row:
    try:
        latency_s = float(record["latency_ms"]) * 1e-3
    except ValueError:
        raise UsageError(f"{at}: latency_ms must be a number, got {record['latency_ms']!r}") from None
    if not latency_s > 0:
        raise UsageError(f"{at}: latency_ms must be above 0, got {record['latency_ms']!r}")
    return Row(
        network=_network(record, at),
        published_as=record["published_as"],
        lineage=record["lineage"],
        harness=record["harness"],
        device=record["device"],
        latency_s=latency_s,
        confidence=record["confidence"],
        sign=record["sign"],
        source=record["source"],
    )


def _network(record: dict[str, str], at: str) -> NetworkId:
    return NetworkId(record["network"], _integer(record, "resolution", at), record["part"])


def _integer(record: dict[str, str], key: str, at: str) -> int:
    try:
        return int(record[key])
    except ValueError:
        raise UsageError(f"{at}: {key} must be a whole number, got {record[key]!r}") from None
