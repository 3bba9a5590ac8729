"""attached(): which targets are here now, and what keeps the others from being used. Nothing is measured or installed."""

from __future__ import annotations

from dataclasses import dataclass

from vitscope.errors import VitscopeError


@dataclass(frozen=True, slots=True)
class Place:
    """A target as `--target` names it, what it is, and why it cannot be used now; `trouble` is empty where it can."""

    target: str
    about: str
    trouble: str = ""


def attached() -> list[Place]:
    """This host, every Android device that adb knows, and the iPhone, each with its trouble."""
    return [Place("host", "this machine"), *_android(), _iphone()]


def _android() -> list[Place]:
    from vitscope.measure.targets.adb_client import devices

    try:
        found = devices()
    except VitscopeError as error:
        return [Place("adb:SERIAL", "an Android device", str(error))]
    if not found:
        cure = "none is attached: plug one in, with USB debugging switched on"
        return [Place("adb:SERIAL", "an Android device", cure)]
    return [
        Place(f"adb:{device.serial}", device.about.get("model", "an Android device"), device.trouble or "")
        for device in found
    ]


def _iphone() -> Place:
    from vitscope.measure.targets.iphone import IPhoneTarget

    target = IPhoneTarget()
    try:
        answer = target.runtimes()["coreml"]
    finally:
        target.close()
    if isinstance(answer, VitscopeError):
        return Place("iphone", "an iPhone", str(answer).removeprefix("iphone: "))
    return Place("iphone", str(answer))
