"""MACs and parameters of timm's models beside torch's own counter; `python -m benchmarks.timm_counts` writes the table.

The smallest models of each module of timm, as its registry groups them into families, so that every kind of layer is met.
Each model is counted in a process that has a time limit, in train form, by one forward pass on the meta device.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "timm_counts.md"


@dataclass(frozen=True, slots=True)
class Line:
    """One model: its counts here and by torch, and why they differ. `error` says why there is none."""

    family: str
    name: str
    input: str = ""
    params: int = 0
    torch_params: int = 0
    macs: int = 0
    torch_macs: int = 0
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def is_equal(self) -> bool:
        return not self.error and not self.unknown and (self.params, self.macs) == (self.torch_params, self.torch_macs)


def count(family: str, name: str) -> Line:
    """Both counts of one model of timm."""
    from vitscope.errors import VitscopeError

    start = time.perf_counter()
    try:
        return _count(family, name, start)
    except VitscopeError as error:
        return Line(family, name, error=str(error), seconds=time.perf_counter() - start)


def _count(family: str, name: str, start: float) -> Line:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vitscope.cost.summary import cost_of
    from vitscope.sources import Source
    from vitscope.sources.build import build
    from vitscope.sources.module import load, on_meta

    source = Source("timm", name, f"timm:{name}")
    network = load(source, {}, size=None, resolution=None, batch=1)
    ours = cost_of(network.train.counted)
    size = "×".join(map(str, network.input))
    real = any("real forward pass" in note for note in network.notes)
    try:
        with torch.device("meta"):
            module = build(source, {}).module
    except Exception:
        module = on_meta(build(source, {}).module)
    if real:
        module = build(source, {}).module
    x = torch.zeros((1, *network.input), device="cpu" if real else "meta")
    module.requires_grad_(False)  # the counter trips over a parameter that enters a module without a gradient's history
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(x)
    flops = counter.get_total_flops()
    params = sum(p.numel() for p in module.parameters())
    notes = tuple(note for note in network.notes if not note.startswith("deploy form"))
    return Line(
        family, name, size, ours.params, params, ours.macs, flops // 2, ours.unknown, notes,
        seconds=time.perf_counter() - start,
    )  # fmt: skip


def families(most: int) -> list[tuple[str, str]]:
    """(family, model) of the models to count: of each family the `most` smallest, as their names are ordered by params."""
    from vitscope.sources.build import import_timm

    timm = import_timm()
    found = [(module, name) for module in timm.list_modules() for name in _smallest(timm, module, most)]
    rank: dict[str, int] = defaultdict(int)
    order = []
    for family, name in found:  # every family's smallest first
        order.append((rank[family], family, name))
        rank[family] += 1
    return [(family, name) for _, family, name in sorted(order)]


def _smallest(timm: Any, module: str, most: int) -> list[str]:
    """The models of a family by the size that their name states: the registry knows no sizes without building them."""
    words = ("zepto", "atto", "femto", "pico", "nano", "tiny", "test", "xxs", "xs", "mini", "small", "medium", "base")
    large = ("large", "huge", "giant", "gigantic", "enormous", "so400m", "xxl", "xl")

    def rank(name: str) -> tuple[int, int, str]:
        parts = name.split("_")
        at = next((i for i, word in enumerate(words) if word in parts or word in name), len(words) - 1)
        return (1 if any(word in parts for word in large) else 0, at, name)

    names = sorted(timm.list_models(module=module), key=rank)
    return names[:most]


def _serve(jobs: Any, results: Any) -> None:
    import os

    import torch

    os.nice(10)
    torch.set_num_threads(1)
    for family, name in iter(jobs.recv, None):
        try:
            results.send(asdict(count(family, name)))
        except Exception as error:  # a model that fails is a line of the table
            results.send(
                asdict(Line(family, name, error=f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"))
            )


def measure(wanted: list[tuple[str, str]], limit_s: float, log: Path | None = None) -> list[Line]:
    """A line for each model; one that takes longer than `limit_s` is stopped and says so."""
    context = multiprocessing.get_context("spawn")
    worker: Any = None
    lines = []
    for family, name in wanted:
        if worker is None:
            jobs, near = context.Pipe()
            far, results = context.Pipe(duplex=False)
            worker = context.Process(target=_serve, args=(near, results), daemon=True)
            worker.start()
        jobs.send((family, name))
        slack = 60.0 if not lines else 0.0
        try:
            line = Line(**far.recv()) if far.poll(limit_s + slack) else None
        except EOFError:  # the process died, of memory most likely
            line = Line(family, name, error="the process ended")
        if line is None or line.error == "the process ended":
            line = line or Line(family, name, error=f"stopped after {limit_s:.0f} s")
            worker.kill()
            worker = None
        lines.append(line)
        if log is not None:
            with log.open("a") as file:
                file.write(json.dumps(asdict(line)) + "\n")
        print(f"{len(lines)}/{len(wanted)} {name} {'=' if line.is_equal else line.error or 'differs'}", file=sys.stderr)
    if worker is not None:
        jobs.send(None)
        worker.join(5)
    return lines


# Operations that are multiply-accumulates here and that torch's counter passes over, and the other way round.
CAUSES: dict[str, str] = {}


def cause(line: Line) -> str:
    """Why a line is not equal, or an empty text when it is."""
    if line.is_equal:
        return ""
    if line.error:
        return line.error
    if line.unknown:
        return f"unknown: {', '.join(dict.fromkeys(place.rpartition(' ')[2] for place in line.unknown))}"
    return CAUSES.get(line.name, CAUSES.get(line.family, "NOT EXPLAINED"))


def table(lines: list[Line]) -> str:
    """The page: a summary, every difference with its cause, then every model."""
    equal = [line for line in lines if line.is_equal]
    different = [line for line in lines if not line.is_equal and not line.error]
    failed = [line for line in lines if line.error]
    text = [
        "# Counts of timm's models beside torch's own counter",
        "",
        f"Written by `python -m benchmarks.timm_counts` with timm {version('timm')} and torch {version('torch')}:",
        "`vitscope` counts by one forward pass on the meta device, the reference is `FlopCounterMode` on the same device,",
        "halved, and `sum(p.numel() for p in model.parameters())`. The smallest models of every module of timm.",
        "",
        f"**{len(equal)} of {len(lines)} models in {len({line.family for line in lines})} families: parameters and MACs equal "
        f"as integers.** {_rest(different, failed)}",
        "",
    ]
    if different or failed:
        text += ["| model | MACs | torch's | difference | cause |", "|---|---:|---:|---:|---|"]
        text += [
            f"| {x.name} | {x.macs:,} | {x.torch_macs:,} | {x.macs - x.torch_macs:,} | {cause(x)} |" for x in different
        ]
        text += [f"| {x.name} | – | – | – | {cause(x)} |" for x in failed]
        text.append("")
    text += ["| family | model | input | params | MACs | equal | note |", "|---|---|---|---:|---:|---|---|"]
    text += [
        f"| {x.family} | {x.name} | {x.input} | {x.params:,} | {x.macs:,} | {'yes' if x.is_equal else 'no'} "
        f"| {'; '.join(x.notes)} |"
        for x in sorted(lines, key=lambda line: (line.family, line.name))
        if not x.error
    ]
    return "\n".join(text) + "\n"


def _rest(different: list[Line], failed: list[Line]) -> str:
    if not different and not failed:
        return "None differs, and no operation of theirs is unknown."
    return f"{len(different)} differ, each with its cause below; {len(failed)} could not be built or run."


def main() -> None:
    """Count and write; progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--most", type=int, default=6, help="models of each family, the smallest first")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that one model may take")
    parser.add_argument(
        "--log", type=Path, help="append every line to this file; models that it holds are not repeated"
    )
    arguments = parser.parse_args()
    known = {}
    if arguments.log is not None and arguments.log.exists():
        for text in arguments.log.read_text().splitlines():
            line = Line(**{key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(text).items()})
            known[line.name] = line
    wanted = families(arguments.most)
    measured = measure([item for item in wanted if item[1] not in known], arguments.limit, arguments.log)
    TABLE.write_text(table([*known.values(), *measured]))
    print(f"wrote {TABLE.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
