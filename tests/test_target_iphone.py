"""The iPhone as a target, over a replay: coremltools' own benchmarker, with recorded answers where it leaves Python.

The recordings were composed from coremltools' source, not captured from hardware (tests/recorded/iphone.json).
"""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from conftest import require_package
from torch import nn

from vitscope.errors import UnavailableError, UsageError, VitscopeError
from vitscope.export import export
from vitscope.export.artifact import Artifact
from vitscope.measure.channel import Job, MeasureError
from vitscope.measure.record import Protocol
from vitscope.measure.runtimes import RUNTIMES
from vitscope.measure.session import Failed, Finished, measure
from vitscope.measure.targets import parse_target
from vitscope.measure.targets.apple import CURES, cure_of, phone_of
from vitscope.measure.targets.iphone import BUNDLE, WARM_RUNS, IPhoneTarget
from vitscope.measure.targets.xcode import interface, products_in
from vitscope.subject import subject_of

require_package("coremltools")
from tests.replayed_iphone import RECORDED, ReplayedPhone, replayed, same_parameters  # noqa: E402  it imports coremltools

SAID = RECORDED["said"]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GELU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    subject = subject_of(Small(), (3, 16, 16), name="small")
    return export(subject, "coreml", tmp_path_factory.mktemp("coreml") / "small.mlpackage", "fp16")


@pytest.fixture
def phone_and_target(monkeypatch: pytest.MonkeyPatch):
    phone, mac = replayed(monkeypatch)
    target = IPhoneTarget(team="TEAM123456", using=mac)
    yield phone, target
    target.close()
    for app in phone.apps:
        app.kill()


def job(artifact: Artifact, unit: str = "cpu+ane") -> Job:
    return Job(artifact=artifact, runtime="coreml", unit=unit)


def refusal(target: IPhoneTarget, artifact: Artifact) -> VitscopeError:
    with pytest.raises(VitscopeError) as caught:
        target.open(job(artifact), 5.0)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_measurement_from_the_list_of_devices_to_the_samples(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    channel = target.open(job(artifact), 5.0)
    opened = channel.opened
    assert (opened.host, opened.processor) == ("iPhone13,2", "Apple A14 (iPhone 12)")
    assert opened.system == "iOS 17.5.1 (21F90)"
    assert opened.runtime_version.startswith("iOS 17.5.1, coremltools ")
    assert opened.load_s == pytest.approx(RECORDED["load_ns"] * 1e-9)
    assert phone.credentials.development_team == "TEAM123456"
    assert phone.credentials.bundle_identifier == BUNDLE

    _, steady = channel.warm(0.5, 20, 0.02, 10.0)
    assert steady and phone.predictions == WARM_RUNS
    block = channel.block(1.0, 30)
    assert phone.predictions == WARM_RUNS + 30 and len(block.samples_s) == 30
    allowed = {ns * 1e-9 for ns in RECORDED["predictions_ns"]}
    assert all(min(abs(sample - s) for s in allowed) < 1e-12 for sample in block.samples_s), (
        "seconds, none of the warm-up"
    )
    channel.close()
    channel.close()
    assert "MLModelService.Unload" in phone.asked
    assert phone.apps[0].wait(10) is not None, "the app ends with its last channel"


def test_each_channel_is_a_fresh_process_and_two_at_once_share_one(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    first = target.open(job(artifact), 5.0)
    second = target.open(job(artifact, "all"), 5.0)
    assert len(phone.apps) == 1
    first.close()
    assert phone.apps[0].poll() is None, "the other channel still uses it"
    second.close()
    assert phone.apps[0].wait(10) is not None
    target.open(job(artifact), 5.0).close()
    assert len(phone.apps) == 2


def test_the_warm_up_goes_on_until_two_windows_agree_and_not_for_ever(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    channel = target.open(job(artifact), 5.0)
    phone.times = iter([9_000_000] * 30)
    assert channel.warm(0.5, 20, 0.02, 10.0)[1] is True
    assert WARM_RUNS < phone.predictions < 200
    phone.times, before = iter(range(1_000_000, 9_000_000, 40_000)), phone.predictions
    assert channel.warm(0.5, 20, 0.001, 10.0)[1] is False
    assert phone.predictions - before == 200
    before = phone.predictions
    assert channel.warm(0.0, 5, 1e9, 10.0)[1] is True
    assert phone.predictions - before == 5, "between the blocks of one process only a few"
    channel.close()


def test_the_plan_tells_units_and_shares_of_the_time(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    phone.unit = lambda name, kind: "cpu" if kind == "gelu" else "ane"
    channel = target.open(job(artifact), 5.0)
    found = channel.op_times(20)
    assert found is not None
    how, ops = found
    assert how == "estimated"
    assert {op.kind: op.unit for op in ops}["gelu"] == "cpu" and {op.unit for op in ops} == {"cpu", "ane"}
    assert "const" not in {op.kind for op in ops}
    assert sum(op.seconds for op in ops) == pytest.approx(1.011e-3, rel=0.01), "the weights sum to 1"
    assert {artifact.scopes.get(name) for op in ops for name in op.names} >= {"stem.0", "stem.1", "body.0", "head"}
    phone.weights = lambda count: None
    unknown = channel.op_times(3)
    assert unknown is not None and {op.seconds for op in unknown[1]} == {0.0}
    assert {op.unit for op in unknown[1]} == {"cpu", "ane"}
    channel.close()


@pytest.mark.parametrize(
    ("said", "meaning"),
    [("locked", "locked"), ("untrusted", "does not trust the developer"), ("full", "no space is left")],
)
def test_a_phone_that_cannot_start_the_app(phone_and_target, artifact: Artifact, said: str, meaning: str) -> None:
    phone, target = phone_and_target
    phone.launch_says = SAID[said]
    error = refusal(target, artifact)
    assert isinstance(error, UnavailableError) and error.exit_code == 3
    assert meaning in str(error) and SAID[said][:60] in str(error)


def test_what_xcodebuild_said_is_shown_though_coremltools_drops_it(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    phone.build_says = SAID["signing"]
    error = refusal(target, artifact)
    assert "--team" in str(error) and "requires a development team" in str(error)
    assert isinstance(error, UnavailableError) and "BUILD FAILED" not in str(error)


def test_developer_mode_is_asked_for(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    phone.entry()["deviceProperties"]["developerModeStatus"] = "disabled"
    error = refusal(target, artifact)
    assert error.exit_code == 3 and "Developer Mode is disabled" in str(error)
    assert "launch" not in phone.asked


def test_no_phone_an_ipad_alone_and_a_name_that_is_none(
    phone_and_target: tuple[ReplayedPhone, IPhoneTarget], artifact: Artifact
) -> None:
    phone, target = phone_and_target
    other = IPhoneTarget("Nobody's", using=target.mac())
    assert "Replayed iPhone (00008101-000A000000000001)" in str(refusal(other, artifact))
    del phone.devices["result"]["devices"][0]
    error = refusal(target, artifact)
    assert error.exit_code == 3 and "no iPhone is attached" in str(error)


def test_of_two_phones_one_must_be_named(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    second = phone.entry(1)
    second["hardwareProperties"].update(deviceType="iPhone", productType="iPhone14,5")
    error = refusal(target, artifact)
    assert isinstance(error, UsageError) and "2 iPhones" in str(error) and "Replayed iPad" in str(error)
    named = IPhoneTarget("replayed ipad", using=target.mac())
    channel = named.open(job(artifact), 5.0)
    assert channel.opened.host == "iPhone14,5"
    channel.close()
    named.close()


def test_a_sleeping_connection_is_woken_and_one_that_stays_down_is_told(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    phone.entry()["connectionProperties"]["tunnelState"] = "disconnected"
    error = refusal(target, artifact)
    assert error.exit_code == 3 and "is disconnected" in str(error)
    assert phone.woken == [phone.entry()["identifier"]]
    phone.wakes = True
    target.open(job(artifact), 5.0).close()


def test_a_crash_of_the_app_and_an_answer_that_never_comes(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    channel = target.open(job(artifact), 5.0)
    phone.fail_after = phone.predictions + 3
    with pytest.raises(MeasureError, match="predicting failed: ERROR: The application terminated") as caught:
        channel.block(1.0, 50)
    assert caught.value.exit_code == 1
    channel.close()

    phone.fail_after = None
    channel = target.open(job(artifact), 0.3)
    phone.pause_s = 2.0
    with pytest.raises(MeasureError, match=r"predicting failed: did not answer within 0\.3 s"):
        channel.block(1.0, 50)
    phone.pause_s = 0.0
    channel.close()


def test_a_phone_that_is_unplugged_midway_keeps_what_is_done(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    jobs = [job(artifact), job(artifact, "all")]
    protocol = Protocol(processes=1, block_runs=10, warm_tolerance=0.05)
    phone.fail_after, phone.fail_with, phone.unplug = WARM_RUNS + 10 + 5, SAID["unplugged"], True
    results = list(measure(jobs, target, protocol))
    done = [result for result in results if isinstance(result, Finished)]
    failed = [result for result in results if isinstance(result, Failed)]
    assert len(done) == len(failed) == 1
    assert done[0].measurement.condition.system == "iOS 17.5.1 (21F90)"
    assert done[0].measurement.summary.samples == 10
    assert "unplugged or went away while predicting" in str(failed[0].error) and failed[0].error.exit_code == 1


def test_a_plan_without_a_cost_leaves_the_measurement_as_it_is(phone_and_target, artifact: Artifact) -> None:
    phone, target = phone_and_target
    protocol = Protocol(processes=1, block_runs=10, warm_tolerance=0.05)
    (whole,) = measure([job(artifact)], target, protocol, profile_runs=3)
    assert isinstance(whole, Finished) and whole.measurement.attribution is not None
    assert {block.unit for block in whole.measurement.attribution.blocks} == {"ane"}
    phone.weights = lambda count: None
    (without,) = measure([job(artifact)], target, protocol, profile_runs=3)
    assert isinstance(without, Finished) and without.measurement.attribution is None
    assert any("where the time went is not known" in note for note in without.measurement.notes)


def test_a_runtime_or_a_unit_that_an_iphone_has_not(phone_and_target, artifact: Artifact) -> None:
    _, target = phone_and_target
    with pytest.raises(UsageError, match="onnxruntime does not run on an iPhone"):
        target.open(Job(artifact=artifact, runtime="onnxruntime"), 5.0)
    with pytest.raises(UsageError, match="Core ML runs on all, cpu"):
        target.open(job(artifact, "cuda"), 5.0)
    found = target.runtimes()
    assert set(found) == set(RUNTIMES)
    assert str(found["coreml"]).startswith("iOS 17.5.1") and isinstance(found["litert"], UnavailableError)


@pytest.mark.skipif(platform.system() == "Darwin", reason="here it is a Mac")
def test_away_from_a_mac_it_is_one_line(artifact: Artifact) -> None:
    with pytest.raises(UnavailableError, match="an iPhone is measured from a Mac with Xcode: this host runs"):
        interface()
    target = parse_target("iphone:anyone", team="T", bundle="b.c.d")
    with pytest.raises(UnavailableError, match="from a Mac with Xcode"):
        target.open(job(artifact), 5.0)
    assert isinstance(target.runtimes()["coreml"], UnavailableError)
    target.close()


def test_hardware_names_and_cures() -> None:
    assert phone_of("iPhone13,2").title == "iPhone 12"
    assert phone_of("iPhone14,7").chip == "A15" and phone_of("iPhone15,2").chip == "A16"
    assert phone_of("iPhone99,9").title == "iPhone99,9"
    assert cure_of(SAID["crashed"]) is None and cure_of(SAID["unplugged"]) is None
    assert all(cure.cure for cure in CURES)
    with pytest.raises(ValueError, match="lacks"):
        products_in({"result": {}})


def test_the_replay_is_held_to_the_signatures_of_the_installed_coremltools() -> None:
    with pytest.raises(AssertionError):
        same_parameters(lambda self, name, params, resource=None: 0, lambda self, name, params: 0)
    with pytest.raises(AssertionError):
        same_parameters(lambda a, b: 0, lambda a, b=1: 0)
    same_parameters(Path.exists, Path.exists)
