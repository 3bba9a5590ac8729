"""PyTorch through torch.compile and Inductor. Compiling is loading: it is over before the first timed run.

Nothing of CUDA could be tried where this was written: those paths follow torch's documentation.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from vitscope.measure.runner import torch_eager
from vitscope.measure.runner.ops import op

_COMPILERS = ("c++", "g++", "clang++")  # what Inductor looks for on Linux and macOS, after $CXX
_WARM = 5  # inferences before the profile


def version() -> str:
    """torch's version. Raises ImportError where there is no C++ compiler, without which Inductor cannot work."""
    found = torch_eager.version()
    if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), *_COMPILERS)))):
        raise ImportError("torch.compile needs a C++ compiler (apt-get install g++, or set CXX)")
    return found


class Model(torch_eager.Model):
    """The compiled module. `options` of the job: `mode` as torch.compile takes it, `freezing` = 1 to fold weights."""

    def __init__(self, path: str, options: dict[str, Any]):
        # Before torch is imported: its pool of compiling processes would stay alive beside the timed runs.
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        import torch
        import torch._inductor.config as inductor

        super().__init__(path, options)
        chosen = options.get("options") or {}
        mode = chosen.get("mode", "default")
        inductor.freezing = str(chosen.get("freezing", "0")) not in ("0", "", "false")
        self.notes = [f"Inductor, mode {mode}" + (", weights frozen" if inductor.freezing else "")]
        self._compile_mode = None if mode == "default" else mode
        self._forward = torch.compile(self.module, mode=self._compile_mode)
        self.run()

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """The kernels by torch's profiler, in a module compiled anew with a mark on each of its C++ kernels.

        The nodes that a fused kernel stands for are those that Inductor names in its provenance, where it does.
        """
        import torch
        import torch._inductor.config as inductor
        from torch.profiler import ProfilerActivity, profile

        cuda = self._sync is not None
        torch._dynamo.reset()
        inductor.cpp.enable_kernel_profile = True
        try:
            forward = torch.compile(self.module, mode=self._compile_mode)
            with torch.inference_mode():
                for _ in range(_WARM):
                    forward(self.example)
                activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
                with profile(activities=activities) as prof:
                    for _ in range(runs):
                        forward(self.example)
                    if self._sync is not None:
                        self._sync()
        finally:
            inductor.cpp.enable_kernel_profile = False
        ops = []
        for event in prof.key_averages():
            taken = (event.self_device_time_total if cuda else event.self_cpu_time_total) * 1e-6 / runs
            if taken > 0:
                ops.append(op(event.key, "kernel", taken, [], "cuda" if cuda else "cpu"))
        return "measured", ops


def load(path: str, options: dict[str, Any]) -> Model:
    """As torch_eager.load, compiled; raises what Inductor raises."""
    return Model(path, options)
