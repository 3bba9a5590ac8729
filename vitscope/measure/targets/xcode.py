"""What is used of coremltools and of Xcode to reach an iPhone from a Mac, in one place that a replay can stand in for."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscope.errors import UnavailableError
from vitscope.export.inspect_coreml import quiet
from vitscope.measure.runtimes import RUNTIMES

_LIST_S = 60.0


@dataclass(frozen=True, slots=True)
class Interface:
    """What is used of coremltools and of Xcode. `products` gives device identifier → product type (`iPhone13,2`);
    `wake` has devicectl talk to a device, which brings up the connection that coremltools asks for."""

    device: Any
    device_type: Any
    credentials: Any
    benchmarker: Any
    model: Any
    ct: Any
    products: Callable[[], Mapping[str, str]]
    wake: Callable[[str], None]


def interface() -> Interface:
    """The interface on this Mac. Raises UnavailableError anywhere else, and where Xcode or coremltools is missing."""
    if platform.system() != "Darwin":
        raise UnavailableError(f"an iPhone is measured from a Mac with Xcode: this host runs {platform.system()}")
    for tool in ("xcrun", "xcodebuild"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"an iPhone is measured from a Mac with Xcode: {tool} is not here; install Xcode")
    try:
        return coremltools_interface(_products, _wake)
    except ImportError as error:
        raise UnavailableError(
            f"an iPhone is measured through coremltools: {error}; {RUNTIMES['coreml'].cure}"
        ) from error


def coremltools_interface(products: Callable[[], Mapping[str, str]], wake: Callable[[str], None]) -> Interface:
    """The names of the installed coremltools, on any system. Raises ImportError."""
    with quiet():
        import coremltools as ct
        from coremltools.models.ml_program.experimental import perf_utils, remote_device
    return Interface(
        device=remote_device.Device,
        device_type=remote_device.DeviceType,
        credentials=remote_device.AppSigningCredentials,
        benchmarker=perf_utils.MLModelBenchmarker,
        model=ct.models.MLModel,
        ct=ct,
        products=products,
        wake=wake,
    )


def said(error: BaseException, limit: int = 300) -> str:
    """What coremltools' exception says, in one line. It hands on the tool's stderr as bytes, and drops xcodebuild's
    output, which its cause still has."""
    message = getattr(error, "message", None) or getattr(error.__context__, "output", None) or str(error)
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    if isinstance(error, AttributeError):
        text = f"no answer came ({text})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines
    text = " ".join(telling) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _products() -> Mapping[str, str]:
    """Identifier → product type of every device that devicectl lists; coremltools does not hand on the type."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "devices.json"
        command = ["xcrun", "devicectl", "list", "devices", "--json-output", str(answer)]
        subprocess.run(command, check=True, capture_output=True, timeout=_LIST_S)
        return products_in(json.loads(answer.read_text(encoding="utf-8")))


def products_in(answer: Any) -> Mapping[str, str]:
    """The product types in devicectl's JSON list of devices. Raises ValueError where it is none."""
    try:
        devices = answer["result"]["devices"]
        return {device["identifier"]: device["hardwareProperties"].get("productType", "") for device in devices}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"devicectl's list of devices lacks {error}") from error


def _wake(identifier: str) -> None:
    command = ["xcrun", "devicectl", "device", "info", "details", "--device", identifier]
    subprocess.run(command, check=False, capture_output=True, timeout=_LIST_S)
