"""Keys and values that stay on the device from one look to the next."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mdsample.backend.kv_plan import Memory, Turn
from mdsample.core.arrays import Bools, Ints, Longs
from mdsample.core.rows import Rows
from mdsample.models.cache import Cache
from mdsample.models.families.trunk import Trunk
from mdsample_torch.device import upload


class Past:
    """Of the rows of the last look, layer by layer, `[B, L, kv heads, head_dim]`; rows that left make room at once."""

    def __init__(self, cache: Cache, trunk: Trunk) -> None:
        """Raises `CacheError` if the cache does not suit the trunk."""
        self._memory = Memory(cache, trunk.block)
        self._trunk = trunk
        self._layers: list[tuple[Tensor, Tensor]] = []

    def turn(self, rows: Rows, tokens: Ints, valid: Bools, asked: Bools) -> Turn:
        """As `Memory.turn`."""
        return self._memory.turn(rows, tokens, valid, asked)

    def take(
        self, turn: Turn, shape: tuple[int, int], dtype: torch.dtype, device: torch.device
    ) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer for this look's rows, to be written into; `shape`: B or more, and L.

        Until `keep`, nothing is remembered: a look that fails leaves no half-written row behind.
        """
        self._memory.forget()
        rows, length = shape
        source = np.pad(turn.source, (0, rows - len(turn.source)), constant_values=-1)
        made = [self._arranged(layer, source, length) for layer in self._layers] or [
            self._empty(rows, length, dtype, device) for _ in range(self._trunk.layers)
        ]
        self._layers = made
        return made

    def keep(self, turn: Turn) -> None:
        """The look was carried out."""
        self._memory.keep(turn)

    def _empty(self, rows: int, length: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        shape = (rows, length, self._trunk.kv_heads, self._trunk.head_dim)
        # zeros: nobody sees what was never written, but 0 · NaN would be NaN
        return torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device)

    def _arranged(self, layer: tuple[Tensor, Tensor], source: Longs, length: int) -> tuple[Tensor, Tensor]:
        rows, width = layer[0].shape[:2]
        if width == length and rows == len(source) and ((source == range(rows)) | (source < 0)).all():
            # what stays of rows that begin anew is never seen
            return layer
        made = self._empty(len(source), length, layer[0].dtype, layer[0].device)
        (there,) = (source >= 0).nonzero()
        to, of = upload(there, layer[0].device), upload(source[there], layer[0].device)
        both = min(width, length)
        for new, old in zip(made, layer, strict=True):
            new[to, :both] = old[of, :both]
        return made
