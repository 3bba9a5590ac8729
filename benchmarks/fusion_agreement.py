"""The fusion rules of every runtime, held against what the runtimes make of the zoo's networks: fusion_agreement.md.

nice python -m benchmarks.fusion_agreement [--runtimes onnxruntime,litert] [--again] [--record FILE] [NAME…]

A finished network is a line of `fusion_agreement.jsonl` and is not run again; what the runtimes told lies in the cache folder, so
that `--again` holds changed rules against it in a minute. Networks go from the smallest families on; those of dense
prediction, which are large, come last. The rules see one block at a time, as a prediction does, the runtimes a network whole.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.fusion_dump import KINDS, Ran, kind_of_aten, ran
from vitscope.errors import UnavailableError
from vitscope.export import RefusedError
from vitscope.graph.store import block_graph, store_folder
from vitscope.latency.kernels import Kernel, lower
from vitscope.latency.runtime import FusionRules, load_runtime
from vitscope.spec.flow import flow
from vitscope.spec.load import load_spec
from vitscope.spec.value import Spec
from vitscope.spec.zoo import zoo_names

LINES, TABLE = (Path(__file__).with_name(f"fusion_agreement.{suffix}") for suffix in ("jsonl", "md"))
RUNTIMES = ("onnxruntime", "openvino", "litert", "executorch", "coreml", "eager")
_LATE = ("_ade20k", "_cityscapes", "_sam", "_sr", "segformer", "segnext")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One network on one runtime. `matched` pairs are of one kind and share a module, or stand in one parent module
    (`near` of them); `only_ran` and `only_rules` count what is left on each side, by kind."""

    ran: int
    rules: int
    matched: int
    near: int
    only_ran: dict[str, int]
    only_rules: dict[str, int]


def rules_of(runtime: str) -> FusionRules:
    """The rules as far as the runtime's own account reaches: what Core ML fuses on the device stands in no program."""
    rules = load_runtime(runtime)
    if runtime == "coreml":
        return replace(rules, epilogues=tuple(rule for rule in rules.epilogues if rule.how == "fold"))
    return rules


def kernels_of(spec: Spec, rules: FusionRules) -> list[Kernel]:
    """The kernels of a spec's blocks, with scopes that begin at the network."""
    found = []
    for place in flow(spec):
        for kernel in lower(block_graph(place.block, place.in_shape, "deploy"), rules):
            if rules.name == "coreml" and kernel.main == "clone":
                continue  # transposes of the program are not compared: which of them copy is decided on the device
            scopes = tuple(".".join(filter(None, (place.path, scope))) for scope in kernel.scopes)
            found.append(replace(kernel, scope=scopes[0], scopes=scopes))
    return found


def compare(told: Sequence[Ran], kernels: Sequence[Kernel], runtime: str) -> Agreement:
    """Pair what ran with what the rules say, each once: first where the modules meet, then where their parents do."""
    kinds = {each.kind: kinds_of(each.kind, runtime) for each in told}
    waiting = sorted(
        range(len(told)), key=lambda i: (len(kinds[told[i].kind]), i)
    )  # the most certain words choose first
    free = list(range(len(kernels)))
    near = 0
    for places in (_own, _parents):
        theirs = {i: places(kernels[i].scopes) for i in free}
        left = []
        for i in waiting:
            here = places(told[i].scopes)
            fits = (j for kind in kinds[told[i].kind] for j in free if kernels[j].kind == kind and here & theirs[j])
            found = next(fits, None)
            if found is None:
                left.append(i)
            else:
                free.remove(found)
                near += places is _parents
        waiting = left
    return Agreement(
        ran=len(told),
        rules=len(kernels),
        matched=len(told) - len(waiting),
        near=near,
        only_ran=dict(Counter(told[i].kind for i in waiting).most_common()),
        only_rules=dict(Counter(f"{kernels[i].kind}: {kernels[i].main}" for i in free).most_common()),
    )


def kinds_of(word: str, runtime: str) -> tuple[str, ...]:
    """The kinds of kernel that a runtime's word may stand for, none for a word that is not known."""
    return (kind_of_aten(word) or ()) if runtime == "eager" else KINDS[runtime].get(word, ())


def _own(scopes: Iterable[str]) -> frozenset[str]:
    return frozenset(scopes)


def _parents(scopes: Iterable[str]) -> frozenset[str]:
    return frozenset(name for scope in scopes for name in (scope, scope.rpartition(".")[0]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (all, without)")
    parser.add_argument("--runtimes", default=",".join(RUNTIMES), help="with commas (all, without)")
    parser.add_argument(
        "--resolution", type=int, default=224, help="side of the image; a network that cannot keeps its own"
    )
    parser.add_argument("--again", action="store_true", help="only hold the rules against what is known already")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write what runtimes told of the families' first (.json.gz)"
    )
    options = parser.parse_args(arguments)
    if options.record is not None:
        record(options.record)
        return
    names, runtimes = options.names or in_order(zoo_names()), options.runtimes.split(",")
    for given, known in ((names, zoo_names()), (runtimes, RUNTIMES)):
        for unknown in sorted(set(given) - set(known)):
            parser.error(f"unknown: {unknown}")
    rows = {(row["name"], row["runtime"]): row for row in read()}
    for name in names:
        for runtime in runtimes:
            if (name, runtime) in rows and not options.again:
                continue
            row = row_of(name, runtime, options.again)
            if row is None:
                continue
            rows[name, runtime] = row
            with LINES.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
            print(f"{name} {runtime}: {cell(row)}", file=sys.stderr, flush=True)
    LINES.write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")
    TABLE.write_text(table(rows.values()), encoding="utf-8")


def record(file: Path) -> None:
    """What is known of one small network of every family, for a test that needs no runtime."""
    names = families(zoo_names())
    known = {
        f"{name} {runtime}": [(kind, scopes) for kind, scopes, _ in json.loads(gzip.decompress(kept.read_bytes()))]
        for name in names
        for runtime in RUNTIMES
        if (kept := _kept(name, runtime)).is_file()
    }
    file.write_bytes(gzip.compress(json.dumps(known, separators=(",", ":")).encode(), mtime=0))
    print(f"{file}: {len(known)} of {len(names) * len(RUNTIMES)}", file=sys.stderr)


def families(names: Iterable[str]) -> list[str]:
    """The smallest network of every family that classifies."""
    found: dict[str, list[str]] = {}
    for name in names:
        if not any(part in name for part in _LATE):
            found.setdefault(name.split("_")[0], []).append(name)
    return [min(family, key=_size_word) for family in found.values()]


def in_order(names: Iterable[str]) -> list[str]:
    """One small network of every family, then the rest, and dense prediction last."""
    found = sorted(names, key=lambda name: any(part in name for part in _LATE))
    firsts = families(found)
    return [*firsts, *(name for name in found if name not in firsts)]


def _size_word(name: str) -> tuple[int, str]:
    words = (
        "xxs",
        "xx_small",
        "s0",
        "m0_9",
        "t8",
        "b0",
        "050",
        "128s",
        "tiny",
        "conv_small",
        "l1",
        "100",
        "294m",
        "s12",
    )
    return next((i for i, word in enumerate(words) if word in name), len(words)), name


def row_of(name: str, runtime: str, known_only: bool) -> dict[str, Any] | None:
    """A line of the results; None where only what is known counts and this is not."""
    spec = load_spec(name)
    row = {"name": name, "runtime": runtime, "input": spec.input}
    kept = _kept(name, runtime)
    if kept.is_file():
        told = [Ran(kind, tuple(scopes), name) for kind, scopes, name in json.loads(gzip.decompress(kept.read_bytes()))]
    elif known_only:
        return None
    else:
        from vitscope.subject import load_subject

        started = time.perf_counter()
        try:
            told = ran(load_subject(name), runtime)
        except (RefusedError, UnavailableError) as error:
            return row | {"refused": str(error)}
        row["seconds"] = round(time.perf_counter() - started, 1)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(gzip.compress(json.dumps([(k.kind, k.scopes, k.name) for k in told]).encode()))
    return row | asdict(compare(told, kernels_of(spec, rules_of(runtime)), runtime))


def _kept(name: str, runtime: str) -> Path:
    store = store_folder()
    folder = store.parent if store is not None else Path(".")
    return folder / "fusion" / f"{name}.{runtime}.json.gz"


def read() -> Iterator[dict[str, Any]]:
    """The lines so far, the later of two counting; one that an interruption cut is left out."""
    for line in LINES.read_text(encoding="utf-8").splitlines() if LINES.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def cell(row: dict[str, Any]) -> str:
    """`99 % / 97 %`: shares of what ran, and of the rules' kernels, that have a partner."""
    if "refused" in row:
        return "refused"
    return f"{row['matched'] / max(row['ran'], 1):.0%} / {row['matched'] / max(row['rules'], 1):.0%}".replace("%", " %")


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The results in Markdown: a line a runtime, what is left over on both sides, and a line a network."""
    rows = list(rows)
    good = [row for row in rows if "refused" not in row]
    runtimes = [name for name in RUNTIMES if any(row["runtime"] == name for row in good)]
    names = [name for name in in_order(zoo_names()) if any(row["name"] == name for row in rows)]
    lines = [
        "# Fusion rules against the runtimes",
        "",
        "`nice python -m benchmarks.fusion_agreement`: kernels that the rules of `vitscope/latency/runtimes/` give, beside "
        f"those that the runtime tells of itself, over {len(names)} of the {len(zoo_names())} networks of the zoo, deploy "
        "form, batch 1. Two are a pair where they are of one kind and work for one module (or, counted as *near*, for "
        "modules of one parent). The calls of delegates are in neither, nor are reshapes but ONNX Runtime's, which runs them.",
        "",
        "| runtime | version | networks | its kernels | of these in the rules | rules' kernels | of these it ran | near |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for runtime in runtimes:
        mine = [row for row in good if row["runtime"] == runtime]
        ran_, rules, matched, near = (sum(row[key] for row in mine) for key in ("ran", "rules", "matched", "near"))
        version = load_runtime(runtime).version or "–"
        lines.append(
            f"| {runtime} | {version} | {len(mine)} | {ran_} | {matched / ran_:.1%} | {rules} | {matched / rules:.1%} | "
            f"{near / max(matched, 1):.1%} |"
        )
    causes = Path(__file__).with_name("fusion_causes.md")
    if causes.is_file():
        lines += ["", causes.read_text(encoding="utf-8").rstrip()]
    lines += ["", "## What is left over, by kind", ""]
    for runtime in runtimes:
        for title, key in (("only the runtime has", "only_ran"), ("only the rules have", "only_rules")):
            total: Counter[str] = Counter()
            where: dict[str, Counter[str]] = {}
            for row in good:
                if row["runtime"] == runtime:
                    for kind, number in row[key].items():
                        total[kind] += number
                        where.setdefault(kind, Counter())[row["name"]] += number
            shown = "; ".join(
                f"{kind} {number} (most in {where[kind].most_common(1)[0][0]})" for kind, number in total.most_common(8)
            )
            lines.append(f"- {runtime}, {title}: {shown or 'nothing'}")
    lines += ["", "## By network: of what ran / of the rules", ""]
    lines += ["| network | " + " | ".join(runtimes) + " |", "|---" * (len(runtimes) + 1) + "|"]
    by = {(row["name"], row["runtime"]): row for row in rows}
    for name in names:
        cells = (cell(by[name, runtime]) if (name, runtime) in by else "" for runtime in runtimes)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    refused = [row for row in rows if "refused" in row]
    lines += (
        ["", "## Refused", "", *(f"- {r['name']}, {r['runtime']}: {r['refused']}" for r in refused)] if refused else []
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
