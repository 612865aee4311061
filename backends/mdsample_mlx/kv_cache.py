"""Keys and values that stay on the device from one pass to the next."""

from __future__ import annotations

import mlx.core as mx

from mdsample.backend.kv_plan import CachePlan, CachePlanner
from mdsample.backend.views import Views
from mdsample.core.arrays import Bools
from mdsample.core.rows import Rows
from mdsample.models.cache import Cache
from mdsample.models.families.trunk import Trunk
from mdsample_mlx.device import upload_indices

#: keys and values of every layer, `[B, L, kv heads, head_dim]`; a pass puts new ones in their place
Buffers = list[tuple[mx.array, mx.array]]


class KVCache:
    """Of the rows of the last pass; rows that left make room at once."""

    def __init__(self, cache: Cache, trunk: Trunk) -> None:
        """Raises `CacheError` if the cache does not suit the trunk."""
        self._planner = CachePlanner(cache, trunk.block, trunk.conditioned)
        self._trunk = trunk
        self._shape = (0, 0)
        self._layers: Buffers = []

    def plan(self, rows: Rows, seen: Views, wanted: Bools) -> CachePlan:
        """As `CachePlanner.plan`, of the rows of a query; `wanted [V, L]`: where hidden states are asked for."""
        start = None if seen.start is None else seen.start.tolist()
        # a block is recomputed as a whole: its last place, too, from which a shifted model reads nothing of it
        wanted = wanted if self._trunk.block is not None else wanted | seen.wanted
        return self._planner.plan(rows.take(seen.row), seen.tokens, seen.valid, wanted, start)

    def buffers(self, plan: CachePlan, shape: tuple[int, int], dtype: mx.Dtype) -> Buffers:
        """Keys and values for this pass's rows, to be replaced by those of the pass; `shape`: B or more, and L.

        Until `commit`, nothing is remembered: a pass that fails leaves no half-written row behind.
        """
        self._planner.forget()
        before, self._layers = self._layers, []
        moves = plan.moves(self._shape if before else (0, 0), shape)
        self._shape = shape
        if moves is None:
            return before
        # zeros: what was never written is not read, but 0 · NaN would be NaN
        sizes = [self._trunk.heads_of(layer) for layer in range(self._trunk.layers)]
        empty = {size: mx.zeros((*shape, *size), dtype) for size in set(sizes)}
        if not before or not len(moves.to):
            return [(empty[size], empty[size]) for size in sizes]
        to, of, length = upload_indices(moves.to), upload_indices(moves.of), moves.length

        def arranged(old: mx.array) -> mx.array:
            new = mx.array(empty[old.shape[-2], old.shape[-1]])
            new[to, :length] = old[of, :length]
            return new

        return [(arranged(keys), arranged(values)) for keys, values in before]

    def commit(self, plan: CachePlan, layers: Buffers) -> None:
        """The pass was run, and these are its keys and values."""
        self._layers = layers
        self._planner.commit(plan)
