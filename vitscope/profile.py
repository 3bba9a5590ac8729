"""profile: what a network costs, in all and part by part, and how long it is predicted to take on devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from vitscope.cost.conventions import Convention, params_and_macs
from vitscope.cost.mes import Mes, mes
from vitscope.cost.ops import op_class
from vitscope.cost.summary import Cost, cost_in_place, cost_of, op_costs, total
from vitscope.errors import UsageError
from vitscope.graph.record import Graph
from vitscope.graph.store import Form, block_graph
from vitscope.latency.device import Device, load_device
from vitscope.latency.kernels import lower
from vitscope.latency.predict import Prediction, kernel_cost, predict
from vitscope.spec import load_spec
from vitscope.spec.flow import Placed, flow
from vitscope.spec.shape import features
from vitscope.spec.value import Reported, Spec

Level = Literal["stage", "block", "op"]
LEVELS: tuple[Level, ...] = get_args(Level)
PRECISION_BYTES = {"float32": 4, "float16": 2, "int8": 1}  # of parameters on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A part of a network and its cost. `latency_s` has one value a prediction, None where there is none."""

    path: str
    level: Level
    kind: str
    out_shape: str
    cost: Cost
    latency_s: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Everything that `vitscope profile` shows of one network, as raw integers and seconds.

    Counts are for one image, in `form`, at `input`; bytes and activations are for a batch of `batch`, in float32.
    Predictions are always of the deploy form: that is what a phone runs.
    """

    name: str
    source: str
    digest: str
    form: Form
    input: tuple[int, int, int]
    batch: int
    convention: Convention
    totals: Cost
    deploy_params: int
    rows: tuple[Row, ...]
    predictions: tuple[Prediction, ...]
    mes: tuple[Mes, ...]
    reported: Reported | None
    note: str = ""
    document: str = ""  # the merged spec as JSON: a saved profile can be compared later

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the input, in pixels."""
        return self.input[1:]

    @property
    def is_partial(self) -> bool:
        """Whether some operation could not be counted."""
        return bool(self.totals.unknown)

    @property
    def param_bytes(self) -> dict[str, int]:
        """Bytes of the parameters at each precision, as they would lie on disk."""
        return {name: self.totals.params * size for name, size in PRECISION_BYTES.items()}


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
    model: str,
    *,
    devices: Sequence[str] = (),
    by: Level = "block",
    form: Form = "train",
    resolution: tuple[int, int] | None = None,
    batch: int = 1,
    convention: Convention = "vitscope",
    overrides: Sequence[str] = (),
    allow_plugins: bool = False,
) -> Profile:
    """The Profile of a spec file or of a network of the zoo, as `vitscope profile` makes it.

    Raises SpecError or UsageError when the model or a device cannot be read.
    """
    spec = load_spec(model, overrides, resolution=resolution, allow_plugins=allow_plugins)
    found = [load_device(name) for name in devices]
    made = profile_spec(spec, found, by=by, form=form, batch=batch, convention=convention)
    return replace(made, source=model, name=spec.name + "".join(f" {setting}" for setting in overrides))


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
    if by == "op" and convention != "vitscope":
        raise UsageError(f"--convention {convention} counts whole blocks: use it with --by block or --by stage")
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
        mes=_scores(totals.params, predictions, spec.reported), reported=spec.reported, note=spec.note,
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
        _kernel_times(segment, device, prediction.shares[index]) if prediction.shares else {}
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


def _kernel_times(segment: _Segment, device: Device, share_s: float) -> dict[str, float]:
    """A block's seconds spread over its kernels in proportion to their cost alone, by the module where each starts."""
    costs: dict[str, float] = {}
    for kernel in lower(segment.deployed, device.rules):
        cost = kernel_cost(device, kernel)
        costs[kernel.scope] = costs.get(kernel.scope, 0.0) + cost.traffic_s + cost.compute_s + cost.start_s
    whole = sum(costs.values())
    return {scope: share_s * cost / whole for scope, cost in costs.items()} if whole else {}


def _scores(params: int, predictions: Sequence[Prediction], reported: Reported | None) -> tuple[Mes, ...]:
    """A score for each predicted latency, and for each latency that the authors reported with the params they reported."""
    scores = [mes(params, p.latency_s, p.device, "predicted") for p in predictions if p.latency_s is not None]
    if reported is not None:
        size = int(reported.params.value) if reported.params is not None else params
        scores += [mes(size, figure.value, device, "reported") for device, figure in reported.latency]
    return tuple(scores)
