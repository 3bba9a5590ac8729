"""PyTorch as it is: a module called in inference mode, on the CPU or a CUDA GPU. What the other torch adapters load with.

Nothing of CUDA could be tried where this was written: those paths follow torch's documentation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from vitscope.measure.runner.noise import noise
from vitscope.measure.runner.ops import op, typical

_WARM = 3  # inferences before the profile


def version() -> str:
    import torch

    return torch.__version__


class Model:
    """A module with its input beside it. On a GPU a run ends when the GPU has finished."""

    def __init__(self, path: str, options: dict[str, Any]):
        self.module, self.example = module_at(path, options)
        self.notes: list[str] = []
        self._sync = _sync(options.get("unit", "cpu"))
        self._result: Any = None
        self._forward: Callable[[Any], Any] = self.module
        self._mode: Any = None

    def run(self) -> None:
        import torch

        with torch.inference_mode():
            self._result = self._forward(self.example)
        if self._sync is not None:
            self._sync()

    def outputs(self) -> list[Any]:
        self.run()
        return arrays(self._result)

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """Each module's own time (a leaf's, and of others what is not their children's), or each call's of a program.

        Reading the clock around each costs a microsecond or so, which counts for the op. On a GPU each op is waited
        for, so that launches do not overlap with work as they do in a run.
        """
        import torch

        timer = _of_program if hasattr(self.module, "graph") else _of_modules
        with torch.inference_mode():
            return "measured", timer(self.module, self.example, self._sync, runs)


def load(path: str, options: dict[str, Any]) -> Model:
    """The `.pt2` (torch.export program) or `.pt` (pickled module) at `path`. `options`: `threads`, `unit`, `precision`.

    A pickle runs code as it is read: `.pt` is only ever a file that vitscope wrote itself.
    """
    return Model(path, options)


def module_at(path: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """(module, input) on the unit asked for, both in its precision: cast as a whole, without autocast.

    Raises ImportError where CUDA is asked for and not there.
    """
    import torch

    _threads(int(options.get("threads", 1)))
    device = options.get("unit", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} sees no CUDA GPU here")
    if path.endswith(".pt2"):
        program = torch.export.load(path)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module(check_guards=False)
    else:
        module = _unpickled(path, device).eval()
    kinds = {"fp16": torch.float16, "bf16": torch.bfloat16}
    wanted = kinds.get(options.get("precision", "fp32"), torch.float32)
    written = next((value.dtype for value in module.parameters() if value.is_floating_point()), wanted)
    if written != wanted:
        if path.endswith(".pt2"):
            raise ValueError(f"the program is in {written}, not {wanted}; its types are fixed when it is exported")
        module = module.to(wanted)
    return module, torch.from_numpy(noise(options["input_shape"])).to(device=device, dtype=wanted)


def _unpickled(path: str, device: str) -> Any:
    """The module that vitscope pickled on this host. Its class may be torchvision's, or timm's, which imports that."""
    import torch

    try:
        return torch.load(path, map_location=device, weights_only=False)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    from vitscope.sources.build import import_torchvision  # a pickle never leaves the host, where all of vitscope is

    import_torchvision()
    return torch.load(path, map_location=device, weights_only=False)


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
    try:
        torch.set_num_interop_threads(1)
    except RuntimeError:  # it can be set once only, before the first work
        if torch.get_num_interop_threads() != 1:
            raise


def _sync(device: str) -> Callable[[], None] | None:
    if device != "cuda":
        return None
    import torch

    return torch.cuda.synchronize


def arrays(result: Any) -> list[Any]:
    """The tensors of what a network returns (one, or a list, tuple or dict of them) as float32 arrays."""
    import torch

    if isinstance(result, torch.Tensor):
        return [result.detach().float().cpu().numpy()]
    parts = result.values() if isinstance(result, dict) else result if isinstance(result, (list, tuple)) else ()
    return [array for part in parts for array in arrays(part)]


def _of_modules(module: Any, example: Any, sync: Callable[[], None] | None, runs: int) -> list[dict[str, Any]]:
    """By hooks on every module: its span less those of the modules called within it."""
    clock, wait = time.perf_counter, sync or (lambda: None)
    spans: dict[str, float] = {}
    stack: list[list[float]] = []  # of each module that has begun: when, and how long those within it took

    def begin(*_: Any) -> None:
        wait()
        stack.append([clock(), 0.0])

    def end(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            wait()
            began, within = stack.pop()
            span = clock() - began
            spans[path] = spans.get(path, 0.0) + span - within
            if stack:
                stack[-1][1] += span

        return hook

    kinds = {path: type(part).__name__ for path, part in module.named_modules()}
    handles = []
    for path, part in module.named_modules():
        handles += [part.register_forward_pre_hook(begin), part.register_forward_hook(end(path))]
    rounds = []
    try:
        for _ in range(_WARM + runs):
            spans = {}
            module(example)
            rounds.append(spans)
    finally:
        for handle in handles:
            handle.remove()
    rounds = rounds[_WARM:]
    return [op(path or "(top)", kinds[path], typical([r[path] for r in rounds]), [path]) for path in rounds[0]]


def _of_program(module: Any, example: Any, sync: Callable[[], None] | None, runs: int) -> list[dict[str, Any]]:
    """By torch.fx's own interpreter, with the clock around each call alone."""
    import torch

    clock, wait = time.perf_counter, sync or (lambda: None)
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}

    class Timed(torch.fx.Interpreter):
        node = ""

        def run_node(self, n: Any) -> Any:
            self.node = n.name
            return super().run_node(n)

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            wait()
            start = clock()
            result = target(*args, **kwargs)
            wait()
            times.setdefault(self.node, []).append(clock() - start)
            kinds[self.node] = str(target)
            return result

    for _ in range(_WARM + runs):
        Timed(module).run(example)
    return [op(name, kinds[name], typical(taken[_WARM:]), [name]) for name, taken in times.items()]
