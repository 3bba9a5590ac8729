"""A replayed iPhone: coremltools' own Device and MLModelBenchmarker, over recorded answers in place of a Mac and a phone.

Replaced are only the places where coremltools leaves Python: devicectl, xcodebuild, the compiler of Core ML, the messages
to the runner app, and the two native proxies. The answers in recorded/iphone.json were composed from coremltools' source,
not captured from hardware.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from coremltools.models import compute_plan as plans
from coremltools.models.compute_device import MLCPUComputeDevice, MLGPUComputeDevice, MLNeuralEngineComputeDevice
from coremltools.models.ml_program.experimental import async_wrapper, remote_device
from coremltools.models.ml_program.experimental.model_structure_path import map_model_structure_to_path

from vitscope.measure.targets.xcode import Interface, coremltools_interface, products_in

RECORDED = json.loads((Path(__file__).parent / "recorded" / "iphone.json").read_text(encoding="utf-8"))
_WIRE = {"ane": {"neuralEngine": {"totalCoreCount": 16}}, "gpu": {"gpu": {}}, "cpu": {"cpu": {}}}


class ReplayedPhone:
    """What the replay answers, and what was asked of it. Change a field to have something go wrong."""

    def __init__(self) -> None:
        self.devices: Any = json.loads(json.dumps(RECORDED["devices"]))
        self.asked: list[str] = []
        self.apps: list[subprocess.Popen[bytes]] = []
        self.credentials: Any = None
        self.build_says: str | None = None  # xcodebuild's output, when it fails
        self.launch_says: str | None = None  # devicectl's stderr, when it fails to install or launch
        self.fail_after: int | None = None  # predictions
        self.fail_with = RECORDED["said"]["crashed"]
        self.unplug = False  # at that failure
        self.pause_s = 0.0  # before each prediction is answered
        self.woken: list[str] = []
        self.wakes = False
        self.times: Iterator[int] | None = None
        self.unit: Callable[[str, str], str] = lambda name, kind: "ane"
        self.weights: Callable[[int], float | None] = lambda count: 1 / count
        self.predictions = 0

    def entry(self, index: int = 0) -> Any:
        return self.devices["result"]["devices"][index]

    def wake(self, identifier: str) -> None:
        self.woken.append(identifier)
        if self.wakes:
            for device in self.devices["result"]["devices"]:
                if device["identifier"] == identifier:
                    device["connectionProperties"]["tunnelState"] = "connected"

    def next_time(self) -> int:
        if self.times is None:
            self.times = iter(RECORDED["first_predictions_ns"])
        steady = RECORDED["predictions_ns"]
        return next(self.times, steady[self.predictions % len(steady)])


def replayed(monkeypatch: pytest.MonkeyPatch) -> tuple[ReplayedPhone, Interface]:
    """Put the replay in the places named above, each with the signature of what it replaces."""
    phone = ReplayedPhone()

    def run_command(command: str) -> dict[str, Any]:
        phone.asked.append(command)
        assert command == "xcrun devicectl list devices"
        return phone.devices

    def build_and_launch(
        self: Any,
        build_directory: Path,
        working_directory: Path,
        credentials: Any = remote_device.AppSigningCredentials(),  # noqa: B008
        clean: bool = False,
    ) -> Any:
        phone.asked.append("launch")
        phone.credentials = credentials
        if phone.build_says is not None:
            try:  # as _AppBuilder.build does: stderr stands in the output, and the message is None
                raise subprocess.CalledProcessError(65, "xcodebuild", output=phone.build_says.encode())
            except subprocess.CalledProcessError as error:
                raise remote_device._AppBuilder.Error(error_code=error.returncode, message=error.stderr) from None
        if phone.launch_says is not None:
            raise remote_device._DeviceCtlError(error_code=1, message=phone.launch_says.encode())
        app = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        phone.apps.append(app)
        info = remote_device._AppInstallationInfo(credentials.bundle_identifier, "uuid")
        return remote_device._AppSession(self, app, info, working_directory)

    async def call_method(self: Any, name: str, params: Any, resource: Path | None = None) -> tuple[Any, Path | None]:
        phone.asked.append(name)
        answer: dict[str, Any] = {"modelID": params["modelID"]}
        if name == "MLModelService.Load":
            assert resource is not None and resource.name == "model.mlmodelc"
            return {**answer, "duration": RECORDED["load_ns"]}, None
        if name == "MLModelService.Prediction":
            if phone.fail_after is not None and phone.predictions >= phone.fail_after:
                if phone.unplug:
                    phone.entry()["connectionProperties"]["tunnelState"] = "disconnected"
                raise remote_device._DeviceCtlError(error_code=1, message=phone.fail_with.encode())
            assert resource is not None
            await asyncio.sleep(phone.pause_s)
            phone.predictions += 1
            return {**answer, "duration": phone.next_time(), "outputs": {}}, resource
        assert name == "MLModelService.Unload"
        return answer, None

    def compile_model(model: Any, destination_path: str | None = None) -> str:
        assert destination_path is not None
        Path(destination_path).mkdir()
        return destination_path

    async def retrieve_compute_plan(self: Any) -> Any:
        return compute_plan(self.spec_or_path, phone.unit, phone.weights)

    for owner, name, stand_in in (
        (remote_device._DeviceCtl, "_run_command", staticmethod(run_command)),
        (remote_device.Device, "_build_and_launch_model_runner_app", build_and_launch),
        (remote_device._DeviceCtlRemoteService, "call_method", call_method),
        (async_wrapper, "compile_model", compile_model),
        (async_wrapper.RemoteMLModelAsyncWrapper, "retrieve_compute_plan", retrieve_compute_plan),
    ):
        same_parameters(getattr(owner, name), getattr(stand_in, "__func__", stand_in))
        monkeypatch.setattr(owner, name, stand_in)
    return phone, coremltools_interface(lambda: products_in(phone.devices), phone.wake)


def same_parameters(real: Any, stand_in: Any) -> None:
    """The stand-in takes what the installed coremltools takes, by the same names and in the same order."""
    theirs, ours = (inspect.signature(f).parameters for f in (real, stand_in))
    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()], real
    required = [p.name for p in theirs.values() if p.default is p.empty]
    assert required == [p.name for p in ours.values() if p.default is p.empty], real


def compute_plan(
    spec: Any, unit: Callable[[str, str], str], weights: Callable[[int], float | None]
) -> plans.MLComputePlan:
    """A plan of the program in `spec`, in coremltools' own records, over a proxy that answers from the wire's form."""
    main = spec.mlProgram.functions["main"]
    structure = plans.MLModelStructure(
        neuralnetwork=None,
        pipeline=None,
        program=plans.MLModelStructureProgram({
            "main": plans.MLModelStructureProgramFunction(
                inputs=[], block=_block(main.block_specializations[main.opset])
            )
        }),
    )  # fmt: skip
    every: list[tuple[Any, Any]] = map_model_structure_to_path(structure, [])
    paths = {id(operation): path for operation, path in every}
    executed = [op for op, _ in every if not op.operator_name.endswith("const")]
    infos = [
        {
            "deviceUsage": {
                "preferred": _WIRE[unit(op.outputs[0].name, op.operator_name.rpartition(".")[2])],
                "supported": [_WIRE["cpu"]],
            },
            "estimatedCost": weights(len(executed)),
            "path": paths[id(op)].to_dict(),
        }
        for op in executed
    ]
    plan = plans.MLComputePlan.__new__(plans.MLComputePlan)
    plan.__proxy__ = _PlanProxy(structure, paths, remote_device.ComputePlan.from_dict({"infos": infos}).infos)  # type: ignore[union-attr]
    return plan


def _block(block: Any) -> plans.MLModelStructureProgramBlock:
    return plans.MLModelStructureProgramBlock(
        inputs=[],
        output_names=list(block.outputs),
        operations=[
            plans.MLModelStructureProgramOperation(
                inputs={},
                operator_name=f"ios16.{op.type}",
                outputs=[
                    plans.MLModelStructureProgramNamedValueType(out.name, plans.MLModelStructureProgramValueType())
                    for out in op.outputs
                ],
                blocks=[],
                __proxy__=None,
            )
            for op in block.operations
        ],
    )


class _PlanProxy:
    """In place of the native proxy, the methods that MLComputePlan calls on it."""

    def __init__(self, structure: Any, paths: Mapping[int, Any], infos: Mapping[Any, Any]):
        self.model_structure, self._paths, self._infos = structure, paths, infos

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        info = self._infos.get(self._paths[id(operation)])
        if info is None:
            return None
        kinds = {"CPUDevice": MLCPUComputeDevice, "GPUDevice": MLGPUComputeDevice}
        kind = kinds.get(type(info.device_usage.preferred).__name__, MLNeuralEngineComputeDevice)
        device = kind.__new__(kind)
        return plans.MLComputePlanDeviceUsage(preferred_compute_device=device, supported_compute_devices=[device])

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        info = self._infos.get(self._paths[id(operation)])
        return None if info is None or info.estimated_cost is None else plans.MLComputePlanCost(info.estimated_cost)
