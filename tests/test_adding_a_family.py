"""docs/adding-a-family.md: what it quotes stands in the files that it names, and the files and functions it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "adding-a-family.md").read_text(encoding="utf-8")
_PIECES = re.compile(
    r"^`(?P<path>[\w/.]+)`\n|^```(?P<language>python|yaml)\n(?P<code>.*?)^```\n", re.MULTILINE | re.DOTALL
)


def quotations() -> list[tuple[str, str]]:
    """(file, code): every block with the file that was named last."""
    found: list[tuple[str, str]] = []
    path = ""
    for piece in _PIECES.finditer(TEXT):
        path = piece["path"] or path
        if piece["code"]:
            found.append((path, piece["code"]))
    return found


@pytest.mark.parametrize(("path", "code"), quotations(), ids=[f"{i}-{q[0]}" for i, q in enumerate(quotations())])
def test_a_quotation_stands_in_its_file(path: str, code: str) -> None:
    assert code in (ROOT / path).read_text(encoding="utf-8")


def test_every_file_that_is_named_exists() -> None:
    for path in re.findall(r"`((?:vitscope|tests|specs|docs)/[\w/.*]+)`", TEXT):
        assert list(ROOT.glob(path)), path
    for name in ("layers", "tokens", "convolution"):
        assert f"blocks/{name}.py" in TEXT and (ROOT / "vitscope" / "blocks" / f"{name}.py").is_file()


def test_the_checks_that_are_named_exist() -> None:
    proof = (ROOT / "tests" / "families" / "proof.py").read_text(encoding="utf-8")
    for name in ("same_logits", "counts", "part", "trains", "trains_on_meta"):
        assert f"`{name}`" in TEXT and f"\ndef {name}(" in proof
