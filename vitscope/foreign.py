"""The Profile of a network that is no spec: rows follow its module tree, counts and latency come from one whole graph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vitscope.cost.conventions import Convention, params_and_macs
from vitscope.cost.ops import op_class
from vitscope.cost.summary import Cost, cost_of, op_costs, total
from vitscope.errors import UsageError
from vitscope.graph.record import DTYPE_BYTES, Graph, OpRecord, Param
from vitscope.graph.store import Form, encode
from vitscope.latency.device import Device
from vitscope.latency.predict import predict
from vitscope.parts import Level, Profile, Row, check_convention, kernel_times, scores
from vitscope.sources import Source, source_of
from vitscope.sources.network import Network, Part

if TYPE_CHECKING:
    from torch import nn

ROOT = "(root)"  # operations and parameters of the outermost module itself: a class token, a residual sum


def load_network(
    model: str | nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    resolution: tuple[int, int] | None = None,
    batch: int = 1,
    kwargs: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Network:
    """The Network of a module or of a name that refers to one. Raises UsageError, also for what only a name can take."""
    size = _checked(input_shape)
    if not isinstance(model, str):
        return _of_module(model, size, resolution, batch, kwargs, overrides)
    source = source_of(model)
    if source is None:
        if size is not None:
            raise UsageError(f"--input: {model} is a spec, which states its input: use --resolution or --set input=…")
        if kwargs:
            raise UsageError(f"--kwargs: {model} is a spec: change it with --set KEY=VALUE")
        raise UsageError(f"{model}: is a spec")
    if overrides:
        raise UsageError(f"--set {overrides[0]}: {model} is no spec{_instead(source)}")
    if source.kind == "onnx":
        from vitscope.sources.onnx import load as load_onnx

        if kwargs:
            raise UsageError(f"--kwargs: {model} is a file, which takes no arguments")
        return load_onnx(source.name, size=size, resolution=resolution, batch=batch)
    from vitscope.sources.module import load

    network = load(source, kwargs or {}, size=size, resolution=resolution, batch=batch)
    return replace(network, name=model + "".join(f" {key}={value}" for key, value in (kwargs or {}).items()))


def _of_module(
    module: nn.Module,
    size: tuple[int, int, int] | None,
    resolution: tuple[int, int] | None,
    batch: int,
    kwargs: Mapping[str, Any] | None,
    overrides: Sequence[str],
) -> Network:
    from torch import nn

    from vitscope.sources.module import read

    if not isinstance(module, nn.Module):
        raise UsageError(f"profile: expected a name or a torch.nn.Module, got {type(module).__name__}")
    if overrides or kwargs:
        raise UsageError("profile: overrides and kwargs belong to a name; this module is already built")
    known = size or getattr(module, "input_size", None)
    if not (isinstance(known, tuple) and len(known) == 3):
        raise UsageError("profile: a module does not say what it takes: give input_shape=(channels, height, width)")
    return read(module, known if resolution is None else (known[0], *resolution), batch)


def _checked(shape: Sequence[int] | None) -> tuple[int, int, int] | None:
    if shape is None:
        return None
    sides = tuple(shape)
    if len(sides) != 3 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise UsageError(f"input shape {sides}: expected (channels, height, width); batch is an argument of its own")
    return sides  # type: ignore[return-value]


def _instead(source: Source) -> str:
    return "" if source.kind == "onnx" else "; its arguments are given with --kwargs key=value"


def profile_network(
    network: Network,
    devices: Sequence[Device] = (),
    *,
    by: Level = "block",
    form: Form = "train",
    convention: Convention = "vitscope",
) -> Profile:
    """The Profile of a Network, in the parts of its module tree. Predictions are of its deploy form."""
    check_convention(by, convention)
    chosen = network.deploy if form == "deploy" else network.train
    deployed = network.deploy.batched
    predictions = tuple(predict(device, [deployed]) for device in devices)
    times = [
        kernel_times(deployed, device, sum(p.shares)) if p.shares else None
        for device, p in zip(devices, predictions, strict=True)
    ]
    parts = chosen.stages if by == "stage" else chosen.blocks
    groups = _grouped(chosen.counted, chosen.batched, parts)
    shares = [None if t is None else _by_group(t, groups) for t in times]
    rows: list[Row] = []
    for path, group in groups.items():
        if not group.params and not group.rows:
            continue
        cost = _group_cost(group, chosen.counted, convention)
        share = tuple(None if s is None else s[path] for s in shares)
        rows.append(
            Row(
                path=path or ROOT, level="stage" if by == "stage" else "block", kind=group.kind,
                out_shape=group.out_shape, cost=cost, latency_s=share,
            )
        )  # fmt: skip
        if by == "op":
            rows += [replace(row, latency_s=tuple(_taken(t, row.path) for t in times)) for row in group.rows]
    if by == "op":
        rows = [replace(row, path=row.path or ROOT) for row in rows]
    counted = cost_of(chosen.counted)
    totals = replace(cost_of(chosen.batched), macs=counted.macs, unknown=counted.unknown)
    if convention != "vitscope":
        params, macs = params_and_macs(chosen.counted, convention)
        totals = replace(totals, params=params, macs=macs)
    return Profile(
        name=network.name, source=network.source, digest=_digest(network.train.counted), form=form,
        input=network.input, batch=network.batch, convention=convention, totals=totals,
        deploy_params=cost_of(network.deploy.counted).params, rows=tuple(rows), predictions=predictions,
        mes=scores(totals.params, predictions, None), reported=None, notes=network.notes,
    )  # fmt: skip


@dataclass(slots=True)
class _Group:
    """What belongs to one part: its parameters, its operations for one image, and a row and cost for each for the batch."""

    kind: str
    params: list[Param] = field(default_factory=list)
    counted: list[OpRecord] = field(default_factory=list)
    macs: int = 0
    unknown: tuple[str, ...] = ()
    costs: list[Cost] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    out_shape: str = ""


def _grouped(counted: Graph, batched: Graph, parts: Sequence[Part]) -> dict[str, _Group]:
    """Every parameter and operation with the part it stands in, in the order of the module tree, the root first."""
    groups = {"": _Group("")} | {part.path: _Group(part.kind) for part in parts}
    for param in counted.params:
        groups[part_of(param.scope, groups)].params.append(param)
    counts = op_costs(counted)
    for op, cost in zip(counted.ops, counts, strict=True):
        group = groups[part_of(op.scope, groups)]
        group.counted.append(op)
        group.macs += cost.macs
        group.unknown += cost.unknown
    aligned = [op.op for op in counted.ops] == [op.op for op in batched.ops]
    images = batched.tensors[batched.inputs[0]].shape[0] if batched.inputs else 1
    for i, (op, cost) in enumerate(zip(batched.ops, op_costs(batched), strict=True)):
        group = groups[part_of(op.scope, groups)]
        group.costs.append(cost)
        if op.outputs:
            group.out_shape = "×".join(map(str, batched.tensors[op.outputs[0]].shape[1:]))
        if op_class(batched, op) != "view":
            macs = counts[i].macs if aligned else cost.macs // images
            row = Row(path=op.scope, level="op", kind=op.op, out_shape=group.out_shape, cost=replace(cost, macs=macs))
            group.rows.append(row)
    return groups


def part_of(scope: str, groups: Collection[str]) -> str:
    """The part that `scope` stands in: the longest of its prefixes that is one."""
    while scope and scope not in groups:
        scope = scope.rpartition(".")[0]
    return scope


def _group_cost(group: _Group, graph: Graph, convention: Convention) -> Cost:
    params = sum(p.numel for p in group.params)
    cost = replace(
        total(group.costs), params=params, macs=group.macs, unknown=group.unknown,
        param_bytes=sum(p.numel * DTYPE_BYTES.get(p.dtype, 4) for p in group.params),
    )  # fmt: skip
    if convention == "vitscope":
        return cost
    part = replace(graph, ops=tuple(group.counted), params=tuple(group.params))
    params, macs = params_and_macs(part, convention)
    return replace(cost, params=params, macs=macs)


def _by_group(times: Mapping[str, float], groups: Mapping[str, object]) -> dict[str, float]:
    seconds = dict.fromkeys(groups, 0.0)
    for scope, spent in times.items():
        seconds[part_of(scope, groups)] += spent
    return seconds


def _taken(times: dict[str, float] | None, scope: str) -> float | None:
    """A module's seconds stand at its first operation."""
    return None if times is None else times.pop(scope, None)


def _digest(graph: Graph) -> str:
    return hashlib.sha256(json.dumps(encode(graph)).encode()).hexdigest()
