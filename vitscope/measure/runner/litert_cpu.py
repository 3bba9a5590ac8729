"""LiteRT on the CPU with its XNNPACK delegate, which is checked to be there."""

from __future__ import annotations

from typing import Any

from vitscope.measure.runner import litert_profile
from vitscope.measure.runner.noise import fitted, noise, pixels, sized


def version() -> str:
    from importlib.metadata import version as installed

    import ai_edge_litert  # noqa: F401  # an ImportError says what is missing

    return installed("ai-edge-litert")


class Model:
    """An interpreter with its input set. The delegate is applied when the tensors are allocated."""

    def __init__(self, path: str, options: dict[str, Any]):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=path, num_threads=int(options.get("threads", 1)))
        (given,) = self._interpreter.get_input_details()
        declared = [int(side) for side in given["shape_signature"]]
        self._resized = min(declared) < 0
        if self._resized:  # before a delegate sees it
            self._interpreter.resize_tensor_input(given["index"], sized(declared, options["input_shape"]))
        self._interpreter.allocate_tensors()
        (given,) = self._interpreter.get_input_details()
        self._path, self._threads = path, int(options.get("threads", 1))
        self._input = quantised(given, options["input_shape"])
        self._interpreter.set_tensor(given["index"], self._input)
        self.run = self._interpreter.invoke
        self.notes = self._delegated()

    def _delegated(self) -> list[str]:
        """What the delegate left over. Raises RuntimeError when it took nothing, for then this is no XNNPACK figure."""
        ops = self._interpreter._get_ops_details()
        inside = [op for op in ops if op["op_name"] == "DELEGATE"]
        if not inside:
            raise RuntimeError("XNNPACK took no operation of the file")
        taken = set().union(*(_covered(op, ops) for op in inside))
        total = len(ops) - len(inside)
        parts = "one part" if len(inside) == 1 else f"{len(inside)} parts"
        return [f"XNNPACK runs {len(taken)} of {total} operations, in {parts}"]

    def outputs(self) -> list[Any]:
        self.run()
        results = []
        for detail in self._interpreter.get_output_details():
            value = self._interpreter.get_tensor(detail["index"])
            scale, zero = detail["quantization"]
            results.append((value.astype("float32") - zero) * scale if scale else value)
        return results

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """From a second model that profiles, through LiteRT's C library; None where its events cannot be read, or the
        file leaves sizes open, which that library was not tried with.

        Microseconds are whole there, so a kernel loses half of one on average.
        """
        if self._resized or not litert_profile.supported(version()):
            return None
        outputs = self._interpreter.get_output_details()
        rounds = litert_profile.kernels(self._path, [self._input], outputs, self._threads, runs)
        ops = self._interpreter._get_ops_details()
        titles = {int(tensor["index"]): tensor["name"] for tensor in self._interpreter.get_tensor_details()}
        own = {
            op["index"]: litert_profile.FileOp(
                op["index"], op["op_name"], [titles[int(value)] for value in op["outputs"]]
            )
            for op in ops
            if op["op_name"] != "DELEGATE"
        }
        taken = [sorted(_covered(op, ops)) for op in ops if op["op_name"] == "DELEGATE"]
        left = [own[index] for index in sorted(set(own).difference(*taken))]
        return "measured", litert_profile.told(rounds, [[own[index] for index in part] for part in taken], left)


def load(path: str, options: dict[str, Any]) -> Model:
    """The .tflite file at `path`, ready to run. `options`: `threads`, `input_shape`."""
    return Model(path, options)


def quantised(given: dict[str, Any], shape: Any) -> Any:
    """The noise as the input that `given` describes, in its integers where the file takes integers."""
    import numpy

    array = noise(shape)
    scale, zero = given["quantization"]
    if scale:
        limits = numpy.iinfo(given["dtype"])
        array = numpy.clip(numpy.round(array / scale) + zero, limits.min, limits.max)
    else:
        array = pixels(array, given["dtype"])
    return fitted(array, given["shape"], given["dtype"])


def _covered(part: dict[str, Any], ops: list[dict[str, Any]]) -> set[int]:
    """Indices of the operations that `part`, a delegate, stands for: those between its inputs and its outputs.

    The interpreter lists an operation still when a delegate has taken it, and does not say which has.
    """
    makers = {int(value): op for op in ops if op["op_name"] != "DELEGATE" for value in op["outputs"]}
    ends = {int(value) for value in part["inputs"]}
    found: set[int] = set()
    pending = [int(value) for value in part["outputs"]]
    while pending:
        value = pending.pop()
        op = makers.get(value)
        if op is None or value in ends or op["index"] in found:
            continue
        found.add(op["index"])
        pending += [int(given) for given in op["inputs"]]
    return found
