"""`vitscope export`: networks as the files of runtimes, each run beside PyTorch before it is called done."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.options import AllowPlugins, AsJson, Batch, Force, Form, Input, Kwargs, Resolution, Set
from vitscope.errors import UnavailableError, UsageError, nearest

if TYPE_CHECKING:
    from vitscope.export.artifact import Artifact, Precision
    from vitscope.report.exports import Exported
    from vitscope.subject import Subject


class PrecisionChoice(str, Enum):
    """The type of weights and activations."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Spec files, names of the zoo, timm:NAME, torchvision:NAME, package.module:callable (runs code).",
        ),
    ],
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="FORMAT,…",
            help="coreml, onnx, litert, executorch, executorch-coreml or torch (repeatable).",
        ),
    ],
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option("--precision", help="Weights and activations. Without it fp32, and fp16 for Core ML."),
    ] = None,
    form: Annotated[Form, typer.Option("--form", help="Fused for deployment, or as trained.")] = Form.deploy,
    batch: Batch = 1,
    resolution: Resolution = None,
    input_size: Input = None,
    settings: Set = None,
    kwargs: Kwargs = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="FILE", help="Checkpoint of timm or the authors; without it random."),
    ] = None,
    allow_plugins: AllowPlugins = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Run each file in its runtime here and compare with PyTorch.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE|DIR", help="The file, or the folder of several; else this folder."
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> int:
    """Export networks to the files that runtimes execute.

    Each file is run in its runtime, where that is installed, and compared with PyTorch on noise. Exit code 1 when a
    network has no such form or a file computes something else, 3 when a format's tools are missing.

    \b
    vitscope export efficientformerv2_s1 --to onnx,litert --precision fp16 -o exported/
    """
    import json
    import sys

    from vitscope.cli.output import show
    from vitscope.export import RefusedError
    from vitscope.report.exports import Exported, exports_json, exports_table
    from vitscope.sources import parse_input, parse_kwargs
    from vitscope.subject import load_subject

    formats = _formats(to, precision)
    size, named = _size(resolution), parse_kwargs(kwargs)
    marks = _marks(form, batch, size)
    labels = [_label(model, settings or [], size, allow_plugins) for model in models]
    files = _files(labels, formats, marks, output, force)
    rows: list[Exported] = []
    missing = refused = False
    for model, label in zip(models, labels, strict=True):
        _say(f"building {label}")
        subject = load_subject(
            model, form=form.value, overrides=settings or (), resolution=size, batch=batch, weights=weights,
            input_size=parse_input(input_size), kwargs=named, allow_plugins=allow_plugins,
        )  # fmt: skip
        for format, kind in formats:
            _say(f"writing {files[label, format]}")
            try:
                rows.append(_written(subject, format, kind, files[label, format], force, check))
                refused |= rows[-1].is_wrong
                continue
            except RefusedError as error:
                refused, reason = True, str(error)
            except UnavailableError as error:
                missing, reason = True, str(error)
            print(f"{format}: {reason}", file=sys.stderr)
            rows.append(Exported(model=subject.name, format=format, precision=kind, error=reason))
    if as_json:
        sys.stdout.write(json.dumps(exports_json(rows), indent=2, ensure_ascii=False) + "\n")
    else:
        show(exports_table(rows))
    return 3 if missing else 1 if refused else 0


def _formats(asked: list[str], precision: PrecisionChoice | None) -> list[tuple[str, Precision]]:
    """Each format asked for, once, with its precision. Raises UsageError."""
    from vitscope.export import FORMATS

    names = list(dict.fromkeys(name.strip() for text in asked for name in text.split(",") if name.strip()))
    if not names:
        raise UsageError(f"--to: no format given; formats: {', '.join(FORMATS)}")
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--to {name}: no such format{nearest(name, FORMATS)}; formats: {', '.join(FORMATS)}")
        if precision is not None and precision.value not in FORMATS[name].precisions:
            raise UsageError(
                f"--precision {precision.value}: {FORMATS[name].title} is written in "
                f"{', '.join(FORMATS[name].precisions)}"
            )
    return [(name, precision.value if precision else FORMATS[name].precisions[0]) for name in names]


def _size(resolution: str | None) -> tuple[int, int] | None:
    from vitscope.cli.options import parse_resolution

    return parse_resolution(resolution)


def _label(model: str, settings: list[str], size: tuple[int, int] | None, allow_plugins: bool) -> str:
    """The name that the model's files get, known before anything is built. Raises SpecError or UsageError."""
    from vitscope.sources import source_of
    from vitscope.spec import load_spec

    name = model if source_of(model) else load_spec(model, settings, resolution=size, allow_plugins=allow_plugins).name
    return " ".join((name, *settings))


def _marks(form: Form, batch: int, size: tuple[int, int] | None) -> tuple[str, ...]:
    """What a file's name says beside the model: only what differs from the usual."""
    return (
        *((f"{size[0]}x{size[1]}",) if size else ()),
        *((f"b{batch}",) if batch > 1 else ()),
        *(("train",) if form is Form.train else ()),
    )


def _files(
    labels: list[str], formats: list[tuple[str, Precision]], marks: tuple[str, ...], output: Path | None, force: bool
) -> dict[tuple[str, str], Path]:
    """(model, format) → the file to write, each of which may be written. Raises UsageError."""
    import re

    from vitscope.cli.output import STDOUT
    from vitscope.export import FORMATS

    if output == STDOUT:
        raise UsageError("-o -: an exported file does not go to stdout; name a file or a folder")
    if len(set(labels)) < len(labels):
        raise UsageError("the same model twice")
    several = len(labels) * len(formats) > 1
    suffixes = {FORMATS[format].suffix for format, _ in formats}
    is_file = output is not None and output.suffix in {kind.suffix for kind in FORMATS.values()}
    if output is not None and is_file and not (output.is_dir() and output.suffix != ".mlpackage"):
        if several:
            raise UsageError(f"-o {output}: {len(labels) * len(formats)} files are asked for; name a folder")
        if output.suffix not in suffixes:
            raise UsageError(f"-o {output}: a file of {formats[0][0]} ends in {suffixes.pop()}")
        if not output.parent.is_dir():
            raise UsageError(f"-o {output}: the folder {output.parent} does not exist")
        files = {(labels[0], formats[0][0]): output}
    else:
        folder = output or Path()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"-o {folder}: is a file, expected a folder or one of {', '.join(sorted(suffixes))}")
        if not folder.exists() and not folder.parent.is_dir():
            raise UsageError(f"-o {folder}: the folder {folder.parent} does not exist")
        files = {}
        for label in labels:
            stem = re.sub(r"[^\w.=-]+", "_", label).strip("_")
            for format, precision in formats:
                words = (stem, *marks, precision, *(("coreml",) if format == "executorch-coreml" else ()))
                files[label, format] = folder / ("_".join(words) + FORMATS[format].suffix)
        if len(set(files.values())) < len(files):
            raise UsageError("two models get the same file name; export them one by one with -o FILE")
    for path in files.values():
        _check_free(path, force)
    return files


def _check_free(path: Path, force: bool) -> None:
    import os

    if path.exists() and not force:
        raise UsageError(f"{path}: already exists, will not overwrite without --force")
    folder = path.parent if path.parent.exists() else path.parent.absolute().parent  # which `_written` makes
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: cannot write in the folder {folder}")


def _written(subject: Subject, format: str, precision: Precision, path: Path, force: bool, check: bool) -> Exported:
    """Export and check in a folder beside `path`, then move there: a file under its name is whole."""
    import shutil
    import tempfile
    from dataclasses import replace

    from vitscope.export import export as export_to
    from vitscope.export.agreement import agreements
    from vitscope.export.interrupt import after_the_converter
    from vitscope.export.silence import silenced
    from vitscope.report.exports import Exported

    try:
        path.parent.mkdir(exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".vitscope-"))
        try:
            with after_the_converter(), silenced():  # also what the tools print when they are imported
                artifact = export_to(subject, format, aside / path.name, precision)
                found = agreements(subject, artifact) if check else ()
            _check_free(path, force)
            _move(artifact, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot write: {error.strerror or error}") from error
    return Exported(
        model=subject.name, format=format, precision=precision, artifact=replace(artifact, path=path), agreements=found
    )


def _move(artifact: Artifact, path: Path) -> None:
    """Give the file, and what lies beside it, its place; a folder that stands there already goes first."""
    import os

    for part in sorted(artifact.path.parent.iterdir(), key=lambda part: part == artifact.path):
        place = path.parent / part.name
        if place.is_dir() and not place.is_symlink():
            os.rename(place, artifact.path.parent / f"{part.name}.old")
        os.replace(part, place)


def _say(text: str) -> None:
    """Progress, for a person who waits."""
    import sys

    if sys.stderr.isatty():
        print(text, file=sys.stderr)
