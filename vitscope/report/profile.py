"""A Profile as a table for people, as JSON and as CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vitscope import __version__
from vitscope.cost.mes import Mes
from vitscope.latency.predict import Prediction
from vitscope.measure.record import Measurement
from vitscope.profile import Profile, Row
from vitscope.report.breakdown import UNEXPLAINED, attribution_text, column_title, row_times
from vitscope.report.measure import measurement_json, measurement_text, warning_lines
from vitscope.report.table import Column, Table
from vitscope.report.table import Row as Line
from vitscope.spec.value import Reported
from vitscope.units import UNKNOWN, count, fixed_milliseconds, milliseconds, percent, ratio, significant, size

SCHEMA_VERSION = 1
METRICS = {"top1": "top-1", "miou": "mIoU", "map": "mAP"}
_BAR = 8  # characters of the bar that shows a part's share of the latency
_EIGHTHS = " ▏▎▍▌▋▊▉"


def profile_table(profile: Profile) -> Table:
    """Rows with their share of the network, totals, and below them predictions, scores and what authors reported."""
    columns = [
        Column("part", "left"), Column("kind", "left"), Column("output"), Column("params"), Column("MACs"),
        Column("peak memory"),
    ]  # fmt: skip
    for p in profile.predictions:
        columns += [Column(p.device), Column("share", "left")][: _width(p)]
    measured = [row_times([row.path for row in profile.rows if row.level != "op"], m) for m in profile.measurements]
    for m in profile.measurements:
        columns += [Column(column_title(m, profile.measurements)), Column("share", "left")]
    opening = [_line(row, profile, measured) for row in profile.rows]
    floor = [_floor_line(profile)] if any(p.latency_s is not None for p in profile.predictions) else []
    if any(UNEXPLAINED in times for times in measured):
        floor.append(_unexplained_line(profile, measured))
    totals = profile.totals
    cells = [
        "total",
        "",
        "",
        count(totals.params),
        _macs(totals.macs, totals.unknown),
        size(totals.peak_activation_bytes),
    ]
    for p in profile.predictions:
        cells += [predicted_cell(p), ""][: _width(p)]
    for m in profile.measurements:
        cells += [fixed_milliseconds(m.summary.latency_p50_s), ""]
    return Table(
        columns=tuple(columns),
        rows=tuple(opening + floor),
        title=profile_title(profile),
        footer=(Line(tuple(cells), style="strong"),),
        notes=tuple(_notes(profile)),
    )


def summary_table(profiles: Sequence[Profile]) -> Table:
    """Several profiles side by side: one row each."""
    devices = list(dict.fromkeys(p.device for profile in profiles for p in profile.predictions))
    columns = [Column("model", "left"), Column("input"), Column("params"), Column("MACs"), Column("peak memory")]
    columns += [Column(device) for device in devices]
    ran = list(dict.fromkeys(m.condition.runtime for profile in profiles for m in profile.measurements))
    columns += [Column(f"{runtime}, measured") for runtime in ran]
    rows = []
    for profile in profiles:
        latency = {p.device: predicted_cell(p) for p in profile.predictions}
        medians = {m.condition.runtime: m.summary.latency_p50_s for m in profile.measurements}
        totals = profile.totals
        rows.append(
            Line(
                (
                    profile.name, "×".join(map(str, profile.input)), count(totals.params),
                    _macs(totals.macs, totals.unknown), size(totals.peak_activation_bytes),
                    *(latency.get(device, UNKNOWN) for device in devices),
                    *(fixed_milliseconds(medians.get(runtime)) for runtime in ran),
                )
            )
        )  # fmt: skip
    return Table(tuple(columns), tuple(rows), title="all together")


def profile_title(profile: Profile) -> str:
    """Name and everything that a count depends on: `efficientformerv2_s1 · 3×224×224 · train form · batch 1`."""
    parts = [profile.name, "×".join(map(str, profile.input)), f"{profile.form} form", f"batch {profile.batch}"]
    if profile.convention != "vitscope":
        parts.append(f"counted as {profile.convention} does")
    return " · ".join(parts)


def _macs(macs: int, unknown: tuple[str, ...]) -> str:
    return f"≥{count(macs)}" if unknown else count(macs)


def _width(prediction: Prediction) -> int:
    """Columns of a prediction: seconds and share, or one that says why there are none."""
    return 1 if prediction.latency_s is None else 2


def predicted_cell(prediction: Prediction) -> str:
    """The whole latency where a column has room for no more: `1.044 ms`, `1.044 ms (covers 96%)`, `not calibrated`."""
    if prediction.latency_s is None:
        return prediction.status
    return fixed_milliseconds(prediction.latency_s) + (f" ({covers})" if (covers := _covers(prediction)) else "")


def _covers(prediction: Prediction) -> str:
    return "" if prediction.coverage >= 1 else f"covers {percent(prediction.coverage)}"


def _line(row: Row, profile: Profile, measured: Sequence[Mapping[str, float]]) -> Line:
    cost = row.cost
    is_part = row.level == "op"
    cells = [row.path.rpartition(".")[2] if is_part else row.path, row.kind, row.out_shape, count(cost.params)]
    cells += [_macs(cost.macs, cost.unknown), size(cost.peak_activation_bytes)]
    if is_part:
        prefixes = (r.path for r in profile.rows if r.level == "block" and f"{row.path}.".startswith(f"{r.path}."))
        block = max(prefixes, key=len)
        cells[0] = row.path[len(block) + 1 :] or "(self)"
    for p, seconds in zip(profile.predictions, row.latency_s, strict=True):
        whole = p.latency_s
        if seconds is None or whole is None:
            cells += ["", ""][: _width(p)]
        else:
            cells += [fixed_milliseconds(seconds), f"{_bar(seconds / whole)} {percent(seconds / whole)}"]
    for m, times in zip(profile.measurements, measured, strict=True):
        cells += _measured_cells(m, None if is_part else times.get(row.path))
    has_ops = any(r.level == "op" for r in profile.rows)
    return Line(tuple(cells), depth=1 if is_part else 0, style="strong" if has_ops and not is_part else "")


def _floor_line(profile: Profile) -> Line:
    """What a device takes for any network at all, however small."""
    cells = ["(call overhead)", "", "", "", "", ""]
    for prediction in profile.predictions:
        if prediction.latency_s is None:
            cells.append("")
            continue
        share = prediction.floor_s / prediction.latency_s
        cells += [fixed_milliseconds(prediction.floor_s), f"{_bar(share)} {percent(share)}"]
    return Line((*cells, *("", "") * len(profile.measurements)), style="dim")


def _unexplained_line(profile: Profile, measured: Sequence[Mapping[str, float]]) -> Line:
    """What a runtime spent that its own profile gives to no single part."""
    cells = [UNEXPLAINED, "", "", "", "", "", *("" for p in profile.predictions for _ in range(_width(p)))]
    for m, times in zip(profile.measurements, measured, strict=True):
        cells += _measured_cells(m, times.get(UNEXPLAINED))
    return Line(tuple(cells), style="dim")


def _measured_cells(m: Measurement, seconds: float | None) -> list[str]:
    if seconds is None:
        return ["", ""]
    share = seconds / m.summary.latency_p50_s
    return [fixed_milliseconds(seconds), f"{_bar(share)} {percent(share)}"]


def _bar(share: float) -> str:
    """A share of the whole as a bar of `_BAR` characters for a half and more."""
    eighths = min(_BAR * 8, round(share * 2 * _BAR * 8))
    text = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return text.ljust(_BAR)


def _notes(profile: Profile) -> list[str]:
    notes = []
    if profile.is_partial:
        places = ", ".join(profile.totals.unknown[:3])
        more = f" and {len(profile.totals.unknown) - 3} more" if len(profile.totals.unknown) > 3 else ""
        notes.append(f"partial: {len(profile.totals.unknown)} operations could not be counted ({places}{more})")
    if profile.form == "train" and profile.convention == "vitscope":
        how = " (norms and layer scale folded, heads merged)" if profile.document else ""
        notes.append(f"deployed{how}: {profile.deploy_params:,} params")
    sizes = ", ".join(f"{size(n)} {name}" for name, n in profile.param_bytes.items())
    notes.append(f"{profile.totals.params:,} params, {profile.totals.macs:,} MACs; weights {sizes}")
    notes += [prediction_text(p) for p in profile.predictions]
    notes += [measurement_text(m) for m in profile.measurements]
    notes += [attribution_text(m) for m in profile.measurements]
    notes += warning_lines(profile.measurements)
    notes += [mes_text(score) for score in profile.mes]
    if profile.reported is not None:
        notes.append(reported_text(profile.reported, profile))
    if profile.note:
        notes.append(f"note: {profile.note}")
    notes += profile.notes
    return notes


def prediction_text(prediction: Prediction) -> str:
    """One line: what is predicted, its interval and its conditions; or why nothing is."""
    runs = f"{prediction.device} ({prediction.runtime}, {prediction.precision}, batch {prediction.batch})"
    covers = f", {covers} of the work" if (covers := _covers(prediction)) else ""
    if prediction.latency_s is None:
        bound = f"; at least {milliseconds(prediction.low_s)}" if prediction.low_s else ""
        return f"{runs}: {prediction.status}: {prediction.reason}{bound}{covers}"
    return (
        f"{runs}: {milliseconds(prediction.latency_s)} predicted, {percent(prediction.interval)} interval "
        f"{milliseconds(prediction.low_s)} to {milliseconds(prediction.high_s)}{covers}"
    )


def mes_text(score: Mes) -> str:
    """One line: the score with its working, and a warning when its unit is not the paper's."""
    text = f"MES {significant(score.score)} from {score.origin} latency on {score.device}: {score.working}"
    return (
        text
        if score.has_paper_unit
        else f"{text} (unit is not the paper's iPhone 12: compare with {score.device} only)"
    )


def reported_text(reported: Reported, profile: Profile) -> str:
    """One line: each printed figure beside what is computed here, and its source."""
    parts = []
    if reported.params is not None:
        parts.append(f"{reported.params.text} params ({_against(profile.totals.params, reported.params.value)})")
    if reported.macs is not None:
        parts.append(f"{reported.macs.text} MACs ({_against(profile.totals.macs, reported.macs.value)})")
    if reported.accuracy is not None:
        metric, figure = reported.accuracy
        parts.append(f"{figure.text} % {METRICS[metric]}")
    for device, figure in reported.latency:
        ours = next((p.latency_s for p in profile.predictions if p.device == device), None)
        beside = f" (predicted {_against(ours, figure.value)})" if ours is not None else ""
        parts.append(f"{figure.text} on {device}{beside}")
    return f"reported: {', '.join(parts)}; {reported.source}"


def _against(ours: float | None, theirs: float) -> str:
    return f"{UNKNOWN} here" if ours is None else f"{ratio(ours / theirs - 1)} here"


def profiles_json(profiles: Sequence[Profile]) -> dict[str, Any]:
    """Raw integers, seconds and bytes; `schema_version` changes when a key changes its meaning or goes."""
    return {
        "schema_version": SCHEMA_VERSION,
        "vitscope_version": __version__,
        "models": [_model_json(profile) for profile in profiles],
    }


def _model_json(profile: Profile) -> dict[str, Any]:
    totals = profile.totals
    return {
        "name": profile.name,
        "source": profile.source,
        "digest": profile.digest,
        "form": profile.form,
        "input": list(profile.input),
        "resolution": list(profile.resolution),
        "batch": profile.batch,
        "convention": profile.convention,
        "totals": _counts(totals) | {"weights_bytes": profile.param_bytes, "deploy_params": profile.deploy_params},
        "is_partial": profile.is_partial,
        "unknown_ops": list(totals.unknown),
        "rows": [
            {"path": row.path, "level": row.level, "kind": row.kind, "output": row.out_shape}
            | _counts(row.cost)
            | {"latency_s": {p.device: s for p, s in zip(profile.predictions, row.latency_s, strict=True)}}
            for row in profile.rows
        ],
        "predictions": [
            {key: value for key, value in asdict(prediction).items() if key != "shares"}
            for prediction in profile.predictions
        ],
        "measurements": [measurement_json(m) for m in profile.measurements],
        "mes": [asdict(score) | {"has_paper_unit": score.has_paper_unit} for score in profile.mes],
        "reported": _reported_json(profile.reported),
        "note": profile.note,
        "notes": list(profile.notes),
        "spec": json.loads(profile.document) if profile.document else None,
    }


def _counts(cost: Any) -> dict[str, int]:
    return {
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "read_bytes": cost.read_bytes,
        "write_bytes": cost.write_bytes,
        "peak_activation_bytes": cost.peak_activation_bytes,
    }


def _reported_json(reported: Reported | None) -> dict[str, Any] | None:
    if reported is None:
        return None
    figures = {key: getattr(reported, key) for key in ("params", "macs", "top1", "miou", "map")}
    return {
        **{key: figure.value if figure is not None else None for key, figure in figures.items()},
        "latency_s": {device: figure.value for device, figure in reported.latency},
        "source": reported.source,
    }


def profiles_csv(profiles: Sequence[Profile]) -> str:
    """One line a row of every profile, and one `total` line each: the columns that `vitscope pareto` reads."""
    text = io.StringIO()
    devices = list(dict.fromkeys(p.device for profile in profiles for p in profile.predictions))
    fields = ["model", "form", "height", "width", "batch", "convention", "part", "level", "kind", "output"]
    ran = list(dict.fromkeys(m.condition.runtime for profile in profiles for m in profile.measurements))
    fields += [*_counts(profiles[0].totals), *(f"latency_s_{device}" for device in devices)]
    fields += [*(f"measured_s_{runtime}" for runtime in ran), *METRICS]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for profile in profiles:
        common = {
            "model": profile.name, "form": profile.form, "height": profile.input[1], "width": profile.input[2],
            "batch": profile.batch, "convention": profile.convention,
        }  # fmt: skip
        parts = [row.path for row in profile.rows if row.level != "op"]
        measured = {f"measured_s_{m.condition.runtime}": row_times(parts, m) for m in profile.measurements}
        for row in profile.rows:
            times = {f"latency_s_{p.device}": _cell(s) for p, s in zip(profile.predictions, row.latency_s, strict=True)}
            if row.level != "op":
                times |= {name: _cell(found.get(row.path)) for name, found in measured.items()}
            part = {"part": row.path, "level": row.level, "kind": row.kind, "output": row.out_shape}
            writer.writerow({**common, **part, **_counts(row.cost), **times})
        times = {f"latency_s_{p.device}": _cell(p.latency_s) for p in profile.predictions}
        times |= {f"measured_s_{m.condition.runtime}": _cell(m.summary.latency_p50_s) for m in profile.measurements}
        accuracy = profile.reported.accuracy if profile.reported is not None else None
        scores = {accuracy[0]: accuracy[1].text} if accuracy is not None else {}
        writer.writerow({**common, "part": "total", "level": "total", **_counts(profile.totals), **times, **scores})
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
