"""The input of every inference: one batch of standard normal noise, the same in every adapter. numpy only."""

from __future__ import annotations

from typing import Any

_SEED = 1


def noise(shape: Any, seed: int = _SEED) -> Any:
    """float32 array of `shape` (B, C, H, W), the same for the same seed on every machine."""
    import numpy

    return numpy.random.default_rng(seed).standard_normal(tuple(shape), dtype=numpy.float32)


def fitted(array: Any, shape: Any, dtype: Any) -> Any:
    """`array` (B, C, H, W) as a file takes it: of `dtype`, and (B, H, W, C) where that is the file's `shape`.

    Raises ValueError where the file takes neither.
    """
    import numpy

    wanted = tuple(int(side) for side in shape)
    if wanted != array.shape:
        turned = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        if turned.shape != wanted:
            raise ValueError(f"the file takes an input of {list(wanted)}, not {list(array.shape)}")
        array = turned
    return numpy.ascontiguousarray(array.astype(dtype))


def sized(declared: Any, shape: Any) -> list[int]:
    """The sides that a file `declared`, with those that it leaves open (no positive integer) taken from `shape` (B, C, H, W).

    They stand in the order in which the file has them: (B, H, W, C) where its declared sides fit no other.
    """
    batch, channels, height, width = (int(side) for side in shape)
    sides = [int(side) if isinstance(side, int) and side > 0 else 0 for side in declared]
    for order in ([batch, channels, height, width], [batch, height, width, channels]):
        if len(sides) == 4 and all(own in (0, wanted) for own, wanted in zip(sides, order)):  # noqa: B905  (Python 3.8)
            return order
    return sides


def pixels(array: Any, dtype: Any) -> Any:
    """`array` of normal noise spread over the values of `dtype` where that is a type of whole numbers, else as it is."""
    import numpy

    if not numpy.issubdtype(dtype, numpy.integer):
        return array
    limits = numpy.iinfo(dtype)
    middle = (limits.max + limits.min + 1) / 2
    return numpy.clip(numpy.round(array * (limits.max - middle) / 3 + middle), limits.min, limits.max)
