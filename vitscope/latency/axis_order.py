"""Order: how the axes of a tensor follow one another in memory, and what a permutation makes of it."""

from __future__ import annotations

from vitscope.cost.ops import base_name
from vitscope.graph.record import OpRecord, Shape

# The axes of a tensor from the outermost in memory to the innermost; () as the network has them. A first element of -1 is
# channels in blocks, with the order that the axes have beside that.
Order = tuple[int, ...]
PLAIN: Order = ()
CHANNELS_LAST: Order = (0, 2, 3, 1)
BLOCKED: Order = (-1, 0, 1, 2, 3)
ANY: Order = (-2,)  # a map that enters the graph: it lies as its first reader wants it


def permuting_axes(op: OpRecord, rank: int) -> Order:
    """The order in which a permuting operation takes the axes of a tensor of `rank`."""
    name = base_name(op)
    axes = list(range(rank))
    if name == "permute":
        dims = op.attr("dims")
        return tuple(int(d) % rank for d in dims) if isinstance(dims, tuple) else tuple(axes)
    first, second = (0, rank - 1) if name == "t" else (op.attr("dim0", 0), op.attr("dim1", 1))
    if isinstance(first, int) and isinstance(second, int) and rank:
        first, second = first % rank, second % rank
        axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


def permuted(order: Order, axes: Order) -> Order:
    """How a tensor that lies in `order` lies by its new axes: new axis i is the old `axes[i]`."""
    blocked = bool(order) and order[0] == -1
    old = order[1:] if blocked else order or tuple(range(len(axes)))
    place = {axis: i for i, axis in enumerate(axes)}
    new = tuple(place[a] for a in old)
    return (-1, *new) if blocked else new


def movement(order: Order, want: Order, rank: int) -> str:
    """What copying from `order` to `want` does to memory: `permute_rows` keeps the innermost axis where it is, `permute` puts
    one axis elsewhere, as a matrix is transposed, and `permute_scattered` is all else. Axes of one element count: runtimes
    look at the axes that they are given."""
    every = tuple(range(rank))
    places = {axis: place for place, axis in enumerate(order or every)}
    moved = [places[axis] for axis in want or every]
    if moved[-1] == rank - 1:
        return "permute_rows"
    rest = ([place for place in moved if place != one] for one in every)
    return "permute" if any(found == sorted(found) for found in rest) else "permute_scattered"


def lies_alike(order: Order, want: Order, shape: Shape) -> bool:
    """Whether two orders are the same memory: an axis of one element may stand anywhere."""
    if order == want:
        return True
    if (order[:1] == (-1,)) != (want[:1] == (-1,)) or ANY in (order, want):
        return False
    every = tuple(range(len(shape)))
    a, b = order or every, want or every
    return [i for i in a if i < 0 or shape[i] > 1] == [i for i in b if i < 0 or shape[i] > 1]
