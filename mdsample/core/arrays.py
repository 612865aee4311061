"""The array types that cross room boundaries, and two typed helpers. B = rows, L = positions, V = vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
#: numbers of rows or places
Indices = NDArray[np.integer[Any]]
Longs = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def any_in_row(where: Bools) -> Bools:
    """Whether each row of `where [B, L]` is true anywhere, `[B]`."""
    return np.logical_or.reduce(where, axis=1)


def arange64(count: int) -> Longs:
    """0, 1, …, `count` − 1."""
    return np.arange(count, dtype=np.int64)
