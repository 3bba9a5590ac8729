"""Where a compute plan puts each block, and the gate on the Neural Engine. Plans are replayed in coremltools' own records."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import require_package

from vitscope.errors import UnavailableError, UsageError
from vitscope.export import export
from vitscope.export.artifact import Artifact
from vitscope.measure.attribution import attribute, by_block
from vitscope.measure.channel import MeasureError
from vitscope.measure.placement import fallback_line, fallbacks, require_engine
from vitscope.measure.record import OpTime
from vitscope.measure.runner import coreml_mac
from vitscope.measure.runner.coreml_mac import compute_units, noise, planned
from vitscope.subject import load_subject

ct = require_package("coremltools")
from tests.replayed_iphone import compute_plan  # noqa: E402


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    subject = load_subject("mobileone_s0", resolution=(64, 64))
    return export(subject, "coreml", tmp_path_factory.mktemp("coreml") / "m.mlpackage", "fp16")


@pytest.fixture(scope="module")
def spec(artifact: Artifact):
    return ct.utils.load_spec(str(artifact.path))


def ops(spec, unit=lambda name, kind: "ane", weight=lambda count: 1 / count, total_s: float = 2e-3) -> list[OpTime]:
    return [OpTime(**{**op, "names": tuple(op["names"])}) for op in planned(compute_plan(spec, unit, weight), total_s)]


def off(artifact: Artifact, *blocks: str, unit: str = "cpu"):
    return lambda name, kind: unit if artifact.scopes.get(name, "").startswith(blocks) else "ane"


def test_a_plan_of_the_neural_engine_alone(artifact: Artifact, spec) -> None:
    found = ops(spec)
    assert "const" not in {op.kind for op in found} and {op.kind for op in found} >= {"conv", "relu", "linear"}
    assert sum(op.seconds for op in found) == pytest.approx(2e-3)
    assert list(by_block(found, artifact)) == list(artifact.blocks) and fallbacks(found, artifact) == {}
    require_engine(found, artifact, "cpu+ane")


def test_the_blocks_that_fell_off_are_named(artifact: Artifact, spec) -> None:
    found = ops(spec, off(artifact, "stages.1.blocks.0."))
    with pytest.raises(MeasureError) as caught:
        require_engine(found, artifact, "all")
    assert caught.value.exit_code == 1
    assert "1 block falls off the Neural Engine: stages.1.blocks.0: conv on CPU, relu on CPU" in str(caught.value)
    fell = fallbacks(found, artifact)
    assert list(fell) == ["stages.1.blocks.0"]
    assert fell["stages.1.blocks.0"] == by_block(found, artifact)["stages.1.blocks.0"]


def test_a_block_falls_off_with_one_operation_and_many_are_counted(artifact: Artifact, spec) -> None:
    first = next(name for name, scope in artifact.scopes.items() if scope.startswith("stages.2.blocks.1."))
    one = fallbacks(ops(spec, lambda name, kind: "gpu" if name == first else "ane"), artifact)
    assert {path: [op.name for op in part] for path, part in one.items()} == {"stages.2.blocks.1": [first]}
    assert "on GPU" in fallback_line(one)
    many = fallback_line(fallbacks(ops(spec, off(artifact, "stages.")), artifact))
    count = sum(path.startswith("stages.") for path in artifact.blocks)
    assert many.startswith(f"{count} blocks fall off") and many.endswith(f"; {count - 4} more") and "\n" not in many


def test_the_estimated_share_of_each_block(artifact: Artifact, spec) -> None:
    found = ops(spec, off(artifact, "head"), total_s=4e-3)
    told = attribute("estimated", found, artifact, 4e-3, "Core ML compute plan")
    by_path = {block.path: block for block in told.blocks}
    assert told.how == "estimated" and sum(block.share for block in told.blocks) == pytest.approx(1)
    count = len([op for op in found if artifact.scopes[op.name].startswith("head")])
    assert by_path["head"].seconds == pytest.approx(4e-3 * count / len(found)) and by_path["head"].unit == "cpu"
    assert by_path["stages.1.blocks.0"].unit == "ane"
    assert told.unexplained == 0


def test_what_the_plan_does_not_know_is_no_pass(artifact: Artifact, spec) -> None:
    with pytest.raises(MeasureError, match="no compute plan"):
        require_engine(None, artifact, "all")
    silent = [replace(op, unit="") for op in ops(spec)]
    with pytest.raises(MeasureError, match="tells no unit"):
        require_engine(silent, artifact, "all")
    with pytest.raises(UsageError, match=r"cpu\+gpu leaves the Neural Engine out"):
        require_engine(ops(spec), artifact, "cpu+gpu")
    unknown = ops(spec, weight=lambda count: None)
    assert {op.seconds for op in unknown} == {0.0} and {op.unit for op in unknown} == {"ane"}
    with pytest.raises(MeasureError, match="holds no time"):
        attribute("estimated", unknown, artifact, 1.0, "Core ML compute plan")


def test_an_operation_of_no_block_counts_too(artifact: Artifact) -> None:
    stray = OpTime(name="input_cast", kind="cast", seconds=1e-5, names=("input_cast",), unit="cpu")
    with pytest.raises(MeasureError, match="no block: cast on CPU"):
        require_engine([stray], artifact, "all")


def test_the_runner_adapter_prepares_what_the_model_takes(artifact: Artifact, spec) -> None:
    given = noise(spec)
    assert list(given) == ["image"] and given["image"].shape == (1, 3, 64, 64) and given["image"].dtype == "float16"
    assert (noise(spec)["image"] == given["image"]).all(), "the same noise every time"
    assert compute_units(ct, "cpu+ane") is ct.ComputeUnit.CPU_AND_NE
    assert compute_units(ct, "cpu") is ct.ComputeUnit.CPU_ONLY
    with pytest.raises(ValueError, match="not on cuda"):
        compute_units(ct, "cuda")


@pytest.mark.skipif(platform.system() == "Darwin", reason="here it does")
def test_core_ml_says_where_it_predicts(artifact: Artifact) -> None:
    for use in (coreml_mac.version, lambda: coreml_mac.load(str(artifact.path), {"unit": "all"})):
        with pytest.raises(ImportError, match="Core ML predicts on macOS only"):
            use()
    from vitscope.measure.channel import Job
    from vitscope.measure.targets.host import HostTarget

    target = HostTarget()
    assert "macOS only" in str(target.runtimes()["coreml"])
    with pytest.raises(UnavailableError, match="Core ML predicts on macOS only"):
        target.open(Job(artifact=artifact, runtime="coreml", unit="all"), 60.0)


@pytest.mark.skipif(platform.system() != "Darwin", reason="Core ML predicts on macOS only")
def test_on_a_mac_it_predicts_and_plans(artifact: Artifact) -> None:
    model = coreml_mac.load(str(artifact.path), {"unit": "cpu+ane"})
    model.run()
    assert model.outputs()[0].shape == (1, 1000)
    how, found = model.op_times(3)
    assert how == "estimated" and {op["unit"] for op in found} <= {"ane", "cpu", "gpu", ""}
    assert Path(artifact.path).is_dir()
