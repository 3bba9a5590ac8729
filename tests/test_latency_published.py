"""Devices fitted on published tables: what ships can be refitted, is labelled, and holds what today's rules make of a network."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from types import ModuleType

import pytest
import torch

from vitscope.cli import main
from vitscope.errors import UsageError
from vitscope.graph.fold import fold_batch_norm
from vitscope.graph.trace import trace
from vitscope.latency.device import list_devices, load_device
from vitscope.latency.fit import coefficients
from vitscope.latency.kernels import lower
from vitscope.latency.predict import predict
from vitscope.latency.table import NetworkId, kernels_text, load_table, parse_table, rows_text
from vitscope.latency.transfer import network_s, scaled, transfer
from vitscope.latency.validate import validate

FITTED = [name for name in list_devices() if load_device(name).coefficients is not None]
TRANSFERRED = [name for name in FITTED if load_device(name).transfer_from]


def test_every_fitted_device_ships_its_table_and_every_other_says_why_it_has_none():
    for name in list_devices():
        device = load_device(name)
        if name in FITTED:
            table = load_table(device)
            assert {row.network for row in table.rows} <= set(table.kernels)
            assert device.harness in {row.harness for row in table.rows if not row.sign}
            assert all(row.source and row.latency_s > 0 for row in table.rows)
        else:
            assert len(device.roofline_only) > 20


def test_a_fit_of_its_own_has_twenty_five_networks_of_one_protocol():
    for name in set(FITTED) - set(TRANSFERRED):
        networks = {row.network for row in load_table(load_device(name)).rows if not row.sign}
        assert len(networks) >= 25, name


def test_a_small_table_gives_its_device_file_back():
    device = load_device("jetson_nano")
    report = validate(load_table(device), device)
    assert device.coefficients is not None and device.coefficients.agrees_with(coefficients(report.fitted))
    assert device.form == report.fitted.candidate.label


@pytest.mark.parametrize("name", TRANSFERRED)
def test_a_transfer_gives_its_device_file_back(name: str, capsys: pytest.CaptureFixture[str]):
    device = load_device(name)
    assert device.transfer_from in device.form
    assert main(["devices", "check", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.4 < found["factor"] < 1.6
    source = load_device(device.transfer_from)
    assert device.held_out is not None and source.held_out is not None
    assert device.held_out.bands[0].log_halfwidth > source.held_out.bands[0].log_halfwidth  # wider than its relative


def test_a_transfer_finds_the_factor_that_made_its_table():
    device, source = load_device("iphone14"), load_device("iphone13")
    c = source.coefficients
    assert c is not None
    table = load_table(device)
    made = tuple(
        replace(row, latency_s=1.1 * network_s(c, 2, table.kernels[row.network])) for row in table.rows if not row.sign
    )
    found = transfer(source, replace(table, rows=made), device)
    assert log(found.factor) == pytest.approx(log(1.1), rel=0.1)  # drawn a little to the prior, which is 1
    assert found.coefficients == scaled(c, found.factor)
    with pytest.raises(UsageError, match="has no network that runs whole"):
        transfer(source, replace(table, rows=()), device)
    with pytest.raises(UsageError, match="h200 is roofline only: nothing can be transferred from it"):
        transfer(load_device("h200"), table, device)


@pytest.mark.parametrize("name", ["iphone12", "jetson_nano", "a100", "i7_12700h"])
def test_the_kernels_that_ship_are_those_that_are_predicted(name: str, timm: ModuleType):
    # A rule of a runtime that changes without its tables would make the fit and the prediction two different things.
    device = load_device(name)
    network = next(
        n
        for n in sorted(load_table(device).kernels)
        if n.name.startswith(("mobilenetv2_1", "efficientvit_b1", "mobileone_s0", "fasternet_t0"))
    )
    with torch.device("meta"):
        module = timm.create_model(network.name).eval()
        if network.part != "train":
            from timm.utils.model import reparameterize_model  # type: ignore[import-not-found]

            module = reparameterize_model(module)
    graph = trace(module.to("meta"), torch.empty(1, 3, network.height, network.width, device="meta"))
    graph = graph if network.part == "train" else fold_batch_norm(graph)
    made = kernels_text({network: lower(graph, device.rules)})
    row = replace(load_table(device).rows[0], network=network, sign="")
    again = parse_table(rows_text([row]), made, name, device.batch)
    assert sorted(map(str, again.kernels[network])) == sorted(map(str, load_table(device).kernels[network]))


def test_a_prediction_is_of_the_batch_of_the_protocol(timm: ModuleType):
    device = load_device("a100")
    with torch.device("meta"):
        module = timm.create_model("mobilenetv2_100").eval()
    one, many = (
        predict(device, [fold_batch_norm(trace(module, torch.empty(n, 3, 224, 224, device="meta")))])
        for n in (1, device.batch)
    )
    assert one.status == "not calibrated" and "batch 1: the fit has seen batch 256 only" in one.reason
    assert many.status == "ok" and many.latency_s is not None and many.latency_s > many.floor_s


def test_networks_of_a_table_are_named_once():
    assert NetworkId("a", 224) == NetworkId("a", 224, 224)
