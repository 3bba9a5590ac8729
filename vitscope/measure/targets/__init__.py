"""Where a file can be executed and timed: this host, a machine behind ssh, an Android device, an iPhone. One file each."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from vitscope.errors import UsageError, nearest
from vitscope.measure.channel import Target

FORMS = "host, mac, ssh:USER@HOST[:PORT], adb[:SERIAL], iphone[:NAME]"

# The class of each kind. What stands after the colon is its first argument; `host` and `mac` have none.
_CLASSES: Mapping[str, tuple[str, str]] = {
    "host": ("vitscope.measure.targets.host", "HostTarget"),
    "mac": ("vitscope.measure.targets.host", "MacTarget"),
    "ssh": ("vitscope.measure.targets.ssh", "SshTarget"),
    "adb": ("vitscope.measure.targets.adb", "AdbTarget"),
    "iphone": ("vitscope.measure.targets.iphone", "IPhoneTarget"),
}


def parse_target(text: str, **options: Any) -> Target:
    """The Target that `text` names (FORMS). `options` are keyword arguments of its class; None counts as not given.

    Raises UsageError for what names no target and for an option that the target does not take, and what the target
    itself raises when it cannot be there (a `mac` that is none).
    """
    kind, colon, place = text.partition(":")
    if kind not in _CLASSES:
        raise UsageError(f"--target {text}: no such target{nearest(kind, _CLASSES)}; targets: {FORMS}")
    if kind in ("host", "mac") and colon:
        raise UsageError(f"--target {text}: {kind} takes no address")
    if kind == "ssh" and not place:
        raise UsageError(f"--target {text}: expected ssh:USER@HOST or ssh:USER@HOST:PORT")
    if colon and not place:
        raise UsageError(f"--target {text}: nothing stands after the colon; targets: {FORMS}")
    module, name = _CLASSES[kind]
    make = getattr(importlib.import_module(module), name)
    given = {key: value for key, value in options.items() if value is not None}
    takes = inspect.signature(make).parameters
    for key in given:
        if key not in takes:
            raise UsageError(f"--{key.replace('_', '-')} does not apply to --target {text}")
    if kind in ("host", "mac") or not place:
        return make(**given)
    return make(place, **given)
