"""The networks that ship: which there are, what they say of themselves, and the shapes that flow through them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
import yaml
from networks import FOUNDERS

import vitscope
from vitscope.blocks import build_block
from vitscope.errors import SpecError
from vitscope.model import build
from vitscope.spec import load_spec
from vitscope.spec.flow import flow
from vitscope.spec.grammar import BlockSpec
from vitscope.spec.load import at_resolution
from vitscope.spec.shape import FeatureShape
from vitscope.spec.value import Spec
from vitscope.spec.zoo import zoo_folder, zoo_names, zoo_path

LADDER = [f"efficientformerv2_ladder_{row}" for row in (0, 1, 2, 3, 5, 6, 7, 8)]  # nothing but totals is known of row 4
NAMES = {
    "efficientformer_l1", "efficientformer_l3", "efficientformer_l7", "efficientformerv2_l", "efficientformerv2_s0",
    "efficientformerv2_s1", "efficientformerv2_s2", "mobilenetv2_100", "mobilenetv2_140", *LADDER,
}  # fmt: skip


def test_which_networks_ship() -> None:
    assert set(FOUNDERS) == NAMES


def test_every_other_network_is_proven_by_name_in_a_file_of_its_family() -> None:
    proven = "\n".join(path.read_text() for path in Path(__file__).parent.glob("families/test_*.py"))
    assert [name for name in zoo_names() if name not in NAMES and not re.search(rf"(\b|_){name}(\b|_)", proven)] == []


def test_a_name_is_one_file_and_a_file_is_its_name() -> None:
    files = list(zoo_folder().rglob("*.yaml"))
    assert len(files) == len(zoo_names()), "two files of one name"
    for name in zoo_names():
        path = zoo_path(name)
        assert path is not None
        assert path.stem == load_spec(name).name == load_spec(path).name == name


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_network_says_where_it_comes_from(name: str) -> None:
    spec = load_spec(name)
    assert spec.family
    assert "arXiv" in spec.paper
    assert spec.input == (3, 224, 224)
    assert spec.reported is not None
    assert spec.reported.macs is not None
    assert spec.reported.top1 is not None
    assert spec.reported.latency_s("iphone12") is not None
    assert "arXiv" in spec.reported.source
    # Reconstructions say so; row 8's printed parameter count is in doubt, and its note says that.
    assert bool(spec.note) == ("ladder" in name)
    assert (spec.reported.params is None) == (name == LADDER[-1])


# top-1 in percent and iPhone 12 latency in ms (facts A.6 and G; iOS 16, Core ML)
REPORTED = {
    "efficientformerv2_s0": (75.7, 0.9), "efficientformerv2_s1": (79.0, 1.1), "efficientformerv2_s2": (81.6, 1.6),
    "efficientformerv2_l": (83.3, 2.7), "efficientformer_l1": (79.2, 1.4), "efficientformer_l3": (82.4, 2.7),
    "efficientformer_l7": (83.3, 6.6), "mobilenetv2_100": (71.8, 0.9), "mobilenetv2_140": (74.7, 1.2),
    "efficientformerv2_ladder_0": (79.2, 1.4), "efficientformerv2_ladder_1": (79.8, 1.4),
    "efficientformerv2_ladder_2": (80.3, 1.4), "efficientformerv2_ladder_3": (80.5, 1.3),
    "efficientformerv2_ladder_5": (80.8, 1.3), "efficientformerv2_ladder_6": (81.7, 3.5),
    "efficientformerv2_ladder_7": (81.5, 1.5), "efficientformerv2_ladder_8": (81.8, 1.6),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(NAMES))
def test_reported_accuracy_and_latency(name: str) -> None:
    reported = load_spec(name).reported
    assert reported is not None
    assert reported.top1 is not None
    assert (reported.top1.value, reported.latency_s("iphone12")) == (
        REPORTED[name][0],
        pytest.approx(REPORTED[name][1] * 1e-3),
    )


@pytest.mark.parametrize("name", sorted(NAMES - set(LADDER)))
def test_reported_figures_stand_in_the_table_of_published_measurements(name: str) -> None:
    wanted = {"mobilenetv2_100": "MobileNetV2 1.0x", "mobilenetv2_140": "MobileNetV2 1.4x"}.get(name)
    if wanted is None:
        family, _, variant = name.partition("_")
        wanted = f"{family.replace('efficientformer', 'EfficientFormer').replace('v2', 'V2')}-{variant.upper()}"
    table = Path(vitscope.__file__).parent / "data" / "published.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = [
            r
            for r in csv.DictReader(file)
            if (r["model"], r["device"], r["resolution"]) == (wanted, "iPhone 12", "224")
        ]
    assert (f"{REPORTED[name][0]}", f"{REPORTED[name][1]}") in {(r["top1"], r["latency_ms"]) for r in rows}


# The keys that each rung of the ladder sets on top of the one before, as Table 1 tells it
RUNGS = {
    1: {"stages"},  # token_mixer
    2: {"stages"},  # other blocks
    3: {"stem", "stages"},  # widths and depths
    5: {"stages"},
    6: {"stages"},
    7: {"stages"},
    8: {"stages"},
}
ABOUT = {"extends", "family", "paper", "note", "reported"}


@pytest.mark.parametrize(("row", "before"), [(1, 0), (2, 1), (3, 2), (5, 3), (6, 5), (7, 6), (8, 7)])
def test_a_rung_is_the_one_before_and_the_keys_that_differ(row: int, before: int) -> None:
    path = zoo_path(f"efficientformerv2_ladder_{row}")
    assert path is not None
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["extends"] == f"efficientformerv2_ladder_{before}"
    assert document.keys() - ABOUT == RUNGS[row]
    assert document["note"].startswith("Published: ")
    assert "Reconstructed: " in document["note"]


def test_row_0_is_efficientformer_l1() -> None:
    def network(spec: Spec) -> tuple[object, ...]:
        return (spec.input, spec.stem, spec.stages, spec.head, spec.drop_path_rate)

    assert network(load_spec("efficientformerv2_ladder_0")) == network(load_spec("efficientformer_l1"))


def test_drop_path_rates() -> None:
    rates = {name: load_spec(name).drop_path_rate for name in NAMES}
    assert {name: rate for name, rate in rates.items() if rate} == {
        "efficientformerv2_s2": 0.02,
        "efficientformerv2_l": 0.1,
    }


# --- Shapes: what the grammar says leaves a block is what leaves its module. ---


def real_out_shape(block: BlockSpec, x: FeatureShape) -> tuple[int, ...]:
    with torch.device("meta"):
        return tuple(build_block(block, x).eval()(torch.empty(x.tensor(2))).shape)


SIZES = [(224, 224), (256, 192), (32, 64), (512, 512)]
ANY_SIZES = [(225, 193), (17, 100), (8, 8)]  # for networks without strided attention
STRIDED = {name for name in NAMES if name.startswith("efficientformerv2") and name not in LADDER[:6]}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_grammars_shapes_are_the_modules(name: str) -> None:
    for size in SIZES + ([] if name in STRIDED else ANY_SIZES):
        for placed in flow(at_resolution(load_spec(name), *size)):
            shape = (2, placed.out_shape.channels) if placed.block.role == "head" else placed.out_shape.tensor(2)
            assert real_out_shape(placed.block, placed.in_shape) == shape, f"{placed.path} at {size}"


@pytest.mark.parametrize("name", sorted(STRIDED))
@pytest.mark.parametrize(("size", "grid"), [((208, 208), "13×13"), ((240, 240), "15×15"), ((240, 224), "15×14")])
def test_sizes_that_strided_attention_cannot_take(name: str, size: tuple[int, int], grid: str) -> None:
    with pytest.raises(SpecError, match=f"attention_stride 2 does not divide the {grid} map that arrives here"):
        load_spec(name, resolution=size)


@pytest.mark.parametrize("side", range(193, 257))
def test_strided_attention_takes_a_side_exactly_when_its_grid_is_even(side: int) -> None:
    # Each of the four convolutions of stride 2 rounds up: 209 to 224 pixels all make a grid of 14.
    grid = -(-side // 16)
    if grid % 2:
        with pytest.raises(SpecError):
            load_spec("efficientformerv2_s0", resolution=(side, 224))
    else:
        spec = load_spec("efficientformerv2_s0", resolution=(side, 224))
        with torch.device("meta"):
            assert tuple(build(spec).eval()(torch.empty(1, *spec.input)).shape) == (1, 1000)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_network_runs_whole_at_a_size_of_its_own(name: str) -> None:
    for size in SIZES[:2]:
        spec = load_spec(name, resolution=size)
        with torch.device("meta"):
            model = build(spec).eval()
            assert tuple(model(torch.empty(3, *spec.input)).shape) == (3, 1000)
        assert model.input_size == (3, *size)
