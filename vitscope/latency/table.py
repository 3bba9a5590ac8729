"""The published measurements that a device was fitted on, and the kernels of their networks, from latency/data/*.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vitscope.errors import UnavailableError, UsageError
from vitscope.latency.device import Device
from vitscope.latency.geometry import Geometry
from vitscope.latency.kernels import Kernel

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True, order=True)
class NetworkId:
    """A network as it was measured: what builds it (a timm name, `zoo:…`, `torchvision:…`) and its input in pixels.

    `part` is `whole` in deploy form, `backbone` the same without a classifier, `train` whole as written, with the
    branches and norms of training.
    """

    name: str
    height: int
    width: int = 0  # not given: as the height
    part: str = "whole"

    def __post_init__(self) -> None:
        if not self.width:
            object.__setattr__(self, "width", self.height)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def side(self) -> str:
        """`224` of a square input, `1024x2048` of another."""
        return str(self.height) if self.height == self.width else f"{self.height}x{self.width}"


@dataclass(frozen=True, slots=True)
class Row:
    """One published latency of one batch. `sign` names what keeps the network out of the fit, empty when nothing does."""

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
    """Rows in the order of the file, and for each network its kernels, at the batch of the device, with their counts."""

    rows: tuple[Row, ...]
    kernels: dict[NetworkId, tuple[tuple[int, Kernel], ...]]


ROW_COLUMNS = (
    "network", "resolution", "part", "published_as", "lineage", "harness", "device", "latency_ms", "confidence", "sign",
    "source",
)  # fmt: skip
KERNEL_COLUMNS = (
    "network", "resolution", "part", "kind", "count", "macs", "reads", "weights", "writes", "depth", "out_channels", "groups",
)  # fmt: skip


@cache
def load_table(device: Device) -> Table:
    """The table that ships for `device`: its rows, and the kernels of its runtime. Raises UnavailableError without one."""
    rows, kernels = DATA / f"{device.name}_rows.csv", DATA / f"{device.rules.name}_kernels.csv"
    if not rows.is_file() or not kernels.is_file():
        raise UnavailableError(
            f"no measurements of {device.name!r} ship with vitscope, so its fit cannot be repeated here"
        )
    return parse_table(rows.read_text(), kernels.read_text(), device.name, device.batch)


def parse_table(rows_text: str, kernels_text: str, where: str, batch: int = 1) -> Table:
    """A Table from the text of its two files; `where` names them in errors.

    The kernels are those of one image, and may be of more networks than the rows name: here they become those of a batch
    of the networks in the rows. Weights are read once however many the images. Of the geometry only channels and groups
    are kept, for kernels with weights.
    """
    rows = parse_rows(rows_text, where)
    wanted = {row.network for row in rows}
    kernels: dict[NetworkId, list[tuple[int, Kernel]]] = {}
    for line, record in _records(kernels_text, KERNEL_COLUMNS, where):
        at = f"{where}: kernels, line {line}"
        network = _network(record, at)
        if network not in wanted:
            continue
        macs, reads, weights, writes, depth, count, out_channels, groups = (
            _integer(record, key, at)
            for key in ("macs", "reads", "weights", "writes", "depth", "count", "out_channels", "groups")
        )
        channels = Geometry(1, depth * groups, out_channels, groups=groups) if groups else None
        kernel = Kernel(record["kind"], "", macs, reads, weights, writes, depth, (), geometry=channels)  # type: ignore[arg-type]
        kernels.setdefault(network, []).append((count, of_batch(kernel, batch)))
    for row in rows:
        if row.network not in kernels:
            raise UsageError(f"{where}: no kernels of {row.network.name} at {row.network.side} px")
    return Table(rows, {network: tuple(found) for network, found in kernels.items()})


def parse_rows(text: str, where: str) -> tuple[Row, ...]:
    """The rows of a rows file."""
    return tuple(_row(record, f"{where}_rows.csv:{line}") for line, record in _records(text, ROW_COLUMNS, where))


def of_batch(kernel: Kernel, batch: int) -> Kernel:
    """The kernel of one image as it is for `batch` images."""
    if batch == 1:
        return kernel
    return replace(kernel, macs=kernel.macs * batch, reads=kernel.reads * batch, writes=kernel.writes * batch)


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
            laned = k.geometry is not None and k.kind in ("conv", "grouped", "pointwise", "linear")
            channels = (k.geometry.out_channels, k.geometry.groups) if laned and k.geometry else (0, 0)
            key = (k.kind, k.macs, k.reads, k.weights, k.writes, k.depth, *channels)
            counts[key] = counts.get(key, 0) + 1
        for (kind, *numbers), count in counts.items():
            lines.append((*_key(network), kind, count, *numbers))
    return _csv(KERNEL_COLUMNS, lines)


def _key(network: NetworkId) -> tuple[object, ...]:
    return network.name, network.side, network.part


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
    height, _, width = record["resolution"].partition("x")
    try:
        return NetworkId(record["network"], int(height), int(width or height), record["part"])
    except ValueError:
        raise UsageError(
            f"{at}: resolution must be a side or HEIGHTxWIDTH in pixels, got {record['resolution']!r}"
        ) from None


def _integer(record: dict[str, str], key: str, at: str) -> int:
    try:
        return int(record[key])
    except ValueError:
        raise UsageError(f"{at}: {key} must be a whole number, got {record[key]!r}") from None
