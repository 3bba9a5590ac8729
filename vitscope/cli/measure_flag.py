"""`--measure` of `profile` and `compare`: networks on runtimes that are here, beside what is counted and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitscope.cli.measuring import Conditions, Results, Run, in_order
from vitscope.cli.progress import Progress
from vitscope.errors import UsageError

if TYPE_CHECKING:
    from vitscope.measure.plan import Case, Network
    from vitscope.measure.record import Measurement


def asked(measure: str | None, conditions: Conditions, *, blocks: int = 1) -> Run | None:
    """The run that `--measure` asks for, `blocks` a process; None without it.

    Raises UsageError for what is wrong in the flags, and for one that means nothing without --measure.
    """
    if measure is not None:
        return Run(conditions, [measure], blocks=blocks)
    if conditions.given:
        raise UsageError(f"{conditions.given[0]}: belongs to --measure RUNTIME, which is not given")
    return None


def measure_beside(
    run: Run, networks: Sequence[Network], *, profile_runs: int = 0
) -> tuple[dict[Case, Measurement], Results]:
    """Measure the networks, all of them taking turns: by case, and as Results with what failed, which is also said."""
    from vitscope.measure.plan import Failure

    progress = Progress()
    try:
        found = run.found(networks, progress)
        outcomes = list(run.outcomes(found, progress, together=max(1, len(found.cases)), profile_runs=profile_runs))
    finally:
        progress.clear()
        run.target.close()
    results = in_order(found.cases, iter(outcomes))
    for failure in results.failures:
        progress.line(f"{failure.model} on {failure.runtime}: {failure.reason}")
    return {case: one for case, one in outcomes if not isinstance(one, Failure)}, results
