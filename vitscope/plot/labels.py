"""Where labels go: beside their points, clear of each other, of bubbles, lines and borders; always the same for one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# All lengths are points (1/72 inch) from the lower left corner of the figure.


@dataclass(frozen=True, slots=True)
class Label:
    """A text's box and the discs it may stand beside: one for a point, several along a line. Lower `priority` stays longer."""

    width: float
    height: float
    anchors: tuple[tuple[float, float, float], ...]  # x, y, radius
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Disc:
    """Something round that labels should not cover; `weight` says how much it matters."""

    x: float
    y: float
    radius: float
    weight: float


@dataclass(frozen=True, slots=True)
class Place:
    """The lower left corner of a label, its leader (x0, y0, x1, y1) when it stands away, and whether it lies on something."""

    x: float
    y: float
    leader: tuple[float, float, float, float] | None
    busy: bool


_ANGLES = 24
_GAPS = (2.0, 5.0, 10.0, 17.0, 26.0, 37.0, 50.0, 66.0)  # from the disc's edge to the box
_LEADER_GAP = 8.0  # nearer labels need no line to be understood
_MARGIN = 1.5  # clear space around every box
_CLEAR = 2.0  # between a box and a line: half the line, and air
_SWEEPS = 40
_STARTS = 40
_KEPT, _PAIRS = 64, 3000  # candidates a label, and in all
_SAMPLES = 8  # points along a leader that are tested against boxes

# Costs per square point of overlap, per crossing, or per point of distance. Only their order matters.
_LABEL = 12.0
_OUTSIDE = 60.0
_LINE = 2.5  # a line under a text, per sampled point
_CROSSING = 25.0  # a leader through another label or dot
_DISTANCE = 0.4
_MISREAD = 30.0  # a label that stands as near to another disc as to its own
_BLUR = 4.0  # distances that differ by less look equal
_TURN = 1.2  # preference of the eye: right or above before left or below


def place_labels(
    labels: Sequence[Label],
    discs: Sequence[Disc],
    lines: Sequence[Sequence[tuple[float, float]]],
    bounds: tuple[float, float, float, float],
) -> list[Place | None]:
    """Choose a place for every label; None for one that finds no room free of other labels.

    Each label has a ring of candidates at growing distances. What a candidate costs by itself (discs, lines, bounds, distance) is
    computed once, and what two cost together; then each label in turn takes its cheapest given the others. Of labels that
    still overlap, the one of highest `priority` number goes. `bounds` is left, bottom, right, top.
    """
    import numpy as np

    if not labels:
        return []
    boxes, leaders, distance, turn = _candidates(labels)
    left, bottom, right, top = bounds
    cost = distance + turn
    over = np.maximum(0, left - boxes[..., 0]) + np.maximum(0, boxes[..., 2] - right)
    over += np.maximum(0, bottom - boxes[..., 1]) + np.maximum(0, boxes[..., 3] - top)
    cost += _OUTSIDE * over
    for disc in discs:
        dx = np.maximum(np.maximum(boxes[..., 0] - disc.x, disc.x - boxes[..., 2]), 0)
        dy = np.maximum(np.maximum(boxes[..., 1] - disc.y, disc.y - boxes[..., 3]), 0)
        depth = np.maximum(0, disc.radius - np.hypot(dx, dy))
        cost += disc.weight * depth
    samples = _along_lines(lines)
    wide = boxes + np.array([-_CLEAR, -_CLEAR, _CLEAR, _CLEAR])
    for k in range(0, len(samples), 256):  # in pieces: labels x candidates x samples would be large
        chunk = samples[k : k + 256]
        cost += _LINE * _inside(chunk[None, None, :, :], wide[:, :, None, :]).sum(axis=2)
    busy = cost > distance + turn + 1e-9
    reach = np.linspace(0.15, 1.0, _SAMPLES)[:, None]
    paths = leaders[..., None, 0:2] * (1 - reach) + leaders[..., None, 2:4] * reach  # label, candidate, sample, xy
    edges: dict[tuple[float, float], float] = {}
    for disc in discs:
        edges[disc.x, disc.y] = max(disc.radius, edges.get((disc.x, disc.y), 0.0))
    for (x, y), radius in edges.items():
        own = np.hypot(leaders[..., 0] - x, leaders[..., 1] - y) < 1e-6
        dx = np.maximum(np.maximum(boxes[..., 0] - x, x - boxes[..., 2]), 0)
        dy = np.maximum(np.maximum(boxes[..., 1] - y, y - boxes[..., 3]), 0)
        other = np.maximum(0, np.hypot(dx, dy) - radius) + _BLUR
        cost += _MISREAD * np.clip(1.4 - other / (distance / _DISTANCE + _BLUR), 0, 1) * ~own
        near = np.hypot(paths[..., 0] - x, paths[..., 1] - y).min(axis=2) < 3.0
        cost += _CROSSING * (near & ~own & (distance > _LEADER_GAP * _DISTANCE))

    # The best of each label's candidates are enough, and keep the table of all pairs small.
    keep = max(12, min(_KEPT, _PAIRS // len(labels), cost.shape[1]))
    best = np.argsort(cost, axis=1, kind="stable")[:, :keep]
    boxes, leaders, paths = (
        np.take_along_axis(a, best.reshape(*best.shape, *[1] * (a.ndim - 2)), 1) for a in (boxes, leaders, paths)
    )
    cost, busy = np.take_along_axis(cost, best, 1), np.take_along_axis(busy, best, 1)
    led = np.hypot(leaders[..., 2] - leaders[..., 0], leaders[..., 3] - leaders[..., 1]) > _LEADER_GAP
    chosen = _settle(cost, _pair_costs(boxes, paths, led))
    return _places(labels, boxes, leaders, busy, chosen, bounds)


def _candidates(labels: Sequence[Label]) -> tuple[Array, Array, Array, Array]:
    """Boxes (label, candidate, left-bottom-right-top), leaders (…, x0-y0-x1-y1), and the costs of distance and of direction."""
    import numpy as np

    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    gaps = np.array(_GAPS)
    widest = max(len(label.anchors) for label in labels)
    columns = []
    for label in labels:
        # The same number of candidates for every label: those with fewer anchors repeat their last one.
        anchors = [label.anchors[min(k, len(label.anchors) - 1)] for k in range(widest)]
        rows = []
        for x, y, radius in anchors:
            cos, sin = np.cos(angles)[None, :], np.sin(angles)[None, :]
            # The box touches a circle of this radius with the side or corner that faces the point.
            circle = (radius + gaps)[:, None]
            px, py = x + circle * cos, y + circle * sin
            half_w, half_h = label.width / 2, label.height / 2
            slide_x = np.clip(cos * 2.5, -1, 1) * half_w  # from centred above to flush beside
            slide_y = np.clip(sin * 2.5, -1, 1) * half_h
            cx, cy = px + slide_x, py + slide_y
            box = np.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], axis=-1)
            nearest_x, nearest_y = np.clip(x, box[..., 0], box[..., 2]), np.clip(y, box[..., 1], box[..., 3])
            leader = np.stack([np.full_like(cx, x), np.full_like(cy, y), nearest_x, nearest_y], axis=-1)
            turn = _TURN * (1 - 0.6 * cos - 0.4 * sin)
            far = np.broadcast_to(gaps[:, None] * _DISTANCE, cx.shape)
            rows.append((box.reshape(-1, 4), leader.reshape(-1, 4), far.reshape(-1), np.tile(turn[0], len(gaps))))
        columns.append([np.concatenate(column) for column in zip(*rows, strict=True)])
    boxes, leaders, far, turn = (np.array(column) for column in zip(*columns, strict=True))
    return boxes, leaders, far, turn


def _pair_costs(boxes: Array, paths: Array, led: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What every candidate of every label costs beside every candidate of another: (label, candidate, label, candidate)."""
    import numpy as np

    count, kept = cost_shape = led.shape
    flat, ways, has = boxes.reshape(-1, 4), paths.reshape(count * kept, _SAMPLES, 2), led.reshape(-1)
    pairs = np.zeros((count * kept, count * kept), dtype=np.float32)
    for i in range(count):
        rows = slice(i * kept, (i + 1) * kept)
        pairs[rows] += _LABEL * _overlap(flat[rows, None, :], flat[None, :, :])
        crossed = _inside(ways[rows][:, :, None, :], flat[None, None, :, :]).any(axis=1) & has[rows, None]
        pairs[rows] += _CROSSING * crossed
        pairs[:, rows] += _CROSSING * crossed.T
    pairs = pairs.reshape(*cost_shape, *cost_shape)
    for i in range(count):
        pairs[i, :, i, :] = 0
    return pairs


def _settle(cost: Array, pairs: NDArray[np.float32]) -> list[int]:
    """Coordinate descent from the cheapest candidates and from shuffled starts; the cheapest end of all is kept.

    The shuffles come from a fixed seed: one input has one answer.
    """
    import numpy as np

    count, kept = cost.shape
    index = np.arange(count)
    random = np.random.default_rng(0)
    best, best_total = [0] * count, np.inf
    for start in range(_STARTS):
        chosen = np.zeros(count, dtype=int) if start == 0 else random.integers(0, max(1, kept // 2), count)
        order = index if start == 0 else random.permutation(count)
        for _ in range(_SWEEPS):
            moved = False
            for i in order:
                total = cost[i] + pairs[i][:, index, chosen].sum(axis=1)
                choice = int(total.argmin())
                if total[choice] < total[chosen[i]] - 1e-6:
                    chosen[i], moved = choice, True
            if not moved:
                break
        standing = pairs[index[:, None], chosen[:, None], index[None, :], chosen[None, :]].sum() / 2
        total_cost = float(cost[index, chosen].sum() + standing)
        if total_cost < best_total - 1e-6:
            best, best_total = [int(c) for c in chosen], total_cost
    return best


def _places(
    labels: Sequence[Label],
    boxes: Array,
    leaders: Array,
    busy: NDArray[np.bool_],
    chosen: Sequence[int],
    bounds: tuple[float, float, float, float],
) -> list[Place | None]:
    import numpy as np

    left, bottom, right, top = bounds
    places: list[Place | None] = [None] * len(labels)
    standing: list[int] = []
    for i in sorted(range(len(labels)), key=lambda i: (labels[i].priority, i)):
        box = boxes[i, chosen[i]]
        outside = box[0] < left - 0.5 or box[1] < bottom - 0.5 or box[2] > right + 0.5 or box[3] > top + 0.5
        if outside or any(_overlap(box, boxes[j, chosen[j]], margin=0.0) > 0 for j in standing):
            continue
        standing.append(i)
        x0, y0, x1, y1 = (float(v) for v in leaders[i, chosen[i]])
        radius = min(r for x, y, r in labels[i].anchors if abs(x - x0) + abs(y - y0) < 1e-6)
        away = float(np.hypot(x1 - x0, y1 - y0)) - radius
        leader = (x0, y0, x1, y1) if away > _LEADER_GAP else None
        places[i] = Place(float(box[0]), float(box[1]), leader, bool(busy[i, chosen[i]]))
    return places


def _overlap(a: Array, b: Array, margin: float = _MARGIN) -> Array:
    """Area that boxes share once each is grown by `margin`."""
    import numpy as np

    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + 2 * margin
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + 2 * margin
    return np.maximum(0, width) * np.maximum(0, height)


def _inside(points: Array, boxes: Array) -> NDArray[np.bool_]:
    x, y = points[..., 0], points[..., 1]
    return (x > boxes[..., 0]) & (x < boxes[..., 2]) & (y > boxes[..., 1]) & (y < boxes[..., 3])


def _along_lines(lines: Sequence[Sequence[tuple[float, float]]], step: float = 4.0) -> Array:
    """Points every `step` along each polyline."""
    import numpy as np

    found = [np.empty((0, 2))]
    for line in lines:
        for (x0, y0), (x1, y1) in pairwise(line):
            number = max(2, int(np.hypot(x1 - x0, y1 - y0) / step) + 1)
            t = np.linspace(0, 1, number)[:, None]
            found.append(np.hstack([x0 + t * (x1 - x0), y0 + t * (y1 - y0)]))
    return np.concatenate(found)
