"""PyTorch on a CUDA GPU with the whole inference captured once as a CUDA graph, and replayed.

Nothing here could be tried where it was written, for there was no GPU: it follows torch's documentation of CUDA graphs.
"""

from __future__ import annotations

from typing import Any

from vitscope.measure.runner import torch_eager

_SIDE_RUNS = 3  # before the capture, on a side stream, as torch asks


def version() -> str:
    """torch's version with CUDA's. Raises ImportError where torch has no CUDA or sees no GPU."""
    import torch

    if torch.version.cuda is None:
        raise ImportError(f"torch {torch.__version__} is built without CUDA")
    if not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} sees no CUDA GPU here")
    return f"{torch.__version__} (CUDA {torch.version.cuda})"


class Model(torch_eager.Model):
    """A captured inference. A run replays it and waits; the time on the GPU alone is noted when it is loaded."""

    def __init__(self, path: str, options: dict[str, Any]):
        import torch

        super().__init__(path, {**options, "unit": "cuda"})
        self._graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            with torch.cuda.stream(side):
                for _ in range(_SIDE_RUNS):
                    self._forward(self.example)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._graph):
                self._result = self._forward(self.example)
        self.notes = [
            f"{self._on_gpu() * 1e3:.4f} ms a replay between CUDA events; samples are wall time with the wait"
        ]

    def _on_gpu(self, runs: int = 50) -> float:
        """Seconds of one replay by CUDA events, of `runs` in a row: without the launch and the wait of each."""
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(runs):
            self._graph.replay()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) * 1e-3 / runs

    def run(self) -> None:
        import torch

        self._graph.replay()
        torch.cuda.synchronize()

    def op_times(self, runs: int) -> tuple[str, list[dict[str, Any]]] | None:
        """None: a replay is one piece; the eager runtime's profile says where time goes."""
        return None


def load(path: str, options: dict[str, Any]) -> Model:
    """As torch_eager.load, captured."""
    return Model(path, options)
