"""Networks that are no specs: what a name such as `timm:resnet50` refers to, read from the command line. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitscope.errors import UsageError

Kind = Literal["timm", "torchvision", "python", "onnx"]

_PYTHON = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_EXPORTED = (".tflite", ".pte", ".pt2", ".mlpackage")
_WORDS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a network comes from: `text` as typed, `name` of it without its prefix (a path for ONNX)."""

    kind: Kind
    name: str
    text: str


def source_of(model: str) -> Source | None:
    """What `model` refers to, or None when it is a spec file, a name of the zoo, or anything else.

    `timm:NAME`, `torchvision:NAME`, `package.module:callable`, or a file `*.onnx`. Raises UsageError for the files of
    other formats, in which nothing here can count.
    """
    prefix, colon, rest = model.partition(":")
    if colon and prefix in ("timm", "torchvision"):
        if not rest:
            raise UsageError(f"{model}: expected a name after the colon, as {prefix}:resnet50")
        return Source("timm" if prefix == "timm" else "torchvision", rest, model)
    if model.lower().endswith(".onnx"):
        return Source("onnx", model, model)
    if model.lower().rstrip("/").endswith(_EXPORTED):
        raise UsageError(
            f"{model}: an exported file is timed (vitscope measure), not read as a network; of such only .onnx is"
        )
    if _PYTHON.fullmatch(model) and not Path(model).exists():
        return Source("python", model, model)
    return None


def parse_input(text: str | None) -> tuple[int, int, int] | None:
    """`3,224,224` (channels, height, width) as integers. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([1-9]\d{0,4})\s*,\s*([1-9]\d{0,4})\s*,\s*([1-9]\d{0,4})\s*", text)
    if not match:
        raise UsageError(f"--input {text}: expected channels, height, width, as 3,224,224")
    return int(match[1]), int(match[2]), int(match[3])


def parse_kwargs(text: str | None) -> dict[str, Any]:
    """`key=value,key=value`, values read as JSON where they are JSON, or one JSON object. Raises UsageError."""
    if text is None or not text.strip():
        return {}
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise UsageError(f"--kwargs {text}: not JSON: {error}") from None
    found: dict[str, Any] = {}
    for item in _items(text):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key.isidentifier():
            raise UsageError(
                f"--kwargs {text}: {item.strip()!r} is not key=value; as num_classes=10,drop_path_rate=0.1"
            )
        if key in found:
            raise UsageError(f"--kwargs {text}: {key} twice")
        found[key] = _value(value)
    return found


def _items(text: str) -> list[str]:
    """`text` cut at the commas that stand in no bracket and no quotes."""
    items, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        if letter == "," and not depth and not quote:
            items.append("")
        else:
            items[-1] += letter
    return items


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        return text
