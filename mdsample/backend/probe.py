"""How fast this machine's CPU reads memory and multiplies, as far as a second's measurement tells."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from mdsample.models.cost import Machine

#: floats of the matrix that is read, far beyond a cache; the side of those that are multiplied
_READ, _SIDE, _REPEATS = (1 << 13, 1 << 13), 1024, 5


def probe() -> Machine:
    """Rates of NumPy in float32, with the threads that it has: the best of a few large reads and products."""
    wide, vector = np.ones(_READ, np.float32), np.ones(_READ[1], np.float32)
    square = np.ones((_SIDE, _SIDE), np.float32)
    read, multiplied = _least(lambda: wide @ vector), _least(lambda: square @ square)
    return Machine(wide.nbytes / read, 2 * _SIDE**3 / multiplied)


def _least(work: Callable[[], object]) -> float:
    def seconds() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return min(seconds() for _ in range(_REPEATS))
