"""Rebuild the iPhone 12 tables from published.csv and timm, refit, and rewrite the fit of devices/iphone12.yaml.

python -m benchmarks.fit_iphone12            # tables and fit; needs timm, a few minutes
python -m benchmarks.fit_iphone12 --fit      # the fit alone, from the tables that ship
"""

from __future__ import annotations

import argparse
import csv
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.iphone12_networks import FELL_BACK, HARNESSES, NETWORKS, NOT_BUILT, QUOTED, RESOLUTION, Harness
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.latency.device import DEVICES, load_device
from vitscope.latency.fitted import fitted_section
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.residency import first_broken
from vitscope.latency.table import DATA, NetworkId, Row, kernels_text, load_table, rows_text
from vitscope.latency.validate import validate

PUBLISHED = Path(__file__).parent.parent / "vitscope" / "data" / "published.csv"
PHONES = ("iPhone 12", "iPhone 12 Pro", "iPhone 12 Pro Max")  # one chip, one memory: the A14 with LPDDR4X
DESCRIBED = (
    "published latencies of networks that the Neural Engine runs whole, iPhone 12, 12 Pro and 12 Pro Max, 13 harnesses; "
    "latency/data/iphone12_rows.csv says which and from where"
)
DENSE_SIDE = 512  # these rows are backbones of detectors, without a classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="keep the tables, repeat the fit")
    if not parser.parse_args().fit:
        build_tables()
    load_table.cache_clear()
    table = load_table("iphone12")
    report = validate(table, say=lambda line: print(line, file=sys.stderr))
    path = DEVICES / "iphone12.yaml"
    head = path.read_text().split("\nfit:")[0].rstrip()
    path.write_text(head + "\n\n" + fitted_section(report, table, DESCRIBED))
    print(f"wrote {path}", file=sys.stderr)


def build_tables() -> None:
    """Write iphone12_rows.csv and iphone12_kernels.csv, and say on stderr what was left out and why."""
    device = load_device("iphone12")
    rows: list[Row] = []
    kernels: dict[NetworkId, tuple[Kernel, ...]] = {}
    graphs: dict[NetworkId, Graph | None] = {}
    for row in published_rows():
        if row.network not in graphs:
            graphs[row.network] = build(row.network)
        graph = graphs[row.network]
        if graph is None:
            continue
        broken = first_broken(device.residency, [graph])
        rows.append(Row(*(getattr(row, f) for f in Row.__slots__[:7]), broken.sign if broken else "", row.source))
        if not broken:
            kernels[row.network] = lower(graph, device.rules)
    rows.sort(key=lambda r: (r.lineage, r.network, r.harness))
    (DATA / "iphone12_rows.csv").write_text(rows_text(rows))
    (DATA / "iphone12_kernels.csv").write_text(kernels_text(kernels))
    print(f"{len(rows)} rows, {len(kernels)} networks in the fit", file=sys.stderr)


def published_rows() -> list[Row]:
    """One row per network, phone and harness: copies, quotations and rows that fell back are dropped, see the mapping."""
    best: dict[tuple[NetworkId, str], tuple[int, Row]] = {}
    for record in csv.DictReader(PUBLISHED.open()):
        if record["device"] not in PHONES or not record["latency_ms"]:
            continue
        model, source = record["model"], record["source"]
        harness = harness_of(source)
        why = next((reason for start, reason in NOT_BUILT.items() if model.startswith(start)), "")
        if model not in NETWORKS or harness is None or record["variant"] in ("GeLU", "GELU", "ReLU", "HardSwish"):
            print(
                f"left out: {model} [{source[:50]}] {why or 'an ablation, a repeat or a hand-made variant'}",
                file=sys.stderr,
            )
            continue
        name, lineage = NETWORKS[model]
        side = int(record["resolution"] or RESOLUTION[model])
        network = NetworkId(name, side, "backbone" if side == DENSE_SIDE else "whole")
        quoted = (harness.name, lineage) in QUOTED and side != DENSE_SIDE
        if quoted or (harness.name, lineage) in FELL_BACK:
            continue
        label = f"{harness.name}, {record['device']}" if harness.per_phone else harness.name
        row = Row(
            network, model, lineage, label, record["device"], float(record["latency_ms"]) * 1e-3, record["confidence"], "",
            source.split(";")[0],
        )  # fmt: skip
        if (network, label) not in best or harness.order < best[network, label][0]:
            best[network, label] = (harness.order, row)
    return [row for _, row in best.values()]


def harness_of(source: str) -> Harness | None:
    return next((harness for start, harness in HARNESSES.items() if source.startswith(start)), None)


def build(network: NetworkId) -> Graph | None:
    """The traced deploy form of a timm network, None where timm cannot build it at that size."""
    timm = import_timm()
    from timm.utils import reparameterize_model

    options: dict[str, object] = {"num_classes": 0} if network.part == "backbone" else {}
    reason = ""
    for extra in ({"img_size": network.resolution}, {}):
        try:
            module = timm.create_model(network.name, **options, **extra).eval()
            module = reparameterize_model(module).to("meta")
            return trace(module, torch.empty(1, 3, network.resolution, network.resolution, device="meta"))
        except (TypeError, RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
    print(f"left out: timm cannot build {network.name} at {network.resolution}: {reason}", file=sys.stderr)
    return None


@cache
def import_timm() -> ModuleType:
    """timm, after defining the two operators that torchvision misses beside torch's CPU build."""
    from torch.library import Library

    library = Library("torchvision", "FRAGMENT")
    with suppress(RuntimeError):  # defined already by a torchvision that fits its torch
        library.define("nms(Tensor a, Tensor b, float c) -> Tensor")
        library.define("qnms(Tensor a, Tensor b, float c) -> Tensor")
    _KEEP.append(library)  # the definitions live as long as the object
    import timm

    return timm


_KEEP: list[object] = []

if __name__ == "__main__":
    main()
