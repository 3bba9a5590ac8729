"""`python -m benchmarks.own_loops [MODEL…]`: vitscope's figure beside that of each runtime's own timing loop.

ONNX Runtime's package brings no program that times a model, so its loop is the one its documentation shows:
`session.run` on one array, one thread, in a process without vitscope. LiteRT's is the tool in its package,
`ai_edge_litert.tools.benchmark_litert_model`. Ours and theirs run the same file with the same number of threads, each
in fresh processes that alternate in random order. Writes own_loops.md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from vitscope.export import FORMATS, export
from vitscope.export.artifact import Artifact
from vitscope.measure.channel import Job
from vitscope.measure.record import Block
from vitscope.measure.statistics import summarize
from vitscope.measure.targets.host import HostTarget
from vitscope.subject import load_subject

_MODELS = ("mobilenetv2_100", "efficientformerv2_s0")
TABLE = Path(__file__).with_suffix(".md")
_WARM_S, _TIMEOUT_S = 0.5, 300.0

_ORT_LOOP = """
import json, sys, time
import numpy, onnxruntime
path, threads, runs, shape = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
feeds = {session.get_inputs()[0].name: numpy.random.rand(*shape).astype("float32")}
end = time.perf_counter() + 0.5
while time.perf_counter() < end:
    session.run(None, feeds)
samples = []
for _ in range(runs):
    start = time.perf_counter()
    session.run(None, feeds)
    samples.append(time.perf_counter() - start)
print(json.dumps(samples))
"""


def ours(artifact: Artifact, runtime: str, threads: int, runs: int) -> list[float]:
    """The samples of one fresh process of vitscope's runner, in seconds."""
    channel = HostTarget().open(Job(artifact=artifact, runtime=runtime, threads=threads), _TIMEOUT_S)
    try:
        channel.warm(_WARM_S, 20, 0.01, 10.0)
        return list(channel.block(0.0, runs).samples_s)
    finally:
        channel.close()


def onnxruntimes_own(artifact: Artifact, runtime: str, threads: int, runs: int) -> list[float]:
    """The samples of its documented loop, in seconds."""
    arguments = [str(artifact.path), str(threads), str(runs), json.dumps(artifact.input_shape)]
    return json.loads(_output([sys.executable, "-c", _ORT_LOOP, *arguments]))


def litert_own(artifact: Artifact, runtime: str, threads: int, runs: int) -> list[float]:
    """The median of one run of LiteRT's own tool, in seconds: it keeps no samples, and rounds to 0.01 ms."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        tool = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", f"--model={artifact.path}"]
        _output(
            [*tool, f"--num_runs={runs}", "--warmup_runs=100", f"--num_threads={threads}", f"--result_json={result}"]
        )
        return [json.loads(result.read_text())["latency"]["median_ms"] * 1e-3]


LOOPS: dict[str, tuple[str, Callable[[Artifact, str, int, int], list[float]]]] = {
    "onnxruntime": ("onnx", onnxruntimes_own),
    "litert": ("litert", litert_own),
}


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def main() -> None:
    """Measure, print and write one line for each model and runtime; a row whose intervals do not meet ends with `differ`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=_MODELS)
    parser.add_argument("--runtime", choices=LOOPS, action="append", help="one or more; both where none is named")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each")
    parser.add_argument("--runs", type=int, default=200, help="inferences of a process")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resolution", type=int)
    given = parser.parse_args()
    draw = random.Random(0)
    lines = [f"{'model':24} {'runtime':12} {'vitscope':>26} {'its own loop':>26} {'ratio':>6}"]
    print(lines[0])
    with tempfile.TemporaryDirectory() as folder:
        for model in given.models:
            size = (given.resolution, given.resolution) if given.resolution else None
            subject = load_subject(model, resolution=size)
            for runtime in given.runtime or LOOPS:
                format, theirs = LOOPS[runtime]
                artifact = export(subject, format, Path(folder) / f"{model}{FORMATS[format].suffix}")
                loops = {"ours": ours, "theirs": theirs}
                blocks: dict[str, list[Block]] = {name: [] for name in loops}
                for process in range(given.rounds):
                    for name in draw.sample(sorted(loops), len(loops)):
                        samples = loops[name](artifact, runtime, given.threads, given.runs)
                        made = Block(process=process, order=process, started_s=0.0, samples_s=(median(samples),))
                        blocks[name].append(made)
                lines.append(_row(model, runtime, blocks))
                print(lines[-1], flush=True)
    about = f"{given.rounds} fresh processes of {given.runs} inferences each, {given.threads} thread"
    text = "\n".join(line.rstrip() for line in lines)
    TABLE.write_text(
        f"# vitscope beside the runtimes' own loops\n\n`python -m benchmarks.own_loops`: {about}; medians with 95 % intervals."
        f"\n\n```\n{text}\n```\n",
        encoding="utf-8",
    )


def _row(model: str, runtime: str, blocks: dict[str, list[Block]]) -> str:
    found = {name: summarize(of) for name, of in blocks.items()}
    texts = [f"{s.latency_p50_s * 1e3:.3f} ms ({s.low_s * 1e3:.3f}–{s.high_s * 1e3:.3f})" for s in found.values()]
    one, other = found["ours"], found["theirs"]
    meet = one.low_s <= other.high_s and other.low_s <= one.high_s
    ratio = one.latency_p50_s / other.latency_p50_s
    return f"{model:24} {runtime:12} {texts[0]:>26} {texts[1]:>26} {ratio:6.3f} {'agree' if meet else 'differ'}"


if __name__ == "__main__":
    main()
