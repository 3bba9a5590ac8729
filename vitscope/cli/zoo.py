"""`vitscope zoo`: the networks that ship with vitscope, and the check of every figure that their authors printed."""

from __future__ import annotations

from typing import Annotated

import typer

from vitscope.cli.options import AsCsv, AsJson, Force, Format, FormatChoice, Output, choose_format
from vitscope.errors import UsageError, nearest


def zoo(
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT…]", help="Only names that hold any of these.")
    ] = None,
    family: Annotated[str | None, typer.Option("--family", metavar="NAME", help="Only this family.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Recompute every reported figure; exit 1 when one differs without a cause.")
    ] = False,
    form_out: FormatChoice = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """List the networks of the zoo.

    With --check, hold every figure that their authors printed against what is computed here.
    """
    import json

    from vitscope.catalogue import catalogue, families
    from vitscope.catalogue import check as recompute
    from vitscope.cli.output import check_writable, emit, emit_tables
    from vitscope.report.catalogue import catalogue_json, checks_json, checks_table, entries_table, rows_csv

    chosen = choose_format(form_out, as_json, as_csv, output)
    if output is not None:
        check_writable(output, force)
    if family is not None and family.lower() not in (known := {name.lower(): name for name in families()}):
        raise UsageError(
            f"--family {family}: no such family{nearest(family, known.values())}; {', '.join(known.values())}"
        )
    if check:
        checks = recompute(patterns or (), family)
        found, table, data = len(checks), checks_table(checks), checks_json(checks)
        failed = any(c.agreement == "unexplained" for c in checks)
    else:
        entries = catalogue(patterns or (), family)
        found, table, data = len(entries), entries_table(entries), catalogue_json(entries)
        failed = False
    if not found:
        raise UsageError(f"nothing in the zoo matches {' '.join(patterns or ())}".rstrip())
    if chosen is Format.json:
        emit(json.dumps(data, indent=2, ensure_ascii=False) + "\n", output, force)
    elif chosen is Format.csv:
        emit(rows_csv(data["checks" if check else "networks"]), output, force)
    else:
        emit_tables([table], chosen.value, output, force)
    return 1 if failed else 0
