"""RunnerChannel: the runner at the other end of a process's pipes, on this host or behind ssh. Every answer has a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitscope.errors import UnavailableError, VitscopeError
from vitscope.measure.channel import Job, MeasureError, Opened, Samples
from vitscope.measure.record import OpTime, State
from vitscope.measure.runtimes import RUNTIMES, Runtime

_FAREWELL_S = 2.0  # for a runner that was asked to quit
_REPEAT = 3.0  # a block may take this many times what the warm-up foretells
_LONGEST_ANSWER = 64 << 20  # bytes; a block of a minute of 1 µs inferences


class RunnerProcess:
    """A started runner: one message out, one answer in.

    `command` runs it with pipes on its stdin and stdout; `where` names it in messages. It gets a session of its own, so
    that Ctrl-C reaches it through us alone, and whatever it starts ends with it.
    """

    def __init__(
        self, command: Sequence[str], *, where: str, env: Mapping[str, str] | None = None, cwd: str | None = None
    ):
        self.where = where
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=env, cwd=cwd,
                bufsize=0, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise MeasureError(f"{where}: cannot start {command[0]}: {error.strerror or error}") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def ask(self, message: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send `message` and return the answer.

        Raises MeasureError when the process died, answered garbage or an error, or nothing within `timeout_s`, and
        UnavailableError when it lacks the runtime. A process that broke the protocol is ended.
        """
        do = str(message["do"])
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
        except OSError:
            raise MeasureError(f"{self.where}: {self._why_it_ended(do)}") from None
        line = self._read_line(do, time.monotonic() + timeout_s, timeout_s)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or ("error" not in answer and answer.get("ok") != do):
            self.kill()
            shown = line[:60].decode(errors="replace").strip()
            raise MeasureError(f"{self.where}: the runner answered {do} with {shown!r}, which is not its protocol")
        if "error" in answer:
            kind = UnavailableError if answer.get("kind") == "missing" else MeasureError
            raise kind(f"{self.where}: {answer['error']}")
        return answer

    def stderr_tail(self, limit: int = 4000) -> str:
        """The end of what the process and its runtime wrote to stderr."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - limit))
        return self._errors.read().decode(errors="replace")

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL_S)

    def close(self) -> None:
        """Ask it to quit, end it if it does not, and free its pipes. Never raises."""
        try:
            if self._process.poll() is None:
                with contextlib.suppress(OSError):
                    self._stdin.write(b'{"do": "quit"}\n')
                with contextlib.suppress(OSError):
                    self._stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_FAREWELL_S)
        finally:
            self.kill()
            for pipe in (self._stdin, self._stdout, self._errors):
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_line(self, do: str, deadline: float, timeout_s: float) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self.kill()
                    raise MeasureError(f"{self.where}: no answer to {do} within {timeout_s:g} s; the runner was ended")
                piece = os.read(self._stdout.fileno(), 1 << 16)
                if not piece:
                    raise MeasureError(f"{self.where}: {self._why_it_ended(do)}")
                self._pending += piece
                if len(self._pending) > _LONGEST_ANSWER:
                    self.kill()
                    raise MeasureError(f"{self.where}: the runner's answer to {do} does not end")
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _why_it_ended(self, do: str) -> str:
        try:
            code = self._process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"the runner closed its output during {do}"
        said = [line.strip() for line in self.stderr_tail().splitlines() if line.strip()]
        last = f": {said[-1][:200]}" if said else ""
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            return f"the runner was ended by {name} during {do}{last}"
        return f"the runner ended with code {code} during {do}{last}"


class RunnerChannel:
    """A Channel (see vitscope.measure.channel) over a RunnerProcess that has loaded a model."""

    def __init__(
        self,
        process: RunnerProcess,
        job: Job,
        bring: Callable[[Job], str],
        timeout_s: float,
        take_away: Callable[[Job], None] = lambda job: None,
    ):
        """`bring` puts the file of a job on the target and returns its path there; `take_away` frees that room."""
        self._process = process
        self._job, self._bring, self._take_away = job, bring, take_away
        self._timeout_s = timeout_s
        self._run_s = 0.0
        self.opened = self._load(job)

    def exchange(self, job: Job) -> None:
        """Load the file of another job apart, in a fresh process, for which the runtime need not be loaded again. A failure
        ends all.

        The file before is taken away from the target: who exchanges has many. Only where `opened.apart`.
        """
        try:
            self._ask({"do": "unload"}, 0.0)
            self._take_away(self._job)
        except BaseException:
            self.close()
            raise
        self._job, self._run_s = job, 0.0
        self.opened = self._load(job)

    def _load(self, job: Job) -> Opened:
        process, timeout_s = self._process, self._timeout_s
        try:
            answer = process.ask(load_message(job, self._bring(job)), timeout_s)
            return Opened(
                runtime_version=str(answer["runtime_version"]), host=str(answer["host"]),
                processor=str(answer["processor"]), system=str(answer["system"]), load_s=float(answer["load_s"]),
                cores=answer.get("cores"), notes=tuple(map(str, answer["notes"])), apart=bool(answer.get("apart")),
            )  # fmt: skip
        except UnavailableError as error:
            process.close()
            raise UnavailableError(f"{error} ({RUNTIMES[job.runtime].cure})") from error
        except (KeyError, TypeError, ValueError) as error:
            process.close()
            raise MeasureError(
                f"{process.where}: the runner's answer to load lacks what it must say: {error}"
            ) from error
        except BaseException:
            process.close()
            raise

    def warm(self, min_s: float, min_runs: int, tolerance: float, limit_s: float) -> tuple[float, bool]:
        answer = self._ask(
            {"do": "warm", "min_s": min_s, "min_runs": min_runs, "tolerance": tolerance, "limit_s": limit_s}, limit_s
        )
        with self._reading("warm"):
            seconds, runs = float(answer["seconds"]), int(answer["runs"])
            self._run_s = seconds / runs if runs else self._run_s
            return seconds, bool(answer["stable"])
        raise AssertionError("unreachable")

    def block(self, min_s: float, min_runs: int, *, sweep_bytes: int = 0) -> Samples:
        """One block of timed inferences; before each, so many other bytes are gone through."""
        expected = max(min_s, min_runs * self._run_s)
        message = {"do": "block", "min_s": min_s, "min_runs": min_runs, "sweep_bytes": sweep_bytes}
        answer = self._ask(message, _REPEAT * expected)
        with self._reading("block"):
            samples = tuple(float(value) for value in answer["samples_s"])
            if not samples or min(samples) < 0:
                raise ValueError("no samples" if not samples else "a negative time")
            return Samples(samples_s=samples, before=_state(answer["before"]), after=_state(answer["after"]))
        raise AssertionError("unreachable")

    def op_times(self, runs: int) -> tuple[str, tuple[OpTime, ...]] | None:
        answer = self._ask({"do": "profile", "runs": runs}, _REPEAT * runs * self._run_s)
        with self._reading("profile"):
            if answer["how"] is None:
                return None
            ops = tuple(
                OpTime(
                    name=str(op["name"]), kind=str(op["kind"]), seconds=float(op["seconds"]),
                    names=tuple(map(str, op["names"])), unit=str(op.get("unit") or ""),
                )
                for op in answer["ops"]
            )  # fmt: skip
            return str(answer["how"]), ops
        raise AssertionError("unreachable")

    def run(self, out: str | None = None) -> list[str]:
        """One inference of the example noise; with `out`, the files (on the target) that its outputs went to."""
        answer = self._ask({"do": "run", **({"out": out} if out else {})}, 0.0)
        return [str(file) for file in answer.get("files", ())]

    def close(self) -> None:
        self._process.close()

    def _ask(self, message: Mapping[str, Any], extra_s: float) -> dict[str, Any]:
        return self._process.ask(message, self._timeout_s + extra_s)

    @contextlib.contextmanager
    def _reading(self, do: str) -> Any:
        """A well-formed answer without the values that it must have is as bad as garbage."""
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            self._process.kill()
            raise MeasureError(f"{self._process.where}: the runner's answer to {do} is damaged: {error}") from error


def load_message(job: Job, path: str) -> dict[str, Any]:
    """The message that loads the file of `job`, which is at `path` on the target."""
    return {
        "do": "load", "runtime": job.runtime, "adapter": RUNTIMES[job.runtime].adapter, "path": path,
        "input_shape": list(job.artifact.input_shape), "precision": job.artifact.precision, "unit": job.unit,
        "threads": job.threads, "affinity": list(job.affinity), "options": dict(job.options), "apart": job.apart,
        "names": list(job.artifact.scopes),  # in the order of the file, for a runtime that profiles without names
    }  # fmt: skip


def versions_message(runtimes: Sequence[Runtime] = tuple(RUNTIMES.values())) -> dict[str, Any]:
    """The message that asks which of `runtimes` are on the target."""
    return {"do": "versions", "adapters": {runtime.name: runtime.adapter for runtime in runtimes}}


def versions(process: RunnerProcess, timeout_s: float, names: Sequence[str] = ()) -> dict[str, str | VitscopeError]:
    """Runtime → its version on the target, or the UnavailableError that says what is missing and how to get it.

    Each is imported to know, which takes seconds for some: `names` are the only ones to ask for, where given.
    """
    wanted = [RUNTIMES[name] for name in names or RUNTIMES]
    found: dict[str, str | VitscopeError] = {}
    for name, version in process.ask(versions_message(wanted), timeout_s)["runtimes"].items():
        if isinstance(version, str):
            found[name] = version
        else:
            found[name] = UnavailableError(
                f"{process.where}: {RUNTIMES[name].title} is not here: {version['missing']} ({RUNTIMES[name].cure})"
            )
    return found


def _state(data: Mapping[str, Any]) -> State:
    def number(key: str) -> float | None:
        value = data.get(key)
        return None if value is None else float(value)

    status = data.get("thermal_status")
    return State(
        clock_hz=number("clock_hz"), temperature_c=number("temperature_c"), load=number("load"),
        probe_s=number("probe_s"), memory_probe_s=number("memory_probe_s"),
        thermal_status=None if status is None else str(status),
    )  # fmt: skip
