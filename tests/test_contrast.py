"""Is B faster than A: paired blocks whose truth is known, and the words of the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_rows import MEASUREMENT

from vitscope.errors import UsageError
from vitscope.measure.contrast import contrast
from vitscope.measure.record import Block, Measurement


def pair(
    ratio: float, *, processes: int = 5, blocks: int = 3, machine: float = 0.0, noise: float = 0.002, seed: int = 0
) -> tuple[Measurement, Measurement]:
    """A, and B that takes A's time / `ratio`. `machine` is the spread of what slows both for the length of a process."""
    random = np.random.default_rng(seed)
    made: dict[str, list[Block]] = {"a": [], "b": []}
    order = 0
    for process in range(processes):
        slow = np.exp(random.normal(0, machine))
        for _ in range(blocks):
            for name in random.permutation(["a", "b"]):
                centre = slow * (1.0 if name == "a" else 1 / ratio)
                samples = tuple(centre * np.exp(random.normal(0, noise, 50)))
                made[name].append(Block(process=process, order=order, started_s=float(order), samples_s=samples))
                order += 1
    first, second = (
        replace(MEASUREMENT, condition=replace(MEASUREMENT.condition, model=name), blocks=tuple(made[name]))
        for name in ("a", "b")
    )
    return first, second


def test_a_faster_model_is_called_so_with_its_interval() -> None:
    found = contrast(*pair(1.18))
    assert found.significant and found.ratio == pytest.approx(1.18, rel=0.01) and found.pairs == 5
    assert found.low < 1.18 < found.high and found.high / found.low < 1.02
    assert found.verdict.startswith("b is 1.18× faster than a (95 %: 1.1")


def test_a_slower_model_is_told_the_other_way_round() -> None:
    found = contrast(*pair(0.8))
    assert found.verdict.startswith("b is 1.25× slower than a (95 %: 1.2")
    a, b = pair(0.8)
    assert contrast(b, a).ratio == pytest.approx(1 / found.ratio)


def test_what_slows_both_leaves_the_ratio() -> None:
    found = contrast(*pair(1.1, machine=0.3))  # processes differ by a third, the pairs do not
    assert found.significant and found.high / found.low < 1.02


def test_equal_models_are_not_told_apart() -> None:
    """100 comparisons of a model with itself."""
    found = [contrast(*pair(1.0, noise=0.2, seed=seed), seed=seed) for seed in range(100)]
    assert sum(one.significant for one in found) <= 5
    assert found[0].verdict.startswith("no significant difference between a and b (b runs at ")


def test_a_difference_of_a_percent_is_none_worth_a_word() -> None:
    found = contrast(*pair(1.01))
    assert found.low > 1 and not found.significant


def test_a_difference_within_the_noise_is_none() -> None:
    random = np.random.default_rng(1)
    a, b = pair(1.05)
    noisy = tuple(
        replace(block, samples_s=tuple(np.array(block.samples_s) * np.exp(0.2 * random.normal()))) for block in b.blocks
    )
    found = contrast(a, replace(b, blocks=noisy))
    assert not found.significant and found.low < 1 < found.high


def test_a_model_on_two_runtimes_is_named_with_them() -> None:
    a, b = pair(1.5)
    other = replace(b, condition=replace(b.condition, model="a", runtime="litert"))
    assert contrast(a, other).verdict.startswith("a litert is 1.5")


def test_only_processes_of_both_are_paired() -> None:
    a, b = pair(1.2)
    assert contrast(a, replace(b, blocks=b.blocks[:7])).pairs == 3
    with pytest.raises(UsageError, match="two processes"):
        contrast(a, replace(b, blocks=b.blocks[:3]))
