"""export(subject, format, path): a network as the file of a runtime. One adapter a format, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from vitscope.errors import UnavailableError, UsageError, nearest
from vitscope.export.artifact import Artifact, Precision

if TYPE_CHECKING:
    from vitscope.subject import Subject


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: the module that writes it, the suffix, what it can hold (the usual precision first), the extra."""

    name: str
    adapter: str
    suffix: str
    precisions: tuple[Precision, ...]
    extra: str
    title: str


_ALL: tuple[Precision, ...] = ("fp32", "fp16", "int8")

FORMATS: Mapping[str, Format] = {
    format.name: format
    for format in (
        Format("coreml", "vitscope.export.coreml", ".mlpackage", ("fp16", "fp32", "int8"), "coreml", "Core ML program"),
        Format("onnx", "vitscope.export.onnx", ".onnx", _ALL, "onnx", "ONNX"),
        Format("litert", "vitscope.export.litert", ".tflite", _ALL, "litert", "LiteRT"),
        Format("executorch", "vitscope.export.executorch", ".pte", _ALL, "executorch", "ExecuTorch, XNNPACK"),
        Format(
            "executorch-coreml", "vitscope.export.executorch_coreml", ".pte", ("fp16", "fp32"), "executorch",
            "ExecuTorch, Core ML delegate",
        ),
        Format("torch", "vitscope.export.torch", ".pt2", ("fp32", "fp16"), "", "torch.export program"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """What an adapter says of the file it wrote. `scopes` as in Artifact."""

    tools: str
    scopes: Mapping[str, str]
    notes: tuple[str, ...] = ()


class Adapter(Protocol):
    """A module of this package that writes one format."""

    def write(self, subject: Subject, path: Path, precision: Precision) -> Written:
        """Write `subject` to `path`, which does not exist yet.

        Raises ImportError when the format's tools are missing, RefusedError when they cannot express the network.
        """
        ...


class RefusedError(UsageError):
    """A network that a format cannot hold, with the reason in one line (exit code 1 where others were written)."""


def export(subject: Subject, format: str, path: Path, precision: Precision = "fp32") -> Artifact:
    """Write `subject` to `path` as `format`.

    Raises UsageError for an unknown format or precision, UnavailableError when the format's tools are not installed,
    RefusedError when they refuse the network.
    """
    known = FORMATS.get(format)
    if known is None:
        raise UsageError(f"--to {format}: no such format{nearest(format, FORMATS)}; formats: {', '.join(FORMATS)}")
    if precision not in known.precisions:
        raise UsageError(f"--precision {precision}: {known.title} is written in {', '.join(known.precisions)}")
    try:
        adapter = cast(Adapter, importlib.import_module(known.adapter))
        written = adapter.write(subject, path, precision)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "vitscope":
            raise  # our own fault, which no package cures
        cure = f'pip install "vitscope[{known.extra}]"' if known.extra else "a complete install of torch"
        raise UnavailableError(f"{known.title} cannot be written: {error} ({cure})") from error
    return Artifact(
        path=path, format=format, model=subject.name, digest=subject.digest, form=subject.form, precision=precision,
        input_shape=subject.input_shape, blocks=subject.blocks, weights=subject.weights, tools=written.tools,
        scopes=dict(written.scopes), notes=written.notes,
    )  # fmt: skip
