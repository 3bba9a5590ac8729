"""A small good spec for the tests of this folder, the ways to read it, and what is said of an edit of it."""

from __future__ import annotations

import re

import pytest

from vitscope.errors import SpecError
from vitscope.spec import Spec, parse_spec

MINI = """\
name: mini
input: [3, 64, 64]
stem: {block: conv_stem, width: 16}
stages:
  - {depth: 2, width: 16, block: ffn}
  - {depth: 3, width: 32, blocks: [ffn*2, attention], downsample: conv}
head: {block: classifier, classes: 10}
"""
STAGE = "{depth: 2, width: 16, block: ffn}"


def edited(old: str, new: str) -> str:
    """MINI with one text replaced."""
    assert old in MINI
    return MINI.replace(old, new, 1)


def read(text: str, *overrides: str) -> Spec:
    return parse_spec(text, "x.yaml", overrides)


def problems(text: str, *overrides: str) -> list[str]:
    """What is said of a bad spec, line by line, the kinds that there are left out."""
    with pytest.raises(SpecError) as caught:
        read(text, *overrides)
    return [without_kinds(line) for line in caught.value.problems]


def without_kinds(text: str) -> str:
    """`text` with every list of the kinds that there are cut short: it grows with the zoo."""
    return re.sub(r"\bkinds: .*", "kinds: …", text)
