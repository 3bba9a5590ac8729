"""compare: what differs between networks, in their specs, in what they cost, stage by stage, and which dominates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vitscope.graph.record import Graph
from vitscope.latency.device import Device
from vitscope.latency.difference import Difference, difference
from vitscope.measure.record import Measurement
from vitscope.profile import Profile, Row

if TYPE_CHECKING:
    from vitscope.measure.contrast import Contrast

Better = Literal["low", "high"]
_NOT_COMPARED = ("name", "family", "paper", "note", "reported", "plugins")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A key of the spec that two networks give differently; None where one of them does not give it."""

    path: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity of both networks, in base units; None where it is unknown."""

    metric: str
    a: float | None
    b: float | None
    better: Better = "low"

    @property
    def delta(self) -> float | None:
        """b − a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def relative(self) -> float | None:
        """(b − a) / a; None where a is zero or either is unknown."""
        return None if self.delta is None or not self.a else self.delta / self.a


@dataclass(frozen=True, slots=True)
class StageChange:
    """The same part of both networks; a part that only one of them has is zero in the other, and `only` says whose it is."""

    path: str
    changes: tuple[Change, ...]
    only: Literal["", "a", "b"] = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """How two predictions on one device differ, judged against what the predictor can tell."""

    device: str
    change: Change
    difference: Difference


@dataclass(frozen=True, slots=True)
class Measured:
    """Both networks on one runtime that is here, having taken turns, and what their paired blocks say."""

    a: Measurement
    b: Measurement
    contrast: Contrast

    @property
    def change(self) -> Change:
        c = self.a.condition
        tells = [c.runtime, c.precision, f"{c.threads} thread{'s' if c.threads != 1 else ''}"]
        tells += [] if c.unit == "cpu" else [c.unit]
        seconds = self.a.summary.latency_p50_s, self.b.summary.latency_p50_s
        return Change(f"measured on {', '.join(tells)}", *seconds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that `vitscope compare` shows of B against A."""

    a: Profile
    b: Profile
    fields: tuple[FieldChange, ...]
    totals: tuple[Change, ...]
    latencies: tuple[Latency, ...]
    mes: tuple[Change, ...]
    stages: tuple[StageChange, ...]
    verdict: str
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to compare: its profile by stage, its merged spec document, and its deployed graphs."""

    profile: Profile
    document: str
    graphs: tuple[Graph, ...]


def compare(a: Subject, b: Subject, devices: Sequence[Device] = ()) -> Comparison:
    """B against A, both profiled by stage on the same devices."""
    totals = _totals(a.profile, b.profile)
    latencies = tuple(
        Latency(
            device.name,
            Change(f"latency on {device.name}", p.latency_s, q.latency_s),
            difference(device, a.graphs, b.graphs),
        )
        for device, p, q in zip(devices, a.profile.predictions, b.profile.predictions, strict=True)
    )
    scores = {(s.device, s.origin): s.score for s in a.profile.mes}
    # A score counts its latency in the unit of its device: only scores of one device and one origin are compared.
    mes = tuple(
        Change(f"MES ({s.origin} latency on {s.device})", scores[s.device, s.origin], s.score, "high")
        for s in b.profile.mes
        if (s.device, s.origin) in scores
    )
    return Comparison(
        a=a.profile, b=b.profile, fields=spec_changes(a.document, b.document), totals=totals, latencies=latencies,
        mes=mes, stages=_stages(a.profile, b.profile), verdict=_verdict(a.profile, b.profile, totals, latencies),
    )  # fmt: skip


def spec_changes(a: str, b: str) -> tuple[FieldChange, ...]:
    """The keys in which two merged documents (JSON) differ, in the order of the spec; none where one has no document."""
    if not a or not b:
        return ()
    left, right = _flat(json.loads(a)), _flat(json.loads(b))
    paths = [p for p in dict.fromkeys((*left, *right)) if p.split(".")[0] not in _NOT_COMPARED]
    changed = [FieldChange(p, left.get(p), right.get(p)) for p in paths if left.get(p) != right.get(p)]
    return tuple(sorted(changed, key=lambda change: _spec_order(change.path)))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by dotted path; a list of scalars is one leaf, a list of mappings is walked by index."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {path: value}
    return {p: leaf for key, item in items for p, leaf in _flat(item, f"{path}.{key}" if path else key).items()}


def _spec_order(path: str) -> tuple[int, list[tuple[int, str]]]:
    parts = path.split(".")
    order = ("input", "act", "norm", "norm_eps", "layer_scale_init", "drop_path_rate", "stem", "stages", "head")
    first = order.index(parts[0]) if parts[0] in order else len(order)
    return first, [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]


def _totals(a: Profile, b: Profile) -> tuple[Change, ...]:
    """Params, MACs and memory. MACs of a partial profile are unknown: its sum is a lower bound only."""
    p, q = a.totals, b.totals
    return (
        Change("params", p.params, q.params),
        Change("params, deployed", a.deploy_params, b.deploy_params),
        Change("MACs", None if a.is_partial else p.macs, None if b.is_partial else q.macs),
        Change("activations", p.activations, q.activations),
        Change("peak memory", p.peak_activation_bytes, q.peak_activation_bytes),
        Change("bytes moved", p.read_bytes + p.write_bytes, q.read_bytes + q.write_bytes),
    )


def _stages(a: Profile, b: Profile) -> tuple[StageChange, ...]:
    """Stem, stages by number, head; in a network that is no spec the parts of its module tree. The order is the networks'."""
    left, right = {row.path: row for row in a.rows}, {row.path: row for row in b.rows}
    if not (a.document and b.document):
        return _paired(dict.fromkeys((*left, *right)), left, right, [p.device for p in a.predictions])
    numbered = sorted({p for p in (*left, *right) if p.startswith("stages.")}, key=lambda p: int(p.split(".")[1]))
    return _paired(("stem", *numbered, "head"), left, right, [p.device for p in a.predictions])


def _paired(
    paths: Iterable[str], left: Mapping[str, Row], right: Mapping[str, Row], devices: Sequence[str]
) -> tuple[StageChange, ...]:
    result = []
    for path in paths:
        row_a, row_b = left.get(path), right.get(path)
        only: Literal["", "a", "b"] = "" if row_a and row_b else "a" if row_a else "b"
        result.append(StageChange(path, _stage_changes(row_a, row_b, devices), only))
    return tuple(result)


def _stage_changes(a: Row | None, b: Row | None, devices: Sequence[str]) -> tuple[Change, ...]:
    def pick(row: Row | None, key: str) -> float | None:
        if row is None:
            return 0
        return None if key == "macs" and row.cost.unknown else getattr(row.cost, key)

    changes = [
        Change("params", pick(a, "params"), pick(b, "params")),
        Change("MACs", pick(a, "macs"), pick(b, "macs")),
    ]
    for i, device in enumerate(devices):
        before, after = (0.0 if row is None else row.latency_s[i] for row in (a, b))
        changes.append(Change(device, before, after))
    return tuple(changes)


def with_measured(comparison: Comparison, measured: Sequence[Measured]) -> Comparison:
    """The comparison with what was measured of both, which the verdict then counts as well."""
    c = comparison
    return replace(c, measured=tuple(measured), verdict=_verdict(c.a, c.b, c.totals, c.latencies, measured))


def _verdict(
    a: Profile,
    b: Profile,
    totals: Sequence[Change],
    latencies: Sequence[Latency],
    measured: Sequence[Measured] = (),
) -> str:
    """Which network is at least as good in params, MACs, latency and reported accuracy, and better in one of them."""
    signs: dict[str, int] = {}  # −1: b is better, +1: a is better, 0: equal or not to be told apart
    unknown = []
    for change in totals:
        if change.metric in ("params", "MACs"):
            if change.delta is None:
                unknown.append(change.metric)
            else:
                signs[change.metric] = (change.delta > 0) - (change.delta < 0)
    for latency in latencies:
        faster = {"A faster": 1, "B faster": -1, "no difference that the predictor can tell": 0}
        if latency.difference.verdict in faster:
            signs[f"latency on {latency.device}"] = faster[latency.difference.verdict]
        else:
            unknown.append(f"latency on {latency.device}")
    for pair in measured:
        ratio = pair.contrast.ratio
        signs[f"time {pair.change.metric}"] = ((ratio < 1) - (ratio > 1)) if pair.contrast.significant else 0
    scores = [p.reported.accuracy if p.reported is not None else None for p in (a, b)]
    if scores[0] is not None and scores[1] is not None and scores[0][0] == scores[1][0]:
        mine, theirs = scores[0][1].value, scores[1][1].value
        signs[f"reported {scores[0][0]}"] = (mine > theirs) - (mine < theirs)
    else:
        unknown.append("accuracy")
    aside = f" ({', '.join(unknown)} unknown)" if unknown else ""
    wins_a = [metric for metric, sign in signs.items() if sign > 0]
    wins_b = [metric for metric, sign in signs.items() if sign < 0]
    if not wins_a and not wins_b:
        return f"{a.name} and {b.name}: no difference in {', '.join(signs)}{aside}"
    if not wins_a or not wins_b:
        winner, loser, wins = (b, a, wins_b) if wins_b else (a, b, wins_a)
        ties = [metric for metric, sign in signs.items() if sign == 0]
        level = f", level in {', '.join(ties)}" if ties else ""
        return f"{winner.name} dominates {loser.name}: better in {', '.join(wins)}{level}{aside}"
    return f"neither dominates: {a.name} is better in {', '.join(wins_a)}; {b.name} in {', '.join(wins_b)}{aside}"
