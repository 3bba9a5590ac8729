"""cached(subject, format, precision): the Artifact of a network, from the cache folder or exported now.

One folder an export: the file, and `artifact.json` with what is known of it and a checksum of the file. A folder is made
aside and renamed, so that processes share the cache without locks; a damaged one is made anew. Its name is a digest of
all that the file depends on: the network with its values, the format, the tools' versions and vitscope's own code.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitscope.errors import UsageError, VitscopeError
from vitscope.export import FORMATS, export
from vitscope.export.artifact import Artifact, Precision
from vitscope.graph.store import store_folder

if TYPE_CHECKING:
    from vitscope.subject import Subject

MODULE = "module"  # a pickled nn.Module: no format of `export`, for this host alone

_LIMIT = "VITSCOPE_CACHE_LIMIT"  # bytes
_LIMIT_BYTES = 4_000_000_000
_STALE_S = 3600  # what a process that was killed left half done
_PACKAGE = Path(__file__).parent.parent
_CODE = ("blocks/*.py", "graph/*.py", "spec/kinds/*.py", "export/*.py", "sources/*.py", "weights/*.py", "model.py",
         "subject.py")  # fmt: skip
_SIDECAR = "artifact.json"
_USERS = ".using-"  # a file a process, locked while it lives, with the names of the exports that it may run yet
_in_use: set[Path] = set()  # by this process: never removed to make room
_TOOLS = {
    "coreml": ("coremltools",),
    "onnx": ("onnx", "onnxscript", "onnx-ir", "onnxruntime"),
    "litert": ("litert-torch", "ai-edge-quantizer"),
    "executorch": ("executorch", "torchao"),
    "executorch-coreml": ("executorch", "coremltools"),
}


def cached(subject: Subject, format: str, precision: Precision) -> Artifact:
    """The Artifact of `subject`, kept for the next time. Raises what `export` raises, and UsageError on a full disk."""
    return recalled(_identity(subject), format, precision, lambda: subject)


def recalled(
    identity: Mapping[str, object], format: str, precision: Precision, make: Callable[[], Subject]
) -> Artifact:
    """As `cached`, of the network that `make` builds only where its file is not there: then no torch is imported.

    `identity` is what the network depends on, as the caller knows it: equal for equal networks with equal values.
    """
    text = json.dumps(
        {"network": {k: str(v) for k, v in identity.items()}, "format": format, "precision": precision,
         "tools": _versions(format), "code": _code()},
        sort_keys=True,
    )  # fmt: skip
    folder = _folder() / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    found = _read(folder)
    if found is not None:
        return found
    return _keep(make(), format, precision, folder)


def _identity(subject: Subject) -> dict[str, object]:
    """What tells the file of `subject` from another: its values and the code of its classes, beside its name and shape."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(subject.module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(_byte()).numpy().data)
    names = {type(module).__module__ for module in subject.module.modules()}
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not name.startswith(("torch.", "vitscope.")):
            digest.update(name.encode() + Path(file).read_bytes())
    return {
        "name": subject.name, "digest": subject.digest, "form": subject.form, "input_shape": subject.input_shape,
        "weights": subject.weights, "values": digest.hexdigest(), "module": repr(subject.module),
    }  # fmt: skip


def _byte() -> Any:
    import torch

    return torch.uint8


def _versions(format: str) -> dict[str, str]:
    names = ("torch", *_TOOLS.get(format, ()))
    return {name: _version(name) for name in names}


@functools.lru_cache(maxsize=64)
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.blake2b(digest_size=12)
    for pattern in _CODE:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _folder() -> Path:
    """Beside the traces; a folder of this process, removed at its end, where the user turned the cache off."""
    store = store_folder()
    if store is not None:
        folder = store.parent / "exports"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
        except OSError:
            pass
    return _own_folder()


@functools.lru_cache(maxsize=1)
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="vitscope-exports-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _keep(subject: Subject, format: str, precision: Precision, folder: Path) -> Artifact:
    """Export into a folder aside and rename it to `folder`; where another process was first, its file serves."""
    try:
        _evict(folder.parent)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        try:
            made = written(subject, format, precision, aside)
            (aside / _SIDECAR).write_text(_sidecar(made), encoding="utf-8")
            if _read(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                try:
                    os.rename(aside, folder)
                except OSError:
                    if _read(folder) is None:
                        raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        found = _read(folder)
        if found is None:
            raise UsageError(
                f"{folder}: what was written there cannot be read back; another process may have removed it"
            )
        _evict(folder.parent)
        return found
    except VitscopeError:
        raise
    except OSError as error:
        raise UsageError(
            f"{folder.parent}: the exported file cannot be kept there: {error.strerror or error} "
            "(VITSCOPE_CACHE names another folder)"
        ) from error


def written(subject: Subject, format: str, precision: Precision, folder: Path) -> Artifact:
    """`subject` as a file in `folder`, whatever lies there: a format of `export`, or MODULE. Raises what `export` raises."""
    if format != MODULE:
        suffix = FORMATS[format].suffix if format in FORMATS else ""
        return export(subject, format, folder / f"model{suffix}", precision)
    from vitscope.export.torch import write_module

    path = folder / "model.pt"
    written = write_module(subject, path, precision)
    return Artifact(
        path=path, format=MODULE, model=subject.name, digest=subject.digest, form=subject.form, precision=precision,
        input_shape=subject.input_shape, blocks=subject.blocks, weights=subject.weights, tools=written.tools,
        scopes=dict(written.scopes), notes=written.notes,
    )  # fmt: skip


def _sidecar(artifact: Artifact) -> str:
    data = {f.name: getattr(artifact, f.name) for f in fields(artifact)} | {"path": artifact.path.name}
    payload = json.dumps(data, separators=(",", ":"))
    return f"{_checksum(artifact.path.parent, payload)}\n{payload}"


def _read(folder: Path) -> Artifact | None:
    """The Artifact in `folder`, or None when there is none or it is not exactly what `_keep` wrote. Marks it as used."""
    try:
        checksum, _, payload = (folder / _SIDECAR).read_text(encoding="utf-8").partition("\n")
        if checksum != _checksum(folder, payload):
            return None
        data = json.loads(payload)
        for name in ("input_shape", "blocks", "notes"):
            data[name] = tuple(data[name])
        artifact = Artifact(**{**data, "path": folder / data["path"]})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / _SIDECAR)
    _use(folder)
    return artifact


def _use(folder: Path) -> None:
    """Keep `folder` from being removed to make room, by this process and by others, until this process ends."""
    if folder in _in_use:
        return
    _in_use.add(folder)
    with contextlib.suppress(OSError):  # a folder that can be read only; then none but its owner makes room in it
        file = _list_of_users(folder.parent, os.getpid())
        if file is not None:
            os.write(file, f"{folder.name}\n".encode())


@functools.lru_cache(maxsize=8)
def _list_of_users(root: Path, process: int) -> int | None:
    """A locked file in `root` for this process (a fork has its own), removed at its end; None where nothing locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file, name = tempfile.mkstemp(dir=root, prefix=f"{_USERS}{process}-")
    fcntl.flock(file, fcntl.LOCK_EX)
    atexit.register(Path(name).unlink, missing_ok=True)
    return file


def _used_by_others(root: Path) -> set[str]:
    """The names that living processes keep. A list that nobody locks belongs to a process that was killed: it goes."""
    try:
        import fcntl
    except ImportError:
        return set()
    names: set[str] = set()
    for path in root.glob(f"{_USERS}*"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                names.update(file.read().split())
            else:
                if time.time() - path.stat().st_mtime > 1:  # one just made is locked in a moment
                    path.unlink(missing_ok=True)
    return names


def _checksum(folder: Path, payload: str) -> str:
    """Of the sidecar and of every other file in `folder`, by content."""
    digest = hashlib.blake2b(payload.encode(), digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SIDECAR):
        digest.update(str(path.relative_to(folder)).encode())
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def limit_bytes() -> int:
    """How large the cache may grow: `VITSCOPE_CACHE_LIMIT` in bytes, or 4 GB. Raises UsageError."""
    text = os.environ.get(_LIMIT, "")
    if not text:
        return _LIMIT_BYTES
    if not text.isdecimal():
        raise UsageError(f"{_LIMIT}={text}: expected a number of bytes")
    return int(text)


def _evict(root: Path) -> None:
    """Remove what is half done since an hour, then the exports longest unused until the rest fits the limit."""
    limit, total, kept = limit_bytes(), 0, []
    for folder in root.iterdir():
        try:
            if folder.name.startswith(_USERS):
                continue
            if folder.name.startswith("."):
                if time.time() - folder.stat().st_mtime > _STALE_S:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            used = (folder / _SIDECAR).stat().st_mtime
        except OSError:
            continue  # another process removes it just now
        total += size
        kept.append((used, size, folder))
    if total <= limit:
        return
    others = _used_by_others(root)
    for _, size, folder in sorted(kept):
        if total <= limit:
            break
        if folder not in _in_use and folder.name not in others:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
