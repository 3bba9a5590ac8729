"""`python -m benchmarks [--rounds N]`: run every benchmark on this machine and write benchmarks/results.md."""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path

from benchmarks.candidates import candidates_section
from benchmarks.startup import startup_section

RESULTS = Path(__file__).parent / "results.md"


def main() -> None:
    """Measure and write; progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="fresh processes of each command, interleaved")
    rounds = parser.parse_args().rounds
    sections = [startup_section(rounds), candidates_section()]
    head = (
        "# Benchmarks\n\n"
        f"Written by `python -m benchmarks` on {date.today()}: {_host()}. Times of this kind of machine are noisy: every\n"
        "figure is a median over fresh processes that were run interleaved, and only ratios within a table mean much.\n"
    )
    RESULTS.write_text("\n".join([head, *sections]))
    print(f"wrote {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS.name}")


def _host() -> str:
    import torch

    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main()
