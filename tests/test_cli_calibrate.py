"""`vitscope calibrate` with a real runtime on small networks: the file it writes predicts, and it goes on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vitscope.cli import main
from vitscope.latency.device import load_device

# Networks of a dozen kernels each, so that all of them are timed within seconds.
SPECS = {
    "a": """
name: a
family: A
input: [3, 32, 32]
act: relu6
stem: {block: conv_stem, width: 16, depth: 1, bias: false}
stages:
  - {depth: 1, width: 24, block: inverted_residual, expansion: 6, stride: 2}
  - {depth: 1, width: 32, block: inverted_residual, expansion: 4, stride: 2}
head: {block: conv_classifier, width: 128, classes: 100}
""",
    "b": """
name: b
family: B
input: [3, 32, 32]
act: relu
stem: {block: mobileone_stem, width: 24}
stages:
  - {depth: 1, width: 24, block: mobileone, stride: 2, branches: 1}
  - {depth: 2, width: 64, block: mobileone, stride: 2, branches: 1}
head: {block: classifier, norm: none, classes: 100}
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("calibrate")
    for name, text in SPECS.items():
        (made / f"{name}.yaml").write_text(text)
    return made


def calibrate(folder: Path, output: str, *more: str) -> int:
    models = [word for name in SPECS for word in ("--model", str(folder / f"{name}.yaml"))]
    return main(
        ["calibrate", "--runtime", "onnxruntime", "--budget", "10min", *models, "-o", str(folder / output), *more]
    )


@pytest.fixture(scope="module")
def calibrated(folder: Path) -> Path:
    assert calibrate(folder, "here.yaml") == 0
    return folder / "here.yaml"


def test_the_device_file_says_what_it_is_of(calibrated: Path) -> None:
    device = load_device(calibrated)
    assert device.name == "here" and device.runtime.startswith("ONNX Runtime") and device.runtime.endswith("1 thread")
    assert device.precision == "float32" and device.batch == 1
    assert device.classes is not None and {"pointwise", "depthwise"} <= set(device.classes.classes)
    assert 1e-7 < device.classes.floor_s < 1e-3
    assert {"peak_macs_per_s", "memory_bytes_per_s"} == {fact.key for fact in device.facts}
    assert all("vitscope calibrate" in fact.source for fact in device.facts)


def test_a_network_is_predicted_on_it_with_an_interval(
    calibrated: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", str(folder / "a.yaml"), "--device", str(calibrated), "--json"]) == 0
    (prediction,) = json.loads(capfd.readouterr().out)["models"][0]["predictions"]
    assert prediction["status"] == "ok" and prediction["coverage"] > 0.95
    assert prediction["low_s"] < prediction["latency_s"] < prediction["high_s"]


def test_a_network_far_larger_than_what_was_timed_is_out_of_range(
    calibrated: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "efficientformerv2_l", "--device", str(calibrated), "--json"]) == 0
    (prediction,) = json.loads(capfd.readouterr().out)["models"][0]["predictions"]
    assert prediction["status"] in ("out of range", "not calibrated") and prediction["latency_s"] is None


def test_what_was_timed_is_not_timed_again(calibrated: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The file is there already; with --force the fit is made again from the times beside it."""
    assert calibrate(folder, "here.yaml") == 2
    assert "already exists" in capfd.readouterr().err
    times = calibrated.with_suffix(".times.jsonl")
    before = times.read_text()
    assert calibrate(folder, "here.yaml", "--force") == 0
    assert times.read_text() == before
    assert "kernels" in capfd.readouterr().out


def test_whole_networks_refine_it_and_are_told_apart(
    calibrated: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the same times of kernels; the networks of the two families are measured for real."""
    times = calibrated.with_suffix(".times.jsonl")
    refined = folder / "refined.yaml"
    refined.with_suffix(".times.jsonl").write_text(times.read_text())
    wholes = [word for name in SPECS for word in ("--refine", str(folder / f"{name}.yaml"))]
    assert calibrate(folder, "refined.yaml", *wholes) == 0
    out = capfd.readouterr().out
    assert "whole networks" in out and "refined without its family" in out
    plain, made = load_device(calibrated).classes, load_device(refined).classes
    assert plain is not None and made is not None
    assert (plain.scale, plain.more_s) == (1.0, 0.0) and made.scale != 1.0
    assert "refined on 2 networks" in refined.read_text()


def test_everything_in_the_file_is_shown(calibrated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", str(calibrated)]) == 0
    out = capfd.readouterr().out
    for shown in ("peak macs per s", "cold weights", "pointwise", "seen by the fit", "held out, each family"):
        assert shown in out
    assert "roofline only" not in out and "runs whole" not in out
    assert main(["devices", "show", str(calibrated), "--json"]) == 0
    classes = json.loads(capfd.readouterr().out)["device"]["classes"]
    assert classes["memory"]["cache_bytes"] > 0 and classes["classes"]["pointwise"]["work_s"] > 0


def test_the_fit_is_repeated_from_the_times(
    calibrated: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["devices", "check", str(calibrated)]) == 0
    out = capfd.readouterr().out
    assert "classes of kernels" in out and "pointwise" in out and "without their family" in out.replace("its", "their")
    alone = tmp_path / "alone.yaml"
    alone.write_text(calibrated.read_text())
    assert main(["devices", "check", str(alone)]) == 3
    said = capfd.readouterr().err
    assert "alone.times.jsonl: not here" in said and said.count("\n") == 1
    alone.with_suffix(".times.jsonl").write_text("model,latency\n")
    assert main(["devices", "check", str(alone)]) == 2
    assert "not the times of a calibration" in capfd.readouterr().err


def test_times_of_another_place_are_refused(calibrated: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert calibrate(folder, "here.yaml", "--force", "--batch", "2") == 2
    said = capfd.readouterr().err
    assert "holds the times of another place or version" in said and "--again" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--runtime", "onnxruntim"], 2, r"no runtime 'onnxruntim' to calibrate.*onnxruntime"),
        (["--runtime", "coreml"], 2, r"no runtime 'coreml' to calibrate"),
        (["--runtime", "onnxruntime", "--budget", "10"], 2, r"--budget: expected a time with its unit"),
        (["--runtime", "onnxruntime", "--budget", "1s"], 2, r"--budget 1s: expected 30s to 24h"),
        (["--runtime", "onnxruntime", "--precision", "int4"], 2, r"no precision 'int4'"),
        (["--runtime", "onnxruntime", "--model", "no_such_net"], 2, r"no_such_net"),
        (["--runtime", "onnxruntime", "--target", "ssh:nobody@127.0.0.1:1"], 3, r"ssh:nobody@127\.0\.0\.1:1"),
    ],
)
def test_what_cannot_be_calibrated_says_so_in_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments, "-o", str(tmp_path / "d.yaml")]) == code
    error = capfd.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1
    assert not (tmp_path / "d.yaml").exists()


def test_the_output_is_a_device_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--runtime", "onnxruntime", "-o", str(tmp_path / "d.txt")]) == 2
    assert "a device file ends in .yaml" in capfd.readouterr().err
