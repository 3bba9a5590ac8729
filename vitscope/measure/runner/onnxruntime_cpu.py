"""ONNX Runtime on the CPU: inputs and outputs bound once, and its own profile with the file's names."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from vitscope.measure.runner.noise import fitted, noise, pixels, sized
from vitscope.measure.runner.onnx_names import OnnxNode, names_behind, nodes_of
from vitscope.measure.runner.ops import op, typical

_PROVIDERS = ["CPUExecutionProvider"]
# From 1.29 on ONNX Runtime tells Microsoft of the machine and of each model, from threads and files of its own that would
# run beside the timed work. It reads this when it is imported; an empty value of the user's leaves it on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int8)": "int8",
}  # fmt: skip
_WARM = 5  # inferences of the profiling session that are left out


def version() -> str:
    import onnxruntime

    return onnxruntime.__version__


class Model:
    """A session whose input and outputs lie where they are: a run copies nothing."""

    def __init__(self, path: str, options: dict[str, Any]):
        import numpy
        import onnxruntime

        self._path = path
        self._threads = int(options.get("threads", 1))
        self._session = onnxruntime.InferenceSession(path, self._settings(), providers=_PROVIDERS)
        (given,) = self._session.get_inputs()
        dtype = _TYPES.get(given.type)
        if dtype is None:
            raise ValueError(f"the file takes {given.type}, not one of {', '.join(_TYPES)}")
        array = pixels(noise(options["input_shape"]), numpy.dtype(dtype))
        array = fitted(array, sized(given.shape, options["input_shape"]), dtype)
        self._name = given.name
        self._given = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(given.name, self._given)
        first: list[Any] = list(
            self._session.run(None, {given.name: array})
        )  # their shapes are known after a run at the latest
        self._results = [onnxruntime.OrtValue.ortvalue_from_numpy(result) for result in first]
        for output, result in zip(self._session.get_outputs(), self._results):  # noqa: B905  (Python 3.8)
            self._binding.bind_ortvalue_output(output.name, result)
        self.notes = (
            ["intra-op 1 thread, no pool"] if self._threads == 1 else ["threads spin within a run, not after it"]
        )

    def _settings(self) -> Any:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = self._threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.log_severity_level = 3
        # Other models' processes are alive while this one waits: its threads must not keep their cores busy.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        return settings

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[Any]:
        self.run()
        return [result.numpy() for result in self._results]

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """From a second session that profiles. Microseconds are whole there, so an op loses half of one on average."""
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            settings = self._settings()
            settings.enable_profiling = True
            settings.profile_file_prefix = os.path.join(folder, "profile")
            settings.optimized_model_filepath = os.path.join(folder, "optimised.onnx")
            # So that weights are not written with it.
            settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
            settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "256")
            session = onnxruntime.InferenceSession(self._path, settings, providers=_PROVIDERS)
            array = self._given.numpy()
            for _ in range(_WARM + runs):
                session.run(None, {self._name: array})
            with open(session.end_profiling(), encoding="utf-8") as file:
                events = json.load(file)
            written = nodes_of(settings.optimized_model_filepath)
            names = names_behind(written, nodes_of(self._path))
        return "measured", _ops(events, written, names, runs)


def load(path: str, options: dict[str, Any]) -> Model:
    """The ONNX file at `path`, ready to run. `options` is the runner's message: `threads`, `input_shape`."""
    return Model(path, options)


def _ops(
    events: list[dict[str, Any]], written: list[OnnxNode], names: list[list[str]], runs: int
) -> list[dict[str, Any]]:
    """Seconds of each node of the optimised graph, typical of the last `runs` inferences.

    `written` are the nodes of that graph and `names` what stands behind each.
    """
    ending = "_kernel_time"
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(ending)]
    kernels.sort(key=lambda event: event["ts"])
    size = len(kernels) // (_WARM + runs)
    if not size or size * (_WARM + runs) != len(kernels):
        raise RuntimeError(f"{len(kernels)} profiled kernels are no whole number of inferences")
    rounds = [kernels[start : start + size] for start in range(_WARM * size, len(kernels), size)]
    order = [event["name"][: -len(ending)] for event in rounds[0]]
    kinds = [event["args"].get("op_name", "") for event in rounds[0]]
    # Nodes that the runtime put in may share a name: such are told apart by their place, where both lists run alike.
    # The profile calls a node without a name (of a function that was inlined) by its kind and number: `Mul_452`.
    alike = len(written) == size and all(
        node.kind == kind and (node.name or f"{kind}_{event['args'].get('node_index')}") == name
        for node, name, kind, event in zip(written, order, kinds, rounds[0])  # noqa: B905  (Python 3.8)
    )
    own = [node.name for node in written]
    behind = {name: found for name, found in zip(own, names) if own.count(name) == 1}  # noqa: B905  (Python 3.8)
    ops = []
    for place, name in enumerate(order):
        seconds = typical([events[place]["dur"] for events in rounds]) * 1e-6
        found = names[place] if alike else behind.get(name, [name])
        ops.append(op(name, kinds[place], seconds, found, "cpu"))
    return ops
