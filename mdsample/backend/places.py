"""One forward pass as a trunk on a device needs it: tokens, masks and indices, made on the host.

Tokens of all rows are packed: T of them are computed, whatever state their rows are in. A backend takes these arrays to
its device with `map`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from mdsample.backend.views import Views, hidden_positions, horizon, sight
from mdsample.core.arrays import Bools, Longs, arange64
from mdsample.models.families.trunk import Trunk

A = TypeVar("A")
B = TypeVar("B")


@attrs.frozen(eq=False)
class QueryLayout(Generic[A]):
    """N of the T tokens that are computed, as attention asks for them: B rows of M, short ones repeat their first."""

    #: which of the N stands where, `[B, M]` int64; `None`: they are in rows of M already
    pad_index: A | None
    #: where the N are in the grid, flat, int64; `None`: they are the grid
    unpad_index: A | None
    #: which of the T tokens the N are, int64; `None`: all
    select: A | None
    #: rows
    batch: int
    #: what they see, bool, `[B, M, L]`, or `[B, 1, L]` where all of a row's see the same; `None`: everything
    mask: A | None
    #: what they see in layers with a window, as `mask`; `None`: there are no such layers
    near: A | None = None

    def map(self, to: Callable[[A], B]) -> QueryLayout[B]:
        """The same with every array as `to` makes it."""
        pad_index, unpad_index, select, mask, near = (
            None if x is None else to(x) for x in (self.pad_index, self.unpad_index, self.select, self.mask, self.near)
        )
        return QueryLayout(pad_index, unpad_index, select, self.batch, mask, near)


@attrs.frozen(eq=False)
class PackedBatch(Generic[A]):
    """T tokens of B rows of L positions are computed, row by row; N of them are wanted of the last layer."""

    #: `[T]` int64
    tokens: A
    #: `[T]` int64
    positions: A
    #: B and L: keys and values are a grid of these
    shape: tuple[int, int]
    #: where the T are in that grid, flat, int64; `None`: they are the grid
    cells: A | None
    every: QueryLayout[A]
    last: QueryLayout[A]

    def map(self, to: Callable[[A], B]) -> PackedBatch[B]:
        """The same with every array as `to` makes it."""
        return PackedBatch(
            to(self.tokens),
            to(self.positions),
            self.shape,
            None if self.cells is None else to(self.cells),
            self.every.map(to),
            self.last.map(to),
        )


def packed(trunk: Trunk, seen: Views, active: Bools) -> PackedBatch[NDArray[Any]]:
    """The positions that are `active [B, L]`, B the views: those asked for are; wanted ones are valid.

    Positions that are valid and not active have their keys and values already.
    """
    length = int(np.flatnonzero(seen.valid.any(0))[-1]) + 1
    tokens, valid, active = seen.tokens[:, :length], seen.valid[:, :length], active[:, :length]
    upto, since = sight(trunk, seen.start, length), horizon(trunk, seen.start, length)
    rows, positions = np.nonzero(active)
    order = np.cumsum(active).reshape(active.shape) - 1
    asked_rows, asked = hidden_positions(trunk, seen)
    everything = len(rows) == active.size
    return PackedBatch(
        tokens[active].astype(np.int64),
        positions,
        (len(valid), length),
        None if everything else rows * length + positions,
        _queries(valid, upto, rows, positions, None, since),
        _queries(valid, upto, asked_rows, asked, order[asked_rows, asked]),
    )


def bucketed(trunk: Trunk, seen: Views, active: Bools) -> PackedBatch[NDArray[Any]]:
    """As `packed`, but all except `last` is of few different shapes: a grid of B rows with M tokens each, over L.

    B, M and L are rounded up. A row is filled up with its own first token, which gives the same keys and values once
    more, and the batch with copies of its first row, whose outputs are not read.
    """
    length = int(np.flatnonzero(seen.valid.any(0))[-1]) + 1
    tokens, valid, active = seen.tokens[:, :length], seen.valid[:, :length], active[:, :length]
    rows, positions = np.nonzero(active)
    rank = np.cumsum(active, 1) - 1
    most = rounded(int(active.sum(1).max()))
    table = np.repeat(np.argmax(active, 1)[:, None], most, 1)
    table[rows, rank[rows, positions]] = positions
    asked_rows, asked = hidden_positions(trunk, seen)
    batch, wide = rounded(len(valid)), rounded(length)
    row = np.where(arange64(batch) < len(valid), arange64(batch), 0)[:, None]
    there = np.pad(valid, ((0, 0), (0, wide - length)))[row[:, 0]]
    upto = sight(trunk, None if seen.start is None else seen.start[row[:, 0]], wide)
    at = table[row[:, 0]]
    return PackedBatch(
        tokens[row, at].astype(np.int64).ravel(),
        at.ravel(),
        (batch, wide),
        (arange64(batch)[:, None] * wide + at).ravel(),
        QueryLayout(None, None, None, batch, _seen(there, upto, at)),
        _queries(there, upto, asked_rows, asked, asked_rows * most + rank[asked_rows, asked]),
    )


def rounded(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, …: so few sizes that each can be compiled, at most a third is idle."""
    power = 1 << (count - 1).bit_length()
    return power // 4 * 3 if count <= power // 4 * 3 else power


def _queries(
    valid: Bools,
    upto: Longs | None,
    rows: Longs,
    positions: Longs,
    select: Longs | None,
    since: Longs | None = None,
) -> QueryLayout[NDArray[Any]]:
    """`upto`, `since`: as `sight` and `horizon` give them."""
    counts = np.bincount(rows, minlength=len(valid))
    starts = np.cumsum(counts) - counts
    most = int(counts.max())
    columns = np.arange(len(rows)) - starts[rows]
    # a row that asks nothing repeats some other's place
    grid = np.repeat(np.minimum(starts, len(rows) - 1)[:, None], most, 1)
    grid[rows, columns] = arange64(len(rows))
    everywhere = upto is None and valid.all()
    mask = None if everywhere else _seen(valid, upto, positions[grid])
    near = None
    if since is not None and mask is not None:
        first = np.take_along_axis(since, positions[grid], 1)
        near = mask & (arange64(valid.shape[1]) >= first[:, :, None])
    full = len(rows) == grid.size
    return QueryLayout(None if full else grid, None if full else rows * most + columns, select, len(valid), mask, near)


def _seen(valid: Bools, upto: Longs | None, queries: Longs) -> Bools:
    """What queries at positions `[B, M]` see, `[B, M, L]`, or `[B, 1, L]` where all of a row's see the same.

    `upto`: as `sight` gives it.
    """
    if upto is None:
        return np.ascontiguousarray(valid[:, None])
    last = upto[0][queries] if len(upto) == 1 else np.take_along_axis(upto, queries, 1)
    return (arange64(valid.shape[1]) <= last[:, :, None]) & valid[:, None]
