"""block_graph: the trace of a block, from memory, from disk, or made now. Only the last of these imports torch.

A block's trace depends on the block's grammar value, its input shape, the form and the batch, and on nothing else but
vitscope's own block code and the version of torch: these make the key. One small file a block, written atomically, so
that processes share the store without locks; a damaged, foreign or stale file is traced anew, never trusted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from vitscope.graph.record import Graph, OpRecord, Param, Tensor
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.shape import Feature, features

Form = Literal["train", "deploy"]

_ENVIRONMENT = "VITSCOPE_CACHE"  # a folder, or `off`
_PACKAGE = Path(__file__).parent.parent
_TRACED_CODE = ("blocks/*.py", "graph/*.py", "spec/kinds/*.py", "spec/grammar.py", "spec/shape.py", "model.py")
_KEEP_S = 30 * 24 * 3600  # traces of other code or torch versions are dropped after a month


@lru_cache(maxsize=1 << 16)
def block_graph(block: BlockSpec, in_shape: Feature, form: Form = "train", batch: int = 1) -> Graph:
    """The Graph of `block` for an input of `in_shape`, with scopes and parameter names relative to the block."""
    path = _file(block, in_shape, form, batch)
    if path is not None:
        graph = _read(path)
        if graph is not None:
            return _only(graph)
    graph = trace_block(block, in_shape, form, batch)
    if path is not None:
        _write(path, graph)
    return _only(graph)


@lru_cache(maxsize=1 << 16)
def _only(graph: Graph) -> Graph:
    """The first graph that equals `graph`: a block that is asked for with its batch and without is one object, which a
    memo of graphs finds at once. Two that are equal it would compare record by record, for every block of every candidate."""
    return graph


def trace_block(block: BlockSpec, in_shape: Feature, form: Form, batch: int) -> Graph:
    """Build the block on the meta device and trace it; in deploy form, fused first."""
    import torch

    from vitscope.blocks import build_block
    from vitscope.graph.trace import trace
    from vitscope.model import fuse_in_place

    with torch.device("meta"):
        module = build_block(block, in_shape).eval()
        if form == "deploy":
            fuse_in_place(module)
        return trace(module, *(torch.empty(shape.tensor(batch)) for shape in features(in_shape)))


def store_folder() -> Path | None:
    """Where traces are kept, or None when the user turned the store off (`VITSCOPE_CACHE=off`) or has no home."""
    chosen = os.environ.get(_ENVIRONMENT, "")
    if chosen.lower() in ("off", "0", "none"):
        return None
    if chosen:
        return Path(chosen) / "traces"
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "vitscope" / "traces"


@lru_cache(maxsize=1)
def _version() -> str:
    """A digest of the code that traces depend on and of torch's version, found without importing torch."""
    digest = hashlib.blake2b(digest_size=12)
    for pattern in _TRACED_CODE:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
    digest.update(_torch_version().encode())
    return digest.hexdigest()


def _torch_version() -> str:
    if "torch" in sys.modules:
        return str(sys.modules["torch"].__version__)
    found = importlib.util.find_spec("torch")
    if found is None or not found.origin:
        return "none"
    try:
        text = Path(found.origin).with_name("version.py").read_text()
    except OSError:
        return "unknown"
    match = re.search(r"__version__ = '([^']+)'", text)
    return match[1] if match else "unknown"


@lru_cache(maxsize=64)
def _source_digest(kind: type[BlockSpec]) -> str:
    """The fingerprint of the file that defines a plugin's kind; vitscope's own kinds are covered by `_version`."""
    if kind.__module__.startswith("vitscope."):
        return ""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=12).hexdigest() if file else "unknown"


def _file(block: BlockSpec, in_shape: Feature, form: Form, batch: int) -> Path | None:
    folder = store_folder()
    if folder is None:
        return None
    kind = type(block)
    key = repr((kind.__module__, kind.__qualname__, repr(block), repr(in_shape), form, batch, _source_digest(kind)))
    return folder / _version() / (hashlib.blake2b(key.encode(), digest_size=16).hexdigest() + ".json")


def _read(path: Path) -> Graph | None:
    """The graph in `path`, or None when there is none or it is not exactly what `_write` wrote."""
    try:
        checksum, _, payload = path.read_text(encoding="utf-8").partition("\n")
        if checksum != _checksum(payload):
            return None
        return decode(json.loads(payload))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _write(path: Path, graph: Graph) -> None:
    """Keep `graph` in `path`. The store only saves time: when it cannot be written, nothing is said."""
    payload = json.dumps(encode(graph), separators=(",", ":"))
    try:
        if not path.parent.is_dir():
            _drop_stale(path.parent.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_checksum(payload) + "\n" + payload)
        os.replace(temporary, path)
    except OSError:
        return


def _drop_stale(folder: Path) -> None:
    if folder.is_dir():
        for version in folder.iterdir():
            if version.is_dir() and time.time() - version.stat().st_mtime > _KEEP_S:
                shutil.rmtree(version, ignore_errors=True)


def _checksum(payload: str) -> str:
    return hashlib.blake2b(payload.encode(), digest_size=16).hexdigest()


def encode(graph: Graph) -> dict[str, Any]:
    """A graph as JSON values, compact: records become lists in the order of their fields."""
    return {
        "tensors": [[t.shape, t.dtype, t.kind, t.storage, t.name] for t in graph.tensors],
        "ops": [[o.op, o.scope, o.inputs, o.outputs, o.attrs, o.is_view] for o in graph.ops],
        "params": [[p.name, p.shape, p.dtype] for p in graph.params],
        "inputs": graph.inputs,
        "outputs": graph.outputs,
    }


def decode(data: dict[str, Any]) -> Graph:
    """The graph that `encode` wrote."""
    return Graph(
        tensors=tuple(Tensor(tuple(shape), *rest) for shape, *rest in data["tensors"]),
        ops=tuple(
            OpRecord(op, scope, tuple(reads), tuple(writes), tuple((k, _tupled(v)) for k, v in attrs), is_view)
            for op, scope, reads, writes, attrs, is_view in data["ops"]
        ),
        params=tuple(Param(name, tuple(shape), dtype) for name, shape, dtype in data["params"]),
        inputs=tuple(data["inputs"]),
        outputs=tuple(data["outputs"]),
    )


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
