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
