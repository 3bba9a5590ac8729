"""`vitscope validate`: one line a good spec, every problem of the bad ones, nothing built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitscope.cli.options import AllowPlugins, Resolution, Set, parse_resolution

if TYPE_CHECKING:
    from vitscope.spec import Spec


def validate(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC…", help="Spec files, names of the zoo, or - for stdin.")],
    settings: Set = None,
    resolution: Resolution = None,
    allow_plugins: AllowPlugins = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Check specs: every key, value and shape. Nothing is built; exit code 2 when any is bad."""
    import json
    import sys

    from vitscope.errors import SpecError, VitscopeError
    from vitscope.spec import load_spec
    from vitscope.spec.wording import printable

    size = parse_resolution(resolution)
    results: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in specs:
        try:
            spec = load_spec(name, settings or (), resolution=size, allow_plugins=allow_plugins)
        except VitscopeError as error:
            found = list(error.problems) if isinstance(error, SpecError) else [str(error)]
            results.append({"spec": name, "ok": False, "problems": found})
            problems += found
            continue
        results.append({"spec": name, "ok": True, "problems": []} | _facts(spec))
        if not as_json:
            print(f"{printable(name)}: ok, {_summary(spec)}")
    if as_json:
        print(json.dumps({"schema_version": 1, "specs": results}, indent=2, ensure_ascii=False))
    if problems:
        sys.stdout.flush()  # good news before bad, also where both go to one file
        raise SpecError(problems)


def _facts(spec: Spec) -> dict[str, Any]:
    from vitscope.spec.flow import flow
    from vitscope.spec.shape import main_feature

    placed = flow(spec)
    return {
        "name": spec.name,
        "input": list(spec.input),
        "output": main_feature(placed[-1].out_shape).channels,
        "blocks": len(placed),
        "digest": spec.digest,
    }


def _summary(spec: Spec) -> str:
    facts = _facts(spec)
    out = f"{facts['output']} classes" if hasattr(spec.head, "classes") else f"{facts['output']} channels"
    return f"{facts['blocks']} blocks, {'×'.join(map(str, spec.input))} → {out}"
