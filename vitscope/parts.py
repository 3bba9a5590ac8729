"""Profile and Row: what a network costs, in all and part by part; and what every way of making them shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from vitscope.cost.conventions import Convention
from vitscope.cost.mes import Mes, mes
from vitscope.cost.summary import Cost
from vitscope.errors import UsageError
from vitscope.graph.record import Graph
from vitscope.graph.store import Form
from vitscope.latency.device import Device
from vitscope.latency.kernels import lower
from vitscope.latency.predict import Prediction, kernel_cost
from vitscope.measure.record import Measurement
from vitscope.spec.value import Reported

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
    Predictions and measurements are always of the deploy form: that is what a phone runs.
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
    notes: tuple[str, ...] = ()  # how a network that is no spec was read
    document: str = ""  # the merged spec as JSON: a saved profile can be compared later
    measurements: tuple[Measurement, ...] = ()

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


def check_convention(by: Level, convention: Convention) -> None:
    """Other tools' terms are sums over a part. Raises UsageError for single operations."""
    if by == "op" and convention != "vitscope":
        raise UsageError(f"--convention {convention} counts whole blocks: use it with --by block or --by stage")


def kernel_times(graph: Graph, device: Device, share_s: float) -> dict[str, float]:
    """A graph's seconds spread over its kernels in proportion to their cost alone, by the module where each starts."""
    costs: dict[str, float] = {}
    for kernel in lower(graph, device.rules):
        cost = kernel_cost(device, kernel)
        costs[kernel.scope] = costs.get(kernel.scope, 0.0) + cost.traffic_s + cost.compute_s + cost.start_s
    whole = sum(costs.values())
    return {scope: share_s * cost / whole for scope, cost in costs.items()} if whole else {}


def scores(params: int, predictions: Sequence[Prediction], reported: Reported | None) -> tuple[Mes, ...]:
    """A score for each predicted latency, and for each latency that the authors reported with the params they reported."""
    scores = [mes(params, p.latency_s, p.device, "predicted") for p in predictions if p.latency_s is not None]
    if reported is not None:
        size = int(reported.params.value) if reported.params is not None else params
        scores += [mes(size, figure.value, device, "reported") for device, figure in reported.latency]
    return tuple(scores)
