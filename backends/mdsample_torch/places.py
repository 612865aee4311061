"""One forward pass as the device needs it: tokens, masks and indices, made on the host from NumPy arrays."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor

from mdsample.arrays import Bools, Ints, Longs, upto
from mdsample.families.trunk import Trunk
from mdsample_torch.device import upload


@attrs.frozen(eq=False)
class Queries:
    """N of the T tokens that are computed, as attention asks for them: B rows of M, short ones repeat their first."""

    #: which of the N stands where, `[B, M]` int64; `None`: they are in rows of M already
    grid: Tensor | None
    #: where the N are in the grid, flat, int64; `None`: they are the grid
    back: Tensor | None
    #: which of the T tokens the N are, int64; `None`: all
    chosen: Tensor | None
    #: rows
    batch: int
    #: what they see, bool, broadcast to `[B, 1, M · heads / kv heads, L]`; `None`: everything
    mask: Tensor | None


@attrs.frozen(eq=False)
class Places:
    """T tokens of B rows of L positions are computed, row by row; N of them are wanted of the last layer."""

    #: `[T]` int64
    tokens: Tensor
    #: `[T]` int64
    positions: Tensor
    #: B and L: keys and values are a grid of these
    shape: tuple[int, int]
    #: where the T are in that grid, flat, int64; `None`: they are the grid
    spread: Tensor | None
    every: Queries
    last: Queries


def asked_at(trunk: Trunk, valid: Bools, wanted: Bools) -> tuple[Longs, Longs]:
    """Rows and positions of the hidden states from which the wanted places' logits are read, `[N]`, row by row."""
    rows, positions = np.nonzero(wanted)
    return rows, _before(valid)[rows, positions] if trunk.shifted else positions


def places(trunk: Trunk, tokens: Ints, valid: Bools, wanted: Bools, active: Bools, device: torch.device) -> Places:
    """Arrays `[B, L]`; every row has a wanted position, wanted ones are valid, the hidden states asked for active.

    Positions that are valid and not active have their keys and values already.
    """
    length = int(np.flatnonzero(valid.any(0))[-1]) + 1
    tokens, valid, wanted, active = tokens[:, :length], valid[:, :length], wanted[:, :length], active[:, :length]
    rows, positions = np.nonzero(active)
    order = np.cumsum(active).reshape(active.shape) - 1
    asked_rows, asked = asked_at(trunk, valid, wanted)
    everything = len(rows) == active.size
    return Places(
        upload(tokens[active].astype(np.int64), device),
        upload(positions, device),
        (len(valid), length),
        None if everything else upload(rows * length + positions, device),
        _queries(trunk, valid, rows, positions, None, device),
        _queries(trunk, valid, asked_rows, asked, order[asked_rows, asked], device),
    )


def static_places(
    trunk: Trunk, tokens: Ints, valid: Bools, wanted: Bools, active: Bools, device: torch.device
) -> Places:
    """As `places`, but all except `last` is of few different shapes: a grid of B rows with M tokens each, over L.

    B, M and L are rounded up. A row is filled up with its own first token, which gives the same keys and values once
    more, and the batch with copies of its first row, at which nobody looks.
    """
    length = int(np.flatnonzero(valid.any(0))[-1]) + 1
    tokens, valid, wanted, active = tokens[:, :length], valid[:, :length], wanted[:, :length], active[:, :length]
    rows, positions = np.nonzero(active)
    rank = np.cumsum(active, 1) - 1
    most = rounded(int(active.sum(1).max()))
    table = np.repeat(np.argmax(active, 1)[:, None], most, 1)
    table[rows, rank[rows, positions]] = positions
    asked_rows, asked = asked_at(trunk, valid, wanted)
    batch, wide = rounded(len(valid)), rounded(length)
    row = np.where(upto(batch) < len(valid), upto(batch), 0)[:, None]
    seen = np.pad(valid, ((0, 0), (0, wide - length)))[row[:, 0]]
    at = table[row[:, 0]]
    return Places(
        upload(tokens[row, at].astype(np.int64).ravel(), device),
        upload(at.ravel(), device),
        (batch, wide),
        upload((upto(batch)[:, None] * wide + at).ravel(), device),
        Queries(None, None, None, batch, _mask(_seen(seen, at, _blocks(trunk, wide)), _group(trunk), device)),
        _queries(trunk, seen, asked_rows, asked, asked_rows * most + rank[asked_rows, asked], device),
    )


def rounded(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, …: so few sizes that each can be compiled, at most a third is idle."""
    power = 1 << (count - 1).bit_length()
    return power // 4 * 3 if count <= power // 4 * 3 else power


def _queries(
    trunk: Trunk, valid: Bools, rows: Longs, positions: Longs, chosen: Longs | None, device: torch.device
) -> Queries:
    counts = np.bincount(rows, minlength=len(valid))
    starts = np.cumsum(counts) - counts
    most = int(counts.max())
    columns = np.arange(len(rows)) - starts[rows]
    # a row that asks nothing repeats some other's place
    grid = np.repeat(np.minimum(starts, len(rows) - 1)[:, None], most, 1)
    grid[rows, columns] = upto(len(rows))
    block = _blocks(trunk, valid.shape[1])
    everywhere = block is None and valid.all()
    mask = _mask(None if everywhere else _seen(valid, positions[grid], block), _group(trunk), device)
    full = len(rows) == grid.size
    return Queries(
        None if full else upload(grid, device),
        None if full else upload(rows * most + columns, device),
        None if chosen is None else upload(chosen, device),
        len(valid),
        mask,
    )


def _blocks(trunk: Trunk, length: int) -> Longs | None:
    """Number of each position's block; `None`: everything sees everything."""
    return None if trunk.block is None else upto(length) // trunk.block


def _group(trunk: Trunk) -> int:
    """Query heads that share a key head."""
    return trunk.heads // trunk.kv_heads


def _before(valid: Bools) -> Longs:
    """The position of the token before each, or its own if it is its row's first, `[B, L]`."""
    own = upto(valid.shape[1])
    latest = np.maximum.accumulate(np.where(valid, own, -1), axis=1)
    before = np.concatenate([np.full((len(valid), 1), -1), latest[:, :-1]], axis=1)
    return np.where(before < 0, own, before)


def _seen(valid: Bools, queries: Longs, block: Longs | None) -> Bools:
    """What queries at positions `[B, M]` see, `[B, M, L]`, or `[B, 1, L]` where all of a row's see the same."""
    if block is None:
        return valid[:, None]
    return (block[None, None] <= block[queries][:, :, None]) & valid[:, None]


def _mask(seen: Bools | None, group: int, device: torch.device) -> Tensor | None:
    """`[B, M, L]` once for each query head that shares a key head, as `attend` stacks them."""
    if seen is None:
        return None
    mask = upload(np.ascontiguousarray(seen), device)[:, None]
    return mask if mask.shape[2] == 1 or group == 1 else mask.repeat(1, 1, group, 1)
