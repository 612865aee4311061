"""Keys and values that stay on the device from one pass to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from mdsample.backend.kv_plan import CachePlan, CachePlanner
from mdsample.backend.views import Views
from mdsample.core.arrays import Bools
from mdsample.core.rows import Rows
from mdsample.models.cache import Cache
from mdsample.models.families.trunk import Trunk
from mdsample_torch.device import upload


class KVCache:
    """Of the rows of the last pass, layer by layer, `[B, L, kv heads, head_dim]`; rows that left make room at once."""

    def __init__(self, cache: Cache, trunk: Trunk) -> None:
        """Raises `CacheError` if the cache does not suit the trunk."""
        self._planner = CachePlanner(cache, trunk.block, trunk.conditioned)
        self._trunk = trunk
        self._shape = (0, 0)
        self._layers: list[tuple[Tensor, Tensor]] = []

    def plan(self, rows: Rows, seen: Views, wanted: Bools) -> CachePlan:
        """As `CachePlanner.plan`, of the rows of a query; `wanted [V, L]`: where hidden states are asked for."""
        start = None if seen.start is None else seen.start.tolist()
        # a block is recomputed as a whole: its last place, too, from which a shifted model reads nothing of it
        wanted = wanted if self._trunk.block is not None else wanted | seen.wanted
        return self._planner.plan(rows.take(seen.row), seen.tokens, seen.valid, wanted, start)

    def buffers(
        self, plan: CachePlan, shape: tuple[int, int], dtype: torch.dtype, device: torch.device
    ) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer for this pass's rows, to be written into; `shape`: B or more, and L.

        Until `commit`, nothing is remembered: a pass that fails leaves no half-written row behind.
        """
        self._planner.forget()
        moves = plan.moves(self._shape, shape)
        if moves is not None:
            to, of = upload(moves.to, device), upload(moves.of, device)

            def arranged(old: Tensor | None, layer: int) -> Tensor:
                # zeros: what was never written is not read, but 0 · NaN would be NaN
                new = torch.zeros((*shape, *self._trunk.heads_of(layer)), dtype=dtype, device=device)
                if old is not None:
                    new[to, : moves.length] = old[of, : moves.length]
                return new

            before = self._layers or [(None, None)] * self._trunk.layers
            self._shape, self._layers = (
                shape,
                [(arranged(keys, i), arranged(values, i)) for i, (keys, values) in enumerate(before)],
            )
        return self._layers

    def commit(self, plan: CachePlan) -> None:
        """The pass was run."""
        self._planner.commit(plan)
