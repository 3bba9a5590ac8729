"""The results file of a run that measures: what it holds already, what was begun, and what is added."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.measure.channel import Job
    from vitscope.measure.channel import Target as TargetRecord
    from vitscope.measure.record import Measurement, Protocol
    from vitscope.measure.session import Round


class ResultsFile:
    """A results file: what it holds is not measured again, what was interrupted goes on, what is finished is added."""

    def __init__(
        self, path: Path, protocol: Protocol, target: TargetRecord, versions: Mapping[str, str], again: bool = False
    ):
        from vitscope.measure import rows

        self.path, self.protocol, self.target, self.versions = path, protocol, target, versions
        self.finished = dict[str, frozenset[int]]() if again else rows.finished(path)
        self.kept_rows = self.added = self.resumed = 0

    def key(self, job: Job) -> str:
        from vitscope.measure.rows import key_of_job

        version = self.versions.get(job.runtime, "")
        return key_of_job(job, self.protocol, target=self.target.name, runtime_version=version)

    def done(self, job: Job) -> bool:
        sizes = self.finished.get(self.key(job))
        return sizes is not None and (not sizes or job.artifact.num_bytes in sizes)

    def read(self, job: Job) -> Measurement | None:
        """The newest measurement of `job`'s file that stands beside the rows; None where its samples are gone or damaged."""
        from vitscope.measure.rows import samples_of
        from vitscope.measure.saved import read_measurement

        for file in samples_of(self.path, self.key(job)):
            with contextlib.suppress(UsageError):
                found = read_measurement(file)
                if found.condition.artifact_bytes == job.artifact.num_bytes:
                    return found
        return None

    def kept(self, job: Job) -> tuple[Round, ...]:
        from vitscope.measure.rows import kept, rounds_key

        rounds = kept(self.path, rounds_key(self.key(job), job.artifact.num_bytes))
        self.resumed += bool(rounds)
        return rounds

    def keep(self, job: Job, rounds: Sequence[Round]) -> None:
        from vitscope.measure.rows import keep, rounds_key

        keep(self.path, rounds_key(self.key(job), job.artifact.num_bytes), rounds)

    def add(self, measurement: Measurement, facts: Mapping[str, Any]) -> None:
        from vitscope.measure.rows import append

        append(self.path, measurement, facts)
        self.added += 1
