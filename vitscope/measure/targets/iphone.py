"""IPhoneTarget: an iPhone attached to a Mac, through coremltools' experimental remote device and its benchmarker.

coremltools builds and installs a small runner app, starts it, and moves files to and from it with Xcode's `devicectl`.
The time is the app's own, around the prediction. Each prediction is a transfer of its own, a second or more in which the
phone idles: a block is counted in inferences, never filled up to a duration.

Not yet run on a phone: written from coremltools 9.0's source, and tested against answers composed from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NoReturn, TypeVar

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.export.inspect_coreml import quiet
from vitscope.measure.channel import Job, MeasureError, Opened, Samples
from vitscope.measure.record import OpTime
from vitscope.measure.runner.coreml_mac import compute_units, noise, unit_of
from vitscope.measure.runtimes import RUNTIMES
from vitscope.measure.targets.apple import cure_of, phone_of
from vitscope.measure.targets.xcode import Interface, interface, said

BUNDLE = "com.example.vitscope.modelrunner"
WARM_RUNS = 50  # coremltools drops one; an iPhone 12 needed about 50 to 200 until it was steady
_WARM_LIMIT = 200
_WINDOW = 25
_CHUNK = 10  # predictions in one call, so that a phone that was unplugged is noticed
_BUILD_S = 900.0  # the first build of the runner app, with signing
_FAREWELL_S = 10.0
_NOTES = (
    "each prediction is sent to the phone by itself and follows a pause: expect more than Xcode's report shows",
    "warm-up and blocks are counted in inferences, not filled up to a duration",
)
_T = TypeVar("_T")


class IPhoneTarget:
    """`iphone` or `iphone:NAME`: a vitscope.measure.channel.Target. NAME is a device's name, UDID or identifier.

    `team` is the identifier of the development team that signs the runner app, `bundle` the identifier the app gets,
    `profile` the UUID of a provisioning profile in place of a team. `using` stands for the Mac, for tests.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        team: str = "",
        bundle: str = BUNDLE,
        profile: str | None = None,
        using: Interface | None = None,
    ):
        self.name = f"iphone:{device}" if device else "iphone"
        self._wanted = device
        self._team, self._bundle, self._profile = team, bundle, profile
        self._using = using
        self._loop: asyncio.AbstractEventLoop | None = None
        self._folder: str | None = None
        self._prepared: Any = None  # a Device with a running app
        self._open = 0  # channels that use it

    def runtimes(self, names: Sequence[str] = ()) -> dict[str, Any]:
        """Core ML with the version of iOS, or why it is not there; nothing else runs on an iPhone from here."""
        found: dict[str, Any] = {
            name: UnavailableError(f"{self.name}: {runtime.title} does not run on an iPhone, Core ML does")
            for name, runtime in RUNTIMES.items()
        }
        try:
            found["coreml"] = self._version(self._find())
        except VitscopeError as error:
            found["coreml"] = error if isinstance(error, UnavailableError) else UnavailableError(str(error))
        return found

    def open(self, job: Job, timeout_s: float) -> IPhoneChannel:
        """Start the runner app afresh, unless another channel uses it, and load the file on the phone."""
        if job.runtime != "coreml":
            raise UsageError(f"{self.name}: {job.runtime} does not run on an iPhone, coreml does")
        if job.affinity:
            raise UsageError(f"{self.name}: the cores of an iPhone cannot be chosen")
        if self._open == 0:
            self._stop()
            self._prepared = self._prepare(self._find())
        self._open += 1
        try:
            return IPhoneChannel(self, job, self._prepared, timeout_s)
        except BaseException:
            self.release()
            raise

    def close(self) -> None:
        """End the app and remove what was built. Never raises."""
        self._stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._loop is not None:
            with contextlib.suppress(Exception):
                self._loop.close()
            self._loop = None

    def release(self) -> None:
        """One channel fewer; with the last of them the app ends, so that the next one starts in a fresh process."""
        self._open = max(0, self._open - 1)
        if self._open == 0:
            self._stop()

    def wait(self, work: Coroutine[Any, Any, _T], doing: str, timeout_s: float) -> _T:
        """The result of a coroutine of coremltools. What it raises becomes one line: MeasureError, or UnavailableError
        for what the user has to do on the phone."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            with quiet():
                return self._loop.run_until_complete(asyncio.wait_for(work, timeout_s))
        except (asyncio.TimeoutError, TimeoutError):
            self._raise(f"did not answer within {timeout_s:g} s", doing)
        except VitscopeError:
            raise
        except Exception as error:  # coremltools raises private kinds, and AttributeError where no answer came
            self._raise(said(error), doing)

    def mac(self) -> Interface:
        if self._using is None:
            self._using = interface()
        return self._using

    def opened(self, device: Any, load_s: float) -> Opened:
        """Which phone and system this is."""
        product = self._product(device)
        phone = phone_of(product)
        return Opened(
            runtime_version=self._version(device),
            host=product or phone.title,
            processor=f"Apple {phone.chip} ({phone.title})" if phone.chip else "unknown",
            system=f"iOS {device.os_version} ({device.os_build_number})",
            load_s=load_s,
            notes=_NOTES,
        )

    def _version(self, device: Any) -> str:
        return f"iOS {device.os_version}, coremltools {self.mac().ct.__version__}"

    def _product(self, device: Any) -> str:
        try:
            return self.mac().products().get(device.identifier, "")
        except (OSError, ValueError, subprocess.SubprocessError):
            return ""

    def _find(self) -> Any:
        """The one iPhone that is meant. Raises UnavailableError where none is ready, UsageError where several are."""
        phones = self._phones()
        if not phones:
            raise UnavailableError(
                f"{self.name}: no iPhone is attached: connect one with a cable, unlock it, and answer Trust on it"
            )
        fit = [phone for phone in phones if self._wanted is None or self._is_wanted(phone)]
        if not fit:
            raise UnavailableError(f"{self.name}: no such iPhone; there are: {_list(phones)}")
        ready = [phone for phone in fit if _is_connected(phone)]
        if not ready:
            for phone in fit:
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    self.mac().wake(phone.identifier)
            ready = [
                phone for phone in self._phones() if _is_connected(phone) and (phone.udid in {p.udid for p in fit})
            ]
        if not ready:
            raise UnavailableError(
                f"{self.name}: {_list(fit)} is {fit[0].state.value}: connect it with a cable, unlock it, and open "
                "Xcode > Window > Devices and Simulators once"
            )
        if len(ready) > 1:
            raise UsageError(
                f"{self.name}: {len(ready)} iPhones are attached; say which as iphone:NAME: {_list(ready)}"
            )
        mode = ready[0].developer_mode_state
        if mode and mode.lower() != "enabled":
            raise UnavailableError(
                f"{self.name}: Developer Mode is {mode} on {ready[0].name}: Settings > Privacy & Security > Developer Mode"
            )
        return ready[0]

    def _phones(self) -> list[Any]:
        mac = self.mac()
        try:
            with quiet():
                devices = mac.device.get_devices()
        except Exception as error:
            self._raise(said(error), "listing devices", look=False)
        return [device for device in devices if device.type == mac.device_type.IPHONE]

    def _is_wanted(self, phone: Any) -> bool:
        return str(self._wanted).lower() in (phone.name.lower(), phone.udid.lower(), phone.identifier.lower())

    def _prepare(self, device: Any) -> Any:
        """Build the runner app (the first time), install and start it: the device with its session."""
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="vitscope-iphone-")
        credentials = self.mac().credentials(
            development_team=self._team, provisioning_profile_uuid=self._profile, bundle_identifier=self._bundle
        )
        work = device.prepare_for_model_debugging(credentials=credentials, working_directory=Path(self._folder))
        return self.wait(work, "starting the runner app", _BUILD_S)

    def _stop(self) -> None:
        session = getattr(self._prepared, "session", None)
        self._prepared = None
        if session is not None:
            with contextlib.suppress(Exception):
                session.stop()

    def _raise(self, text: str, doing: str, *, look: bool = True) -> NoReturn:
        if look and self._is_gone():
            raise MeasureError(f"{self.name}: the iPhone was unplugged or went away while {doing} ({text})")
        cure = cure_of(text)
        if cure is not None:
            raise UnavailableError(f"{self.name}: {cure.meaning}, while {doing}: {cure.cure} ({text})")
        raise MeasureError(f"{self.name}: {doing} failed: {text}")

    def _is_gone(self) -> bool:
        """Whether no iPhone that is meant is attached any more; False where that cannot be told."""
        try:
            phones = self._phones()
        except VitscopeError:
            return False
        udid = getattr(self._prepared, "udid", None)
        return not any(_is_connected(phone) and (udid is None or phone.udid == udid) for phone in phones)


class IPhoneChannel:
    """A vitscope.measure.channel.Channel: one model, loaded by the runner app."""

    def __init__(self, target: IPhoneTarget, job: Job, device: Any, timeout_s: float):
        self._target, self._timeout_s = target, timeout_s
        self._released = False
        mac = target.mac()
        try:
            units = compute_units(mac.ct, job.unit)
        except ValueError as error:
            raise UsageError(f"--compute-units: {error}") from error
        try:
            with quiet():
                model = mac.model(str(job.artifact.path), compute_units=units, skip_model_load=True)
                self._given = noise(model.get_spec())
        except Exception as error:
            raise MeasureError(f"{job.artifact.path}: coremltools cannot open it: {said(error)}") from error
        self._benchmarker: Any = mac.benchmarker(model=model, device=device)
        load = self._wait(self._benchmarker.benchmark_load(iterations=1), "loading the model")
        self.opened = target.opened(device, _seconds(load.samples)[0])

    def warm(self, min_s: float, min_runs: int, tolerance: float, limit_s: float) -> tuple[float, bool]:
        """At least WARM_RUNS predictions, then windows until two medians agree, at most _WARM_LIMIT. `min_s` and
        `limit_s` are not held to: transfers, not predictions, are what takes the time."""
        start = time.monotonic()
        if tolerance >= 1:  # only to fill the caches again
            self._predict(max(1, min_runs))
            return time.monotonic() - start, True
        samples = self._predict(max(WARM_RUNS, min_runs))
        while not (steady := _agree(samples, tolerance)) and len(samples) < _WARM_LIMIT:
            samples += self._predict(_WINDOW)
        return time.monotonic() - start, steady

    def block(self, min_s: float, min_runs: int) -> Samples:
        """`min_runs` predictions, in seconds by the phone's own clock."""
        return Samples(samples_s=tuple(self._predict(max(1, min_runs))))

    def op_times(self, runs: int) -> tuple[str, tuple[OpTime, ...]]:
        """The phone's compute plan: the share it gives each operation, times the median of `runs` predictions."""
        infos = self._wait(
            self._benchmarker.benchmark_operation_execution(inputs=self._given, iterations=max(1, runs), warmup=True),
            "reading the compute plan",
            scale=max(1, runs),
        )
        found: dict[str, OpTime] = {}
        for info in infos:
            names = tuple(output.name for output in info.spec.outputs)
            if not names or (info.compute_device_usage is None and not info.measurement.samples):
                continue  # a constant
            # An operation of several outputs comes once for each, with the whole cost every time.
            found[names[0]] = OpTime(
                name=names[0], kind=info.spec.type, names=names, unit=unit_of(info.compute_device_usage),
                seconds=median(_seconds(info.measurement.samples)) if info.measurement.samples else 0.0,
            )  # fmt: skip
        return "estimated", tuple(found.values())

    def close(self) -> None:
        if self._released:
            return
        self._released = True
        # Unloaded and dropped while the loop lives: coremltools' own destructor speaks to the phone through it.
        loaded = getattr(self._benchmarker, "_loaded_model", None)
        if loaded is not None:
            with contextlib.suppress(Exception):
                self._target.wait(loaded.unload(), "unloading the model", _FAREWELL_S)
        with quiet():
            self._benchmarker = loaded = None
        self._target.release()

    def _predict(self, runs: int) -> list[float]:
        samples: list[float] = []
        while len(samples) < runs:
            count = min(_CHUNK, runs - len(samples))
            work = self._benchmarker.benchmark_predict(inputs=self._given, iterations=count, warmup=False)
            measured = _seconds(self._wait(work, "predicting").samples)
            if len(measured) != count:
                raise MeasureError(f"{self._target.name}: {len(measured)} samples came back of {count} predictions")
            samples += measured
        return samples

    def _wait(self, work: Coroutine[Any, Any, Any], doing: str, scale: int = 1) -> Any:
        return self._target.wait(work, doing, self._timeout_s * max(1, -(-scale // _CHUNK)))


def _seconds(milliseconds: list[float]) -> list[float]:
    """coremltools gives milliseconds; a duration that is none is refused."""
    if not milliseconds or not all(0 < value < float("inf") for value in milliseconds):
        raise MeasureError(f"the iPhone answered a duration of {milliseconds[:1] or 'nothing'}")
    return [value / 1000 for value in milliseconds]


def _agree(samples: list[float], tolerance: float) -> bool:
    before, now = median(samples[-2 * _WINDOW : -_WINDOW]), median(samples[-_WINDOW:])
    return abs(now - before) <= tolerance * min(now, before)


def _is_connected(phone: Any) -> bool:
    return phone.state.value == "connected"


def _list(phones: list[Any]) -> str:
    return ", ".join(f"{phone.name} ({phone.udid})" for phone in phones)
