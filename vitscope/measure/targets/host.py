"""HostTarget: this machine. Every model runs in a fresh interpreter of the environment that vitscope itself runs in."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitscope.errors import UnavailableError
from vitscope.measure.channel import Channel, Job
from vitscope.measure.pipe import RunnerChannel, RunnerProcess, versions

_VERSIONS_S = 120.0  # a first import of a large runtime from a cold disk


class HostTarget:
    """`host`: a vitscope.measure.channel.Target."""

    name = "host"

    def runtimes(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Runtime → version, or the UnavailableError that says what is missing; of `names` alone, where given."""
        process = self._start()
        try:
            return dict(versions(process, _VERSIONS_S, names))
        finally:
            process.close()

    def open(self, job: Job, timeout_s: float) -> Channel:
        return RunnerChannel(self._start(), job, _path, timeout_s)

    def close(self) -> None:
        """Nothing was brought anywhere."""

    def _start(self) -> RunnerProcess:
        # The child imports what we can import, whatever made it so, and nothing that happens to lie in its folder.
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        command = [sys.executable, "-u", "-m", "vitscope.measure.runner"]
        return RunnerProcess(command, where=self.name, env={**os.environ, "PYTHONPATH": path}, cwd=Path.cwd().anchor)


def _path(job: Job) -> str:
    return os.path.abspath(job.artifact.path)


class MacTarget(HostTarget):
    """`mac`: this host, refused where it is none, so that Core ML figures cannot be asked of a Linux machine."""

    name = "mac"

    def __init__(self) -> None:
        if platform.system() != "Darwin":
            raise UnavailableError(f"--target mac: this host runs {platform.system()}; Core ML predicts on macOS only")
