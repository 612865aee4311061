"""Keys and values that stay on the device from one look to the next."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mdsample.backend.kv_plan import Memory, Turn
from mdsample.core.arrays import Bools, Ints, Longs
from mdsample.core.rows import Rows
from mdsample.models.cache import Cache
from mdsample.models.families.trunk import Trunk
from mdsample_mlx.device import upload_indices

#: keys and values of every layer, `[B, L, kv heads, head_dim]`; a pass puts new ones in their place
Stores = list[tuple[mx.array, mx.array]]


class Past:
    """Of the rows of the last look; rows that left make room at once."""

    def __init__(self, cache: Cache, trunk: Trunk) -> None:
        """Raises `CacheError` if the cache does not suit the trunk."""
        self._memory = Memory(cache, trunk.block)
        self._trunk = trunk
        self._layers: Stores = []

    def turn(self, rows: Rows, tokens: Ints, valid: Bools, asked: Bools) -> Turn:
        """As `Memory.turn`."""
        return self._memory.turn(rows, tokens, valid, asked)

    def take(self, turn: Turn, shape: tuple[int, int], dtype: mx.Dtype) -> Stores:
        """Keys and values for this look's rows, to be replaced by those of the look; `shape`: B or more, and L.

        Until `keep`, nothing is remembered: a look that fails leaves no half-written row behind.
        """
        self._memory.forget()
        rows, length = shape
        source = np.pad(turn.source, (0, rows - len(turn.source)), constant_values=-1)
        whole = rows, length, self._trunk.kv_heads, self._trunk.head_dim
        # zeros: nobody sees what was never written, but 0 · NaN would be NaN
        empty = mx.zeros(whole, dtype)
        before, self._layers = self._layers, []
        return [(_arranged(keys, source, empty), _arranged(values, source, empty)) for keys, values in before] or [
            (empty, empty)
        ] * self._trunk.layers

    def keep(self, turn: Turn, made: Stores) -> None:
        """The look was carried out, and these are its keys and values."""
        self._layers = made
        self._memory.keep(turn)


def _arranged(old: mx.array, source: Longs, empty: mx.array) -> mx.array:
    rows, width = old.shape[:2]
    if old.shape == empty.shape and ((source == range(rows)) | (source < 0)).all():
        # what stays of rows that begin anew is never seen
        return old
    (there,) = (source >= 0).nonzero()
    if not len(there):
        return empty
    both = min(width, empty.shape[1])
    made = mx.array(empty)
    made[upload_indices(there), :both] = old[upload_indices(source[there]), :both]
    return made
