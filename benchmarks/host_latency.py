"""Networks of the zoo on every runtime of this host, the harness's own overhead, and whether repetitions agree.

    python -m benchmarks.host_latency [--processes 3] [--block 300ms] [--repeat 10] [--skip networks,identity,repeat]

Each part is a `vitscope measure` as a user types it, with its rows in a CSV beside this file: an interrupted run goes on
where it stopped. Writes host_latency.md; the figures of plots/ are drawn from the same rows.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ROWS, IDENTITY, TABLE = HERE / "host_latency.csv", HERE / "host_identity.csv", HERE / "host_latency.md"
REPEATS = HERE / "host_repeats"  # a folder, one results file a repetition

RUNTIMES = ("onnxruntime", "openvino", "litert", "executorch", "torch", "torch.compile")
NETWORKS = (
    "deit_tiny_patch16_224", "edgenext_xx_small", "edgenext_x_small", "edgevit_xxs",
    "efficientformer_l1", "efficientformerv2_s0", "efficientformerv2_s1", "efficientformerv2_s2", "efficientnet_b0",
    "efficientvit_b1", "fastvit_t8", "fastvit_t12", "levit_128s", "levit_128", "levit_192", "mobile_former_294m",
    "mobilenetv1_100", "mobilenetv2_100", "mobilenetv2_140", "mobilenetv3_large_100", "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium", "mobileone_s0", "mobileone_s1", "mobileone_s2", "mobilevit_xxs", "mobilevit_xs",
    "mobilevitv2_050", "repvit_m0_9", "repvit_m1_0",
)  # fmt: skip
REPEATED = ("mobilenetv2_100",)
# LiteRT's XNNPACK refuses a file without an operation: what stands nearest to nothing is a ReLU of 192 numbers.
_NOTHING = ("torch.nn:Identity", "torch.nn:ReLU", "--input", "3,8,8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", default="3", help="fresh processes a row")
    parser.add_argument("--block", default="300ms", help="time of a block")
    parser.add_argument(
        "--repeat", type=int, default=10, help="repetitions of some of them, at the protocol's defaults"
    )
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--skip", default="", help="of networks, identity, repeat")
    options = parser.parse_args(arguments)
    skip = set(options.skip.split(","))
    if "identity" not in skip:
        measure(*_NOTHING, "--runtime", options.runtimes, "--append", str(IDENTITY))
    if "networks" not in skip:
        short = ("--processes", options.processes, "--block", options.block)
        measure(*NETWORKS, "--runtime", options.runtimes, *short, "--append", str(ROWS))
    if "repeat" not in skip:
        REPEATS.mkdir(exist_ok=True)
        for number in range(options.repeat + 1):
            measure(*REPEATED, "--runtime", "onnxruntime,litert", "--append", str(REPEATS / f"{number}.csv"))
    TABLE.write_text(page(), encoding="utf-8")
    print(f"wrote {TABLE.name}", file=sys.stderr)


def measure(*arguments: str) -> None:
    """`vitscope measure` with `arguments`; rows that fail say so on stderr, and the others are kept."""
    print("vitscope measure", *arguments[:3], "…", file=sys.stderr)
    subprocess.run(
        [sys.executable, "-m", "vitscope", "measure", *arguments, "-o", "-"], check=False, stdout=subprocess.DEVNULL
    )


Rows = list[dict[str, str]]


def read(path: Path) -> Rows:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page() -> str:
    rows, identity = read(ROWS), read(IDENTITY)
    first = (rows or identity)[0]
    return (
        "\n\n".join(
            [
                "# Latency on this host",
                f"Written by `python -m benchmarks.host_latency` on {date.today()}: {first['processor']}, {os.cpu_count()} "
                f"cores, {first['system']}, Python {platform.python_version()}; "
                + ", ".join(f"{name} {version}" for name, version in versions(rows).items())
                + ". One thread, batch 1, fp32, deploy form, random weights.",
                "## Networks",
                f"Median in milliseconds of {' or '.join(sorted({row['processes'] for row in rows}))} fresh processes a row "
                "that take turns with other rows, and "
                "half the 95 % interval in percent; `~` marks a row that is unstable by the rules of docs/measuring.md. "
                f"{unstable(rows)} Every sample is in host_latency.samples.",
                networks(rows),
                correlations(rows),
                "## The harness itself",
                "`nn.Identity` and `nn.ReLU` on 3×8×8, at the protocol's defaults: what a call of each runtime "
                "costs before any work is done, and so what every figure above contains.",
                overhead(identity),
                "## Whether repetitions agree",
                *repetitions(),
            ]
        )
        + "\n"
    )


def versions(rows: Rows) -> dict[str, str]:
    return {row["runtime"]: row["runtime_version"] for row in rows}


def unstable(rows: Rows) -> str:
    count = sum(row["unstable"] == "yes" for row in rows)
    return f"{count} of {len(rows)} rows are unstable."


def milliseconds(row: dict[str, str] | None) -> str:
    if row is None:
        return "–"
    centre, low, high = (float(row[f"latency_{key}_s"]) for key in ("p50", "low", "high"))
    return f"{centre * 1e3:.2f} ±{(high - low) / 2 / centre:.0%}{' ~' if row['unstable'] == 'yes' else ''}"


def networks(rows: Rows) -> str:
    by = {(row["model"], row["runtime"]): row for row in rows}
    runtimes = [name for name in RUNTIMES if any(row["runtime"] == name for row in rows)]
    lines = ["| network | MACs, M | " + " | ".join(runtimes) + " |", "|---" * (len(runtimes) + 2) + "|"]
    for name in NETWORKS:
        found = [by.get((name, runtime)) for runtime in runtimes]
        known = next((row for row in found if row is not None), None)
        if known is not None:
            cells = " | ".join(milliseconds(row) for row in found)
            lines.append(f"| {name} | {int(known['macs']) / 1e6:.0f} | {cells} |")
    return "\n".join(lines)


def correlations(rows: Rows) -> str:
    """How well MACs alone rank the networks, a runtime each."""
    said = []
    for runtime in RUNTIMES:
        pairs = [(float(row["macs"]), float(row["latency_p50_s"])) for row in rows if row["runtime"] == runtime]
        if len(pairs) > 2:
            said.append(f"{runtime} {spearman(pairs):.2f}")
    return "Rank correlation of latency with MACs over these networks: " + ", ".join(said) + "."


def spearman(pairs: Sequence[tuple[float, float]]) -> float:
    ranks = [ranked([pair[side] for pair in pairs]) for side in (0, 1)]
    means = [sum(values) / len(values) for values in ranks]
    cross = sum((a - means[0]) * (b - means[1]) for a, b in zip(*ranks, strict=True))
    squares = [sum((value - mean) ** 2 for value in values) for values, mean in zip(ranks, means, strict=True)]
    return cross / math.sqrt(squares[0] * squares[1])


def ranked(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    for rank, index in enumerate(order):
        ranks[index] = float(rank)
    return ranks


def overhead(rows: Rows) -> str:
    if not rows:
        return "Not run."
    by = {(row["model"], row["runtime"]): row for row in rows}
    lines = ["| runtime | nn.Identity, µs (95 % interval) | nn.ReLU, µs (95 % interval) |", "|---|---|---|"]
    for runtime in RUNTIMES:
        cells = []
        for model in _NOTHING[:2]:
            row = by.get((model, runtime))
            if row is None:
                cells.append("refused")
                continue
            centre, low, high = (float(row[f"latency_{key}_s"]) * 1e6 for key in ("p50", "low", "high"))
            cells.append(f"{centre:.1f} ({low:.1f} to {high:.1f})")
        lines.append(f"| {runtime} | {' | '.join(cells)} |")
    return "\n".join(lines)


def repetitions() -> Iterable[str]:
    """Of each network and runtime, how often a repetition's interval met that of the one before, and the noise floor."""
    series: dict[tuple[str, str], Rows] = {}
    for file in sorted(REPEATS.glob("*.csv"), key=lambda path: int(path.stem)):
        for row in read(file):
            series.setdefault((row["model"], row["runtime"]), []).append(row)
    if not series:
        yield "Not run."
        return
    lines = [
        "| network | runtime | repetitions | agree with the one before | or unstable | standard deviation of the medians |",
        "|---" * 6 + "|",
    ]
    agreed = tries = excused = 0
    for (model, runtime), rows in sorted(series.items()):
        meets = [overlap(a, b) for a, b in pairwise(rows)]
        excuses = [
            not met and "yes" in (a["unstable"], b["unstable"])
            for met, (a, b) in zip(meets, pairwise(rows), strict=True)
        ]
        logs = [math.log(float(row["latency_p50_s"])) for row in rows]
        mean = sum(logs) / len(logs)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in logs) / max(1, len(logs) - 1))
        lines.append(
            f"| {model} | {runtime} | {len(rows)} | {sum(meets)} of {len(meets)} | {sum(excuses)} | {deviation:.1%} |"
        )
        agreed, tries, excused = agreed + sum(meets), tries + len(meets), excused + sum(excuses)
    yield (
        "Sessions at the protocol's defaults (5 processes, blocks of 1 s), one after the other. Two agree when their 95 % "
        f"intervals overlap: {agreed} of {tries} do"
        + (f", and of the {tries - agreed} others {excused} have a row marked unstable." if tries > agreed else ".")
    )
    yield "\n".join(lines)
    widths = [
        (float(row["latency_high_s"]) - float(row["latency_low_s"])) / 2 / float(row["latency_p50_s"])
        for rows in series.values()
        for row in rows
    ]
    yield f"Half an interval is {median(widths):.1%} of the latency in the median."


def overlap(a: dict[str, str], b: dict[str, str]) -> bool:
    return float(a["latency_low_s"]) <= float(b["latency_high_s"]) and float(b["latency_low_s"]) <= float(
        a["latency_high_s"]
    )


if __name__ == "__main__":
    main()
