"""How long an answer takes from a cold shell, against the bare import of torch and against other counters."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.count_with import TOOLS
from benchmarks.reconcile import reconciliation

SPEC = str(Path(__file__).parent.parent / "specs" / "efficientformerv2_s1.yaml")


@dataclass
class Command:
    """A command line and its environment, run as fresh processes."""

    name: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    is_cold: bool = False
    times_s: list[float] = field(default_factory=list)
    output: str = ""

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | self.environment | ({"VITSCOPE_CACHE": folder} if self.is_cold else {})
            start = time.perf_counter()
            done = subprocess.run(self.arguments, env=environment, capture_output=True, text=True, check=True)
            self.times_s.append(time.perf_counter() - start)
        self.output = done.stdout

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s)


def startup_section(rounds: int) -> str:
    """The Markdown section: wall time of fresh processes, interleaved, and what each tool answers."""
    with tempfile.TemporaryDirectory() as store:
        vitscope = [sys.executable, "-m", "vitscope"]
        profile = [*vitscope, "profile", SPEC, "--json"]
        commands = [
            Command("import torch", [sys.executable, "-c", "import torch"]),
            Command("vitscope profile, cold", profile, is_cold=True),
            Command("vitscope profile, warm", profile, {"VITSCOPE_CACHE": store}),
            Command(
                "vitscope profile --device iphone12, warm",
                [*profile, "--device", "iphone12"],
                {"VITSCOPE_CACHE": store},
            ),
            Command("vitscope --help", [*vitscope, "--help"]),
            *(Command(tool, [sys.executable, "-m", "benchmarks.count_with", tool]) for tool in TOOLS),
        ]
        for command in commands:  # fill the store and the file cache
            command.run()
            command.times_s.clear()
        for i in range(rounds):
            print(f"start-up: round {i + 1} of {rounds}", file=sys.stderr)
            for command in commands:
                command.run()
    return _section(commands, rounds)


def _section(commands: list[Command], rounds: int) -> str:
    base = commands[0].median_s
    reference = int(_macs(commands[1]))
    lines = [
        "## From a shell prompt to an answer",
        "",
        f"EfficientFormerV2-S1 at 224; a fresh process each time, {rounds} interleaved rounds, median wall time.",
        "The other tools are given vitscope's own module, so they pay for torch and for themselves only.",
        "",
        "| command | wall, s | × import torch | MACs | against vitscope |",
        "|---|---:|---:|---:|---:|",
    ]
    for command in commands:
        macs = _macs(command)
        against = "" if not macs else "equal" if int(macs) == reference else f"{int(macs) - reference:+,}"
        shown = f"{int(macs):,}" if macs else ""
        lines.append(
            f"| {command.name} | {command.median_s:.3f} | {command.median_s / base:.2f} | {shown} | {against} |"
        )
    answers = {command.name: int(_macs(command)) for command in commands if command.name in TOOLS}
    return "\n".join([*lines, "", reconciliation(answers, reference), ""])


def _macs(command: Command) -> str:
    if "profile" in command.arguments:
        import json

        return str(json.loads(command.output)["models"][0]["totals"]["macs"])
    return command.output.strip() if command.name in TOOLS else ""
