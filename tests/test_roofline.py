"""The roofline of a network on a device: its arithmetic by hand, what adds up, what the figure says, and what is refused."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vitscope.cli import main
from vitscope.errors import UsageError
from vitscope.graph.record import Graph
from vitscope.graph.trace import trace
from vitscope.latency.class_cost import ClassCosts, Memory
from vitscope.latency.device import Device, load_device
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.predict import predict, segment_cost
from vitscope.latency.roofline import Roofline, memory_bytes, roofline
from vitscope.plot.palette import INK, style
from vitscope.plot.roofline import draw_roofline, headline, joined, marks

IPHONE12 = replace(load_device("iphone12"), ranges=())  # nothing is too small for it
H200 = load_device("h200")
PATHS = ("stem", "stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0")
SVG = "{http://www.w3.org/2000/svg}"


def fitted(**changes: Any) -> Device:
    assert IPHONE12.coefficients is not None
    return replace(IPHONE12, name="test", coefficients=replace(IPHONE12.coefficients, **changes))


def graph_of(module: nn.Module, *shape: int) -> Graph:
    return trace(module.to("meta"), torch.empty(shape, device="meta"))


def network() -> list[Graph]:
    """Four blocks, the second and third alike."""
    stem = nn.Conv2d(3, 32, 3, 2, 1)
    same = nn.Sequential(nn.Conv2d(32, 128, 1), nn.GELU(), nn.Conv2d(128, 32, 1))
    wide = nn.Sequential(nn.Conv2d(32, 512, 1), nn.GELU(), nn.Conv2d(512, 512, 3, padding=1, groups=512))
    repeated = graph_of(same, 1, 32, 28, 28)
    return [graph_of(stem, 1, 3, 56, 56), repeated, repeated, graph_of(wide, 1, 32, 28, 28)]


def path_of(index: int, scope: str) -> tuple[str, str]:
    return PATHS[index], ".".join(PATHS[index].split(".")[:2])


def made(device: Device = IPHONE12, graphs: list[Graph] | None = None) -> Roofline:
    return roofline(device, graphs or network(), path_of)


def drawn(data: Roofline) -> str:
    return draw_roofline(data, "svg", "a network").content.decode()


# ---- the data


def test_bytes_of_main_memory_are_weights_and_what_leaves_the_chip():
    kernel = Kernel("pointwise", "", macs=6400, reads=100, weights=50, writes=400, depth=16, ops=())
    sizes = {"spill": "kernel", "knee_bytes": 1000.0}
    assert memory_bytes(fitted(**sizes), kernel, activations=True) == 50 * 2  # (100 + 400) * 2 bytes stay
    assert memory_bytes(fitted(**sizes), replace(kernel, reads=101), activations=True) == 50 * 2 + 501 * 2
    # by operand, only the 800 bytes that are written are above 700
    assert memory_bytes(fitted(spill="operand", knee_bytes=700.0), kernel, activations=True) == 50 * 2 + 400 * 2
    assert memory_bytes(fitted(spill="operand", knee_bytes=700.0), kernel, activations=False) == 50 * 2
    assert memory_bytes(H200, kernel, activations=True) == 50 * 2


def test_bytes_of_a_calibrated_device_come_from_afar_as_its_fit_has_it():
    memory = Memory(
        1e-11, ((3000.0, 1e-10),), 1e7, cold_call_s=0.0, cold_start_s=0.0, spill_byte_s=0.0, spill_product_byte_s=0.0,
        arena_byte_s=0.0, window_bytes=4e4, window_more=0.0,
    )  # fmt: skip
    classes = ClassCosts(0.0, memory, {}, {})
    device = replace(IPHONE12, coefficients=None, classes=classes)
    kernel = Kernel("pointwise", "", macs=6400, reads=100, weights=0, writes=400, depth=16, ops=())
    assert memory_bytes(device, kernel, activations=True) == 1000 * 1000**2 / (1000**2 + 3000**2)
    assert memory_bytes(device, replace(kernel, reads=0, writes=0), activations=True) == 0


@pytest.mark.parametrize("overlap", ["none", "kernel", "network"])
def test_shares_and_the_floor_are_the_whole_latency(overlap: str):
    device, graphs = fitted(overlap=overlap), network()
    data, prediction = made(device, graphs), predict(device, graphs)
    assert prediction.latency_s is not None and data.prediction == prediction
    assert sum(block.share for block in data.blocks) + data.floor_share == pytest.approx(1)
    assert [b.share * prediction.latency_s for b in data.blocks] == pytest.approx(prediction.shares)
    assert [block.path for block in data.blocks] == list(PATHS)
    assert [b.macs for b in data.blocks] == [segment_cost(device, graph).macs for graph in graphs]
    for block, share_s in zip(data.blocks, prediction.shares, strict=True):
        if overlap == "network":  # what it takes alone, the network may hide
            assert block.seconds >= share_s * (1 - 1e-9)
        else:
            assert block.seconds == pytest.approx(share_s)


def test_intensity_and_rate_by_hand():
    stem = made().blocks[0]
    macs = 32 * 28 * 28 * 3 * 9
    weights = (32 * 3 * 9 + 32) * 2  # fp16, with bias; all activations stay on the chip
    assert (stem.macs, stem.memory_bytes) == (macs, weights)
    assert stem.intensity == macs / weights and stem.macs_per_s == pytest.approx(macs / stem.seconds)


def test_kernels_of_one_graph_go_to_their_blocks():
    whole = graph_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 16, 1)), 1, 3, 32, 32)
    data = roofline(IPHONE12, [whole], lambda _, scope: (f"part {scope}", scope))
    assert [block.path for block in data.blocks] == ["part 0", "part 2"]
    assert sum(b.macs for b in data.blocks) == sum(k.macs for k in lower(whole, IPHONE12.rules))
    assert sum(b.share for b in data.blocks) + data.floor_share == pytest.approx(1)


def test_without_a_prediction_blocks_stand_at_their_bound_and_never_above_the_roof():
    data = made(H200)
    assert data.prediction.latency_s is None and data.floor_share == 0
    assert sum(block.share for block in data.blocks) == pytest.approx(1)
    assert sum(block.seconds for block in data.blocks) == pytest.approx(data.prediction.low_s)
    for block in data.blocks:
        assert block.macs_per_s is not None and block.intensity is not None
        assert block.macs_per_s <= data.roof(block.intensity) * (1 + 1e-9)


def test_the_roof_bends_at_the_ridge():
    data = made(H200)
    peak, bandwidth = H200.fact("peak_macs_per_s"), H200.fact("memory_bytes_per_s")
    assert peak and bandwidth and data.ridge == peak / bandwidth
    assert (data.roof(data.ridge / 4), data.roof(data.ridge), data.roof(data.ridge * 4)) == (peak / 4, peak, peak)


@pytest.mark.parametrize(("kept", "named"), [(("peak_macs_per_s",), "memory_bytes_per_s"), ((), "peak_macs_per_s and")])
def test_a_device_without_peaks_has_no_roof(kept: tuple[str, ...], named: str):
    facts = tuple(fact for fact in IPHONE12.facts if fact.key in kept)
    with pytest.raises(UsageError, match=f"its device file does not state {named}"):
        made(replace(IPHONE12, facts=facts))


# ---- the figure


def test_blocks_that_are_alike_are_one_mark():
    data = made()
    found = {mark.paths: mark for mark in marks(data)}
    alike = found["stages.0.blocks.0", "stages.0.blocks.1"]
    assert len(found) == 3 and alike.share == pytest.approx(2 * data.blocks[1].share)
    shares = [mark.share for mark in marks(data)]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["stem"], "stem"),
        (
            ["stages.2.blocks.1", "stages.2.blocks.2", "stages.2.blocks.3", "stages.2.blocks.7"],
            "stages.2.blocks.1–3, 7",
        ),
        (["blocks.4.1", "blocks.4.2"], "blocks.4.1, 2"),
        (["stem", "stages.0.blocks.0", "stages.1.blocks.0"], "stem, stages.0.blocks.0, stages.1.blocks.0"),
    ],
)
def test_paths_with_a_common_beginning_are_written_as_one(paths: list[str], text: str):
    assert joined(paths) == text


def test_the_figure_names_roof_ridge_stages_and_blocks():
    data = made()
    content = drawn(data)
    texts = (
        "a network on iphone12: roofline", "stem", "stages.0", "stages.1", "roof of the stated peaks", "peak 5.50TMAC/s",
        "memory 34.1GB/s (unconfirmed)", "ridge 161 MACs/B", "Share of latency", headline(data),
        "Arithmetic intensity (MACs per byte of main memory, log scale)", "Attained (TMAC/s, log scale)",
        *(mark.name for mark in marks(data)),
    )  # fmt: skip
    for text in texts:
        assert f"<!-- {text} -->" in content, text
    assert any(mark.name.startswith("stages.0.blocks.0, 1: ") for mark in marks(data))


def test_every_mark_has_the_colour_of_its_stage():
    fills = []
    for use in ET.fromstring(drawn(made())).iter(f"{SVG}use"):
        parts = dict(p.strip().split(": ") for p in use.get("style", "").split(";") if ": " in p)
        if "x" in use.attrib and "fill-opacity" not in parts and "fill" in parts and parts["fill"] != INK.lower():
            fills.append(parts["fill"].upper())
    # three stages, each with a mark and an entry of the legend
    assert [fills.count(style(i).colour) for i in range(3)] == [2, 2, 2]


def test_a_refused_network_stands_at_its_bounds_and_says_so():
    data = made(H200)
    content = drawn(data)
    assert headline(data).startswith("not calibrated, at least ") and f"<!-- {headline(data)} -->" in content
    assert "<!-- At most attainable (TMAC/s, log scale) -->" in content and "<!-- Share of all bounds -->" in content
    assert "Attained" not in content and "predicted" not in content


def test_what_has_no_place_or_lies_above_the_roof_is_told():
    pool = graph_of(nn.AdaptiveAvgPool2d(1), 1, 512, 28, 28)
    data = made(graphs=[*network()[:3], pool])
    notes = draw_roofline(data, "svg", "a network").notes
    assert any("multiply nothing or read nothing from main memory: stages.1.blocks.0 (" in note for note in notes)
    slow = tuple(replace(fact, value=fact.value / 1e4) for fact in IPHONE12.facts)
    above = draw_roofline(made(replace(IPHONE12, facts=slow)), "svg", "a network").notes
    assert any(note.startswith("above the roof: ") and "memory_bytes_per_s unconfirmed" in note for note in above)


def test_a_network_without_products_is_refused():
    with pytest.raises(UsageError, match="no block of pools multiplies anything"):
        draw_roofline(made(graphs=[graph_of(nn.AvgPool2d(2), 1, 8, 28, 28)]), "svg", "pools")


@pytest.mark.parametrize("form", ["svg", "png"])
def test_the_same_data_gives_the_same_bytes(form: Any):
    data = made()
    assert draw_roofline(data, form, "a network") == draw_roofline(data, form, "a network")


# ---- the command


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["profile", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_profile_draws_the_blocks_that_its_table_shows(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "roof.svg"
    arguments = ("mobileone_s0", "--device", "iphone12", "--roofline", path)
    code, out, err = call(capsys, *arguments)
    content = path.read_text(encoding="utf-8")
    assert code == 0 and "stages.3.blocks" in out and f"wrote {path}" in err
    assert "<!-- mobileone_s0 on iphone12: roofline -->" in content and "<!-- stages.3 -->" in content
    code, _, err = call(capsys, *arguments)
    assert code == 2 and "already exists, will not overwrite without --force" in err
    assert call(capsys, *arguments, "--set", "stages.3.width=512", "--force")[0] == 0
    changed = path.read_text(encoding="utf-8")
    assert changed != content and "<!-- mobileone_s0 stages.3.width=512 on iphone12: roofline -->" in changed


def test_profile_draws_a_network_that_is_no_spec(capsys: pytest.CaptureFixture[str], tmp_path: Path, timm: object):
    path = tmp_path / "roof.svg"
    arguments = ("timm:mobilenetv2_035", "--resolution", "64", "--device", "raspberry_pi5", "--roofline", path)
    code, out, _ = call(capsys, *arguments)
    content = path.read_text(encoding="utf-8")
    assert code == 0 and "not calibrated" in out
    assert "<!-- timm:mobilenetv2_035 on raspberry_pi5: roofline -->" in content and "<!-- blocks.6 -->" in content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mobileone_s0", "--roofline", "out.svg"), "--roofline: the roof of which device? Add --device NAME"),
        (("mobileone_s0", "--device", "iphone12", "--roofline", "out.svgg"), "--roofline out.svgg: cannot tell the format"),
        (("mobileone_s0", "--device", "iphone12", "--roofline", "nowhere/out.svg"), "the folder nowhere does not exist"),
        (("mobileone_s0", "--device", "iphone12", "--device", "h200", "--roofline", "out.svg"), "one network on one device"),
        (("mobileone_s0", "mobileone_s1", "--device", "iphone12", "--roofline", "out.svg"), "one network on one device"),
        (("mobileone_s0", "--device", "iphone112", "--roofline", "out.svg"), "did you mean 'iphone12'"),
    ],
)  # fmt: skip
def test_refusals_are_one_line_and_come_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, message: str
):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "") and message in err and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
