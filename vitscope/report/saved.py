"""Profiles saved by `vitscope profile -o FILE.json`, read back to be compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vitscope.errors import UsageError
from vitscope.report.profile import SCHEMA_VERSION
from vitscope.spec import Spec, parse_spec


def saved_specs(
    path: str, overrides: Sequence[str] = (), resolution: tuple[int, int] | None = None
) -> list[tuple[str, Spec]]:
    """Name and spec of every model in a saved profile. Raises UsageError when the file is none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("models"), list):
        raise UsageError(f"{path}: not a saved profile (no models); write one with `vitscope profile MODEL -o {path}`")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema_version {data.get('schema_version')!r}, this vitscope reads {SCHEMA_VERSION}: profile again"
        )
    found = []
    for i, model in enumerate(data["models"]):
        document = model.get("spec") if isinstance(model, dict) else None
        if not isinstance(document, dict):
            raise UsageError(f"{path}: models[{i}] holds no spec: name the network itself, or profile it again")
        if resolution is not None and isinstance(document.get("input"), list):
            document["input"][1:] = resolution
        spec = parse_spec(json.dumps(document), f"{path} models[{i}]", overrides)
        found.append((str(model.get("name", spec.name)) + "".join(f" {setting}" for setting in overrides), spec))
    if not found:
        print(f"{path}: holds no model", file=sys.stderr)
    return found
