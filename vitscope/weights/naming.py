"""Naming: the rules that turn the keys of somebody's checkpoint into ours, and how they are applied."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """Replace what `pattern` finds in a key by `to`; with `beside`, only where that key is in the file as well."""

    pattern: str
    to: str
    beside: str = ""

    def apply(self, key: str, keys: frozenset[str]) -> str:
        found = re.search(self.pattern, key)
        if found is None or (self.beside and found.expand(self.beside) not in keys):
            return key
        return key[: found.start()] + found.expand(self.to) + key[found.end() :]


@dataclass(frozen=True, slots=True)
class Naming:
    """One project's names of one family.

    A file is in this naming when every one of `marks` is found in some key. `drop` are keys that carry nothing learned.
    The rules run in order over every key; what they give is our name, or one of the naming `then`.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    drop: tuple[str, ...] = ()
    then: Naming | None = None
    skips_blocks: bool = False  # numbers of blocks have gaps, where a module without weights stands


def our_names(naming: Naming, keys: Iterable[str]) -> dict[str, str]:
    """Our name for each of `keys`, except those on the drop list. A key that no rule knows keeps what it has."""
    names = {key: key for key in keys if not any(re.search(pattern, key) for pattern in naming.drop)}
    table: Naming | None = naming
    while table is not None:
        present = frozenset(names.values())
        for rule in table.rules:
            names = {key: rule.apply(name, present) for key, name in names.items()}
            present = frozenset(names.values())
        if table.skips_blocks:
            names = _numbered(names)
        table = table.then
    return names


_BLOCK = re.compile(r"^(stages\.\d+\.blocks)\.(\d+)\.")


def _numbered(names: dict[str, str]) -> dict[str, str]:
    """Number the blocks of each stage without gaps."""
    used: dict[str, set[int]] = {}
    for name in names.values():
        if found := _BLOCK.match(name):
            used.setdefault(found[1], set()).add(int(found[2]))
    place = {stage: {j: n for n, j in enumerate(sorted(numbers))} for stage, numbers in used.items()}
    return {key: _BLOCK.sub(lambda m: f"{m[1]}.{place[m[1]][int(m[2])]}.", name) for key, name in names.items()}
