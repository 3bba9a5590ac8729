"""The shipped fit comes out of the shipped table, with the shipped held-out error; and the fit finds what made its data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import exp, log

import numpy as np
import pytest

from vitscope.errors import UnavailableError, UsageError
from vitscope.latency.device import load_device
from vitscope.latency.fit import (
    LANES,
    THREE_TERM,
    Candidate,
    Features,
    candidates,
    coefficients,
    design,
    fit,
    predicted_s,
    priors,
)
from vitscope.latency.fitted import fitted_section, quantities
from vitscope.latency.kernels import Kernel
from vitscope.latency.predict import coefficients_cost
from vitscope.latency.score import HeldOutNetwork, halfwidth, score, wilson
from vitscope.latency.table import NetworkId, Row, Table, kernels_text, load_table, of_batch, parse_table, rows_text
from vitscope.latency.validate import OWN_FOLDS, Report, baseline_scores, in_band, validate

DEVICE = load_device("iphone12")
TABLE = load_table(DEVICE)
REFERENCE_HARNESS = DEVICE.harness


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    yield validate(TABLE, DEVICE)


def test_the_refit_gives_the_shipped_coefficients(report: Report):
    assert DEVICE.form == report.fitted.candidate.label
    assert DEVICE.coefficients is not None
    assert DEVICE.coefficients.agrees_with(coefficients(report.fitted))


def test_the_shipped_error_is_the_one_found_again(report: Report):
    assert DEVICE.held_out is not None
    assert DEVICE.held_out.difference == pytest.approx(report.differences.factor, rel=0.01)
    assert [band.pixels for band in DEVICE.held_out.bands] == list(report.bands) == [300 * 300, 512 * 512]
    for i, band in enumerate(DEVICE.held_out.bands):
        rows = in_band(report.held_out, report.bands, i)
        found = score(rows)
        assert (band.networks, band.families) == (found.networks, found.families)
        assert band.log_halfwidth == pytest.approx(halfwidth(rows), rel=0.01)
        assert band.mape == pytest.approx(found.mape, rel=0.01)
        assert band.spearman == pytest.approx(found.spearman, abs=0.005)
        assert band.within_10 == pytest.approx(found.within_10, abs=1.01 / found.networks)


def test_the_fit_beats_its_baselines_on_the_same_families(report: Report):
    ours, everything = score(in_band(report.held_out, report.bands, 0)), score(report.held_out)
    for label, baseline in report.baselines:
        mine = ours if label.endswith("pixels") else everything
        assert mine.mape < baseline.mape, label
        assert mine.spearman > baseline.spearman, label


def test_pairs_called_different_are(report: Report):
    assert report.differences.right >= 0.9
    assert report.differences.pairs > 1000


def test_no_family_is_predicted_by_a_fit_that_saw_it(report: Report):
    assert {row.network for row in report.held_out} == {row.network for row in TABLE.rows if not row.sign}
    v1 = next(row for row in TABLE.rows if row.network.name == "efficientformer_l1")
    v2 = next(row for row in TABLE.rows if row.network.name == "efficientformerv2_s1")
    assert v1.lineage == v2.lineage  # one line of design, held out together


def test_the_device_file_is_what_the_script_writes(report: Report):
    from vitscope.latency.device import DEVICES

    text = (DEVICES / "iphone12.yaml").read_text()
    written = fitted_section(report, TABLE, DEVICE, "")
    for line in written.splitlines():
        if line.strip().startswith(("form:", "overlap:", "spill:", "weight_bytes:", "kernels:", "pixels:")):
            assert line in text
    assert {r.key: r.high for r in DEVICE.ranges} == {key: max(values) for key, values in quantities(TABLE, 2).items()}


# The fit on data that a known model made


def made_table(candidate: Candidate, values: dict[str, float], offset: float = 0.0) -> Table:
    rng = np.random.default_rng(0)
    kernels: dict[NetworkId, tuple[tuple[int, Kernel], ...]] = {}
    rows = []
    for i in range(24):
        network = NetworkId(f"net{i:02}", 224)
        scale = 10 ** rng.uniform(0, 1, 4)
        kernels[network] = tuple(
            (
                int(rng.integers(1, 5)),
                Kernel("pointwise", "", int(2e7 * s), int(3e5 * t), int(4e5 * u), int(3e5 * v), 64, ()),
            )
            for s, t, u, v in (scale * 10 ** rng.uniform(-0.3, 0.3, 4) for _ in range(6))
        )
        rows.append(Row(network, "", f"family{i % 6}", REFERENCE_HARNESS, "", 1.0, "high", "", ""))
    unmeasured = Table(tuple(rows), kernels)
    features = Features(design(unmeasured, DEVICE), candidate)
    seconds = features.parts(np.array([values[name] for name in features.names])).sum(1)
    made = dict(zip(features.data.networks, map(float, seconds), strict=True))
    measured = [replace(row, latency_s=made[row.network]) for row in rows]
    if offset:
        measured += [replace(row, harness="another", latency_s=row.latency_s * exp(offset)) for row in measured[::2]]
    return Table(tuple(measured), kernels)


TRUTH = {"floor": 0.4e-3, "weights": 4e-11, "spilled": 3e-11, "resident": 4e-12, "macs": 4e-13, "taps": 1e-11}


@pytest.mark.parametrize("overlap", ["none", "kernel", "network"])
def test_the_fit_finds_the_model_that_made_the_data(overlap: str):
    candidate = Candidate(("weights", "spilled", "macs"), overlap, "kernel", 2e6)  # type: ignore[arg-type]
    table = made_table(candidate, TRUTH)
    features = Features(design(table, DEVICE), candidate)
    fitted = fit(features, np.ones(24, bool))
    assert np.log(predicted_s(features, fitted)) == pytest.approx(features.data.log_s, abs=0.02)
    assert fitted.values["weights"] == pytest.approx(TRUTH["weights"], rel=0.15)
    assert fitted.values["floor"] == pytest.approx(TRUTH["floor"], rel=0.3)


def test_the_offset_of_a_harness_is_found_and_kept_out_of_the_prediction():
    table = made_table(THREE_TERM, TRUTH, offset=0.1)
    features = Features(design(table, DEVICE), THREE_TERM)
    fitted = fit(features, np.ones(24, bool))
    assert fitted.offsets["another"] == pytest.approx(0.1, abs=0.02)
    assert fitted.offsets[REFERENCE_HARNESS] == pytest.approx(0, abs=1e-6)


def test_the_fit_and_the_predictor_have_one_formula():
    for candidate in candidates(DEVICE, len(TABLE.kernels)):
        features = Features(design(TABLE, DEVICE), candidate)
        fitted = fit_values(candidate)
        c = coefficients(fitted)
        expected = features.parts(np.array([fitted.values[name] for name in features.names])).sum(1)
        for i in (0, len(features.data.networks) // 2):
            costs = [(n, coefficients_cost(c, 2, k)) for n, k in TABLE.kernels[features.data.networks[i]]]
            traffic, compute = sum(n * x.traffic_s for n, x in costs), sum(n * x.compute_s for n, x in costs)
            total = c.floor_s + sum(n * x.start_s for n, x in costs)
            total += {
                "none": traffic + compute,
                "network": max(traffic, compute),
                "kernel": sum(n * max(x.traffic_s, x.compute_s) for n, x in costs),
            }[c.overlap]
            assert expected[i] == pytest.approx(total, rel=1e-9), candidate.label


def fit_values(candidate: Candidate):
    from vitscope.latency.fit import Fit

    values = {name: TRUTH.get(name, 1e-6) for name in ("floor", *candidate.terms)}
    return Fit(candidate, values, {})  # type: ignore[arg-type]


def test_priors_are_the_facts_with_the_shares_that_are_reached():
    found = priors(DEVICE)
    assert 1 / found["macs"][0] == pytest.approx(0.36 * 5.5e12)
    assert 1 / found["weights"][0] == pytest.approx(0.73 * 34.1e9)
    assert found["weights"][1] == pytest.approx((0.4**2 + 0.3**2) ** 0.5)  # the fact is unconfirmed
    assert found["macs"][1] == pytest.approx(0.7)  # this one is not


def test_a_batch_fills_any_chip_so_nothing_is_held_to_stay_on_it():
    forms = candidates(load_device("a100"), 40)
    assert not any({"resident", "vector"} & set(form.terms) or form.knee_bytes for form in forms)
    assert any(form.lanes == LANES for form in forms)


def test_many_families_are_held_out_in_groups():
    candidate = THREE_TERM
    table = made_table(candidate, TRUTH)
    many = Table(tuple(replace(row, lineage=f"family{i}") for i, row in enumerate(table.rows)), table.kernels)
    assert len({row.lineage for row in many.rows}) > OWN_FOLDS
    report = validate(many, DEVICE, (candidate,))
    assert report.folds == 10
    assert {row.network for row in report.held_out} == set(many.kernels)
    assert score(report.held_out).mape < 0.03  # the form that made the data


# Scores, by hand


def held(name: str, family: str, predicted: float, measured: float) -> HeldOutNetwork:
    return HeldOutNetwork(NetworkId(name, 224), family, predicted, measured, "")


def test_score_by_hand():
    rows = [held("a", "x", 1.1, 1.0), held("b", "x", 2.0, 2.0), held("c", "y", 2.4, 3.0)]
    found = score(rows)
    assert found.mape == pytest.approx((0.1 + 0.0 + 0.2) / 3)
    assert found.median == pytest.approx(0.1)
    assert (found.within_5, found.spearman, found.decisions) == (pytest.approx(1 / 3), 1.0, 1.0)
    assert (found.worst_family, found.worst_mape) == ("y", pytest.approx(0.2))
    assert found.bias == pytest.approx((1.1 * 1.0 * 0.8) ** (1 / 3) - 1)
    wrong = score([held("a", "x", 2.0, 1.0), held("b", "x", 1.0, 2.0)])
    assert wrong.spearman == pytest.approx(-1)
    assert (wrong.decisions, wrong.family_decisions) == (0.0, 0.0)


def test_the_halfwidth_is_the_corrected_quantile():
    rows = [held(str(i), "x", exp(i / 100), 1.0) for i in range(1, 10)]
    assert halfwidth(rows, 0.8) == pytest.approx(0.08)  # ceil(10 * 0.8) = the 8th of 9
    assert halfwidth(rows[:2], 0.8) == pytest.approx(0.02)  # too few for the level: the largest


def test_wilson_by_the_book():
    low, high = wilson(15 / 24, 24)
    assert (round(low, 2), round(high, 2)) == (0.43, 0.79)


def test_log_error():
    assert held("a", "x", 1.1, 1.0).log_error == pytest.approx(log(1.1))


# Tables


def test_tables_survive_writing_and_reading():
    spread = {n: tuple(k for count, k in found for _ in range(count)) for n, found in TABLE.kernels.items()}
    again = parse_table(rows_text(TABLE.rows), kernels_text(spread), "t")
    assert again.rows == TABLE.rows
    assert {n: set(found) for n, found in again.kernels.items()} == {
        n: set(found) for n, found in TABLE.kernels.items()
    }


def test_kernels_of_a_batch_read_their_weights_once():
    kernel = Kernel("conv", "", 100, 20, 30, 40, 3, ())
    assert of_batch(kernel, 8) == Kernel("conv", "", 800, 160, 30, 320, 3, ())
    assert of_batch(kernel, 1) is kernel


def test_an_input_that_is_no_square_survives_writing_and_reading():
    row = replace(TABLE.rows[0], network=NetworkId("a", 1024, 2048), sign="")
    again = parse_table(rows_text([row]), kernels_text({row.network: (Kernel("conv", "", 8, 2, 3, 4, 1, ()),)}), "t")
    assert again.rows == (row,) and row.network.pixels == 1024 * 2048 and row.network.side == "1024x2048"
    assert NetworkId("a", 224).side == "224"


def test_rows_that_the_rules_refuse_are_kept_but_not_fitted():
    refused = [row for row in TABLE.rows if row.sign]
    assert {row.network.name for row in refused} >= {"deit_tiny_patch16_224", "mobilevit_xs", "mobilenetv3_large_100"}
    assert not {row.network for row in refused} & set(design(TABLE, DEVICE).networks)


def test_bad_tables_are_clear_errors():
    rows, kernels = rows_text(TABLE.rows[:3]), kernels_text({})
    with pytest.raises(UsageError, match="the table has no column 'network'"):
        parse_table("a,b\n1,2\n", kernels, "t")
    with pytest.raises(UsageError, match=r"t_rows.csv:2: latency_ms must be a number, got 'fast'"):
        parse_table(rows.replace(f"{TABLE.rows[0].latency_s * 1e3:g},", "fast,", 1), kernels, "t")
    with pytest.raises(UsageError, match="no kernels of"):
        parse_table(rows, kernels, "t")
    with pytest.raises(UsageError, match="holds 0 families"):
        validate(Table((), {}), DEVICE)
    two = tuple(row for row in TABLE.rows if row.lineage in ("NFNet", "RegNet"))
    with pytest.raises(UsageError, match="holds 2 families; leave-one-family-out needs at least 3"):
        validate(Table(two, TABLE.kernels), DEVICE)
    with pytest.raises(UnavailableError, match="no measurements of 'h200' ship"):
        load_table(load_device("h200"))


def test_baselines_need_no_choice():
    labels = [label for label, _ in baseline_scores(TABLE, DEVICE)]
    assert labels[0] == "constant" and "floor + weights + activations" in labels
