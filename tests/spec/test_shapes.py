"""Shapes through a spec: what flows, what does not fit and why, which sizes would work, and that the modules agree."""
# ruff: noqa: E501 — messages stand here in one piece, as they are printed

from __future__ import annotations

import json
from typing import Any

import pytest
from examples import MINI, STAGE, edited, problems, read
from hypothesis import HealthCheck, given, settings
from random_specs import documents

from vitscope.errors import ShapeError, SpecError
from vitscope.spec import at_resolution, load_spec, parse_spec
from vitscope.spec.flow import flow
from vitscope.spec.shape import FeatureShape, features, main_feature
from vitscope.spec.zoo import zoo_names


def test_channels_flow_and_strides_round_up() -> None:
    spec = read(edited("[3, 64, 64]", "[3, 65, 33]"))
    assert [(place.path, str(place.in_shape), str(place.out_shape)) for place in flow(spec)] == [
        ("stem", "3×65×33", "16×17×9"),
        ("stages.0.blocks.0", "16×17×9", "16×17×9"),
        ("stages.0.blocks.1", "16×17×9", "16×17×9"),
        ("stages.1.downsample", "16×17×9", "32×9×5"),
        ("stages.1.blocks.0", "32×9×5", "32×9×5"),
        ("stages.1.blocks.1", "32×9×5", "32×9×5"),
        ("stages.1.blocks.2", "32×9×5", "32×9×5"),
        ("head", "32×9×5", "10×1×1"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (STAGE, "{depth: 2, width: 24, block: ffn}",
         "5:34: stages.0.blocks.0: the stage has width 24, but 16 channels arrive and block ffn leaves 16: "
         "give the stage a downsample, or a block that changes the width"),
        (STAGE, "{depth: 2, width: 24, block: ffn, downsample: {block: conv, width: 16}}",
         "5:34: stages.0.blocks.0: the stage has width 24, but 16 channels arrive and block ffn leaves 16: give the stage width 16"),
        (STAGE, "{depth: 3, width: 16, blocks: [mb3d, ffn*2]}",
         "5:42: stages.0.blocks.1: ffn needs a feature map, but the block before it puts out tokens"),
        (STAGE, "{depth: 2, width: 16, block: ffn, expansion: [1, 0.01]}",
         "5:34: stages.0.blocks.1: expansion 0.01 of 16 channels leaves no hidden channel"),
        (STAGE, "{depth: 4, width: 16, blocks: [ffn, stride_attention*3], attention_stride: 3}",
         "5:41: stages.0.blocks.1 to 3: attention_stride 3 does not divide the 16×16 map that arrives here; "
         "the input is 64×64, 60×60 and 69×69 would work"),
        ("[3, 64, 64]", "[3, 5000, 5000]",
         "6:43: stages.1.blocks.2: attention of 390,625 to 390,625 positions makes 152,587,890,625 pairs, more than "
         "67,108,864: use it at a lower resolution, or stride_attention"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_at_its_place_with_both_sides(old: str, new: str, line: str) -> None:
    assert problems(edited(old, new)) == [f"x.yaml:{line}"]


def test_independent_misfits_come_together_and_what_follows_from_them_does_not() -> None:
    text = edited(STAGE, "{depth: 2, width: 24, block: ffn}").replace("attention]", "{block: mb3d}]")
    lines = problems(text.replace("head: {", "norm: bn\nhead: {").replace("classes: 10", "norm: bn"))
    assert [line.split(": ")[1] for line in lines] == ["stages.0.blocks.0", "head"]


def test_another_resolution() -> None:
    spec = load_spec("efficientformerv2_s1")
    assert at_resolution(spec, 224, 224) is spec
    moved = at_resolution(spec, 192, 256)
    assert moved.input == (3, 192, 256) and moved.stages == spec.stages and moved.reported is None
    assert moved.digest != spec.digest and parse_spec(moved.document) == moved
    assert moved == load_spec("efficientformerv2_s1", resolution=(192, 256))
    with pytest.raises(SpecError) as caught:
        at_resolution(spec, 200, 260)
    assert str(caught.value) == (
        "efficientformerv2_s1: stages.2.blocks.7 to 8: attention_stride 2 does not divide the 13×17 map that arrives here; "
        "the input is 200×260, 192×252 and 213×273 would work"
    )
    for height, width in ((0, 1), (-3, 5), (20000, 5)):
        with pytest.raises(SpecError, match="resolution expects whole numbers from 1 to 16384"):
            at_resolution(spec, height, width)


@pytest.mark.parametrize("name", zoo_names())
def test_the_sizes_that_are_offered_do_work(name: str) -> None:
    import re

    spec = load_spec(name)
    for side in range(150, 240, 7):
        try:
            at_resolution(spec, side, side + 13)
        except SpecError as error:
            offered = re.findall(r"(\d+)×(\d+)(?=(?: and .*)? would work)", str(error))
            assert offered
            for height, width in offered:
                at_resolution(spec, int(height), int(width))


def test_flow_names_the_first_misfit() -> None:
    from dataclasses import replace

    spec = replace(read(MINI), stages=read(MINI).stages[1:])
    flow(spec)
    broken = replace(spec, stages=(replace(spec.stages[0], width=48),))
    with pytest.raises(ShapeError, match=r"^stages\.0\.blocks\.0: the stage has width 48"):
        flow(broken)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(documents())
def test_modules_put_out_the_shapes_that_flow_promises(document: dict[str, Any]) -> None:
    import torch

    from vitscope.blocks import build_block
    from vitscope.graph.trace import trace

    try:
        spec = parse_spec(json.dumps(document))
    except SpecError:
        return
    with torch.device("meta"):
        for place in flow(spec):
            inputs = [torch.empty(shape.tensor()) for shape in features(place.in_shape)]
            graph = trace(build_block(place.block, place.in_shape).eval(), *inputs)
            promised = tuple(shape.tensor() for shape in features(place.out_shape))
            got = tuple(graph.tensors[i].shape for i in graph.outputs)
            if place.path == "head" and len(got[0]) == 2:  # classes, promised as a map of one position
                promised = ((1, main_feature(place.out_shape).channels),)
            assert got == promised, place


def test_a_shape_prints_itself() -> None:
    assert str(FeatureShape(3, 4, 5)) == "3×4×5" and FeatureShape(3, 4, 5).tensor(2) == (2, 3, 4, 5)
    assert str(FeatureShape(3, 4, 5, tokens=True)) == "20 tokens × 3" and FeatureShape(3, 4, 5, True).tensor() == (
        1,
        20,
        3,
    )
