"""Sessions: the order of processes and blocks on a scripted target, and a real runtime in real processes to the end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_onnx import tiny_onnx

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.measure.channel import Job, MeasureError, Opened, Samples
from vitscope.measure.record import Measurement, OpTime, Protocol, State
from vitscope.measure.session import Failed, Finished, Round, Step, measure
from vitscope.measure.targets.host import HostTarget

QUICK = Protocol(processes=3, blocks=1, block_s=0.0, block_runs=10, warm_s=0.0, warm_runs=4, warm_limit_s=5.0)
OPENED = Opened(runtime_version="1.0", host="desk", processor="p", system="s", load_s=0.25, cores=2, notes=("spins",))


class Scripted:
    """A target that remembers what was asked of it. `fails(what, model, times)` raises what a step is to raise."""

    name = "scripted"

    def __init__(
        self,
        fails: Callable[[str, str, int], None] = lambda what, model, times: None,
        opened: Opened = OPENED,
        probe: Callable[[str, int], float | None] = lambda model, times: None,
    ):
        self.log: list[tuple[str, str]] = []
        self.alive: set[int] = set()
        self.most_alive = 0
        self.opened = opened
        self.probe = probe  # seconds of the fixed loop after the n-th block of a model
        self._fails = fails

    def runtimes(self, names: Sequence[str] = ()) -> dict[str, str]:
        return {"onnxruntime": "1.0"}

    def open(self, job: Job, timeout_s: float) -> ScriptedChannel:
        self.note("open", job.artifact.model)
        return ScriptedChannel(self, job.artifact.model)

    def close(self) -> None:
        pass

    def note(self, what: str, model: str) -> None:
        self.log.append((what, model))
        self._fails(what, model, self.log.count((what, model)))

    def of(self, what: str) -> list[str]:
        return [model for did, model in self.log if did == what]


class ScriptedChannel:
    def __init__(self, target: Scripted, model: str):
        self.opened = target.opened
        self._target, self._model = target, model
        target.alive.add(id(self))
        target.most_alive = max(target.most_alive, len(target.alive))

    def warm(self, min_s: float, min_runs: int, tolerance: float, limit_s: float) -> tuple[float, bool]:
        self._target.note("warm", self._model)
        return 0.5, True

    def block(self, min_s: float, min_runs: int) -> Samples:
        self._target.note("block", self._model)
        times = self._target.log.count(("block", self._model))
        probe = self._target.probe(self._model, times)
        around = State(probe_s=probe)
        return Samples(samples_s=(0.001 * (1 if probe is None else times),) * min_runs, before=around, after=around)

    def op_times(self, runs: int) -> tuple[str, tuple[OpTime, ...]] | None:
        self._target.note("profile", self._model)
        return None

    def close(self) -> None:
        self._target.alive.discard(id(self))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("session")


@pytest.fixture(scope="module")
def jobs(folder: Path) -> list[Job]:
    names = ("a", "b", "c", "d", "e")
    return [Job(artifact=tiny_onnx(folder / f"{name}.onnx", model=name), runtime="onnxruntime") for name in names]


def done(results: Iterator[Finished | Failed]) -> dict[str, Measurement | VitscopeError]:
    return {
        result.job.artifact.model: result.measurement if isinstance(result, Finished) else result.error
        for result in results
    }


# ---- order


def test_a_process_whose_core_was_slowed_is_set_aside_for_another(jobs: list[Job]) -> None:
    target = Scripted(probe=lambda model, times: 1.3e-3 if (model, times) == ("a", 2) else 1.0e-3)
    found = done(measure(jobs[:2], target, QUICK))["a"]
    assert isinstance(found, Measurement) and target.of("open").count("a") == 4 and target.of("open").count("b") == 3
    assert [block.samples_s[0] for block in found.blocks] == [0.001, 0.003, 0.004], "all but the second"
    assert [block.samples_s[0] for block in found.set_aside] == [0.002]
    assert [block.process for block in found.blocks] == [0, 1, 2]
    assert any("1 process set aside and measured again: the core was up to 30% slower" in w for w in found.warnings)


def test_a_machine_that_stays_slow_is_measured_as_it_is(jobs: list[Job]) -> None:
    """After `retries` further processes what there is counts, and the row is marked."""
    target = Scripted(probe=lambda model, times: 1.0e-3 if times == 1 else 1.5e-3)
    found = done(measure(jobs[:1], target, replace(QUICK, retries=2)))["a"]
    assert isinstance(found, Measurement) and len(found.blocks) == 3 and len(found.set_aside) == 2
    assert found.unstable and any("the speed of the core moved by" in warning for warning in found.warnings)


def test_models_side_by_side_are_set_aside_together(jobs: list[Job]) -> None:
    target = Scripted(probe=lambda model, times: 1.3e-3 if (model, times) == ("b", 3) else 1.0e-3)
    found = done(measure(jobs[:2], target, replace(QUICK, blocks=2)))
    for measurement in found.values():
        assert isinstance(measurement, Measurement)
        assert len(measurement.blocks) == 6 and len(measurement.set_aside) == 2


def test_a_target_without_a_probe_sets_nothing_aside(jobs: list[Job]) -> None:
    found = done(measure(jobs[:1], Scripted(), QUICK))["a"]
    assert isinstance(found, Measurement) and found.set_aside == () and len(found.blocks) == 3


def test_every_round_has_every_model_once_in_an_order_of_its_own(jobs: list[Job]) -> None:
    target = Scripted()
    found = done(measure(jobs, target, replace(QUICK, processes=6)))
    order = target.of("block")
    rounds = [tuple(order[start : start + 5]) for start in range(0, 30, 5)]
    assert all(sorted(turn) == list("abcde") for turn in rounds)
    assert len(set(rounds)) > 3
    for measurement in found.values():
        assert isinstance(measurement, Measurement)
        assert [block.process for block in measurement.blocks] == [0, 1, 2, 3, 4, 5]
    again = Scripted()
    done(measure(jobs, again, replace(QUICK, processes=6)))
    assert again.log == target.log  # seeded
    other = Scripted()
    done(measure(jobs, other, replace(QUICK, processes=6, seed=1)))
    assert other.log != target.log


def test_one_block_a_process_needs_one_process_at_a_time(jobs: list[Job]) -> None:
    target = Scripted()
    done(measure(jobs, target, QUICK))
    assert target.most_alive == 1 and not target.alive


def test_blocks_of_models_alternate_while_their_processes_live_side_by_side(jobs: list[Job]) -> None:
    target = Scripted()
    found = done(measure(jobs[:2], target, replace(QUICK, processes=2, blocks=4)))
    order = target.of("block")
    assert target.most_alive == 2 and len(order) == 16
    assert all(set(order[start : start + 2]) == {"a", "b"} for start in range(0, 16, 2))
    a, b = found["a"], found["b"]
    assert isinstance(a, Measurement) and isinstance(b, Measurement)
    assert sorted(block.order for side in (a, b) for block in side.blocks) == list(range(16))
    assert len(a.warm_s) == 2  # the short run before a further block is no warm-up


def test_no_more_than_hold_processes_live_at_once(jobs: list[Job]) -> None:
    target = Scripted()
    done(measure(jobs, target, replace(QUICK, blocks=2), hold=3))
    assert target.most_alive == 3 and len(target.of("block")) == 5 * 2 * 3


# ---- results


def test_a_measurement_says_all_of_its_context(jobs: list[Job]) -> None:
    job = replace(jobs[0], threads=2, affinity=(0, 1), options=(("x", "y"),))
    found = done(measure([job], Scripted(), QUICK))["a"]
    assert isinstance(found, Measurement)
    at = found.condition
    assert (at.model, at.target, at.host, at.runtime, at.runtime_version) == (
        "a",
        "scripted",
        "desk",
        "onnxruntime",
        "1.0",
    )
    assert (at.threads, at.affinity, dict(at.options)) == (2, (0, 1), {"x": "y"})
    assert at.artifact_bytes == job.artifact.path.stat().st_size
    assert found.load_s == (0.25,) * 3 and found.warm_s == (0.5,) * 3 and found.notes == ("spins",)
    assert found.summary.latency_p50_s == 0.001 and found.summary.samples == 30
    assert found.date.endswith("+00:00") and not found.unstable


def test_cores_limit_threads(jobs: list[Job]) -> None:
    found = done(measure([replace(jobs[0], threads=2, affinity=(0,))], Scripted(), QUICK))["a"]
    assert isinstance(found, Measurement) and "2 threads on 1 core" in found.warnings[0]


def test_progress_counts_processes(jobs: list[Job]) -> None:
    steps: list[Step] = []
    done(measure(jobs[:2], Scripted(), QUICK, on_progress=steps.append))
    assert [(step.what, step.process, step.done) for step in steps[:4]] == [
        ("load", 1, 0), ("warm up", 1, 0), ("measure", 1, 0), ("load", 1, 1),
    ]  # fmt: skip
    assert steps[-1].done == 5 and {step.total for step in steps} == {6}


def test_a_runtime_without_a_profile_says_so(jobs: list[Job]) -> None:
    target = Scripted()
    found = done(measure(jobs[:1], target, QUICK, profile_runs=5))["a"]
    assert isinstance(found, Measurement) and found.attribution is None
    assert found.notes[-1] == "where the time went is not known: onnxruntime has no profile of its operations"
    assert target.log[-1] == ("profile", "a") and target.of("open") == ["a"] * 4  # a process of its own, the last


def test_the_same_job_twice_is_refused(jobs: list[Job]) -> None:
    with pytest.raises(UsageError, match="twice"):
        list(measure([jobs[0], jobs[0]], Scripted(), QUICK))


# ---- failures


@pytest.mark.parametrize("step", ["open", "warm", "block"])
@pytest.mark.parametrize("error", [MeasureError("it crashed"), UnavailableError("not here")])
def test_a_job_that_fails_ends_alone(jobs: list[Job], step: str, error: VitscopeError) -> None:
    def fails(what: str, model: str, times: int) -> None:
        if (what, model, times) == (step, "b", 2):
            raise error

    target = Scripted(fails)
    found = done(measure(jobs, target, replace(QUICK, blocks=2)))
    assert found.pop("b") is error
    assert all(isinstance(result, Measurement) and len(result.blocks) == 6 for result in found.values())
    assert len(found) == 4 and not target.alive


def test_a_profile_that_fails_leaves_the_latency(jobs: list[Job]) -> None:
    def fails(what: str, model: str, times: int) -> None:
        if what == "profile":
            raise MeasureError("no profiler")

    found = done(measure(jobs[:1], Scripted(fails), QUICK, profile_runs=5))["a"]
    assert isinstance(found, Measurement) and "no profiler" in found.notes[-1]


def test_what_is_not_accepted_has_failed(jobs: list[Job]) -> None:
    def accept(job: Job, measurement: Measurement) -> None:
        if job.artifact.model == "a":
            raise MeasureError(f"{measurement.summary.latency_p50_s} s is implausible")

    found = done(measure(jobs[:2], Scripted(), QUICK, accept=accept))
    assert str(found["a"]) == "0.001 s is implausible" and isinstance(found["b"], Measurement)


# ---- interruption


def test_what_was_done_before_an_interruption_is_not_repeated(jobs: list[Job]) -> None:
    kept: dict[Job, tuple[Round, ...]] = {}

    def interrupt(what: str, model: str, times: int) -> None:
        if what == "block" and times == 2 and model == "c":
            raise KeyboardInterrupt

    first = Scripted(interrupt)
    with pytest.raises(KeyboardInterrupt):
        done(measure(jobs[:3], first, QUICK, on_round=lambda job, rounds: kept.__setitem__(job, rounds)))
    assert not first.alive
    before = sum(map(len, kept.values()))
    assert 3 <= before < 6  # the first round, and the second up to the interruption
    second = Scripted()
    found = done(measure(jobs[:3], second, QUICK, kept=kept))
    assert len(second.of("block")) == 9 - before
    orders = [block.order for result in found.values() if isinstance(result, Measurement) for block in result.blocks]
    assert len(orders) == len(set(orders)) == 9
    third = Scripted()
    done(measure(jobs[:1], third, QUICK, kept={jobs[0]: found_rounds(found["a"])}))
    assert third.log == []  # nothing is left to do


def found_rounds(measurement: object) -> tuple[Round, ...]:
    assert isinstance(measurement, Measurement)
    return tuple(Round(opened=OPENED, warm_s=0.5, stable=True, blocks=(block,)) for block in measurement.blocks)


def test_rounds_of_another_version_are_measured_again(jobs: list[Job]) -> None:
    kept: dict[Job, tuple[Round, ...]] = {}
    done(measure(jobs[:1], Scripted(), replace(QUICK, processes=2), on_round=lambda j, r: kept.__setitem__(j, r)))
    newer = Scripted(opened=replace(OPENED, runtime_version="2.0"))
    found = done(measure(jobs[:1], newer, QUICK, kept=kept))["a"]
    assert isinstance(found, Measurement) and found.condition.runtime_version == "2.0"
    assert len(newer.of("block")) == 3 and [block.process for block in found.blocks] == [0, 1, 2]


# ---- a real runtime


def test_a_real_session_ends_with_figures_and_no_process(jobs: list[Job]) -> None:
    target = HostTarget()
    slow = replace(
        jobs[1], artifact=tiny_onnx(jobs[1].artifact.path.with_name("slow.onnx"), convolutions=60, model="slow")
    )
    broken = replace(jobs[2], artifact=replace(jobs[2].artifact, path=Path(__file__)))
    found = done(measure([jobs[0], slow, broken], target, replace(QUICK, processes=2, blocks=2, block_runs=30)))
    quick, longer, refused = found["a"], found["slow"], found["c"]
    assert isinstance(quick, Measurement) and isinstance(longer, Measurement)
    assert quick.summary.latency_min_s < longer.summary.latency_min_s  # 2 convolutions against 60
    assert quick.summary.samples >= 120 and {block.process for block in quick.blocks} == {0, 1}
    assert isinstance(refused, MeasureError) and "\n" not in str(refused)


def test_ctrl_c_ends_the_processes_and_keeps_the_rounds(folder: Path, jobs: list[Job]) -> None:
    """A session in a process of its own that is interrupted in its third round by a real signal."""
    code = """
import json, os, signal, sys
sys.path.insert(0, "tests")
from pathlib import Path
from tiny_onnx import tiny_onnx
from vitscope.measure.channel import Job
from vitscope.measure.record import Protocol
from vitscope.measure.session import measure
from vitscope.measure.targets.host import HostTarget
job = Job(artifact=tiny_onnx(Path(sys.argv[1])), runtime="onnxruntime")
kept = []
def step(at):
    if at.process == 3 and at.what == "measure":
        os.kill(os.getpid(), signal.SIGINT)
try:
    rule = Protocol(block_s=0.0, warm_s=0.0, retries=0)
    list(measure([job], HostTarget(), rule, on_progress=step, on_round=lambda job, rounds: kept.append(len(rounds))))
except KeyboardInterrupt:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:  # there is none
        print(json.dumps(kept))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder / "ctrl_c.onnx")], capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert ran.stdout.strip() == "[1, 2]", ran.stderr
