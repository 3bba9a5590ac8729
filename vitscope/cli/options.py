"""Options that several commands share, with one meaning everywhere, and how their texts become values."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vitscope.errors import UsageError, nearest


class Format(str, Enum):
    """How a result is written."""

    text = "text"
    md = "md"
    json = "json"
    csv = "csv"


class Level(str, Enum):
    """What a row stands for."""

    stage = "stage"
    block = "block"
    op = "op"


class Form(str, Enum):
    """Before or after fusing."""

    train = "train"
    deploy = "deploy"


class Convention(str, Enum):
    """Whose definition of params and MACs."""

    vitscope = "vitscope"
    fvcore = "fvcore"
    snap = "snap"


class Unit(str, Enum):
    """Where a runtime that can choose executes."""

    all = "all"
    cpu = "cpu"
    cpu_gpu = "cpu+gpu"
    cpu_ane = "cpu+ane"
    cuda = "cuda"


Device = Annotated[
    list[str] | None,
    typer.Option("--device", metavar="NAME", help="Predict latency on this device, or device file (repeatable)."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the spec, as stages.2.depth=8 (repeatable)."),
]
Resolution = Annotated[
    str | None, typer.Option("--resolution", metavar="N|HxW", help="Input size in pixels instead of the spec's own.")
]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="C,H,W", help="Input of a model that is no spec: channels, height, width."),
]
Kwargs = Annotated[
    str | None,
    typer.Option("--kwargs", metavar="K=V,…", help="Arguments of timm:, torchvision: or module:callable, or JSON."),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=65536, help="Images at once; counts stay per image.")]
AllowPlugins = Annotated[bool, typer.Option("--allow-plugins", help="Run the Python files that a spec names.")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write to a file, .txt .md .json or .csv; - is stdout."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
FormatChoice = Annotated[Format | None, typer.Option("--format", help="Format of the result.", show_default="text")]
AsJson = Annotated[bool, typer.Option("--json", help="Same as --format json.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Same as --format csv.")]

# Of `measure`, and of `profile` and `compare` with --measure: where and how (vitscope.cli.measuring.Conditions).
Measure = Annotated[
    str | None,
    typer.Option(
        "--measure", metavar="RUNTIME,…", help="Run the deploy form on these runtimes now, and show what they took."
    ),
]
Target = Annotated[
    str, typer.Option("--target", metavar="WHERE", help="host, mac, ssh:USER@HOST, adb:SERIAL or iphone.")
]
Precisions = Annotated[
    str | None,
    typer.Option("--precision", metavar="P,…", help="fp32, fp16 or int8.", show_default="fp32, for Core ML fp16"),
]
Threads = Annotated[str, typer.Option("--threads", metavar="N,…", help="Threads that the runtime may use.")]
Affinity = Annotated[str | None, typer.Option("--affinity", metavar="N,N-M", help="Hold the process to these cores.")]
ComputeUnit = Annotated[Unit | None, typer.Option("--compute-units", help="Where Core ML, or PyTorch, may execute.")]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, max=1000, help="Fresh processes a row.", show_default="5")
]
BlockTime = Annotated[
    str | None, typer.Option("--block", metavar="TIME", help="Time of a process's block of samples.", show_default="1s")
]
Cores = Annotated[
    str | None, typer.Option("--cores", metavar="big|mid|little|all|MASK", help="Cores of an Android device.")
]
Runner = Annotated[
    list[str] | None,
    typer.Option("--runner", metavar="[NAME=]PATH", help="Benchmark program for an Android device (repeatable)."),
]
Python = Annotated[str | None, typer.Option("--python", metavar="PATH", help="Python of an ssh target.")]
SshOption = Annotated[
    list[str] | None, typer.Option("--ssh-option", metavar="K=V", help="Passed to ssh as -o (repeatable).")
]
RuntimeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of torch.compile, or flag of a program on Android (repeatable).",
    ),
]
Team = Annotated[str | None, typer.Option("--team", metavar="ID", help="Development team that signs for an iPhone.")]
Bundle = Annotated[str | None, typer.Option("--bundle", metavar="ID", help="Bundle identifier for an iPhone.")]
Signing = Annotated[str | None, typer.Option("--profile", metavar="UUID", help="Provisioning profile for an iPhone.")]

_SUFFIXES = {".json": Format.json, ".csv": Format.csv, ".md": Format.md, ".txt": Format.text}


def choose_format(chosen: Format | None, as_json: bool, as_csv: bool, output: Path | None) -> Format:
    """The one format that the flags and the suffix of `output` ask for. Raises UsageError when they disagree."""
    asked = {chosen} if chosen is not None else set()
    asked |= {Format.json} if as_json else set()
    asked |= {Format.csv} if as_csv else set()
    if len(asked) > 1:
        raise UsageError("--json, --csv and --format ask for different formats: choose one")
    if asked:
        return asked.pop()
    if output is None or str(output) == "-":
        return Format.text
    if output.suffix not in _SUFFIXES:
        raise UsageError(
            f"-o {output}: cannot tell the format from the suffix{nearest(output.suffix, _SUFFIXES)}; "
            f"use {', '.join(_SUFFIXES)}, or --format"
        )
    return _SUFFIXES[output.suffix]


def parse_resolution(text: str | None) -> tuple[int, int] | None:
    """`224` or `224x288` (height x width) in pixels. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:[x×]([1-9][0-9]{0,4}))?", text)
    if not match:
        raise UsageError(f"--resolution {text}: expected a side in pixels, as 224, or height x width, as 224x288")
    return int(match[1]), int(match[2] or match[1])


def parse_resolutions(text: str | None) -> list[tuple[int, int] | None]:
    """`192,224,256x320` → each size; [None] where none is given, for the spec's own. Raises UsageError."""
    return [parse_resolution(part) for part in text.split(",")] if text is not None else [None]
