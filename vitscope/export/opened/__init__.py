"""opened(path): an exported file of anybody's as an Artifact, from what the format's own tool reads in it.

The file is measured as it is: its input, its precision and its bytes are its own. Where its names lead back to modules
(torch's exporters, litert-torch and Keras write such), its time is told by these; else by the names of its operations.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from vitscope.errors import UnavailableError, UsageError, VitscopeError, nearest
from vitscope.export import FORMATS
from vitscope.export.artifact import Artifact, Precision
from vitscope.export.program import one_line
from vitscope.export.silence import silenced
from vitscope.sources.network import parts_of

# The first format of a suffix: which of ExecuTorch's delegates a .pte holds is for its runtime to find.
FORMAT_OF_SUFFIX: Mapping[str, str] = {format.suffix: format.name for format in reversed([*FORMATS.values()])}
_PRECISIONS: Mapping[str, Precision] = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8"}
UNKNOWN = "unknown"  # the type of weights that only the runtime can read
_CHANNELS = (1, 2, 3, 4)  # of an image; a side of so few pixels is none


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a file. `shape` as the file has it, None for a side that it leaves open; `dtype` in numpy's words."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {shape_text(self.shape)} of {self.dtype}"


@dataclass(frozen=True, slots=True)
class FileOp:
    """An operation of a file: its names there, and the module path that they tell, None where they tell none."""

    names: tuple[str, ...]
    scope: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file says of itself. `weights` are numbers of elements by type, `beside` the files that it needs as well."""

    inputs: tuple[Input, ...]
    weights: Mapping[str, int]
    ops: tuple[FileOp, ...] = ()
    tools: str = ""
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())


def format_of(model: str) -> str | None:
    """The key of FORMATS whose files end as `model` does; None for what names no exported file."""
    return FORMAT_OF_SUFFIX.get(Path(model.rstrip("/")).suffix.lower())


def opened(
    model: str,
    *,
    resolution: tuple[int, int] | None = None,
    batch: int = 1,
    input_size: tuple[int, int, int] | None = None,
    precisions: Sequence[Precision] | None = None,
    target: str = "host",
) -> Artifact:
    """The file that `model` names, for an input of `batch` × `input_size` (C, H, W) or `resolution` (H, W) where it leaves
    these open.

    `precisions` are those asked for: a file whose own cannot be read takes the one that is. `target` is where it is to
    run, as `--target` names it. Raises UsageError for what cannot be read, takes no image, is of another size or precision
    than asked for, or cannot be brought to `target`; UnavailableError where the format's tool is missing.
    """
    path = Path(model)
    format = format_of(model)
    assert format is not None, f"{model} names no exported file"
    found, digest = _read(path, format, _stamp(path))
    given = _image(model, found)
    shape = _filled(model, given, resolution, batch, input_size)
    _check_target(model, found, given, target)
    scopes, blocks = told_by(found.ops)
    return Artifact(
        path=path, format=format, model=model, digest=digest, form="exported",
        precision=_precision(model, found, precisions), input_shape=shape, blocks=blocks, weights="as in the file",
        tools=found.tools, scopes=scopes, notes=found.notes,
    )  # fmt: skip


def told_by(ops: Sequence[FileOp]) -> tuple[dict[str, str], tuple[str, ...]]:
    """(names → what their time is told by, the blocks of it): module paths, or, where these tell no two parts apart, the
    operations' own first names."""
    paths = [op.scope.split(".") for op in ops if op.scope]
    common = 0
    if paths:
        shortest, longest = min(paths), max(paths)  # what these two share is shared by all between
        same = (a == b for a, b in zip(shortest, longest, strict=False))
        common = next((place for place, equal in enumerate(same) if not equal), min(len(shortest), len(longest)))
    parts = parts_of([".".join(words[common:]) for words in paths], 2)
    found = [".".join(filter(None, (*words[:common], part))) for words, part in zip(paths, parts, strict=True)]
    holders = {path for path in found if any(other.startswith(f"{path}.") for other in found)}
    blocks = tuple(  # what stands in `stages.1` beside its blocks is told by its own name: `stages.1.downsample`
        dict.fromkeys(
            ".".join(words[: path.count(".") + 2]) if path in holders else path
            for path, words in zip(found, paths, strict=True)
        )
    )
    if len(blocks) > 1:
        return {name: op.scope for op in ops for name in op.names if op.scope is not None}, blocks
    titles = {name: op.names[0] for op in ops for name in op.names}
    return titles, tuple(dict.fromkeys(titles.values()))


def shape_text(shape: Sequence[int | None]) -> str:
    """`1×3×?×?`."""
    return "×".join("?" if side is None else str(side) for side in shape) or "a single value"


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when the file does. Raises UsageError where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error
        others = path.parent.glob(f"*{path.suffix}") if path.parent.is_dir() else ()
        raise UsageError(f"{path}: no such file{nearest(path.name, (other.name for other in others))}") from error
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _read(path: Path, format: str, stamp: tuple[int, int]) -> tuple[Contents, str]:
    """(what the file holds, digest of its bytes). Once a file, since it is opened for every size asked for."""
    title = FORMATS[format].title
    is_folder = format == "coreml"
    if path.is_dir() != is_folder:
        raise UsageError(
            f"{path}: is a {'file' if is_folder else 'folder'}; {title} has a {'folder' if is_folder else 'file'} here"
        )
    if not is_folder and not stamp[1]:
        raise UsageError(f"{path}: is empty, expected {title}")
    try:
        with silenced():
            read = cast(Callable[[Path], Contents], importlib.import_module(f"{__name__}.{format}").contents)
            found = read(path)
        return found, _digest(path, found.beside)
    except VitscopeError:
        raise
    except ImportError as error:
        if (error.name or "").startswith("vitscope"):
            raise  # a mistake of ours, which no package mends
        cure = FORMATS[format].extra
        raise UnavailableError(
            f"{path}: cannot be opened: {error}" + (f' (pip install "vitscope[{cure}]")' if cure else "")
        ) from error
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from error
    except Exception as error:  # each tool raises what it likes for bytes that are none of its own
        raise UsageError(f"{path}: cannot be read as {title}: {one_line(error, 120)}") from error


def _digest(path: Path, beside: Sequence[Path]) -> str:
    """Of every byte, and of the names inside a folder."""
    digest = hashlib.blake2b(digest_size=8)
    inner = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in (*inner, *beside):
        digest.update(b"" if file == path else file.name.encode())
        with file.open("rb") as content:
            while part := content.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def _image(model: str, found: Contents) -> Input:
    if len(found.inputs) != 1:
        named = "; ".join(map(str, found.inputs)) or "none"
        raise UsageError(
            f"{model}: has {len(found.inputs)} inputs ({named}): only files that take one image are measured"
        )
    (given,) = found.inputs
    if len(given.shape) != 4 or given.dtype not in _PRECISIONS:
        raise UsageError(
            f"{model}: its input is {given}: expected one image, (batch, channels, height, width) or "
            "(batch, height, width, channels), of float32, float16, uint8 or int8"
        )
    return given


def _filled(
    model: str,
    given: Input,
    resolution: tuple[int, int] | None,
    batch: int,
    input_size: tuple[int, int, int] | None,
) -> tuple[int, int, int, int]:
    """(B, C, H, W) of the file's input, its open sides as they are asked for."""
    first, *rest = given.shape
    last_is_channels = rest[2] in _CHANNELS and rest[0] not in _CHANNELS
    own = [rest[2], rest[0], rest[1]] if last_is_channels else rest
    channels, *sides = input_size or (None, None, None)
    asked = [channels, *(resolution or sides)]
    if batch > 1 and first not in (None, batch):
        raise UsageError(
            f"--batch {batch}: {model} takes {first} at once; its input {given.name} is {shape_text(given.shape)}"
        )
    for has, wants in zip(own, asked, strict=True):
        if None not in (has, wants) and has != wants:
            flag = f"--resolution {'x'.join(map(str, resolution))}" if resolution else "--input"
            raise UsageError(
                f"{flag}: {model} takes {shape_text(given.shape)} and nothing else; export it at the size that you want"
            )
    filled = [has if has is not None else wants for has, wants in zip(own, asked, strict=True)]
    channels, height, width = filled
    if channels is None or height is None or width is None:
        flag = "--input C,H,W" if channels is None else "--resolution N"
        raise UsageError(f"{model}: its input {given.name} is {shape_text(given.shape)}: say which with {flag}")
    return (batch if first is None else first, channels, height, width)


def _check_target(model: str, found: Contents, given: Input, target: str) -> None:
    """Raises UsageError for a file that its place could not execute as it is asked for."""
    kind = target.partition(":")[0]
    if found.beside and kind not in ("host", "mac"):
        raise UsageError(
            f"{model}: keeps weights in {found.beside[0].name}, and --target {target} takes one file: "
            "save it with its weights inside"
        )
    if kind == "adb" and None in given.shape:
        raise UsageError(
            f"{model}: its input {given.name} is {shape_text(given.shape)}, and the programs of an Android device choose "
            "sizes of their own for what is open: export it at one size"
        )


def _precision(model: str, found: Contents, asked: Sequence[Precision] | None) -> Precision:
    """The type of most weights; that of the input, where there are none. Raises UsageError."""
    known = Counter({dtype: count for dtype, count in found.weights.items() if count})
    dtype = known.most_common(1)[0][0] if known else found.inputs[0].dtype
    own = _PRECISIONS.get(dtype)
    if own is None and dtype == UNKNOWN:
        if asked is None or len(asked) != 1:
            raise UsageError(f"{model}: does not tell the type of its weights: say it with --precision")
        return asked[0]
    if own is None:
        raise UsageError(f"{model}: most of its weights are {dtype}; what is measured is fp32, fp16 or int8")
    if asked is not None and own not in asked:
        raise UsageError(f"--precision {','.join(asked)}: {model} is in {own}, as it was exported")
    return own
