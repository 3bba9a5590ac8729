"""Places prototypes among the points of a front: exact costs, latency predicted with its interval, accuracy never invented."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vitscope.errors import UsageError, nearest
from vitscope.pareto import DENSE, Axis, FrontData, Omitted, Prototype, Verdict, costs, dominates, dominators, signed
from vitscope.results import quantity_of

DATASETS = ("Cityscapes", "ADE20K", "COCO")  # of the dense figures in the shipped table


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prototype as its profile sees it. `latency_s` is None when the predictor gives none, and `status` says why."""

    model: str  # as typed on the command line
    label: str
    device: str
    values: Mapping[str, float]  # quantity → value in the base unit, all exact
    latency_s: float | None
    low_s: float | None
    high_s: float | None
    status: str
    accuracy: tuple[str, float] | None  # what its authors report: top1, miou or map, and the percentage
    about: str = ""  # where a dataset may be named: the network's name and the source of its figures
    coverage: float = 1.0  # the share of the network's work that its predictor knows
    interval: float | None = None  # the nominal share of networks between low_s and high_s


def prototype_point(model: str, device: str | None) -> Candidate:
    """Profile `model` and keep what a front needs. The only place that knows what a profile looks like."""
    from vitscope.profile import profile

    result = profile(model, devices=(device,) if device else (), by="stage")
    prediction = next(iter(result.predictions), None)
    reported = result.reported
    accuracy = reported.accuracy if reported else None
    return Candidate(
        model=model,
        label=result.name,
        device=prediction.device if prediction else "",
        values={"params": result.totals.params, "macs": result.totals.macs},
        latency_s=prediction.latency_s if prediction else None,
        low_s=prediction.low_s if prediction else None,
        high_s=prediction.high_s if prediction else None,
        status=": ".join(filter(None, (prediction.status, prediction.reason))) if prediction else "not predicted",
        accuracy=(accuracy[0], accuracy[1].value) if accuracy else None,
        about=f"{result.name} {reported.source if reported else ''}",
        coverage=prediction.coverage if prediction else 1.0,
        interval=prediction.interval if prediction else None,
    )


def parse_accuracies(texts: Sequence[str]) -> dict[str, float]:
    """`--add-y NAME=VALUE` → the y of each prototype."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            raise UsageError(f"--add-y {text!r}: expected NAME=NUMBER, as my_model=78.2")
        found[name] = number
    return found


def place(data: FrontData, candidates: Sequence[Candidate], given_y: Mapping[str, float] | None = None) -> FrontData:
    """`data` with each candidate judged against its front. One without a prediction is listed among the omitted, with its status.

    Accuracy is that of `given_y` (by name or by MODEL as typed), else what the candidate's authors report, when that is the
    metric of y and is not said to be of another dataset; else unknown. Raises UsageError for an objective that a profile does
    not know, and for a name nobody has.
    """
    given_y = given_y or {}
    names = {name for c in candidates for name in (c.label, c.model)}
    for name in given_y:
        if name not in names:
            raise UsageError(
                f"--add-y {name!r}: no such prototype{nearest(name, names)}; added: {', '.join(sorted(names))}"
            )
    prototypes, omitted = [], list(data.omitted)
    for candidate in candidates:
        if data.x.key == "latency_s" and candidate.latency_s is None:
            reason = f"no latency_s on {candidate.device}: {candidate.status}"
            omitted.append(Omitted(f"{candidate.label} (predicted)", "", reason, candidate.model))
        else:
            prototypes.append(_judged(data, candidate, given_y))
    return replace(data, prototypes=(*data.prototypes, *prototypes), omitted=tuple(omitted))


def _judged(data: FrontData, candidate: Candidate, given_y: Mapping[str, float]) -> Prototype:
    x = _value(candidate, data.x, "--x")
    low, high = x, x
    is_predicted = data.x.key == "latency_s"
    if is_predicted:
        low = x if candidate.low_s is None else candidate.low_s
        high = x if candidate.high_s is None else candidate.high_s
    y = given_y.get(candidate.label, given_y.get(candidate.model))
    if y is None and candidate.accuracy and candidate.accuracy[0] == data.y.key and not _elsewhere(data, candidate):
        y = candidate.accuracy[1]
    if y is None and data.y.key in ("params", "macs"):
        y = _value(candidate, data.y, "--y")
    also = tuple(_value(candidate, axis, "--also") for axis in data.also)
    size = candidate.values.get(_quantity(data.size)) if data.size else None

    verdict: Verdict = "no accuracy"
    if y is not None:
        ends = [_dominated(data, (end, y, *also)) for end in (low, high)]
        verdict = "dominated" if all(ends) else "undecided" if any(ends) else "front"
    return Prototype(
        label=candidate.label,
        device=candidate.device,
        x=x,
        low=low,
        high=high,
        y=y,
        size=size,
        verdict=verdict,
        dominated_by=_dominator(data, (x, y, *also)) if y is not None else None,
        to_beat=_to_beat(data, x) if y is None else None,
        to_beat_low=_to_beat(data, low) if y is None else None,
        to_beat_high=_to_beat(data, high) if y is None else None,
        coverage=candidate.coverage if is_predicted else 1.0,
        interval=candidate.interval if is_predicted else None,
    )


def _elsewhere(data: FrontData, candidate: Candidate) -> bool:
    """Whether the candidate's mIoU or mAP is said to be of another dataset than the points'."""
    if data.dataset is None or data.y.key not in DENSE:
        return False
    about = candidate.about.casefold()
    named = [dataset for dataset in DATASETS if dataset.casefold() in about]
    return bool(named) and not any(dataset.casefold() == data.dataset.casefold() for dataset in named)


def _quantity(axis: Axis) -> str:
    quantity = quantity_of(axis.key)
    return quantity.name if quantity else ""


def _value(candidate: Candidate, axis: Axis, flag: str) -> float:
    name = _quantity(axis)
    if name == "latency" and candidate.latency_s is not None:
        return candidate.latency_s
    if name not in candidate.values:
        known = ", ".join(["latency", *candidate.values])
        raise UsageError(
            f"--add {candidate.model}: cannot know its {axis.columns[0]} ({flag}); a profile knows: {known}"
        )
    return candidate.values[name]


def _dominated(data: FrontData, values: Sequence[float]) -> bool:
    mine = signed(data, values)
    return any(dominates(costs(data, data.points[i]), mine) for i in data.front)


def _dominator(data: FrontData, values: Sequence[float]) -> int | None:
    return dominators([*(costs(data, point) for point in data.points), signed(data, values)])[-1]


def _to_beat(data: FrontData, x: float) -> int | None:
    """The point of best y among those no worse than `x`; of equals the first."""
    sign_x, sign_y = (1 if data.x.minimize else -1), (1 if data.y.minimize else -1)
    rivals = [i for i, point in enumerate(data.points) if sign_x * point.x <= sign_x * x]
    return min(rivals, key=lambda i: sign_y * data.points[i].y, default=None)
