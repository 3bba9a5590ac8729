"""The zoo as a table, and its check: every figure that authors printed, held against what is computed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vitscope.cost.conventions import params_and_macs
from vitscope.cost.summary import cost_of
from vitscope.graph.store import block_graph
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.value import Figure, Spec
from vitscope.spec.zoo import zoo_names
from vitscope.units import printed_like

Agreement = Literal["rounded", "cut off", "explained", "unexplained"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A network of the zoo: counts of the train form at its own input, in vitscope's convention."""

    name: str
    family: str
    input: tuple[int, int, int]
    params: int
    macs: int
    metric: str
    accuracy: Figure | None
    paper: str
    note: str


@dataclass(frozen=True, slots=True)
class Check:
    """A printed figure beside the same quantity computed here, in the convention and form of its source.

    `ours` is written with the digits of the printed one. `cause` says why they differ, where the spec knows.
    """

    name: str
    figure: Literal["params", "macs"]
    printed: str
    ours: str
    value: int
    convention: str
    form: str
    agreement: Agreement
    cause: str
    source: str


def catalogue(patterns: Sequence[str] = (), family: str | None = None) -> tuple[Entry, ...]:
    """The networks whose name holds any of `patterns` (all, without) and whose family is `family`, by family and size."""
    entries = [_entry(spec) for spec in _specs(patterns, family)]
    return tuple(sorted(entries, key=lambda entry: (entry.family.lower(), entry.params, entry.name)))


def _specs(patterns: Sequence[str], family: str | None) -> Iterable[Spec]:
    for name in zoo_names():
        if patterns and not any(pattern.lower() in name.lower() for pattern in patterns):
            continue
        spec = load_spec(name)
        if family is None or spec.family.lower() == family.lower():
            yield spec


def families() -> tuple[str, ...]:
    """Every family of the zoo, sorted."""
    return tuple(sorted({load_spec(name).family for name in zoo_names()}))


def _entry(spec: Spec) -> Entry:
    costs = [cost_of(block_graph(place.block, place.in_shape)) for place in flow(spec)]
    metric, figure = (spec.reported.accuracy if spec.reported is not None else None) or ("", None)
    return Entry(
        spec.name, spec.family, spec.input, sum(c.params for c in costs), sum(c.macs for c in costs), metric, figure,
        spec.paper, spec.note,
    )  # fmt: skip


def check(patterns: Sequence[str] = (), family: str | None = None) -> tuple[Check, ...]:
    """Every reported params and macs of those networks, recomputed under the convention of its source."""
    return tuple(found for spec in _specs(patterns, family) for found in _checks(spec))


def _checks(spec: Spec) -> list[Check]:
    reported = spec.reported
    if reported is None or (reported.params is None and reported.macs is None):
        return []
    parts = [
        params_and_macs(block_graph(place.block, place.in_shape, reported.form), reported.convention)
        for place in flow(spec)
    ]
    ours = {"params": sum(params for params, _ in parts), "macs": sum(macs for _, macs in parts)}
    causes = dict(reported.differs)
    checks = []
    figures: tuple[tuple[Literal["params", "macs"], Figure | None], ...] = (
        ("params", reported.params),
        ("macs", reported.macs),
    )
    for key, figure in figures:
        if figure is None:
            continue
        rounded, cut = printed_like(ours[key], figure.text)
        agreement: Agreement = "explained" if key in causes else "unexplained"
        written = rounded
        if rounded == figure.text:
            agreement = "rounded"
        elif cut == figure.text:
            agreement, written = "cut off", cut
        checks.append(
            Check(
                spec.name, key, figure.text, written, ours[key], reported.convention, reported.form, agreement,
                causes.get(key, ""), reported.source,
            )
        )  # fmt: skip
    return checks
