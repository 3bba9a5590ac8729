"""`vitscope schema`: the JSON Schema of specs, for editors."""

from __future__ import annotations

from vitscope.cli.options import Force, Output


def schema(output: Output = None, force: Force = False) -> None:
    """Print the JSON Schema of specs; an editor that knows it completes and checks them."""
    import json

    from vitscope.cli.output import emit
    from vitscope.spec.schema import json_schema

    emit(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", output, force)
