"""What samples say: median, p90, an interval that repetitions fall into, and the signs that it is not to be trusted.

The unit of repetition is the process. Inferences of one process share its memory layout, its caches and the second they
ran in, so hundreds of them say how that process fared and little about the next. A process counts as the median of the
medians of its blocks, and the latency is the median of the processes.

The interval is a hierarchical bootstrap in logarithms: processes are drawn with replacement, then blocks within them.
Few processes are drawn from too narrow a world, so its half width is stretched by √(n/(n−1)) (the variance of n draws
from n values is too small by that) and by Student's t over the normal quantile. Held against 300 fresh processes of one
kernel, five a measurement, one measurement after the other, on two cores that other work kept busy: the intervals of
neighbours overlapped in 92 % of cases, those of the plain bootstrap of the median in 86 %. No sample is ever dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitscope.measure.record import Block, Protocol, Summary
from vitscope.units import percent

_RESAMPLES = 2000
_NORMAL = 1.959964  # the 97.5 % quantile
# Student's t, 97.5 %, of 1, 2, … degrees of freedom; above, the expansion 1.96 + 2.37/ν + 2.82/ν² is right to 0.001.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)

OUTLIER_Z = 14.8  # modified z = |x − median| / MAD: 10 × 1.4826, hyperfine's rule
_OUTLIER_SHARE = 0.01
_DRIFT = 0.03  # of the median, over the whole measurement
_CLOCK = 0.03
_SPEED = 0.10  # of the probe: the medians then follow the neighbours
_GAP = 0.05  # between two modes, of the median
_SPREAD = 0.05  # half width of the interval
_FEW = 3  # processes below which variation between them is not known
_PARTS = 8  # of a single block


@dataclass(frozen=True, slots=True)
class Advice:
    """Warnings that say what to do, and whether a repetition may fall outside the interval."""

    warnings: tuple[str, ...]
    unstable: bool


def summarize(blocks: Sequence[Block], *, seed: int = 0) -> Summary:
    """The statistics of all blocks of a measurement. The same blocks and seed give the same interval."""
    pooled = np.concatenate([np.asarray(block.samples_s) for block in blocks])
    centre = float(np.median(list(process_medians(blocks).values())))
    low, high = interval(blocks, seed=seed)
    return Summary(
        latency_p50_s=centre, latency_p90_s=float(np.quantile(pooled, 0.9)), latency_min_s=float(pooled.min()),
        low_s=min(low, centre), high_s=max(high, centre), samples=len(pooled),
    )  # fmt: skip


def process_medians(blocks: Sequence[Block]) -> dict[int, float]:
    """Of each process, the median of the medians of its blocks, in seconds."""
    return {process: float(np.median(values)) for process, values in _by_process(blocks).items()}


def interval(blocks: Sequence[Block], *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the latency in seconds. With one process it lacks what varies between processes."""
    logs = [np.log(np.maximum(values, 1e-12)) for values in _by_process(blocks).values()]
    if len(logs) == 1:
        logs = [np.log(np.maximum(values, 1e-12)) for values in _parts(blocks)]
    low, high = spread(logs, seed=seed)
    return math.exp(low), math.exp(high)


def spread(groups: Sequence[np.ndarray], *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the centre of `groups`, each the values of one process, by the stretched bootstrap above.

    The centre of a draw is the mean: the median of five draws is one of the five, and its bootstrap a staircase.
    """
    number = len(groups)
    centre = float(np.mean([np.mean(values) for values in groups]))
    if number < 2:
        return (centre, centre)
    random = np.random.default_rng(seed)
    means = np.empty((_RESAMPLES, number))  # of the blocks drawn within each process
    for column, values in enumerate(groups):
        means[:, column] = values[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(axis=1)
    draws = np.take_along_axis(means, random.integers(0, number, (_RESAMPLES, number)), axis=1).mean(axis=1)
    stretch = math.sqrt(number / (number - 1)) * _student(number - 1) / _NORMAL
    low, high = np.quantile(draws, (0.025, 0.975))
    return centre + float(low - centre) * stretch, centre + float(high - centre) * stretch


def advise(
    blocks: Sequence[Block],
    summary: Summary,
    protocol: Protocol,
    *,
    threads: int = 1,
    cores: int | None = None,
    warmed: Sequence[bool] = (),
) -> Advice:
    """What to know before trusting `summary`. `cores` are those of the target (None: not known), `warmed` says of each
    process whether its warm-up became stable."""
    warnings: list[str] = []
    doubts: list[str] = []
    medians = np.array(list(process_medians(blocks).values()))
    centre = summary.latency_p50_s

    half = (summary.high_s - summary.low_s) / (2 * centre)
    if len(medians) < _FEW:
        doubts.append(
            f"{len(medians)} process{'es' * (len(medians) > 1)}: what varies between them is not known; use 5"
        )
    elif half > _SPREAD:
        doubts.append(
            f"the interval is ±{percent(half)}: the processes disagree; quieten the machine or use more of them"
        )
    gap = bimodality(blocks)
    if gap is not None:
        doubts.append(
            f"two modes, {percent(gap)} apart: look for a second core type, a throttled clock or a busy neighbour"
        )
    trend = drift(blocks)
    if trend is not None and abs(trend) > _DRIFT:
        way = "slower" if trend > 0 else "faster"
        doubts.append(
            f"became {percent(abs(trend))} {way} while it was measured: let the machine cool, or warm up longer"
        )
    moved = _moved([(block.before.clock_hz, block.after.clock_hz) for block in blocks])
    if moved is not None and moved > _CLOCK:
        warnings.append(f"the clock moved by {percent(moved)}: fix its frequency, if the system lets you")
    speed = _moved([(block.before.probe_s, block.after.probe_s) for block in blocks])
    if speed is not None and speed > _CLOCK:
        text = f"the speed of the core moved by {percent(speed)} between blocks: something else runs, or it throttles"
        (doubts if speed > _SPEED else warnings).append(text)
    copies = [s.memory_probe_s for block in blocks for s in (block.before, block.after) if s.memory_probe_s]
    if copies and (extra := max(copies) / float(np.median(copies)) - 1) > protocol.memory_slowed:
        doubts.append(f"the memory was up to {percent(extra)} slower than usual around a block: something else uses it")
    status = sorted({s.thermal_status for b in blocks for s in (b.before, b.after) if s.thermal_status} - {"none"})
    if status:
        doubts.append(f"thermal state {', '.join(status)}: let the device cool")
    loads = [state.load for block in blocks for state in (block.before, block.after) if state.load is not None]
    if loads and max(loads) > threads + 0.5:
        warnings.append(
            f"load average {max(loads):.1f} for {threads} thread{'s' * (threads > 1)}: close what else runs"
        )
    if cores is not None and threads > cores:
        doubts.append(f"{threads} threads on {cores} core{'s' * (cores > 1)}: they wait for one another")
    restless = sum(not stable for stable in warmed)
    if restless:
        warnings.append(
            f"{restless} of {len(warmed)} warm-ups were not stable after {protocol.warm_limit_s:g} s: allow more"
        )
    strange = outlying_blocks(blocks)
    if strange:
        warnings.append(
            f"{strange} of {len(blocks)} blocks have outliers (over 1 % of samples {OUTLIER_Z} MAD off): the p90 shows it"
        )
    if any(block.averaged > 1 for block in blocks):
        most = max(block.averaged for block in blocks)
        warnings.append(f"samples are means of up to {most} inferences: p90 and minimum are of means")
    return Advice((*doubts, *warnings), bool(doubts))


def outlying_blocks(blocks: Sequence[Block]) -> int:
    """How many blocks have more than 1 % of their samples at a modified z above 14.8."""
    count = 0
    for block in blocks:
        values = np.asarray(block.samples_s)
        away = np.abs(values - np.median(values))
        scale = np.median(away)
        count += bool(scale > 0 and np.mean(away > OUTLIER_Z * scale) > _OUTLIER_SHARE)
    return count


def drift(blocks: Sequence[Block]) -> float | None:
    """The change over the whole measurement as a share of the median, where it is a trend; None where it is not.

    The slope is Theil and Sen's (the median of the slopes of all pairs) of block medians over time, and it is a trend
    when Kendall's S of the same pairs is beyond what chance gives 1 in 20 times. Blocks too few to tell by: None.
    """
    ordered = sorted(blocks, key=lambda block: block.started_s)
    times = np.array([block.started_s for block in ordered])
    values = np.array([np.median(block.samples_s) for block in ordered])
    number = len(ordered)
    first, second = np.triu_indices(number, 1)
    apart = times[second] - times[first]
    first, second, apart = first[apart > 0], second[apart > 0], apart[apart > 0]
    if number < 5 or len(apart) == 0:
        return None
    rises = values[second] - values[first]
    score = abs(float(np.sign(rises).sum()))
    deviation = math.sqrt(number * (number - 1) * (2 * number + 5) / 18)
    # With 5 blocks only 5 in order (S = 10) are this rare (1 in 60); the normal form with its correction says the same.
    if (score - 1) / deviation < _NORMAL:
        return None
    return float(np.median(rises / apart) * (times[-1] - times[0]) / np.median(values))


def bimodality(blocks: Sequence[Block]) -> float | None:
    """The distance of two modes as a share of the median, None where there is one mode.

    The samples, in logarithms, are cut in two where the variance within both is least (Otsu). They are two modes when
    each side holds a tenth of them, the medians of the sides are 5 % apart, Ashman's D (distance over the root mean
    square of the widths, here 1.4826 MAD) is above 4, and fewer than 2 % lie in the middle third between the medians.
    """
    values = np.sort(np.log(np.maximum(np.concatenate([np.asarray(block.samples_s) for block in blocks]), 1e-12)))
    number = len(values)
    if number < 20:
        return None
    below = np.arange(1, number)
    sums = np.cumsum(values)[:-1]
    means, others = sums / below, (values.sum() - sums) / (number - below)
    between = below * (number - below) * (means - others) ** 2
    edge = max(1, number // 10)
    between[: edge - 1] = between[number - edge :] = -1.0
    cut = int(np.argmax(between)) + 1
    low, high = values[:cut], values[cut:]
    gap = float(np.median(high) - np.median(low))
    width = math.sqrt((_scale(low) ** 2 + _scale(high) ** 2) / 2)
    middle = np.median(low) + gap / 3
    lonely = float(np.mean((values > middle) & (values < middle + gap / 3)))
    if gap < math.log1p(_GAP) or gap < 4 * width or lonely > 0.02:
        return None
    return math.expm1(gap)


def _scale(values: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _moved(pairs: Sequence[tuple[float | None, float | None]]) -> float | None:
    """How far the largest and the smallest reading are apart, as a share of their median; None where nothing was read."""
    read = [value for pair in pairs for value in pair if value is not None]
    return (max(read) - min(read)) / float(np.median(read)) if read else None


def _by_process(blocks: Sequence[Block]) -> dict[int, np.ndarray]:
    found: dict[int, list[float]] = {}
    for block in blocks:
        found.setdefault(block.process, []).append(float(np.median(block.samples_s)))
    return {process: np.array(values) for process, values in found.items()}


def _parts(blocks: Sequence[Block]) -> list[np.ndarray]:
    """The units of a single process: its blocks, or consecutive parts of its only one."""
    if len(blocks) > 1:
        return [np.array([np.median(block.samples_s)]) for block in blocks]
    samples = np.asarray(blocks[0].samples_s)
    return [np.array([np.median(part)]) for part in np.array_split(samples, min(_PARTS, len(samples)))]


def _student(freedom: int) -> float:
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    return _NORMAL + 2.3723 / freedom + 2.8225 / freedom**2
