"""PyTorch through torch.compile and Inductor. Compiling is loading: it is over before the first timed run.

Nothing of CUDA could be tried where this was written: those paths follow torch's documentation.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from vitscope.measure.runner import torch_eager

_COMPILERS = ("c++", "g++", "clang++")  # what Inductor looks for on Linux and macOS, after $CXX


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
        """Each kernel of a second compilation that says what its kernels are made of. Raises where Inductor does not."""
        from vitscope.measure.runner import inductor_profile

        return "measured", inductor_profile.profiled(self.module, self.example, self._compile_mode, self._sync, runs)


def load(path: str, options: dict[str, Any]) -> Model:
    """As torch_eager.load, compiled; raises what Inductor raises."""
    return Model(path, options)
