"""An attached Android device as a target: a benchmark program that the user points to, pushed, run and read through adb."""

from __future__ import annotations

import contextlib
import math
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.measure.channel import Job, MeasureError, Opened, Samples
from vitscope.measure.record import OpTime
from vitscope.measure.targets import android, benchmark_output, etdump
from vitscope.measure.targets.adb_client import Adb, Said, SilentError, choose, last_line, sha256
from vitscope.measure.targets.benchmark_output import GarbageError, Timed

_THERE = "/data/local/tmp"
_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
_LEAST_TOLERANCE = 0.03  # two processes of one program differ by this where two windows of one process do not
_TRACED = "ETDump written to file"  # what an executor_runner that was built to trace says after each run
_FIRST_S = 0.05  # taken for one inference until a run has told


@dataclass(frozen=True, slots=True)
class Amount:
    """How much one run of the program is to do: it warms up, then counts, at least so many inferences and so long."""

    warm_runs: int
    warm_s: float
    runs: int
    seconds: float
    mean_s: float  # of one inference, as far as it is known

    @property
    def discard(self) -> int:
        return max(self.warm_runs, math.ceil(self.warm_s / self.mean_s))

    @property
    def counted(self) -> int:
        return max(self.runs, math.ceil(self.seconds / self.mean_s))


@dataclass(frozen=True, slots=True)
class Program:
    """A benchmark program: what it is called, how one asks it, how its answer is read.

    `ask` gives its arguments from (model, job, amount); `results` and `profile` are files that it writes in its folder.
    `warms_itself` is True for one that tells a mean: that one warms up by itself. `no_profile` are a word of the error by
    which a build that writes no profile is known, and what to do about it.
    """

    name: str
    hints: tuple[str, ...]
    ask: Callable[[str, Job, Amount], list[str]]
    read: Callable[[str, str], Timed]
    results: str = ""
    profile_words: tuple[str, ...] = ()
    profile: str = ""
    no_profile: tuple[str, str] = ("", "")
    warms_itself: bool = False


def _ask_litert(model: str, job: Job, amount: Amount) -> list[str]:
    return [
        f"--graph={model}", f"--num_threads={job.threads}", "--use_xnnpack=true",
        f"--warmup_runs={amount.warm_runs}", f"--warmup_min_secs={amount.warm_s:g}",
        f"--num_runs={amount.runs}", f"--min_secs={amount.seconds:g}", *_flags(job),
    ]  # fmt: skip


def _ask_executorch(model: str, job: Job, amount: Amount) -> list[str]:
    count = amount.discard + amount.counted
    return [f"--model_path={model}", f"--num_executions={count}", f"--cpu_threads={job.threads}", *_flags(job)]


def _ask_onnxruntime(model: str, job: Job, amount: Amount) -> list[str]:
    if job.options:
        raise UsageError(f"{job.options[0][0]}: onnxruntime_perf_test takes no further options here")
    count = amount.discard + amount.counted
    return ["-e", "cpu", "-m", "times", "-r", str(count), "-x", str(job.threads), "-y", "1", "-o", "99", "-I",
            model, "results.csv"]  # fmt: skip


def _flags(job: Job) -> list[str]:
    """Options of the user, as flags of the program: `use_gpu=true` → `--use_gpu=true`."""
    return [f"--{name}={value}" for name, value in job.options]


PROGRAMS: Mapping[str, Program] = {
    "litert": Program(
        "LiteRT's benchmark_model", ("benchmark_model",), _ask_litert,
        lambda text, _: benchmark_output.parse_benchmark_model(text), warms_itself=True, profile="profile.csv",
        profile_words=(
            "--enable_op_profiling=true", "--op_profiling_output_mode=csv", "--op_profiling_output_file=profile.csv",
        ),
    ),
    "executorch": Program(
        "ExecuTorch's executor_runner", ("executor_runner",), _ask_executorch,
        lambda text, _: benchmark_output.parse_executor_runner(text),
        profile="trace.etdump", profile_words=("--etdump_path=trace.etdump",),
        no_profile=(
            "etdump_path",
            "this executor_runner has no event tracer: build it with EXECUTORCH_BUILD_DEVTOOLS=ON and "
            "EXECUTORCH_ENABLE_EVENT_TRACER=ON (docs/android.md)",
        ),
    ),
    "onnxruntime": Program(
        "onnxruntime_perf_test", ("perf_test",), _ask_onnxruntime, benchmark_output.parse_perf_test,
        results="results.csv", profile="profile*.json", profile_words=("-p", "profile"),
    ),
}  # fmt: skip


def runners_of(texts: Sequence[str]) -> dict[str, Path]:
    """The value of each `--runner`, by runtime: `litert=PATH`, or a PATH whose file name tells. Raises UsageError."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        runtime = name if equals and name in PROGRAMS else None
        file = Path(path if runtime else text).expanduser()
        if runtime is None:
            fits = [key for key, program in PROGRAMS.items() if any(hint in file.name for hint in program.hints)]
            if not fits:
                raise UsageError(f"--runner {text}: say which runtime it is of, as litert=PATH ({', '.join(PROGRAMS)})")
            runtime = fits[0]
        if not file.is_file():
            raise UsageError(f"--runner {text}: there is no such file")
        if runtime in found:
            raise UsageError(f"--runner {text}: {runtime} has a runner already ({found[runtime]})")
        found[runtime] = file
    return found


class AdbTarget:
    """An Android device. `serial` may be empty where only one is attached; `cores` is big, mid, little, all or a mask.

    `runners` are the programs that the user points to, by runtime (runners_of).
    """

    def __init__(
        self, serial: str = "", *, runners: Mapping[str, Path] | None = None, cores: str = "all", adb: str = "adb"
    ):
        self.name = f"adb:{serial}"  # with the serial of the only device, once it is known
        self.serial = serial
        self.runners = dict(runners or {})
        self.cores = cores
        self._adb_program = adb
        self._adb: Adb | None = None
        self._folder = ""
        self._identity: android.Identity | None = None
        self._clusters: tuple[android.Cluster, ...] = ()
        self._there: dict[str, str] = {}  # digest of what was brought → its path there

    def runtimes(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Runtimes whose program the user pointed to, with the program's digest for a version: none prints one.

        Raises UnavailableError when there is such a program, and no device for it.
        """
        if self.runners:
            self._device()
        found: dict[str, Any] = {}
        for runtime, program in PROGRAMS.items():
            if runtime in self.runners:
                try:
                    found[runtime] = self._version(runtime)
                except OSError as error:
                    found[runtime] = UnavailableError(f"{self.runners[runtime]}: {error.strerror}")
            else:
                found[runtime] = _missing(runtime, program)
        return found

    def affinity(self) -> tuple[int, ...]:
        """The numbers of the cores that programs are held to, from the device's own topology. Raises UsageError."""
        self._device()
        return android.choose_cores(self.cores, self._clusters)

    def open(self, job: Job, timeout_s: float) -> AdbChannel:
        """Bring program and model there, once each. Raises UnavailableError, UsageError or MeasureError."""
        program = PROGRAMS.get(job.runtime)
        if program is None:
            raise UnavailableError(f"{job.runtime} does not run over adb; these do: {', '.join(PROGRAMS)}")
        runner = self.runners.get(job.runtime)
        if runner is None:
            raise _missing(job.runtime, program)
        if job.artifact.path.is_dir():
            raise UsageError(f"{job.artifact.path}: is a folder, and {program.name} takes a file")
        adb = self._device()
        assert self._identity is not None
        built_for, abis = android.abi_of(runner), self._identity.abis
        if built_for and abis and built_for not in abis:
            raise UnavailableError(
                f"{runner} is built for {built_for}, and {adb.serial} runs {', '.join(abis)}: get the build for {abis[0]}"
            )
        cores = job.affinity or self.affinity()
        model, executable = self._bring(job.artifact.path, timeout_s), self._bring(runner, timeout_s, executable=True)
        notes = [f"held to cores {', '.join(map(str, cores))} (mask {android.mask_of(cores)})"] if cores else []
        if program.warms_itself:
            notes.append("a sample is the mean of one run of benchmark_model, which tells no single inferences")
        opened = Opened(
            runtime_version=self._version(job.runtime), host=self._identity.host, processor=self._identity.processor,
            system=self._identity.system, load_s=math.nan, notes=tuple(notes),
            cores=sum(len(cluster.cores) for cluster in self._clusters) or None,
        )  # fmt: skip
        channel = AdbChannel(adb, program, job, self._folder, executable, model, cores, timeout_s, opened)
        channel.try_out()
        return channel

    def close(self) -> None:
        if self._adb is not None and self._folder:
            with contextlib.suppress(VitscopeError):  # a device that is gone keeps its folder, under /data/local/tmp
                self._adb.shell(f"rm -rf {shlex.quote(self._folder)}")
        self._adb, self._folder, self._there = None, "", {}

    def _device(self) -> Adb:
        if self._adb is None:
            adb = Adb(choose(self.serial, self._adb_program).serial, self._adb_program)
            folder = f"{_THERE}/vitscope-{secrets.token_hex(4)}"
            made = adb.shell(f"mkdir -p {folder}")
            if made.code != 0:
                raise MeasureError(f"{adb.serial}: {folder} could not be made: {last_line(made.text) or 'no answer'}")
            self._adb, self._folder, self.name = adb, folder, f"adb:{adb.serial}"
            self._identity = android.identity(adb.read)
            self._clusters = android.clusters(adb.read)
        return self._adb

    def _bring(self, path: Path, timeout_s: float, *, executable: bool = False) -> str:
        adb, digest = self._device(), sha256(path)
        if digest not in self._there:
            there = f"{self._folder}/{digest[:12]}{'' if executable else path.suffix}"
            adb.push(path, there, max(timeout_s, 60.0))
            if executable and (said := adb.shell(f"chmod 755 {there}")).code != 0:
                raise MeasureError(f"{adb.serial}: chmod of {path.name} was refused: {last_line(said.text)}")
            self._there[digest] = there
        return self._there[digest]

    def _version(self, runtime: str) -> str:
        runner = self.runners[runtime]
        return f"{runner.name} sha256:{sha256(runner)[:12]}"


class AdbChannel:
    """Runs of one program on one model: each run is a fresh process, so that a block is a process of its own here."""

    def __init__(
        self, adb: Adb, program: Program, job: Job, folder: str, executable: str, model: str, cores: tuple[int, ...],
        timeout_s: float, opened: Opened,
    ):  # fmt: skip
        self.opened = opened
        self._adb, self._program, self._job = adb, program, job
        self._folder, self._executable, self._model = folder, executable, model
        self._cores, self._timeout_s = cores, timeout_s
        self._warm, self._warm_runs, self._warm_s = False, 1, 0.0
        self._mean_s = _FIRST_S
        self._traces = False

    def try_out(self) -> None:
        """One inference, which shows that the program starts and takes the model, and how long it loads.

        A program that does not tell that is timed from here: its start and one inference are then part of it.
        """
        started = time.monotonic()
        timed = self._run(Amount(0, 0.0, 1, 0.0, self._mean_s))
        load_s, notes = timed.load_s, self.opened.notes
        if self._traces:
            notes = (*notes, f"this build of {self._program.name} traces every inference, which its figures hold")
        if load_s is None:
            load_s = time.monotonic() - started
            notes = (*notes, "load time is that of the program's start, one inference included")
        self.opened = replace(self.opened, load_s=load_s, notes=notes)

    def warm(self, min_s: float, min_runs: int, tolerance: float, limit_s: float) -> tuple[float, bool]:
        """Run the program until two runs agree: it warms the device. Every later run warms its own process as well.

        So once that is done, to be asked for less is done already.
        """
        if self._warm and min_s <= self._warm_s and min_runs <= self._warm_runs:
            return 0.0, True
        self._warm, self._warm_runs, self._warm_s = True, min_runs, min_s
        started, before = time.monotonic(), None
        while True:
            timed = self._run(Amount(1, 0.0, min_runs, min_s, self._mean_s))
            mean = sum(timed.samples_s) / len(timed.samples_s)
            if before is not None and abs(mean / before - 1.0) <= max(tolerance, _LEAST_TOLERANCE):
                return time.monotonic() - started, True
            if time.monotonic() - started >= limit_s:
                return time.monotonic() - started, False
            before = mean

    def block(self, min_s: float, min_runs: int) -> Samples:
        """One run of the program, with the device's state read before and after it."""
        before = android.state(self._adb.read, self._cores)
        timed = self._run(Amount(self._warm_runs, self._warm_s, min_runs, min_s, self._mean_s))
        after = android.state(self._adb.read, self._cores)
        return Samples(samples_s=timed.samples_s, averaged=timed.averaged, before=before, after=after)

    def op_times(self, runs: int) -> tuple[str, tuple[OpTime, ...]] | None:
        """The program's own profile, from a run apart that is not timed; None for a program that writes none.

        Raises MeasureError for a build without a profile, or one that cannot be read.
        """
        program = self._program
        if not program.profile:
            return None
        amount = Amount(1, 0.0, runs, 0.0, self._mean_s)
        try:
            said = self._command([*program.profile_words, *program.ask(self._model, self._job, amount)])
        except MeasureError as error:
            sign, advice = program.no_profile
            if sign and sign in str(error):
                raise MeasureError(f"{self._adb.serial}: {advice}") from error
            raise
        file = f"{self._folder}/{program.profile}"
        try:
            if self._job.runtime == "executorch":
                timed = program.read(said.text, "")
                names = tuple(self._job.artifact.scopes)
                return "measured", etdump.ops_of(self._adb.pull(file, self._timeout_s), timed, runs, names)
            text = self._adb.read(f"cat {file}")
            if self._job.runtime == "litert":
                return "measured", benchmark_output.parse_litert_profile(text)
            return "measured", benchmark_output.parse_ort_profile(text, runs)
        except GarbageError as error:
            raise self._garbage(error) from error

    def close(self) -> None:
        """Nothing stays alive between runs; files go with the target."""

    def _run(self, amount: Amount) -> Timed:
        program = self._program
        said = self._command(program.ask(self._model, self._job, amount))
        self._traces = _TRACED in said.text
        results = self._adb.read(f"cat {self._folder}/{program.results}") if program.results else ""
        try:
            timed = program.read(said.text, results)
        except GarbageError as error:
            raise self._garbage(error) from error
        if not program.warms_itself and len(timed.samples_s) > amount.discard:
            timed = Timed(timed.samples_s[amount.discard :], timed.averaged, timed.load_s)
        self._mean_s = sum(timed.samples_s) / len(timed.samples_s)
        return timed

    def _command(self, words: Sequence[str]) -> Said:
        """Run the program to its end in the target's folder, held to the cores. Raises MeasureError."""
        held = f"taskset {android.mask_of(self._cores)} " if self._cores else ""
        clean = f"rm -f {' '.join(name for name in (self._program.results, self._program.profile, 'pid') if name)}"
        line = f"cd {self._folder} && {clean} && echo $$ > pid && exec {held}{self._executable} {shlex.join(words)}"
        try:
            said = self._adb.shell(f"sh -c {shlex.quote(line)} 2>&1", self._timeout_s)
        except SilentError as error:
            self._end_there()
            raise MeasureError(
                f"{self._adb.serial}: {self._program.name} did not end in {self._timeout_s:g} s, and was stopped there"
            ) from error
        except KeyboardInterrupt:  # a program that nobody waits for would heat the device, and slow what comes next
            self._end_there()
            raise
        if said.code != 0:
            raise MeasureError(self._failed(said))
        return said

    def _end_there(self) -> None:
        with contextlib.suppress(VitscopeError):  # a device that is gone as well: the time-out is what is reported
            self._adb.shell(f"kill -9 $(cat {self._folder}/pid)")

    def _failed(self, said: Said) -> str:
        name, where, last = self._program.name, self._adb.serial, last_line(said.text)
        if said.code is None:
            return f"{where}: the connection ended before {name} did ({last or 'no output'})"
        if said.code in (126, 127) or "CANNOT LINK" in said.text or "Exec format error" in said.text:
            return f"{where}: {name} does not start there ({last or f'code {said.code}'}): is it built for this device?"
        if "No space left" in said.text:
            return f"{where} has no room left while {name} runs: free some of its storage"
        if said.code > 128:
            signal = _SIGNALS.get(said.code - 128, f"signal {said.code - 128}")
            return f"{where}: {name} crashed ({signal}){': ' + last if last else ''}"
        return f"{where}: {name} ended with code {said.code}: {last or 'it printed nothing'}"

    def _garbage(self, error: GarbageError) -> MeasureError:
        return MeasureError(f"{self._adb.serial}: {self._program.name} printed what cannot be read: {error}")


def _missing(runtime: str, program: Program) -> UnavailableError:
    return UnavailableError(
        f"{runtime} over adb needs {program.name}, built for the device: --runner {runtime}=PATH (docs/android.md)"
    )
