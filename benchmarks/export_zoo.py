"""The whole zoo in every format: written, run against PyTorch where a runtime is here, and tabled with what was refused.

python -m benchmarks.export_zoo [--to onnx,litert] [--jobs 1] [--timeout 900] [NAME…]

Each network has a process of its own, which may crash or hang in a format. A finished one is a line of `export_zoo.jsonl`, and
is not done again; `export_zoo.md` is written from the lines.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from vitscope.export import FORMATS
from vitscope.spec.zoo import zoo_names
from vitscope.units import size

LINES, TABLE = (Path(__file__).with_name(f"export_zoo.{suffix}") for suffix in ("jsonl", "md"))
LIMIT = 1e-4  # relative error of an fp32 file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (all, without)")
    parser.add_argument("--to", default=",".join(FORMATS), help="formats, with commas (all, without)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one network in one format")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "FORMATS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        for row in of_network(options.one[0], options.one[1].split(",")):
            print(json.dumps(row), flush=True)
        return
    formats, names = options.to.split(","), options.names or zoo_names()
    for given, known in ((formats, FORMATS), (names, zoo_names())):
        for unknown in sorted(set(given) - set(known)):
            parser.error(f"unknown: {unknown}")
    done = {(row["name"], row["format"]) for row in read()}
    pending = {name: [format for format in formats if (name, format) not in done] for name in names}
    number = 0
    with ThreadPoolExecutor(options.jobs) as pool, LINES.open("a", encoding="utf-8") as lines:
        tasks = [pool.submit(in_process, name, wanted, options.timeout) for name, wanted in pending.items() if wanted]
        for task in as_completed(tasks):
            for row in task.result():
                number += 1
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                lines.flush()
                print(
                    f"{number} of {sum(map(len, pending.values()))} {row['name']} {row['format']}: {cell(row)}",
                    file=sys.stderr,
                )
    TABLE.write_text(table(read()), encoding="utf-8")


def read() -> list[dict[str, Any]]:
    """The rows so far; a line that an interruption cut is left out."""
    rows = []
    for line in LINES.read_text(encoding="utf-8").splitlines() if LINES.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def in_process(name: str, formats: Sequence[str], timeout_s: float) -> list[dict[str, Any]]:
    """A row for each of `formats`, from a fresh process that may crash or hang: then the format it was at has that as its
    reason, and another process goes on with the rest. `timeout_s` is for each format."""
    rows: list[dict[str, Any]] = []
    while len(rows) < len(formats):
        left = formats[len(rows) :]
        command = [sys.executable, "-m", "benchmarks.export_zoo", "--one", name, ",".join(left)]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            assert process.stdout is not None
            deadline = threading.Timer(timeout_s * len(left), process.kill)
            deadline.start()
            rows += [json.loads(line) for line in process.stdout if line.startswith("{") and line.endswith("}\n")]
            code = process.wait()
            if len(rows) == len(formats):
                deadline.cancel()
                break
            errors.seek(0)
            said = (errors.read().strip().splitlines() or ["no word"])[-1]
        late = not deadline.is_alive()
        deadline.cancel()
        reason = f"not done after {timeout_s * len(left):.0f} s" if late else f"exit {code}: {said}"[:300]
        rows.append(_row(name, formats[len(rows)]) | {"refused": reason})
    return rows


def _row(name: str, format: str) -> dict[str, Any]:
    return {"name": name, "format": format, "precision": FORMATS[format].precisions[0]}


def of_network(name: str, formats: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Export `name` at its own resolution with random weights in the usual precision of each format, and run the files."""
    from vitscope.errors import UnavailableError
    from vitscope.export import RefusedError, export
    from vitscope.export.agreement import agreements
    from vitscope.subject import load_subject

    subject = load_subject(name)
    for format in formats:
        row, known = _row(name, format), FORMATS[format]
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            try:
                artifact = export(subject, format, Path(folder) / f"{name}{known.suffix}", known.precisions[0])
            except (RefusedError, UnavailableError) as error:
                yield row | {"refused": str(error)}
                continue
            seconds = time.perf_counter() - started
            row |= {"bytes": artifact.num_bytes, "seconds": round(seconds, 1), "notes": artifact.notes}
            found = agreements(subject, artifact)
        failed = next((each for each in found if each.failed), None)
        if failed is not None:
            yield row | {"refused": f"{failed.runtime} does not run it: {failed.reason}"}
        else:
            errors = {each.runtime: each.relative_error for each in found if each.relative_error is not None}
            yield row | {"errors": errors}


def cell(row: dict[str, Any]) -> str:
    """What the table says of one network in one format."""
    if "refused" in row:
        return "refused"
    written = f"{size(row['bytes'])}, {row['seconds']:.0f} s"
    if not row["errors"]:
        return f"{written}, not run"
    return f"{written}, {max(row['errors'].values()):.0e}{' (over)' if over(row) else ''}"


def over(row: dict[str, Any]) -> list[str]:
    """The runtimes that compute something else from an fp32 file than PyTorch does."""
    if row["precision"] != "fp32":
        return []
    return [runtime for runtime, error in row.get("errors", {}).items() if not error < LIMIT]


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Network × format in Markdown, and below it every refusal with its reason."""
    by = {(row["name"], row["format"]): row for row in rows}
    names = [name for name in zoo_names() if any(name == key[0] for key in by)]
    formats = [format for format in FORMATS if any(format == key[1] for key in by)]
    lines = [
        "# The zoo in every format",
        "",
        f"`python -m benchmarks.export_zoo`: {len(names)} of the {len(zoo_names())} networks of the zoo, at their own "
        "resolution, random weights, deploy form; an empty cell was not tried yet. "
        "A cell is the size of the file, the time to write it, and the largest difference from PyTorch on noise as a "
        "share of the largest output, in the worst of the runtimes that are here (ONNX Runtime and OpenVINO for ONNX); "
        f"fp32 must stay below {LIMIT:.0e}.",
        "",
        "| network | " + " | ".join(f"{format} {FORMATS[format].precisions[0]}" for format in formats) + " |",
        "|---" * (len(formats) + 1) + "|",
    ]
    for name in names:
        cells = (cell(by[name, format]) if (name, format) in by else "" for format in formats)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    refused = [row for row in by.values() if "refused" in row]
    lines += ["", f"## Refused: {len(refused)} of {len(by)}", ""]
    lines += [f"- {row['name']}, {row['format']}: {row['refused']}" for row in refused] or ["None."]
    wrong = [(row, runtime) for row in by.values() for runtime in over(row)]
    lines += ["", f"## Written, but computed otherwise: {len(wrong)}", ""]
    lines += [
        f"- {row['name']}, {row['format']} in {runtime}: {row['errors'][runtime]:.1e}" for row, runtime in wrong
    ] or ["None."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
