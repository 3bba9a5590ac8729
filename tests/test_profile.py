"""profile: sums equal wholes, forms, conventions, batches, and what needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from vitscope.cost.ops import macs
from vitscope.cost.summary import cost_of, op_costs, total
from vitscope.errors import SpecError, UsageError
from vitscope.graph.store import block_graph
from vitscope.graph.trace import trace
from vitscope.latency.device import load_device
from vitscope.latency.predict import predict
from vitscope.model import build, fuse_in_place
from vitscope.profile import deploy_graphs, profile, profile_spec
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.zoo import zoo_names


@pytest.mark.parametrize("name", zoo_names())
@pytest.mark.parametrize("form", ["train", "deploy"])
def test_the_sum_over_blocks_is_the_whole_network(name, form):
    spec = load_spec(name)
    with torch.device("meta"):
        model = build(spec)
        if form == "deploy":
            fuse_in_place(model)
        whole = trace(model, torch.empty(1, *spec.input))
    totals = profile_spec(spec, form=form).totals
    assert totals.params == sum(p.numel() for p in model.parameters())
    assert totals.macs == sum(macs(whole, op) for op in whole.ops)
    whole_cost = cost_of(whole)
    assert (totals.read_bytes, totals.write_bytes) == (whole_cost.read_bytes, whole_cost.write_bytes)
    assert totals.activations == whole_cost.activations
    assert totals.peak_activation_bytes == whole_cost.peak_activation_bytes
    assert not totals.unknown


@pytest.mark.parametrize("name", ["efficientformerv2_s1", "efficientformer_l1", "mobilenetv2_100"])
def test_rows_add_up_at_every_level(name):
    spec = load_spec(name)
    device = load_device("iphone12")
    for by in ("stage", "block", "op"):
        made = profile_spec(spec, [device], by=by)
        rows = [row for row in made.rows if row.level == by]
        assert sum(row.cost.params for row in rows) == made.totals.params, by
        assert sum(row.cost.macs for row in rows) == made.totals.macs, by
        assert sum(row.cost.read_bytes for row in rows) == made.totals.read_bytes, by
        assert max(row.cost.peak_activation_bytes for row in rows) == made.totals.peak_activation_bytes, by
        (prediction,) = made.predictions
        assert prediction.latency_s is not None
        parts = sum(row.latency_s[0] or 0.0 for row in rows)
        if by != "op":
            assert parts + prediction.floor_s == pytest.approx(prediction.latency_s)


def test_op_costs_add_up_to_the_block():
    for place in flow(load_spec("efficientformerv2_s1")):
        graph = block_graph(place.block, place.in_shape)
        assert total(op_costs(graph)) == cost_of(graph)


def test_the_known_figures_of_s1():
    made = profile("efficientformerv2_s1")
    assert made.totals.macs == 651_969_640
    assert made.totals.params == 6_185_560
    assert made.deploy_params == 5_886_296
    assert made.param_bytes == {"float32": 4 * 6_185_560, "float16": 2 * 6_185_560, "int8": 6_185_560}


def test_counts_are_for_one_image_and_bytes_for_the_batch():
    one, four = profile("efficientformerv2_s0"), profile("efficientformerv2_s0", batch=4)
    assert (one.totals.macs, one.totals.params) == (four.totals.macs, four.totals.params)
    assert four.totals.write_bytes == pytest.approx(4 * one.totals.write_bytes, rel=0.01)
    assert four.totals.peak_activation_bytes == 4 * one.totals.peak_activation_bytes


def test_an_edit_changes_what_it_should_and_drops_what_is_no_longer_true():
    base, edited = profile("efficientformerv2_s1"), profile("efficientformerv2_s1", overrides=["stages.0.expansion=3"])
    # three FFN blocks of width 32 lose 32 hidden channels each: two 1×1 weights, a 3×3, three biases of which one is of
    # the projection and stays, and the affine of two norms
    assert base.totals.params - edited.totals.params == 3 * (2 * 32 * 32 + 9 * 32 + 2 * 32 + 4 * 32)
    assert base.reported is not None and edited.reported is None
    assert edited.name == "efficientformerv2_s1 stages.0.expansion=3"


def test_resolution_moves_macs_and_bias_tables():
    made = profile("efficientformerv2_s0", resolution=(256, 256))
    assert (made.totals.macs, made.totals.params) == (524_840_704, 3_601_216)
    assert profile("efficientformerv2_s0", resolution=(224, 288)).totals.params == 3_601_152
    with pytest.raises(SpecError, match="192×192"):
        profile("efficientformerv2_s0", resolution=(200, 200))


def test_conventions_are_for_blocks():
    assert profile("efficientformerv2_s1", convention="snap").totals.macs != 651_969_640
    with pytest.raises(UsageError, match="--by block"):
        profile("efficientformerv2_s1", convention="snap", by="op")


def test_predictions_do_not_depend_on_the_form_shown():
    train, deploy = (profile("efficientformerv2_s1", devices=["iphone12"], form=f) for f in ("train", "deploy"))
    assert train.predictions == deploy.predictions
    spec = load_spec("efficientformerv2_s1")
    assert train.predictions == (predict(load_device("iphone12"), deploy_graphs(spec)),)


def test_scores_name_their_latency():
    made = profile("efficientformerv2_s1", devices=["iphone12"])
    assert [(s.origin, s.device) for s in made.mes] == [("predicted", "iphone12"), ("reported", "iphone12")]
    assert made.mes[1].score == pytest.approx(63.8, abs=0.05)


def test_a_known_network_is_profiled_without_torch(tmp_path):
    code = (
        "import sys, json; from vitscope.profile import profile; "
        "p = profile('efficientformerv2_s1', devices=['iphone12'], by='op'); "
        "print(json.dumps([p.totals.macs, 'torch' in sys.modules, 'numpy' in sys.modules]))"
    )
    environment = {"PATH": "/usr/bin:/bin", "VITSCOPE_CACHE": str(tmp_path)}
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
        )
        for _ in range(2)
    ]
    assert runs[0][:2] == [651_969_640, True]
    assert runs[1] == [651_969_640, False, False]
