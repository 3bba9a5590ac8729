"""profile: what a network costs, in all and part by part, and how long it is predicted to take on devices."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vitscope.cost.conventions import Convention, params_and_macs
from vitscope.cost.mes import mes
from vitscope.cost.ops import op_class
from vitscope.cost.summary import cost_in_place, cost_of, op_costs, total
from vitscope.graph.record import Graph
from vitscope.graph.store import Form, block_graph
from vitscope.latency.device import Device, load_device
from vitscope.latency.predict import Prediction, predict
from vitscope.parts import LEVELS, PRECISION_BYTES, Level, Profile, Row, check_convention, kernel_times, scores
from vitscope.sources import source_of
from vitscope.spec import load_spec
from vitscope.spec.flow import Placed, flow
from vitscope.spec.shape import features
from vitscope.spec.value import Spec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LEVELS", "PRECISION_BYTES", "Level", "Profile", "Row", "deploy_graphs", "profile", "profile_spec"]


@dataclass(frozen=True, slots=True)
class _Segment:
    """One block: where it stands, its graph for one image (counts), for the batch (bytes), and deployed (latency)."""

    placed: Placed
    counted: Graph
    batched: Graph
    deployed: Graph
    batch: int

    @property
    def waiting_bytes(self) -> int:
        return self.placed.held_bytes * self.batch


def profile(
    model: str | nn.Module,
    input_shape: Sequence[int] | None = None,
    *,
    devices: Sequence[str] = (),
    by: Level = "block",
    form: Form = "train",
    resolution: tuple[int, int] | None = None,
    batch: int = 1,
    convention: Convention = "vitscope",
    overrides: Sequence[str] = (),
    measured: Mapping[str, float] | None = None,
    allow_plugins: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Profile:
    """The Profile of a network, as `vitscope profile` makes it.

    `model` is a spec file, a name of the zoo, an nn.Module, or a name as `timm:resnet50`, `torchvision:resnet50`,
    `package.module:callable` (which runs that code, with `kwargs`) or `model.onnx`. `input_shape` is (channels, height,
    width) of one image: a module needs it, a spec states its own. `measured` are seconds by device that somebody
    measured: each gets its own score.

    Raises SpecError or UsageError when the model or a device cannot be read, UnavailableError for a missing package.
    """
    found = [load_device(name) for name in devices]
    if isinstance(model, str) and input_shape is None and not kwargs and source_of(model) is None:
        spec = load_spec(model, overrides, resolution=resolution, allow_plugins=allow_plugins)
        made = profile_spec(spec, found, by=by, form=form, batch=batch, convention=convention)
        made = replace(made, source=model, name=spec.name + "".join(f" {setting}" for setting in overrides))
    else:
        from vitscope.foreign import load_network, profile_network

        network = load_network(
            model, input_shape=input_shape, resolution=resolution, batch=batch, kwargs=kwargs, overrides=overrides
        )
        made = profile_network(network, found, by=by, form=form, convention=convention)
    given = tuple(mes(made.totals.params, seconds, name, "measured") for name, seconds in (measured or {}).items())
    return replace(made, mes=given + made.mes)


def profile_spec(
    spec: Spec,
    devices: Sequence[Device] = (),
    *,
    by: Level = "block",
    form: Form = "train",
    batch: int = 1,
    convention: Convention = "vitscope",
) -> Profile:
    """The Profile of a Spec. Blocks that were met before, in this process or an earlier one, are not traced again."""
    check_convention(by, convention)
    segments = _segments(spec, form, batch)
    predictions = tuple(predict(device, [s.deployed for s in segments]) for device in devices)
    blocks = [_block_row(segment, i, predictions, convention) for i, segment in enumerate(segments)]
    if by == "stage":
        rows = _stage_rows(blocks)
    elif by == "op":
        rows = [row for i, s in enumerate(segments) for row in (blocks[i], *_op_rows(s, i, devices, predictions))]
    else:
        rows = blocks
    totals = total(row.cost for row in blocks)
    return Profile(
        name=spec.name, source=spec.name, digest=spec.digest, form=form, input=spec.input, batch=batch,
        convention=convention, totals=totals,
        deploy_params=sum(cost_of(s.deployed).params for s in segments), rows=tuple(rows), predictions=predictions,
        mes=scores(totals.params, predictions, spec.reported), reported=spec.reported, note=spec.note,
        document=spec.document,
    )  # fmt: skip


def _segments(spec: Spec, form: Form, batch: int) -> list[_Segment]:
    segments = []
    for placed in flow(spec):
        block, shape = placed.block, placed.in_shape
        counted = block_graph(block, shape, form)
        batched = counted if batch == 1 else block_graph(block, shape, form, batch)
        segments.append(_Segment(placed, counted, batched, block_graph(block, shape, "deploy", batch), batch))
    return segments


def deploy_graphs(spec: Spec, batch: int = 1) -> tuple[Graph, ...]:
    """The graphs of a spec's blocks in deploy form, in order: what a predictor takes."""
    return tuple(block_graph(place.block, place.in_shape, "deploy", batch) for place in flow(spec))


def _block_row(segment: _Segment, index: int, predictions: Sequence[Prediction], convention: Convention) -> Row:
    placed = segment.placed
    cost = cost_in_place(segment.batched, placed.keeps_input, segment.waiting_bytes)
    cost = replace(cost, macs=cost_of(segment.counted).macs)
    if convention != "vitscope":
        params, macs = params_and_macs(segment.counted, convention)
        cost = replace(cost, params=params, macs=macs)
    shares = tuple(p.shares[index] if p.shares else None for p in predictions)
    return Row(
        path=placed.path,
        level="block",
        kind=placed.block.kind,
        out_shape=" + ".join(map(str, features(placed.out_shape))),
        cost=cost,
        latency_s=shares,
    )


def _stage_rows(blocks: Sequence[Row]) -> list[Row]:
    """Blocks summed into stem, stages and head, in order."""
    groups: dict[str, list[Row]] = {}
    for row in blocks:
        groups.setdefault(".".join(row.path.split(".")[:2]), []).append(row)
    return [
        Row(
            path=path, level="stage", kind=_kinds(rows), out_shape=rows[-1].out_shape,
            cost=total(row.cost for row in rows), latency_s=_added([row.latency_s for row in rows]),
        )
        for path, rows in groups.items()
    ]  # fmt: skip


def _kinds(rows: Sequence[Row]) -> str:
    """What a stage is made of, runs joined: `conv, ffn*7, stride_attention*2`."""
    runs: list[list[object]] = []
    for row in rows:
        if runs and runs[-1][0] == row.kind:
            runs[-1][1] = int(str(runs[-1][1])) + 1
        else:
            runs.append([row.kind, 1])
    return ", ".join(str(kind) if count == 1 else f"{kind}*{count}" for kind, count in runs)


def _added(columns: Sequence[tuple[float | None, ...]]) -> tuple[float | None, ...]:
    return tuple(
        None if any(v is None for v in values) else sum(v for v in values if v is not None)
        for values in zip(*columns, strict=True)
    )


def _op_rows(segment: _Segment, index: int, devices: Sequence[Device], predictions: Sequence[Prediction]) -> list[Row]:
    """The operations of a block that are more than views; a kernel's time stands at the module where it starts."""
    times = [
        kernel_times(segment.deployed, device, prediction.shares[index]) if prediction.shares else {}
        for device, prediction in zip(devices, predictions, strict=True)
    ]
    batched = segment.batched
    counts = (cost.macs for cost in op_costs(segment.counted))
    costs = op_costs(batched, segment.placed.keeps_input, segment.waiting_bytes)
    rows = []
    for op, cost, macs in zip(batched.ops, costs, counts, strict=True):
        if op_class(batched, op) == "view":
            continue
        rows.append(
            Row(
                path=f"{segment.placed.path}.{op.scope}" if op.scope else segment.placed.path,
                level="op", kind=op.op, cost=replace(cost, macs=macs),
                out_shape="×".join(str(side) for i in op.outputs[:1] for side in batched.tensors[i].shape[1:]),
                latency_s=tuple(by_scope.pop(op.scope, None) for by_scope in times),
            )
        )  # fmt: skip
    return rows


class _CallableModule(ModuleType):
    """`vitscope.profile` is this module; `vitscope.profile(model)` is its one question."""

    def __call__(self, *args: Any, **kwargs: Any) -> Profile:
        return profile(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
