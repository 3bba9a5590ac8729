"""The runner: answers one JSON line on stdin with one on stdout, holding one model of one runtime in this process.

Its messages (`do`): versions, load, unload, warm, block, profile, run, quit; the end of stdin quits too. A file that is loaded
`apart` gets a process of its own, forked from one that has loaded its runtime and nothing else. What went wrong is an answer
as well: `{"error": one line, "kind": "missing" | "refused" | "failed"}`. Runtimes print what they like: the
protocol's own descriptor is moved away before any is loaded, and what they write to stdout goes to stderr.

Standard library only, Python 3.8 and later, because it is copied to boards that have nothing else (vitscope.measure.pack).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import signal
import sys
import time
from typing import Any, BinaryIO

from vitscope.measure import timing
from vitscope.measure.runner import state as machine_state

_FRESH_S = 0.05  # reading the state takes as long: after a block that has just ended it is as before the next
# Read by the libraries of threads when a runtime loads them, which is after the message `load`.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Refusal(Exception):
    """A message that is answered with an error. `kind` as in the protocol."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind


class Runner:
    """The state between messages: nothing, and after `load` one model."""

    def __init__(self) -> None:
        self.model: Any = None
        self.cores: tuple[int, ...] = ()
        self.is_forked = False
        self.last_state: tuple[float, dict[str, Any]] = (-math.inf, {})

    def versions(self, message: dict[str, Any]) -> dict[str, Any]:
        """Of each of `adapters` (runtime → module of this package), the version, or why it is not here."""
        found: dict[str, Any] = {}
        for runtime, adapter in message["adapters"].items():
            try:
                found[runtime] = _adapter(adapter).version()
            except Exception as error:  # an installed runtime can fail in any way at all when it is imported
                found[runtime] = {"missing": _line(error)}
        return {"runtimes": found, **machine_state.machine()}

    def load(self, message: dict[str, Any]) -> dict[str, Any]:
        """Hold this process to `affinity` and `threads`, import the adapter, load the file at `path`: `apart` in a process
        that is forked for it, where this one can be. That process answers from then on, until it is to unload."""
        if self.model is not None:
            raise Refusal("failed", "a model is loaded already")
        self.cores = tuple(message.get("affinity") or ())
        _hold_to(self.cores)
        for name in _THREAD_VARIABLES:
            os.environ[name] = str(message.get("threads", 1))
        try:
            adapter = _adapter(message["adapter"])
            version = adapter.version()
        except Exception as error:
            raise Refusal("missing", _line(error)) from error
        if message.get("apart") and _can_fork():
            child = os.fork()
            if child:
                _outlive(child)
                return {"ok": "unload"}  # which the child was asked
            self.is_forked = True
        start = time.perf_counter()
        try:
            self.model = adapter.load(message["path"], message)
        except ImportError as error:
            raise Refusal("missing", _line(error)) from error
        except Exception as error:
            raise Refusal("refused", _line(error)) from error
        taken = time.perf_counter() - start
        answer = {"runtime_version": version, "load_s": taken, "notes": list(self.model.notes), "apart": self.is_forked}
        return {**answer, **machine_state.machine()}

    def unload(self, message: dict[str, Any]) -> dict[str, Any]:
        """End the process that was forked for the model, and let the one that it was forked from answer."""
        if not self.is_forked:
            raise Refusal("failed", "no model is loaded apart")
        os._exit(0)

    def warm(self, message: dict[str, Any]) -> dict[str, Any]:
        done = timing.warm_up(
            self._run(),
            min_s=message["min_s"],
            min_runs=message["min_runs"],
            tolerance=message["tolerance"],
            limit_s=message["limit_s"],
        )
        return {"seconds": done.seconds, "runs": done.runs, "stable": done.stable}

    def block(self, message: dict[str, Any]) -> dict[str, Any]:
        run = self._run()
        read_s, before = self.last_state
        if time.perf_counter() - read_s > _FRESH_S:
            before = machine_state.state(self.cores)
        run()  # reading the state has used the caches
        sweep_bytes = message.get("sweep_bytes", 0)
        between = functools.partial(machine_state.sweep, sweep_bytes) if sweep_bytes else None
        samples = timing.sample(run, min_s=message["min_s"], min_runs=message["min_runs"], between=between)
        samples = [round(value, 9) for value in samples]  # no clock tells more than nanoseconds
        after = machine_state.state(self.cores)
        self.last_state = time.perf_counter(), after
        return {"samples_s": samples, "before": before, "after": after}

    def profile(self, message: dict[str, Any]) -> dict[str, Any]:
        self._run()
        found = self.model.op_times(message["runs"])
        if found is None:
            return {"how": None}
        how, ops = found
        return {"how": how, "ops": ops}

    def run(self, message: dict[str, Any]) -> dict[str, Any]:
        """One inference; with `out`, its outputs as `out`.0.npy, `out`.1.npy …"""
        self._run()()
        if "out" not in message:
            return {}
        import numpy

        files = []
        for index, output in enumerate(self.model.outputs()):
            files.append(f"{message['out']}.{index}.npy")
            numpy.save(files[-1], output)
        return {"files": files}

    def answer(self, message: Any) -> dict[str, Any]:
        """The answer to one message, errors included."""
        try:
            if not isinstance(message, dict) or message.get("do") not in _COMMANDS:
                raise Refusal("failed", f"the runner knows {', '.join(_COMMANDS)}; got {str(message)[:80]!r}")
            return {"ok": message["do"], **getattr(self, message["do"])(message)}
        except Refusal as refusal:
            return {"error": str(refusal), "kind": refusal.kind}
        except KeyError as error:
            return {"error": f"{message['do']}: lacks {error} here or in the runtime", "kind": "failed"}
        except Exception as error:
            return {"error": _line(error), "kind": "failed"}

    def _run(self) -> Any:
        if self.model is None:
            raise Refusal("failed", "no model is loaded")
        return self.model.run


_COMMANDS = ("versions", "load", "unload", "warm", "block", "profile", "run")


def _adapter(name: str) -> Any:
    if not name.isidentifier():
        raise Refusal("failed", f"{name!r} names no adapter")
    return importlib.import_module(f"vitscope.measure.runner.{name}")


def _hold_to(cores: tuple[int, ...]) -> None:
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise Refusal("refused", "this system cannot hold a process to cores")
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError) as error:
        raise Refusal("refused", f"cannot be held to cores {', '.join(map(str, cores))}: {error}") from error


def _can_fork() -> bool:
    """Whether a fork of this process is as good as new: its threads, if it has any, would not be there."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False  # no Linux: elsewhere what a runtime has loaded may not outlive a fork


def _outlive(child: int) -> None:
    """Wait for `child`, and end as it did if that was in any other way than on request."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # of signals that always end a process
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if os.WEXITSTATUS(status):
        os._exit(os.WEXITSTATUS(status))


def _line(error: BaseException) -> str:
    """An exception in one line: its class where the text alone says little, at most 400 characters."""
    text = " ".join(str(error).split())
    if not isinstance(error, (Refusal, ImportError)):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    text = text or type(error).__name__
    return text if len(text) <= 400 else text[:397] + "…"


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer every line of `source` on `sink` until `quit` or the end."""
    runner = Runner()
    for line in source:
        if not line.strip():
            continue
        try:
            message = json.loads(line)
        except ValueError as error:
            answer: dict[str, Any] = {"error": f"not JSON: {error}", "kind": "failed"}
        else:
            if isinstance(message, dict) and message.get("do") == "quit":
                return
            answer = runner.answer(message)
        try:
            text = json.dumps(answer)
        except (TypeError, ValueError) as error:  # an adapter's value that is no JSON
            text = json.dumps({"error": f"the adapter answered what is no JSON: {error}", "kind": "failed"})
        sink.write(text.encode() + b"\n")
        sink.flush()


def main() -> None:
    """Move the protocol away from descriptors 0 and 1, which runtimes may read and print to, and serve."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        serve(source, sink)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without the runtimes' own farewells, which hang or crash now and then


if __name__ == "__main__":
    main()
