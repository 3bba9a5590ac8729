"""ExecuTorch on the CPU with its XNNPACK delegate, through the package's Python bindings."""

from __future__ import annotations

import sys
from typing import Any

from vitscope.measure.runner import executorch_names, xnnpack_trace
from vitscope.measure.runner.noise import fitted, noise

_TYPES = {5: "float16", 6: "float32"}  # ScalarType of executorch/runtime/core/portable_type/scalar_type.h
_WARM = 5  # inferences before the profile


def version() -> str:
    from importlib.metadata import version as installed

    _bindings()
    return installed("executorch")


def _bindings() -> Any:
    """The bindings themselves, which take their names from torch. `portable_lib` beside them hands them on unchanged, and
    imports the exporter first, which takes three times as long. An ImportError says what is missing."""
    import torch  # noqa: F401

    if sys.platform == "win32":
        from executorch.extension.pybindings import portable_lib  # which tells Windows where the libraries lie

        return portable_lib
    from executorch.extension.pybindings import _portable_lib  # type: ignore[attr-defined]

    return _portable_lib


class Model:
    """One method of a program: inputs set, executed, outputs left where they are."""

    def __init__(self, path: str, options: dict[str, Any]):
        import torch

        self._path, self._options = path, options
        self._program = _bindings()._load_program(path)
        self._method = self._program.load_method("forward")
        info = self._program.method_meta("forward").input_tensor_meta(0)
        array = fitted(noise(options["input_shape"]), info.sizes(), _TYPES[info.dtype()])
        self._inputs = [torch.from_numpy(array)]
        self._method.set_inputs(self._inputs)
        self.notes: list[str] = []
        # An input inside the planned memory is copied there, and may be overwritten by what follows: it is set each time.
        self.run = self._set_and_execute if info.is_memory_planned() else self._method.execute

    def _set_and_execute(self) -> None:
        self._method.set_inputs(self._inputs)
        self._method.execute()

    def outputs(self) -> list[Any]:
        self.run()
        return [value.float().numpy() for value in self._method.get_outputs(clone_outputs=True)]

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """XNNPACK's times of its kernels, from a second model that is made to ask for them; None where it cannot be.

        The wheel is built without ExecuTorch's event tracer. Kernels are timed in whole microseconds; operations of
        ExecuTorch's own are timed together with its handing over, between one call of XNNPACK and the next.
        """
        try:
            with xnnpack_trace.watched(str(_bindings().__file__)) as calls:
                model = Model(self._path, self._options)
                for _ in range(_WARM):
                    model.run()
                rounds = xnnpack_trace.rounds_of(model.run, calls, runs)
        except xnnpack_trace.Untraceable:
            return None
        steps = executorch_names.typical_of(rounds)
        return "measured", executorch_names.told(steps, 0.0, self._options.get("names", ()))


def load(path: str, options: dict[str, Any]) -> Model:
    """The .pte file at `path`, ready to run. `options`: `threads`, `input_shape`, `names` of its operations in order."""
    import torch

    torch.set_num_threads(1)  # its pool serves none of this
    # The one way to the size of the pool that XNNPACK takes its threads from; the name is the package's own.
    _bindings()._unsafe_reset_threadpool(int(options.get("threads", 1)))
    return Model(path, options)
