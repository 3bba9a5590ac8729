"""What is to be measured: networks × runtimes × precisions × units × threads as cases, and a case as the Job of a target."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vitscope.errors import UnavailableError, UsageError, VitscopeError, nearest
from vitscope.export import FORMATS, RefusedError
from vitscope.export.artifact import PRECISIONS, Artifact, Precision
from vitscope.measure.channel import Job
from vitscope.measure.runtimes import RUNTIMES

if TYPE_CHECKING:
    from vitscope.subject import Subject

ALL = "all"  # every runtime that the target has


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as it is named on a command line, with everything that changes what is measured of it."""

    model: str
    form: Literal["train", "deploy"] = "deploy"
    overrides: tuple[str, ...] = ()
    resolution: tuple[int, int] | None = None
    batch: int = 1
    weights: str | None = None
    input_size: tuple[int, int, int] | None = None
    kwargs: tuple[tuple[str, Any], ...] = ()
    allow_plugins: bool = False
    document: str = ""  # a merged spec as JSON, where `model` is only what it is called
    file: Artifact | None = None  # what `model` names, where that is exported already (vitscope.export.opened)

    @property
    def label(self) -> str:
        """What a line about it begins with: the name, what was changed, and the size where it was asked for."""
        size = () if self.resolution is None else ("×".join(map(str, self.resolution)),)
        return " ".join((self.model, *self.overrides, *(f"{key}={value}" for key, value in self.kwargs), *size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row to be: a network on a runtime, in a precision, on a compute unit, with so many threads."""

    network: Network
    runtime: str  # a key of RUNTIMES
    precision: Precision
    unit: str
    threads: int

    @property
    def format(self) -> str:
        return RUNTIMES[self.runtime].format


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A case that gave no figure: why, in one line, and the exit code that belongs to it."""

    model: str
    runtime: str
    precision: str
    unit: str
    threads: int
    reason: str
    exit_code: int = 1

    @classmethod
    def of(cls, case: Case, error: VitscopeError) -> Failure:
        """A network that a format or a runtime refuses, or a device that went away, is no mistake of the command line."""
        return cls(
            model=case.network.label, runtime=case.runtime, precision=case.precision, unit=case.unit,
            threads=case.threads, reason=" ".join(str(error).split()),
            exit_code=3 if isinstance(error, UnavailableError) else 1,
        )  # fmt: skip


def parse_runtimes(texts: Sequence[str]) -> list[str]:
    """`onnxruntime,litert` (repeatable) → names, each once; [`all`] alone for every runtime there. Raises UsageError."""
    names = list(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))
    for name in names:
        if name != ALL and name not in RUNTIMES:
            known = [*RUNTIMES, ALL]
            raise UsageError(f"no runtime {name!r}{nearest(name, known)}; runtimes: {', '.join(known)}")
    return [ALL] if ALL in names else names


def parse_precisions(text: str | None) -> list[Precision] | None:
    """`fp32,int8` → precisions, each once; None where none is asked for. Raises UsageError."""
    if text is None:
        return None
    names = dict.fromkeys(name.strip() for name in text.split(","))
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(
                f"--precision {text}: no precision {name!r}{nearest(name, PRECISIONS)}; one of: {', '.join(PRECISIONS)}"
            )
    return [precision for name in names for precision in PRECISIONS if precision == name]


def parse_numbers(text: str, flag: str, least: int) -> tuple[int, ...]:
    """`0,2-5` → 0, 2, 3, 4, 5: cores, or numbers of threads. Raises UsageError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(first) < least or len(part) > 9:
            raise UsageError(f"{flag} {text}: expected numbers from {least}, as 1,4 or 0-3")
        if dash and int(last) < int(first):
            raise UsageError(f"{flag} {text}: {part.strip()} runs backwards")
        found += range(int(first), int(last if dash else first) + 1)
    return tuple(dict.fromkeys(found))


def cases(
    networks: Sequence[Network],
    runtimes: Sequence[str],
    *,
    precisions: Sequence[Precision] | None = None,
    unit: str | None = None,
    threads: Sequence[int] = (1,),
    lenient: bool = False,
) -> list[Case]:
    """Every combination, network by network. Without `precisions` each format's usual one, without `unit` each runtime's
    first. A file goes to the runtimes of its format alone, in its own precision.

    Raises UsageError where a runtime has no such unit or its format no such precision; `lenient` (runtimes that nobody
    named) leaves these combinations out, unless nothing is left. Raises it, too, where no runtime executes a file, or one
    that was named executes none of the networks.
    """
    made: list[Case] = []
    refused: list[str] = []
    fitting = {network: [name for name in runtimes if _executes(name, network)] for network in networks}
    for network, names in fitting.items():
        if not names:
            raise UsageError(_no_runtime(network, runtimes, lenient))
    idle = next((name for name in runtimes if not any(name in names for names in fitting.values())), None)
    if idle is not None and not lenient:
        raise UsageError(_no_runtime(networks[0], [idle], lenient))
    for network in networks:
        for name in fitting[network]:
            runtime = RUNTIMES[name]
            format = FORMATS[runtime.format]
            if unit is not None and unit not in runtime.units:
                refused.append(f"--compute-units {unit}: {name} runs on {', '.join(runtime.units)}")
                continue
            own = () if network.file is None else (network.file.precision,)
            asked: Sequence[Precision] = own or precisions or format.precisions[:1]
            for precision in asked:
                if not own and precision not in format.precisions:
                    refused.append(
                        f"--precision {precision}: {name} executes {format.title} files, written in "
                        f"{', '.join(format.precisions)}"
                    )
                    continue
                made += [
                    Case(network=network, runtime=name, precision=precision, unit=unit or runtime.units[0], threads=n)
                    for n in threads
                ]
    if refused and (not lenient or not made):
        raise UsageError(refused[0])
    return made


def _executes(runtime: str, network: Network) -> bool:
    return network.file is None or RUNTIMES[runtime].format == network.file.format


def _no_runtime(network: Network, runtimes: Sequence[str], lenient: bool) -> str:
    """Why none of `runtimes` executes a file, and which do."""
    assert network.file is not None  # every runtime executes what is exported for it
    format = network.file.format
    fit = [name for name, runtime in RUNTIMES.items() if runtime.format == format]
    theirs = f"{FORMATS[format].title} files run on {', '.join(fit)}"
    return f"{network.model}: {theirs}; {'none of these is there' if lenient else 'not on ' + ', '.join(runtimes)}"


def load(network: Network) -> Subject:
    """The Subject of a Network. Raises SpecError, UsageError or WeightsError."""
    from vitscope.subject import load_subject, subject_of_spec

    if network.document:
        from vitscope.spec import parse_spec

        spec = parse_spec(network.document, network.model)
        return subject_of_spec(spec, name=network.model, form=network.form, batch=network.batch)
    kwargs: Mapping[str, Any] = dict(network.kwargs)
    return load_subject(
        network.model, form=network.form, overrides=network.overrides, resolution=network.resolution,
        batch=network.batch, weights=network.weights, input_size=network.input_size, kwargs=kwargs,
        allow_plugins=network.allow_plugins,
    )  # fmt: skip


class Exporter:
    """Cases into Jobs: each file is written once and kept in the cache, each network built once for all its files."""

    def __init__(self, here: bool = False) -> None:
        """`here`: the files are for this host, where PyTorch can execute the module itself."""
        self._here = here
        self._network: Network | None = None
        self._subject: Subject | None = None

    def subject(self, network: Network) -> Subject:
        """The network with values; the last one is remembered, since a network's cases follow one another."""
        if self._subject is None or self._network != network:
            self._subject, self._network = None, None  # two large networks need not be alive at once
            self._subject, self._network = load(network), network
        return self._subject

    def job(self, case: Case, affinity: tuple[int, ...] = (), options: tuple[tuple[str, str], ...] = ()) -> Job:
        """The Job of a case, its network exported where the cache does not hold it; a file is taken as it is.

        Raises what `load` and `export` raise.
        """
        from vitscope.export.cache import MODULE, cached, recalled

        network = case.network
        how: dict[str, Any] = {
            "runtime": case.runtime,
            "unit": case.unit,
            "threads": case.threads,
            "affinity": affinity,
            "options": options,
        }
        if network.file is not None:
            return Job(artifact=network.file, **how)
        identity = _identity(network)

        def kept(format: str) -> Artifact:
            if identity is None:
                return cached(self.subject(network), format, case.precision)
            return recalled(identity, format, case.precision, lambda: self.subject(network))

        artifact = None
        # Eager means the module's own code, which a program made of it lacks. A plugin's classes are known to the
        # process that loaded its file, and to no other.
        if self._here and case.format == "torch" and not network.allow_plugins:
            with suppress(RefusedError):
                artifact = kept(MODULE)
        if artifact is None:
            artifact = kept(case.format)
        if network.weights is not None:
            # a file of the same name may hold other values the next time: those are another row
            artifact = replace(artifact, weights=f"{artifact.weights} ({_digest_of(network.weights)})")
        return Job(artifact=artifact, **how)


def _digest_of(path: str) -> str:
    """Of the content of a checkpoint that was loaded. Raises UsageError where it is gone by now."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=4).hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error


def _identity(network: Network) -> dict[str, object] | None:
    """What the values of a spec's network depend on, told without building it; None for a network of other code."""
    from vitscope.sources import source_of
    from vitscope.spec import load_spec, parse_spec

    if network.document:
        spec = parse_spec(network.document, network.model)
    elif source_of(network.model) is not None:
        return None
    else:
        spec = load_spec(
            network.model, network.overrides, resolution=network.resolution, allow_plugins=network.allow_plugins
        )
    if spec.plugins:
        return None  # blocks of the user's own files, whose code no version names
    values = None
    if network.weights is not None:
        try:
            values = hashlib.blake2b(Path(network.weights).read_bytes(), digest_size=16).hexdigest()
        except OSError:
            return None  # loading says what is wrong with it
    return {
        "name": network.model, "overrides": network.overrides, "digest": spec.digest, "form": network.form,
        "batch": network.batch, "input": spec.input, "weights": network.weights, "values": values,
    }  # fmt: skip
