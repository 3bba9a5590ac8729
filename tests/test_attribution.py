"""A profile told by blocks: every name to its block, what covers several to the one that computes, all of it to 1."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import attribute, block_of_op, by_block
from vitscope.measure.channel import MeasureError
from vitscope.measure.record import OpTime

SCOPES = {
    "stem.conv/Conv_0": "stem.conv",
    "stem.act/Mul_1": "stem.act",
    "stages.0.blocks.0.expand/Conv_2": "stages.0.blocks.0.expand",
    "stages.0.blocks.0/Add_3": "stages.0.blocks.0",
    "stages.0.blocks.1.fc/MatMul_12": "stages.0.blocks.1.fc",
    "top/Transpose_9": "",
    "conv2d_4": "head.fc",
}
ARTIFACT = Artifact(
    path=Path("x.onnx"), format="onnx", model="x", digest="", form="deploy", precision="fp32",
    input_shape=(1, 3, 8, 8), blocks=("stem", "stages.0.blocks.0", "stages.0.blocks.1", "head"), weights="random",
    tools="", scopes=SCOPES,
)  # fmt: skip


def op(*names: str, seconds: float = 1e-3, name: str = "runtime's own", unit: str = "cpu") -> OpTime:
    return OpTime(name=name, kind="", seconds=seconds, names=names, unit=unit)


@pytest.mark.parametrize(
    ("names", "block"),
    [
        (("stem.conv/Conv_0", "stem.act/Mul_1"), "stem"),
        (("stem.conv/Conv_0_nchwc",), "stem"),
        (("InsertedPrecisionFreeCast_stem.conv/Conv_0_token_7",), "stem"),
        (("stem.conv/Conv_01",), None),
        (("stages.0.blocks.1.fc/MatMul_12/MatMulAddFusion",), "stages.0.blocks.1"),
        (("stages.0.blocks.1.fc/MatMul_1",), None),  # not the 12th
        (("conv2d_4",), "head"),
        (
            ("stages.0.blocks.1.attn_act::gelu", "stages.0.blocks.0::add"),
            None,
        ),  # neither computes, whatever a path says
        (("stages.0.blocks.1::matmul", "stages.0.blocks.0::add"), "stages.0.blocks.1"),
        (("stages.0::add",), None),
        (("head.fc",), "head"),  # a module path, as torch's profile gives it
        (("stages.0",), None),  # a parent of blocks is none
        (("stages.0.blocks.0.expand/Conv_2", "stages.0.blocks.1.fc/MatMul_12"), None),  # both compute
        (("stages.0.blocks.0/Add_3", "stem.conv/Conv_0"), "stem"),  # the sum is folded into the convolution
        (("stages.0.blocks.0/Add_3", "stem.act/Mul_1"), None),  # neither computes
        (("stem.conv/Conv_0_abcd_acdb_stem.act/Mul_1",), "stem"),
        (("stem.act/Mul_1_abcd_acdb_stages.0.blocks.1.fc/MatMul_12",), "stages.0.blocks.1"),
        (("top/Transpose_9",), None),
        (("reorder_token_7",), None),
        ((), None),
    ],
)
def test_an_operation_belongs_to_the_block_whose_work_it_does(names: tuple[str, ...], block: str | None) -> None:
    assert block_of_op(op(*names), ARTIFACT) == block


def test_the_blocks_stand_in_the_networks_order_with_the_rest_last() -> None:
    ops = [op("reorder", seconds=1e-3), op("conv2d_4", seconds=2e-3), op("stem.conv/Conv_0", seconds=5e-3)]
    found = attribute("measured", ops, ARTIFACT, 4.0, "a runtime 1.0")
    assert [(block.path, block.share, block.seconds) for block in found.blocks] == [
        ("stem", 0.625, 2.5),
        ("head", 0.25, 1.0),
        (None, 0.125, 0.5),
    ]
    assert (found.how, found.source, found.unexplained) == ("measured", "a runtime 1.0", 0.125)
    assert found.profiled_s == pytest.approx(8e-3)
    assert by_block(ops, ARTIFACT)[None] == ops[:1]


def test_the_unit_of_a_block_is_where_most_of_its_time_went() -> None:
    ops = [op("stem.conv/Conv_0", seconds=3.0, unit="ane"), op("stem.act/Mul_1", unit="cpu"), op("head.fc", unit="")]
    found = attribute("estimated", ops, ARTIFACT, 1.0, "")
    assert [block.unit for block in found.blocks] == ["ane", ""]


def test_the_shares_sum_to_one_as_they_stand() -> None:
    names = [*SCOPES, "no name of the file"]
    for seed in range(200):
        draw = random.Random(seed)
        ops = [op(draw.choice(names), seconds=draw.uniform(1e-7, 1e-3)) for _ in range(draw.randint(1, 60))]
        found = attribute("measured", ops, ARTIFACT, 0.0123, "")
        assert sum(block.share for block in found.blocks) == 1.0
        assert sum(block.seconds for block in found.blocks) == pytest.approx(0.0123, rel=1e-12)


@pytest.mark.parametrize("ops", [[], [op("stem.conv/Conv_0", seconds=0.0)]])
def test_a_profile_without_time_is_refused(ops: list[OpTime]) -> None:
    with pytest.raises(MeasureError, match="x: the profile of LiteRT holds no time"):
        attribute("measured", ops, ARTIFACT, 1.0, "LiteRT")
