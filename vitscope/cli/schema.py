"""`vitscope schema`: the JSON Schema of specs, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitscope.cli.options import Force


def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file; - is stdout.")
    ] = None,
    force: Force = False,
) -> None:
    """Print the JSON Schema of specs; an editor that knows it completes and checks them."""
    import json

    from vitscope.cli.output import emit
    from vitscope.spec.schema import json_schema

    emit(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", output, force)
