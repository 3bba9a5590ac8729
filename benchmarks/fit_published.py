"""Rebuild the tables of published devices from published.csv, refit, and rewrite the fit of their device files.

python -m benchmarks.fit_published iphone12            # tables and fit; needs timm, some minutes
python -m benchmarks.fit_published --fit iphone12      # the fit alone, from the tables that ship
python -m benchmarks.fit_published --graphs DIR --all  # every device; keeps traced graphs in DIR for the next time
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from benchmarks.published_devices import PUBLISHED, Harness, Published
from benchmarks.published_networks import NOT_BUILT, RESOLUTION, TIMM_LINEAGES
from benchmarks.traced_networks import graphs_of
from vitscope.latency.device import DEVICES, Device, load_device
from vitscope.latency.fitted import fitted_section, transferred_section
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.residency import first_broken
from vitscope.latency.table import DATA, NetworkId, Row, kernels_text, load_table, parse_rows, rows_text
from vitscope.latency.transfer import transfer
from vitscope.latency.validate import validate

ROWS = Path(__file__).parent.parent / "vitscope" / "data" / "published.csv"
_VARIANTS = ("GeLU", "GELU", "ReLU", "HardSwish")  # hand-made, measured to show what an activation costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="DEVICE", help=", ".join(PUBLISHED))
    parser.add_argument("--all", action="store_true", help="every device that has a table")
    parser.add_argument("--fit", action="store_true", help="keep the tables, repeat the fit")
    parser.add_argument("--tables", action="store_true", help="rebuild the tables, keep the fit")
    parser.add_argument("--graphs", type=Path, help="directory that keeps traced graphs")
    parser.add_argument("--trace", action="store_true", help="only fill the directory of --graphs")
    asked = parser.parse_args()
    names = list(PUBLISHED) if asked.all else asked.names
    for name in names:
        if name not in PUBLISHED:
            parser.error(f"no published table for {name!r}: known are {', '.join(PUBLISHED)}")
    for name in names:
        if asked.trace:
            for network in dict.fromkeys(row.network for row in published_rows(PUBLISHED[name], say=False)):
                graphs_of(network, asked.graphs)
            continue
        if not asked.fit:
            build_tables(name, asked.graphs)
        if not asked.tables:
            write_fit(name)


def write_fit(name: str) -> None:
    """Validate and fit `name` from the tables that ship, and write the `fit:` part of its device file."""
    load_table.cache_clear()
    device = load_device(name)
    table = load_table(device)
    path = DEVICES / f"{name}.yaml"
    head = path.read_text().split("\nfit:")[0].split("\nroofline_only:")[0].rstrip()
    said = described(name, table.rows)
    if source := PUBLISHED[name].transfer_from:
        section = transferred_section(transfer(load_device(source), table, device), load_device(source), device, said)
    else:
        report = validate(table, device, say=lambda line: print(line, file=sys.stderr))
        section = fitted_section(report, table, device, said)
    path.write_text(f"{head}\n\n{section}")
    print(f"wrote {path}", file=sys.stderr)


def described(name: str, rows: tuple[Row, ...]) -> str:
    used = [row for row in rows if not row.sign]
    harnesses = len({row.harness for row in used})
    several = f", {harnesses} harnesses" if harnesses > 1 else ""
    return f"{PUBLISHED[name].described}{several}; latency/data/{name}_rows.csv says which and from where"


def build_tables(name: str, kept: Path | None) -> None:
    """Write the rows of one device and add its kernels to those of its runtime; say on stderr what is left out and why."""
    device = load_device(name)
    rows: list[Row] = []
    kernels: dict[NetworkId, tuple[Kernel, ...]] = {}
    for row in published_rows(PUBLISHED[name]):
        graphs = graphs_of(row.network, kept)
        if not graphs:
            continue
        broken = first_broken(device.residency, graphs)
        rows.append(replace(row, sign=broken.sign if broken else ""))
        if row.network not in kernels:
            kernels[row.network] = tuple(kernel for graph in graphs for kernel in lower(graph, device.rules))
    rows.sort(key=lambda r: (r.lineage, r.network, r.harness))
    (DATA / f"{name}_rows.csv").write_text(rows_text(rows))
    write_kernels(device, kernels, kept)
    print(
        f"{name}: {len(rows)} rows, {len({r.network for r in rows if not r.sign})} networks in the fit", file=sys.stderr
    )


def write_kernels(device: Device, own: dict[NetworkId, tuple[Kernel, ...]], kept: Path | None) -> None:
    """The kernels file of a runtime serves all devices that have it: keep what they need, lowered again."""
    kernels = dict(own)
    for name in PUBLISHED:
        path = DATA / f"{name}_rows.csv"
        if name == device.name or not path.is_file() or load_device(name).rules.name != device.rules.name:
            continue
        for row in parse_rows(path.read_text(), name):
            if row.network not in kernels:
                graphs = graphs_of(row.network, kept)
                kernels[row.network] = tuple(k for graph in graphs for k in lower(graph, device.rules))
    (DATA / f"{device.rules.name}_kernels.csv").write_text(kernels_text(kernels))


def published_rows(published: Published, say: bool = True) -> list[Row]:
    """One row per network, phone and harness: copies, quotations and rows that fell back are dropped, see the mapping."""
    best: dict[tuple[NetworkId, str], tuple[int, Row]] = {}
    left_out: Counter[str] = Counter()
    for record in csv.DictReader(ROWS.open()):
        if record["device"] not in published.devices or not record["runtime"].startswith(published.runtime):
            continue
        if published.precision is not None and record["precision"] != published.precision:
            continue
        seconds = seconds_of(record, published.batch)
        if seconds is None:
            left_out[f"not at batch {published.batch}"] += 1
            continue
        found = network_of(record, published)
        harness = harness_of(record["source"], published.harnesses)
        if isinstance(found, str) or harness is None:
            left_out[f"{record['model']}: {found if isinstance(found, str) else 'a source that is not used'}"] += 1
            continue
        network, lineage = found
        if (harness.name, lineage) in published.dropped and network.part != "backbone":
            left_out[f"{record['model']} [{harness.name}]: {published.dropped[harness.name, lineage]}"] += 1
            continue
        label = f"{harness.name}, {record['device']}" if harness.per_phone else harness.name
        row = Row(
            network, record["model"], lineage, label, record["device"], seconds, record["confidence"], "",
            record["source"].split(";")[0],
        )  # fmt: skip
        if (network, label) not in best or harness.order < best[network, label][0]:
            best[network, label] = (harness.order, row)
    for anchor in published.anchors:
        name, lineage = published.names[anchor.model]
        row = Row(
            NetworkId(name, anchor.side), anchor.model, lineage, "apple-xcode-ios17", published.devices[0],
            anchor.latency_ms * 1e-3, "medium", "", anchor.source,
        )  # fmt: skip
        best[row.network, row.harness] = (0, row)
    if say:
        for reason, count in sorted(left_out.items()):
            print(f"left out {count} x {reason}", file=sys.stderr)
    return [row for _, row in best.values()]


def seconds_of(record: dict[str, str], batch: int) -> float | None:
    """Seconds of one batch, None where the row is of another batch or has no time."""
    if record["batch"] != str(batch):
        return None
    if record["latency_ms"]:
        return float(record["latency_ms"]) * 1e-3
    return batch / float(record["throughput_img_s"]) if record["throughput_img_s"] else None


def network_of(record: dict[str, str], published: Published) -> tuple[NetworkId, str] | str:
    """The network of a row and its lineage, or why the row is left out."""
    model, size = record["model"], record["resolution"].split(" ")[0]
    if published.timm_names:
        if not record["variant"].startswith("timm name "):
            return "no name of timm"
        name = record["variant"].removeprefix("timm name ").strip()
        lineage = lineage_of(name)
    else:
        if record["variant"] in _VARIANTS:
            return "a hand-made variant"
        found = published.names.get(f"{model}@{size}") or published.names.get(model)
        if found is None:
            why = next((reason for start, reason in NOT_BUILT.items() if model.startswith(start)), "")
            return why or "an ablation, a repeat, a hand-made variant or not in the tables of names"
        name, lineage = found
    height, _, width = (size or str(RESOLUTION.get(model, ""))).partition("x")
    if not height:
        return "the row does not say its resolution"
    part = "backbone" if int(height) == published.dense_side else published.part
    return NetworkId(name, int(height), int(width or height), part), lineage


def lineage_of(timm_name: str) -> str:
    fitting = [start for start in TIMM_LINEAGES if timm_name.startswith(start)]
    if not fitting:
        raise ValueError(f"{timm_name}: no lineage in TIMM_LINEAGES")
    return TIMM_LINEAGES[max(fitting, key=len)]


def harness_of(source: str, harnesses: dict[str, Harness]) -> Harness | None:
    return next((harness for start, harness in harnesses.items() if source.startswith(start)), None)


if __name__ == "__main__":
    main()
