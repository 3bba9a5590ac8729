"""The costs of a calibrated device as tables: its memory, and every class of kernels."""

from __future__ import annotations

from typing import Literal

from vitscope import units
from vitscope.latency.class_cost import FUSED, PRODUCTS, ClassCosts
from vitscope.report.table import Column, Row, Table

_LEFT: Literal["left"] = "left"


def class_cost_tables(costs: ClassCosts) -> list[Table]:
    """What a network pays once and for its bytes, and what a kernel of each class does. docs/calibrating.md has the formula."""
    return [_memory(costs), _classes(costs)]


def _memory(costs: ClassCosts) -> Table:
    memory = costs.memory
    rows = [
        Row(("floor", units.seconds(costs.floor_s), "every inference")),
        Row(
            ("near", _rate(memory.near_byte_s, "B/s"), "bytes that a kernel touches, hidden by computing or hiding it")
        ),
    ]
    for knee_bytes, more_s in memory.farther:
        said = f"more for those of kernels that touch over {units.size(int(knee_bytes))}"
        rows.append(Row(("farther", _rate(more_s, "B/s"), said)))
    said = f"a depthwise kernel whose window and weights have over {units.size(int(memory.window_bytes))} computes longer by"
    rows.append(Row(("wide windows", units.percent(memory.window_more), said)))
    beyond = f"more as far as a network goes through over {units.size(int(memory.cache_bytes))} an inference:"
    rows += [
        Row(("cold activations", _rate(memory.arena_byte_s, "B/s"), f"{beyond} bytes of the memory for activations")),
        Row(("spilled", _rate(memory.spill_byte_s, "B/s"), "likewise: bytes that kernels write")),
        Row(("spilled by products", _rate(memory.spill_product_byte_s, "B/s"), "likewise, where the kernel multiplies")),
        Row(("cold call", units.seconds(memory.cold_call_s), "likewise: every inference")),
        Row(("cold start", units.seconds(memory.cold_start_s), "likewise: every kernel")),
    ]  # fmt: skip
    if (costs.scale, costs.more_s) != (1.0, 0.0):
        said = f"and {units.seconds(abs(costs.more_s))} {'more' if costs.more_s >= 0 else 'less'} for each"
        rows.append(Row(("refined", f"x{costs.scale:.3f}", f"every kernel, as whole networks say, {said}")))
    return Table(
        (Column("memory", _LEFT), Column("value"), Column("meaning", _LEFT)),
        tuple(rows),
        title="what all kernels share",
    )


def _classes(costs: ClassCosts) -> Table:
    rows = []
    for name, cost in sorted(costs.classes.items()):
        rate = units.si(1 / cost.work_s, "MAC/s" if name in PRODUCTS else "/s")
        points = costs.corrections.get(name)
        tiles = f"{cost.channel_tile} x {cost.row_tile}" if (cost.channel_tile, cost.row_tile) != (1, 1) else ""
        start = "" if name.startswith(FUSED) else units.seconds(cost.start_s)
        rows.append(
            Row((
                name, start, rate, f"{cost.few_terms:.3g}" if cost.few_terms else "",
                f"{cost.few_rows:.3g}" if cost.few_rows else "",
                _rate(cost.cold_byte_s, "B/s") if cost.cold_byte_s else "", tiles,
                f"{len(points.points)} points" if points else "",
            ))
        )  # fmt: skip
    columns = (
        Column("class", _LEFT), Column("start"), Column("at best"), Column("few terms"), Column("few rows"),
        Column("cold weights"), Column("padded to"), Column("corrected near"),
    )  # fmt: skip
    note = (
        "a MAC or element takes twice as long in sums of as many terms as `few terms`, and over as many rows as `few rows`; "
        "weights that the caches have lost take `cold weights` longer; channels and rows are padded to tiles"
    )
    return Table(columns, tuple(rows), title="classes of kernels", notes=(note,))


def _rate(seconds_each: float, unit: str) -> str:
    return units.si(1 / seconds_each, unit) if seconds_each else "free"
