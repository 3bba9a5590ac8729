"""compare: fields, totals and stages of two networks, and what may be concluded about their latency."""

from __future__ import annotations

import pytest

from vitscope.compare import Change, FieldChange, Subject, compare, spec_changes
from vitscope.latency.device import load_device
from vitscope.profile import deploy_graphs, profile_spec
from vitscope.report.compare import compare_tables, comparisons_csv, comparisons_json
from vitscope.report.table import plain
from vitscope.spec import load_spec


def _subject(model, *overrides, devices=()):
    spec = load_spec(model, list(overrides))
    return Subject(profile_spec(spec, devices, by="stage"), spec.document, deploy_graphs(spec))


@pytest.fixture(scope="module")
def device():
    return load_device("iphone12")


def test_changes_are_b_against_a():
    change = Change("params", 200, 150)
    assert (change.delta, change.relative) == (-50, -0.25)
    assert Change("x", None, 3).delta is None
    assert Change("x", 0, 3).relative is None


def test_spec_fields_are_found_by_path_in_the_order_of_a_spec():
    a, b = load_spec("efficientformerv2_s0"), load_spec("efficientformerv2_s1")
    paths = [change.path for change in spec_changes(a.document, b.document)]
    assert "stages.0.depth" in paths and "stages.3.width" in paths
    assert "name" not in paths and not any(path.startswith("reported") for path in paths)
    assert paths.index("stages.0.depth") < paths.index("stages.3.width")


def test_one_edit_is_one_field():
    a = load_spec("efficientformerv2_s1")
    b = load_spec("efficientformerv2_s1", ["stages.1.depth=2"])
    assert spec_changes(a.document, b.document) == (FieldChange("stages.1.depth", 3, 2),)


def test_totals_and_stages_agree(device):
    a, b = (_subject(m, devices=[device]) for m in ("efficientformerv2_s1", "efficientformerv2_s2"))
    result = compare(a, b, [device])
    totals = {change.metric: change for change in result.totals}
    assert (totals["MACs"].a, totals["MACs"].b) == (651_969_640, 1_246_863_952)
    for i, metric in enumerate(("params", "MACs")):
        assert sum(stage.changes[i].delta for stage in result.stages) == totals[metric].delta
    assert [stage.path for stage in result.stages] == ["stem", *(f"stages.{i}" for i in range(4)), "head"]
    moved = sum(stage.changes[2].delta for stage in result.stages)
    assert moved == pytest.approx(result.latencies[0].difference.delta_s)  # the floor is the same


def test_a_stage_that_only_one_has_is_named(tmp_path):
    (tmp_path / "short.yaml").write_text(
        "name: short\ninput: [3, 64, 64]\nstem: {block: conv_stem, width: 8}\nhead: classifier\n"
        "stages: [{depth: 1, width: 8, block: ffn}]\n"
    )
    (tmp_path / "long.yaml").write_text(
        "extends: short.yaml\nstages: [{depth: 1, width: 8, block: ffn}, {depth: 1, width: 16, block: ffn, downsample: conv}]\n"
    )
    result = compare(_subject(str(tmp_path / "short.yaml")), _subject(str(tmp_path / "long.yaml")))
    assert {stage.path: stage.only for stage in result.stages}["stages.1"] == "b"
    assert "(only long)" in plain(compare_tables(result)[-1])


def test_a_network_does_not_differ_from_itself(device):
    a = _subject("efficientformerv2_s1", devices=[device])
    result = compare(a, a, [device])
    assert result.fields == ()
    assert all(change.delta == 0 for change in result.totals)
    assert result.latencies[0].difference.verdict == "no difference that the predictor can tell"
    assert "no difference in params, MACs" in result.verdict


def test_dominance_needs_every_known_quantity(device):
    s0, s1, l1 = (
        _subject(m, devices=[device]) for m in ("efficientformerv2_s0", "efficientformerv2_s1", "efficientformer_l1")
    )
    assert compare(s0, s1, [device]).verdict.startswith("neither dominates")  # smaller and faster, less accurate
    edited = _subject("efficientformerv2_s1", "stages.1.depth=1", devices=[device])
    assert "stages" not in compare(s1, edited, [device]).verdict.split(":")[0]
    assert "accuracy unknown" in compare(s1, edited, [device]).verdict
    assert "reported top1" in compare(l1, s1, [device]).verdict


def test_an_uncounted_network_is_not_called_smaller(device):
    a, b = _subject("efficientformerv2_s0"), _subject("efficientformerv2_s1")
    from dataclasses import replace

    partial = replace(a.profile, totals=replace(a.profile.totals, unknown=("x: y",)))
    result = compare(Subject(partial, a.document, a.graphs), b)
    macs = next(change for change in result.totals if change.metric == "MACs")
    assert macs.a is None and macs.delta is None
    assert "MACs" in result.verdict.split("(")[-1]


def test_scores_of_different_devices_are_not_put_side_by_side():
    from dataclasses import replace

    from vitscope.cost.mes import mes

    a, b = _subject("efficientformerv2_s1"), _subject("mobilenetv2_100")
    assert [change.metric for change in compare(a, b).mes] == ["MES (reported latency on iphone12)"]
    elsewhere = replace(b.profile, mes=(mes(b.profile.totals.params, 1e-3, "pixel6", "reported"),))
    assert compare(a, Subject(elsewhere, b.document, b.graphs)).mes == ()


def test_renderings_hold_the_same_numbers(device):
    a, b = (_subject(m, devices=[device]) for m in ("efficientformerv2_s0", "efficientformerv2_s1"))
    result = compare(a, b, [device])
    data = comparisons_json([result])["comparisons"][0]
    assert next(t for t in data["totals"] if t["metric"] == "params")["delta"] == 6_185_560 - 3_600_256
    lines = comparisons_csv([result]).splitlines()
    assert lines[0] == "a,b,part,metric,value_a,value_b,delta,relative"
    assert "efficientformerv2_s0,efficientformerv2_s1,total,params,3600256,6185560,2585304," in "\n".join(lines)
    text = "\n".join(plain(table) for table in compare_tables(result))
    assert "3.60M" in text and "6.19M" in text and "+2.59M" in text and "80% interval" in text
