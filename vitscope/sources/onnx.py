"""An ONNX file → Network, for counting: its nodes as our operations, with the shapes that ONNX infers. No torch."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Collection
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from vitscope.errors import UnavailableError, UsageError, nearest
from vitscope.graph.fold import fold_batch_norm
from vitscope.graph.record import Graph, OpRecord, Param, Shape, Tensor, TensorKind
from vitscope.sources.network import Network, Part, Pass, parts_of
from vitscope.sources.onnx_ops import CONSTANTS, NAMES, VIEWS

Size = tuple[int, int, int]
_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter writes the modules that a node stands in
_TOP = "top"  # what our own exporter writes for a node that stands in no module
_BUFFERS = {"BatchNormalization": (3, 4), "DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2)}


def load(path: str, *, size: Size | None, resolution: tuple[int, int] | None, batch: int) -> Network:
    """The Network of the file at `path`. Raises UsageError for a file that cannot be read, UnavailableError without onnx."""
    try:
        onnx: Any = importlib.import_module("onnx")
    except ModuleNotFoundError:
        raise UnavailableError(f'{path}: the onnx package is not installed: pip install "vitscope[onnx]"') from None
    model = _read(onnx, path)
    graph, known = _graph(onnx, model, path, size, resolution, 1)
    batched = graph if batch == 1 else _graph(onnx, model, path, size, resolution, batch)[0]
    train = Pass(graph, batched, _parts(graph, 1), _parts(graph, 99))
    folded = fold_batch_norm(graph)
    deploy = Pass(folded, folded if batched is graph else fold_batch_norm(batched), train.stages, train.blocks)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), "?")
    notes = [f"ONNX, opset {opset}: params are its floating-point initializers, statistics of norms aside"]
    missing = {name for op in graph.ops for name in op.op.split() if name.startswith("onnx::")}
    if missing:
        notes.append(f"no meaning or no shape is known here for {', '.join(sorted(missing))}")
    shape = graph.tensors[graph.inputs[0]].shape
    return Network(
        name=path, source=path, input=(shape[1], shape[2], shape[3]), batch=batch, train=train, deploy=deploy,
        notes=(*notes, "deploy form: BatchNorm folded" if len(folded.ops) < len(graph.ops) else known),
    )  # fmt: skip


def _read(onnx: Any, path: str) -> Any:
    file = Path(path)
    if not file.is_file():
        near = nearest(file.name, (p.name for p in file.parent.glob("*.onnx"))) if file.parent.is_dir() else ""
        raise UsageError(f"{path}: is a directory" if file.is_dir() else f"{path}: no such file{near}")
    try:
        model = onnx.load(path, load_external_data=False)  # shapes are enough
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {error.strerror or error}") from None
    except Exception as error:
        raise UsageError(f"{path}: not an ONNX model: {' '.join(str(error).split())[:120]}") from None
    if not model.graph.node:
        raise UsageError(f"{path}: not an ONNX model, or one without a single node")
    if model.functions:
        model = importlib.import_module("onnx.inliner").inline_local_functions(model)
    return model


def _graph(
    onnx: Any, model: Any, path: str, size: Size | None, resolution: tuple[int, int] | None, batch: int
) -> tuple[Graph, str]:
    """The records of `model` for the input asked for."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    changed = _set_input(sized, path, size, resolution, batch)
    if changed:  # shapes that the file states are those of another input
        del sized.graph.value_info[:]
        for output in sized.graph.output:
            output.type.tensor_type.ClearField("shape")
    try:
        sized = onnx.shape_inference.infer_shapes(sized, data_prop=True)
    except Exception as error:
        raise UsageError(f"{path}: shapes do not fit: {' '.join(str(error).split())[:160]}") from None
    return _Reader(onnx, sized.graph).read(), "deploy form: as it is, no BatchNorm to fold"


def _set_input(model: Any, path: str, size: Size | None, resolution: tuple[int, int] | None, batch: int) -> bool:
    """Write the input asked for into the model; whether that differs from what it said."""
    weights = {tensor.name for tensor in model.graph.initializer}
    images = [value for value in model.graph.input if value.name not in weights]
    if len(images) != 1 or len(images[0].type.tensor_type.shape.dim) != 4:
        names = ", ".join(f"{v.name} of rank {len(v.type.tensor_type.shape.dim)}" for v in images) or "none"
        raise UsageError(f"{path}: expected one image (N, C, H, W) as input, it has {names}")
    dims = images[0].type.tensor_type.shape.dim
    said = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    asked = list(size or said[1:])
    if resolution is not None:
        asked[1:] = resolution
    if not all(asked):
        text = "×".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
        raise UsageError(f"{path}: its input {images[0].name} is {text}: say which with --input C,H,W")
    wanted = [batch, *asked]
    for dim, value in zip(dims, wanted, strict=True):
        dim.dim_value = value
    return wanted != said


class _Reader:
    """Walks the nodes of an ONNX graph, which are in execution order, and collects tensors and operations."""

    def __init__(self, onnx: Any, graph: Any):
        self._onnx, self._graph = onnx, graph
        self._tensors: list[Tensor] = []
        self._ops: list[OpRecord] = []
        self._index: dict[str, int] = {}
        self._scope = ""
        self._shapes: dict[str, Shape] = {}
        self._dtypes: dict[str, str] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                self._shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
            self._dtypes[value.name] = self._dtype(kind.elem_type)

    def _dtype(self, elem_type: int) -> str:
        name = self._onnx.TensorProto.DataType.Name(elem_type).lower()
        renamed: dict[str, str] = {"float": "float32", "double": "float64"}
        return renamed.get(name, str(name))

    def read(self) -> Graph:
        graph = self._graph
        buffers = {
            node.input[i] for node in graph.node for i in _BUFFERS.get(node.op_type, ()) if i < len(node.input)
        }  # fmt: skip
        quantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        params = []
        for tensor in graph.initializer:
            shape, dtype = tuple(tensor.dims), self._dtype(tensor.data_type)
            is_weight = bool(shape) and (dtype.startswith(("float", "bfloat")) or tensor.name in quantized)
            kind: TensorKind = "buffer" if tensor.name in buffers else "param" if is_weight else "const"
            self._add(tensor.name, shape, dtype, kind)
            if kind == "param":
                params.append(Param(tensor.name, shape, dtype))
        inputs = tuple(
            self._add(value.name, self._shapes[value.name], self._dtypes[value.name], "input")
            for value in graph.input
            if value.name not in self._index
        )
        for node, scope in zip(graph.node, node_scopes(graph, {param.name for param in params}), strict=True):
            self._scope = scope
            self._node(node)
        outputs = tuple(self._index[value.name] for value in graph.output if value.name in self._index)
        self._place(params)
        return Graph(tuple(self._tensors), tuple(self._ops), tuple(params), inputs, outputs)

    def _place(self, params: list[Param]) -> None:
        """Give weights whose names say no module (`onnx::Conv_193`) the module of the node that reads them first."""
        scopes: dict[int, str] = {}
        for op in self._ops:
            for i in op.inputs if not op.is_view else ():
                scopes.setdefault(self._tensors[i].storage, op.scope)
        for at, param in enumerate(params):
            index = self._index[param.name]
            scope = scopes.get(self._tensors[index].storage, "")
            if scope and "." not in param.name:
                name = f"{scope}.{param.name}"
                params[at] = replace(param, name=name)
                self._tensors[index] = replace(self._tensors[index], name=name)

    def _at(self, name: str) -> Tensor:
        return self._tensors[self._index[name]]

    def _add(self, name: str, shape: Shape, dtype: str, kind: TensorKind, of: int | None = None) -> int:
        """A new tensor; `of` is the one whose memory it shares."""
        index = len(self._tensors)
        storage = index if of is None else self._tensors[of].storage
        named = name if kind in ("param", "buffer") else ""
        self._tensors.append(Tensor(shape, dtype, kind, storage, named))
        self._index[name] = index
        return index

    def _op(self, op: str, inputs: tuple[int, ...], outputs: tuple[int, ...], **attrs: object) -> None:
        is_view = op in _VIEW_OPS
        self._ops.append(OpRecord(op, self._scope, inputs, outputs, tuple(attrs.items()), is_view))

    def _view(self, op: str, of: int, name: str, shape: Shape) -> int:
        """A tensor of `shape` on the memory of `of`."""
        index = self._add(name, shape, self._tensors[of].dtype, "activation", of)
        self._op(op, (of,), (index,))
        return index

    def _out(self, name: str, shape: Shape | None = None) -> int:
        known = self._shapes.get(name, ()) if shape is None else shape
        return self._add(name, known, self._dtypes.get(name, "float32"), "activation")

    def _node(self, node: Any) -> None:
        inputs = tuple(self._index[name] for name in node.input if name in self._index)
        written = [name for name in node.output if name]
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        if op in CONSTANTS:
            for name in written:
                self._add(name, self._constant_shape(node, name), self._dtypes.get(name, "int64"), "const")
            return
        shapes = [self._tensors[i].shape for i in inputs]
        is_known = all(name in self._shapes for name in written[:1])
        attrs = {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}
        special = getattr(self, f"_{op.lower()}", None) if op in _SPECIAL else None
        if special is not None and is_known and special(inputs, shapes, written, attrs):
            return
        if op in VIEWS and inputs:
            for name in written[: 1 if op == "Dropout" else None]:
                self._view(VIEWS[op], inputs[0], name, self._shapes.get(name, ()))
            return
        name = NAMES.get(op, f"onnx::{op}")
        if op in ("Resize", "Upsample"):
            mode = attrs.get("mode", b"nearest").decode()
            name = {"nearest": "upsample_nearest2d", "cubic": "upsample_bicubic2d"}.get(mode, NAMES[op])
        kept = written[:1] if op in ("MaxPool", "BatchNormalization", "LayerNormalization") else written
        kernel = {"kernel_size": tuple(attrs["kernel_shape"])} if "kernel_shape" in attrs else {}
        self._op(name, inputs, tuple(self._out(output) for output in kept), **kernel)

    def _constant_shape(self, node: Any, name: str) -> Shape:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                return tuple(attribute.t.dims)
        return self._shapes.get(name, ())

    def _conv(self, inputs: tuple[int, ...], shapes: list[Shape], written: list[str], attrs: Any) -> bool:
        if len(inputs) < 2 or not shapes[0] or not shapes[1]:
            return False
        rank = len(shapes[1]) - 2
        self._op(
            "convolution", inputs, (self._out(written[0]),), stride=tuple(attrs.get("strides", (1,) * rank)),
            padding=tuple(attrs.get("pads", (0,) * rank)), dilation=tuple(attrs.get("dilations", (1,) * rank)),
            transposed=attrs.get("_transposed", False), groups=attrs.get("group", 1),
        )  # fmt: skip
        return True

    def _convtranspose(self, inputs: tuple[int, ...], shapes: list[Shape], written: list[str], attrs: Any) -> bool:
        return self._conv(inputs, shapes, written, attrs | {"_transposed": True})

    def _gemm(self, inputs: tuple[int, ...], shapes: list[Shape], written: list[str], attrs: Any) -> bool:
        # A' (M, K) * B' (K, N) + C
        if len(inputs) < 2 or any(len(shape) != 2 for shape in shapes[:2]):
            return False
        sides = []
        for i, flag in zip(inputs[:2], ("transA", "transB"), strict=True):
            shape = self._tensors[i].shape
            sides.append(self._view("t", i, f"{written[0]}/{flag}", shape[::-1]) if attrs.get(flag) else i)
        out = self._out(written[0])
        self._op("addmm" if len(inputs) > 2 else "mm", (*inputs[2:], *sides), (out,))
        return True

    def _matmul(self, inputs: tuple[int, ...], shapes: list[Shape], written: list[str], attrs: Any) -> bool:
        # (*B, M, K) * (*B, K, N) -> (*B, M, N), batch sides stretched; a matrix on the right is one mm
        a, b = shapes[0], shapes[1]
        if not a or not b:
            return False
        (m, k), n = (1, *a)[-2:], b[-1] if len(b) > 1 else 1
        out = self._shapes[written[0]]
        if len(b) <= 2:
            self._product("mm", inputs, (prod(a) // k, k), (k, n), (prod(a) // k, n), written[0], out)
        else:
            batch = prod(out) // (m * n)
            self._product("bmm", inputs, (batch, m, k), (batch, k, n), (batch, m, n), written[0], out)
        return True

    def _product(
        self, op: str, inputs: tuple[int, ...], a: Shape, b: Shape, result: Shape, name: str, shape: Shape
    ) -> None:
        """`op` on views of the inputs of these shapes, and the result seen as `shape` under `name`."""
        sides = [
            i if self._tensors[i].shape == side else self._view("expand", i, f"{name}/{letter}", side)
            for i, side, letter in zip(inputs[:2], (a, b), "ab", strict=True)
        ]
        out = self._out(name if result == shape else f"{name}/product", result)
        self._op(op, tuple(sides), (out,))
        if result != shape:
            self._view("view", out, name, shape)

    def _einsum(self, inputs: tuple[int, ...], shapes: list[Shape], written: list[str], attrs: Any) -> bool:
        """Two operands, as one product over the letters that both have: batch where the result keeps them, else summed."""
        equation = attrs["equation"].decode().replace(" ", "")
        left, arrow, result = equation.partition("->")
        terms = left.split(",")
        if not arrow or len(terms) != 2 or "." in equation or len(shapes) != 2:
            return False
        sizes = {
            letter: side
            for term, shape in zip(terms, shapes, strict=True)
            for letter, side in zip(term, shape, strict=True)
        }
        a, b = map(set, terms)
        if any(len(set(term)) != len(term) for term in terms) or (a ^ b) - set(result):
            return False

        def size(letters: set[str]) -> int:
            return prod(sizes[letter] for letter in letters)

        batch, k, m, n = size(a & b & set(result)), size((a & b) - set(result)), size(a - b), size(b - a)
        shape = tuple(sizes[letter] for letter in result)
        self._product("bmm", inputs, (batch, m, k), (batch, k, n), (batch, m, n), written[0], shape)
        return True

    def _attention(self, inputs: tuple[int, ...], shapes: list[Shape], written: list[str], attrs: Any) -> bool:
        # (B, H, T, D), (B, H, S, D), (B, H, S, E); tokens (B, T, H·D) are seen so
        if len(inputs) < 3 or any(len(shape) not in (3, 4) for shape in shapes[:3]):
            return False
        heads = (attrs.get("q_num_heads", 1), attrs.get("kv_num_heads", 1), attrs.get("kv_num_heads", 1))
        sides = []
        for i, count, letter in zip(inputs[:3], heads, "qkv", strict=True):
            shape = self._tensors[i].shape
            if len(shape) == 3:
                b, t, width = shape
                i = self._view("view", i, f"{written[0]}/{letter}", (b, count, t, width // count))
            sides.append(i)
        self._op("_scaled_dot_product_flash_attention", (*sides, *inputs[3:4]), (self._out(written[0]),))
        return True


_SPECIAL = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention"})
_VIEW_OPS = frozenset({*VIEWS.values(), "t"})


def node_scopes(graph: Any, weights: Collection[str]) -> list[str]:
    """The module path of each node of a GraphProto, where the names in the file tell modules; else its own name or kind.

    It is the one that the exporter wrote, else that of its weight (a name of `weights`), else that of the node before it.
    """
    written = [_written_scope(node) for node in graph.node]
    if all(scope is None for scope in written) and not any("." in name for name in weights):
        return [node.name or node.op_type for node in graph.node]
    found = ""
    scopes = []
    for node, scope in zip(graph.node, written, strict=True):
        if scope is None:
            named = next((name for name in node.input if name in weights), None)
            scope = found if named is None else named.rpartition(".")[0]
        found = scope
        scopes.append(found)
    return scopes


def _written_scope(node: Any) -> str | None:
    """The module path that exporters leave: in metadata, as `/layer1/layer1.0/conv1/Conv`, or ours as `layer1.0/Conv_4`."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                return ".".join(ast.literal_eval(entry.value)[-2:-1])
            except (ValueError, SyntaxError):
                return None
    if not node.name.startswith("/"):
        path, slash, call = node.name.partition("/")
        ours = slash and call.rpartition("_")[0] == node.op_type and call.rpartition("_")[2].isdecimal()
        return ("" if path == _TOP else path) if ours else None
    names: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if names and part.startswith(f"{names[-1]}."):
            names[-1] = part  # an item repeats the name of its container
        else:
            names.append(part)
    return ".".join(names)


def _parts(graph: Graph, depth: int) -> tuple[Part, ...]:
    """Rows by the names of scopes alone, those with an operation that is executed first."""
    at_work = [op.scope for op in graph.ops if not graph.is_constant(op)]
    scopes = (*at_work, *(op.scope for op in graph.ops), *(param.scope for param in graph.params))
    return tuple(Part(path, "") for path in dict.fromkeys(parts_of(scopes, depth)) if path)
