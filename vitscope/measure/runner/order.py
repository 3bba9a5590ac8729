"""Kernels laid beside the operations of a file, for a profile that tells kinds in order and no names. Standard library only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

_COMPUTES = 8  # pairs of little operations that one pair of operations with multiply-accumulates outweighs


class FileOp(NamedTuple):
    """An operation of the file: its number, its kind, and the names that the file has for it or for what it makes."""

    number: int
    kind: str
    names: list[str]


def in_order(
    allowed: Sequence[Collection[str]], operations: Sequence[FileOp], computes: Collection[str]
) -> list[list[str]]:
    """The names of the operation that each kernel is, both in their order: the pairing with the most pairs of one kind.

    `allowed` are the kinds that each kernel may be, `computes` the kinds that weigh more than others. Operations are left
    out freely, since runtimes fuse and elide them. A kernel that pairs with none takes the names of the pairs before
    and after it, so that it belongs to their block where that is one.
    """
    rows, columns = len(allowed), len(operations)
    gains = [_COMPUTES if operation.kind in computes else 1 for operation in operations]
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows - 1, -1, -1):
        here, below = best[row], best[row + 1]
        for column in range(columns - 1, -1, -1):
            value = max(below[column], here[column + 1])
            if operations[column].kind in allowed[row]:
                value = max(value, below[column + 1] + gains[column])
            here[column] = value
    found: list[list[str] | None] = []
    row = column = 0
    while row < rows:
        if (
            column < columns
            and operations[column].kind in allowed[row]
            and best[row][column] == best[row + 1][column + 1] + gains[column]
        ):
            found.append(operations[column].names)
            row, column = row + 1, column + 1
        elif column < columns and best[row][column] == best[row][column + 1]:
            column += 1
        else:
            found.append(None)
            row += 1
    return [names if names is not None else _between(found, place) for place, names in enumerate(found)]


def _between(found: Sequence[list[str] | None], place: int) -> list[str]:
    before = next((names for names in reversed(found[:place]) if names), [])
    after = next((names for names in found[place + 1 :] if names), [])
    return [*before, *after]
