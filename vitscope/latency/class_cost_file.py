"""ClassCosts as a part of a device file, and back."""

from __future__ import annotations

from vitscope.latency.class_cost import ClassCost, ClassCosts, Correction, Memory, Point
from vitscope.latency.fields import Fields

_FIGURES = 5  # of a number: the last changes a prediction by less than a thousandth of a percent


def class_lines(costs: ClassCosts) -> list[str]:
    """The lines of YAML below `classes:`, indented by four."""
    memory = costs.memory
    farther = ", ".join(f"[{_text(knee)}, {_text(more_s)}]" for knee, more_s in memory.farther)
    lines = [
        f"    floor_s: {_text(costs.floor_s)}",
        f"    memory: {{near_byte_s: {_text(memory.near_byte_s)}, farther: [{farther}], "
        f"cache_bytes: {_text(memory.cache_bytes)}, cold_call_s: {_text(memory.cold_call_s)}, "
        f"cold_start_s: {_text(memory.cold_start_s)}, spill_byte_s: {_text(memory.spill_byte_s)}, "
        f"spill_product_byte_s: {_text(memory.spill_product_byte_s)}, arena_byte_s: {_text(memory.arena_byte_s)}, "
        f"window_bytes: {_text(memory.window_bytes)}, window_more: {_text(memory.window_more)}}}",
    ]
    if (costs.scale, costs.more_s) != (1.0, 0.0):
        lines.append(f"    refined: {{scale: {_text(costs.scale)}, more_s: {_text(costs.more_s)}}}")
    lines.append("    costs:")
    for name, cost in sorted(costs.classes.items()):
        lines.append(
            f"      {name}: {{start_s: {_text(cost.start_s)}, work_s: {_text(cost.work_s)}, "
            f"few_terms: {_text(cost.few_terms)}, few_rows: {_text(cost.few_rows)}, "
            f"cold_byte_s: {_text(cost.cold_byte_s)}, channel_tile: {cost.channel_tile}, row_tile: {cost.row_tile}}}"
        )
    lines.append("    corrections:" if costs.corrections else "    corrections: {}")
    for name, correction in sorted(costs.corrections.items()):
        lines += [f"      {name}:", f"        length: {_text(correction.length)}", "        points:"]
        for point in correction.points:
            lines.append(f"          - [{', '.join(map(_text, (*point.axes, point.weight)))}]")
    return lines


def parse_classes(part: Fields) -> ClassCosts:
    """What `class_lines` wrote. Raises UsageError with the place of what is wrong."""
    memory = part.record("memory")
    found = Memory(
        memory.number("near_byte_s"), _pairs(memory, "farther"), memory.number("cache_bytes", positive=True),
        memory.number("cold_call_s"), memory.number("cold_start_s"), memory.number("spill_byte_s"),
        memory.number("spill_product_byte_s"), memory.number("arena_byte_s"), memory.number("window_bytes", positive=True),
        memory.number("window_more"),
    )  # fmt: skip
    memory.done()
    section = part.record("costs")
    classes = {}
    for name in section.names():
        each = section.record(name)
        classes[name] = ClassCost(
            each.number("start_s"),
            each.number("work_s", positive=True),
            each.number("few_terms"),
            each.number("few_rows"),
            each.number("cold_byte_s"),
            each.integer("channel_tile", minimum=1),
            each.integer("row_tile", minimum=1),
        )
        each.done()
    section = part.record("corrections")
    corrections = {}
    for name in section.names():
        each = section.record(name)
        corrections[name] = Correction(each.number("length", positive=True), _points(each))
        each.done()
    scale, more_s = 1.0, 0.0
    if part.has("refined"):
        each = part.record("refined")
        scale, more_s = each.number("scale", positive=True), each.number("more_s", minimum=None)
        each.done()
    costs = ClassCosts(
        part.number("floor_s", positive=True),
        found,
        classes,
        corrections,
        scale,
        more_s,
    )
    part.done()
    return costs


def _pairs(part: Fields, key: str) -> tuple[tuple[float, float], ...]:
    rows = part.take(key, "a list of pairs of positive numbers")
    try:
        found = tuple((float(knee), float(more)) for knee, more in rows)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise part.fail(key, "pairs of positive numbers", rows) from None
    if any(not (0 < knee < float("inf") and 0 <= more < float("inf")) for knee, more in found):
        raise part.fail(key, "pairs of positive numbers", rows)
    return found


def _points(part: Fields) -> tuple[Point, ...]:
    rows = part.take("points", "a list of rows of numbers")
    points = []
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, list) or len(row) != len(rows[0]) or len(row) < 2:
            raise part.fail("points", "rows of numbers of one length", row)
        try:
            *axes, weight = (float(value) for value in row)
        except (TypeError, ValueError):
            raise part.fail("points", "rows of numbers", row) from None
        points.append(Point(tuple(axes), weight))
    return tuple(points)


def _text(value: float) -> str:
    return f"{value:.{_FIGURES}g}"
