"""`--measure` of `profile` and `compare`: networks on runtimes that are here, beside what is counted and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.measuring import Results, in_order, make_protocol, present_on, run_cases
from vitscope.cli.progress import Progress
from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.measure.plan import Case, Failure, Network
    from vitscope.measure.record import Measurement

Measure = Annotated[
    str | None,
    typer.Option(
        "--measure", metavar="RUNTIME,…", help="Run the deploy form on these runtimes now, and show what they took."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What `--measure` of `profile` and `compare` asks for, as their flags give it."""

    runtimes: str | None
    target: str
    precision: str | None
    threads: str
    processes: int | None
    block: str | None

    def check(self) -> None:
        """Raises UsageError for what names no runtime, and for a flag that means nothing without --measure."""
        from vitscope.measure.plan import parse_runtimes

        if self.runtimes is not None:
            parse_runtimes([self.runtimes])
            kind = self.target.partition(":")[0]
            if kind in ("adb", "iphone"):
                needs = "a program (--runner)" if kind == "adb" else "a signing team (--team)"
                raise UsageError(
                    f"--target {self.target}: needs {needs}, which is given to 'vitscope measure'; use that"
                )
            return
        given = {
            "--target": self.target != "host", "--precision": self.precision is not None,
            "--threads": self.threads != "1", "--processes": self.processes is not None, "--block": self.block is not None,
        }  # fmt: skip
        if flag := next((flag for flag, is_given in given.items() if is_given), None):
            raise UsageError(f"{flag}: belongs to --measure RUNTIME, which is not given")

    def run(
        self, networks: Sequence[Network], *, profile_runs: int = 0, blocks: int = 1
    ) -> tuple[dict[Case, Measurement], Results]:
        """Measure the networks, all of them taking turns, `blocks` a process: by case, and as Results with what failed."""
        from dataclasses import replace

        from vitscope.measure.plan import ALL, Failure, cases, parse_numbers, parse_precisions, parse_runtimes
        from vitscope.measure.targets import parse_target

        names = parse_runtimes([self.runtimes or ALL])
        counts, precisions = parse_numbers(self.threads, "--threads", 1), parse_precisions(self.precision)
        protocol = replace(make_protocol(self.processes, self.block), blocks=blocks)
        if names != [ALL]:
            cases(networks, names, precisions=precisions, threads=counts)
        target, progress = parse_target(self.target), Progress()
        try:
            progress.say(f"ask {target.name} for its runtimes")
            there, missing = present_on(target, names)
            planned = cases(
                networks, list(there) if names == [ALL] else names, precisions=precisions, threads=counts,
                lenient=names == [ALL],
            )  # fmt: skip
            ready = [case for case in planned if case.runtime in there]
            found: list[tuple[Case, Measurement | Failure]] = [
                (case, Failure.of(case, missing[case.runtime])) for case in planned if case.runtime in missing
            ]
            found += run_cases(
                ready, target, protocol, progress=progress, together=max(1, len(ready)), profile_runs=profile_runs
            )
        finally:
            progress.clear()
            target.close()
        results = in_order(planned, iter(found))
        for failure in results.failures:
            progress.line(f"{failure.model} on {failure.runtime}: {failure.reason}")
        return {case: one for case, one in found if not isinstance(one, Failure)}, results
