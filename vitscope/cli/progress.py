"""What a command that measures waits for, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from vitscope.measure.session import Step

_QUIET_S = 5.0  # between two lines where stderr is no terminal


class Progress:
    """What is being waited for, on stderr: one line that rewrites itself on a terminal, else a plain line now and then."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.out = out or sys.stderr
        self.clock = clock
        self.live = self.out.isatty()
        self.began = self.said = clock()
        self.width = 0
        self.session = (-1, 0.0, 0)  # the rows before it, when it began, and the processes that were done then

    def say(self, text: str) -> None:
        """The state now. A terminal sees every one, a log only one every few seconds."""
        now = self.clock()
        if self.live:
            import shutil

            text = text[: shutil.get_terminal_size().columns - 1]
            self.out.write("\r" + text.ljust(self.width) + "\r")
            self.out.flush()
            self.width = len(text)
        elif now - self.said >= _QUIET_S:
            print(text, file=self.out, flush=True)
            self.said = now

    def line(self, text: str) -> None:
        """Something that stays."""
        self.clear()
        print(text, file=self.out, flush=True)

    def clear(self) -> None:
        if self.live and self.width:
            self.out.write("\r" + " " * self.width + "\r")
            self.out.flush()
            self.width = 0

    def step(self, step: Step, before: int, total: int) -> None:
        """A step of a session whose rows stand after `before` others of `total`; a row's share of the time is told too."""
        name = f"{step.job.artifact.model} on {step.job.runtime}"
        now = self.clock()
        if self.session[0] != before:
            self.session = (before, now, step.done)
        _, since, kept = self.session
        last = before + step.total // step.processes
        rows = f"row {last} of {total}" if last == before + 1 else f"rows {before + 1} to {last} of {total}"
        if step.what == "profile":  # a process more, which no row is waiting for a figure from
            self.say(f"[{_span(now - self.began)}] {rows}: where the time of {name} went")
            return
        at = f"{step.what}: {name}, process {step.process} of {step.processes}"
        made = step.done - kept
        left = f", about {_span((now - since) / made * (step.total - step.done))} left for these" if made else ""
        self.say(f"[{_span(now - self.began)}] {rows}: {at}{left}")


def _span(seconds: float) -> str:
    """Whole seconds and minutes, for a line that is read while waiting."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"
