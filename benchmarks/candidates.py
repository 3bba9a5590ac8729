"""How many edited candidates a second the library evaluates, on one core, once their blocks are known."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from itertools import pairwise

NUM_CANDIDATES = 1000
REPEATS = 7
KNOWN = ("efficientformerv2_s0", "efficientformerv2_s1", "repvit_m1_0", "fastvit_t8", "mobileone_s0", "mobilenetv2_100")


def candidates_section() -> str:
    """The Markdown section: a thousand one-field edits of EfficientFormerV2-S1, from the edit's text to its totals."""
    from vitscope.estimate import estimate
    from vitscope.latency.device import load_device
    from vitscope.latency.difference import difference
    from vitscope.latency.predict import predict
    from vitscope.profile import deploy_graphs
    from vitscope.spec import Variants, load_spec

    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})
    try:
        variants = Variants("efficientformerv2_s1")
        edits = one_field_edits(NUM_CANDIDATES)
        device = load_device("iphone12")
        rates = {}
        for label, devices in (("params, MACs, peak memory", []), ("the same and latency on iphone12", [device])):
            best = 0.0
            for repeat in range(REPEATS + 1):
                start = time.perf_counter()
                for edit in edits:
                    estimate(variants.spec(edit), devices)
                if repeat:  # the first pass traces the blocks
                    best = max(best, len(edits) / (time.perf_counter() - start))
            rates[label] = best
            print(f"candidates: {best:,.0f}/s with {label}", file=sys.stderr)
        networks = [deploy_graphs(load_spec(name)) for name in KNOWN]
        alone = _microseconds(lambda: [predict(device, graphs) for graphs in networks]) / len(networks)
        pairs = list(pairwise(networks))
        pair = _microseconds(lambda: [difference(device, a, b) for a, b in pairs]) / len(pairs)
        print(f"prediction: {alone:.0f} µs, difference: {pair:.0f} µs", file=sys.stderr)
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
    lines = [
        "## Candidates a second",
        "",
        f"{NUM_CANDIDATES} one-field edits of EfficientFormerV2-S1 (seed 0), each from its `KEY=VALUE` text through validation",
        f"and shapes to totals, on one core, blocks known; the best of {REPEATS} passes. "
        f"{len(set(edits))} of the edits are distinct.",
        "",
        "| what is evaluated | candidates/s | µs each |",
        "|---|---:|---:|",
        *(f"| {label} | {rate:,.0f} | {1e6 / rate:.0f} |" for label, rate in rates.items()),
        "",
        f"A prediction by itself, from the blocks of a network that are known to its latency on iphone12, takes {alone:.0f} µs,",
        f"and telling which of two networks is faster {pair:.0f} µs: means over {', '.join(KNOWN)}.",
        "",
    ]
    return "\n".join(lines)


def _microseconds(run: Callable[[], object]) -> float:
    """The fastest of REPEATS passes, after one that does what is done once."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times[1:])


def one_field_edits(number: int, seed: int = 0) -> list[str]:
    """Edits of one field each: a block's expansion, a stage's width, a kernel, a head count, the activation."""
    rng = random.Random(seed)
    depths = (3, 3, 9, 6)
    edits = []
    for _ in range(number):
        stage = rng.randrange(4)
        kind = rng.random()
        if kind < 0.6 and stage > 1:
            block = rng.randrange(depths[stage])
            edits.append(f"stages.{stage}.expansion.{block}={rng.choice((2, 2.5, 3, 3.5, 4, 4.5, 5, 6))}")
        elif kind < 0.6:
            edits.append(f"stages.{stage}.expansion={rng.choice((2, 2.5, 3, 3.5, 4, 4.5, 5, 6))}")
        elif kind < 0.85:
            edits.append(f"stages.{max(stage, 1)}.width={rng.randrange(32, 320, 8)}")
        elif kind < 0.95:
            edits.append(f"stages.{stage}.kernel={rng.choice((3, 5, 7))}")
        else:
            edits.append(f"act={rng.choice(('relu', 'gelu', 'silu', 'hardswish'))}")
    return edits
